"""Whatever way the bytes are cut and ordered: the same verdict, and no deciding byte before it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpath.abi import Action, Protocol, Verdict
from slowpath.core.frame import ACK, FIN, RST, SYN, URG, FrameError, parse_frame
from slowpath.core.model import Decide, Exceptions, Limits, Release
from slowpath.rules.ruleset import load_rules
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.wire import CLIENT, SERVER, Connection, Play, allow, deny, inspect, udp_frame

RULES = load_rules([Path(__file__).parents[4] / "configs" / "rules.d"])
POLICY = {
    Protocol.HTTP: inspect("web"),
    Protocol.HTTP2: inspect("web"),
    Protocol.GRPC: inspect("greeter"),
    Protocol.REDIS: allow(),
}
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# connection, from the server, flags, offset, payload, seconds behind it, urgent pointer
Shape = tuple[int, bool, int, int | None, bytes, float, int]


def _http2() -> tuple[bytes, int]:
    sender = h2.Sender()
    begin = h2.START + sender.request(1, "/ok") + sender.call(3, "/lab.Echo/Say")
    bad = sender.call(5, "/lab.Admin/Wipe")
    return begin + bad + sender.request(7, "/ok"), len(begin) + len(bad) - 14  # without the DATA frame


def _stream(name: str) -> tuple[bytes, int | None]:
    """Bytes of a client, and where the byte stands (its end) that completes what is denied."""
    get, end = b"GET /%s HTTP/1.1\r\nHost: a.example\r\n", b"\r\n"
    if name == "http":
        begin = (
            get % b"ok"
            + end
            + b"POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n"
        )
        bad = get % b"admin" + end
        return begin + bad + get % b"ok" + end, len(begin + bad)
    if name == "http2":
        return _http2()
    if name == "allowed":
        return (get % b"a" + end) * 5, None
    return b"*1\r\n$4\r\nPING\r\n" * 8, None


@st.composite
def segments(draw: st.DrawFn, data: bytes) -> list[tuple[int, int]]:
    """(from, to) of segments that cover `data`, shuffled within a window, some of them twice."""
    cuts = sorted(draw(st.sets(st.integers(1, len(data) - 1), max_size=12)))
    edges = [0, *cuts, len(data)]
    parts = list(pairwise(edges))
    order = draw(st.permutations(range(len(parts))))
    copies = draw(st.lists(st.sampled_from(parts), max_size=4))
    return [parts[n] for n in order] + copies + parts


@pytest.mark.parametrize("name", ["http", "http2", "allowed", "redis"])
def test_segmentation_changes_nothing(name: str) -> None:
    data, bad = _stream(name)

    @QUICK
    @given(segments(data), st.lists(st.booleans(), min_size=40, max_size=40))
    def check(parts: list[tuple[int, int]], waits: list[bool]) -> None:
        play = Play(POLICY, RULES, default=deny())
        for (low, high), wait in zip(parts, waits, strict=False):
            play.client(data[low:high], at=low)
            if wait:
                play.wait(0.025)
        verdicts = [decision.verdict for decision in play.decisions]
        if bad is None:
            assert verdicts == []
            seen = {
                (c.packet.seq - play.connection.isn[0] - 1) & 0xFFFFFFFF for c in play.done if isinstance(c, Release)
            }
            assert 0 in seen
            assert max(seen) == max(low for low, _ in parts), "all of it went on"
            assert all(record["verdict"] == "allow" for record in play.records)
            return
        assert verdicts == [Verdict.DENY]
        assert play.records[-1]["reason"] in {"rule", "no_rule"}
        decided = next(n for n, command in enumerate(play.done) if isinstance(command, Decide))
        for command in play.done[:decided]:
            if isinstance(command, Release):
                start = (command.packet.seq - play.connection.isn[0] - 1) & 0xFFFFFFFF
                assert start + len(command.packet.payload) < bad, "the deciding byte went on before the verdict"

    check()


def test_random_segments_never_raise_and_stay_within_bounds() -> None:
    limits = Limits(max_flows=6, flow_held=20_000, total=60_000, need_more_bytes=4000)
    prefixes = [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        h2.START,
        b"\x16\x03\x01\x00\x80\x01",
        b"SSH-2.0-",
        b"PRI * HTTP",
    ]
    packet = st.tuples(
        st.integers(0, 9),  # connection
        st.booleans(),  # from the server
        st.sampled_from([ACK, ACK, ACK, SYN, SYN | ACK, ACK | FIN, RST, RST | ACK, ACK | URG, 0]),
        st.one_of(st.none(), st.integers(-5, 3000), st.integers(0, 1 << 32)),
        st.builds(lambda a, b: a + b, st.sampled_from(prefixes), st.binary(max_size=200)),
        st.sampled_from([0.0, 0.0, 0.005, 0.03, 2.5, 400.0]),
        st.integers(0, 3),
    )
    action = st.sampled_from(list(Action))

    @QUICK
    @given(
        st.lists(packet, max_size=60),
        st.builds(Exceptions, action, action, action, action, action, action),
        st.booleans(),
        st.booleans(),
    )
    def check(packets: list[Shape], exceptions: Exceptions, midstream: bool, monitor: bool) -> None:
        play = Play(POLICY, RULES, default=deny(monitor=monitor), limits=limits, exceptions=exceptions)
        connections = [Connection(sport=1000 + n) for n in range(10)]
        for number, connection in enumerate(connections):
            play.kernel.open(connection, 10 + number, midstream=midstream and number % 2 == 0)
        fed = 0
        for number, back, flags, at, data, pause, urgent in packets:
            play.connection = connections[number]
            made = play.connection.segment(int(back), data, at, flags, urgent)
            fed += 1
            play.feed(made)
            play.wait(pause)
            stats = play.inspector.stats
            assert stats.flows <= limits.max_flows
            assert stats.kept_bytes <= limits.total + 2000
            assert stats.held_bytes >= 0
            if pause == 2.5:
                play.forget(10 + number)
                play.kernel.open(connections[number], 10 + number)
        play.inspector.close(play.now)
        stats = play.inspector.stats
        assert (stats.flows, stats.held_bytes, stats.kept_bytes) == (0, 0, 0)
        assert stats.released + stats.discarded == fed, "every packet goes on or does not, once"

    check()


@QUICK
@given(st.binary(max_size=300))
def test_random_datagrams(payload: bytes) -> None:
    play = Play({}, default=allow())
    packet = parse_frame(udp_frame(CLIENT, SERVER, 1, 53, payload))
    play.inspector.packet(packet, 0.0)


@QUICK
@given(st.binary(max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00"]))
def test_random_frames(noise: bytes, kind: bytes) -> None:
    for head in (b"", b"\x45\x00\x00\x28", b"\x60\x00\x00\x00\x00\x14\x2c\x40", b"\x60\x00\x00\x00\x00\x14\x06\x40"):
        try:
            packet = parse_frame(bytes(12) + kind + head + noise)
        except FrameError:
            continue
        assert 0 <= len(packet.payload) <= len(noise) + len(head)
