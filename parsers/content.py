"""Bodies in pieces: their content coding undone, within bounds.

zlib is told how much to put out at a time, so that no input unpacks into more memory than a piece.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from parsers.base import ParseError

# Bytes of one piece.
PIECE: Final = 64 * 1024
# What a body may unpack to: text reaches 1:20, tables of numbers 1:100 (deflate's most is 1:1032, as bombs have it) ...
RATIO: Final = 200
# ... beyond this, which is for short ones,
FREE: Final = 1 << 20
# ... and in all.
UNPACKED: Final = 1 << 30
# What zlib keeps of a stream: its window of 32 KiB, and its tables.
STATE: Final = 48 * 1024
# zlib copies what is left behind a member of a gzip file: not more than this at a time.
_INPUT: Final = 4096

_GZIP: Final = frozenset((b"gzip", b"x-gzip"))
IDENTITY: Final = b"identity"


class Unpacker:
    """Undoes one coding of one body. ParseError ``body_coding`` where it is none, ``body_bomb`` beyond the bounds."""

    def __init__(self, coding: bytes) -> None:
        self._gzip = coding in _GZIP
        self._identity = coding == IDENTITY
        self._inflater = zlib.decompressobj(31) if self._gzip else None
        self._first = b""
        self._in = self._out = 0

    @property
    def kept(self) -> int:
        """Bytes retained at most."""
        return 0 if self._identity else STATE

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes unpack to, piece by piece."""
        if self._identity:
            for at in range(0, len(data), PIECE):
                yield data[at : at + PIECE]
            return
        for at in range(0, len(data), _INPUT):
            yield from self._inflate(data[at : at + _INPUT])

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            # RFC 9110 §8.4.1.2 means zlib's format (RFC 1950); some servers send bare deflate (RFC 1951).
            data = self._first + data
            if data and data[0] & 0x0F == 8 and len(data) < 2:
                self._first = data
                return
            wrapped = len(data) > 1 and data[0] & 0x0F == 8 and not int.from_bytes(data[:2], "big") % 31
            self._inflater = zlib.decompressobj(15 if wrapped else -15)
        while True:
            if self._inflater.eof and data:
                # gzip files may have several members (RFC 1952 §2.2); what else comes behind the end is a second body.
                if not self._gzip:
                    raise ParseError("body_coding")
                self._inflater = zlib.decompressobj(31)
            try:
                piece = self._inflater.decompress(data, PIECE)
            except zlib.error:
                raise ParseError("body_coding") from None
            left = self._inflater.unconsumed_tail or self._inflater.unused_data
            self._in += len(data) - len(left)
            self._out += len(piece)
            if self._out > min(UNPACKED, FREE + RATIO * self._in):
                raise ParseError("body_bomb")
            if piece:
                yield piece
            # A whole piece may not be all that zlib has by now, though it has read everything.
            if not left and len(piece) < PIECE:
                return
            data = left


def unpacker(coding: bytes) -> Unpacker | None:
    """For a coding as `parsers.http.encoding` tells it; None where nobody here can undo it."""
    return Unpacker(coding) if coding in {IDENTITY, b"deflate"} | _GZIP else None
