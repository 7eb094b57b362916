"""`accelerate`: which packets leave past the host's stack, with what in their headers, and which are left to it."""

from __future__ import annotations

import contextlib
import struct
import subprocess
from collections.abc import Callable, Iterator
from ctypes import sizeof

import pytest
from scapy.layers.inet import IP, TCP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from fastpath import abi
from tests.bpf.harness import (
    CLIENT,
    GATEWAY_MAC,
    ISN,
    PEER_ISN,
    SENDER_MAC,
    SERVER,
    TCP_L4,
    Act,
    Flow,
    Kernel,
    Outcome,
    rule,
    sk_buff,
)

pytestmark = pytest.mark.root

ANY = rule("any", "allow")
SEG1_MAC = "02:00:00:00:00:02"
CLIENT_MAC, SERVER_MAC, OTHER_MAC = (f"02:00:00:00:01:0{n}" for n in (1, 2, 3))
PREFIX = {4: 32, 6: 128}


def ip(kernel: Kernel, *commands: str) -> None:
    with kernel.namespace.inside():
        subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


@pytest.fixture(scope="module", autouse=True)
def neighbours(loaded: Kernel) -> Iterator[None]:
    """Both ends are known."""
    ends = [(CLIENT[v], CLIENT_MAC, "seg0") for v in (4, 6)] + [(SERVER[v], SERVER_MAC, "seg1") for v in (4, 6)]
    # And one beside the client.
    ends += [("10.77.1.9", OTHER_MAC, "seg0"), ("fd77:1::9", OTHER_MAC, "seg0")]
    ip(loaded, *(f"neigh replace {address} lladdr {mac} dev {dev} nud permanent" for address, mac, dev in ends))
    yield
    ip(loaded, *(f"neigh del {address} dev {dev}" for address, _, dev in ends))


@pytest.fixture
def kernel(kernel: Kernel) -> Iterator[Kernel]:
    """Acceleration is on, between both interfaces; no next hop is known."""
    hops, claims = kernel.pins.map("hops"), kernel.pins.map("hop_claims")
    for number in list(claims.keys()):
        claims.delete(number)
        hops.update(number, bytes(sizeof(abi.Hop)))
    kernel.manage(kernel.namespace.ifindex["seg0"], kernel.namespace.ifindex["seg1"])
    kernel.revisions.accelerate(on=True)
    kernel.policy(ANY)
    yield kernel
    kernel.revisions.accelerate(on=False)


def answer(packet: Packet) -> Packet:
    """As the server's answer comes in at seg1."""
    packet[Ether].dst = SEG1_MAC
    return packet


def expected(packet: Packet, source: str, destination: str) -> bytes:
    """The frame that leaves: other link addresses, one hop less, IPv4's checksum made anew."""
    sent = Ether(bytes(packet))
    sent.src, sent.dst = source, destination
    if IP in sent:
        sent[IP].ttl -= 1
        del sent[IP].chksum
    else:
        sent[IPv6].hlim -= 1
    return bytes(sent)


def went(outcome: Outcome) -> tuple[Act, int]:
    return outcome.act, outcome.stats.get("accelerated", 0)


STRAIGHT, STACK = (Act.REDIRECT, 1), (Act.PASS, 0)


def packets(flow: Flow) -> dict[str, tuple[Packet, Packet]]:
    return {
        "tcp": (flow.segment("S"), flow.segment("SA", PEER_ISN, ISN + 1, back=True)),
        "udp": (flow.datagram(b"question"), flow.datagram(b"answer", back=True)),
        "icmp": (flow.echo(), flow.echo(back=True)),
        "other": (flow.ip() / Raw(bytes(20)), flow.ip(back=True) / Raw(bytes(20))),
    }


@pytest.mark.parametrize("l4", ["tcp", "udp", "icmp", "other"])
def test_both_directions_leave_for_their_next_hop(kernel: Kernel, flow: Flow, l4: str) -> None:
    there, back = packets(flow)[l4]
    if l4 == "other":
        for packet in (there, back):
            packet[1].fields["proto" if flow.version == 4 else "nh"] = 50
    for _ in range(2):
        outcome = kernel.send(there)
        assert went(outcome) == STRAIGHT
        assert outcome.frame == expected(there, SEG1_MAC, SERVER_MAC)
        outcome = kernel.send(answer(back), interface="seg1")
        assert went(outcome) == STRAIGHT
        assert outcome.frame == expected(back, GATEWAY_MAC, CLIENT_MAC)
    assert list(outcome.entry.packets) == [2, 2]


