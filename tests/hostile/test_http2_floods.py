"""Floods and bombs of HTTP/2 that took servers down: HPACK bombs, CONTINUATION floods, rapid reset, SETTINGS, PING,
PRIORITY and empty DATA, padding, streams. Each ends in a denial, in bounded memory; what only endpoints have to count
(windows) is let be, and later requests are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.hostile.attack import Quick, judged, no_admin, through
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.h2 import END_HEADERS, END_STREAM, PADDED, PRIORITY, frame, settings

RULES = no_admin("http2")
KEPT = 1 << 20
HEAD = ((":method", "GET"), (":scheme", "http"), (":path", "/ok"), (":authority", "a.example"))
# :method GET, :scheme http, :path /, and an authority, without the dynamic table.
BLOCK = b"\x82\x86\x84\x01\x01a"


def play() -> Quick:
    p = Quick(judged("http2"), RULES)
    p.client(h2.START)
    p.server(settings())
    return p


def fed(p: Quick, data: bytes, side: int = 0, step: int = 1400) -> bool:
    """In segments, up to a denial; whether it came to one."""
    for at in range(0, len(data), step):
        p.feed(p.connection.segment(side, data[at : at + step]))
        assert p.inspector.stats.kept_bytes < KEPT
        if p.decisions:
            return True
    return False


def bomb() -> bytes:
    """A header of 4,000 bytes into the table, then 4,000 references of a byte each to it (CVE-2016-1544)."""
    begin = h2.Sender().block(*HEAD)
    return frame(1, END_HEADERS | END_STREAM, 1, begin + b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000) + frame(
        1, END_HEADERS | END_STREAM, 3, BLOCK + b"\xbe" * 4000
    )


def integers() -> bytes:
    """An index whose number has no end (RFC 7541 §5.1)."""
    return frame(1, END_HEADERS, 1, BLOCK + b"\x7f" + b"\xff" * 8000 + b"\x01")


def huffman() -> bytes:
    """A string of padding alone, longer than a symbol (§5.2)."""
    return frame(1, END_HEADERS, 1, BLOCK + b"\x00\x01x\x84\xff\xff\xff\xff")


def many_requests(rest: Callable[[int], bytes], count: int = 3000) -> bytes:
    return b"".join(
        frame(1, END_HEADERS, stream, BLOCK) + rest(stream) for stream in range(1, 2 * count, 2)
    )  # without END_STREAM


DENIED: dict[str, bytes] = {
    "HPACK bomb": bomb(),
    "HPACK table size beyond what is allowed": frame(1, END_HEADERS, 1, b"\x3f\xe1\xff\x03" + BLOCK),
    "HPACK endless integer": integers(),
    "HPACK bad Huffman padding": huffman(),
    "HPACK index 0": frame(1, END_HEADERS, 1, b"\x80"),
    "HPACK index of nothing": frame(1, END_HEADERS, 1, BLOCK + b"\xff\x80\x01"),
    "HPACK string longer than its block": frame(1, END_HEADERS, 1, BLOCK + b"\x00\x01x\x7f\xff\xff\x7fy"),
    "HPACK block cut short": frame(1, END_HEADERS, 1, BLOCK + b"\x00\x05x"),
    "CONTINUATION flood": frame(1, 0, 1, BLOCK) + frame(9, 0, 1, b"\x00\x01x\x01y") * 1000,
    "CONTINUATION flood, empty": frame(1, 0, 1, b"") + frame(9, 0, 1, b"") * 1000,
    "CONTINUATION without end": frame(1, 0, 1, BLOCK) + frame(9, 0, 1, b"\0\1x\x7f\x80\x7f".ljust(16384, b"y")) * 9,
    "CONTINUATION of another stream": frame(1, 0, 1, BLOCK) + frame(9, END_HEADERS, 3, b""),
    "CONTINUATION of nothing": frame(9, END_HEADERS, 1, BLOCK),
    "a frame between HEADERS and CONTINUATION": frame(1, 0, 1, BLOCK) + frame(6, 0, 0, bytes(8)),
    "rapid reset": many_requests(lambda stream: frame(3, 0, stream, b"\0\0\0\x08")),
    "resets alone": frame(3, 0, 1, bytes(4)) * 3000,
    "SETTINGS flood": settings((3, 100)) * 1000,
    "SETTINGS flood, empty": settings() * 1000,
    "SETTINGS of 16 KiB, again and again": settings(*[(3, n) for n in range(2700)]) * 200,
    "PING flood": frame(6, 0, 0, bytes(8)) * 1000,
    "PRIORITY flood": frame(2, 0, 1, bytes(5)) * 3000,
    "empty DATA flood": frame(1, END_HEADERS, 1, BLOCK) + frame(0, 0, 1, b"") * 1000,
    "empty DATA flood, padded": frame(1, END_HEADERS, 1, BLOCK) + frame(0, PADDED, 1, b"\xff" + bytes(255)) * 1000,
    "DATA padding longer than it": frame(1, END_HEADERS, 1, BLOCK) + frame(0, PADDED, 1, b"\x05abc"),
    "DATA padded without a length": frame(1, END_HEADERS, 1, BLOCK) + frame(0, PADDED, 1, b""),
    "HEADERS padding longer than it": frame(1, PADDED | END_HEADERS, 1, b"\xff" + BLOCK),
    "HEADERS padding over its priority": frame(1, PADDED | PRIORITY | END_HEADERS, 1, b"\x03" + bytes(7)),
    "a stream number over again": frame(1, END_HEADERS | END_STREAM, 5, BLOCK) + frame(1, END_HEADERS, 3, BLOCK),
    "an even stream": frame(1, END_HEADERS, 2, BLOCK),
    "a push of the client": frame(5, END_HEADERS, 1, bytes(4) + BLOCK),
    "behind the last stream": frame(1, END_HEADERS | END_STREAM, 0x7FFFFFFF, BLOCK) + frame(1, END_HEADERS, 1, BLOCK),
    "a frame of 16 MiB": (1 << 24).to_bytes(4, "big")[1:] + b"\1\4\0\0\0\1",
    "DATA of 16 MiB": frame(1, END_HEADERS, 1, BLOCK) + b"\xff\xff\xff\0\0\0\0\0\1",
    "frame size below its bound": settings((5, 16383)),
    "frame size above its bound": settings((5, 1 << 24)),
}  # fmt: skip


@pytest.mark.parametrize("name", DENIED)
@pytest.mark.parametrize("step", [1400, 65_000])
def test_it_is_denied(name: str, step: int) -> None:
    p = play()
    assert fed(p, DENIED[name], step=step)
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "parse_error")
    assert p.inspector.stats.held_bytes == 0
    assert len(through(p)) < len(h2.START + DENIED[name])
    p.wait(3)
    assert p.inspector.stats.kept_bytes == 0


@pytest.mark.parametrize("name", [name for name in DENIED if "flood" in name or "reset" in name or "bomb" in name])
def test_a_flood_hidden_among_requests_is_one_too(name: str) -> None:
    p = play()
    assert not fed(p, b"".join(frame(1, END_HEADERS | END_STREAM, n, BLOCK) for n in range(100_001, 100_021, 2)))
    data = DENIED[name]
    if data[3] == 1:
        return  # it opens streams of its own, which are behind these
    assert fed(p, data)


def reads() -> Iterator[tuple[str, bytes]]:
    yield "windows of nothing", frame(8, 0, 0, bytes(4)) + frame(8, 0, 1, b"\x7f\xff\xff\xff") * 1000
    yield "windows beyond 2^31", frame(8, 0, 0, b"\x7f\xff\xff\xff") * 100
    yield "an initial window of 0, and back", (settings((4, 0)) + settings((4, 1 << 30))) * 40
    yield "frames of unknown types", frame(0xEE, 0xFF, 0x7FFFFFFF, b"whatever" * 500) * 500
    # RFC 7541 §4.2 has two at most; nobody refuses more, and they cost no more than their bytes.
    yield "HPACK table size, up and down", frame(1, END_HEADERS, 1, b"\x20\x3f\xe1\x1f" * 4000 + BLOCK)
    yield "ALTSVC and ORIGIN", frame(10, 0, 1, b"\0\1ax") + frame(12, 0, 0, b"\0\1a")
    yield "GOAWAY", frame(7, 0, 0, bytes(8) + b"bye") * 10
    yield "a priority on itself", frame(2, 0, 1, b"\0\0\0\1\0")
    yield "padding of 255", frame(1, END_HEADERS, 1, BLOCK) + frame(0, PADDED, 1, b"\xff" + bytes(256)) * 50


@pytest.mark.parametrize("name", dict(reads()))
def test_what_endpoints_count_is_let_be_and_later_requests_are_judged(name: str) -> None:
    p = play()
    assert not fed(p, dict(reads())[name])
    assert fed(p, frame(1, END_HEADERS | END_STREAM, 7, b"\x82\x86\x04\x06/admin\x01\x01a"))
    assert p.records[-1]["l7_rule"] == "no-admin"


def test_the_last_stream_is_the_last() -> None:
    """2^31 - 1 (RFC 9113 §5.1.1); what comes behind it, by whatever number, is refused."""
    p = play()
    assert not fed(p, frame(1, END_HEADERS | END_STREAM, 0x7FFFFFFD, BLOCK))
    assert not fed(p, frame(1, END_HEADERS | END_STREAM, 0x7FFFFFFF, BLOCK))
    assert len([record for record in p.records if record["verdict"] == "allow"]) == 1 or len(p.records) == 2
    # The reserved bit is no part of the number.
    assert fed(p, frame(1, END_HEADERS | END_STREAM, 0x80000001, BLOCK))


def test_open_requests_that_announce_bodies_are_bounded() -> None:
    p = play()
    data = b"".join(frame(1, END_HEADERS, stream, BLOCK + b"\x0f\x0d\x019") for stream in range(1, 6000, 2))
    assert fed(p, data)
    assert p.records[-1]["reason"] == "parse_error"


@pytest.mark.parametrize("side", [0, 1])
def test_a_servers_floods_are_denied_too(side: int) -> None:
    p = play()
    p.client(frame(1, END_HEADERS | END_STREAM, 1, BLOCK))
    assert fed(p, settings((3, 100)) * 1000, side=side)


def test_a_thousand_slow_streams_keep_little() -> None:
    """Each with half a body (CVE-2019-9517 and its kin are the server's to bound): nothing is kept of them."""
    p = play()
    assert not fed(p, many_requests(lambda stream: frame(0, 0, stream, b"x" * 50), 1000))
    assert p.inspector.stats.held_bytes == 0
    parser = next(iter(p.inspector._flows.values())).parser
    assert parser is not None
    assert parser.buffered < 100
