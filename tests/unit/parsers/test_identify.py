from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.base import TO_CLIENT, TO_SERVER
from parsers.identify import (
    NEED_MORE,
    NO_MATCH,
    SUPPORTED,
    TCP,
    UDP,
    Answer,
    Confidence,
    Match,
    NeedMore,
    NoMatch,
    identify,
)
from tests.contract.identify_vectors import (
    DIALOGUES,
    GET,
    INSPECTOR,
    LIKELY,
    MALFORMED,
    MORE,
    NAMED,
    PREFACE,
    UNKNOWN,
    VECTORS,
    WHOLE,
    Dialogue,
    Vector,
)
from tests.data import STREAMS, recorded

# What each side of a recorded connection says first.
RECORDINGS = [
    Dialogue(
        f"{protocol}, {name}",
        parts[0][0],
        *(next(data for direction, data in parts if direction == side) for side in (TO_SERVER, TO_CLIENT)),
        identified,
    )
    for protocol, identified in STREAMS.items()
    for name, parts in recorded(protocol).items()
]


def ask(vector: Vector, data: bytes) -> Answer:
    return identify(data, b"", vector.l4) if vector.direction == TO_SERVER else identify(b"", data, vector.l4)


def text(answer: Answer) -> str:
    if isinstance(answer, NoMatch):
        return UNKNOWN
    if isinstance(answer, NeedMore):
        return MORE
    doubt = LIKELY if answer.confidence < Confidence.SURE else ""
    return answer.protocol + (MALFORMED if answer.malformed else "") + doubt


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


DECIDED = [*WHOLE, *NAMED]


@pytest.mark.parametrize("vector", DECIDED, ids=[v.name for v in DECIDED])
def test_more_bytes_change_nothing(vector: Vector) -> None:
    if vector.l4 == TCP:
        assert text(ask(vector, vector.data + vector.data)) == vector.parsers


def test_nothing_seen() -> None:
    assert identify(b"", b"") == NEED_MORE
    assert identify(b"", b"", UDP) == NO_MATCH
    assert identify(b"abc", b"", 1) == NO_MATCH


def test_both_sides_together() -> None:
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


@pytest.mark.parametrize("dialogue", DIALOGUES + RECORDINGS, ids=[d.name for d in DIALOGUES + RECORDINGS])
def test_dialogues(dialogue: Dialogue) -> None:
    assert text(identify(dialogue.to_server, dialogue.to_client)) == dialogue.parsers


@pytest.mark.parametrize("dialogue", DIALOGUES + RECORDINGS, ids=[d.name for d in DIALOGUES + RECORDINGS])
def test_the_answer_does_not_depend_on_how_the_bytes_come(dialogue: Dialogue) -> None:
    """A byte at a time, one side before the other: need more until the answer, and none but that."""
    sizes = [(0, 0)]
    lengths = len(dialogue.to_server), len(dialogue.to_client)
    for side in (dialogue.first, 1 - dialogue.first):
        for size in range(1, lengths[side] + 1):
            sizes.append((size, sizes[-1][1]) if side == TO_SERVER else (sizes[-1][0], size))
    seen = [text(identify(dialogue.to_server[:a], dialogue.to_client[:b])) for a, b in sizes]
    assert set(seen) == {MORE, dialogue.parsers}


def test_every_supported_protocol_has_vectors() -> None:
    assert {vector.parsers for vector in VECTORS} | {dialogue.parsers for dialogue in DIALOGUES} >= SUPPORTED


@pytest.mark.parametrize("first", DECIDED, ids=[v.name for v in DECIDED])
def test_the_other_sides_bytes_of_another_protocol_never_make_a_third(first: Vector) -> None:
    for second in DECIDED:
        if TCP in {first.l4, second.l4} and first.direction != second.direction:
            pair = (first, second) if first.direction == TO_SERVER else (second, first)
            answer = text(identify(pair[0].data, pair[1].data))
            assert answer in {first.parsers, second.parsers, UNKNOWN}, second.name


ALPHABETS = (
    bytes(range(256)),
    bytes(range(32, 127)),
    bytes(6) + bytes(range(20)),
    b"\0\0\0\1\2\3\4\x10\x20" + bytes(range(65, 91)),
    b"abcdefgetsadd 0123\r\n$*+",
)


def test_chance_is_no_protocol() -> None:
    choose = random.Random(7)
    for number in range(20_000):
        sides = [bytes(choose.choices(choose.choice(ALPHABETS), k=choose.choice((8, 16, 32, 64)))) for _ in range(2)]
        answer = identify(sides[0], sides[1] if number % 2 else b"", UDP if number % 5 == 0 else TCP)
        assert not isinstance(answer, Match), sides


@given(st.sampled_from(DECIDED), st.data())
def test_one_changed_byte_never_makes_it_another_protocol(vector: Vector, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(vector.data) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = vector.data[:at] + bytes((byte,)) + vector.data[at + 1 :]
    answer = ask(vector, changed)
    assert not isinstance(answer, Match) or answer.protocol == vector.parsers
