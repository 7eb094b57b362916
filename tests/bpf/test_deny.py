"""What becomes of packets that may not pass, and of those that may whatever the policy says."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from fastpath import abi
from fastpath.abi import Pressure, SessionFlag
from fastpath.policy.model import Log
from tests.bpf.harness import (
    GATEWAY,
    GATEWAY_MAC,
    ISN,
    PEER_ISN,
    SENDER_MAC,
    Flow,
    Kernel,
    judged,
    rule,
    states,
)
from tests.contract.identify_vectors import WHOLE

pytestmark = pytest.mark.root

RESET = rule("no", "deny", tcp=80, reset=True)
DROP = rule("no", "deny", tcp=80)
WEB = rule("web", "allow", tcp=80)
GET = b"GET / HTTP/1.1\r\n\r\n"
SSH = b"SSH-2.0-OpenSSH_9.2p1\r\n"


# --- reset -----------------------------------------------------------------------------------------------------------


def check_reset(frame: bytes, sent: Packet, *, back: bool, seq: int, ack: int, flags: str) -> None:
    """A bare RST with right numbers and checksums, to the sender (`back`) or on to the receiver of `sent`."""
    network = IP if IP in sent else IPv6
    got = Ether(frame)
    ends = (sent.src, sent.dst, sent[network].src, sent[network].dst, sent[TCP].sport, sent[TCP].dport)
    src, dst, source, destination, sport, dport = ends
    if back:
        src, dst, source, destination, sport, dport = dst, src, destination, source, dport, sport
    assert (got.src, got.dst, got[network].src, got[network].dst) == (src, dst, source, destination)
    assert (got[TCP].sport, got[TCP].dport) == (sport, dport)
    assert (got[TCP].seq, got[TCP].ack, str(got[TCP].flags)) == (seq, ack, flags)
    assert (got[TCP].dataofs, got[TCP].window, got[TCP].options) == (5, 0, [])
    assert Raw not in got
    # Byte for byte what scapy makes of it: lengths and checksums.
    again = got.copy()
    again[TCP].chksum = None
    if IP in again:
        again[IP].chksum = again[IP].len = None
    else:
        again[IPv6].plen = None
    assert frame == bytes(again)


@pytest.mark.parametrize("tagged", [False, True])
def test_a_denied_syn_is_refused(kernel: Kernel, flow: Flow, tagged: bool) -> None:
    kernel.policy(RESET)
    syn = flow.segment("S")
    if tagged:
        syn = Ether(src=SENDER_MAC, dst=GATEWAY_MAC) / Dot1Q(vlan=7) / syn.payload
    outcome = kernel.send(syn)
    assert (outcome.said, judged(outcome.session)) == ("redirect policy", "deny policy 1")
    check_reset(outcome.frame, syn, back=True, seq=0, ack=ISN + 1, flags="RA")
    assert outcome.stats["resets"] == 1
    assert states(outcome.entry) == ("closed", "closed")


@pytest.mark.parametrize(
    ("flags", "payload", "numbers"),
    [
        ("S", b"early", (0, ISN + 6, "RA")),
        ("A", b"", (PEER_ISN + 1, 0, "R")),
        ("PA", b"x" * 1000, (PEER_ISN + 1, 0, "R")),
        ("FA", b"bye", (PEER_ISN + 1, 0, "R")),
    ],
)
def test_a_reset_answers_what_was_sent(
    kernel: Kernel, flow: Flow, flags: str, payload: bytes, numbers: tuple[int, int, str]
) -> None:
    """RFC 9293 3.5.2: with its acknowledgment number, or acknowledging all of it."""
    kernel.policy(RESET)
    sent = flow.segment(flags, ISN, PEER_ISN + 1 if "A" in flags else 0, payload)
    with kernel.listening() as hear:
        outcome = kernel.send(sent)
        # Without a SYN there may be a connection, of which its receiver hears too.
        frame = outcome.frame if flags == "S" else hear()
    assert outcome.said == ("redirect policy" if flags == "S" else "pass policy")
    seq, ack, expected = numbers
    check_reset(frame, sent, back=True, seq=seq, ack=ack, flags=expected)


def test_headers_with_options_are_cut_too(kernel: Kernel, version: int) -> None:
    kernel.policy(RESET)
    flow = Flow(version)
    sent = flow.segment("S")
    sent[TCP].options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("WScale", 7)]
    outcome = kernel.send(bytes(sent))
    check_reset(outcome.frame, sent, back=True, seq=0, ack=ISN + 1, flags="RA")


def test_an_open_connection_is_reset_on_both_sides(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("no ssh", "deny", tcp=80, app="ssh", reset=True, log=Log.DENY), rule("rest", "allow", tcp=80))
    kernel.commands.heartbeat()
    kernel.open(flow)
    sent = flow.data(SSH)
    with kernel.listening() as hear:
        outcome = kernel.send(sent)
        # One back to its sender, and one onward in its place.
        check_reset(hear(), sent, back=True, seq=PEER_ISN + 1, ack=0, flags="R")
    assert outcome.said == "pass protocol"
    check_reset(outcome.frame, sent, back=False, seq=ISN + 1, ack=PEER_ISN + 1, flags="RA")
    assert (outcome.stats["resets"], states(outcome.entry)) == (2, ("closed", "closed"))
    assert [event.kind for event in kernel.events()] == [abi.EventKind.VERDICT, abi.EventKind.END]
    # The receiver is told once; later segments only answer their sender.
    again = kernel.send(flow.data(b"more", len(SSH)))
    assert again.said == "redirect protocol"
    check_reset(again.frame, flow.data(b"more", len(SSH)), back=True, seq=PEER_ISN + 1, ack=0, flags="R")
    assert kernel.events() == []


def test_no_reset_answers_a_reset(kernel: Kernel, flow: Flow) -> None:
    """RFC 9293 3.5.2."""
    kernel.policy(RESET)
    kernel.send(flow.segment("S"))
    assert kernel.send(flow.segment("R", ISN + 1)).said == "drop policy"


def test_other_protocols_are_dropped(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("no", "deny", reset=True))
    assert kernel.send(flow.datagram(b"x")).said == "drop policy"
    assert kernel.send(flow.echo()).said == "drop policy"
    assert kernel.send(flow.segment("S")).said == "redirect policy"


def test_a_denied_segment_at_egress_is_dropped(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(RESET)
    assert kernel.send(flow.segment("S"), "ms_egress").said == "drop policy"


# --- drop, monitor, records ------------------------------------------------------------------------------------------


def test_drop(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(DROP)
    outcome = kernel.send(flow.segment("S"))
    assert (outcome.said, outcome.frame) == ("drop policy", bytes(flow.segment("S")))
    assert "resets" not in outcome.stats


@pytest.mark.parametrize("reset", [False, True])
def test_monitor_counts_and_lets_pass(kernel: Kernel, flow: Flow, reset: bool) -> None:
    kernel.policy(rule("no", "deny", tcp=80, reset=reset, monitor=True))
    packets = [*flow.handshake(), flow.data(GET), flow.data(b"answer", back=True)]
    for packet in packets:
        outcome = kernel.send(packet)
        assert (outcome.said, outcome.stats["monitored"]) == ("pass policy", 1)
        assert outcome.frame == bytes(packet)
    assert states(outcome.entry) == ("established", "established")


def test_monitor_over_the_default(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(monitor=True)
    assert kernel.send(flow.datagram(b"x")).said == "pass default"


@pytest.mark.parametrize(
    ("action", "log", "kinds"),
    [("deny", Log.NONE, 0), ("deny", Log.DENY, 1), ("allow", Log.DENY, 0), ("allow", Log.ALL, 1), ("deny", Log.ALL, 1)],
)
def test_one_record_a_session_as_its_rule_asks(kernel: Kernel, flow: Flow, action: str, log: Log, kinds: int) -> None:
    kernel.policy(rule("web", action, tcp=80, log=log))
    for _ in range(3):
        kernel.send(flow.segment("S"))
    assert len(kernel.events()) == kinds


# --- ICMP errors -----------------------------------------------------------------------------------------------------


def error(flow: Flow, quoted: Packet, kind: str = "unreachable", *, to: str = "", cut: int = 0) -> bytes:
    """An error about `quoted` (link header included) from a router to the packet's sender, or to `to`."""
    inner = bytes(quoted)[14:]
    inner = inner[: len(inner) - cut] if cut else inner
    if flow.version == 4:
        types = {"unreachable": 3, "quench": 4, "exceeded": 11, "parameter": 12}
        return bytes(
            Ether(src=SENDER_MAC, dst=GATEWAY_MAC)
            / IP(src="10.77.2.9", dst=to or quoted[IP].src)
            / ICMP(type=types[kind])
            / Raw(inner)
        )
    head = {"unreachable": ICMPv6DestUnreach, "quench": ICMPv6PacketTooBig, "exceeded": ICMPv6TimeExceeded}
    return bytes(
        Ether(src=SENDER_MAC, dst=GATEWAY_MAC)
        / IPv6(src="fd77:2::9", dst=to or quoted[IPv6].src)
        / head.get(kind, ICMPv6TimeExceeded)()
        / Raw(inner)
    )


