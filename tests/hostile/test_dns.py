"""DNS messages that lead readers in circles or past their end, by datagram and over TCP. None gets to the server, and
each takes no more time than its bytes. What the parser calls them, where, and how long chains of pointers take, is in
tests/unit/parsers/test_dns.py.
"""

from __future__ import annotations

import struct
import time

import pytest

from slowpath.core.frame import flow_key, parse_frame
from slowpath.core.model import Release, SessionInfo
from tests.hostile.attack import Quick, judged, ruled, through
from tests.unit.slowpath.core.wire import CLIENT, SERVER, udp_frame

RULES = ruled("""
name: dns
protocol: dns
rules:
  - {id: no-evil, match: {dns.qname: {glob: "**.evil.example"}}, action: deny}
  - {id: rest, match: {dns.opcode: [QUERY, NOTIFY, UPDATE]}, action: allow}
""")
NAME = b"\3www\7example\0"
IN_A = b"\0\1\0\1"
QUESTION = NAME + IN_A


def message(rest: bytes, counts: tuple[int, int, int, int] = (1, 0, 0, 0), flags: int = 0x0100) -> bytes:
    return struct.pack("!HH4H", 0x1234, flags, *counts) + rest


def record(owner: bytes, kind: int, data: bytes, size: int | None = None, group: int = 1, ttl: int = 60) -> bytes:
    return owner + struct.pack("!HHIH", kind, group, ttl, len(data) if size is None else size) + data


def label(size: int, filler: bytes = b"a") -> bytes:
    return bytes((size,)) + filler * size


def opt(data: bytes, size: int | None = None, owner: bytes = b"\0") -> bytes:
    return record(owner, 41, data, size, 4096, 0)


GOOD = message(QUESTION)
QUERIES: dict[str, bytes] = {
    "a pointer to itself": message(b"\xc0\x0c" + IN_A),
    "a label, then a pointer to it": message(b"\1a\xc0\x0c" + IN_A),
    "two pointers at each other": message(b"\xc0\x0e\xc0\x0c" + IN_A),
    "a pointer forward": message(b"\xc0\x10" + IN_A + NAME),
    "a pointer into the header": message(b"\xc0\0" + IN_A),
    "a pointer to the header's end": message(b"\xc0\x0b" + IN_A),
    "a pointer beyond the message": message(b"\xff\xff" + IN_A),
    "half a pointer": message(b"\xc0"),
    "a pointer into its own record": message(QUESTION + record(b"\xc0\x1d", 16, b"\1a"), (1, 1, 0, 0), 0x8180),
    "a pointer into the data of its record": message(QUESTION + record(b"\xc0\x29", 2, NAME), (1, 1, 0, 0), 0x8180),
    "data that points at itself": message(QUESTION + record(b"\xc0\x0c", 5, b"\xc0\x29"), (1, 1, 0, 0), 0x8180),
    "label type 01": message(b"\x41a\0" + IN_A),
    "label type 10": message(b"\x81a\0" + IN_A),
    "a label of 64": message(b"\x40" + b"a" * 64 + b"\0" + IN_A),
    "a label longer than the message": message(b"\x3fa"),
    "no end of the name": message(label(3) * 4),
    "256 bytes of name": message(label(63) * 3 + label(62) + b"\0" + IN_A),
    "128 labels of a byte": message(label(1) * 128 + b"\0" + IN_A),
    "60,000 bytes of labels": message(label(63) * 900 + b"\0" + IN_A),
    "256 bytes through a pointer": message(
        label(63) * 3 + b"\0" + IN_A + record(label(62) + b"\xc0\x0c", 1, bytes(4)), (1, 1, 0, 0), 0x8180
    ),
    "no type": message(NAME),
    "half a class": message(NAME + b"\0\1\0"),
    "no question, though counted": message(b""),
    "two questions": message(QUESTION * 2, (2, 0, 0, 0)),
    "65,535 questions": message(QUESTION, (65535, 0, 0, 0)),
    "65,535 answers": message(QUESTION, (1, 65535, 0, 0), 0x8180),
    "65,535 of each": message(QUESTION, (65535,) * 4),
    "one record too few": message(QUESTION + record(b"\xc0\x0c", 1, bytes(4)), (1, 2, 0, 0), 0x8180),
    "one record too many": message(QUESTION + record(b"\xc0\x0c", 1, bytes(4)), (1, 0, 0, 0), 0x8180),
    "bytes behind": GOOD + b"GET / HTTP/1.1\r\n\r\n",
    "data longer than the message": message(QUESTION + record(b"\xc0\x0c", 16, b"\1a", 65535), (1, 1, 0, 0), 0x8180),
    "data longer than its type": message(QUESTION + record(b"\xc0\x0c", 1, bytes(5)), (1, 1, 0, 0), 0x8180),
    "data shorter than its type": message(QUESTION + record(b"\xc0\x0c", 28, bytes(4)), (1, 1, 0, 0), 0x8180),
    "a text longer than its data": message(QUESTION + record(b"\xc0\x0c", 16, b"\xffa"), (1, 1, 0, 0), 0x8180),
    "a name longer than its data": message(QUESTION + record(b"\xc0\x0c", 5, NAME, 4), (1, 1, 0, 0), 0x8180),
    "two OPT": message(QUESTION + opt(b"") * 2, (1, 0, 0, 2)),
    "OPT with an owner": message(QUESTION + opt(b"", owner=NAME), (1, 0, 0, 1)),
    "OPT whose option is longer": message(QUESTION + opt(b"\0\x0a\xff\xff" + bytes(8)), (1, 0, 0, 1)),
    "OPT with half an option": message(QUESTION + opt(b"\0\x0a\0"), (1, 0, 0, 1)),
    "OPT longer than the message": message(QUESTION + opt(b"", 500), (1, 0, 0, 1)),
    "OPT among the answers": message(QUESTION + opt(b""), (1, 1, 0, 0), 0x8180),
    "client subnet of another length": message(QUESTION + opt(b"\0\x08\0\x07\0\1\x20\0\x0a\0\0"), (1, 0, 0, 1)),
    "client subnet longer than its option": message(QUESTION + opt(b"\0\x08\0\x05\0\1\x20\0\x0a"), (1, 0, 0, 1)),
    "an operation of no layout": message(QUESTION, flags=0x3900),
}  # fmt: skip


