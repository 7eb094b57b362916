"""One Ethernet frame to one packet, by struct: the live path pays for every frame.

Lengths are those of the IP header: what lies behind is padding. Nothing beyond the
transport header is read.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Any, Final

from fastpath.abi import Reason

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10
URG: Final = 0x20

MAX_TAGS: Final = 2
# RFC 8200 allows each extension header once (destination options twice): 8 is above any real chain.
MAX_EXTENSIONS: Final = 8

_MAPPED: Final = bytes(10) + b"\xff\xff"
_TAGS: Final = frozenset((0x8100, 0x88A8, 0x9100))
_EXTENSIONS: Final = frozenset((0, 43, 60, 135, 139, 140))
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_IP4 = struct.Struct("!BxHHHxB")
_IP6 = struct.Struct("!IHB")
_TCP = struct.Struct("!HHIIBB")
# Ethernet type, IPv4 header without options, TCP header (or a datagram's, and what follows).
_PLAIN = struct.Struct("!12xHBxH2xHxB10xHHIIBB")
_PLAIN_MIN: Final = 14 + 20 + 20
_KEY = struct.Struct("!16s16sHHBB2s")
# In the machine's byte order, as the kernel has it.
_ASKS = [value.to_bytes(2, sys.byteorder) for value in (False, True)]
# Of replies with an identifier the types of what they answer.
_QUERIES = {
    ICMP: {0: 8, 14: 13, 16: 15, 18: 17, 43: 42},
    ICMPV6: {129: 128, 145: 144, 147: 146, 161: 160},
}


class FrameError(Exception):
    """A frame the gateway does not judge; `reason` is what its drop is counted under."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name.lower())
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fragment:
    """Place of a fragment in its datagram."""

    id: int
    offset: int
    more: bool


class Packet:
    """What the inspector needs of a frame. Addresses are 16 bytes (IPv4 mapped), ports host order;
    ICMP has ports as `struct ms_key` says. `context` is the shell's own (interface, virtio header).
    """

    # No dataclass: this is made for every frame, and what is seldom asked for is read from the frame then.
    __slots__ = (
        "_flow", "ack", "bad_checksum", "context", "dport", "frame", "ip_offset", "l4", "l4_offset", "payload",
        "payload_offset", "place", "seq", "sport", "tcp_flags", "vlan",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917
        self,
        frame: bytes,
        ip_offset: int,
        l4_offset: int,
        payload_offset: int,
        end: int,
        l4: int,
        vlan: tuple[int, ...],
        sport: int,
        dport: int,
        seq: int,
        ack: int,
        tcp_flags: int,
        place: Fragment | None,
        context: Any,
    ) -> None:
        self.frame = frame
        self.ip_offset = ip_offset
        self.l4_offset = l4_offset
        self.payload_offset = payload_offset
        self.payload = frame[payload_offset:end]
        self.l4 = l4
        self.vlan = vlan
        self.sport = sport
        self.dport = dport
        self.seq = seq
        self.ack = ack
        self.tcp_flags = tcp_flags
        self.place = place
        self.context = context
        self.bad_checksum = False
        self._flow: tuple[bytes, bool] | None = None

    @property
    def src(self) -> bytes:
        """The sender's address."""
        return _addresses(self.frame, self.ip_offset)[0]

    @property
    def dst(self) -> bytes:
        """The receiver's address."""
        return _addresses(self.frame, self.ip_offset)[1]

    @property
    def fragment(self) -> bool:
        """A part of a packet."""
        return self.place is not None

    @property
    def urgent(self) -> int:
        """TCP's urgent pointer, 0 where the flag is not set."""
        at = self.l4_offset
        return self.frame[at + 18] << 8 | self.frame[at + 19] if self.tcp_flags & URG else 0

    @property
    def flow(self) -> tuple[bytes, bool]:
        """See `flow_key`; looked for once."""
        if self._flow is None:
            self._flow = flow_key(self)
        return self._flow


