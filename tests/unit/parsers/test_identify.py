from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.base import TO_SERVER
from parsers.identify import NEED_MORE, NO_MATCH, TCP, UDP, Answer, Match, NeedMore, NoMatch, identify
from tests.contract.identify_vectors import (
    GET,
    INSPECTOR,
    MALFORMED,
    MORE,
    PREFACE,
    UNKNOWN,
    VECTORS,
    WHOLE,
    Vector,
)


def ask(vector: Vector, data: bytes) -> Answer:
    return identify(data, b"", vector.l4) if vector.direction == TO_SERVER else identify(b"", data, vector.l4)


def text(answer: Answer) -> str:
    if isinstance(answer, NoMatch):
        return UNKNOWN
    if isinstance(answer, NeedMore):
        return MORE
    return answer.protocol + (MALFORMED if answer.malformed else "")


@pytest.mark.parametrize("vector", VECTORS, ids=[v.name for v in VECTORS])
def test_vectors(vector: Vector) -> None:
    assert text(ask(vector, vector.data)) == vector.parsers


@pytest.mark.parametrize("vector", VECTORS, ids=[v.name for v in VECTORS])
def test_what_the_kernel_names_the_parsers_name_too(vector: Vector) -> None:
    assert vector.kernel in {INSPECTOR, vector.parsers}


STREAMS = [vector for vector in VECTORS if vector.l4 == TCP]


@pytest.mark.parametrize("vector", STREAMS, ids=[v.name for v in STREAMS])
def test_a_prefix_is_never_something_else(vector: Vector) -> None:
    """Need more, then the answer, which stays."""
    seen = [text(ask(vector, vector.data[:size])) for size in range(1, len(vector.data) + 1)]
    first = next((n for n, answer in enumerate(seen) if answer != MORE), len(seen))
    assert set(seen[:first]) <= {MORE}
    assert set(seen[first:]) <= {vector.parsers}, seen


@pytest.mark.parametrize("vector", WHOLE, ids=[v.name for v in WHOLE])
def test_more_bytes_change_nothing(vector: Vector) -> None:
    if vector.l4 == TCP:
        assert text(ask(vector, vector.data + vector.data)) == vector.parsers


def test_nothing_seen() -> None:
    assert identify(b"", b"") == NEED_MORE
    assert identify(b"", b"", UDP) == NO_MATCH
    assert identify(b"abc", b"", 1) == NO_MATCH


def test_both_sides_together() -> None:
    assert identify(b"get a\r\n", b"") == NEED_MORE, "Redis' inline command, or Memcached's"
    assert identify(b"get a\r\n", b"$1\r\nx\r\n") == Match("redis")
    assert identify(b"get a\r\n", b"END\r\n") == NO_MATCH
    assert identify(b"SSH-2.0-x\r\n", b"HTTP/1.1 400 Bad\r\n") == NO_MATCH, "two protocols at once"
    assert identify(GET, b"\0\0\0\4\0\0\0\0\0") == Match("http")


def test_http2_only_by_the_whole_preface() -> None:
    for size in range(1, len(PREFACE)):
        assert identify(PREFACE[:size], b"") == NEED_MORE, size
    assert identify(PREFACE, b"") == Match("http2")
    assert identify(PREFACE[:-1] + b"x", b"") != Match("http2")


@given(st.binary(max_size=120), st.binary(max_size=120), st.sampled_from([TCP, UDP]))
def test_any_bytes_get_an_answer(to_server: bytes, to_client: bytes, l4: int) -> None:
    assert isinstance(identify(to_server, to_client, l4), Match | NoMatch | NeedMore)


@given(st.sampled_from(WHOLE), st.data())
def test_one_changed_byte_never_makes_it_another_protocol(vector: Vector, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(vector.data) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = vector.data[:at] + bytes((byte,)) + vector.data[at + 1 :]
    answer = ask(vector, changed)
    assert not isinstance(answer, Match) or answer.protocol == vector.parsers
