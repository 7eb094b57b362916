"""Session entries: one for both directions, counted exactly, with the TCP states of both ends."""

from __future__ import annotations

import itertools
import time
from ctypes import sizeof

import pytest
from scapy.packet import Packet

from fastpath import abi
from fastpath.abi import Action, End, EventKind, SessionFlag, Timeout
from fastpath.policy.model import Log
from fastpath.word import Word
from tests.bpf.harness import CLIENT, ISN, PEER_ISN, SERVER, Flow, Kernel, judged, rule, states

pytestmark = pytest.mark.root

# linux/time.h; Python has no name for it.
CLOCK_MONOTONIC_COARSE = 6

ALLOW = rule("web", "allow", tcp=80)
LOGGED = rule("web", "allow", tcp=80, log=Log.ALL)
ANY = rule("any", "allow")


def timeout(session: abi.Session) -> str:
    return Timeout(session.timeout).name.lower()


# --- one entry for both directions -----------------------------------------------------------------------------------


def test_fields_of_a_new_session(kernel: Kernel, flow: Flow) -> None:
    revision = kernel.policy(rule("other", "deny", tcp=81), ALLOW)
    before, coarse_before = kernel.commands.clocks(), time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)
    entry = kernel.send(flow.segment("S")).entry
    after, coarse_after = kernel.commands.clocks(), time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)
    word = Word.unpack(entry.verdict)
    assert (word.verdict, word.reason, word.scope) == (abi.Verdict.ALLOW, abi.Reason.POLICY, abi.Scope.NONE)
    assert (word.rule, word.revision, word.monitor, word.reset) == (2, revision, False, False)
    assert entry.rule_hash == ALLOW.hash
    assert coarse_before <= entry.first_ns <= coarse_after
    assert before.jiffies <= entry.last_jiffies <= after.jiffies
    assert 0 < entry.id < 1 << 53
    assert (list(entry.isn), list(entry.ack), list(entry.vlan)) == ([ISN, 0], [0, ISN + 1], [0, 0])
    assert (entry.protocol, entry.first_protocol, entry.provisional, entry.told) == (0, 0, 0, 0)
    assert not entry.flags & abi.SessionFlag.LOGGED
    assert timeout(entry) == "syn"


@pytest.mark.parametrize("l4", ["tcp", "udp", "icmp"])
def test_both_directions_share_the_entry(kernel: Kernel, version: int, l4: str) -> None:
    kernel.policy(ANY)
    # Whichever end has the lower address.
    for number, (client, server) in enumerate(itertools.permutations((CLIENT[version], SERVER[version]))):
        flow = Flow(version, 40000 + number, 80, client, server)
        packets = {
            "tcp": [*flow.handshake(), flow.data(b"abc"), flow.data(b"defgh", got=3, back=True)],
            "udp": [flow.datagram(b"abc"), flow.datagram(b"defgh", back=True), flow.datagram(back=True)],
            "icmp": [flow.echo(number), flow.echo(number, back=True)],
        }[l4]
        outcomes = [kernel.send(packet) for packet in packets]
        assert [outcome.said for outcome in outcomes] == ["pass"] * len(packets)
        assert len({outcome.entry.id for outcome in outcomes}) == 1
        back = [packet.src != packets[0].src or packet[1].src != client for packet in packets]
        lengths = [len(packet) - 14 for packet in packets]
        assert list(outcomes[-1].entry.packets) == [back.count(False), back.count(True)]
        assert list(outcomes[-1].entry.bytes) == [
            sum(length for length, to_client in zip(lengths, back, strict=True) if to_client is side)
            for side in (False, True)
        ]
    assert len(kernel.live()) == 2


def test_two_echo_identifiers_are_two_sessions(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ANY)
    for number in (1, 2, 1):
        kernel.send(flow.echo(number))
    assert sorted(session.packets[0] for _, session in kernel.live()) == [1, 2]
    assert {abi.Protocol(session.protocol).name for _, session in kernel.live()} == {"ICMP"}


