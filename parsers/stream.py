"""What parsers of byte streams have in common: what is incomplete is kept, what is not read is counted."""

from __future__ import annotations

import abc
import re
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Parser, Switched

# To skip up to the end of the connection: no stream is that long.
FOREVER: Final = 1 << 62
_CONTROL: Final = re.compile(rb"[\x00\r]")


class StreamParser(Parser):
    """Calls `_read` at the beginning of each message. It answers with where the message ends, or keeps it: by `_wait`
    until it is longer, by `_hold` until the other side has answered.
    """

    # Directions whose messages are judged.
    judged: tuple[int, ...] = (TO_SERVER,)
    # Bytes kept by `_hold`: one initial window.
    held: int = 64 * 1024

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._rest = (bytearray(), bytearray())
        self._offset = [0, 0]  # of the first byte of the message, or of the first one not read
        self._skip = [0, 0]
        self._need = [0, 0]
        self._until = [b"", b""]
        self._holds = [False, False]
        self._reading = TO_SERVER
        self._switched = ""
        self._done = False

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return len(self._rest[TO_SERVER]) + len(self._rest[TO_CLIENT])

    def pending(self, direction: int) -> bool:
        """A message is incomplete."""
        return direction in self.judged and bool(self._rest[direction]) and not self._holds[direction]

    @property
    def blocked(self) -> bool:
        """Bytes wait for the other side's answer."""
        return (self._holds[TO_SERVER] and bool(self._rest[TO_SERVER])) or (
            self._holds[TO_CLIENT] and bool(self._rest[TO_CLIENT])
        )

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction."""
        self._events = []
        self._reading = direction
        try:
            if self._done and data:
                raise ParseError("after_switch")
            self._take(direction, data)
        except ParseError as error:
            raise ParseError(error.code, self._offset[self._reading] + error.offset, self._events) from None
        return self._events

    def gap(self, direction: int, size: int) -> list[Event]:
        """Inside what is skipped nothing is lost."""
        self._events = []
        if self._rest[direction] or self._done or size > self._skip[direction]:
            raise ParseError("gap", self._offset[direction] + len(self._rest[direction]))
        self._offset[direction] += size
        self._pass(direction, size)
        return self._events

    @abc.abstractmethod
    def _read(self, direction: int, data: bytes, at: int) -> int:
        """Read the message that begins at `at`: where it ends, or 0 when it was told to `_wait` or `_hold`."""

    def _skipped(self, direction: int) -> None:
        """All that was to be skipped has been."""

    def _wait(self, direction: int, size: int, until: bytes = b"") -> int:
        """For `size` bytes of the message, or for `until` before that."""
        self._need[direction] = size
        self._until[direction] = until
        return 0

    def _line(self, direction: int, data: bytes, at: int, most: int) -> int:
        """Behind the CR LF of the line that begins at `at`. Where a line ends must not be a matter of opinion."""
        end = data.find(b"\n", at, at + most) + 1
        if not end:
            if len(data) - at >= most:
                raise ParseError("line_too_long", most)
            return self._wait(direction, most, b"\n")
        if end - at < 2 or data[end - 2] != 0x0D:
            raise ParseError("bare_lf", end - 1 - at)
        control = _CONTROL.search(data, at, end - 2)
        if control:
            raise ParseError("control", control.start() - at)
        return end

    def _hold(self, direction: int) -> int:
        """Until `_release`."""
        self._holds[direction] = True
        return self._wait(direction, 0)

    def _release(self, direction: int) -> None:
        """The other side has answered: read what was held, before anything else that was said."""
        if self._holds[direction]:
            self._holds[direction] = False
            reading, self._reading = self._reading, direction
            self._take(direction, b"")
            self._reading = reading

    def _switch(self, protocol: str) -> None:
        """What follows the message that is being read is another protocol."""
        self._switched = protocol

    def _pass(self, direction: int, size: int) -> None:
        if self._skip[direction] < FOREVER:
            self._skip[direction] -= size
            if not self._skip[direction]:
                self._skipped(direction)

    def _take(self, direction: int, data: bytes) -> None:
        rest = self._rest[direction]
        if self._holds[direction]:
            rest += data
            if len(rest) > self.held:
                raise ParseError("unanswered", self.held)
            return
        if rest:
            until = self._until[direction]
            short = len(rest) + len(data) < self._need[direction]
            if short and not (until and until in data):
                rest += data
                return
            data = bytes(rest) + data
            rest.clear()
        at = 0
        while at < len(data) and not self._switched:
            skip = self._skip[direction]
            if skip:
                end = at + min(skip, len(data) - at)
                self._pass(direction, end - at)
            else:
                end = self._read(direction, data, at)
                if not end:
                    break
            self._offset[direction] += end - at
            at = end
        rest += data[at:]
        if self._holds[direction] and len(rest) > self.held:
            raise ParseError("unanswered", self.held)
        if self._switched and not self._done:
            self._done = True
            left = [bytes(each) for each in self._rest]
            for each in self._rest:
                each.clear()
            self._events.append(Switched(self._switched, left[TO_SERVER], left[TO_CLIENT]))
