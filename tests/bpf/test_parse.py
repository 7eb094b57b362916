"""Headers: what is understood, and that what is not never passes without a reason."""

from __future__ import annotations

import random
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.bpf.harness import CLIENT, GATEWAY_MAC, SENDER_MAC, SERVER, Act, Flow, Kernel, judged, key, rule
from tests.bpf.test_malformed import summed

pytestmark = pytest.mark.root

LINK = Ether(src=SENDER_MAC, dst=GATEWAY_MAC)
V4 = IP(src=CLIENT[4], dst=SERVER[4])
V6 = IPv6(src=CLIENT[6], dst=SERVER[6])
SYN = TCP(sport=40000, dport=80, flags="S", seq=1000)
# Behind AH scapy does not sum.
SUMMED_SYN = TCP(sport=40000, dport=80, flags="S", seq=1000, chksum=(V6 / SYN).__class__(bytes(V6 / SYN))[TCP].chksum)
DATAGRAM = UDP(sport=40000, dport=80) / Raw(b"payload")
LSRR = IPOption(b"\x83\x07\x04\x0a\x4d\x02\x02")
SSRR = IPOption(b"\x89\x07\x04\x0a\x4d\x02\x02")
ROUTER_ALERT = IPOption(b"\x94\x04\x00\x00")
NOP = IPOption_NOP()

TO_SERVER = {
    "ipv4 tcp": LINK / V4 / SYN,
    "ipv6 tcp": LINK / V6 / SYN,
    "ipv4 udp": LINK / V4 / DATAGRAM,
    "ipv6 udp": LINK / V6 / DATAGRAM,
    "ipv4 icmp": LINK / V4 / ICMP(id=7),
    "ipv6 icmp": LINK / V6 / ICMPv6EchoRequest(id=7),
    "vlan": LINK / Dot1Q(vlan=7) / V4 / SYN,
    "vlan ipv6": LINK / Dot1Q(vlan=7) / V6 / DATAGRAM,
    "qinq": LINK / Dot1AD(vlan=7) / Dot1Q(vlan=9) / V4 / SYN,
    "qinq ipv6": LINK / Dot1AD(vlan=7) / Dot1Q(vlan=9) / V6 / SYN,
    "tcp options": LINK / V4 / TCP(sport=40000, dport=80, flags="S", options=[("MSS", 1460), ("Timestamp", (1, 0))]),
    "ipv4 options": LINK / IP(src=CLIENT[4], dst=SERVER[4], options=[ROUTER_ALERT, NOP]) / SYN,
    "ipv4 options, the most": LINK / IP(src=CLIENT[4], dst=SERVER[4], options=[NOP] * 40) / DATAGRAM,
    "ipv4 record route": LINK / IP(src=CLIENT[4], dst=SERVER[4], options=[IPOption_RR(routers=["0.0.0.0"] * 9)]) / SYN,
    "hop-by-hop": LINK / V6 / IPv6ExtHdrHopByHop() / SYN,
    "destination options": LINK / V6 / IPv6ExtHdrDestOpt() / DATAGRAM,
    "routing header, no segments left": LINK / V6 / IPv6ExtHdrRouting(type=4, segleft=0) / SYN,
    "ah": LINK / V6 / AH(nh=6, payloadlen=4, icv=bytes(12)) / SUMMED_SYN,
    "ah with the shortest value": LINK / V6 / AH(nh=6, payloadlen=1, icv=b"") / SUMMED_SYN,
    "atomic fragment": LINK / V6 / IPv6ExtHdrFragment(offset=0, m=0, id=5) / SYN,
    "a chain": LINK / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment()
    / AH(nh=6, payloadlen=4, icv=bytes(12)) / SUMMED_SYN,
    "the longest chain": LINK / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(segleft=0)
    / IPv6ExtHdrFragment() / AH(nh=60, payloadlen=4, icv=bytes(12)) / IPv6ExtHdrDestOpt() / DATAGRAM,
    "ipv4 gre": LINK / IP(src=CLIENT[4], dst=SERVER[4], proto=47) / Raw(bytes(8)),
    "ipv6 esp": LINK / IPv6(src=CLIENT[6], dst=SERVER[6], nh=50) / Raw(bytes(16)),
    "ipv6 no next header": LINK / IPv6(src=CLIENT[6], dst=SERVER[6], nh=59),
}  # fmt: skip
# The key that each of them must lead to.
KEYS = {TCP: (40000, 80, 6), UDP: (40000, 80, 17), ICMP: (7, 8 << 8, 1), ICMPv6EchoRequest: (7, 128 << 8, 58)}
BARE = {"ipv4 gre": 47, "ipv6 esp": 50, "ipv6 no next header": 59}


