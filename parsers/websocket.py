"""WebSocket (RFC 6455) behind the HTTP upgrade: messages of both directions.

A message is a unit when its last frame ends. Of a text message the first 4 KiB are kept, of all others nothing: a
direction is pending from the first byte of a message on, so what comes before its last byte may go on, kept or not,
and the last byte may not. Control frames are checked and say nothing. A message whose first frame has RSV1 set is
compressed (RFC 7692, permessage-deflate) and not read; other reserved bits have no meaning anyone has registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, Kind, ParseError, Said, Value
from parsers.stream import StreamParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # Bytes of a text that rules see.
    text: int = 4096
    # Of all frames of a message together. Servers take 1 MiB (websockets) to 100 MiB (ws); no byte of it is kept.
    message: int = 4 << 30


CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_FIN: Final = 0x80
_RSV1: Final = 0x40
_RSV23: Final = 0x30
_MASKED: Final = 0x80
_CONTROL_MAX: Final = 125
_KINDS: Final = {TEXT: b"text", BINARY: b"binary"}
# Sections 7.4.1 and 7.4.2, and IANA's registry: 1004 to 1006 and 1015 are never sent.
_CLOSE_CODES: Final = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))


class _Message:
    """What one direction is in the middle of."""

    __slots__ = ("closed", "compressed", "control", "final", "key", "kind", "left", "size", "text")

    def __init__(self) -> None:
        self.kind = b""  # none has begun
        self.compressed = False
        self.size = 0
        self.text = bytearray()
        self.final = False  # of the frame that is being read
        self.control = False
        self.key = b""
        self.left = 0  # bytes of it to be kept or counted
        self.closed = False


class WebSocketParser(StreamParser):
    """One connection behind its upgrade; see `parsers.base.Parser`."""

    name = "websocket"
    fields = (
        Field("websocket.kind", "text or binary"),
        Field("websocket.text", "first 4 KiB of a text message; missing when it is compressed"),
        Field("websocket.size", "bytes of the message as sent, without frame headers", Kind.NUMBER),
    )
    judged = (TO_SERVER, TO_CLIENT)

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()
        self._messages = (_Message(), _Message())

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return super().buffered + sum(len(message.text) for message in self._messages)

    def pending(self, direction: int) -> bool:
        """A message has begun and not ended, or a frame's header is incomplete."""
        return bool(self._messages[direction].kind) or super().pending(direction)

    def _read(self, direction: int, data: bytes, at: int) -> int:
        message = self._messages[direction]
        if message.left:
            return self._keep(direction, data, at)
        if len(data) - at < 2:
            return self._wait(direction, 2)
        first, second = data[at], data[at + 1]
        self._check(direction, first, second)
        size = second & 0x7F
        wide = 2 if size == 126 else 8 if size == 127 else 0
        end = at + 2 + wide + 4 * (direction == TO_SERVER)
        if len(data) < end:
            return self._wait(direction, end - at)
        if wide:
            size = int.from_bytes(data[at + 2 : at + 2 + wide], "big")
            if size < (126 if wide == 2 else 65536):
                raise ParseError("length")
        opcode = first & 0xF
        if opcode == CLOSE:
            end = self._close(direction, data, at, end, size)
            size = max(size - 2, 0)
            if not end:
                return 0
        message.control = opcode >= CLOSE
        if message.control:
            self._skip[direction] = size
            return end
        if opcode != CONTINUATION:
            message.kind = _KINDS[opcode]
            message.compressed = bool(first & _RSV1)
        message.size += size
        if message.size > self.limits.message:
            raise ParseError("message_too_long")
        message.final = first >= _FIN
        message.key = data[end - 4 : end] if direction == TO_SERVER else b""
        if not size:
            self._skipped(direction)
        elif self._keeps(message):
            message.left = size
        else:
            self._skip[direction] = size
        return end

    def _check(self, direction: int, first: int, second: int) -> None:
        """The two bytes that every frame has."""
        message = self._messages[direction]
        opcode = first & 0xF
        if message.closed:
            raise ParseError("after_close")
        # Section 5.1.
        if (second >= _MASKED) != (direction == TO_SERVER):
            raise ParseError("not_masked" if direction == TO_SERVER else "masked")
        if opcode not in {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}:
            raise ParseError("opcode")
        if first & _RSV23 or (first & _RSV1 and opcode not in _KINDS):
            raise ParseError("reserved_bit")
        if opcode >= CLOSE:
            if first < _FIN or second & 0x7F > _CONTROL_MAX:
                raise ParseError("control_frame")
        elif (opcode == CONTINUATION) != bool(message.kind):
            raise ParseError("continuation")

    def _close(self, direction: int, data: bytes, at: int, end: int, size: int) -> int:
        """Behind the code of a close frame whose header ends at `end`."""
        if size:
            if size == 1:
                raise ParseError("close_code")
            if len(data) < end + 2:
                return self._wait(direction, end + 2 - at)
            code = data[end : end + 2]
            if direction == TO_SERVER:
                code = _unmasked(code, data[end - 4 : end])
            if int.from_bytes(code, "big") not in _CLOSE_CODES:
                raise ParseError("close_code")
            end += 2
        self._messages[direction].closed = True
        return end

    def _keeps(self, message: _Message) -> bool:
        return message.kind == b"text" and not message.compressed and len(message.text) < self.limits.text

    def _keep(self, direction: int, data: bytes, at: int) -> int:
        message = self._messages[direction]
        end = at + min(message.left, self.limits.text - len(message.text), len(data) - at)
        piece = data[at:end]
        if message.key:
            piece = _unmasked(piece, message.key)
            turn = (end - at) % 4
            message.key = message.key[turn:] + message.key[:turn]
        message.text += piece
        message.left -= end - at
        if not message.left:
            self._skipped(direction)
        elif not self._keeps(message):
            self._skip[direction], message.left = message.left, 0
        return end

    def _skipped(self, direction: int) -> None:
        """A frame has ended."""
        message = self._messages[direction]
        if message.control or not message.final:
            return
        said: dict[str, Value] = {"websocket.kind": message.kind, "websocket.size": message.size}
        if message.kind == b"text" and not message.compressed:
            said["websocket.text"] = bytes(message.text)
        message.kind = b""
        message.size = 0
        message.text.clear()
        self._events.append(Said(self.name, said, direction))


def _unmasked(data: bytes, key: bytes) -> bytes:
    """Section 5.3."""
    size = len(data)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
