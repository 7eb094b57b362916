"""What streams of HTTP/2 say: requests and trailers, and where rules ask for it responses, bodies and messages.

Frames are `http2`'s, which hands over header blocks as lists of fields, and what DATA frames hold. A stream's requests
are told from trailers by its number: a client's new streams have growing ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Request, Response, Said, Unit, Value
from parsers.http import HOST_FORBIDDEN, Body, Headers, Telling, remembered

_PSEUDO: Final = frozenset((b":method", b":path", b":scheme", b":authority", b":protocol"))
_CONNECTION: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
# RFC 9113 §8.2.1, RFC 9110 §5.6.2
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*")
_PATH_FORBIDDEN: Final = re.compile(rb"[\x00-\x20\x7f]")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_FORBIDDEN: Final = frozenset(b"\0\r\n")


class Stream:
    """A request whose response, or something in either's body, is to be told. `forgotten`: no longer."""

    __slots__ = ("answer", "bodies", "forgotten", "number", "open", "remembered", "request", "status")

    def __init__(self, request: Request, *, answers: bool) -> None:
        self.number = request.stream
        self.request = request
        self.answer: Said | None = None
        self.status = 0
        self.bodies: list[Body | None] = [None, None]  # by direction
        self.open = [True, answers]  # something to be told may come
        self.remembered = remembered(request)
        self.forgotten = False


