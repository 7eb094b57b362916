"""Responses of HTTP/1, framed (RFC 9112 §6.3): which answers which request, and where its body is."""

from __future__ import annotations

import enum
import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from parsers.base import ParseError, Request
from parsers.http import Headers, remembered, tokens_of, values_of

# Bytes of a body; most servers take a larger number for a negative one.
LENGTH_MAX: Final = 1 << 62
_CHUNK_LINE: Final = 1024
_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?((?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*)"
)
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_BODILESS: Final = frozenset((204, 304))


class _State(enum.Enum):
    HEAD = enum.auto()
    LENGTH = enum.auto()  # so many bytes of body
    CHUNK = enum.auto()
    DATA = enum.auto()  # so many bytes of a chunk
    BEHIND = enum.auto()  # the line end behind them
    TRAILER = enum.auto()
    CLOSE = enum.auto()  # body up to the end of the connection
    END = enum.auto()  # of a body
    SWITCHED = enum.auto()


@dataclass(frozen=True, slots=True)
class Head:
    """A response without its body. `last`: nothing else was asked that is not answered."""

    status: int
    headers: Headers
    method: bytes
    request: Request | None
    last: bool

    @property
    def switches(self) -> bool:
        """What comes behind it is no HTTP/1."""
        return self.status == 101 or (self.method == b"CONNECT" and 200 <= self.status < 300)

    @property
    def interim(self) -> bool:
        """The same request will be answered once more (RFC 9110 §15.2)."""
        return 100 <= self.status < 200 and self.status != 101


class Responses:
    """Of one connection. Where a server's bytes are no HTTP it is `lost` for good; `strict`: that is a ParseError."""

    def __init__(self, head: int, unanswered: int, kept: int) -> None:
        self._limits = head, unanswered, kept
        self._expected: deque[tuple[bytes, Request | None]] = deque()
        self._kept = 0
        self._buffer = bytearray()
        self._searched = 0
        self._state = _State.HEAD
        self._left = 0
        self.strict = False
        self.wanted = False  # the body at hand is to be told
        self.lost = False

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return len(self._buffer) + self._kept

    @property
    def pending(self) -> bool:
        """A head is incomplete."""
        return self._state == _State.HEAD and bool(self._buffer)

    def expect(self, method: bytes, request: Request | None) -> None:
        """A request was sent; `request` where its response is to be told with it."""
        if self.lost:
            return
        self._expected.append((method, request))
        self._kept += remembered(request) if request is not None else 0
        if len(self._expected) > self._limits[1] or self._kept > self._limits[2]:
            raise ParseError("unanswered")

    def feed(self, data: bytes) -> None:
        """The next bytes; `read` tells what they are."""
        if self.lost:
            self._lose()
            return
        if not self.wanted and not self._buffer:
            if self._state == _State.CLOSE:
                return
            if self._state == _State.LENGTH and len(data) < self._left:
                self._left -= len(data)
                return
        self._buffer += data

    def read(self) -> Head | bytes | None:
        """The next head, or of a body that is wanted the next bytes, none at its end; None: more is needed."""
        while not self.lost:
            state = self._state
            if state == _State.HEAD:
                return self._head()
            if state == _State.END:
                self._state = _State.HEAD
                if self.wanted:
                    self.wanted = False
                    return b""
            elif state == _State.SWITCHED or not self._buffer:
                return None
            elif state in {_State.LENGTH, _State.DATA, _State.CLOSE}:
                data = self._data(state)
                if self.wanted:
                    return data
            elif not self._line(state):
                return None
        return None

    def rest(self) -> bytes:
        """What came behind a switch."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def close(self) -> bool:
        """The server has sent its last byte; whether that ends a body that is wanted."""
        ends, self.wanted = self.wanted and self._state == _State.CLOSE, False
        return ends

    def _lose(self) -> None:
        self.lost = True
        self._buffer.clear()
        self._expected.clear()
        self._kept = 0
        if self.strict:
            raise ParseError("response")

    def _data(self, state: _State) -> bytes:
        size = len(self._buffer) if state == _State.CLOSE else min(self._left, len(self._buffer))
        data = bytes(self._buffer[:size]) if self.wanted else b""
        del self._buffer[:size]
        if state != _State.CLOSE:
            self._left -= size
            if not self._left:
                self._state = _State.END if state == _State.LENGTH else _State.BEHIND
        return data

    def _line(self, state: _State) -> bool:
        """Chunks' frames (RFC 9112 §7.1); False: more is needed."""
        buffer = self._buffer
        if state == _State.TRAILER:
            end = -2 if buffer.startswith(b"\r\n") else buffer.find(b"\r\n\r\n")
            return self._cut(end + 4 if end != -1 else 0, self._limits[0], _State.END)
        if state == _State.BEHIND:
            if not b"\r\n".startswith(bytes(buffer[:2])):
                self._lose()
            return self._cut(2 if len(buffer) > 1 else 0, 2, _State.CHUNK)
        end = buffer.find(b"\r\n", 0, _CHUNK_LINE)
        found = _CHUNK.fullmatch(bytes(buffer[:end])) if end >= 0 else None
        if not self._cut(end + 2 if end >= 0 else 0, _CHUNK_LINE, _State.DATA):
            return False
        if found is None:
            self._lose()
            return False
        self._left = int(found[1], 16)
        self._state = _State.DATA if self._left else _State.TRAILER
        return True

    def _cut(self, size: int, most: int, state: _State) -> bool:
        """Done with the first bytes; 0: they are incomplete."""
        if size:
            del self._buffer[:size]
            self._state = state
        elif len(self._buffer) > most:
            self._lose()
        return size > 0

    def _head(self) -> Head | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._searched = max(0, len(buffer) - 3)
            if not b"HTTP/1.".startswith(bytes(buffer[:7])) or len(buffer) > self._limits[0]:
                self._lose()
            return None
        self._searched = 0
        found = _HEAD.fullmatch(buffer, 0, end)
        if found is None or not self._expected:
            self._lose()
            return None
        old, status = found[1] == b"0", int(found[2])
        lines = [line.partition(b":") for line in found[3].split(b"\r\n")[1:]]
        headers = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
        del buffer[: end + 4]
        method, request = self._expected[0]
        head = Head(status, headers, method, request, len(self._expected) == 1)
        if not head.interim:
            self._expected.popleft()
            self._kept -= remembered(request) if request is not None else 0
        if not self._framed(head, old):
            self._lose()
            return None
        return head

    def _framed(self, head: Head, old: bool) -> bool:
        """Where the body is; False: nobody can say."""
        if head.last and head.switches:
            self._state = _State.SWITCHED
            return True
        if head.interim:
            return True
        if head.method == b"HEAD" or head.status in _BODILESS or (head.method == b"CONNECT" and head.status < 300):
            self._state = _State.END
            return True
        codings = tokens_of(head.headers, b"transfer-encoding")
        lengths = set(values_of(head.headers, b"content-length"))
        if codings:
            # One that names both, or chunks twice, has two ends.
            if lengths or old or b"chunked" in codings[:-1]:
                return False
            self._state = _State.CHUNK if codings[-1] == b"chunked" else _State.CLOSE
        elif lengths:
            text = lengths.pop()
            if lengths or not text.isdigit() or int(text) > LENGTH_MAX:
                return False
            self._left = int(text)
            self._state = _State.LENGTH if self._left else _State.END
        else:
            self._state = _State.CLOSE
        return True
