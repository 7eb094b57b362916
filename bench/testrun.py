"""Time of a program over a frame with BPF_PROG_TEST_RUN: nanoseconds a packet, in the kernel.

The kernel repeats the run itself, so one system call gives one figure. Many flows
come from `scatter` (minimal.c), which rewrites the client's address and tail-calls the
program; what that costs is measured with the empty program and subtracted.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

from bench.programs import Peers
from fastpath.libbpf import Program

REPEAT = 100_000
FLOWS = 100_000
# Visits 0..FLOWS-1 once each in an order that no prefetcher follows; coprime to FLOWS.
STEP = 61_803

SKB_BYTES = 192  # sizeof(struct __sk_buff); less room for the answer is an error

TCP_BYTES = 20  # of the header, without options
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT = {4: "10.77.1.2", 6: "fd77:1::2"}
SERVER = {4: "10.77.2.2", 6: "fd77:2::2"}
# Of the last word of the client's address, behind byte 26: as the source, as the destination.
WHERE = {4: (0, 4), 6: (8, 24)}


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame, and its direction."""

    data: bytes
    to_client: bool = False
    version: int = 4

    @property
    def context(self) -> bytes:
        """struct __sk_buff whose priority tells `scatter` which address is the client's; no other program reads it."""
        return struct.pack(f"=32xI{SKB_BYTES - 36}x", WHERE[self.version][self.to_client])


def tcp(
    flags: int, *, seq: int, ack: int = 0, payload: bytes = b"", port: int = 80, to_client: bool = False,
    version: int = 4,
) -> Frame:  # fmt: skip
    """A TCP segment between the lab's client (port 40000) and its server, with its checksums. All-zero MAC
    addresses are the loopback device's, to which a test run belongs: another destination would count as
    somebody else's frame.
    """
    source, destination = (SERVER, CLIENT) if to_client else (CLIENT, SERVER)
    ports = (port, 40000) if to_client else (40000, port)
    packet = between(
        ip_address(source[version]).packed, ip_address(destination[version]).packed, ports, flags, seq, ack, payload
    )
    return Frame(bytes(12) + (b"\x86\xdd" if version == 6 else b"\x08\x00") + packet, to_client, version)


def between(
    source: bytes, destination: bytes, ports: tuple[int, int], flags: int, seq: int, ack: int = 0, payload: bytes = b""
) -> bytes:
    """A TCP segment with its IP header, of either family."""
    ends = source + destination
    segment = struct.pack(">HHIIBBHHH", *ports, seq, ack, 5 << 4, flags, 65535, 0, 0) + payload
    check = checksum(ends + struct.pack(">II", len(segment), socket.IPPROTO_TCP) + segment)
    segment = segment[:16] + check + segment[18:]
    if len(source) == 16:
        return struct.pack(">IHBB", 6 << 28, len(segment), socket.IPPROTO_TCP, 64) + ends + segment
    head = struct.pack(">BBHHHBB2x", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, socket.IPPROTO_TCP) + ends
    return head[:10] + checksum(head) + head[12:] + segment


def checksum(covered: bytes) -> bytes:
    """RFC 1071, over bytes in which its own place is zero."""
    total = int.from_bytes(covered + bytes(len(covered) % 2), "big")
    return ((0xFFFF - total % 0xFFFF) & 0xFFFF).to_bytes(2, "big")


def address(text: str) -> int:
    """An IPv4 address as a number."""
    return int.from_bytes(socket.inet_aton(text), "big")


def hot(program: Program, frame: Frame, repeat: int = REPEAT) -> float:
    """Nanoseconds a packet, always the same frame."""
    return float(program.run(frame.data, repeat=repeat).nanoseconds)


def scattered(peers: Peers, program: Program, frame: Frame, repeat: int = REPEAT) -> float:
    """Nanoseconds a packet of `scatter` and `program`, over the addresses that `peers.spread` set."""
    peers.aim(program)
    return float(peers.scatter.run(frame.data, repeat=repeat, context=frame.context).nanoseconds)
