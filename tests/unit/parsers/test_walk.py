from __future__ import annotations

import pytest

from parsers.base import ParseError
from parsers.walk import Steps, Walk


class Reader:
    """Messages: a length, a name up to a NUL, so many bytes that are not kept, and two that are."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes]] = []

    def steps(self, walk: Walk) -> Steps[None]:
        while True:
            walk.message()
            size = (yield 1)[0]
            name = yield b"\0"
            yield -size
            self.found.append((name, (yield 2)))
            walk.judging = False


DATA = b"\5name\0.....ab" + b"\0\0cd" + b"\1x\0.ef"
FOUND = [(b"name", b"ab"), (b"", b"cd"), (b"x", b"ef")]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_cut_anywhere(size: int) -> None:
    reader = Reader()
    walk = Walk(reader.steps)
    fed(walk, DATA, size)
    assert reader.found == FOUND
    assert walk.offset == len(DATA)
    assert walk.buffered == 0
    assert not walk.pending


def test_pending_from_the_first_byte_to_the_last() -> None:
    walk = Walk(Reader().steps)
    assert not walk.pending
    for byte in DATA[:12]:
        walk.feed(bytes((byte,)))
        assert walk.pending
    walk.feed(DATA[12:13])
    assert not walk.pending


def test_gaps() -> None:
    reader = Reader()
    walk = Walk(reader.steps)
    with pytest.raises(ParseError, match="gap"):
        walk.gap(1)
    walk.feed(DATA[:7])
    walk.gap(4)
    walk.feed(DATA[11:])
    assert reader.found == FOUND
    with pytest.raises(ParseError, match="gap"):
        walk.gap(1)


def fed(walk: Walk, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        walk.feed(data[at : at + size])


def test_what_has_no_end_is_refused_where_it_is_too_long() -> None:
    for size in (1, 7, 4096):
        walk = Walk(Reader().steps, 100)
        with pytest.raises(ParseError) as caught:
            fed(walk, b"\1" + b"x" * 200, size)
        assert (caught.value.code, walk.offset) == ("too_long", 1)


def test_inside() -> None:
    walk = Walk(Reader().steps)
    walk.feed(b"\0")
    assert walk.inside(4, 5) == 5
    for size in (5, -1):
        with pytest.raises(ParseError, match="length"):
            walk.inside(size, 5)
