"""Overlapping segments with different content (Ptacek and Newsham's evasion), of which systems keep the older bytes or
the newer. Such a connection is denied, before either reading is whole; equal bytes over again change nothing.
"""

from __future__ import annotations

from itertools import permutations

import pytest

from fastpath.abi import Action, Protocol
from slowpath.core.frame import ACK, UDP, URG
from slowpath.core.model import Exceptions, Limits
from slowpath.replay import InspectAll, Replay
from tests.hostile.attack import Quick, judged, no_admin, rule_files, through, unit_by_unit
from tests.unit.slowpath.core.wire import CLIENT, SERVER, allow, deny, ip, udp_frame

RULES = no_admin("http")
GET = b"GET /index HTTP/1.1\r\nHost: a.example\r\n\r\n"
ADMIN = b"GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n"
assert len(GET) == len(ADMIN)
Segment = tuple[int, bytes]


def sent(segments: list[Segment] | tuple[Segment, ...], exceptions: Exceptions | None = None) -> Quick:
    p = Quick(judged("http"), RULES, exceptions=exceptions)
    for at, data in segments:
        p.client(data, at=at)
        p.wait(0.03)
    return p


def piece(stream: bytes, low: int, high: int) -> Segment:
    return low, stream[low:high]


# Of the harmless request and of the other one, what a reader who prefers either finds whole.
SHAPES: dict[str, list[Segment]] = {
    "the same place twice": [piece(GET, 0, 10), piece(ADMIN, 0, 10)],
    "the same place twice, ahead": [piece(GET, 5, 20), piece(ADMIN, 5, 20), piece(GET, 0, 5)],
    "begins before": [piece(GET, 5, 20), piece(ADMIN, 0, 20)],
    "begins before, ends within": [piece(GET, 5, 20), piece(ADMIN, 0, 10)],
    "begins within": [piece(GET, 0, 10), piece(ADMIN, 5, 25)],
    "ends behind, ahead": [piece(GET, 6, 12), piece(ADMIN, 3, 25), piece(GET, 0, 6)],
    "one byte": [piece(GET, 0, 10), piece(ADMIN, 5, 6)],
    "one byte, ahead": [piece(GET, 5, 6), piece(ADMIN, 5, 6), piece(GET, 0, 5)],
    "a hole filled with too much": [piece(GET, 0, 4), piece(GET, 8, 20), piece(ADMIN, 2, 10)],
    "two queued, one over both": [piece(GET, 5, 7), piece(GET, 9, 12), piece(ADMIN, 4, 13), piece(GET, 0, 5)],
}


@pytest.mark.parametrize("name", SHAPES)
def test_neither_reading_gets_through(name: str) -> None:
    p = sent([*SHAPES[name], (25, GET[25:])])
    assert [(r["verdict"], r["reason"]) for r in p.records] == [("deny", "overlap_conflict")]
    assert p.inspector.stats.overlap_conflict == 1
    assert ADMIN not in through(p)
    assert len(through(p)) < len(GET)


@pytest.mark.parametrize("name", SHAPES)
def test_where_the_first_reading_is_kept_it_is_the_only_one(name: str) -> None:
    """`overlap_conflict: inspect`: what differs from it is not sent on."""
    p = sent(
        [*SHAPES[name], *(piece(GET, at, at + 9) for at in range(0, len(GET), 9))],
        Exceptions(overlap_conflict=Action.INSPECT),
    )
    assert [(r["verdict"], r["http"]["path"]) for r in p.records] == [("allow", "/index")]
    assert through(p) == GET


def test_all_orders_of_pieces_of_two_requests() -> None:
    pieces = [piece(GET, 0, 12), piece(GET, 12, 30), piece(ADMIN, 3, 15), (30, GET[30:])]
    for order in permutations(pieces):
        p = sent(order)
        assert p.records[-1]["reason"] == "overlap_conflict", order
        assert ADMIN not in through(p)


def test_equal_bytes_over_again_change_nothing() -> None:
    shapes = [piece(ADMIN, low, high) for low in range(0, 20, 5) for high in (low + 3, low + 11)]
    p = sent([*shapes, *reversed(shapes), (20, ADMIN[20:])])
    assert [(r["verdict"], r["reason"]) for r in p.records] == [("deny", "rule")]
    assert ADMIN not in through(p)


def test_what_was_read_and_let_go_must_not_be_sent_otherwise() -> None:
    """The first copy may be one that never arrives: a short TTL, a bad checksum."""
    p = sent([(0, GET), (0, ADMIN)])
    assert [record["reason"] for record in p.records] == ["rule", "overlap_conflict"]
    assert ADMIN not in through(p)


def test_an_allow_for_good_waits_for_the_receiver() -> None:
    p = Quick({Protocol.HTTP: allow(), Protocol.SSH: deny()}, RULES)
    p.client(GET)
    assert p.decisions == []
    p.client(b"SSH-2.0-x\r\n".ljust(len(GET)), at=0)
    assert p.records[-1]["reason"] == "overlap_conflict"


def test_behind_an_acknowledgement_nobody_reads_other_bytes() -> None:
    p = Quick(judged("http"), RULES)
    p.client(GET)
    p.server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    p.client(ADMIN, at=0)
    assert [record["reason"] for record in p.records] == ["rule"]
    p.client(ADMIN)
    assert p.records[-1]["l7_rule"] == "no-admin"


@pytest.mark.parametrize("urgent", [1, 5, 60000])
def test_urgent_bytes_have_two_readings(urgent: int) -> None:
    p = Quick(judged("http"), RULES)
    p.client(GET[:4] + b"X" + GET[4:], flags=ACK | URG, urgent=urgent)
    assert [(r["verdict"], r["reason"]) for r in p.records] == [("deny", "overlap_conflict")]
    assert through(p) == b""


def test_the_queue_of_what_is_ahead_is_bounded() -> None:
    limits = Limits()
    for step in (1, 2, 1400, 60_000):
        p = Quick(judged("http"), RULES)
        for number in range(2000):
            p.client(b"x" * (step - 1 or 1), at=10 + number * step)
            assert p.inspector.stats.kept_bytes <= limits.flow_held + 512 * 1024
            if p.decisions:
                break
        assert p.records[-1]["reason"] == "reassembly_limit"
        assert p.inspector.stats.held_bytes == 0


QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05%s\x07example\x00\x00\x01\x00\x01"


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_fragments_that_overlap_are_refused_whole(order: tuple[int, ...]) -> None:
    """RFC 5722, and what comes of the same datagram behind them."""
    plain, other = (udp_frame(CLIENT, SERVER, 40000, 53, QUERY % name)[34:] for name in (b"nice1", b"evil1"))
    fragments = [(0, plain[:24], True), (16, other[16:32], True), (24, plain[24:], False)]
    frames = [
        ip(CLIENT, SERVER, UDP, data, fragment=at // 8 | (0x2000 if more else 0))
        for at, data, more in (fragments[number] for number in order)
    ]
    replay = Replay(rule_files(unit_by_unit("dns")), InspectAll("dns"))
    assert list(replay.run((0.0, frame) for frame in [*frames, *frames])) == []
    assert replay._fragments.refused