@pytest.mark.parametrize("ttl", range(2, 256, 23))
@pytest.mark.parametrize("number", [0, 0x1234, 0xFFFF])
def test_checksum_of_any_ttl(kernel: Kernel, ttl: int, number: int) -> None:
    packet = Flow(4).segment("S", ttl=ttl, id=number)
    outcome = kernel.send(packet)
    assert went(outcome) == STRAIGHT
    assert outcome.frame == expected(packet, SEG1_MAC, SERVER_MAC)


@pytest.mark.parametrize("before", [0x0000, 0x0001, 0xFEFE, 0xFEFF, 0xFF00, 0xFF01, 0xFFFE])
def test_checksums_that_carry(kernel: Kernel, before: int) -> None:
    """The sum is one's complement (RFC 1624)."""
    flow = Flow(4)
    check = struct.unpack_from(">H", bytes(flow.segment("S", id=0)), 24)[0]
    packet = flow.segment("S", id=(check - before) % 0xFFFF)
    assert struct.unpack_from(">H", bytes(packet), 24)[0] == before
    assert kernel.send(packet).frame == expected(packet, SEG1_MAC, SERVER_MAC)


@pytest.mark.parametrize(("tos", "priority"), [(0x00, 0), (0x08, 2), (0x10, 6), (0x18, 4), (0xB8, 4)])
def test_priority_is_that_of_the_stack(kernel: Kernel, tos: int, priority: int) -> None:
    packet = Flow(4).segment("S", tos=tos)
    with kernel.namespace.inside():
        run = kernel.programs["ms_ingress"].run(
            bytes(packet), context=sk_buff(ifindex=kernel.namespace.ifindex["seg0"])
        )
    assert (run.value, struct.unpack_from("=I", run.context, 32)[0]) == (Act.REDIRECT, priority)


def test_off_is_off(kernel: Kernel, flow: Flow) -> None:
    kernel.revisions.accelerate(on=False)
    packet = flow.segment("S")
    outcome = kernel.send(packet)
    assert (went(outcome), outcome.frame) == (STACK, bytes(packet))


def test_a_denied_packet_stays_denied(kernel: Kernel, flow: Flow) -> None:
    assert went(kernel.send(flow.segment("S"))) == STRAIGHT
    kernel.policy(rule("no", "deny", tcp=80))
    assert kernel.send(flow.segment("A", ISN + 1, PEER_ISN + 1)).act is not Act.REDIRECT


def hopless(packet: Packet) -> Packet:
    packet[1].fields["ttl" if IP in packet else "hlim"] = 1
    return packet


def first_fragment(flow: Flow) -> Packet:
    if flow.version == 4:
        return flow.datagram(bytes(64), flags="MF")
    return flow.ip() / IPv6ExtHdrFragment(m=1, id=9) / flow.datagram(bytes(64))[IPv6].payload


