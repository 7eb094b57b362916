from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowpath.core.reassembly import HISTORY_BYTES, QUEUE_BYTES, QUEUE_SEGMENTS, Arrival, Stream

DATA = bytes(random.Random(1).randrange(256) for _ in range(400))


def test_in_order() -> None:
    stream = Stream(100)
    assert stream.push(0, b"abc") == (Arrival.NEW, b"abc")
    assert stream.push(3, b"de") == (Arrival.NEW, b"de")
    assert stream.next == 5


def test_offsets_wrap() -> None:
    stream = Stream(0xFFFFFFF0)
    assert stream.offset(0xFFFFFFF0) == 0
    assert stream.offset(0x10) == 0x20
    assert stream.offset(0xFFFFFFEF) == -1
    for at in range(0, 5 << 32, 1 << 30):
        stream.next = at
        assert stream.offset((0xFFFFFFF0 + at + 5) & 0xFFFFFFFF) == at + 5


def test_ahead_is_queued_and_delivered() -> None:
    stream = Stream(0)
    assert stream.push(3, b"def") == (Arrival.AHEAD, b"")
    assert stream.highest == 6
    assert stream.push(8, b"i") == (Arrival.AHEAD, b"")
    assert stream.push(0, b"abc") == (Arrival.NEW, b"abcdef")
    assert stream.push(6, b"gh") == (Arrival.NEW, b"ghi")
    assert stream.queued == 0


def test_copies_are_old() -> None:
    stream = Stream(0)
    stream.push(0, b"abc")
    stream.push(5, b"fgh")
    assert stream.push(0, b"abc")[0] == Arrival.OLD
    assert stream.push(5, b"fg")[0] == Arrival.OLD
    assert stream.push(-5, b"12345")[0] == Arrival.OLD
    assert stream.push(1, b"bcde") == (Arrival.NEW, b"defgh")


@pytest.mark.parametrize(("at", "data"), [(0, b"aXc"), (2, b"Xde"), (5, b"fX"), (3, b"deX"), (0, b"abcdeX")])
def test_other_bytes_for_a_place_conflict(at: int, data: bytes) -> None:
    stream = Stream(0)
    stream.push(0, b"abc")
    stream.push(5, b"fgh")
    assert stream.push(at, data)[0] == Arrival.CONFLICT
    assert stream.next == 3


def test_acknowledged_bytes_cannot_be_contradicted() -> None:
    stream = Stream(0)
    stream.push(0, b"abcdef")
    stream.acknowledge(3)
    assert stream.push(0, b"XYZ")[0] == Arrival.OLD
    assert stream.push(0, b"XYZX")[0] == Arrival.CONFLICT
    stream.acknowledge(99)
    assert stream.acknowledged == 3, "beyond what was seen is a lie"


def test_queue_is_bounded() -> None:
    stream = Stream(0)
    assert stream.push(QUEUE_BYTES - 10, b"x" * 10)[0] == Arrival.AHEAD
    assert stream.push(QUEUE_BYTES - 10, b"x" * 11)[0] == Arrival.LIMIT
    stream = Stream(0)
    arrivals = [stream.push(at * 2 + 1, b"x")[0] for at in range(QUEUE_SEGMENTS + 1)]
    assert arrivals == [Arrival.AHEAD] * QUEUE_SEGMENTS + [Arrival.LIMIT]


def test_history_is_bounded_and_what_left_it_is_refused() -> None:
    stream = Stream(0)
    for at in range(0, HISTORY_BYTES + 5000, 1000):
        stream.push(at, b"x" * 1000)
        assert stream.retained <= HISTORY_BYTES
    assert stream.push(0, b"y")[0] == Arrival.LIMIT
    stream.acknowledge(stream.next)
    assert stream.push(0, b"y")[0] == Arrival.OLD


@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 120)), max_size=60))
def test_any_order_gives_the_same_bytes(parts: list[tuple[int, int]]) -> None:
    stream = Stream(0xFFFFFF80)
    delivered = bytearray()
    for at, size in [*parts, *((at, 50) for at in range(0, len(DATA), 50))]:
        arrival, fresh = stream.push(at, DATA[at : at + size])
        assert arrival in {Arrival.NEW, Arrival.AHEAD, Arrival.OLD}
        assert bool(fresh) == (arrival == Arrival.NEW)
        delivered += fresh
        assert stream.next == len(delivered)
        assert stream.queued == sum(len(data) for _, data in stream._queue)
    assert bytes(delivered) == DATA
    assert stream.queued == 0
