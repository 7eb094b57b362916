"""What TCP may do to a stream on its way, and what becomes of flows that keep too much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fastpath.abi import Action, Protocol, Verdict
from slowpath.core.frame import ACK, FIN
from slowpath.core.model import Exceptions, Judgement, Limits, Release
from slowpath.rules.ruleset import load_rules
from tests.unit.slowpath.core.wire import Connection, Play, allow, deny, inspect

RULES = load_rules([Path(__file__).parents[4] / "configs" / "rules.d"])
WEB = {Protocol.HTTP: inspect("web")}
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
ADMIN = b"GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GAP = Limits().gap


def play(policy: dict[Protocol, Judgement] | None = None, **more: object) -> Play:
    return Play(policy or WEB, RULES, **more)  # type: ignore[arg-type]


def passed_acks(p: Play, client: int | None = None, server: int | None = None) -> None:
    """The kernel saw bare acknowledgments, by offset: the client's of the server's bytes, and the server's."""
    c = p.connection
    by_client, by_server = (
        None if offset is None else (c.isn[1 - side] + 1 + offset) & 0xFFFFFFFF
        for side, offset in enumerate((client, server))
    )
    p.kernel.sessions[c.key] = replace(p.kernel.sessions[c.key], acks=(by_client, by_server))


# -- sequence numbers that wrap -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 4, 20, len(GET) - 1, len(GET), len(GET) + 1])
def test_sequence_numbers_wrap_anywhere(before: int) -> None:
    """Out of order, twice, and judged: as if they did not."""
    p = play(connection=Connection(isn=((0xFFFFFFFF - before) & 0xFFFFFFFF, 0xFFFFFFF0)))
    assert p.client(GET[20:], at=20) == []
    assert p.client(GET[20:], at=20) == [f"discard {len(GET) - 20}"]
    assert p.client(GET[:20], at=0) == ["write allow rule", "release 20", f"release {len(GET) - 20}"]
    p.connection.sent[0] = len(GET)
    assert p.server(OK) == [f"release {len(OK)}"]
    assert p.client(GET[:20], at=0) == ["release 20"]
    assert p.client(ADMIN)[:2] == ["write deny rule", "deny request"]


def test_a_conflict_across_the_wrap() -> None:
    p = play(connection=Connection(isn=(0xFFFFFFF0, 5000)))
    p.client(GET)
    assert p.client(b"X" * 20, at=5)[:2] == ["write deny overlap_conflict", "deny connection"]


def test_an_allow_is_confirmed_across_the_wrap() -> None:
    p = play({Protocol.HTTP: allow()}, connection=Connection(isn=(0xFFFFFFF0, 5000)))
    p.client(GET)
    assert p.server(OK)[1:] == ["allow connection"]


# -- overlaps -------------------------------------------------------------------------------------------------------


def test_overlaps_that_agree_are_one_reading() -> None:
    p = play()
    assert p.client(GET[:10], at=0) == []
    assert p.client(GET[10:25], at=10) == []
    assert p.client(GET[5:], at=5)[0] == "write allow rule"
    assert p.inspector.stats.overlap_conflict == 0


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action.DENY, ["write deny overlap_conflict", "deny connection"]),
        (Action.ALLOW, ["write allow overlap_conflict", "allow connection"]),
        (Action.INSPECT, [f"discard {len(ADMIN)}"]),
    ],
)
def test_overlaps_that_differ_are_the_operators_matter(action: Action, said: list[str], *, delivered: bool) -> None:
    p = play(exceptions=Exceptions(overlap_conflict=action))
    at = 0 if delivered else 1
    p.client(GET[at:], at=at)
    assert p.client(ADMIN, at=0)[: len(said)] == said
    assert p.inspector.stats.overlap_conflict == 1
    if action == Action.INSPECT:
        assert p.client(GET[:1], at=0)[-1].startswith("release"), "the first reading goes on"
        assert p.inspector.stats.flows == 1


# -- probes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"\0"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_keep_alives_of_an_idle_connection_go_on(side: str, garbage: bytes) -> None:
    """RFC 9293 §3.8.4: one byte before the next, which is none or any; acknowledgments passed in the kernel."""
    p = play()
    p.client(GET)
    p.server(OK)
    passed_acks(p, client=len(OK), server=len(GET))
    at = p.connection.sent[0 if side == "client" else 1] - 1
    for _ in range(3):
        p.wait(75.0)
        assert getattr(p, side)(garbage, at=at, flags=ACK) == [f"release {len(garbage)}"]
    assert p.client(ADMIN)[:2] == ["write deny rule", "deny request"], "it is still under inspection"