def datagram(data: bytes) -> Quick:
    p = Quick(judged("dns"), RULES)
    packet = parse_frame(udp_frame(CLIENT, SERVER, 40000, 53, data))
    key, a_to_b = flow_key(packet)
    p.kernel.sessions[key] = SessionInfo(7, server_is_a=not a_to_b)
    p.feed(packet)
    return p


def stream(data: bytes, step: int = 1400) -> Quick:
    """Behind a good message, so that it is DNS."""
    p = Quick(judged("dns"), RULES)
    whole = b"".join(len(each).to_bytes(2, "big") + each for each in (GOOD, data))
    for at in range(0, len(whole), step):
        p.client(whole[at : at + step])
        p.wait(0.0001)
    return p


@pytest.mark.parametrize("name", QUERIES)
def test_by_datagram_it_is_not_let_through(name: str) -> None:
    started = time.process_time()
    p = datagram(QUERIES[name])
    assert time.process_time() - started < 1, "some milliseconds, on any machine"
    # What is no DNS by its header is unknown, and here denied as that.
    assert [(r["verdict"], r["reason"] in {"parse_error", "default"}) for r in p.records] == [("deny", True)]
    assert not [command for command in p.done if isinstance(command, Release)]


@pytest.mark.parametrize("step", [1, 7, 65_000])
@pytest.mark.parametrize("name", QUERIES)
def test_over_tcp_it_is_not_let_through(name: str, step: int) -> None:
    data = QUERIES[name]
    p = stream(data, step if len(data) < 2000 else 100 * step)
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "parse_error")
    assert len(through(p)) < len(GOOD) + 4 + len(data)
    assert p.inspector.stats.held_bytes == 0


@pytest.mark.parametrize("size", [0, 1, 11])
def test_tcp_lengths_below_a_header(size: int) -> None:
    p = stream(GOOD)
    p.client(size.to_bytes(2, "big") + GOOD[:size])
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "parse_error")


@pytest.mark.parametrize("claimed", [len(GOOD) - 1, len(GOOD) + 1, 65535])
def test_tcp_lengths_that_lie(claimed: int) -> None:
    """Too short: the message has too few bytes. Too long: it is never whole, and not kept for long."""
    p = stream(GOOD)
    p.client(claimed.to_bytes(2, "big") + GOOD)
    p.wait(3)
    assert [d.verdict.name for d in p.decisions] == ["DENY"]
    assert p.records[-1]["reason"] == ("parse_error" if claimed < len(GOOD) else "need_more")
    assert p.inspector.stats.kept_bytes == 0


def test_a_denied_name_by_pointer_is_the_name() -> None:
    """Compression is no disguise."""
    evil = b"\4evil\7example\0"
    compressed = message(evil + IN_A, flags=0x0100)
    p = stream(compressed)
    assert p.records[-1]["verdict"] == "allow", "the name itself is not below itself"
    asked = message(b"\3www" + evil + IN_A)
    p.client(len(asked).to_bytes(2, "big") + asked)
    assert p.records[-1]["l7_rule"] == "no-evil"


def test_what_is_too_much_of_good_messages_is_forgotten_not_kept() -> None:
    """Queries that nobody answers, of the longest names."""
    p = Quick(judged("dns"), RULES)
    name = label(63) * 3 + label(61) + b"\0"
    for number in range(1500):
        query = number.to_bytes(2, "big") + message(name + IN_A)[2:]
        p.client(len(query).to_bytes(2, "big") + query)
        p.server(b"", at=0)
        assert p.inspector.stats.kept_bytes < 1 << 20
    assert p.decisions == []
