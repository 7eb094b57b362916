"""HTTP/2 (RFC 9113), both directions: a frame walker and one HPACK decoder a side.

Bodies are skipped, not kept, and streams remembered only where rules ask for what responses, bodies
or messages say. The parser follows what changes the meaning of later
bytes (SETTINGS, header blocks, CONTINUATION) and refuses what endpoints must refuse
where that matters to a decision; flow control is theirs. A stream's requests are told
from trailers by its number: a client's new streams have growing ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from parsers.base import (
    GRPC_FIELDS,
    HTTP_FIELDS,
    TO_CLIENT,
    TO_SERVER,
    Event,
    GoAway,
    ParseError,
    Preface,
    Request,
    Response,
    Said,
    Settings,
    StreamReset,
    Unit,
    Value,
)
from parsers.hpack_decoder import Decoder, HpackDecoder
from parsers.http import Body, Headers, HttpParser, remembered
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
        "waiting",
    )

    def __init__(self, direction: int, limits: Limits, decoder: Decoder) -> None:
        self.direction = direction
        self.buffer = bytearray()
        self.skip = 0
        # Of the DATA frame at hand, if its stream is remembered.
        self.data: _Stream | None = None
        self.padding = 0
        self.ends = 0
        self.waiting: set[int] = set()  # streams in which a message's prefix is incomplete
        self.offset = 0
        self.preface = True
        self.settled = False  # its first frame was SETTINGS
        self.size_limit = limits.frame
        self.decoder = decoder
        self.block: bytearray | None = None
        self.block_stream = 0
        self.block_kind = HEADERS
        self.block_ends = 0  # END_STREAM of its HEADERS
        self.promised = 0
        self.continuations = 0
        self.unacknowledged = 0
        self.empty = 0


class _Stream:
    """A request whose response, or something in either's body, is to be told."""

    __slots__ = ("answer", "bodies", "number", "open", "remembered", "request", "status")

    def __init__(self, request: Request, *, answers: bool) -> None:
        self.number = request.stream
        self.request = request
        self.answer: Said | None = None
        self.status = 0
        self.bodies: list[Body | None] = [None, None]  # by direction
        self.open = [True, answers]  # something to be told may come
        self.remembered = remembered(request)


