"""ICMP errors: whose packet they quote, and that this packet can have been sent."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from fastpath.abi import SessionFlag
from tests.bpf.harness import GATEWAY_MAC, ISN, PEER_ISN, SENDER_MAC, TCP_L4, Flow, Kernel, rule

pytestmark = pytest.mark.root

ROUTER = {4: "10.77.9.9", 6: "fd77:9::9"}
ALL = rule("all", "allow")


def too_big(quoted: Packet, size: int = 400) -> Packet:
    """What a router on the way says to the sender of a packet that does not fit."""
    inner = bytes(quoted.payload)[:size]
    link = Ether(src=SENDER_MAC, dst=GATEWAY_MAC)
    if IP in quoted:
        return link / IP(src=ROUTER[4], dst=quoted[IP].src) / ICMP(type=3, code=4, nexthopmtu=1300) / Raw(inner)
    return link / IPv6(src=ROUTER[6], dst=quoted[IPv6].src) / ICMPv6PacketTooBig(mtu=1300) / Raw(inner)


def change(kernel: Kernel, flow: Flow, **fields: int | tuple[int, int]) -> None:
    """What the kernel half would have learned of a connection."""
    session = kernel.session(flow.key(TCP_L4))
    assert session
    for name, value in fields.items():
        if isinstance(value, tuple):
            getattr(session, name)[:] = value
        else:
            setattr(session, name, value)
    kernel.table.update(flow.key(TCP_L4), bytes(session))


def test_an_error_changes_nothing(kernel: Kernel, flow: Flow) -> None:
    """Nor does it keep a session alive: anyone who saw a packet of it could."""
    kernel.policy(ALL)
    kernel.open(flow)
    before = bytes(kernel.session(flow.key(TCP_L4)) or b"")
    kernel.tick()
    for back in (False, True):
        outcome = kernel.send(too_big(flow.data(b"x" * 100, back=back)))
        assert (outcome.said, outcome.drops) == ("pass", {})
    assert bytes(kernel.session(flow.key(TCP_L4)) or b"") == before
    assert len(kernel.live()) == 1


# Acknowledged up to 1000 bytes, 5000 sent, a window of 65535.
@pytest.mark.parametrize(
    ("seq", "said"),
    [
        (ISN + 1 + 1000, "pass"),
        (ISN + 1 + 4999, "pass"),
        (ISN + 1 + 5000, "pass"),
        (ISN + 1 + 5001, "drop icmp_unrelated"),
        (ISN + 1 + 1000 - 65535, "pass"),
        (ISN + 1 + 1000 - 65536, "drop icmp_unrelated"),
        (ISN + (1 << 31), "drop icmp_unrelated"),
    ],
)
@pytest.mark.parametrize("wrap", [0, 0xFFFFF000], ids=["", "wrapping"])
@pytest.mark.parametrize("back", [False, True], ids=["by the client", "by the server"])
def test_the_quoted_segment_is_in_flight(
    kernel: Kernel, flow: Flow, seq: int, said: str, wrap: int, back: bool
) -> None:
    """RFC 5927 4.1: an error about a segment that its sender cannot have in flight is forged."""
    kernel.policy(ALL)
    kernel.open(flow)
    kernel.send(flow.data(b"", back=True, flags="A"))
    una, end = (ISN + 1 + 1000 + wrap) & 0xFFFFFFFF, (ISN + 1 + 5000 + wrap) & 0xFFFFFFFF
    # The sender's end, and what the other side acknowledged of it.
    ends, acks = [(end, 7), (9, una)]
    if back:
        ends, acks = ends[::-1], acks[::-1]
    change(kernel, flow, end=ends, ack=acks, window=(0, 0), scale=(0, 0))
    assert kernel.send(too_big(flow.segment("A", seq + wrap, 1, b"x", back=back))).said == said


def test_a_scaled_window_is_slack(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALL)
    kernel.open(flow)
    change(kernel, flow, end=(ISN + 5000, 0), ack=(0, ISN + 1000), window=(0, 1000), scale=(0, 7))
    assert kernel.send(too_big(flow.segment("A", ISN + 1000 - 128000))).said == "pass"
    assert kernel.send(too_big(flow.segment("A", ISN + 1000 - 128001))).said == "drop icmp_unrelated"


def test_before_anything_is_acknowledged(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALL)
    kernel.send(flow.segment("S"))
    change(kernel, flow, end=(ISN + 1, 0), ack=(0, 0))
    assert kernel.send(too_big(flow.segment("S"))).said == "pass"
    assert kernel.send(too_big(flow.segment("S", ISN + 2))).said == "drop icmp_unrelated"


def test_midstream_numbers_are_not_known(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALL)
    entry = kernel.send(flow.data(b"x")).entry
    assert entry.flags & SessionFlag.MIDSTREAM
    change(kernel, flow, end=(ISN + 1, 0), ack=(0, ISN + 1))
    assert kernel.send(too_big(flow.segment("A", ISN + (1 << 30)))).said == "pass"


@pytest.mark.parametrize("l4", ["tcp", "udp", "icmp", "esp"])
def test_about_a_direction_that_sent_nothing(kernel: Kernel, flow: Flow, l4: str) -> None:
    kernel.policy(ALL)

    def esp(*, back: bool = False) -> Packet:
        fields = {"proto": 50} if flow.version == 4 else {"nh": 50}
        return flow.ip(back=back, **fields) / Raw(bytes(16))

    there, answer = {
        "tcp": (flow.segment("S"), flow.segment("SA", PEER_ISN, ISN + 1, back=True)),
        "udp": (flow.datagram(b"x" * 9), flow.datagram(b"y" * 9, back=True)),
        "icmp": (flow.echo(), flow.echo(back=True)),
        "esp": (esp(), esp(back=True)),
    }[l4]
    kernel.send(there)
    assert kernel.send(too_big(there)).said == "pass"
    assert kernel.send(too_big(answer)).said == "drop icmp_unrelated"
    kernel.send(answer)
    assert kernel.send(too_big(answer)).said == "pass"


def test_about_an_older_policy(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALL)
    kernel.open(flow)
    kernel.policy(ALL, rule("more", "deny", udp=9))
    assert kernel.send(too_big(flow.segment("A", ISN + 1))).said == "drop icmp_unrelated"
    kernel.send(flow.data(b"x"))
    assert kernel.send(too_big(flow.segment("A", ISN + 1))).said == "pass"


def test_about_a_session_that_is_over(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(timeouts={"udp": 0.01})
    kernel.policy(ALL)
    kernel.send(flow.datagram(b"x" * 9))
    kernel.tick(0.02)
    assert kernel.send(too_big(flow.datagram(b"x" * 9))).said == "drop icmp_unrelated"


def test_about_what_monitor_mode_let_pass(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("no", "deny", tcp=80, monitor=True))
    assert kernel.send(flow.segment("S")).said == "pass policy"
    assert kernel.send(too_big(flow.segment("S"))).said == "pass icmp_unrelated"


@pytest.mark.parametrize(
    "headers",
    [
        [IPv6ExtHdrHopByHop()],
        [IPv6ExtHdrDestOpt()],
        [IPv6ExtHdrRouting(segleft=0)],
        [IPv6ExtHdrFragment(m=1, id=5)],
        [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(id=5)],
    ],
    ids=lambda headers: " ".join(header.name for header in headers),
)
def test_quotes_behind_extension_headers(kernel: Kernel, headers: list[Packet]) -> None:
    flow = Flow(6)
    kernel.policy(ALL)
    kernel.send(flow.datagram(b"x" * 9))
    packet = flow.ip()
    for header in headers:
        packet /= header.copy()
    packet /= UDP(sport=40000, dport=80) / Raw(b"x" * 9)
    assert kernel.send(too_big(packet)).said == "pass"
    # Eight bytes of UDP, no more; and not less.
    whole = len(packet) - 14
    assert kernel.send(too_big(packet, whole - 9)).said == "pass"
    assert kernel.send(too_big(packet, whole - 10)).said == "drop icmp_quote"


def test_later_fragments_have_no_ports_to_quote(kernel: Kernel) -> None:
    flow = Flow(6)
    kernel.policy(ALL)
    kernel.send(flow.datagram(b"x" * 9))
    inside = bytes(UDP(sport=40000, dport=80) / Raw(b"x" * 9))
    packet = flow.ip() / IPv6ExtHdrFragment(offset=3, m=1, id=5, nh=17) / Raw(inside)
    assert kernel.send(too_big(packet)).said == "drop icmp_unrelated"


def test_a_quoted_echo_is_told_by_its_identifier(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALL)
    kernel.send(flow.echo(7))
    assert kernel.send(too_big(flow.echo(7))).said == "pass"
    assert kernel.send(too_big(flow.echo(8))).said == "drop icmp_unrelated"


def test_the_gateways_own_errors_leave(kernel: Kernel, flow: Flow) -> None:
    kernel.policy()
    quoted = flow.segment("S")
    assert kernel.send(too_big(quoted), "ms_egress").said == "pass"