def test_statistics_are_exact(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW, rule("no", "deny", tcp=81))
    before = kernel.counters.stats
    kernel.open(flow)
    for n in range(20):
        kernel.send(flow.data(b"x" * 10, n * 10))
    denied = Flow(flow.version, dport=81)
    for _ in range(5):
        assert kernel.send(denied.segment("S")).said == "drop policy"
    after = kernel.counters.stats
    changed = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    lengths = [len(packet) - 14 for packet in flow.handshake()]
    size = len(flow.data(b"x" * 10)) - 14
    assert changed == {
        "packets": 28,
        "bytes": sum(lengths) + 20 * size + 5 * (len(denied.segment("S")) - 14),
        "fast": 23,
        "inserts": 2,
    }
    ((_, blocked),) = [(key, session) for key, session in kernel.live() if key == denied.key(6)]
    assert (judged(blocked), list(blocked.packets)) == ("deny policy 2", [5, 0])


def test_identifiers_differ(kernel: Kernel, version: int) -> None:
    kernel.policy(ALLOW)
    ids = {kernel.send(Flow(version, port).segment("S")).entry.id for port in range(2000, 2300)}
    assert len(ids) == 300


# --- TCP -------------------------------------------------------------------------------------------------------------

OPEN = ["S", "<SA", "A"]
# A letter sequence is sent by the client, behind "<" by the server; what each end's state then is.
LIVES = {
    "syn": (["S"], ("syn_sent", "listen"), "syn"),
    "syn again": (["S", "S"], ("syn_sent", "listen"), "syn"),
    "syn and ack": (["S", "<SA"], ("syn_sent", "syn_received"), "syn"),
    "handshake": (OPEN, ("established", "established"), "established"),
    "data": ([*OPEN, "PA", "<PA", "A"], ("established", "established"), "established"),
    "closing, not acknowledged": ([*OPEN, "FA"], ("fin_wait_1", "established"), "established"),
    "half-closed by the client": ([*OPEN, "FA", "<A"], ("fin_wait_2", "close_wait"), "established"),
    "half-closed by the server": ([*OPEN, "<FA", "A"], ("close_wait", "fin_wait_2"), "established"),
    "still sending while half-closed": (
        [*OPEN, "FA", "<A", "<PA", "<PA", "A"], ("fin_wait_2", "close_wait"), "established",
    ),
    "both closing": ([*OPEN, "FA", "<FA"], ("fin_wait_2", "last_ack"), "closing"),
    "closed": ([*OPEN, "FA", "<FA", "A"], ("time_wait", "closed"), "time_wait"),
    "closed by the server first": ([*OPEN, "<FA", "A", "FA", "<A"], ("closed", "time_wait"), "time_wait"),
    "closed in four": ([*OPEN, "FA", "<A", "<FA", "A"], ("time_wait", "closed"), "time_wait"),
    "reset by the client": ([*OPEN, "R"], ("closed", "closed"), "closing"),
    "reset by the server": ([*OPEN, "<RA"], ("closed", "closed"), "closing"),
    "reset while closing": ([*OPEN, "FA", "<R"], ("closed", "closed"), "closing"),
    "refused": (["S", "<RA"], ("closed", "closed"), "closing"),
    "given up": (["S", "R"], ("closed", "closed"), "closing"),
    "simultaneous": (["S", "<S"], ("syn_sent", "syn_sent"), "syn"),
    "simultaneous, answered": (["S", "<S", "SA", "<SA", "A"], ("established", "established"), "established"),
    "split handshake": (["S", "<S", "SA", "<A"], ("established", "established"), "established"),
}  # fmt: skip