def test_a_keep_alive_before_the_first_byte() -> None:
    p = play()
    assert p.client(b"\0", at=-1, flags=ACK) == ["release 1"]
    assert p.client(ADMIN)[:2] == ["write deny rule", "deny request"]


def test_what_nobody_acknowledged_is_no_keep_alive() -> None:
    """The receiver may have lost the byte: it would take this one in its place."""
    p = play()
    p.client(GET)
    passed_acks(p, server=len(GET) - 1)
    assert p.client(b"\0", at=len(GET) - 1)[:2] == ["write deny overlap_conflict", "deny connection"]


def test_probes_of_a_closed_window() -> None:
    """RFC 9293 §3.8.6.1: the next byte alone, again and again, until the receiver takes it and what follows."""
    p = play()
    size = 5000
    head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % size
    p.client(head)
    for _ in range(4):
        assert p.client(b"b", at=len(head)) == ["release 1"]
        assert p.client(b"", at=len(head) - 1, flags=ACK) == ["release 0"], "Linux probes with what is acknowledged"
        p.wait(1.0)
    assert p.client(b"b" * size, at=len(head)) == [f"release {size}"]
    p.connection.sent[0] = len(head) + size
    assert p.client(ADMIN)[:2] == ["write deny rule", "deny request"]


def test_a_probe_with_the_deciding_byte_is_judged() -> None:
    p = play()
    p.client(ADMIN[:-1])
    p.wait(0.03)
    assert p.client(ADMIN[-1:], at=len(ADMIN) - 1) == ["write deny rule", "deny request", "release 1"]