def key_for(name: str) -> bytes:
    packet = TO_SERVER[name]
    version = 4 if IP in packet else 6
    for layer, (sport, dport, l4) in KEYS.items():
        if layer in packet:
            return key(CLIENT[version], SERVER[version], sport, dport, l4)
    return key(CLIENT[version], SERVER[version], 0, 0, BARE[name])


@pytest.mark.parametrize("name", TO_SERVER)
def test_valid_packets_make_a_session_of_their_flow(kernel: Kernel, name: str) -> None:
    kernel.policy(rule("all", "allow"))
    frame = bytes(TO_SERVER[name])
    outcome = kernel.send(frame + b"\xee" * 9)
    assert outcome.said == "pass"
    assert outcome.frame == frame + b"\xee" * 9
    ((found, session),) = kernel.live()
    assert found == key_for(name)
    assert judged(session) == "allow policy 1"
    # What lies behind the IP packet belongs to the link.
    assert list(session.packets) == [1, 0]
    assert list(session.bytes) == [len(bytes(TO_SERVER[name].getlayer(IP) or TO_SERVER[name].getlayer(IPv6))), 0]
    assert outcome.stats == {"packets": 1, "bytes": session.bytes[0], "fast": 1, "inserts": 1}


@pytest.mark.parametrize(
    ("name", "tags"), [("ipv4 tcp", [0, 0]), ("vlan", [7, 0]), ("qinq", [7, 9]), ("qinq ipv6", [7, 9])]
)
def test_vlan_tags_are_kept(kernel: Kernel, name: str, tags: list[int]) -> None:
    kernel.policy(rule("all", "allow"))
    kernel.send(TO_SERVER[name])
    ((_, session),) = kernel.live()
    assert list(session.vlan) == tags


def ihl(packet: Packet, words: int) -> bytes:
    raw = bytearray(bytes(packet))
    raw[14] = 0x40 | words
    return bytes(raw)


def put(packet: Packet | bytes, offset: int, layout: str, value: int) -> bytes:
    """A frame with a field overwritten, counted from the frame's start."""
    raw = bytearray(bytes(packet))
    struct.pack_into(layout, raw, offset, value)
    return bytes(raw)


def options(*members: IPOption) -> Packet:
    return LINK / IP(src=CLIENT[4], dst=SERVER[4], options=list(members)) / SYN


# Offsets in a frame without tags: the IPv4 and IPv6 headers begin at 14, what they carry at 34 and 54.
BAD = {
    "source_route": {
        "loose": options(LSRR),
        "strict": options(SSRR),
        "behind others": options(ROUTER_ALERT, NOP, LSRR),
        "behind nineteen": options(*[NOP] * 19, LSRR),
        "behind as many as fit": options(*[NOP] * 33, LSRR),
        "in a datagram": LINK / IP(src=CLIENT[4], dst=SERVER[4], options=[LSRR]) / DATAGRAM,
        "in another protocol": LINK / IP(src=CLIENT[4], dst=SERVER[4], options=[LSRR], proto=47) / Raw(bytes(8)),
        "in a later fragment": LINK / IP(src=CLIENT[4], dst=SERVER[4], options=[LSRR], frag=5) / Raw(bytes(8)),
        "ipv6 type 0": LINK / V6 / IPv6ExtHdrRouting(type=0, segleft=1, addresses=[SERVER[6]]) / SYN,
        "ipv6 segments left": LINK / V6 / IPv6ExtHdrRouting(type=4, segleft=1, addresses=[SERVER[6]]) / SYN,
        "ipv6 behind others": LINK / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(segleft=1) / SYN,
    },
    "truncated": {
        "tot_len beyond": put(LINK / V4 / SYN, 16, ">H", 41),
        "tot_len 65535": put(LINK / V4 / SYN, 16, ">H", 65535),
        "payload_len beyond": put(LINK / V6 / SYN, 18, ">H", 21),
        "payload_len 65535": put(LINK / V6 / DATAGRAM, 18, ">H", 65535),
    },
    "not_ip": {
        "ipx": Ether(src=SENDER_MAC, dst=GATEWAY_MAC, type=0x8137) / Raw(bytes(40)),
        "mpls": Ether(src=SENDER_MAC, dst=GATEWAY_MAC, type=0x8847) / Raw(bytes(4)) / V4 / SYN,
        "pppoe": Ether(src=SENDER_MAC, dst=GATEWAY_MAC, type=0x8864) / Raw(bytes(8)) / V4 / SYN,
        "three tags": LINK / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / V4 / SYN,
        "ptp": Ether(src=SENDER_MAC, dst=GATEWAY_MAC, type=0x88F7) / Raw(bytes(40)),
    },
}  # fmt: skip


