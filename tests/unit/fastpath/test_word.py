from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import abi
from fastpath.word import Word

WORDS = st.builds(
    Word,
    verdict=st.sampled_from(abi.Verdict),
    scope=st.sampled_from(abi.Scope),
    monitor=st.booleans(),
    reset=st.booleans(),
    reason=st.sampled_from(abi.Reason),
    rule=st.integers(0, 2**24 - 1),
    revision=st.integers(0, 2**24 - 1),
)


@given(WORDS)
def test_round_trip(word: Word) -> None:
    packed = word.pack()
    assert 0 <= packed < 2**64
    assert Word.unpack(packed) == word


def test_layout_of_the_kernel() -> None:
    word = Word(abi.Verdict.DENY, abi.Scope.REQUEST, True, True, abi.Reason.NO_RULE, 0x123456, 0xABCDEF)
    assert word.pack() == 0xABCDEF_123456_05_E2


@pytest.mark.parametrize("field", ["rule", "revision"])
@pytest.mark.parametrize("value", [-1, 1 << 24])
def test_what_does_not_fit_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match="24 bits"):
        Word(abi.Verdict.ALLOW, **{field: value}).pack()


@pytest.mark.parametrize("word", [0xF, 0x31, 0xFF01])
def test_unknown_values_are_refused(word: int) -> None:
    with pytest.raises(ValueError, match="not a valid"):
        Word.unpack(word)