class Streams(Telling):
    """Those of one connection. `owed` bounds requests under way that say how long their body is, `most` the streams
    that are remembered, `kept` the bytes of these. `upgraded` is the request of stream 1 after an h2c upgrade.
    What is told is appended to `events`; ParseError.
    """

    def __init__(self, owed: int, most: int, kept: int, upgraded: Request | None) -> None:
        self._limits = owed, most, kept
        self.requests = 0  # begun so far
        self.raw_binary = False  # the server takes gRPC's binary metadata without base64
        self._last = 1 if upgraded else 0
        self._upgraded = upgraded
        self._streams: dict[int, Stream] = {}
        self._remembered = 0
        self._owed: dict[int, int] = {}  # bytes to come of a stream's body, where its head said how many
        self._waiting: tuple[set[int], set[int]] = (set(), set())  # by direction; in a message's prefix

    def __len__(self) -> int:
        """Streams that are remembered."""
        return len(self._streams)

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return self._remembered

    @property
    def answers(self) -> bool:
        """Something that the server says is to be told."""
        return self._wanted.answers

    def pending(self, direction: int) -> bool:
        """A message's prefix is incomplete."""
        return bool(self._waiting[direction])

    def headers(self, direction: int, number: int, headers: Headers, *, ends: bool, events: list[Event]) -> None:
        """A header block: a request, a response or an interim one, trailers. `ends`: nothing follows it."""
        if direction == TO_CLIENT:
            self._response(number, headers, events)
        elif number > self._last:
            self._request(number, headers, ends=ends, events=events)
        else:
            if not ends or not all(_NAME.fullmatch(name) and name not in _CONNECTION for name, _ in headers):
                raise ParseError("trailers")
            self._delivered(number, 0, ends=ends)
        if ends and number in self._streams:
            self.ends(self._streams[number], direction, events)

    def promised(self, number: int, headers: Headers) -> None:
        """A request that the server makes up: its response comes without having been asked for."""
        if self._wanted.answers:
            self._remember(self._read(number, headers), ())
            self._streams[number].open[TO_SERVER] = False

    def body_of(self, direction: int, number: int, size: int, *, ends: bool) -> Stream | None:
        """A DATA frame of so many bytes: its stream, if these are to be handed over as `data`."""
        if direction == TO_SERVER:
            self._delivered(number, size, ends=ends)
        return self._streams.get(number)

    def data(self, stream: Stream, direction: int, data: bytes, events: list[Event]) -> None:
        """The next bytes of its body."""
        if direction == TO_CLIENT and stream.answer is None:
            raise ParseError("response")
        body = stream.bodies[direction]
        if body is not None:
            body.feed(data, events)
            if body.pending:
                self._waiting[direction].add(stream.number)
            else:
                self._waiting[direction].discard(stream.number)

    def ends(self, stream: Stream, direction: int, events: list[Event]) -> None:
        """One direction has ended."""
        body = stream.bodies[direction]
        if body is not None:
            body.end()
        if direction == TO_CLIENT and stream.answer is not None and stream.open[TO_CLIENT]:
            told = "grpc.status" in stream.answer.fields or (body is not None and body.ended)
            if stream.request.is_call and not told and "grpc.status" in self.asked:
                events.append(self._ending(stream.answer, stream.status))
        stream.open[direction] = False
        if direction == TO_CLIENT and stream.bodies[TO_SERVER] is None:
            stream.open[TO_SERVER] = False
        if not any(stream.open):
            self._forget(stream.number)

    def reset(self, number: int) -> None:
        """Either side has given it up."""
        self._owed.pop(number, None)
        self._forget(number)

    def _request(self, number: int, headers: Headers, *, ends: bool, events: list[Event]) -> None:
        if not number & 1:
            raise ParseError("stream_even")
        self._last = number
        self.requests += 1
        request = self._read(number, headers)
        lengths = [value for name, value in headers if name == b"content-length"]
        if lengths:
            self._announced(number, lengths, ends=ends)
        events.append(request)
        if self._wanted.answers or self._wanted.bodies:
            self._remember(request, headers)

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
            raw = self.raw_binary and value[:1] == b"\0" and name.endswith(b"-bin")
            if not raw and (not _FORBIDDEN.isdisjoint(value) or value != value.strip(b" \t")):
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
        if not HOST_FORBIDDEN.isdisjoint(host):
            raise ParseError("host")
        said: Mapping[str, Value] | None = None
        protocol = pseudo.get(b":protocol", b"")
        if self._wanted.of_requests:
            target = host if plain_connect else path
            said = self._said(target, b"2", _regular(headers), [protocol] if protocol else [])
        return Request(method, path, host, kind, stream, pseudo.get(b":scheme", b""), protocol, said)

    def _announced(self, stream: int, lengths: list[bytes], *, ends: bool) -> None:
        if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
            raise ParseError("content_length")
        self._owed[stream] = int(lengths[0])
        if len(self._owed) > self._limits[0]:
            raise ParseError("open_bodies")
        self._delivered(stream, 0, ends=ends)

    def _delivered(self, stream: int, size: int, *, ends: bool) -> None:
        """RFC 9113 §8.1.1: as long as its head said; written down as HTTP/1, the rest would be a request."""
        left = self._owed.get(stream)
        if left is None:
            return
        left -= size
        if left < 0 or (ends and left):
            raise ParseError("content_length")
        if ends:
            del self._owed[stream]
        else:
            self._owed[stream] = left

    def _response(self, stream: int, headers: Headers, events: list[Event]) -> None:
        status = 0
        grpc_status = b""
        for name, value in headers:
            if name == b":status":
                if len(value) != 3 or not value.isdigit():
                    raise ParseError("status")
                status = int(value)
            elif name == b"grpc-status":
                grpc_status = value
        events.append(Response(status, stream, grpc_status))
        if stream == 1 and self._upgraded is not None and self._wanted.answers:
            self._remember(replace(self._upgraded, stream=1), ())
            self._streams[1].open[TO_SERVER] = False
            self._upgraded = None
        if stream in self._streams:
            self._told(self._streams[stream], status, _regular(headers), events)

    def _told(self, stream: Stream, status: int, headers: Headers, events: list[Event]) -> None:
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
            events.append(answer)

    def _remember(self, request: Request, headers: Headers) -> None:
        self._forget(request.stream)
        stream = self._streams[request.stream] = Stream(request, answers=self._wanted.answers)
        self._remembered += stream.remembered
        self._begins(stream, request, headers)

    def _begins(self, stream: Stream, head: Unit, headers: Headers) -> None:
        """A body; what a tunnel carries is none."""
        if self._wanted.bodies and stream.request.method != b"CONNECT":
            body = stream.bodies[head.direction] = self._body(head, stream.request, headers, stream.status)
            if body is not None:
                stream.remembered += body.kept
                self._remembered += body.kept
        _, most, kept = self._limits
        if len(self._streams) > most or self._remembered > kept:
            raise ParseError("streams")

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._remembered -= stream.remembered
            stream.forgotten = True
        for waiting in self._waiting:
            waiting.discard(number)


def _regular(headers: Headers) -> Headers:
    """Without pseudo headers, and a cookie's pieces put together (RFC 9113 §8.2.3)."""
    regular = [header for header in headers if not header[0].startswith(b":") and header[0] != b"cookie"]
    crumbs = [value for name, value in headers if name == b"cookie"]
    return [*regular, (b"cookie", b"; ".join(crumbs))] if crumbs else regular
