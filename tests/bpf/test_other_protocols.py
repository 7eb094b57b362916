"""UDP, ICMP, and what has no ports: request and reply, timeouts, policy by protocol."""

from __future__ import annotations

import pytest
from scapy.layers.ipsec import AH
from scapy.packet import Packet, Raw

from fastpath.abi import Timeout
from fastpath.policy.model import PROTOCOL_NUMBERS
from tests.bpf.harness import ICMP_L4, ICMPV6_L4, Flow, Kernel, judged, rule

pytestmark = pytest.mark.root

PORTLESS = {name: PROTOCOL_NUMBERS[name] for name in ("esp", "gre", "sctp")} | {"6in4": 41, "ospf": 89, "253": 253}


def packet(flow: Flow, number: int, content: bytes = bytes(24), *, back: bool = False) -> Packet:
    """Any IP protocol; the first bytes would be ports, if it had some."""
    fields = {"proto": number} if flow.version == 4 else {"nh": number}
    return flow.ip(back=back, **fields) / Raw(content)


def timeout(kernel: Kernel, key: bytes) -> str:
    session = kernel.session(key)
    assert session
    return Timeout(session.timeout).name.lower()


@pytest.mark.parametrize("name", PORTLESS)
def test_a_session_without_ports(kernel: Kernel, flow: Flow, name: str) -> None:
    number = PORTLESS[name]
    kernel.policy(rule(name, "allow", l4=number))
    assert kernel.send(packet(flow, number)).said == "pass"
    assert kernel.send(packet(flow, number, b"\x12\x34\x56\x78" * 6, back=True)).said == "pass"
    assert kernel.send(packet(flow, number, b"")).said == "pass"
    ((key, session),) = kernel.live()
    assert key == flow.key(number)
    assert (list(session.packets), judged(session)) == ([2, 1], "allow policy 1")
    assert timeout(kernel, key) == "other"


@pytest.mark.parametrize("name", PORTLESS)
def test_another_protocol_is_another_session(kernel: Kernel, flow: Flow, name: str) -> None:
    kernel.policy(rule(name, "deny", l4=PORTLESS[name]), default="allow")
    assert kernel.send(packet(flow, 254)).said == "pass"
    assert kernel.send(packet(flow, PORTLESS[name])).said == "drop policy"
    assert kernel.send(packet(flow, PORTLESS[name], back=True)).said == "drop policy"


def test_rules_on_ports_mean_no_protocol_without(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80), rule("names", "allow", udp=80))
    like_ports = flow.sport.to_bytes(2, "big") + flow.dport.to_bytes(2, "big") + bytes(20)
    assert kernel.send(packet(flow, PROTOCOL_NUMBERS["sctp"], like_ports)).said == "drop default"


def test_authentication_header_over_ipv4(kernel: Kernel) -> None:
    """A session of its own: what it protects is not looked into, as a rule on protocol 51 expects."""
    flow = Flow(4)
    inner = bytes(flow.segment("S"))[34:]
    kernel.policy(rule("ah", "allow", l4=51), rule("tcp", "deny", tcp=80))
    assert kernel.send(packet(flow, 51, bytes(AH(nh=6, payloadlen=4, icv=bytes(12))) + inner)).said == "pass"
    ((key, _),) = kernel.live()
    assert key == flow.key(51)


def test_sessions_without_ports_expire(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(timeouts={"other": 0.01})
    kernel.policy(rule("esp", "allow", l4=50))
    kernel.send(packet(flow, 50))
    old = kernel.session(flow.key(50))
    kernel.tick(0.02)
    # The other side may begin now only if a rule says so: this one has no direction.
    assert kernel.send(packet(flow, 50, back=True)).said == "pass"
    new = kernel.session(flow.key(50))
    assert old
    assert new
    assert (old.id != new.id, list(new.packets)) == (True, [1, 0])


def test_one_shot_and_stream(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("udp", "allow", udp=80))
    for _ in range(3):
        kernel.send(flow.datagram(b"x"))
    assert timeout(kernel, flow.key(17)) == "udp"
    kernel.send(flow.datagram(b"y", back=True))
    assert timeout(kernel, flow.key(17)) == "udp_stream"


def test_an_answer_does_not_open_a_way(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("udp", "allow", udp=80))
    assert kernel.send(flow.datagram(b"x", back=True)).said == "drop default"


def test_echo_by_id(kernel: Kernel, flow: Flow) -> None:
    number = ICMP_L4 if flow.version == 4 else ICMPV6_L4
    kernel.policy(rule("ping", "allow", l4=number))
    assert kernel.send(flow.echo(7)).said == "pass"
    reply = kernel.send(flow.echo(7, back=True))
    assert (reply.said, list(reply.entry.packets)) == ("pass", [1, 1])
    assert kernel.send(flow.echo(8)).entry.id != reply.entry.id
