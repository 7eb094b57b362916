"""Fragments: later ones follow an allowed first one, everything else takes the `fragment` exception."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from fastpath.abi import Action
from tests.bpf.harness import Flow, Kernel, judged, rule

pytestmark = pytest.mark.root

ALLOW = rule("udp", "allow", udp=80)
# The whole datagram is 8 + 24 bytes: 16 in the first fragment, 16 in the second.
PAYLOAD = bytes(range(24))


def piece(flow: Flow, offset: int, data: bytes, *, more: bool, number: int = 77, l4: int = 17, back: bool = False) -> Packet:  # fmt: skip  # noqa: E501
    """A fragment with `data` at `offset` bytes, a multiple of 8."""
    if flow.version == 4:
        return flow.ip(back=back, id=number, flags="MF" if more else 0, frag=offset // 8, proto=l4) / Raw(data)
    head = IPv6ExtHdrFragment(offset=offset // 8, m=int(more), id=number, nh=l4)
    return flow.ip(back=back) / head / Raw(data)


def datagram(flow: Flow) -> bytes:
    return bytes(flow.datagram(PAYLOAD)[UDP])


def first(flow: Flow, number: int = 77) -> Packet:
    return piece(flow, 0, datagram(flow)[:16], more=True, number=number)


def later(flow: Flow, offset: int = 16, number: int = 77, **fields: bool) -> Packet:
    return piece(flow, offset, datagram(flow)[16:], more=False, number=number, **fields)


def test_later_fragments_follow_an_allowed_first_one(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    assert kernel.send(first(flow)).said == "pass"
    outcome = kernel.send(later(flow))
    assert (outcome.said, outcome.stats["fragments"]) == ("pass", 1)
    # The first alone has ports, so it alone is the session's.
    ((key, session),) = kernel.live()
    assert key == flow.key(17)
    assert list(session.packets) == [1, 0]


def test_in_an_established_session_too(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    kernel.send(flow.datagram(b"x"))
    assert kernel.send(first(flow)).said == "pass"
    assert kernel.send(later(flow)).said == "pass"


@pytest.mark.parametrize(
    ("name", "fields"),
    [("other id", {"number": 78}), ("overlapping", {"offset": 8}), ("the other direction", {"back": True})],
)
def test_what_does_not_follow_the_first(kernel: Kernel, flow: Flow, name: str, fields: dict[str, bool]) -> None:
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    assert kernel.send(later(flow, **fields)).said == "drop fragment"


def test_before_the_first(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(ALLOW)
    assert kernel.send(later(flow)).said == "drop fragment"
    assert kernel.send(first(flow)).said == "pass"
    assert kernel.send(later(flow)).said == "pass"


def test_other_protocol_than_the_first(kernel: Kernel) -> None:
    # IPv4 reassembles by protocol too (RFC 791 3.2); IPv6 does not (RFC 8200 4.5).
    flow = Flow(4)
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    assert kernel.send(piece(flow, 16, bytes(16), more=False, l4=6)).said == "drop fragment"


def test_ipv6_options_behind_the_fragment_header(kernel: Kernel) -> None:
    flow = Flow(6)
    kernel.policy(ALLOW)
    whole = bytes(IPv6ExtHdrDestOpt() / UDP(sport=40000, dport=80) / Raw(PAYLOAD))
    # scapy knows the next header only inside a whole packet.
    whole = b"\x11" + whole[1:]
    assert kernel.send(piece(flow, 0, whole[:24], more=True, l4=60)).said == "pass"
    # Its later fragments name the header that the first began with, not UDP.
    assert kernel.send(piece(flow, 24, whole[24:], more=False, l4=60)).said == "pass"


def test_first_fragments_of_a_denied_flow(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("udp", "deny", udp=80), default="allow")
    assert kernel.send(first(flow)).said == "drop policy"
    assert kernel.send(later(flow)).said == "drop fragment"
    # Nor does a denied first fragment reset anybody.
    kernel.policy(rule("tcp", "deny", tcp=80, reset=True))
    syn = bytes(flow.segment("S")[TCP]) + bytes(4)
    assert kernel.send(piece(flow, 0, syn, more=True, l4=6)).said == "drop policy"


@pytest.mark.parametrize("length", [0, 1, 8, 19])
def test_tiny_first_fragments(kernel: Kernel, flow: Flow, length: int) -> None:
    """RFC 1858 3: a first fragment that ends inside the TCP header hides its flags."""
    kernel.policy(default="allow")
    syn = bytes(flow.segment("S")[TCP])
    assert kernel.send(piece(flow, 0, syn[:length], more=True, l4=6)).said == "drop fragment"
    assert kernel.send(piece(flow, 0, datagram(flow)[: min(length, 7)], more=True)).said == "drop fragment"
    assert kernel.live() == []


def test_tcp_options_cut_off(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(default="allow")
    head = bytearray(bytes(flow.segment("S")[TCP]))
    head[12] = 0x60
    assert kernel.send(piece(flow, 0, bytes(head), more=True, l4=6)).said == "drop fragment"


def test_the_bare_tcp_header_over_again(kernel: Kernel, flow: Flow) -> None:
    """RFC 3128: a second fragment at offset 8 would rewrite the flags behind the ports."""
    kernel.policy(default="allow")
    head = bytes(flow.segment("S")[TCP]) + bytes(4)
    assert kernel.send(piece(flow, 0, head, more=True, l4=6)).said == "pass"
    assert kernel.send(piece(flow, 8, bytes(16), more=False, l4=6)).said == "drop fragment"


def test_what_needs_the_whole_payload_is_not_taken_in_pieces(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("dns", "allow", udp=80, app="dns"))
    kernel.commands.heartbeat()
    assert kernel.send(first(flow)).said == "drop fragment"
    assert kernel.send(later(flow)).said == "drop fragment"


def test_a_first_fragment_is_forgotten_in_time(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(timeouts={"closing": 0.01})
    kernel.policy(ALLOW)
    kernel.send(first(flow))
    kernel.tick(0.02)
    assert kernel.send(later(flow)).said == "drop fragment"


def test_the_exception_can_allow(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(exceptions={"fragment": Action.ALLOW})
    kernel.policy(ALLOW)
    assert kernel.send(later(flow)).said == "pass"


def test_monitor_mode_drops_no_fragment(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(monitor=True)
    assert kernel.send(first(flow)).said == "pass default"
    assert kernel.send(later(flow, number=78)).said == "pass fragment"


def test_nor_does_a_rule_in_monitor_mode(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("udp", "deny", udp=80, monitor=True))
    assert kernel.send(first(flow)).said == "pass policy"
    assert kernel.send(later(flow)).said == "pass"


def test_an_atomic_fragment_is_none(kernel: Kernel) -> None:
    """RFC 6946: it is processed apart from any others of the same identification."""
    kernel.policy(ALLOW)
    flow = Flow(6)
    atomic = flow.ip() / IPv6ExtHdrFragment(offset=0, m=0, id=77) / UDP(sport=40000, dport=80) / Raw(PAYLOAD)
    outcome = kernel.send(atomic)
    assert (outcome.said, judged(outcome.session)) == ("pass", "allow policy 1")
    # Behind its end, so that only the want of a first one speaks against it.
    assert kernel.send(later(flow, offset=32)).said == "drop fragment"


def test_dont_fragment_alone_is_no_fragment(kernel: Kernel) -> None:
    kernel.policy(ALLOW)
    assert "fragments" not in kernel.send(Flow(4).datagram(PAYLOAD, flags="DF")).stats
