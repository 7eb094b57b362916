"""What arrived at an interface: a small sniffer process, and questions to its capture.

    capture.py INTERFACE FILE      write a pcap until SIGTERM, prints "ready" first

Only what comes in is captured (PACKET_IGNORE_OUTGOING), so on the server's interface
"seen" means that the gateway let it through.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tests.lab.namespaces import Lab, Namespace

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33
# Larger than any frame, GSO included.
SNAPLEN = 256 * 1024
RECEIVE_BUFFER = 64 * 1024 * 1024

PCAP_HEADER = struct.Struct("<IHHiIII")
PCAP_RECORD = struct.Struct("<IIII")
PCAP_MAGIC = 0xA1B2C3D4
LINKTYPE_ETHERNET = 1

IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP = 6, 17
# IPv6 extension headers that say how long they are: hop-by-hop, routing, destination.
EXTENSIONS = (0, 43, 60)


def sniff(interface: str, path: str) -> int:
    """The sniffer process. Its exit status is 1 when the kernel dropped packets it should have seen."""
    # protocol 0 until the options are set, so that no other packet gets in before.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as source, Path(path).open("wb") as file:
        source.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        source.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        source.bind((interface, ETH_P_ALL))
        wake, stop = os.pipe()
        os.set_blocking(stop, False)
        signal.set_wakeup_fd(stop)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        file.write(PCAP_HEADER.pack(PCAP_MAGIC, 2, 4, 0, 0, SNAPLEN, LINKTYPE_ETHERNET))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        source.setblocking(False)
        frame = bytearray(SNAPLEN)
        view = memoryview(frame)
        stopping = False
        while True:
            try:
                size = source.recv_into(frame)
            except BlockingIOError:
                # Everything that had arrived when the signal came is written.
                if stopping:
                    break
                readable, _, _ = select.select([source.fileno(), wake], [], [])
                stopping = wake in readable
                continue
            now = time.time()
            file.write(PCAP_RECORD.pack(int(now), int(now % 1 * 1e6), size, size))
            file.write(view[:size])
        _, dropped = struct.unpack("II", source.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return 1 if dropped else 0


class Capture:
    """`with Capture(lab, Namespace.SERVER) as capture: ...`, then ask `capture.file`."""

    def __init__(self, lab: Lab, namespace: Namespace, interface: str = "eth0", name: str = "capture") -> None:
        self.lab = lab
        self.namespace = namespace
        self.interface = interface
        self.file = lab.directory / f"{name}-{namespace}-{interface}.pcap"
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        argv: list[str | Path] = [sys.executable, "-I", "-S", Path(__file__), self.interface, self.file]
        self._process = self.lab.spawn(self.namespace, argv, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"cannot capture on {self.interface}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self.lab.stop(self._process) and error is None:
            raise RuntimeError(f"the capture on {self.interface} is not complete")


@dataclass(frozen=True, slots=True)
class Packet:
    """A TCP or UDP packet of a capture."""

    src: bytes
    sport: int
    dst: bytes
    dport: int
    l4: int
    sequence: int
    flags: int
    payload: bytes


def frames(file: Path) -> Iterator[bytes]:
    """Frames of a capture written by `sniff`."""
    content = file.read_bytes()
    offset = PCAP_HEADER.size
    while offset + PCAP_RECORD.size <= len(content):
        size = PCAP_RECORD.unpack_from(content, offset)[2]
        offset += PCAP_RECORD.size
        yield content[offset : offset + size]
        offset += size


def parse(frame: bytes) -> Packet | None:
    """The frame's TCP or UDP packet; None for everything else, fragments included."""
    kind = int.from_bytes(frame[12:14])
    if kind == IPV4 and len(frame) >= 34:
        header = (frame[14] & 15) * 4
        if int.from_bytes(frame[20:22]) & 0x3FFF:
            return None
        l4, src, dst = frame[23], frame[26:30], frame[30:34]
        end = 14 + int.from_bytes(frame[16:18])
        start = 14 + header
    elif kind == IPV6 and len(frame) >= 54:
        l4, src, dst = frame[20], frame[22:38], frame[38:54]
        end = 54 + int.from_bytes(frame[18:20])
        start = 54
        while l4 in EXTENSIONS and start + 2 <= len(frame):
            l4, start = frame[start], start + 8 + frame[start + 1] * 8
    else:
        return None
    # The total length is 0 on a GSO packet beyond 64 KiB; padding follows on a short frame.
    rest = frame[start : end if end > start else len(frame)]
    if l4 == TCP and len(rest) >= 20:
        sport, dport, sequence = struct.unpack_from(">HHI", rest)
        return Packet(src, sport, dst, dport, TCP, sequence, rest[13], rest[(rest[12] >> 4) * 4 :])
    if l4 == UDP and len(rest) >= 8:
        sport, dport = struct.unpack_from(">HH", rest)
        return Packet(src, sport, dst, dport, UDP, 0, 0, rest[8:])
    return None


def packets(file: Path, *, dport: int | None = None, sport: int | None = None) -> Iterator[Packet]:
    """TCP and UDP packets of a capture, towards and from these ports."""
    for frame in frames(file):
        packet = parse(frame)
        if packet and dport in (None, packet.dport) and sport in (None, packet.sport):
            yield packet


def streams(file: Path, *, dport: int | None = None, sport: int | None = None) -> list[bytes]:
    """TCP payload in sequence order, one element for each run without a gap."""
    flows: dict[tuple[bytes, int, bytes, int], list[Packet]] = {}
    for packet in packets(file, dport=dport, sport=sport):
        if packet.l4 == TCP and packet.payload:
            flows.setdefault((packet.src, packet.sport, packet.dst, packet.dport), []).append(packet)
    runs: list[bytes] = []
    for flow in flows.values():
        # Order around the first packet seen, so that a wrap of the sequence number is no gap.
        base = flow[0].sequence
        pieces = sorted((((p.sequence - base + (1 << 31)) & 0xFFFFFFFF, p.payload) for p in flow), key=lambda p: p[0])
        run, position = bytearray(), -1
        for offset, payload in pieces:
            if position < 0 or offset > position:
                if run:
                    runs.append(bytes(run))
                run, position = bytearray(payload), offset + len(payload)
            elif offset + len(payload) > position:
                run += payload[position - offset :]
                position = offset + len(payload)
        runs.append(bytes(run))
    return runs


def payload_seen(file: Path, needle: bytes, dport: int | None = None) -> bool:
    """These bytes arrived: in any frame as it is, or across the segments of a TCP stream. With `dport`, in
    what went to this port.
    """
    if any(needle in run for run in streams(file, dport=dport)):
        return True
    if dport is None:
        return any(needle in frame for frame in frames(file))
    return any(needle in packet.payload for packet in packets(file, dport=dport))


def payload_bytes(file: Path, dport: int, sport: int | None = None) -> int:
    """Bytes of TCP or UDP payload that arrived towards a port (retransmissions count again)."""
    return sum(len(packet.payload) for packet in packets(file, dport=dport, sport=sport))


if __name__ == "__main__":
    sys.exit(sniff(sys.argv[1], sys.argv[2]))
