"""Verdicts and ends that the kernel half reports, as records."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from fastpath import abi
from fastpath.libbpf import RingBuffer
from fastpath.loader.pins import Pins
from slowpath.record import Record
from slowpath.record.model import RuleName, clock_offset, event_record

_SIZE = ctypes.sizeof(abi.Event)


class Events:
    """The only consumer of the `events` ring."""

    def __init__(
        self, pins: Pins, names: RuleName, write: Callable[[Record], None], ended: Callable[[int], None]
    ) -> None:
        """`ended` is told the id of every session that is over."""
        self._names = names
        self._write = write
        self._ended = ended
        self._offset = clock_offset()
        self.received = 0
        self.unreadable = 0
        self._ring = RingBuffer(pins.map("events"), self._receive)

    @property
    def fd(self) -> int:
        """Readable when events wait."""
        return self._ring.fd

    def consume(self) -> None:
        """Turn what waits into records."""
        self._ring.consume()

    def set_clock(self) -> None:
        """The host's clock may have been set since."""
        self._offset = clock_offset()

    def close(self) -> None:
        """Stop; what waits stays for the next consumer."""
        self._ring.close()

    def _receive(self, address: int, size: int) -> None:
        if size != _SIZE:
            self.unreadable += 1
            return
        event = abi.Event.from_buffer_copy(ctypes.string_at(address, size))
        self.received += 1
        try:
            record = event_record(event, self._names, self._offset)
        except (KeyError, ValueError):
            self.unreadable += 1
            return
        self._write(record)
        if event.kind == abi.EventKind.END:
            self._ended(event.session.id)