@pytest.mark.parametrize(("reason", "name"), [(reason, name) for reason, members in BAD.items() for name in members])
def test_bad_packets_are_dropped_with_their_reason(kernel: Kernel, reason: str, name: str) -> None:
    kernel.policy(rule("all", "allow"))
    outcome = kernel.send(bytes(BAD[reason][name]))
    assert outcome.said == f"drop {reason}"
    assert kernel.live() == []


def test_monitor_mode_counts_bad_packets_and_lets_them_pass(kernel: Kernel) -> None:
    kernel.policy(monitor=True)
    outcome = kernel.send(bytes(BAD["truncated"]["tot_len beyond"]))
    assert outcome.said == "pass truncated"
    assert outcome.stats == {"monitored": 1}


NEIGHBOURS = {
    "arp": Ether(src=SENDER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.77.1.1"),
    "lldp": Ether(src=SENDER_MAC, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(bytes(40)),
    "lacp": Ether(src=SENDER_MAC, dst="01:80:c2:00:00:02", type=0x8809) / Raw(bytes(40)),
    "802.1x": Ether(src=SENDER_MAC, dst="01:80:c2:00:00:03", type=0x888E) / Raw(bytes(40)),
    "spanning tree": Ether(src=SENDER_MAC, dst="01:80:c2:00:00:00", type=38) / Raw(b"\x42\x42\x03" + bytes(35)),
    "neighbour solicitation": LINK / IPv6(src="fe80::2", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd77:1::1"),
    "neighbour advertisement": LINK / IPv6(src="fe80::2", dst="fe80::1", hlim=255) / ICMPv6ND_NA(tgt="fe80::2"),
    "router solicitation": LINK / IPv6(src="fe80::2", dst="ff02::2", hlim=255) / ICMPv6ND_RS(),
    "multicast listener": LINK / IPv6(src="fe80::2", dst="ff02::16", hlim=1) / ICMPv6MLReport(),
    "to the gateway's own address": LINK
    / IPv6(src=CLIENT[6], dst="fd77:1::1", hlim=255)
    / ICMPv6ND_NS(tgt="fd77:1::1"),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_talk_whatever_the_policy_says(kernel: Kernel, name: str) -> None:
    kernel.policy(rule("nobody", "deny"))
    outcome = kernel.send(NEIGHBOURS[name])
    assert outcome.said == "pass"
    assert kernel.live() == []
    if name != "to the gateway's own address":
        assert outcome.stats == {"neighbour": 1}


def test_neighbour_discovery_from_beyond_the_link_is_judged(kernel: Kernel) -> None:
    # RFC 4861 7.1: a hop limit below 255 says that it was forwarded.
    kernel.policy()
    packet = LINK / IPv6(src=CLIENT[6], dst="ff02::1", hlim=254) / ICMPv6ND_NA(tgt=CLIENT[6])
    assert kernel.send(packet).said == "drop default"


def shortest(frame: bytes) -> int:
    """Test runs refuse a frame whose ethertype promises an IP header that is not whole (Linux 6.18). Behind
    a VLAN tag they don't look: there the cuts go through the IP headers too.
    """
    return {0x0800: 34, 0x86DD: 54}.get(int.from_bytes(frame[12:14], "big"), 15)


@pytest.mark.parametrize("name", [*TO_SERVER, "arp", "neighbour solicitation"])
def test_every_truncation_of_a_valid_packet(kernel: Kernel, name: str) -> None:
    """Cut anywhere, it is dropped and counted once, and begins nothing."""
    kernel.policy(rule("all", "allow"))
    whole = bytes({**TO_SERVER, **NEIGHBOURS}[name])
    for length in range(shortest(whole), len(whole)):
        outcome = kernel.send(whole[:length])
        if name == "arp":  # nobody looks into it
            assert outcome.said == "pass"
            continue
        assert outcome.act is Act.DROP, length
        assert sum(outcome.drops.values()) == 1, length
        assert outcome.said == "drop truncated", length
    assert kernel.live() == []


@pytest.mark.parametrize("kind", ["random", "ipv4", "ipv6", "flipped"])
def test_random_bytes_pass_only_into_a_session_or_as_neighbours(kernel: Kernel, kind: str) -> None:
    kernel.policy(rule("all", "allow"))
    choose = random.Random(kind)
    seeds = [bytes(packet) for packet in (*TO_SERVER.values(), *NEIGHBOURS.values())]
    passed = dropped = 0
    for _ in range(600):
        if kind == "flipped":
            frame = bytearray(choose.choice(seeds))
            for _ in range(choose.randint(1, 4)):
                frame[choose.randrange(12, len(frame))] = choose.randrange(256)
        else:
            frame = bytearray(bytes(LINK)[:12] + choose.randbytes(choose.randint(3, 200)))
            if kind != "random":
                # Behind a tag, where a test run takes any length.
                frame[12:19] = bytes.fromhex("81000007 0800 45" if kind == "ipv4" else "81000007 86dd 60")
            if kind == "ipv4" and choose.random() < 0.8:
                frame[20:22] = max(0, len(frame) - 18).to_bytes(2, "big")
                frame[24:26] = bytes(2)
            if kind == "ipv6" and choose.random() < 0.8:
                frame[22:24] = max(0, len(frame) - 58).to_bytes(2, "big")
        if len(frame) < shortest(bytes(frame)):
            continue
        outcome = kernel.send(summed(frame) if kind == "ipv4" and choose.random() < 0.8 else bytes(frame))
        if outcome.act is Act.DROP:
            assert sum(outcome.drops.values()) == 1
            dropped += 1
            continue
        assert outcome.act is Act.PASS
        assert outcome.drops == {}
        # Somebody vouches for it: a session, or it ends at the link.
        assert outcome.stats.get("fast") or outcome.stats.get("neighbour") or begins_nothing(bytes(frame))
        passed += 1
    assert dropped > 50
    assert passed > 0


def begins_nothing(frame: bytes) -> bool:
    """An allowed TCP reset of no session, or neighbour discovery that nobody forwards: with the gateway's
    own address as its destination or a link-local one as its source (RFC 4291 2.5.6).
    """
    packet = Ether(frame)
    return bool(TCP in packet and packet[TCP].flags.R) or (
        IPv6 in packet and (packet[IPv6].dst == "fd77:1::1" or packet[IPv6].src.startswith("fe80:"))
    )


def test_frames_for_other_stations_are_left_to_the_stack(kernel: Kernel) -> None:
    kernel.policy()
    packet = Ether(src=SENDER_MAC, dst="02:00:00:00:00:77") / V4 / SYN
    outcome = kernel.send(packet)
    assert (outcome.said, outcome.stats) == ("pass", {})


def test_super_packets_count_as_their_segments(kernel: Kernel, version: int) -> None:
    kernel.policy(rule("all", "allow"))
    flow = Flow(version)
    kernel.open(flow)
    outcome = kernel.send(flow.data(bytes(3000)), gso_segs=3)
    assert (outcome.stats["packets"], outcome.stats["fast"], outcome.entry.packets[0]) == (3, 3, 5)