def parse_frame(frame: bytes, context: Any = None) -> Packet:
    """Parse an Ethernet frame; raises FrameError."""
    size = len(frame)
    if size >= _PLAIN_MIN:
        # What nearly all are is read by one look, and refused below.
        kind, first, total, fragment, l4, sport, dport, seq, ack, offset, flags = _PLAIN.unpack_from(frame)
        data = 34 + (offset >> 4) * 4
        end = 14 + total
        if kind == 0x0800 and first == 0x45 and not fragment & 0x3FFF and end <= size:
            if l4 == TCP and _PLAIN_MIN <= data <= end:
                return Packet(frame, 14, 34, data, end, TCP, (), sport, dport, seq, ack, flags, None, context)
            # What is a sequence number in TCP is length and checksum of a datagram, and of nothing else.
            if l4 == UDP and 42 <= 34 + (seq >> 16) <= end:
                return Packet(frame, 14, 34, 42, 34 + (seq >> 16), UDP, (), sport, dport, 0, 0, 0, None, context)
    if size < 14:
        raise FrameError(Reason.TRUNCATED)
    kind = frame[12] << 8 | frame[13]
    at = 14
    vlan: tuple[int, ...] = ()
    while kind in _TAGS:
        if len(vlan) == MAX_TAGS:
            raise FrameError(Reason.NOT_IP)
        if size < at + 4:
            raise FrameError(Reason.TRUNCATED)
        vlan += ((frame[at] << 8 | frame[at + 1]) & 0x0FFF,)
        kind = frame[at + 2] << 8 | frame[at + 3]
        at += 4
    if kind == 0x0800:
        return parse_ip4(frame, at, vlan, context)
    if kind == 0x86DD:
        return parse_ip6(frame, at, vlan, context)
    raise FrameError(Reason.NOT_IP)


def parse_ip4(frame: bytes, at: int, vlan: tuple[int, ...] = (), context: Any = None) -> Packet:
    """Parse from an IPv4 header on."""
    if len(frame) < at + 20:
        raise FrameError(Reason.TRUNCATED)
    first, total, identification, fragment, l4 = _IP4.unpack_from(frame, at)
    header = (first & 15) * 4
    if first >> 4 != 4 or header < 20 or total < header:
        raise FrameError(Reason.BAD_HEADER)
    if len(frame) < at + total:
        raise FrameError(Reason.TRUNCATED)
    place = None
    if fragment & 0x3FFF:
        place = Fragment(identification, (fragment & 0x1FFF) * 8, bool(fragment & 0x2000))
    return _transport(frame, at, at + header, at + total, l4, vlan, place, context)


def parse_ip6(frame: bytes, at: int, vlan: tuple[int, ...] = (), context: Any = None) -> Packet:
    """Parse from an IPv6 header on."""
    if len(frame) < at + 40:
        raise FrameError(Reason.TRUNCATED)
    first, size, l4 = _IP6.unpack_from(frame, at)
    if first >> 28 != 6:
        raise FrameError(Reason.BAD_HEADER)
    here, end = at + 40, at + 40 + size
    if len(frame) < end:
        raise FrameError(Reason.TRUNCATED)
    place = None
    seen = 0
    while l4 in _EXTENSIONS or l4 in {_FRAGMENT, _AUTHENTICATION}:
        seen += 1
        if seen > MAX_EXTENSIONS:
            raise FrameError(Reason.EXT_HEADERS)
        if end < here + 8:
            raise FrameError(Reason.TRUNCATED)
        if l4 == 43 and frame[here + 3]:  # a routing header with segments left (RFC 8200 §4.4)
            raise FrameError(Reason.SOURCE_ROUTE)
        following = frame[here]
        if l4 == _FRAGMENT:
            word = frame[here + 2] << 8 | frame[here + 3]
            if word & 0xFFF9:  # RFC 6946: an atomic fragment is none
                place = Fragment(int.from_bytes(frame[here + 4 : here + 8], "big"), word & 0xFFF8, bool(word & 1))
            here += 8
            if place is not None:
                l4 = following
                break
        elif l4 == _AUTHENTICATION:
            here += (frame[here + 1] + 2) * 4
        else:
            here += (frame[here + 1] + 1) * 8
        l4 = following
    if here > end:
        raise FrameError(Reason.TRUNCATED)
    return _transport(frame, at, here, end, l4, vlan, place, context)