class Talk:
    """Two ends that count their sequence numbers."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.next = [ISN, PEER_ISN]

    def packet(self, step: str) -> Packet:
        back = step.startswith("<")
        flags = step.lstrip("<")
        side = int(back)
        ack = self.next[1 - side] if "A" in flags else 0
        # A SYN that is sent again has its number again.
        seq = (ISN, PEER_ISN)[side] if "S" in flags else self.next[side]
        payload = b"12345" if "P" in flags else b""
        packet = self.flow.segment(flags, seq, ack, payload, back=back)
        self.next[side] = seq + len(payload) + ("S" in flags) + ("F" in flags)
        return packet


@pytest.mark.parametrize("name", LIVES)
def test_tcp_states(kernel: Kernel, flow: Flow, name: str) -> None:
    kernel.policy(LOGGED)
    steps, expected, kind = LIVES[name]
    talk = Talk(flow)
    outcomes = [kernel.send(talk.packet(step)) for step in steps]
    assert [outcome.said for outcome in outcomes] == ["pass"] * len(steps)
    assert (states(outcomes[-1].entry), timeout(outcomes[-1].entry)) == (expected, kind)
    assert outcomes[-1].entry.packets[0] + outcomes[-1].entry.packets[1] == len(steps)
    assert not any(name.startswith("tcp_") for outcome in outcomes for name in outcome.stats)
    kinds = [(event.kind, event.end) for event in kernel.events()]
    ended = End.RESET if expected == ("closed", "closed") else End.CLOSED if "time_wait" in expected else None
    end = [(EventKind.END, ended)] if ended else []
    assert kinds == [(EventKind.VERDICT, 0), *end]


def test_events_carry_key_and_session(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(LOGGED)
    talk = Talk(flow)
    for step in (*OPEN, "PA", "<RA"):
        last = kernel.send(talk.packet(step)).entry
    verdict, end = kernel.events()
    assert bytes(verdict.key) == bytes(end.key) == flow.key(6)
    assert verdict.session.id == end.session.id == last.id
    assert (verdict.reason, end.reason) == (abi.Reason.POLICY, abi.Reason.POLICY)
    assert (list(verdict.session.packets), list(end.session.packets)) == ([1, 0], [3, 2])
    assert verdict.ns <= end.ns
    assert sizeof(verdict) == sizeof(end)


@pytest.mark.parametrize(
    ("name", "step", "seq"),
    [
        ("from the client, too early", "R", ISN - 1),
        ("from the client, too late", "R", ISN + 1 + 8192 + 1),
        ("from the server, too early", "<R", PEER_ISN - 1),
        ("from the server, far off", "<RA", PEER_ISN + (1 << 30)),
    ],
)
def test_a_reset_outside_the_window_changes_nothing(kernel: Kernel, flow: Flow, name: str, step: str, seq: int) -> None:
    kernel.policy(LOGGED)
    kernel.open(flow)
    flags = step.lstrip("<")
    outcome = kernel.send(flow.segment(flags, seq, 0, back=step.startswith("<")))
    assert states(outcome.entry) == ("established", "established")
    assert outcome.stats["tcp_reset"] == 1
    assert [event.kind for event in kernel.events()] == [EventKind.VERDICT]


@pytest.mark.parametrize("ack", [ISN, ISN + 2, 0])
def test_a_refusal_must_acknowledge_the_syn(kernel: Kernel, flow: Flow, ack: int) -> None:
    """RFC 9293 3.10.7.3."""
    kernel.policy(ALLOW)
    kernel.send(flow.segment("S"))
    outcome = kernel.send(flow.segment("RA", 0, ack, back=True))
    assert (states(outcome.entry), outcome.stats["tcp_reset"]) == (("syn_sent", "listen"), 1)


def test_the_window_moves_with_the_acknowledgments(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    kernel.open(flow)
    kernel.send(flow.data(b"x" * 1000))
    kernel.send(flow.data(b"", got=1000, back=True, flags="A"))
    assert "tcp_reset" in kernel.send(flow.segment("R", ISN + 500)).stats
    assert states(kernel.send(flow.segment("R", ISN + 1001)).entry) == ("closed", "closed")


def test_a_syn_and_ack_with_another_number_is_none(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    kernel.open(flow)
    outcome = kernel.send(flow.segment("SA", 9999, ISN + 1, back=True))
    assert (list(outcome.entry.isn), outcome.stats["tcp_syn"]) == ([ISN, PEER_ISN], 1)


@pytest.mark.parametrize(
    "steps", [["S"], [*OPEN, "FA", "<FA", "A"], [*OPEN, "<FA", "A", "FA", "<A"], [*OPEN, "R"], ["S", "<RA"]]
)
def test_a_new_syn_begins_a_new_session(kernel: Kernel, flow: Flow, steps: list[str]) -> None:
    kernel.policy(LOGGED)
    talk = Talk(flow)
    for step in steps:
        old = kernel.send(talk.packet(step)).entry
    kernel.events()
    outcome = kernel.send(flow.segment("S", 77777))
    new = outcome.entry
    assert new.id != old.id
    assert (states(new), new.isn[0], list(new.packets)) == (("syn_sent", "listen"), 77777, [1, 0])
    assert (outcome.stats["inserts"], outcome.stats["deletes"]) == (1, 1)
    ended = states(old)[0] != "syn_sent"
    # Its end was told when it ended.
    assert [(event.kind, event.end) for event in kernel.events()] == [
        *([] if ended else [(EventKind.END, End.REPLACED)]),
        (EventKind.VERDICT, 0),
    ]


def test_an_ended_session_takes_the_same_number_anew(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    old = kernel.open(flow)
    kernel.send(flow.segment("R", ISN + 1))
    assert kernel.send(flow.segment("S")).entry.id != old.id


def test_a_verdict_dies_with_its_session(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("http", "allow", tcp=80, app="http"))
    kernel.commands.heartbeat()
    kernel.open(flow)
    assert judged(kernel.send(flow.data(b"GET / HTTP/1.1\r\n\r\n")).entry) == "allow protocol 1"
    kernel.send(flow.segment("RA", PEER_ISN + 1, ISN + 19, back=True))
    kernel.send(flow.segment("S", 77777))
    kernel.send(flow.segment("SA", 5, 77778, back=True))
    kernel.send(flow.segment("A", 77778, 6))
    outcome = kernel.send(flow.segment("PA", 77778, 6, b"SSH-2.0-OpenSSH_9.2\r\n"))
    assert (outcome.said, judged(outcome.entry)) == ("drop default", "deny default 0")


def test_a_new_syn_of_the_server_is_judged_as_its_own(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("to server", "allow", tcp=80))
    kernel.open(flow)
    kernel.send(flow.segment("R", ISN + 1))
    assert kernel.send(flow.segment("S", 5, back=True)).said == "drop default"


def test_a_denied_syn_is_no_opening_that_the_other_side_could_join(kernel: Kernel, flow: Flow) -> None:
    """Else anyone behind the gateway could close a client's way to a server by sending a SYN of their own."""
    kernel.policy(ALLOW)
    assert kernel.send(flow.segment("S", PEER_ISN, back=True)).said == "drop default"
    outcome = kernel.send(flow.segment("S"))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow policy 1")
    assert kernel.send(flow.segment("SA", PEER_ISN, ISN + 1, back=True)).said == "pass"


