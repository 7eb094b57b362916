"""Responses of HTTP/1, framed (RFC 9112 §6.3): which answers which request, and where its body is."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from parsers.base import ParseError, Request
from parsers.http import Headers, remembered, tokens_of

# Bytes of a body; most servers take a larger number for a negative one.
LENGTH_MAX: Final = 1 << 62
_CHUNK_LINE: Final = 1024
_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?((?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*)"
)
_FRAMING: Final = re.compile(rb"\r\n(content-length|transfer-encoding):([^\r]*)", re.IGNORECASE)
_CONTENT_LENGTH: Final = len(b"content-length")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_BODILESS: Final = frozenset((204, 304))


# Where the next byte stands: in a head, in so many bytes of body, in a line before a chunk, in so many bytes of one, in
# the line end behind those, in trailers, in a body up to the end of the connection, behind a body, behind a switch.
_IN_HEAD, _IN_LENGTH, _IN_CHUNK, _IN_DATA, _BEHIND, _IN_TRAILER, _IN_CLOSE, _AT_END, _SWITCHED = range(9)


@dataclass(slots=True)
class Head:
    """A response without its body. `last`: nothing else was asked that is not answered."""

    status: int
    lines: bytes
    method: bytes
    request: Request | None
    last: bool

    @property
    def headers(self) -> Headers:
        """Names in lower case, and values."""
        lines = [line.partition(b":") for line in self.lines.split(b"\r\n")[1:]]
        return [(name.lower(), value.strip(b" \t")) for name, _, value in lines]

    @property
    def tunnel(self) -> bool:
        """It grants a CONNECT."""
        return self.method == b"CONNECT" and 200 <= self.status < 300

    @property
    def switches(self) -> bool:
        """What comes behind it is no HTTP/1."""
        return self.status == 101 or self.tunnel

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
        self._state = _IN_HEAD
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
        return self._state == _IN_HEAD and bool(self._buffer)

    def expect(self, method: bytes, request: Request | None) -> None:
        """A request was sent; `request` where its response is to be told with it."""
        if self.lost:
            return
        self._expected.append((method, request))
        self._kept += remembered(request) if request is not None else 0
        if len(self._expected) > self._limits[1] or self._kept > self._limits[2]:
            raise ParseError("unanswered")

    def begin_body(self, size: int | None) -> None:
        """What comes next is a body and no head, of so many bytes or (None) in chunks; it is told."""
        self._state, self._left = (_IN_CHUNK, 0) if size is None else (_IN_LENGTH, size)
        self.wanted = True

    def feed(self, data: bytes) -> None:
        """The next bytes; `read` tells what they are."""
        if self.lost:
            self._lose()
            return
        if not self.wanted and not self._buffer:
            if self._state == _IN_CLOSE:
                return
            if self._state == _IN_LENGTH and len(data) < self._left:
                self._left -= len(data)
                return
        self._buffer += data

    def read(self) -> Head | bytes | None:
        """The next head, or of a body that is wanted the next bytes, none at its end; None: more is needed."""
        while not self.lost:
            state = self._state
            if state == _AT_END:
                self._state = _IN_HEAD
                if self.wanted:
                    self.wanted = False
                    return b""
            elif not self._buffer or state == _SWITCHED:
                return None
            elif state == _IN_HEAD:
                return self._head()
            elif state in {_IN_LENGTH, _IN_DATA, _IN_CLOSE}:
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
        ends, self.wanted = self.wanted and self._state == _IN_CLOSE, False
        return ends

    def _lose(self) -> None:
        self.lost = True
        self._buffer.clear()
        self._expected.clear()
        self._kept = 0
        if self.strict:
            raise ParseError("response")

    def _data(self, state: int) -> bytes:
        size = len(self._buffer) if state == _IN_CLOSE else min(self._left, len(self._buffer))
        data = bytes(self._buffer[:size]) if self.wanted else b""
        del self._buffer[:size]
        if state != _IN_CLOSE:
            self._left -= size
            if not self._left:
                self._state = _AT_END if state == _IN_LENGTH else _BEHIND
        return data

    def _line(self, state: int) -> bool:
        """Chunks' frames (RFC 9112 §7.1); False: more is needed."""
        buffer = self._buffer
        if state == _IN_TRAILER:
            end = -2 if buffer.startswith(b"\r\n") else buffer.find(b"\r\n\r\n")
            return self._cut(end + 4 if end != -1 else 0, self._limits[0], _AT_END)
        if state == _BEHIND:
            if not b"\r\n".startswith(bytes(buffer[:2])):
                self._lose()
            return self._cut(2 if len(buffer) > 1 else 0, 2, _IN_CHUNK)
        end = buffer.find(b"\r\n", 0, _CHUNK_LINE)
        found = _CHUNK.fullmatch(bytes(buffer[:end])) if end >= 0 else None
        if not self._cut(end + 2 if end >= 0 else 0, _CHUNK_LINE, _IN_DATA):
            return False
        if found is None:
            self._lose()
            return False
        self._left = int(found[1], 16)
        self._state = _IN_DATA if self._left else _IN_TRAILER
        return True

    def _cut(self, size: int, most: int, state: int) -> bool:
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
        minor, code, lines = found.groups()
        status = int(code)
        del buffer[: end + 4]
        method, request = self._expected[0]
        head = Head(status, lines, method, request, len(self._expected) == 1)
        if status >= 200 or status == 101:
            self._expected.popleft()
            self._kept -= remembered(request) if request is not None else 0
        if not self._framed(head, minor == b"0"):
            self._lose()
            return None
        return head

    def _framed(self, head: Head, old: bool) -> bool:
        """Where the body is; False: nobody can say."""
        if head.status < 200 or (head.method == b"CONNECT" and head.tunnel):
            if head.last and head.switches:
                self._state = _SWITCHED
            return True
        if head.method == b"HEAD" or head.status in _BODILESS:
            self._state = _AT_END
            return True
        lengths, coded = set(), False
        for name, value in _FRAMING.findall(head.lines):
            if len(name) == _CONTENT_LENGTH:
                lengths.add(value.strip(b" \t"))
            else:
                coded = True
        if coded:
            codings = tokens_of(head.headers, b"transfer-encoding")
            # One that names both, or chunks twice, has two ends.
            if lengths or old or not codings or b"chunked" in codings[:-1]:
                return False
            self._state = _IN_CHUNK if codings[-1] == b"chunked" else _IN_CLOSE
        elif lengths:
            text = lengths.pop()
            if lengths or not text.isdigit() or int(text) > LENGTH_MAX:
                return False
            self._left = int(text)
            if self.strict or self._left > len(self._buffer):
                self._state = _IN_LENGTH if self._left else _AT_END
            else:
                del self._buffer[: self._left]  # nobody wants it
        else:
            self._state = _IN_CLOSE
        return True
