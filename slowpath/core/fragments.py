"""IP fragments, put together again. Overlaps are refused whole (RFC 5722), as are sets that grow too large."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from slowpath.core.frame import Packet, parse_frame

# RFC 8200 §4.5 asks for 60 s, Linux keeps 30 s.
TIMEOUT: Final = 30.0
MAX_DATAGRAM: Final = 65535
# 65,535 bytes in pieces of 1,280 are 52; Linux' default is below 64 KiB too.
MAX_PIECES: Final = 128
MAX_SETS: Final = 1024


@dataclass(slots=True)
class _Set:
    since: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    end: int = -1
    size: int = 0
    refused: bool = False


class Fragments:
    """Reassembles datagrams; bounded."""

    def __init__(self) -> None:
        self._sets: dict[tuple[bytes, bytes, int, int, tuple[int, ...]], _Set] = {}
        self.refused = 0

    def push(self, packet: Packet, now: float) -> Packet | None:
        """The whole packet once it is complete, with a header as if it had never been cut."""
        assert packet.place is not None
        place = packet.place
        key = (packet.src, packet.dst, packet.l4, place.id, packet.vlan)
        self._expire(now)
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= MAX_SETS:
                self._sets.pop(next(iter(self._sets)))
            found = self._sets[key] = _Set(now)
        if found.refused:
            return None
        data = packet.payload
        if not self._add(found, place.offset, data, more=place.more):
            found.refused = True
            found.pieces.clear()
            self.refused += 1
            return None
        if found.end < 0 or found.size != found.end:
            return None
        del self._sets[key]
        whole = b"".join(found.pieces[offset] for offset in sorted(found.pieces))
        return parse_frame(_header(packet, len(whole)) + whole, packet.context)

    def _expire(self, now: float) -> None:
        while self._sets:
            key, oldest = next(iter(self._sets.items()))
            if now < oldest.since + TIMEOUT:
                return
            del self._sets[key]

    @staticmethod
    def _add(found: _Set, offset: int, data: bytes, *, more: bool) -> bool:
        end = offset + len(data)
        if end > MAX_DATAGRAM - 20 or len(found.pieces) >= MAX_PIECES or not data or (more and len(data) % 8):
            return False
        if found.pieces.get(offset) == data:
            return True  # a duplicate is none
        if any(offset < start + len(piece) and start < end for start, piece in found.pieces.items()):
            return False
        if not more:
            if found.end >= 0:
                return False
            found.end = end
        found.pieces[offset] = data
        found.size += len(data)
        return found.end < 0 or max(start + len(piece) for start, piece in found.pieces.items()) <= found.end


def _header(packet: Packet, size: int) -> bytes:
    """Link and IP header in front of the whole payload; IPv6 extension headers before the cut are left out."""
    link = packet.frame[: packet.ip_offset]
    if packet.frame[packet.ip_offset] >> 4 == 4:
        header = bytearray(packet.frame[packet.ip_offset : packet.ip_offset + 20])
        header[0] = 0x45
        header[2:4] = (20 + size).to_bytes(2, "big")
        header[6:8] = b"\0\0"
    else:
        header = bytearray(packet.frame[packet.ip_offset : packet.ip_offset + 40])
        header[4:6] = size.to_bytes(2, "big")
        header[6] = packet.l4
    return link + bytes(header)