# --- time ------------------------------------------------------------------------------------------------------------


def test_an_expired_session_is_another_one(kernel: Kernel, version: int) -> None:
    kernel.settings(timeouts={"udp": 0.01})
    kernel.policy(rule("udp", "allow", udp=80, log=Log.ALL))
    flow = Flow(version)
    old = kernel.send(flow.datagram(b"x")).entry
    kernel.events()
    kernel.tick(0.02)
    outcome = kernel.send(flow.datagram(b"x"))
    assert outcome.entry.id != old.id
    assert (outcome.stats["deletes"], outcome.stats["inserts"]) == (1, 1)
    assert [(event.kind, event.end) for event in kernel.events()] == [
        (EventKind.END, End.TIMEOUT),
        (EventKind.VERDICT, 0),
    ]


def test_every_packet_keeps_its_session_alive(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ANY)
    packets = (flow.datagram(b"x"), flow.datagram(b"x", back=True), flow.datagram(b"x"))
    last = []
    for packet in packets:
        last.append(kernel.send(packet).entry.last_jiffies)
        kernel.tick()
    assert last == sorted(set(last))


def test_answered_datagrams_have_a_longer_life(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("udp", "allow", udp=80))
    flow = Flow(version)
    assert timeout(kernel.send(flow.datagram(b"x")).entry) == "udp"
    old = kernel.send(flow.datagram(b"x", back=True)).entry
    assert timeout(old) == "udp_stream"
    kernel.settings(timeouts={"udp": 0.01})
    kernel.tick(0.02)
    assert kernel.send(flow.datagram(b"x")).entry.id == old.id


