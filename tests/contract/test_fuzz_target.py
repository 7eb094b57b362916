"""The fuzzer's target holds for the conversations it begins with (`make fuzz` goes on from there)."""

import pytest

from parsers.registry import PARSERS
from tests.fuzz.target import one_input, seeds


@pytest.mark.parametrize("name", PARSERS)
def test_conversations(name: str) -> None:
    assert seeds(name)
    for seed in seeds(name):
        one_input(name, seed)
        one_input(name, seed[: len(seed) // 2] + b"\xff" + seed[len(seed) // 2 :])
    one_input(name, b"")
