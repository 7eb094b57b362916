from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.base import ParseError
from parsers.content import FREE, PIECE, RATIO, UNPACKED, Unpacker, unpacker


def raw(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


PACKED = {
    b"identity": bytes,
    b"gzip": gzip.compress,
    b"x-gzip": lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:]),
    b"deflate": zlib.compress,
}


def unpacked(coding: bytes, *parts: bytes) -> bytes:
    made = unpacker(coding)
    assert made is not None
    return b"".join(piece for part in parts for piece in made.feed(part))


def refused(coding: bytes, data: bytes) -> str:
    with pytest.raises(ParseError) as error:
        unpacked(coding, data)
    return error.value.code


@pytest.mark.parametrize("coding", PACKED)
@given(st.data())
def test_cut_anywhere_it_unpacks_to_the_same(coding: bytes, data: st.DataObject) -> None:
    text = data.draw(st.one_of(st.binary(max_size=300), st.integers(0, 300_000).map(lambda size: b"abc" * (size // 3))))
    packed = PACKED[coding](text)
    at = sorted(data.draw(st.lists(st.integers(0, len(packed)), max_size=3)))
    parts = [packed[low:high] for low, high in zip([0, *at], [*at, len(packed)], strict=True)]
    assert unpacked(coding, *parts) == text
    if coding == b"deflate":
        packed = raw(text)
        assert unpacked(coding, packed) == unpacked(coding, packed[:1], packed[1:]) == text


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 258])
@pytest.mark.parametrize("coding", PACKED)
def test_no_piece_is_larger_and_none_is_missing(coding: bytes, size: int) -> None:
    made = Unpacker(coding)
    pieces = list(made.feed(PACKED[coding](b"\0" * size)))
    assert max(map(len, pieces)) <= PIECE
    assert sum(map(len, pieces)) == size


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_bombs(coding: bytes) -> None:
    assert refused(coding, PACKED[coding](b"\0" * (2 * FREE + FREE // 2))) == "body_bomb"
    # As much as is free, and text of the usual kind beyond.
    assert len(unpacked(coding, PACKED[coding](b"\0" * (FREE // 2)))) == FREE // 2
    text = b"".join(b"line %d of a log with little news\n" % number for number in range(100_000))
    assert unpacked(coding, PACKED[coding](text)) == text
    made = Unpacker(coding)
    made._in, made._out = UNPACKED, UNPACKED
    with pytest.raises(ParseError, match="body_bomb"):
        list(made.feed(PACKED[coding](b"a")))
    assert RATIO < 1032


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        (b"gzip", b"no gzip"),
        (b"gzip", gzip.compress(b"a") + b"hidden"),
        (b"deflate", zlib.compress(b"a") + b"hidden"),
        (b"deflate", raw(b"a") + raw(b"b")),
        (b"deflate", b"\xff\xff\xff"),
    ],
)
def test_what_is_no_such_coding(coding: bytes, data: bytes) -> None:
    assert refused(coding, data) == "body_coding"


def test_codings_that_nobody_undoes() -> None:
    assert [unpacker(each) for each in (b"br", b"zstd", b"gzip, gzip", b"", b"GZIP")] == [None] * 5


def test_many_members_take_linear_time() -> None:
    """zlib copies what is behind a member's end: not of all of the input."""
    empty = gzip.compress(b"")
    made = Unpacker(b"gzip")
    assert list(made.feed(empty * 20_000)) == []
    assert made.kept <= 64 * 1024