UNUSUAL: dict[str, Callable[[Flow], Packet]] = {
    "last hop": lambda flow: hopless(flow.segment("S")),
    "tagged": lambda flow: (
        Ether(src=SENDER_MAC, dst=GATEWAY_MAC) / Dot1Q(vlan=7) / flow.segment("S")[Ether].payload
    ),
    "first fragment": first_fragment,
    "options": lambda flow: (
        flow.ip(options=[IPOption_NOP()]) / TCP(sport=flow.sport, dport=flow.dport)
        if flow.version == 4
        else flow.ip() / IPv6ExtHdrDestOpt() / TCP(sport=flow.sport, dport=flow.dport)
    ),
    "to the gateway": lambda flow: Flow(
        flow.version, server={4: "10.77.2.1", 6: "fd77:2::1"}[flow.version]
    ).segment("S"),
    "out where it came in": lambda flow: Flow(
        flow.version, server={4: "10.77.1.9", 6: "fd77:1::9"}[flow.version]
    ).segment("S"),
    "to nobody that is known": lambda flow: Flow(
        flow.version, server={4: "10.77.2.9", 6: "fd77:2::9"}[flow.version]
    ).segment("S"),
    "multicast": lambda flow: Flow(flow.version, server={4: "224.1.2.3", 6: "ff0e::7"}[flow.version]).datagram(b"x"),
    "from the gateway's own address": lambda flow: Flow(
        flow.version, client={4: "10.77.1.1", 6: "fd77:1::1"}[flow.version]
    ).segment("S"),
    "from an address of elsewhere": lambda flow: Flow(
        flow.version, client={4: "192.0.2.1", 6: "2001:db8::1"}[flow.version]
    ).segment("S"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNUSUAL)
def test_what_is_unusual_is_left_to_the_stack(kernel: Kernel, flow: Flow, what: str) -> None:
    packet = UNUSUAL[what](flow)
    for _ in range(2):
        outcome = kernel.send(packet)
        assert (went(outcome), outcome.frame) == (STACK, bytes(packet))
    # Nothing but that is the matter.
    assert went(kernel.send(flow.segment("S"))) == STRAIGHT


def test_a_packet_with_a_mark_is_left_to_the_stack(kernel: Kernel, flow: Flow) -> None:
    assert went(kernel.send(flow.segment("S"), mark=1)) == STACK


def test_a_frame_for_another_host_is_not_ours(kernel: Kernel, flow: Flow) -> None:
    packet = flow.segment("S")
    packet.dst = OTHER_MAC
    assert went(kernel.send(packet)) == STACK
    packet.dst = "ff:ff:ff:ff:ff:ff"
    assert went(kernel.send(packet)) == STACK


def test_no_further_than_managed_interfaces(kernel: Kernel, flow: Flow) -> None:
    kernel.manage(kernel.namespace.ifindex["seg0"])
    assert went(kernel.send(flow.segment("S"))) == STACK


def test_many_managed_interfaces(kernel: Kernel, flow: Flow) -> None:
    """Those that the settings do not name are in a map."""
    kernel.manage(900, 901, 902, 903, kernel.namespace.ifindex["seg1"], kernel.namespace.ifindex["seg0"])
    assert went(kernel.send(flow.segment("S"))) == STRAIGHT


def test_the_gateways_own_session_is_left_to_the_stack(kernel: Kernel, flow: Flow) -> None:
    own = Flow(flow.version, client={4: "10.77.2.1", 6: "fd77:2::1"}[flow.version])
    kernel.send(own.segment("S"), "ms_egress", interface="seg1")
    assert went(kernel.send(answer(own.segment("SA", PEER_ISN, ISN + 1, back=True)), interface="seg1")) == STACK


@pytest.mark.parametrize("by", ["link", "route"])
def test_what_is_too_long_is_left_to_the_stack(kernel: Kernel, flow: Flow, by: str) -> None:
    server = SERVER[flow.version]
    change, undo = {
        "link": ("link set seg1 mtu 1400", "link set seg1 mtu 1500"),
        "route": (
            f"route add {server}/{PREFIX[flow.version]} dev seg1 mtu 1400",
            f"route del {server}/{PREFIX[flow.version]} dev seg1",
        ),
    }[by]
    ip(kernel, change)
    # The daemon's part: it knows the routes.
    kernel.revisions.limit(1400 if by == "route" else 0)
    try:
        overhead = len(flow.data(b"")) - 14
        fits, long = (flow.data(bytes(1400 - overhead + more)) for more in (0, 1))
        syn, answered, ack = flow.handshake()
        assert went(kernel.send(syn)) == STRAIGHT
        kernel.send(answer(answered), interface="seg1")
        assert went(kernel.send(ack)) == STRAIGHT
        assert [went(kernel.send(packet)) for packet in (fits, long, fits)] == [STRAIGHT, STACK, STRAIGHT]
        # Of a super-packet its segments count.
        train = flow.data(bytes(3000))
        size = 1400 - overhead
        assert went(kernel.send(train, gso_segs=7, gso_size=size)) == (Act.REDIRECT, 7)
        assert went(kernel.send(train, gso_segs=7, gso_size=size + 1)) == STACK
    finally:
        kernel.revisions.limit(0)
        ip(kernel, undo)
        if by == "link":
            end = SERVER[6]
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(kernel, f"neigh replace {end} lladdr {SERVER_MAC} dev seg1 nud permanent")


def hop(session: abi.Session | None, direction: int = 0) -> int:
    assert session is not None
    number: int = session.hop[direction] & abi.HopWord.NUMBER
    return number


def test_sessions_of_the_same_neighbours_share_their_hops(kernel: Kernel, version: int) -> None:
    numbers = set()
    for port in range(3000, 3050):
        outcome = kernel.send(Flow(version, port).segment("S"))
        # Once a second one goes the stack's way, and on a slow machine this takes longer.
        assert went(outcome) in {STRAIGHT, STACK}
        numbers.add((hop(outcome.session, 0), hop(outcome.session, 1)))
    assert len(numbers) == 1
    assert len(list(kernel.pins.map("hop_claims").keys())) == 2


def test_a_hop_stays_what_it_was(kernel: Kernel, flow: Flow) -> None:
    """Another link address is another hop: what others hold by the old number stays whole."""
    server = SERVER[flow.version]
    first = kernel.send(flow.segment("S"))
    content = kernel.pins.map("hops").lookup(struct.pack("=I", hop(first.session)))
    ip(kernel, f"neigh replace {server} lladdr {OTHER_MAC} dev seg1 nud permanent")
    try:
        # For a second, or until the daemon says that something changed, the old one holds.
        assert kernel.send(flow.segment("S")).frame[:6] == first.frame[:6]
        kernel.revisions.age_hops()
        later = kernel.send(flow.segment("S"))
        assert went(later) == STRAIGHT
        assert later.frame == expected(flow.segment("S"), SEG1_MAC, OTHER_MAC)
        assert hop(later.session) != hop(first.session)
        kept = kernel.pins.map("hops").lookup(struct.pack("=I", hop(first.session)))
        assert kept is not None
        assert content is not None
        assert kept[:24] == content[:24]
    finally:
        ip(kernel, f"neigh replace {server} lladdr {SERVER_MAC} dev seg1 nud permanent")


def test_a_hop_is_looked_up_anew_after_a_second(kernel: Kernel, flow: Flow) -> None:
    server = SERVER[flow.version]
    kernel.send(flow.segment("S"))
    ip(kernel, f"neigh replace {server} lladdr {OTHER_MAC} dev seg1 nud permanent")
    try:
        kernel.tick(1.3)
        later = kernel.send(flow.segment("S"))
        assert later.frame == expected(flow.segment("S"), SEG1_MAC, OTHER_MAC)
    finally:
        ip(kernel, f"neigh replace {server} lladdr {SERVER_MAC} dev seg1 nud permanent")


def test_a_neighbour_that_goes_takes_the_acceleration_with_it(kernel: Kernel, flow: Flow) -> None:
    server = SERVER[flow.version]
    assert went(kernel.send(flow.segment("S"))) == STRAIGHT
    ip(kernel, f"neigh del {server} dev seg1")
    try:
        kernel.revisions.age_hops()
        assert went(kernel.send(flow.segment("S"))) == STACK
        # Remembered: the routing table is not asked for each packet.
        assert hop(kernel.session(flow.key(TCP_L4))) == 0
    finally:
        ip(kernel, f"neigh replace {server} lladdr {SERVER_MAC} dev seg1 nud permanent")
    kernel.revisions.age_hops()
    # The first packet behind a change tells the stack that the neighbour is in use.
    assert [went(kernel.send(flow.segment("S"))) for _ in range(2)] == [STACK, STRAIGHT]


def test_the_stack_gets_a_packet_now_and_then(kernel: Kernel, flow: Flow) -> None:
    """Or it would never find out that a neighbour is gone."""
    assert [went(kernel.send(flow.segment("S"))) for _ in range(3)] == [STRAIGHT] * 3
    kernel.tick(1.3)
    # Another session keeps the same hop.
    other = Flow(flow.version, 41000)
    assert [went(kernel.send(other.segment("S"))) for _ in range(3)] == [STACK, STRAIGHT, STRAIGHT]
    assert went(kernel.send(flow.segment("S"))) == STRAIGHT


def test_the_same_flow_from_another_interface_does_not_take_the_sessions_hop(kernel: Kernel, flow: Flow) -> None:
    assert went(kernel.send(flow.segment("S"))) == STRAIGHT
    # seg1 is where the server is: a packet of the client coming in there is spoofed, or a route is wrong.
    assert went(kernel.send(answer(flow.segment("S")), interface="seg1")) == STACK


def test_forwarded_frames_are_not_judged_twice(kernel: Kernel, flow: Flow) -> None:
    outcome = kernel.send(flow.segment("S"))
    again = kernel.send(outcome.frame, "ms_egress", interface="seg1", came_from=kernel.namespace.ifindex["seg0"])
    assert (again.act, again.stats) == (Act.PASS, {})


def test_an_identified_flow_goes_straight_behind_the_packet_that_told(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "allow", tcp=80, app="http"))
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    said = [went(kernel.send(packet)) for packet in flow.handshake()[:1]]
    kernel.send(answer(flow.handshake()[1]), interface="seg1")
    said += [went(kernel.send(flow.handshake()[2])), went(kernel.send(flow.data(request)))]
    assert said == [STACK, STACK, STACK]
    ack = answer(flow.data(b"", got=len(request), back=True, flags="A"))
    assert went(kernel.send(ack, interface="seg1")) == STRAIGHT
    assert went(kernel.send(flow.data(b"more", len(request)))) == STRAIGHT
