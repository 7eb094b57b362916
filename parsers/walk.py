"""For parsers of nested lengths: a generator walks through the messages of one direction and yields what it wants,
a number of bytes, or bytes up to a delimiter; what it passes over is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, TypeVar

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Parser

T = TypeVar("T")
# Wanted: so many bytes; so many less than 0: not to be kept; up to a delimiter, which is cut off.
Steps = Generator[int | bytes, bytes, T]

# Delimited texts are names, unless a parser says how long they may be.
_NAME: Final = 4096
# No connection has more bytes.
_ALL: Final = 1 << 62


class Walk:
    """The bytes of one direction, or of one compressed message, and the generator that walks through them."""

    __slots__ = ("_buffer", "_longest", "_scanned", "_skip", "_steps", "_want", "begin", "done", "judging", "offset")

    def __init__(self, steps: Callable[[Walk], Steps[None]], longest: int = _NAME) -> None:
        self._buffer = bytearray()
        self._longest = longest
        self._scanned = 0
        self._skip = 0
        self.offset = 0  # of what the generator gets next
        self.begin = 0
        self.judging = True
        self.done = False
        self._steps = steps(self)
        self._want: int | bytes = next(self._steps)

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return len(self._buffer)

    @property
    def pending(self) -> bool:
        """A message has begun and its unit is not told."""
        return self.judging and self.incomplete

    @property
    def incomplete(self) -> bool:
        """A message, its body included, has begun and not ended."""
        return self.offset + len(self._buffer) > self.begin

    def message(self) -> None:
        """A message begins here."""
        self.begin = self.offset
        self.judging = True

    def inside(self, size: int, end: int) -> int:
        """Where `size` bytes from here end, which is not behind `end`."""
        if not 0 <= size <= end - self.offset:
            raise ParseError("length")
        return self.offset + size

    def gap(self, size: int) -> None:
        """Missing bytes; they may be those that are passed over."""
        if size > self._skip:
            raise ParseError("gap", self.offset)
        self._skip -= size
        self.offset += size
        if not self._skip:
            self._next(b"")

    def feed(self, data: bytes) -> None:
        """Go on as far as the bytes do."""
        skip = self._skip
        if skip:
            size = min(skip, len(data))
            self._skip = skip - size
            self.offset += size
            if self._skip:
                return
            data = data[size:]
            self._next(b"")
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while not self.done:
                want = self._want
                if isinstance(want, bytes):
                    end = buffer.find(want, at + self._scanned, at + self._longest)
                    if end < 0:
                        if len(buffer) - at >= self._longest:
                            raise ParseError("too_long")
                        self._scanned = len(buffer) - at
                        break
                    piece = bytes(buffer[at:end])
                    self._scanned = 0
                    self.offset += end + 1 - at
                    at = end + 1
                elif want >= 0:
                    end = at + want
                    if end > len(buffer):
                        break
                    piece = bytes(buffer[at:end])
                    self.offset += want
                    at = end
                else:
                    piece = b""
                    end = at - want
                    if end > len(buffer):
                        self._skip = end - len(buffer)
                        self.offset += len(buffer) - at
                        at = len(buffer)
                        break
                    self.offset -= want
                    at = end
                self._next(piece)
        finally:
            del buffer[:at]

    def _next(self, piece: bytes) -> None:
        try:
            self._want = self._steps.send(piece)
        except StopIteration:
            self.done = True


class WalkParser(Parser):
    """Of a connection whose units go to the server. Delimited texts are up to `longest` bytes long."""

    def __init__(self, longest: int = _NAME) -> None:
        self._events: list[Event] = []
        self._walks = {TO_SERVER: Walk(self._requests, longest), TO_CLIENT: Walk(self._answers, longest)}

    def _requests(self, walk: Walk) -> Steps[None]:
        """Walk through what the client says, and append to `_events`."""
        raise NotImplementedError

    def _answers(self, walk: Walk) -> Steps[None]:
        """Walk through what the server says; it is not looked at where that is not said."""
        del walk
        while True:
            yield -_ALL

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return sum(walk.buffered for walk in self._walks.values())

    def pending(self, direction: int) -> bool:
        """A request is incomplete that is not told."""
        return direction == TO_SERVER and self._walks[TO_SERVER].pending

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction."""
        self._events = []
        walk = self._walks[direction]
        try:
            walk.feed(data)
        except ParseError as error:
            raise ParseError(error.code, walk.offset, self._events) from None
        return self._events

    def gap(self, direction: int, size: int) -> list[Event]:
        """Bytes that are passed over may be missing."""
        self._events = []
        self._walks[direction].gap(size)
        return self._events
