"""Time of a program over a frame with BPF_PROG_TEST_RUN: nanoseconds a packet, in the kernel.

The kernel repeats the run itself, so one system call gives one figure. Many flows
come from `scatter` (minimal.c), which rewrites the client's address and tail-calls the
program; what that costs is measured with the empty program and subtracted.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from bench.programs import Peers
from fastpath.libbpf import Program

REPEAT = 100_000
FLOWS = 100_000
# Visits 0..FLOWS-1 once each in an order that no prefetcher follows; coprime to FLOWS.
STEP = 61_803

SKB_BYTES = 192  # sizeof(struct __sk_buff); less room for the answer is an error

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT = "10.77.1.2"
SERVER = "10.77.2.2"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame, and its direction."""

    data: bytes
    to_client: bool = False

    @property
    def context(self) -> bytes:
        """struct __sk_buff whose priority tells `scatter` which address is the client's; no other program reads it."""
        return struct.pack(f"=32xI{SKB_BYTES - 36}x", 4 if self.to_client else 0)


def tcp(flags: int, *, seq: int, ack: int = 0, payload: bytes = b"", port: int = 80, to_client: bool = False) -> Frame:
    """A TCP segment between the lab's client (port 40000) and its server, with its checksums. All-zero MAC
    addresses are the loopback device's, to which a test run belongs: another destination would count as
    somebody else's frame.
    """
    source, destination = (SERVER, CLIENT) if to_client else (CLIENT, SERVER)
    ports = (port, 40000) if to_client else (40000, port)
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    segment = struct.pack(">HHIIBBHHH", *ports, seq, ack, 5 << 4, flags, 65535, 0, 0) + payload
    check = checksum(ends + struct.pack(">HH", socket.IPPROTO_TCP, len(segment)) + segment)
    segment = segment[:16] + check + segment[18:]
    head = struct.pack(">BBHHHBB2x", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, socket.IPPROTO_TCP) + ends
    packet = head[:10] + checksum(head) + head[12:] + segment
    return Frame(bytes(12) + b"\x08\x00" + packet, to_client)


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
