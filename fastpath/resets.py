"""Resets that the gateway sends in both ends' names, to end a connection that says nothing.

A reset counts only with exactly the sequence number that its receiver expects next (RFC 5961 3.2). That is what
the receiver acknowledged last, or behind the last byte sent to it, of which the acknowledgment is still to come.
Where both are wrong the receiver answers, and its answer is reset by the kernel half with its own numbers.
"""

from __future__ import annotations

import socket
import struct

from fastpath import abi

_RST_ACK = 0x14
_IPV6_HDRINCL = 36  # linux/in6.h, kernel 4.5
_MAPPED = bytes(10) + b"\xff\xff"


def resets(key: bytes, session: abi.Session) -> list[tuple[bytes, bytes]]:
    """(IP packet, 16-byte destination) of the resets to server and client of a TCP session."""
    flow = abi.Key.from_buffer_copy(key)
    ends = [(bytes(flow.addr_a), flow.port_a), (bytes(flow.addr_b), flow.port_b)]
    if session.flags & abi.SessionFlag.SERVER_IS_A:
        ends.reverse()
    packets = []
    for direction in (abi.Direction.SERVER, abi.Direction.CLIENT):
        (source, sport), (destination, dport) = ends[direction], ends[1 - direction]
        # Who has sent a SYN and heard nothing wants it acknowledged, whatever the sequence number (RFC 9293 3.10.7.3).
        ack = session.ack[direction] or (session.isn[1 - direction] + 1) & 0xFFFFFFFF
        behind = (session.isn[direction] + 1) & 0xFFFFFFFF if session.isn[direction] else 0
        expected = {session.ack[1 - direction], session.end[direction]} - {0} or {behind}
        packets += [
            (_packet(source, destination, sport, dport, sequence, ack), destination) for sequence in sorted(expected)
        ]
    return packets


def _packet(source: bytes, destination: bytes, sport: int, dport: int, sequence: int, ack: int) -> bytes:  # noqa: PLR0917
    """Addresses 16 bytes, ports as they stand in the key."""
    v4 = source[:12] == _MAPPED
    if v4:
        source, destination = source[12:], destination[12:]
    head = struct.pack("=HH", sport, dport) + struct.pack(">IIBB", sequence, ack, 5 << 4, _RST_ACK)
    pseudo = source + destination + struct.pack(">II", 20, socket.IPPROTO_TCP)
    total = sum(struct.unpack(f">{(len(pseudo) + 20) // 2}H", pseudo + head + bytes(6)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    segment = head + struct.pack(">HHH", 0, ~total & 0xFFFF, 0)
    if v4:  # the kernel fills in identification and checksum (raw(7))
        return struct.pack(">BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, 6, 0) + source + destination + segment
    return struct.pack(">IHBB", 6 << 28, 20, 6, 64) + source + destination + segment


class Resetter:
    """Sends them, routed as any packet of the host; needs CAP_NET_RAW."""

    def __init__(self) -> None:
        self._v4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._v6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._v6.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)

    def reset(self, key: bytes, session: abi.Session) -> None:
        """Reset both ends. OSError when one can't be reached."""
        failure = None
        for packet, destination in resets(key, session):
            try:
                if destination[:12] == _MAPPED:
                    self._v4.sendto(packet, (socket.inet_ntop(socket.AF_INET, destination[12:]), 0))
                else:
                    self._v6.sendto(packet, (socket.inet_ntop(socket.AF_INET6, destination), 0))
            except OSError as error:
                failure = error
        if failure:
            raise failure

    def close(self) -> None:
        """Close the sockets."""
        self._v4.close()
        self._v6.close()
