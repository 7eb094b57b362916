"""What Linux's own connection tracking makes of a packet: the second opinion on TCP.

A gateway as in `harness` whose nftables rules let nf_conntrack follow forwarded connections, strictly
(nf_conntrack_tcp_be_liberal=0). Nothing is dropped for being invalid: the rules mark it in the DSCP field, and every
frame is awaited behind the gateway, so that nothing depends on time.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from tests.bpf.harness import Namespace

# `prerouting` at -150 comes right behind conntrack's own hook at -200.
RULES = """\
table inet proof {
    chain seen {
        type filter hook prerouting priority -150
        ct state invalid ip dscp set cs1
        ct state invalid ip6 dscp set cs1
    }
}
"""
INVALID_DSCP = 8

# The other ends do not exist: their neighbours are fixed, and the MAC is nobody's, so that the namespace takes no
# frame at `far1` for its own.
NOBODY_MAC = "02:00:00:00:00:77"
NEIGHBOURS = f"""\
neigh add 10.77.1.2 lladdr {NOBODY_MAC} dev seg0 nud permanent
neigh add fd77:1::2 lladdr {NOBODY_MAC} dev seg0 nud permanent
neigh add 10.77.2.2 lladdr {NOBODY_MAC} dev seg1 nud permanent
neigh add fd77:2::2 lladdr {NOBODY_MAC} dev seg1 nud permanent
"""
SEGMENT_MAC = {"seg0": "02:00:00:00:00:01", "seg1": "02:00:00:00:00:02"}
SYSCTLS = {
    "net/netfilter/nf_conntrack_tcp_be_liberal": 0,
    "net/netfilter/nf_conntrack_checksum": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/seg0/rp_filter": 0,
    "net/ipv4/conf/seg1/rp_filter": 0,
    "net/ipv6/conf/far0/disable_ipv6": 1,
    "net/ipv6/conf/far1/disable_ipv6": 1,
}

# linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_tcp.h
NETLINK_NETFILTER = 12
CT_GET, CT_DELETE = 0x101, 0x102
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
NESTED = 0x8000
CTA_TUPLE_ORIG, CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 1, 2
CTA_IP_SRC, CTA_IP_DST = {IP: 1, IPv6: 3}, {IP: 2, IPv6: 4}
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE = 4, 1, 1
ATTRIBUTE_TYPE = 0x3FFF
STATES = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)


@dataclass(frozen=True)
class Seen:
    """State of the connection after a packet (None: there is none) and whether the packet was valid."""

    state: str | None
    valid: bool


class Conntrack:
    """A gateway with connection tracking, for one connection at a time."""

    def __init__(self) -> None:
        self._namespace = Namespace()
        with self._namespace.inside():
            subprocess.run(["ip", "-batch", "-"], input=NEIGHBOURS, text=True, check=True)
            subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
            for name, value in SYSCTLS.items():
                Path("/proc/sys", name).write_text(str(value))
            self._far = {name: packets(name) for name in ("far0", "far1")}
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._netlink.settimeout(5)

    def close(self) -> None:
        """Nothing stays."""
        for one in (*self._far.values(), self._netlink):
            one.close()
        self._namespace.close()

    def reset(self, *, loose: bool) -> None:
        """Forget all connections; `loose`: a connection may begin without its SYN."""
        with self._namespace.inside():
            Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").write_text(str(int(loose)))
        self._ask(CT_DELETE, NLM_F_ACK)

    def send(self, packet: Packet, *, back: bool) -> Seen:
        """One packet through the gateway, from the client or `back` from the server."""
        frame = bytearray(bytes(packet))
        source, target = ("far1", "far0") if back else ("far0", "far1")
        frame[0:6] = bytes.fromhex(SEGMENT_MAC["seg" + source[-1]].replace(":", ""))
        self._far[source].send(frame)
        forwarded = self._hear(target, bytes.fromhex(SEGMENT_MAC["seg" + target[-1]].replace(":", "")))
        traffic_class = forwarded[15] if IP in packet else (int.from_bytes(forwarded[14:16]) >> 4) & 0xFF
        assert IP in packet or IPv6 in packet
        return Seen(self.state(packet), traffic_class >> 2 != INVALID_DSCP)

    def state(self, packet: Packet) -> str | None:
        """State of the packet's connection, whichever direction it went."""
        # A dump would walk the whole table: 9 ms.
        for body in self._ask(CT_GET, NLM_F_ACK, original_tuple(packet)):
            info = attributes(attributes(body[4:])[CTA_PROTOINFO])
            return STATES[attributes(info[CTA_PROTOINFO_TCP])[CTA_PROTOINFO_TCP_STATE][0]]
        return None

    def _hear(self, interface: str, source: bytes) -> bytes:
        """The next TCP frame that the gateway sent there."""
        while True:
            frame = self._far[interface].recv(70000)
            ethertype = int.from_bytes(frame[12:14])
            l4 = {0x0800: 23, 0x86DD: 20}.get(ethertype)
            if frame[6:12] == source and l4 and frame[l4] == socket.IPPROTO_TCP:
                return frame

    def _ask(self, kind: int, flags: int, query: bytes = bytes(4)) -> list[bytes]:
        """The bodies that ctnetlink answers with, behind their netlink headers."""
        self._netlink.send(struct.pack("=IHHII", 16 + len(query), kind, NLM_F_REQUEST | flags, 1, 0) + query)
        bodies: list[bytes] = []
        while True:
            reply = self._netlink.recv(1 << 16)
            while reply:
                size, answer = struct.unpack_from("=IH", reply)
                body, reply = reply[16:size], reply[(size + 3) & ~3 :]
                if answer == NLMSG_ERROR:
                    (error,) = struct.unpack_from("=i", body)
                    assert -error in {0, errno.ENOENT}, f"ctnetlink answers {os.strerror(-error)}"
                    return bodies
                bodies.append(body)


def packets(interface: str) -> socket.socket:
    """A socket for raw frames of an interface; waits for one 5 seconds at most."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((interface, 0))
    raw.settimeout(5)
    return raw


def attributes(raw: bytes) -> dict[int, bytes]:
    """Netlink attributes by type."""
    found = {}
    while len(raw) >= 4:
        size, kind = struct.unpack_from("=HH", raw)
        found[kind & ATTRIBUTE_TYPE] = raw[4:size]
        raw = raw[(size + 3) & ~3 :]
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def original_tuple(packet: Packet) -> bytes:
    """`nfgenmsg` and the tuple that asks for a packet's connection."""
    kind, family = (IP, socket.AF_INET) if IP in packet else (IPv6, socket.AF_INET6)
    addresses = [socket.inet_pton(family, text) for text in (packet[kind].src, packet[kind].dst)]
    ends = attribute(CTA_IP_SRC[kind], addresses[0]) + attribute(CTA_IP_DST[kind], addresses[1])
    ports = (
        attribute(CTA_PROTO_NUM, bytes([socket.IPPROTO_TCP]))
        + attribute(CTA_PROTO_SRC_PORT, packet[TCP].sport.to_bytes(2))
        + attribute(CTA_PROTO_DST_PORT, packet[TCP].dport.to_bytes(2))
    )
    both = attribute(CTA_TUPLE_IP | NESTED, ends) + attribute(CTA_TUPLE_PROTO | NESTED, ports)
    return struct.pack("=BBH", family, 0, 0) + attribute(CTA_TUPLE_ORIG | NESTED, both)
