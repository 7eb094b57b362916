"""Every malformed combination of headers has a reason of its own, and touches no session."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from fastpath.abi import Action
from slowpath.core.frame import FrameError, flow_key, parse_frame
from tests.bpf.harness import CLIENT, ISN, PEER_ISN, SERVER, Act, Flow, Kernel, rule

pytestmark = pytest.mark.root

L3 = 14
# Where the transport header of a frame without options begins.
L4 = {4: 34, 6: 54}
ALLOW = rule("all", "allow")


def summed(frame: bytes | bytearray) -> bytes:
    """With the checksum of the IPv4 header put right, behind a VLAN tag too."""
    raw = bytearray(frame)
    at = 18 if raw[12:14] == b"\x81\x00" else L3
    if raw[at - 2 : at] == b"\x08\x00" and len(raw) >= at + 20:
        end = at + max(5, raw[at] & 15) * 4
        raw[at + 10 : at + 12] = bytes(2)
        total = sum(struct.unpack(f">{(end - at) // 2}H", bytes(raw[at:end]).ljust(end - at, b"\0")))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into(">H", raw, at + 10, total ^ 0xFFFF)
    return bytes(raw)


def put(packet: Packet | bytes, offset: int, layout: str, *values: int) -> bytes:
    """A frame with a field overwritten, counted from its start; the IPv4 header's checksum is right."""
    raw = bytearray(bytes(packet))
    struct.pack_into(layout, raw, offset, *values)
    return summed(raw)


def l4(flow: Flow, packet: Packet, offset: int, layout: str, *values: int) -> bytes:
    """With a field of the transport header overwritten."""
    return put(packet, L4[flow.version] + offset, layout, *values)


def tcp(flow: Flow, flags: str = "S", **fields: object) -> Packet:
    """A segment with any header field set."""
    return flow.ip() / TCP(sport=flow.sport, dport=flow.dport, flags=flags, seq=ISN + 1, ack=PEER_ISN + 1, **fields)


def flags(text: str) -> Callable[[Flow], bytes]:
    return lambda flow: bytes(tcp(flow, text))


def shorter(flow: Flow, packet: Packet, size: int) -> bytes:
    """The IP packet says that only `size` bytes of its transport are there."""
    return put(packet, 16, ">H", 20 + size) if flow.version == 4 else put(packet, 18, ">H", size)


