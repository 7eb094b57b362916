"""What HTTP/1 and HTTP/2 tell alike where rules ask for it: fields of requests and responses, bodies, gRPC messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from parsers.base import OVERLAP, TO_CLIENT, Content, Event, Request, Said, Unit, Value
from parsers.content import Budget, Unpacker, unpacker
from parsers.grpc import Messages, status_in, status_of

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case

# What stands in no name of a host, and ends or divides one for some servers.
HOST_FORBIDDEN: Final = frozenset(b" \t,@/\\?#") | frozenset(range(0x20)) | {0x7F}
_HEADER: Final = "http.header."
_RESPONSE_HEADER: Final = "http.response_header."
_BODIES: Final = ("http.body", "http.response_body")  # by direction
# Fields of a request, but for its headers, that are told on demand.
_OF_REQUESTS: Final = frozenset(
    ("http.version", "http.target", "http.query", "http.content_type", "http.protocol", "http.encoding")
)
_OF_RESPONSES: Final = frozenset(("http.status", "http.encoding", "grpc.status"))
_OF_MESSAGES: Final = frozenset(("grpc.message_size", "grpc.compressed"))
_GRPC: Final = b"application/grpc"
_GRPC_WEB: Final = b"application/grpc-web"
# Of a unit that is remembered: its objects, beside its texts.
_UNIT: Final = 512


@dataclass(frozen=True, slots=True)
class Wanted:
    """`Parser.asked`, sorted."""

    names: frozenset[str]
    of_requests: bool  # anything of a request that is told on demand
    headers: tuple[bytes, ...]  # of requests
    responses: bool  # a unit for each
    response_headers: tuple[bytes, ...]
    messages: bool  # of gRPC
    answers: bool  # anything that a server says
    bodies: bool  # anything in a body, of either side


@lru_cache(maxsize=1024)
def wanted(names: frozenset[str]) -> Wanted:
    """What to tell where somebody asks for these."""
    headers, response_headers = _keys(names, _HEADER), _keys(names, _RESPONSE_HEADER)
    responses = bool(response_headers) or not _OF_RESPONSES.isdisjoint(names)
    messages = not _OF_MESSAGES.isdisjoint(names)
    return Wanted(
        names,
        bool(headers) or not _OF_REQUESTS.isdisjoint(names),
        headers,
        responses,
        response_headers,
        messages,
        responses or messages or _BODIES[TO_CLIENT] in names,
        messages or "grpc.status" in names or not names.isdisjoint(_BODIES),
    )


def _keys(names: Iterable[str], family: str) -> tuple[bytes, ...]:
    return tuple(sorted(name.removeprefix(family).encode() for name in names if name.startswith(family)))


class Body:
    """What is told of the body of one message. `head` is its request, or its response."""

    def __init__(
        self,
        head: Unit,
        names: frozenset[str],
        unpacker: Unpacker | None,
        messages: Messages | None,
        status: int,
    ) -> None:
        self.head = head
        self._names = names
        self._field = _BODIES[head.direction]
        self._unpacker = unpacker
        self._messages = messages
        self._status = status
        self._before = b""
        self.kept = _UNIT + (self._unpacker.kept if self._unpacker is not None else 0)
        self.ended = False  # by trailers in it

    @property
    def pending(self) -> bool:
        """A message's prefix is incomplete."""
        return self._messages is not None and self._messages.pending

    def feed(self, data: bytes, events: list[Event]) -> None:
        """The next bytes of it. ParseError."""
        if self._unpacker is None or not data:
            return
        for piece in self._unpacker.feed(data):
            if self._field in self._names:
                events.append(Content(self.head, self._field, piece, self._before, self.head.direction))
                self._before = piece[-OVERLAP:] if len(piece) >= OVERLAP else (self._before + piece)[-OVERLAP:]
            if self._messages is not None:
                self._tell(self._messages, piece, events)

    def _tell(self, messages: Messages, piece: bytes, events: list[Event]) -> None:
        for message in messages.feed(piece):
            if message.trailers is not None:
                self.ended = True
                fields: dict[str, Value] = {"grpc.status": status_in(message.trailers, self._status)}
            else:
                fields = {"grpc.message_size": message.size, "grpc.compressed": int(message.compressed)}
            fields = {name: value for name, value in fields.items() if name in self._names}
            if fields:
                events.append(Said(self.head.protocol, {**self.head.fields, **fields}, self.head.direction))

    def end(self) -> None:
        """It has no more bytes. ParseError."""
        if self._messages is not None:
            self._messages.end()


