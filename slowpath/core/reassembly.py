"""One direction of a TCP connection, in order.

Offsets are unwrapped: byte 0 is the first behind the initial sequence number. What
has been delivered and is not acknowledged by the receiver is remembered (bounded): a
retransmission that differs there would give two readings of the stream, and one that
can't be compared any more is refused.
"""

from __future__ import annotations

from bisect import insort
from enum import IntEnum
from typing import Final

MASK: Final = 0xFFFFFFFF
HALF: Final = 0x80000000

# What a sender may have in flight behind a loss before it hears of it: four super-packets of 64 KiB.
QUEUE_BYTES: Final = 256 * 1024
# Segments of one byte each would make the queue's bookkeeping the larger part.
QUEUE_SEGMENTS: Final = 256
# Delivered, and no acknowledgement seen (those without payload don't come this way).
HISTORY_BYTES: Final = 256 * 1024


class Arrival(IntEnum):
    """What a segment is to the stream."""

    NEW = 0  # delivered, maybe with queued bytes behind it
    AHEAD = 1  # queued
    OLD = 2  # nothing new; its bytes are delivered, or queued
    CONFLICT = 3  # differs from bytes known for its place
    LIMIT = 4  # does not fit the queue, or is for a place that is forgotten and not acknowledged


NEW, AHEAD, OLD, CONFLICT, LIMIT = Arrival


class Stream:
    """Reassembles one direction."""

    __slots__ = ("_history", "_history_at", "_queue", "acknowledged", "next", "queued", "start")

    def __init__(self, start: int) -> None:
        self.start = start & MASK  # sequence number of offset 0
        self.next = 0
        self.acknowledged = 0
        self.queued = 0
        self._queue: list[tuple[int, bytes]] = []
        self._history = bytearray()
        self._history_at = 0

    def offset(self, seq: int) -> int:
        """Unwrapped offset of a sequence number, the one nearest to `next`."""
        delta = (seq - self.start - self.next) & MASK
        return self.next + (delta - (1 << 32) if delta >= HALF else delta)

    @property
    def retained(self) -> int:
        """Bytes kept."""
        return self.queued + len(self._history)

    @property
    def highest(self) -> int:
        """End of what was seen, queued bytes included."""
        if not self._queue:
            return self.next
        at, data = self._queue[-1]
        return max(self.next, at + len(data))

    def acknowledge(self, offset: int) -> None:
        """The receiver has everything below: other bytes for it change nothing any more."""
        if self.acknowledged < offset <= self.next:
            self.acknowledged = offset
            drop = offset - self._history_at
            if drop > 0:
                del self._history[:drop]
                self._history_at = offset

    def forget_queue(self) -> None:
        """What is queued is sent again, or never was."""
        self._queue.clear()
        self.queued = 0

    def push(self, at: int, data: bytes) -> tuple[Arrival, bytes]:
        """A segment; with NEW, the bytes that are now in order."""
        end = at + len(data)
        if at < self.next and not self._agrees(at, data):
            return CONFLICT, b""
        if self.acknowledged < self._history_at and at < self._history_at and end > self.acknowledged:
            return LIMIT, b""
        if end <= self.next:
            return OLD, b""
        if at > self.next:
            return self._ahead(at, end, data), b""
        fresh = data[self.next - at :]
        if self._queue:
            if not self._queue_agrees(at, data):
                return CONFLICT, b""
            fresh = self._take(fresh)
        self.next += len(fresh)
        self._remember(fresh)
        return NEW, fresh

    def _agrees(self, at: int, data: bytes) -> bool:
        low = max(at, self._history_at)
        high = min(at + len(data), self.next)
        if low >= high:
            return True
        return self._history[low - self._history_at : high - self._history_at] == data[low - at : high - at]

    def _queue_agrees(self, at: int, data: bytes) -> bool:
        end = at + len(data)
        for start, queued in self._queue:
            low, high = max(at, start), min(end, start + len(queued))
            if low < high and queued[low - start : high - start] != data[low - at : high - at]:
                return False
        return True

    def _ahead(self, at: int, end: int, data: bytes) -> Arrival:
        if not self._queue_agrees(at, data):
            return CONFLICT
        if end - self.next > QUEUE_BYTES or len(self._queue) >= QUEUE_SEGMENTS:
            return LIMIT
        # The queue never overlaps: only the parts of `data` between its entries are added.
        here = at
        parts: list[tuple[int, bytes]] = []
        for start, queued in self._queue:
            if here < start < end:
                parts.append((here, data[here - at : start - at]))
            if start < end:
                here = max(here, start + len(queued))
        if here < end:
            parts.append((here, data[here - at :]))
        for part in parts:
            insort(self._queue, part)
            self.queued += len(part[1])
        return AHEAD if parts else OLD

    def _take(self, fresh: bytes) -> bytes:
        """`fresh` and what the queue has behind it."""
        end = self.next + len(fresh)
        pieces = [fresh]
        used = 0
        for start, queued in self._queue:
            if start > end:
                break
            used += 1
            self.queued -= len(queued)
            if start + len(queued) > end:
                pieces.append(queued[end - start :])
                end = start + len(queued)
        del self._queue[:used]
        return b"".join(pieces)

    def _remember(self, fresh: bytes) -> None:
        self._history += fresh
        over = len(self._history) - HISTORY_BYTES
        if over > 0:
            del self._history[:over]
            self._history_at += over