def test_copies_of_what_the_receiver_has_are_harmless_however_old() -> None:
    """As `test_forgotten_bytes_do_not_come_again`, but acknowledged by segments that passed in the kernel."""
    p = play()
    size = 400_000
    head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % size
    p.client(head)
    for _ in range(size // 10_000):
        p.client(b"b" * 10_000)
    passed_acks(p, server=len(head) + 50_000)
    assert p.client(ADMIN, at=0) == [f"release {len(ADMIN)}"]


# -- holes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("began", [b"", GET])
def test_a_hole_that_nobody_fills(began: bytes) -> None:
    """Nothing behind it goes on, and it does not wait for ever."""
    p = play()
    if began:
        p.client(began)
    at = p.connection.sent[0]
    assert p.client(ADMIN[5:], at=at + 5) == []
    assert p.wait(GAP - 1) == []
    assert p.wait(2) == ["write deny reassembly_limit", "deny connection", f"release {len(ADMIN) - 5}"]
    assert p.inspector.stats.held_bytes == 0


def test_a_hole_that_is_filled_late() -> None:
    p = play()
    p.client(GET[20:], at=20)
    p.wait(GAP - 1)
    p.client(GET[10:20], at=10)
    p.wait(GAP - 1)
    assert p.client(GET[:10], at=0)[0] == "write allow rule"
    p.connection.sent[0] = len(GET)
    p.wait(3 * GAP)
    assert p.client(ADMIN)[:2] == ["write deny rule", "deny request"], "it was not given up meanwhile"


def test_a_fin_behind_a_hole() -> None:
    p = play()
    p.client(GET)
    assert p.client(b"", at=len(GET) + 100, flags=ACK | FIN) == []
    assert p.wait(GAP + 1)[:2] == ["write deny reassembly_limit", "deny connection"]


def test_a_hole_in_what_is_allowed_is_left_to_tcp() -> None:
    p = play({Protocol.HTTP: allow()})
    p.client(GET)
    assert p.client(b"tail", at=len(GET) + 10) == []
    assert p.wait(GAP + 1) == ["discard 4"]
    assert p.client(b"tail", at=len(GET) + 10) == [], "it is no copy of anything"
    assert p.client(b"x" * 10, at=len(GET)) == ["release 10", "release 4"]


def test_a_hole_that_was_filled_is_forgotten_when_what_was_held_goes_on() -> None:
    p = play({**WEB, Protocol.UNKNOWN: allow()})
    p.client(GET[2:3], at=2)
    p.client(GET[:2], at=0)
    assert "release 1" in p.wait(3)
    assert p.wait(GAP) == []


# -- bounds ---------------------------------------------------------------------------------------------------------


def half_flows(p: Play, count: int, data: bytes = GET[:10]) -> None:
    """Begin so many connections of which nothing can be judged yet."""
    for number in range(count):
        p.connection = Connection(sport=1000 + number)
        p.kernel.open(p.connection, 100 + number)
        p.client(data)


def test_eviction_denies_and_is_bounded() -> None:
    p = play(limits=Limits(max_flows=10))
    half_flows(p, 50)
    assert p.inspector.stats.flows == 10
    assert p.inspector.stats.evicted == 40
    assert {record["reason"] for record in p.records} == {"reassembly_limit"}
    assert [d.session_id for d in p.decisions] == list(range(100, 140)), "the oldest first"


def test_those_under_rules_outlive_a_flood_of_beginnings() -> None:
    p = play(limits=Limits(max_flows=10, total=20_000))
    served = p.connection
    p.client(GET)
    half_flows(p, 50)
    half_flows(p, 50, b"GET /" + b"x" * 2000)
    assert p.inspector.knows(served.key)
    p.connection = served
    assert p.client(ADMIN)[:2] == ["write deny rule", "deny request"]


@pytest.mark.parametrize(
    ("policy", "exceptions", "verdict"),
    [
        (inspect("web", fail=Action.ALLOW), Exceptions(), Verdict.ALLOW),
        (inspect("web"), Exceptions(), Verdict.DENY),
        (inspect("web"), Exceptions(reassembly_limit=Action.ALLOW), Verdict.ALLOW),
    ],
)
def test_who_gives_way_does_by_its_rule_or_the_exception(
    policy: Judgement, exceptions: Exceptions, verdict: Verdict
) -> None:
    p = play(limits=Limits(max_flows=1), exceptions=exceptions)
    info = p.kernel.sessions[p.connection.key]
    p.kernel.sessions[p.connection.key] = replace(info, judgement=replace(policy, verdict=Verdict.UNDECIDED))
    p.client(GET[:10])
    first = p.connection.key
    p.connection = Connection(sport=50_000)
    p.kernel.open(p.connection, 2)
    p.client(GET[:10])
    assert [(d.key, d.verdict) for d in p.decisions] == [(first, verdict)]
    assert p.records[0]["reason"] == "reassembly_limit"
    assert any(isinstance(command, Release) for command in p.done) == (verdict == Verdict.ALLOW or deny().reset)


def test_kept_bytes_are_bounded_and_an_eighth_is_freed_at_once() -> None:
    p = play(limits=Limits(total=200_000))
    evictions = []
    for number in range(100):
        p.connection = Connection(sport=1000 + number)
        p.kernel.open(p.connection, 100 + number)
        before = p.inspector.stats.evicted
        for part in range(5):
            p.client(b"x" * 1000, at=1000 * (part + 1))
            assert p.inspector.stats.kept_bytes <= 200_000
        evictions.append(p.inspector.stats.evicted - before)
    assert [d.session_id for d in p.decisions] == list(range(100, 100 + sum(evictions))), "the oldest first"
    assert 0 in evictions[-4:], "not one for each that comes"
    assert max(evictions) > 1


def test_where_nobody_waits_the_oldest_that_keeps_something_goes() -> None:
    """Requests with endless bodies that nobody acknowledges: all are judged, and their bytes are kept."""
    p = play(limits=Limits(total=200_000))
    connections = [Connection(sport=1000 + number) for number in range(4)]
    for number, connection in enumerate(connections):
        p.connection = connection
        p.kernel.open(connection, 100 + number)
        p.client(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(70):
        for p.connection in connections:
            p.client(b"x" * 1000)
    assert [d.session_id for d in p.decisions][:1] == [100]
    assert p.inspector.stats.kept_bytes <= 200_000


def test_counts_are_zero_when_all_have_gone() -> None:
    p = play(limits=Limits(max_flows=10, total=20_000))
    half_flows(p, 30, b"GET /" + b"x" * 3000)
    for number in range(30):
        p.forget(100 + number)
    stats = p.inspector.stats
    assert (stats.flows, stats.held_bytes, stats.kept_bytes) == (0, 0, 0)


def test_what_waits_goes_on_in_the_order_of_its_bytes() -> None:
    """Of both sides, whatever order they came in, and only what is judged: an offer holds the client's bytes back."""
    p = play()
    offer = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    p.client(offer)
    for at in (2, 0, 1):
        assert p.client(GET[at : at + 1], at=len(offer) + at) == []
    half = len(OK) // 2
    assert p.server(OK[half:], at=half) == []
    done = len(p.done)
    p.server(OK[:half], at=0)
    released = [bytes(c.packet.payload) for c in p.done[done:] if isinstance(c, Release)]
    assert released == [OK[:half], OK[half:]]
    p.wait(0.03)
    assert [bytes(c.packet.payload) for c in p.done if isinstance(c, Release)][-3:] == [b"G", b"E", b"T"]
