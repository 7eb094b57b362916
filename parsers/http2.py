"""HTTP/2 (RFC 9113), both directions: a frame walker and one HPACK decoder a side.

Bodies are skipped, not kept, and streams remembered only where rules ask for what responses, bodies
or messages say (`http2_streams`). The parser follows what changes the meaning of later
bytes (SETTINGS, header blocks, CONTINUATION) and refuses what endpoints must refuse
where that matters to a decision; flow control is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from parsers.base import (
    GRPC_FIELDS,
    HTTP_FIELDS,
    TO_CLIENT,
    TO_SERVER,
    Event,
    GoAway,
    ParseError,
    Parser,
    Preface,
    Request,
    Settings,
    StreamReset,
)
from parsers.hpack_decoder import Decoder, HpackDecoder
from parsers.http2_streams import Stream, Streams
from parsers.identify import H2_PREFACE


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # RFC 9113 §4.2: 16,384 until the receiver allows more; the format's own bound is 2^24-1. Larger frames than
    # the block cap are walked without being kept, so the setting costs no memory.
    frame: int = 16384
    # One header block, compressed: 64 KiB, four default frames.
    block: int = 64 * 1024
    # h2's CONTINUATION_BACKLOG; real peers need none or one (CVE-2024-27316 sends thousands).
    continuations: int = 64
    # Decoded header list as RFC 7541 counts it (length + 32 a field): what Envoy and nginx take, 60 to 64 KiB.
    header_list: int = 64 * 1024
    # Dynamic table of either side, whatever the peer allows: 16 times the default 4,096.
    table: int = 64 * 1024
    # Streams reset, less responses begun (CVE-2023-44487, CVE-2025-8671 open and reset thousands a second).
    resets: int = 200
    # SETTINGS and PING that wait for their acknowledgement (CVE-2019-9512, CVE-2019-9515).
    unacknowledged: int = 100
    # PRIORITY frames beyond 100 a request (CVE-2019-9513).
    priorities: int = 1000
    # Empty DATA frames in a row without END_STREAM (CVE-2019-9518).
    empty: int = 100
    # Requests under way that say how long their body is; servers allow 100 to 250 streams at a time.
    bodies: int = 1000
    # Streams that are open at a time, where they are remembered: servers allow 100 to 1,000.
    streams: int = 2048
    # Bytes that are remembered of them: 1 KiB each, and what zlib needs for 128 bodies.
    remembered: int = 8 << 20


DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

SETTING_TABLE_SIZE: Final = 1
# gRPC's C core: who says 1 takes binary metadata as it is, behind a NUL, and not in base64.
SETTING_GRPC_BINARY: Final = 0xFE03
SETTING_MAX_FRAME: Final = 5

_HEADER: Final = 9
_FIXED: Final = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
# Types whose payload is read; of all others only the header.
_READ: Final = frozenset((HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION, PRIORITY))


class _Side:
    """What one side has sent, and what its peer allows it."""

    __slots__ = (
        "block",
        "block_ends",
        "block_kind",
        "block_stream",
        "buffer",
        "continuations",
        "data",
        "decoder",
        "direction",
        "empty",
        "ends",
        "offset",
        "padding",
        "preface",
        "promised",
        "settled",
        "size_limit",
        "skip",
        "unacknowledged",
    )

    def __init__(self, direction: int, limits: Limits, decoder: Decoder) -> None:
        self.direction = direction
        self.buffer = bytearray()
        self.skip = 0
        # Of the DATA frame at hand, if its stream is remembered.
        self.data: Stream | None = None
        self.padding = 0
        self.ends = False
        self.offset = 0
        self.preface = True
        self.settled = False  # its first frame was SETTINGS
        self.size_limit = limits.frame
        self.decoder = decoder
        self.block: bytearray | None = None
        self.block_stream = 0
        self.block_kind = HEADERS
        self.block_ends = False  # END_STREAM of its HEADERS
        self.promised = 0
        self.continuations = 0
        self.unacknowledged = 0
        self.empty = 0


class Http2Parser(Parser):
    """One connection; see `parsers.base.Parser`. After an h2c upgrade `upgraded` is the HTTP/1 request
    (stream 1, already judged) and `settings` the payload of its HTTP2-Settings.
    """

    name = "http2"
    fields = (*HTTP_FIELDS, *GRPC_FIELDS)

    def __init__(
        self,
        limits: Limits | None = None,
        upgraded: Request | None = None,
        settings: bytes = b"",
        decoder: Callable[[int], Decoder] = HpackDecoder,
    ) -> None:
        self.limits = limits = limits or Limits()
        self._sides = (
            _Side(TO_SERVER, limits, decoder(limits.header_list)),
            _Side(TO_CLIENT, limits, decoder(limits.header_list)),
        )
        self._sides[TO_SERVER].preface = False
        self._events: list[Event] = []
        self._streams = Streams(limits.bodies, limits.streams, limits.remembered, upgraded)
        self._resets = 0
        self._priorities = 0
        if settings:
            self._apply(TO_SERVER, self._pairs(settings))

    @property
    def asked(self) -> frozenset[str]:
        """See `Parser`."""
        return self._streams.asked

    @asked.setter
    def asked(self, names: frozenset[str]) -> None:
        self._streams.asked = names

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return self._streams.buffered + sum(len(side.buffer) + len(side.block or b"") for side in self._sides)

    def pending(self, direction: int) -> bool:
        """The client's preface, a frame header or a header block is incomplete; a message's prefix."""
        side = self._sides[direction]
        if self._streams.pending(direction):
            return True
        if direction != TO_SERVER and not self._streams.answers:
            return False
        if side.block is not None or not side.preface:
            return bool(side.block is not None or side.buffer)
        if not side.buffer:
            return False
        return len(side.buffer) < 4 or side.buffer[3] in {HEADERS, CONTINUATION} or bool(self._streams)

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction."""
        self._events = []
        side = self._sides[direction]
        try:
            self._walk(side, data)
        except ParseError as error:
            raise ParseError(error.code, side.offset, self._events) from None
        return self._events

    def gap(self, direction: int, size: int) -> list[Event]:
        """Only a body's bytes may be missing; the dynamic table is lost with any other."""
        side = self._sides[direction]
        if size > side.skip or (side.data is not None and not side.data.forgotten):
            raise ParseError("gap", side.offset)
        side.skip -= size
        side.offset += size
        return []

    def _walk(self, side: _Side, data: bytes) -> None:
        if side.skip:
            size = min(side.skip, len(data))
            side.offset += size
            if side.data is not None and not side.data.forgotten:
                self._data(side, data[:size])
            else:
                side.skip -= size
            data = data[size:]
        if not data:
            return
        buffer = side.buffer
        buffer += data
        at = 0
        try:
            if not side.preface:
                at = self._preface(side)
                if not at:
                    return
            while len(buffer) - at >= _HEADER:
                size = int.from_bytes(buffer[at : at + 3], "big")
                kind, flags = buffer[at + 3], buffer[at + 4]
                stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
                self._check(side, kind, flags, stream, size)
                if kind in _READ:
                    if len(buffer) - at - _HEADER < size:
                        break
                    payload = bytes(buffer[at + _HEADER : at + _HEADER + size])
                    at += _HEADER + size
                    self._frame(side, kind, flags, stream, payload)
                    continue
                length = 0  # bytes before the data: that of the padding's size
                padding = 0
                if kind == DATA and flags & PADDED:
                    if size and len(buffer) - at == _HEADER:
                        break
                    length, padding = 1, buffer[at + _HEADER] if size else 0
                    if length + padding > size:
                        raise ParseError("padding")
                self._count(side, kind, flags, size - length - padding)
                side.data = None
                if kind == DATA:
                    side.ends = flags & END_STREAM != 0
                    body = size - length - padding
                    side.data = self._streams.body_of(side.direction, stream, body, ends=side.ends)
                if side.data is not None:
                    at += _HEADER + length
                    side.skip, side.padding = size - length, padding
                    size = min(side.skip, len(buffer) - at)
                    at += size
                    self._data(side, bytes(buffer[at - size : at]))
                else:
                    at += _HEADER + size
                    if at > len(buffer):
                        side.skip = at - len(buffer)
                        side.offset -= side.skip
        finally:
            # del of a prefix is O(1) amortised, where slicing copies the rest each time
            side.offset += at
            del buffer[:at]

    def _data(self, side: _Side, data: bytes) -> None:
        """Bytes of a DATA frame, of a stream that is remembered."""
        stream = side.data
        assert stream is not None
        side.skip -= len(data)
        data = data[: max(0, len(data) + min(0, side.skip - side.padding))]
        self._streams.data(stream, side.direction, data, self._events)
        if not side.skip:
            side.data = None
            if side.ends:
                self._streams.ends(stream, side.direction, self._events)

    def _preface(self, side: _Side) -> int:
        size = len(H2_PREFACE)
        if not H2_PREFACE.startswith(side.buffer[:size]):
            raise ParseError("preface")
        if len(side.buffer) < size:
            return 0
        side.preface = True
        self._events.append(Preface())
        return size

    def _check(self, side: _Side, kind: int, flags: int, stream: int, size: int) -> None:
        """Refuse a frame by its header."""
        if size > side.size_limit or (kind in _READ and size > self.limits.block):
            raise ParseError("frame_size")
        if not side.settled and (kind != SETTINGS or flags & ACK):
            raise ParseError("settings_first")
        if (side.block is None) == (kind == CONTINUATION) or (side.block is not None and stream != side.block_stream):
            raise ParseError("continuation")
        if kind in _FIXED and size != _FIXED[kind]:
            raise ParseError("frame_size")
        if kind in {DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION}:
            if not stream:
                raise ParseError("stream_zero")
        elif kind in {SETTINGS, PING, GOAWAY} and stream:
            raise ParseError("stream_not_zero")
        if kind == PUSH_PROMISE and side.direction == TO_SERVER:
            raise ParseError("client_push")

    def _count(self, side: _Side, kind: int, flags: int, size: int) -> None:
        """Frames that are not read, for their floods."""
        if kind == DATA:
            side.empty = 0 if size or flags & END_STREAM else side.empty + 1
            if side.empty > self.limits.empty:
                raise ParseError("empty_flood")
        elif kind == PING:
            self._acknowledge(side, flags & ACK)

    def _acknowledge(self, side: _Side, ack: int) -> None:
        if ack:
            peer = self._sides[1 - side.direction]
            peer.unacknowledged = max(0, peer.unacknowledged - 1)
            return
        side.unacknowledged += 1
        if side.unacknowledged > self.limits.unacknowledged:
            raise ParseError("control_flood")

    def _frame(self, side: _Side, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in {HEADERS, PUSH_PROMISE}:
            self._headers(side, kind, flags, stream, payload)
        elif kind == CONTINUATION:
            side.continuations += 1
            if side.continuations > self.limits.continuations:
                raise ParseError("continuation_flood")
            self._append(side, payload)
            if flags & END_HEADERS:
                self._block(side)
        elif kind == SETTINGS:
            self._settings(side, flags, payload)
        elif kind == RST_STREAM:
            self._resets += 1
            if self._resets > self.limits.resets:
                raise ParseError("rapid_reset")
            self._events.append(StreamReset(side.direction, stream, int.from_bytes(payload, "big")))
            self._streams.reset(stream)
        elif kind == GOAWAY:
            if len(payload) < 8:
                raise ParseError("frame_size")
            self._events.append(GoAway(side.direction, int.from_bytes(payload[4:8], "big")))
        else:
            self._priorities += 1
            if self._priorities > self.limits.priorities + 100 * self._streams.requests:
                raise ParseError("priority_flood")

    def _settings(self, side: _Side, flags: int, payload: bytes) -> None:
        side.settled = True
        self._acknowledge(side, flags & ACK)
        if flags & ACK:
            if payload:
                raise ParseError("frame_size")
            return
        pairs = self._pairs(payload)
        self._apply(side.direction, pairs)
        self._events.append(Settings(side.direction, pairs))

    @staticmethod
    def _pairs(payload: bytes) -> tuple[tuple[int, int], ...]:
        if len(payload) % 6:
            raise ParseError("frame_size")
        return tuple(
            (int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
            for at in range(0, len(payload), 6)
        )

    def _apply(self, direction: int, pairs: Iterable[tuple[int, int]]) -> None:
        """One side's settings bind what its peer sends. A lower value takes effect when the peer has seen it,
        which the middle cannot know: the highest is what is enforced.
        """
        peer = self._sides[1 - direction]
        for setting, value in pairs:
            if setting == SETTING_MAX_FRAME:
                if not 16384 <= value < 1 << 24:
                    raise ParseError("setting")
                peer.size_limit = max(peer.size_limit, value)
            elif setting == SETTING_TABLE_SIZE:
                peer.decoder.allow(min(value, self.limits.table))
            elif setting == SETTING_GRPC_BINARY and direction == TO_CLIENT and value == 1:
                self._streams.raw_binary = True

    def _headers(self, side: _Side, kind: int, flags: int, stream: int, payload: bytes) -> None:
        start, end = 0, len(payload)
        if flags & PADDED:
            if not payload:
                raise ParseError("padding")
            start, end = 1, end - payload[0]
        if kind == PUSH_PROMISE:
            start += 4
        elif flags & PRIORITY_FLAG:
            start += 5
        if start > end:
            raise ParseError("padding")
        side.block = bytearray()
        side.block_stream = stream
        side.block_ends = flags & END_STREAM != 0
        if kind == PUSH_PROMISE:
            side.promised = int.from_bytes(payload[start - 4 : start], "big") & 0x7FFFFFFF
        side.block_kind = kind
        side.continuations = 0
        self._append(side, payload[start:end])
        if flags & END_HEADERS:
            self._block(side)

    def _append(self, side: _Side, fragment: bytes) -> None:
        assert side.block is not None
        side.block += fragment
        if len(side.block) > self.limits.block:
            raise ParseError("block_size")

    def _block(self, side: _Side) -> None:
        assert side.block is not None
        block = bytes(side.block)
        side.block = None
        headers = side.decoder.decode(block)
        if side.block_kind == PUSH_PROMISE:
            self._streams.promised(side.promised, headers)
            return
        self._streams.headers(side.direction, side.block_stream, headers, ends=side.block_ends, events=self._events)
        if side.direction == TO_CLIENT:
            self._resets = max(0, self._resets - 1)