def syn_options(content: bytes) -> Callable[[Flow], bytes]:
    """A SYN with these bytes as its options, and a right checksum."""

    def make(flow: Flow) -> bytes:
        padded = content + bytes(-len(content) % 4)
        packet = tcp(flow, dataofs=5 + len(padded) // 4) / Raw(padded)
        return bytes(packet)

    return make


def ip_options(content: bytes) -> Callable[[Flow], bytes]:
    """IPv4 options, or those of a hop-by-hop header."""

    def make(flow: Flow) -> bytes:
        segment = bytes(tcp(flow)[TCP])
        if flow.version == 4:
            padded = content + bytes(-len(content) % 4)
            head = bytes(flow.ip(proto=6, ihl=5 + len(padded) // 4, len=20 + len(padded) + len(segment)))
            return summed(head[:34] + padded + segment)
        padded = content + bytes(-(len(content) + 2) % 8)
        hop = bytes([6, (len(padded) + 2) // 8 - 1]) + padded
        return bytes(flow.ip(nh=0) / Raw(hop + segment))

    return make


def chain(*headers: Packet) -> Callable[[Flow], bytes]:
    """A SYN behind extension headers."""

    def make(flow: Flow) -> bytes:
        packet = flow.ip()
        for header in headers:
            packet /= header.copy()
        return bytes(packet / tcp(flow)[TCP])

    return make


def piece(offset: int, size: int, *, more: bool, proto: int = 17) -> Callable[[Flow], bytes]:
    """A fragment that nothing goes before; a first one has ports."""

    def make(flow: Flow) -> bytes:
        head = struct.pack(">HHHH", flow.sport, flow.dport, 100, 0) if not offset else b""
        data = (head + bytes(size))[:size]
        if flow.version == 4:
            return bytes(flow.ip(id=9, flags="MF" if more else 0, frag=offset // 8, proto=proto) / Raw(data))
        return bytes(flow.ip() / IPv6ExtHdrFragment(offset=offset // 8, m=int(more), id=9, nh=proto) / Raw(data))

    return make


def between(src: str, dst: str) -> Callable[[Flow], bytes]:
    """A datagram with these addresses."""

    def make(_: Flow) -> bytes:
        return bytes(Flow(6 if ":" in src else 4, client=src, server=dst).datagram(b"x"))

    return make


def icmp(flow: Flow, kind: int, code: int, body: bytes) -> bytes:
    """An ICMP message from the server's side to the client."""
    if flow.version == 4:
        return bytes(flow.ip(back=True, proto=1) / Raw(bytes([kind, code, 0, 0, 0, 0, 0, 0]) + body))
    return bytes(flow.ip(back=True, nh=58) / Raw(bytes([kind, code, 0, 0, 0, 0, 0, 0]) + body))


def about(change: Callable[[Flow, bytearray], bytes | bytearray | None]) -> Callable[[Flow], bytes]:
    """Destination unreachable, quoting the client's segment as `change` leaves it (or answers)."""

    def make(flow: Flow) -> bytes:
        quoted = bytearray(bytes(tcp(flow, "A"))[L3:])
        changed = change(flow, quoted)
        return icmp(flow, 3 if flow.version == 4 else 1, 1, bytes(quoted if changed is None else changed))

    return make


def set_byte(at: int, value: int) -> Callable[[Flow, bytearray], None]:
    def change(_: Flow, quoted: bytearray) -> None:
        quoted[at] = value

    return change


def error_about_an_error(flow: Flow, quoted: bytearray) -> bytes:
    inner = icmp(flow, 3 if flow.version == 4 else 1, 1, bytes(quoted))
    turned = bytearray(inner[L3:])
    # As if the client had sent it.
    ends = (12, 16, 4) if flow.version == 4 else (8, 24, 16)
    a, b, size = ends
    turned[a : a + size], turned[b : b + size] = turned[b : b + size], turned[a : a + size]
    return bytes(turned)


@dataclass(frozen=True)
class Row:
    """A malformed packet: what it is, the reason it must be dropped for, in which IP versions it exists."""

    name: str
    reason: str
    make: Callable[[Flow], bytes]
    versions: tuple[int, ...] = (4, 6)


ROWS = [
    # -- IP --
    Row(
        "version of the other family",
        "ip_header",
        lambda f: put(f.segment("S"), 14, "B", 0x65 if f.version == 4 else 0x45),
    ),
    Row("version 0", "ip_header", lambda f: put(f.segment("S"), 14, "B", 0x05)),
    Row("header length 16", "ip_header", lambda f: put(f.segment("S"), 14, "B", 0x44), (4,)),
    Row("header length 0", "ip_header", lambda f: put(f.segment("S"), 14, "B", 0x40), (4,)),
    Row("reserved flag", "ip_header", lambda f: put(f.segment("S"), 20, ">H", 0x8000), (4,)),
    Row("reserved flag of a fragment", "ip_header", lambda f: put(f.datagram(b"x" * 16), 20, ">H", 0xA000), (4,)),
    Row("total length 0", "ip_length", lambda f: put(f.segment("S"), 16, ">H", 0), (4,)),
    Row("total length 19", "ip_length", lambda f: put(f.segment("S"), 16, ">H", 19), (4,)),
    Row(
        "total length within the options",
        "ip_length",
        lambda f: put(put(f.segment("S"), 14, "B", 0x4F), 16, ">H", 40),
        (4,),
    ),
    Row("length beyond the frame", "truncated", lambda f: shorter(f, f.segment("S"), 21)),
    Row("length 65535", "truncated", lambda f: put(f.segment("S"), 16 if f.version == 4 else 18, ">H", 65535)),
    Row("header checksum", "ip_checksum", lambda f: bytes(f.segment("S", chksum=0x1234)), (4,)),
    Row("header checksum 0", "ip_checksum", lambda f: bytes(f.datagram(b"x", chksum=0)), (4,)),
    Row(
        "header checksum with options",
        "ip_checksum",
        lambda f: ip_options(b"\x94\x04\x00\x00")(f)[:24] + b"\x00\x01" + ip_options(b"\x94\x04\x00\x00")(f)[26:],
        (4,),
    ),
    Row(
        "flipped bit of an address",
        "ip_checksum",
        lambda f: bytes(f.datagram(b"x"))[:29] + b"\x07" + bytes(f.datagram(b"x"))[30:],
        (4,),
    ),
    # -- options --
    Row("option of length 0", "ip_options", ip_options(b"\x07\x00"), (4,)),
    Row("option of length 1", "ip_options", ip_options(b"\x01\x44\x01"), (4,)),
    Row("option beyond the header", "ip_options", ip_options(b"\x94\x05\x00\x00"), (4,)),
    Row("option without a length", "ip_options", ip_options(b"\x01\x01\x01\x94"), (4,)),
    Row("hop-by-hop option beyond the header", "ip_options", ip_options(b"\x05\x05\x00\x00"), (6,)),
    Row("hop-by-hop option without a length", "ip_options", ip_options(bytes(5) + b"\x05"), (6,)),
    Row("more hop-by-hop options than anybody sends", "ip_options", ip_options(bytes(30)), (6,)),
    Row("source route", "source_route", ip_options(b"\x83\x07\x04\x0a\x4d\x02\x02"), (4,)),
    Row("strict source route", "source_route", ip_options(b"\x01\x89\x07\x04\x0a\x4d\x02\x02"), (4,)),
    Row("source route behind a broken option", "ip_options", ip_options(b"\x07\x00\x83\x07\x04\x0a\x4d\x02\x02"), (4,)),
    # -- addresses --
    Row("from nowhere", "spoofed", between("0.0.0.0", SERVER[4]), (4,)),
    Row("from this network", "spoofed", between("0.1.2.3", SERVER[4]), (4,)),
    Row("from loopback", "spoofed", between("127.0.0.1", SERVER[4]), (4,)),
    Row("from multicast", "spoofed", between("224.0.0.1", SERVER[4]), (4,)),
    Row("from a reserved network", "spoofed", between("240.0.0.1", SERVER[4]), (4,)),
    Row("from broadcast", "spoofed", between("255.255.255.255", SERVER[4]), (4,)),
    Row("from nowhere to a group beyond the link", "spoofed", between("0.0.0.0", "239.1.1.1"), (4,)),
    Row("to nowhere", "spoofed", between(CLIENT[4], "0.0.0.0"), (4,)),
    Row("to loopback", "spoofed", between(CLIENT[4], "127.0.0.1"), (4,)),
    Row("to a reserved network", "spoofed", between(CLIENT[4], "240.0.0.1"), (4,)),
    Row("from nowhere", "spoofed", between("::", SERVER[6]), (6,)),
    Row("from loopback", "spoofed", between("::1", SERVER[6]), (6,)),
    Row("from multicast", "spoofed", between("ff02::1", SERVER[6]), (6,)),
    Row("from a mapped address", "spoofed", between("::ffff:10.77.1.2", SERVER[6]), (6,)),
    Row("between mapped addresses", "spoofed", between("::ffff:10.77.1.2", "::ffff:10.77.2.2"), (6,)),
    Row("from an address with IPv4 inside", "spoofed", between("::10.77.1.2", SERVER[6]), (6,)),
    Row("from nowhere to a group of the site", "spoofed", between("::", "ff05::2"), (6,)),
    Row("to nowhere", "spoofed", between(CLIENT[6], "::"), (6,)),
    Row("to loopback", "spoofed", between(CLIENT[6], "::1"), (6,)),
    Row("to a mapped address", "spoofed", between(CLIENT[6], "::ffff:10.77.2.2"), (6,)),
    Row("to a group of the node", "spoofed", between(CLIENT[6], "ff01::1"), (6,)),
    Row("to itself", "land", lambda f: between(CLIENT[f.version], CLIENT[f.version])(f)),
    Row(
        "to itself, a SYN",
        "land",
        lambda f: bytes(Flow(f.version, 80, 80, SERVER[f.version], SERVER[f.version]).segment("S")),
    ),
    # -- extension headers --
    Row("routing header 0", "source_route", chain(IPv6ExtHdrRouting(type=0, segleft=1, addresses=[SERVER[6]])), (6,)),
    Row("segments left", "source_route", chain(IPv6ExtHdrRouting(type=4, segleft=1, addresses=[SERVER[6]])), (6,)),
    Row("hop-by-hop is second", "ext_order", chain(IPv6ExtHdrDestOpt(), IPv6ExtHdrHopByHop()), (6,)),
    Row("hop-by-hop twice", "ext_order", chain(IPv6ExtHdrHopByHop(), IPv6ExtHdrHopByHop()), (6,)),
    Row("hop-by-hop behind an atomic fragment", "ext_order", chain(IPv6ExtHdrFragment(), IPv6ExtHdrHopByHop()), (6,)),
    Row("destination options three times", "ext_headers", chain(*[IPv6ExtHdrDestOpt()] * 3), (6,)),
    Row("routing header twice", "ext_headers", chain(*[IPv6ExtHdrRouting(segleft=0)] * 2), (6,)),
    Row("fragment header twice", "ext_headers", chain(*[IPv6ExtHdrFragment()] * 2), (6,)),
    Row("nested fragments", "ext_headers", chain(IPv6ExtHdrFragment(m=1, id=9), IPv6ExtHdrFragment(m=1, id=9)), (6,)),
    Row(
        "extension header beyond the packet",
        "ext_length",
        lambda f: put(chain(IPv6ExtHdrDestOpt())(f), 55, "B", 255),
        (6,),
    ),
    Row("hop-by-hop beyond the packet", "ext_length", lambda f: put(chain(IPv6ExtHdrHopByHop())(f), 55, "B", 9), (6,)),
    Row(
        "no room for an extension header", "ext_length", lambda f: put(chain(IPv6ExtHdrDestOpt())(f), 18, ">H", 7), (6,)
    ),
    Row("jumbogram", "jumbogram", lambda f: put(ip_options(b"\xc2\x04\x00\x01\x00\x00")(f), 18, ">H", 0), (6,)),
    Row("jumbo option of a short packet", "jumbogram", ip_options(b"\xc2\x04\x00\x01\x00\x00"), (6,)),
    Row(
        "jumbo option behind padding",
        "jumbogram",
        ip_options(b"\x01\x02\x00\x00\x00\x00\xc2\x04\x00\x01\x00\x00"),
        (6,),
    ),
    # -- TCP --
    Row("no flags", "tcp_flags", flags("")),
    Row("only PSH", "tcp_flags", flags("P")),
    Row("only URG", "tcp_flags", flags("U")),
    Row("only ECN", "tcp_flags", flags("EC")),
    Row("FIN alone", "tcp_flags", flags("F")),
    Row("SYN FIN", "tcp_flags", flags("SF")),
    Row("SYN FIN ACK", "tcp_flags", flags("SFA")),
    Row("SYN RST", "tcp_flags", flags("SR")),
    Row("SYN RST ACK", "tcp_flags", flags("SRA")),
    Row("FIN RST", "tcp_flags", flags("FR")),
    Row("FIN RST ACK", "tcp_flags", flags("FRA")),
    Row("xmas", "tcp_flags", flags("FPU")),
    Row("all of them", "tcp_flags", flags("FSRPAUEC")),
    Row("RST URG", "tcp_flags", flags("RU")),
    Row("SYN ACK URG", "tcp_flags", flags("SAU")),
    Row("data offset 0", "tcp_offset", lambda f: l4(f, f.segment("S"), 12, "B", 0x00)),
    Row("data offset 4", "tcp_offset", lambda f: l4(f, f.segment("S"), 12, "B", 0x40)),
    Row("data offset beyond the packet", "tcp_offset", lambda f: l4(f, f.segment("S"), 12, "B", 0x60)),
    Row("TCP of 19 bytes", "l4_short", lambda f: shorter(f, f.segment("S"), 19)),
    Row("TCP of no bytes", "l4_short", lambda f: shorter(f, f.segment("S"), 0)),
    Row("source port 0", "port_zero", lambda f: bytes(Flow(f.version, 0, 80).segment("S"))),
    Row("destination port 0", "port_zero", lambda f: bytes(Flow(f.version, 40000, 0).segment("S"))),
    Row("TCP option of length 0", "tcp_options", syn_options(b"\x02\x00\x05\xb4")),
    Row("TCP option of length 1", "tcp_options", syn_options(b"\x01\x03\x01\x07")),
    Row("TCP option beyond the header", "tcp_options", syn_options(b"\x02\x05\x05\xb4")),
    Row("TCP option without a length", "tcp_options", syn_options(b"\x01\x01\x01\x08")),
    Row("checksum of a SYN", "l4_checksum", lambda f: bytes(tcp(f, "S", chksum=0x4242))),
    Row(
        "checksum of a SYN with options",
        "l4_checksum",
        lambda f: bytes(tcp(f, "S", chksum=0x4242, options=[("MSS", 1460), ("WScale", 7)])),
    ),
    Row("checksum of a RST", "l4_checksum", lambda f: bytes(tcp(f, "R", chksum=0x4242))),
    Row("checksum of a FIN", "l4_checksum", lambda f: bytes(tcp(f, "FA", chksum=0x4242))),
    # -- UDP --
    Row("UDP of 7 bytes", "l4_short", lambda f: shorter(f, f.datagram(), 7)),
    Row("UDP length 7", "udp_length", lambda f: l4(f, f.datagram(b"x"), 4, ">H", 7)),
    Row("UDP length 0", "udp_length", lambda f: l4(f, f.datagram(b"x"), 4, ">H", 0)),
    Row("UDP length beyond the packet", "udp_length", lambda f: l4(f, f.datagram(b"x"), 4, ">H", 10)),
    Row("UDP destination port 0", "port_zero", lambda f: bytes(Flow(f.version, 40000, 0).datagram(b"x"))),
    # -- ICMP --
    Row("ICMP of 7 bytes", "l4_short", lambda f: shorter(f, f.echo(), 7)),
    Row(
        "ICMP of the other family",
        "icmp_family",
        lambda f: bytes(f.ip(proto=58) / ICMPv6EchoRequest(id=7)) if f.version == 4 else bytes(f.ip(nh=1) / ICMP(id=7)),
    ),
    Row("error without a quote", "icmp_quote", about(lambda f, q: b"")),
    Row("quote of half an IP header", "icmp_quote", about(lambda f, q: q[:19])),
    Row("quote of an IP header alone", "icmp_quote", about(lambda f, q: q[: L4[f.version] - L3])),
    Row("quote without the sequence number", "icmp_quote", about(lambda f, q: q[: L4[f.version] - L3 + 7])),
    Row(
        "quote of another IP version",
        "icmp_quote",
        about(lambda f, q: set_byte(0, 0x65 if f.version == 4 else 0x45)(f, q)),
    ),
    Row("quote with a header length of 16", "icmp_quote", about(set_byte(0, 0x44)), (4,)),
    Row("quote with options beyond it", "icmp_quote", about(set_byte(0, 0x4F)), (4,)),
    Row(
        "quote of ICMP of the other family",
        "icmp_quote",
        about(lambda f, q: set_byte(9, 58)(f, q) if f.version == 4 else set_byte(6, 1)(f, q)),
    ),
    Row("quote with an extension header beyond it", "icmp_quote", about(set_byte(6, 60)), (6,)),
    Row(
        "quote with mapped addresses",
        "icmp_quote",
        about(
            lambda f, q: (
                q[:8] + bytes(10) + b"\xff\xff\x0a\x4d\x01\x02" + bytes(10) + b"\xff\xff\x0a\x4d\x02\x02" + q[40:]
            )
        ),
        (6,),
    ),
    Row("error about an error", "icmp_quote", about(error_about_an_error)),
    Row(
        "error for somebody else",
        "icmp_unrelated",
        about(lambda f, q: set_byte(15 if f.version == 4 else 23, 0x77)(f, q)),
    ),
    Row("error about a later fragment", "icmp_unrelated", about(set_byte(7, 3)), (4,)),
    Row(
        "neighbour discovery to somebody beyond",
        "neighbour",
        lambda f: bytes(f.ip(hlim=255) / ICMPv6ND_NS(tgt=SERVER[6])),
        (6,),
    ),
    Row(
        "neighbour discovery in fragments",
        "neighbour",
        lambda f: bytes(
            Ether(bytes(f.ip())[:14])
            / IPv6(src="fe80::2", dst="ff02::1", hlim=255)
            / IPv6ExtHdrFragment(m=1, id=9)
            / ICMPv6ND_NS(tgt="fe80::1")
        ),
        (6,),
    ),
    # -- fragments --
    Row("empty first fragment", "fragment_length", piece(0, 0, more=True)),
    Row("empty later fragment", "fragment_length", piece(8, 0, more=False)),
    Row("no multiple of 8", "fragment_length", piece(0, 17, more=True)),
    Row("later one that is no multiple of 8", "fragment_length", piece(64, 9, more=True)),
    Row("beyond 65535", "fragment_length", piece(65528, 16, more=False)),
    Row("first without the whole TCP header", "fragment_tiny", piece(0, 16, more=True, proto=6)),
    Row("first TCP fragment of 8 bytes", "fragment_tiny", piece(0, 8, more=True, proto=6)),
    Row("first fragment that ends in an extension header", "fragment_tiny", piece(0, 8, more=True, proto=60), (6,)),
    Row("offset within the TCP header", "fragment_tiny", piece(8, 32, more=False, proto=6)),
    Row("offset within the TCP header, 16", "fragment_tiny", piece(16, 32, more=True, proto=6)),
    Row("without a first", "fragment", piece(64, 32, more=False)),
]
CASES = [pytest.param(row, version, id=f"ipv{version}-{row.name}") for row in ROWS for version in row.versions]


def establish(kernel: Kernel, flow: Flow) -> None:
    """Sessions of TCP, UDP and ICMP between the ends that the malformed packets name."""
    kernel.open(flow)
    for packet in (flow.datagram(b"x"), flow.datagram(b"y", back=True), flow.echo(), flow.echo(back=True)):
        assert kernel.send(packet).said == "pass"


def table(kernel: Kernel) -> dict[bytes, bytes]:
    """Every byte of every session."""
    return {key: bytes(session) for key, session in kernel.live()}


@pytest.mark.parametrize(("row", "version"), CASES)
def test_a_new_flow(kernel: Kernel, row: Row, version: int) -> None:
    kernel.policy(ALLOW)
    outcome = kernel.send(row.make(Flow(version)))
    assert (outcome.said, outcome.drops) == (f"drop {row.reason}", {row.reason: 1})
    assert kernel.live() == []
    assert kernel.events() == []


@pytest.mark.parametrize(("row", "version"), CASES)
def test_an_established_session(kernel: Kernel, row: Row, version: int) -> None:
    kernel.policy(ALLOW)
    flow = Flow(version)
    establish(kernel, flow)
    before = table(kernel)
    kernel.tick()
    outcome = kernel.send(row.make(flow))
    assert (outcome.said, outcome.drops) == (f"drop {row.reason}", {row.reason: 1})
    assert table(kernel) == before


@pytest.mark.parametrize(("row", "version"), CASES)
def test_monitor_mode_only_counts(kernel: Kernel, row: Row, version: int) -> None:
    kernel.policy(ALLOW, default="allow", monitor=True)
    outcome = kernel.send(row.make(Flow(version)))
    assert (outcome.said, outcome.drops, outcome.stats["monitored"]) == (f"pass {row.reason}", {row.reason: 1}, 1)
    assert kernel.live() == []


def test_the_exception_for_fragments_excuses_no_malformed_one(kernel: Kernel, flow: Flow) -> None:
    kernel.settings(exceptions={"fragment": Action.ALLOW})
    kernel.policy(ALLOW)
    for row in ROWS:
        if flow.version in row.versions and row.reason in {"fragment_length", "fragment_tiny"}:
            assert kernel.send(row.make(flow)).said == f"drop {row.reason}", row.name


@pytest.mark.parametrize(
    "text", ["S", "SA", "SU", "R", "RA", "A", "AU", "FA", "FAU", "PA", "FPA", "SEC", "SAE", "AEC", "RP"]
)
def test_flags_that_a_connection_has(kernel: Kernel, flow: Flow, text: str) -> None:
    kernel.policy(ALLOW)
    assert kernel.send(tcp(flow, text)).said == "pass"


def test_a_checksum_that_is_left_to_the_card(kernel: Kernel, flow: Flow) -> None:
    """CHECKSUM_PARTIAL: the field has the sum of the pseudo header alone."""
    kernel.policy(ALLOW)
    segment = bytes(tcp(flow, "S")[TCP])
    ends = bytes(flow.ip())[26:34] if flow.version == 4 else bytes(flow.ip())[22:54]
    total = sum(struct.unpack(f">{len(ends) // 2}H", ends)) + 6 + len(segment)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert kernel.send(tcp(flow, "S", chksum=total)).said == "pass"
    assert kernel.send(tcp(flow, "S", chksum=total ^ 1)).said == "drop l4_checksum"


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        ("0.0.0.0", "255.255.255.255"),
        ("0.0.0.0", "224.0.0.22"),
        (CLIENT[4], "239.1.1.1"),
        (CLIENT[4], "255.255.255.255"),
        ("::", "ff02::2"),
        ("fe80::2", "ff02::1:2"),
        (CLIENT[6], "ff05::1:3"),
    ],
)
def test_addresses_that_look_like_martians(kernel: Kernel, src: str, dst: str) -> None:
    """A host without an address asks for one (DHCP, RFC 4862), and groups are destinations."""
    kernel.policy(ALLOW)
    assert kernel.send(between(src, dst)(Flow(4))).said == "pass"


def test_a_udp_source_port_of_zero_wants_no_answer(kernel: Kernel, version: int) -> None:
    """RFC 768."""
    kernel.policy(ALLOW)
    flow = Flow(version, 0, 514)
    assert kernel.send(flow.datagram(b"x")).said == "pass"
    assert kernel.send(flow.datagram(b"x", back=True)).said == "drop port_zero"


SEEDS: list[Callable[[Flow], bytes]] = [
    lambda f: bytes(f.segment("S")),
    lambda f: bytes(f.data(b"hello")),
    lambda f: bytes(f.segment("R", ISN + 1)),
    lambda f: bytes(f.datagram(b"x" * 20)),
    lambda f: bytes(f.echo()),
    about(lambda _, quoted: quoted),
    piece(0, 24, more=True),
    piece(24, 24, more=False),
    syn_options(b"\x02\x04\x05\xb4\x01\x03\x03\x07"),
    ip_options(b"\x05\x02\x00\x00"),
    chain(IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment()),
]
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(L3, 140), st.integers(0, 7)),
        st.tuples(st.just("byte"), st.integers(L3, 140), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.integers(0, 100), st.just(0)),
        st.tuples(st.just("length"), st.integers(0, 120), st.just(0)),
    ),
    max_size=5,
)


def own_key(frame: bytes) -> bytes | None:
    """Key of the frame's flow by another reading of its headers: ours in Python. None where that finds no flow."""
    try:
        packet = parse_frame(frame)
    except FrameError:
        return None
    if packet.place and packet.place.offset == 0 and packet.l4 in {6, 17}:
        packet.sport, packet.dport = struct.unpack_from(">HH", frame, packet.l4_offset)
    return flow_key(packet)[0]


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(SEEDS), st.sampled_from([4, 6]), CHANGES, st.booleans())
def test_whatever_is_bent_ends_in_a_verdict(
    kernel: Kernel, seed: Callable[[Flow], bytes], version: int, changes: list[tuple[str, int, int]], right: bool
) -> None:
    """Dropped for exactly one reason, or passed; no session changes but that of the frame's own key."""
    if not kernel.live():
        kernel.policy(ALLOW)
        for each in (4, 6):
            establish(kernel, Flow(each))
    frame = bytearray(seed(Flow(version)) if seed is not SEEDS[-1] else seed(Flow(6)))
    for kind, at, value in changes:
        if kind == "cut":
            del frame[max(54, len(frame) - at) :]
        elif kind == "length":
            struct.pack_into(">H", frame, 16 if frame[12] == 8 else 18, at)
        elif at < len(frame):
            frame[at] = frame[at] ^ 1 << value if kind == "flip" else value
    sent = summed(frame) if right else bytes(frame)
    before = table(kernel)
    outcome = kernel.send(sent)
    after = table(kernel)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    if outcome.act is Act.DROP:
        assert sum(outcome.drops.values()) == 1
        assert not changed
    else:
        assert outcome.act is Act.PASS
        assert not outcome.drops
        assert changed <= {own_key(sent)}