class Http2Parser(HttpParser):
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
        self._last_stream = 1 if upgraded else 0
        self._requests = 0
        self._resets = 0
        self._priorities = 0
        self._streams: dict[int, _Stream] = {}
        self._remembered = 0
        self._upgraded = upgraded
        self._owed: dict[int, int] = {}  # bytes to come of a stream's body, where its head said how many
        if settings:
            self._apply(TO_SERVER, self._pairs(settings))

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return self._remembered + sum(len(side.buffer) + len(side.block or b"") for side in self._sides)

    def pending(self, direction: int) -> bool:
        """The client's preface, a frame header or a header block is incomplete; a message's prefix."""
        side = self._sides[direction]
        if side.waiting:
            return True
        if direction != TO_SERVER and not self._wanted.answers:
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
        if size > side.skip or side.data is not None:
            raise ParseError("gap", side.offset)
        side.skip -= size
        side.offset += size
        return []

    def _walk(self, side: _Side, data: bytes) -> None:
        if side.skip:
            size = min(side.skip, len(data))
            side.offset += size
            if side.data is not None:
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
                if kind == DATA and side.direction == TO_SERVER:
                    self._delivered(stream, size - length - padding, flags & END_STREAM)
                if kind == DATA and stream in self._streams:
                    at += _HEADER + length
                    side.data, side.skip = self._streams[stream], size - length
                    side.padding, side.ends = padding, flags & END_STREAM
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
        body = stream.bodies[side.direction]
        if side.direction == TO_CLIENT and stream.answer is None:
            raise ParseError("response")
        if body is not None:
            body.feed(data[: max(0, len(data) + min(0, side.skip - side.padding))], self._events)
            if body.pending:
                side.waiting.add(stream.number)
            else:
                side.waiting.discard(stream.number)
        if not side.skip:
            side.data = None
            if side.ends:
                self._ends(stream, side.direction)

    def _ends(self, stream: _Stream, direction: int) -> None:
        """The stream's direction has ended."""
        body = stream.bodies[direction]
        if body is not None:
            body.end()
        if direction == TO_CLIENT and stream.answer is not None and stream.open[TO_CLIENT]:
            told = "grpc.status" in stream.answer.fields or (body is not None and body.ended)
            if stream.request.is_call and not told and "grpc.status" in self.asked:
                self._events.append(self._ending(stream.answer, stream.status))
        stream.open[direction] = False
        if direction == TO_CLIENT and stream.bodies[TO_SERVER] is None:
            stream.open[TO_SERVER] = False
        if not any(stream.open):
            self._forget(stream.number)

    def _remember(self, request: Request, headers: Headers) -> None:
        self._forget(request.stream)
        stream = self._streams[request.stream] = _Stream(request, answers=self._wanted.answers)
        self._remembered += stream.remembered
        self._begins(stream, request, headers)

    def _begins(self, stream: _Stream, head: Unit, headers: Headers) -> None:
        """A body; what a tunnel carries is none."""
        if self._wanted.bodies and stream.request.method != b"CONNECT":
            body = stream.bodies[head.direction] = self._body(head, stream.request, headers, stream.status)
            if body is not None:
                stream.remembered += body.kept
                self._remembered += body.kept
        if len(self._streams) > self.limits.streams or self._remembered > self.limits.remembered:
            raise ParseError("streams")

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._remembered -= stream.remembered
        for side in self._sides:
            side.waiting.discard(number)
            if side.data is stream:
                side.data = None

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

    def _delivered(self, stream: int, size: int, end: int) -> None:
        """RFC 9113 §8.1.1: as long as its head said; written down as HTTP/1, the rest would be a request."""
        left = self._owed.get(stream)
        if left is None:
            return
        left -= size
        if left < 0 or (end and left):
            raise ParseError("content_length")
        if end:
            del self._owed[stream]
        else:
            self._owed[stream] = left

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
            self._owed.pop(stream, None)
            self._events.append(StreamReset(side.direction, stream, int.from_bytes(payload, "big")))
            self._forget(stream)
        elif kind == GOAWAY:
            if len(payload) < 8:
                raise ParseError("frame_size")
            self._events.append(GoAway(side.direction, int.from_bytes(payload[4:8], "big")))
        else:
            self._priorities += 1
            if self._priorities > self.limits.priorities + 100 * self._requests:
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
        side.block_ends = flags & END_STREAM
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
            if self._wanted.answers:
                # Its response comes without having been asked for.
                self._remember(self._read(side.promised, headers), ())
                self._streams[side.promised].open[TO_SERVER] = False
            return
        stream = side.block_stream
        if side.direction == TO_CLIENT:
            self._response(stream, headers)
        elif stream > self._last_stream:
            if not stream & 1:
                raise ParseError("stream_even")
            self._last_stream = stream
            self._requests += 1
            request = self._read(stream, headers)
            lengths = [value for name, value in headers if name == b"content-length"]
            if lengths:
                self._announced(stream, lengths, side.block_ends)
            self._events.append(request)
            if self._wanted.answers or self._wanted.bodies:
                self._remember(request, headers)
        else:
            if not side.block_ends or not all(_NAME.fullmatch(n) and n not in _CONNECTION for n, _ in headers):
                raise ParseError("trailers")
            self._delivered(stream, 0, side.block_ends)
        if side.block_ends and stream in self._streams:
            self._ends(self._streams[stream], side.direction)

    def _read(self, stream: int, headers: Headers) -> Request:
        pseudo: dict[bytes, bytes] = {}
        hosts: list[bytes] = []
        kind = b""
        regular = False
        for name, value in headers:
            if name.startswith(b":"):
                if regular or name in pseudo or name not in _PSEUDO:
                    raise ParseError("pseudo_header")
                pseudo[name] = value
            else:
                regular = True
                if not _NAME.fullmatch(name):
                    raise ParseError("header_name")
                if name == b"host":
                    hosts.append(value)
                elif name == b"content-type":
                    kind = kind or value
                elif name in _CONNECTION or (name == b"te" and value.lower() != b"trailers"):
                    raise ParseError("connection_header")
            if not _FORBIDDEN.isdisjoint(value) or value != value.strip(b" \t"):
                raise ParseError("header_value")
        method = pseudo.get(b":method", b"")
        path = pseudo.get(b":path", b"")
        plain_connect = method == b"CONNECT" and b":protocol" not in pseudo
        if not method or plain_connect in {b":path" in pseudo, b":scheme" in pseudo}:
            raise ParseError("pseudo_header")
        if not plain_connect and not path.startswith(b"/") and path != b"*":
            raise ParseError("path")
        # Written down as HTTP/1 they would end the request line (RFC 9113 §10.3).
        if not _TOKEN.fullmatch(method) or _PATH_FORBIDDEN.search(path):
            raise ParseError("request_line")
        if not _SCHEME.fullmatch(pseudo.get(b":scheme", b"http")):
            raise ParseError("scheme")
        authority = pseudo.get(b":authority")
        hosts += [authority] if authority is not None else []
        if len(hosts) > 2 or (len(hosts) == 2 and hosts[0].lower() != hosts[1].lower()):
            raise ParseError("host_differs")
        if len(hosts) == 2 and authority is None:
            raise ParseError("host_twice")
        host = hosts[0] if hosts else b""
        if not _HOST_FORBIDDEN.isdisjoint(host):
            raise ParseError("host")
        said: Mapping[str, Value] | None = None
        protocol = pseudo.get(b":protocol", b"")
        if self._wanted.of_requests:
            target = host if plain_connect else path
            said = self._said(target, b"2", _regular(headers), [protocol] if protocol else [])
        return Request(method, path, host, kind, stream, pseudo.get(b":scheme", b""), protocol, said)

    def _announced(self, stream: int, lengths: list[bytes], ends: int) -> None:
        if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
            raise ParseError("content_length")
        self._owed[stream] = int(lengths[0])
        if len(self._owed) > self.limits.bodies:
            raise ParseError("open_bodies")
        self._delivered(stream, 0, ends)

    def _response(self, stream: int, headers: list[tuple[bytes, bytes]]) -> None:
        status = 0
        grpc_status = b""
        for name, value in headers:
            if name == b":status":
                if len(value) != 3 or not value.isdigit():
                    raise ParseError("status")
                status = int(value)
            elif name == b"grpc-status":
                grpc_status = value
        self._resets = max(0, self._resets - 1)
        self._events.append(Response(status, stream, grpc_status))
        if stream == 1 and self._upgraded is not None and self._wanted.answers:
            self._remember(replace(self._upgraded, stream=1), ())
            self._streams[1].open[TO_SERVER] = False
            self._upgraded = None
        if stream in self._streams:
            self._told(self._streams[stream], status, _regular(headers))

    def _told(self, stream: _Stream, status: int, headers: Headers) -> None:
        """A response, an interim one before it, or its trailers."""
        if bool(status) == (stream.answer is not None):
            raise ParseError("status" if status else "trailers")
        if stream.answer is not None:
            answer = self._ending(stream.answer, stream.status, headers)
            stream.answer = answer
        else:
            answer = self._answer(stream.request, status, headers)
            if status >= 200:
                stream.answer, stream.status = answer, status
                self._begins(stream, answer, headers)
        if self._wanted.responses:
            self._events.append(answer)


def _regular(headers: Headers) -> Headers:
    """Without pseudo headers, and a cookie's pieces put together (RFC 9113 §8.2.3)."""
    regular = [header for header in headers if not header[0].startswith(b":") and header[0] != b"cookie"]
    crumbs = [value for name, value in headers if name == b"cookie"]
    return [*regular, (b"cookie", b"; ".join(crumbs))] if crumbs else regular


_PSEUDO: Final = frozenset((b":method", b":path", b":scheme", b":authority", b":protocol"))
_CONNECTION: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
# RFC 9113 §8.2.1, RFC 9110 §5.6.2
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*")
_PATH_FORBIDDEN: Final = re.compile(rb"[\x00-\x20\x7f]")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_FORBIDDEN: Final = frozenset(b"\0\r\n")
_HOST_FORBIDDEN: Final = frozenset(b" \t,@/\\?#") | frozenset(range(0x20)) | {0x7F}