@pytest.mark.parametrize("kind", ["unreachable", "quench", "exceeded", "parameter"])
@pytest.mark.parametrize("l4", ["tcp", "udp", "icmp"])
def test_errors_about_an_allowed_session_pass(kernel: Kernel, flow: Flow, kind: str, l4: str) -> None:
    errors = rule("no errors", "deny", l4=1 if flow.version == 4 else 58, sources=())
    kernel.policy(WEB, rule("udp", "allow", udp=80), *([errors] if l4 != "icmp" else []), default="allow")
    sent = {"tcp": flow.segment("S"), "udp": flow.datagram(b"x" * 30), "icmp": flow.echo()}[l4]
    assert kernel.send(sent).said == "pass"
    assert kernel.send(error(flow, sent, kind)).said == "pass"
    # Eight bytes of what the quoted packet carried are enough (RFC 792).
    head = 20 if flow.version == 4 else 40
    assert kernel.send(error(flow, sent, kind, cut=len(sent) - 14 - head - 8)).said == "pass"
    assert len(kernel.live()) == 1


def test_errors_about_nothing_are_dropped(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(default="allow")
    assert kernel.send(error(flow, flow.segment("S"))).said == "drop icmp_unrelated"


def test_errors_about_a_denied_session_are_dropped(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(DROP, default="allow")
    kernel.send(flow.segment("S"))
    assert kernel.send(error(flow, flow.segment("S"))).said == "drop icmp_unrelated"


def test_an_error_goes_to_the_sender_of_what_it_quotes(kernel: Kernel, flow: Flow) -> None:
    """Else two ends of any allowed session could send to everybody, what they like, as errors."""
    kernel.policy(WEB)
    kernel.open(flow)
    for quoted in (flow.segment("A"), flow.segment("A", back=True)):
        other = "10.77.2.77" if flow.version == 4 else "fd77:2::77"
        assert kernel.send(error(flow, quoted, to=other)).said == "drop icmp_unrelated"
        assert kernel.send(error(flow, quoted)).said == "pass"


def test_redirects_are_for_hosts(kernel: Kernel) -> None:
    # RFC 1812 5.2.7.2: judged as any packet, not passed as an error.
    flow = Flow(4)
    kernel.policy(WEB)
    kernel.open(flow)
    frame = bytearray(error(flow, flow.segment("A")))
    frame[34] = 5
    assert kernel.send(bytes(frame)).said == "drop default"


# --- pressure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pressure", "port", "said", "sessions"),
    [
        (Pressure.WARN, 80, "pass", 1),
        (Pressure.WARN, 81, "pass", 1),
        (Pressure.WARN, 82, "drop policy", 1),
        (Pressure.HIGH, 80, "pass", 1),
        (Pressure.HIGH, 81, "drop table_full", 0),
        (Pressure.FULL, 80, "pass", 0),
        (Pressure.FULL, 81, "drop table_full", 0),
    ],
)
def test_pressure(kernel: Kernel, version: int, pressure: Pressure, port: int, said: str, sessions: int) -> None:
    kernel.policy(WEB, rule("undecided", "allow", tcp=81, app="http"), rule("no", "deny", tcp=82))
    known = Flow(version, sport=5)
    kernel.open(known)
    kernel.revisions.press(pressure)
    outcome = kernel.send(Flow(version, dport=port).segment("S"))
    assert (outcome.said, len(kernel.live()) - 1) == (said, sessions)
    # Sessions that are there go on.
    assert kernel.send(known.data(b"x")).said == "pass"


def test_dns_passes_a_table_that_is_nearly_full(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("names", "allow", udp=53, app="dns"))
    query = next(vector.data for vector in WHOLE if vector.name == "dns query")
    for pressure, said in ((Pressure.HIGH, "pass"), (Pressure.FULL, "drop table_full")):
        kernel.revisions.press(pressure)
        assert kernel.send(Flow(version, sport=1000 + pressure, dport=53).datagram(query)).said == said


def test_a_denied_flow_keeps_its_reason_under_pressure(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(DROP)
    kernel.revisions.press(Pressure.FULL)
    assert kernel.send(flow.segment("S")).said == "drop policy"
    assert kernel.live() == []


# --- the gateway itself ----------------------------------------------------------------------------------------------


def test_failsafe_ports_of_the_gateway(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("nobody", "deny"))
    mine = Flow(version, dport=22, server=GATEWAY[version])
    outcome = kernel.send(mine.segment("S"))
    assert (outcome.said, judged(outcome.session)) == ("pass", "allow failsafe 0")
    assert outcome.entry.flags & SessionFlag.HOST
    # Its answers belong to the session.
    answer = kernel.send(mine.segment("SA", 1, ISN + 1, back=True), "ms_egress")
    assert (answer.said, answer.entry.packets[1]) == ("pass", 1)
    # A reload does not lock anybody out.
    kernel.policy(rule("still nobody", "deny", reset=True))
    assert kernel.send(mine.data(b"x")).said == "pass"


def test_failsafe_is_for_the_gateway_alone(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("nobody", "deny"))
    assert kernel.send(Flow(version, dport=22).segment("S")).said == "drop policy"
    assert kernel.send(Flow(version, dport=23, server=GATEWAY[version]).segment("S")).said == "drop policy"
    assert kernel.send(Flow(version, dport=22, server=GATEWAY[version]).datagram(b"x")).said == "drop policy"


def test_failsafe_on_an_interface_that_forwards_nothing(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("nobody", "deny"))
    with kernel.forwarding(version, on=False):
        outcome = kernel.send(Flow(version, dport=22, server=GATEWAY[version]).segment("S"))
    assert outcome.said == "pass"


def test_the_gateways_own_traffic(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("no", "deny", tcp=81))
    own = Flow(version, dport=53, client=GATEWAY[version])
    outcome = kernel.send(own.datagram(b"x"), "ms_egress")
    assert (outcome.said, judged(outcome.session)) == ("pass", "allow host 0")
    assert outcome.entry.flags & SessionFlag.HOST
    assert kernel.send(own.datagram(b"answer", back=True)).said == "pass"
    # Unless a rule says otherwise.
    assert kernel.send(Flow(version, dport=81, client=GATEWAY[version]).segment("S"), "ms_egress").said == "drop policy"


@pytest.mark.parametrize("before", [0, abi.Limit.MANAGED_NEAR, 20])
def test_forwarded_packets_are_judged_once(kernel: Kernel, flow: Flow, before: int) -> None:
    kernel.policy(rule("nobody", "deny"))
    index = kernel.namespace.ifindex["seg0"]
    kernel.manage(*range(1000, 1000 + before), index)
    outcome = kernel.send(flow.segment("S"), "ms_egress", interface="seg1", came_from=index)
    assert (outcome.said, outcome.stats, outcome.drops) == ("pass", {}, {})
    # From an interface that is not managed it is judged here.
    unmanaged = kernel.namespace.ifindex["far0"]
    outcome = kernel.send(flow.segment("S"), "ms_egress", interface="seg1", came_from=unmanaged)
    assert outcome.said == "drop policy"
