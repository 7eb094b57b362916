"""Both decoders say the same of every block, and refuse the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers import hpack_decoder
from parsers.base import ParseError
from parsers.hpack_decoder import Decoder, Nghttp2Decoder, PythonDecoder

LIMIT = 4096
DECODERS: tuple[Callable[[int], Decoder], ...] = (PythonDecoder, Nghttp2Decoder)
each_decoder = pytest.mark.parametrize("make", DECODERS)

Step = bytes | int  # a block, or how large a table may be


def told(decoder: Decoder, steps: Iterable[Step]) -> list[object]:
    """Header lists, and what the first block that is refused was refused for."""
    found: list[object] = []
    for step in steps:
        if isinstance(step, int):
            decoder.allow(step)
            continue
        try:
            found.append(decoder.decode(step))
        except ParseError as error:
            return [*found, error.code]
    return found


def integer(value: int, prefix: int, first: int, zeros: int = 0) -> bytes:
    """RFC 7541 §5.1, with a longer way to say it."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((first | value,))
    value -= most
    out = [first | most]
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out += [value | 0x80, *[0x80] * (zeros - 1), 0] if zeros else [value]
    return bytes(out)


_sizes = st.one_of(st.integers(0, 130), st.sampled_from((4096, 4097, 8192, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40)))
_zeros = st.sampled_from((0, 0, 0, 1, 3, 4, 5, 6))
_texts = st.one_of(st.sampled_from((b"", b"a", b":path", b"x" * 200, b"x" * 3900, b"\0\xff")), st.binary(max_size=12))
_indexes = st.one_of(st.integers(0, 70), _sizes)


@st.composite
def _strings(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        text = hpack.huffman.HuffmanEncoder(
            hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
        ).encode(draw(_texts))
        text += draw(st.sampled_from((b"", b"", b"", b"\xff", b"\xff\xff\xff\xff", b"\0")))
        return integer(len(text), 7, 0x80, draw(_zeros)) + text
    text = draw(_texts)
    return integer(draw(st.sampled_from((len(text),) * 9 + (len(text) + 1,))), 7, 0, draw(_zeros)) + text


@st.composite
def _fields(draw: st.DrawFn) -> bytes:
    """One representation, sound or nearly so."""
    kind = draw(st.sampled_from(("indexed", "literal", "literal", "size")))
    if kind == "indexed":
        return integer(draw(_indexes), 7, 0x80, draw(_zeros))
    if kind == "size":
        return integer(draw(_sizes), 5, 0x20, draw(_zeros))
    prefix, first = draw(st.sampled_from(((6, 0x40), (6, 0x40), (4, 0x00), (4, 0x10))))
    index = draw(st.one_of(st.just(0), _indexes))
    return integer(index, prefix, first, draw(_zeros)) + (b"" if index else draw(_strings())) + draw(_strings())


_blocks = st.lists(_fields(), max_size=5).map(b"".join)
_steps = st.lists(
    st.one_of(_blocks, _blocks, st.binary(max_size=40), st.sampled_from((0, 100, 4096, 65536))), max_size=8
)


@settings(max_examples=600, deadline=None)
@given(_steps)
def test_both_say_the_same_of_blocks_by_hand(steps: list[Step]) -> None:
    assert told(Nghttp2Decoder(LIMIT), steps) == told(PythonDecoder(LIMIT), steps)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_both_say_the_same_of_an_encoder(data: st.DataObject) -> None:
    """What it encodes is decoded; with a byte changed, taken or left out, both say the same of it."""
    encoder, steps, sent = hpack.Encoder(), [], []
    names = st.sampled_from((b":path", b"cookie", b"x-a", b"x-b", b"accept"))
    header = st.tuples(names, st.binary(max_size=60), st.booleans())
    steps.append(65536)
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            encoder.header_table_size = data.draw(st.sampled_from((0, 60, 500, 4096, 65536)))
        headers = data.draw(st.lists(header, max_size=8))
        steps.append(bytes(encoder.encode(headers, huffman=data.draw(st.booleans()))))
        sent.append([(name, value) for name, value, _ in headers])
    for make in DECODERS:
        assert told(make(LIMIT), steps) == sent
    number = data.draw(st.integers(1, len(steps) - 1))
    block = steps[number]
    assert isinstance(block, bytes)
    at, byte = data.draw(st.integers(0, len(block))), data.draw(st.binary(max_size=2))
    steps[number] = block[:at] + byte + block[at + 1 :]
    assert told(Nghttp2Decoder(LIMIT), steps) == told(PythonDecoder(LIMIT), steps)


@each_decoder
@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"\x80", "hpack"),  # index 0
        (b"\xbe", "hpack"),  # beyond the tables
        (b"\x82\x20", "hpack"),  # a size update behind a header
        (b"\x3f\xe2\x1f", "hpack"),  # a table of 4,097 bytes, where 4,096 is the most
        (b"\x00\x81\x1f\x01a", None),  # Huffman: "a" with three bits of padding
        (b"\x00\x81\x18\x01a", "hpack"),  # with padding that is no prefix of EOS
        (b"\x00\x82\x1f\xff\x01a", "hpack"),  # with more than 7 bits of it
        (b"\x00\x84\xff\xff\xff\xff\x01a", "hpack"),  # with EOS itself
        (b"\xff\x80\x80\x80\x80\x80\x00", "hpack"),  # an integer that is too long
        (b"\xff\xff\xff\xff\xff\x0f", "hpack"),  # and one that is too large
        (b"\x00\x01a\x05b", "hpack"),  # ends within a value
        (b"\x00\x01a", "hpack"),  # before it
        (b"", None),
        (b"\x20\x3f\xe1\x1f\x82", None),  # two size updates, then a header
    ],
)
def test_damage(make: Callable[[int], Decoder], block: bytes, code: str | None) -> None:
    assert told(make(LIMIT), [block])[-1] == code if code else isinstance(told(make(LIMIT), [block])[-1], list)


@each_decoder
def test_a_list_that_unpacks_to_more_than_the_limit(make: Callable[[int], Decoder]) -> None:
    bomb = b"\x40\x01a\x7f\xa1\x0f" + b"b" * 2080 + b"\xbe" * 30000
    assert told(make(LIMIT), [bomb]) == ["header_list"]
    assert told(make(1 << 20), [bomb[:2100]])[0] == [(b"a", b"b" * 2080)] + [(b"a", b"b" * 2080)] * (2100 - 2086)


@each_decoder
def test_a_table_grows_only_when_it_may(make: Callable[[int], Decoder]) -> None:
    grow = integer(8192, 5, 0x20)
    assert told(make(LIMIT), [grow]) == ["hpack"]
    assert told(make(LIMIT), [8192, grow, 4096, grow]) == [[], []]


def test_it_can_be_chosen() -> None:
    def chosen(name: str) -> str:
        code = "from parsers.hpack_decoder import HpackDecoder as D; print(D.__name__)"
        environment = {**os.environ, "MICROSEG_HPACK": name}
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True
        )
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    assert chosen("python") == "PythonDecoder"
    assert chosen("nghttp2") == chosen("") == "Nghttp2Decoder"
    assert "neither python nor nghttp2" in chosen("fast")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpack_decoder, "_LIBNGHTTP2", None)
    monkeypatch.delenv("MICROSEG_HPACK", raising=False)
    assert hpack_decoder._chosen() is PythonDecoder
    monkeypatch.setenv("MICROSEG_HPACK", "nghttp2")
    with pytest.raises(ImportError, match="there is no libnghttp2"):
        hpack_decoder._chosen()
