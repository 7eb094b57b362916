"""The tap's far end: frames with their virtio header, through AF_PACKET (packet(7)).

Without the virtio header checksum-offloaded frames would come back with wrong
checksums and super-packets would be cut; both headers go back as they came.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# linux/if_packet.h
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_AUXDATA = 8
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6
ETH_P_ALL = 3
ETH_P_8021Q = 0x8100
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32

# struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
VNET = struct.Struct("=BBHHHH")
NEEDS_CSUM = 1
DATA_VALID = 2
# struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_AUXDATA = struct.Struct("=IIIHHHH")
_MACS = 12
_TAG = 4

MAX_FRAME = 65536 + 64
# Bursts while Python is busy elsewhere: a quarter of a second at 1 Gbit/s.
BUFFER = 32 * 1024 * 1024
# Frames taken in one go before other tasks get their turn.
BURST = 64


class TapGoneError(Exception):
    """The tap was taken away."""


@dataclass(slots=True)
class TapStats:
    """Counters of the socket."""

    received: int = 0
    sent: int = 0
    refused: int = 0  # frames the kernel did not take back
    lost: int = 0  # frames that found no room in the socket


@dataclass(frozen=True, slots=True)
class Frame:
    """One held frame, its VLAN tag put back, and its virtio header for the way back."""

    octets: bytes
    header: bytes

    @property
    def checksum_known(self) -> bool:
        """The receiving or sending kernel vouches for the transport checksum."""
        return bool(self.header[0] & (NEEDS_CSUM | DATA_VALID))


class Tap:
    """The socket."""

    def __init__(self, interface: str) -> None:
        self.stats = TapStats()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._room = bytearray(VNET.size + MAX_FRAME)
        self._view = memoryview(self._room)
        try:
            for option in (PACKET_VNET_HDR, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING):
                self._socket.setsockopt(SOL_PACKET, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
            self._socket.bind((interface, ETH_P_ALL))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Frames that wait in the socket are lost."""
        self._socket.close()

    def frames(self) -> Iterator[Frame]:
        """What waits, at most `BURST`. TapGoneError when the interface went away."""
        for _ in range(BURST):
            try:
                size, ancillary, _, _ = self._socket.recvmsg_into([self._room], 64)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    raise TapGoneError from None
                raise
            if size < VNET.size:
                continue
            self.stats.received += 1
            header = bytes(self._view[: VNET.size])
            octets = bytes(self._view[VNET.size : size])
            for level, kind, content in ancillary:
                if level == SOL_PACKET and kind == PACKET_AUXDATA and len(content) >= _AUXDATA.size:
                    header, octets = _with_tag(header, octets, content)
            yield Frame(octets, header)

    def send(self, frame: Frame) -> bool:
        """Give a frame back; False when the kernel refuses it."""
        try:
            self._socket.send(frame.header + frame.octets)
        except OSError as error:
            if error.errno in {errno.ENETDOWN, errno.ENXIO}:
                raise TapGoneError from None
            # EINVAL: kernels before 6.2 do not take UDP segmentation; ENOBUFS, EAGAIN: no room.
            self.stats.refused += 1
            return False
        self.stats.sent += 1
        return True

    def read_statistics(self) -> None:
        """Add up what the socket dropped (the kernel's counter starts anew at each reading)."""
        raw = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.stats.lost += struct.unpack("=II", raw)[1]


def _with_tag(header: bytes, octets: bytes, content: bytes) -> tuple[bytes, bytes]:
    """AF_PACKET strips the VLAN tag into the auxiliary data: put it back, and move csum_start behind it."""
    status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(content)
    if not status & TP_STATUS_VLAN_VALID:
        return header, octets
    kind = tpid if status & TP_STATUS_VLAN_TPID_VALID else ETH_P_8021Q
    octets = octets[:_MACS] + struct.pack("!HH", kind, tci) + octets[_MACS:]
    flags, gso, length, size, start, offset = VNET.unpack(header)
    if flags & NEEDS_CSUM:
        start += _TAG
    if length:
        length += _TAG
    return VNET.pack(flags, gso, length, size, start, offset), octets