def _transport(  # noqa: PLR0917
    frame: bytes,
    ip: int,
    at: int,
    end: int,
    l4: int,
    vlan: tuple[int, ...],
    place: Fragment | None,
    context: Any,
) -> Packet:
    sport = dport = seq = ack = flags = 0
    data = at
    room = end - at
    if place is not None:
        pass  # ports of a fragment are not to be trusted, and most have none
    elif l4 == TCP:
        if room < 20:
            raise FrameError(Reason.TRUNCATED)
        sport, dport, seq, ack, offset, flags = _TCP.unpack_from(frame, at)
        header = (offset >> 4) * 4
        if header < 20:
            raise FrameError(Reason.BAD_HEADER)
        if header > room:
            raise FrameError(Reason.TRUNCATED)
        data = at + header
    elif l4 == UDP:
        if room < 8:
            raise FrameError(Reason.TRUNCATED)
        sport, dport = frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]
        length = frame[at + 4] << 8 | frame[at + 5]
        # 0 in a UDP GSO super-packet's header is allowed, a length beyond the packet is a lie.
        if length > room or 0 < length < 8:
            raise FrameError(Reason.BAD_HEADER)
        data = at + 8
        end = at + length if length else end
    elif l4 in {ICMP, ICMPV6}:
        if room < 8:
            raise FrameError(Reason.TRUNCATED)
        sport, dport = _icmp_ports(frame, at, l4)
        data = at + 8
    return Packet(frame, ip, at, data, end, l4, vlan, sport, dport, seq, ack, flags, place, context)


def _icmp_ports(frame: bytes, at: int, l4: int) -> tuple[int, int]:
    """The same as `icmp_ports` in bpf/lib/packet.h."""
    kind, code = frame[at], frame[at + 1]
    asked = _QUERIES[l4].get(kind)
    if asked is None:
        identified = kind in _QUERIES[l4].values()
        return frame[at + 4] << 8 | frame[at + 5] if identified else 0, kind << 8 | code
    # The reply to an extended echo has its result there (RFC 8335 3).
    return asked << 8 | (0 if asked in {42, 160} else code), frame[at + 4] << 8 | frame[at + 5]


def is_reply(packet: Packet) -> bool:
    """An ICMP message that answers another."""
    return packet.l4 in _QUERIES and not packet.fragment and packet.frame[packet.l4_offset] in _QUERIES[packet.l4]


def flow_key(packet: Packet, zone: int = 0) -> tuple[bytes, bool]:
    """`struct ms_key` of the packet's flow, and whether the packet goes from its first endpoint to its second."""
    src, dst = _addresses(packet.frame, packet.ip_offset)
    l4, sport, dport = packet.l4, packet.sport, packet.dport
    lower = src < dst or (src == dst and sport <= dport)
    asks = _ASKS[l4 in _QUERIES and packet.place is None and lower != is_reply(packet)]
    if lower:
        return _KEY.pack(src, dst, sport, dport, l4, zone, asks), True
    return _KEY.pack(dst, src, dport, sport, l4, zone, asks), False


def _addresses(frame: bytes, ip: int) -> tuple[bytes, bytes]:
    if frame[ip] >> 4 == 4:
        return _MAPPED + frame[ip + 12 : ip + 16], _MAPPED + frame[ip + 16 : ip + 20]
    return frame[ip + 8 : ip + 24], frame[ip + 24 : ip + 40]


def checksum_ok(packet: Packet) -> bool:
    """The TCP or UDP checksum holds, or is the pseudo-header's alone (left to the card by the sender)."""
    l4 = packet.l4
    if (l4 != TCP and l4 != UDP) or packet.place is not None:  # noqa: PLR1714  # for every frame, so no set is made
        return True
    frame, at, ip = packet.frame, packet.l4_offset, packet.ip_offset
    end = packet.payload_offset + len(packet.payload)
    begin, behind = (ip + 12, ip + 20) if frame[ip] >> 4 == 4 else (ip + 8, ip + 40)  # of the addresses
    octets = frame[begin:end] if behind == at else frame[begin:behind] + frame[at:end]
    size = end - at
    # 16-bit words add up modulo 0xffff, and 0x10000 is 1 modulo 0xffff: one big integer does it.
    summed = int.from_bytes(octets, "big") << 8 if size & 1 else int.from_bytes(octets, "big")
    if (summed + size + l4) % 0xFFFF == 0:
        return True
    stored_at = at + (16 if l4 == TCP else 6)
    stored = frame[stored_at] << 8 | frame[stored_at + 1]
    if l4 == UDP and not stored:
        return True
    return stored % 0xFFFF == (int.from_bytes(frame[begin:behind], "big") + size + l4) % 0xFFFF