class Telling:
    """What is told on demand of requests, responses and bodies, and of which it is asked."""

    _wanted = wanted(frozenset())
    _budget: Budget | None = None

    @property
    def asked(self) -> frozenset[str]:
        """See `Parser`."""
        return self._wanted.names

    @asked.setter
    def asked(self, names: frozenset[str]) -> None:
        self._wanted = wanted(names)

    def _said(self, target: bytes, version: bytes, headers: Headers, offered: Iterable[bytes]) -> dict[str, Value]:
        """What a request says of what is asked for. `offered`: protocols that it offers to go on in."""
        names = self._wanted.names
        said: dict[str, Value] = {}
        if "http.version" in names:
            said["http.version"] = version
        if "http.target" in names:
            said["http.target"] = target
        if "http.query" in names and b"?" in target:
            said["http.query"] = target.partition(b"?")[2]
        types = values_of(headers, b"content-type") if "http.content_type" in names else []
        if types:
            said["http.content_type"] = tuple(media_type(value) for value in types)
        if "http.protocol" in names and offered:
            said["http.protocol"] = tuple(offered)
        self._headers_said(said, headers, _HEADER, self._wanted.headers)
        return said

    def _headers_said(self, said: dict[str, Value], headers: Headers, family: str, keys: Iterable[bytes]) -> None:
        if "http.encoding" in self._wanted.names:
            said["http.encoding"] = encoding(headers)
        for key in keys:
            if values := values_of(headers, key):
                said[family + key.decode()] = tuple(values)

    def _answer(self, request: Request, status: int, headers: Headers) -> Said:
        """A response, with what was asked of it."""
        fields = dict(request.fields)
        if "http.status" in self._wanted.names:
            fields["http.status"] = status
        self._headers_said(fields, headers, _RESPONSE_HEADER, self._wanted.response_headers)
        own = values_of(headers, b"grpc-status")
        if own and "grpc.status" in self._wanted.names and request.is_call:
            fields["grpc.status"] = status_of(own, status)
        return Said(request.protocol, fields, TO_CLIENT)

    def _body(self, head: Unit, request: Request, headers: Headers, status: int = 0) -> Body | None:
        """Of a request, or of a response to it, if something of it is to be told."""
        wanted = self._wanted
        call = wanted.messages or (head.direction == TO_CLIENT and "grpc.status" in wanted.names)
        call = call and request.is_call
        if not call and _BODIES[head.direction] not in wanted.names:
            return None
        messages = _messages(headers, request, head.direction) if call else None
        if self._budget is None:
            self._budget = Budget()
        return Body(head, wanted.names, unpacker(encoding(headers), self._budget), messages, status)

    def _ending(self, answer: Said, status: int, trailers: Headers = ()) -> Said:
        """A response with what its trailers say, or lack."""
        fields = dict(answer.fields)
        if "grpc.status" in self._wanted.names and "grpc.service" in fields:
            fields["grpc.status"] = status_of(values_of(trailers, b"grpc-status"), status)
        for key in self._wanted.response_headers:
            if values := values_of(trailers, key):
                fields[_RESPONSE_HEADER + key.decode()] = tuple(values)
        return Said(answer.protocol, fields, TO_CLIENT)


def _messages(headers: Headers, request: Request, direction: int) -> Messages | None:
    kind = media_type((values_of(headers, b"content-type") or [b""])[0]).lower()
    if not kind.startswith(_GRPC):
        return None  # an error's page
    if not kind.startswith(_GRPC_WEB):
        return Messages() if request.stream else None
    return Messages(web=direction == TO_CLIENT, text=kind.startswith(_GRPC_WEB + b"-text"))


def remembered(unit: Unit) -> int:
    """Bytes that a unit takes."""
    size = _UNIT
    for value in unit.fields.values():
        if isinstance(value, bytes):
            size += len(value)
        elif isinstance(value, tuple):
            size += sum(map(len, value))
    return size


def values_of(headers: Headers, name: bytes) -> list[bytes]:
    """Of all headers of a name, in their order."""
    return [value.strip(b" \t") for each, value in headers if each == name]


def tokens_of(headers: Headers, name: bytes) -> list[bytes]:
    """Members of lists, in lower case."""
    found = (token.strip(b" \t").lower() for value in values_of(headers, name) for token in value.split(b","))
    return [token for token in found if token]


def media_type(value: bytes) -> bytes:
    """Without parameters."""
    return value.partition(b";")[0].strip(b" \t")


def encoding(headers: Headers) -> bytes:
    """Codings of a body in the order in which they were applied, transfer codings behind (RFC 9112 §6.1)."""
    codings = [*tokens_of(headers, b"content-encoding"), *tokens_of(headers, b"transfer-encoding")]
    return b", ".join(each for each in codings if each not in {b"identity", b"chunked"}) or b"identity"
