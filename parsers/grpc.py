"""Messages of gRPC calls, and of gRPC-Web (grpc/doc/PROTOCOL-HTTP2.md and PROTOCOL-WEB.md): their prefixes are read,
themselves skipped.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Final

from parsers.base import ParseError

_PREFIX: Final = 5
_COMPRESSED: Final = 0x01
_TRAILERS: Final = 0x80
# Trailers of gRPC-Web in a body: what gRPC's implementations take of headers.
_MOST: Final = 16 * 1024
_PADDED: Final = re.compile(rb"(?<==)(?!=)")

UNKNOWN: Final = 2
# grpc/doc/http-grpc-status-mapping.md: what a response without a status of its own is taken for; any other: UNKNOWN.
_BY_HTTP: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 431: 13, 502: 14, 503: 14, 504: 14}


@dataclass(frozen=True, slots=True)
class Message:
    """The prefix of a message. `trailers`: it has none, these are a response's, in its body."""

    size: int
    compressed: bool
    trailers: bytes | None = None


class Messages:
    """Of one direction of a call. ParseError ``grpc_message``."""

    def __init__(self, *, web: bool = False, text: bool = False) -> None:
        self._web = web
        self._text = text
        self._characters = b""  # less than what stands for three bytes
        self._head = bytearray()
        self._left = 0
        self._trailers: bytearray | None = None
        self._done = False

    @property
    def pending(self) -> bool:
        """A prefix, or what is a message's by its trailers, is incomplete."""
        return bool(self._head or self._characters) or self._trailers is not None

    def feed(self, data: bytes) -> list[Message]:
        """Prefixes that are complete with these bytes, and trailers."""
        found: list[Message] = []
        if self._text:
            data = self._decoded(data)
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                if self._trailers is not None:
                    self._trailers += data[at : at + taken]
                self._left -= taken
                at += taken
            else:
                taken = min(_PREFIX - len(self._head), len(data) - at)
                self._head += data[at : at + taken]
                at += taken
                if len(self._head) == _PREFIX:
                    self._prefix(found)
            if not self._left and self._trailers is not None:
                found.append(Message(0, False, bytes(self._trailers)))
                self._trailers = None
                self._done = True
        return found

    def _prefix(self, found: list[Message]) -> None:
        flag, size = self._head[0], int.from_bytes(self._head[1:], "big")
        trailers = self._web and bool(flag & _TRAILERS)
        if self._done or flag & ~_COMPRESSED & ~(_TRAILERS if self._web else 0) or (trailers and size > _MOST):
            raise ParseError("grpc_message")
        self._head.clear()
        self._left = size
        if trailers:
            # Compressed ones say nothing here.
            self._trailers = bytearray()
        else:
            found.append(Message(size, bool(flag)))

    def _decoded(self, data: bytes) -> bytes:
        data = self._characters + data
        whole = len(data) & ~3
        data, self._characters = data[:whole], data[whole:]
        try:
            # Padding stands wherever the sender flushed.
            return b"".join(binascii.a2b_base64(part, strict_mode=True) for part in _PADDED.split(data))
        except binascii.Error:
            raise ParseError("grpc_message") from None

    def end(self) -> None:
        """The stream ends here."""
        if self._left or self.pending:
            raise ParseError("grpc_message")


def status_of(values: list[bytes], http: int) -> int:
    """Of a response's grpc-status, or where there is none of what its HTTP status stands for."""
    if not values:
        return _BY_HTTP.get(http, UNKNOWN)
    return int(values[0]) if values[0].isdigit() and len(values[0]) < 10 else UNKNOWN


def status_in(trailers: bytes, http: int) -> int:
    """Of the trailers in a body."""
    lines = [line.partition(b":") for line in trailers.split(b"\n")]
    return status_of([value.strip() for name, _, value in lines if name.strip().lower() == b"grpc-status"], http)