def test_kinds_of_timeout(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ANY)
    assert timeout(kernel.send(flow.echo()).entry) == "icmp"
    kernel.send(flow.ip(proto=47) if flow.version == 4 else flow.ip(nh=47))
    assert sorted(timeout(session) for _, session in kernel.live()) == ["icmp", "other"]


def test_an_expired_tcp_session_goes_on_midstream(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(timeouts={"established": 0.01})
    kernel.policy(ALLOW)
    old = kernel.open(flow)
    kernel.tick(0.02)
    outcome = kernel.send(flow.data(b"x", back=True))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow policy 1")
    assert outcome.entry.id != old.id
    assert outcome.entry.flags & SessionFlag.MIDSTREAM


# --- midstream -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("back", [False, True], ids=["by the client", "by the server"])
def test_midstream_adoption(kernel: Kernel, flow: Flow, back: bool) -> None:
    kernel.policy(ALLOW)
    outcome = kernel.send(flow.data(b"hello", 100, got=50, back=back))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow policy 1")
    assert outcome.entry.flags & SessionFlag.MIDSTREAM
    assert states(outcome.entry) == ("established", "established")
    assert timeout(outcome.entry) == "established"
    # The client is who may open it, whoever was seen first.
    assert list(outcome.entry.packets) == ([0, 1] if back else [1, 0])
    assert list(kernel.send(flow.data(b"", back=not back)).entry.packets) == [1, 1]


def test_midstream_that_no_direction_may_open(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("other", "allow", tcp=81))
    for back in (False, True):
        outcome = kernel.send(flow.data(b"hello", back=back))
        assert (outcome.said, judged(outcome.entry)) == ("drop default", "deny default 0")


def test_midstream_denied_both_ways_obeys_the_rule_of_its_own_direction(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("no", "deny", tcp=80, monitor=True))
    outcome = kernel.send(flow.data(b"hello"))
    assert (outcome.said, judged(outcome.entry)) == ("pass policy", "deny policy 1")


@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize(
    ("exception", "verdict", "said"),
    [
        (Action.INSPECT, "deny midstream 1", "drop midstream"),
        (Action.ALLOW, "allow midstream 1", "pass"),
        (Action.DENY, "deny midstream 1", "drop midstream"),
    ],
)
def test_a_rule_that_must_see_the_start(
    kernel: Kernel, flow: Flow, files: bool, exception: Action, verdict: str, said: str
) -> None:
    kernel.settings(exceptions={"midstream": exception})
    kernel.policy(rule("web", "inspect" if files else "allow", tcp=80, app="http", files=files))
    kernel.commands.heartbeat()
    outcome = kernel.send(flow.data(b"GET / HTTP/1.1\r\n\r\n"))
    assert (outcome.said, judged(outcome.entry)) == (said, verdict)


def test_midstream_can_be_denied_altogether(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(exceptions={"midstream": Action.DENY})
    kernel.policy(ALLOW)
    assert kernel.send(flow.data(b"x")).said == "drop midstream"


def test_a_stray_reset_begins_nothing(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    assert kernel.send(flow.segment("R", 5)).said == "pass"
    assert kernel.send(Flow(flow.version, dport=81).segment("R", 5)).said == "drop default"
    assert kernel.live() == []
