"""What every parser is: bytes in, typed events out.

No sockets, no clock, no decisions. A parser answers `feed` with events, with
nothing (it needs more) or with `ParseError`, after which it is dead.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

# Equal to MS_TO_SERVER and MS_TO_CLIENT; parsers import nothing of ours.
TO_SERVER: Final = 0
TO_CLIENT: Final = 1
TCP: Final = 6
UDP: Final = 17


class ParseError(Exception):
    """Not the grammar it began with. `events` came before the offence in the same `feed`,
    so that chunking does not change what is seen; `offset` counts the direction's bytes.
    """

    def __init__(self, code: str, offset: int = 0, events: Sequence[Event] = ()) -> None:
        super().__init__(f"{code} at byte {offset}")
        self.code = code
        self.offset = offset
        self.events = tuple(events)


@dataclass(slots=True)
class Event:
    """Base of all events. Nobody changes one; none is frozen, for that makes each three times as dear."""


# What a field may be: text as sent, a number, or several texts (an empty tuple: none was said).
Value = bytes | int | tuple[bytes, ...]


class Kind(enum.Enum):
    """What values a field has."""

    TEXT = enum.auto()
    NUMBER = enum.auto()
    LIST = enum.auto()


@dataclass(frozen=True, slots=True)
class Field:
    """Something of a unit that rules may ask for. `name` begins with its protocol: ``mysql.user``.

    `once`: when it has been said, no later unit of the connection says it otherwise (design 2.1: a verdict that depends
    on such fields only may be final). `folded`: case means nothing in it, rules compare lower case. `keyed`: a family,
    of which units say ``name.key``, keys in lower case: ``http.header.accept``. `on_demand`: told only where somebody
    asks (`Parser.asked`). `hidden`: no record carries it, it may hold secrets or be long.
    """

    name: str
    says: str
    kind: Kind = Kind.TEXT
    once: bool = False
    folded: bool = False
    keyed: bool = False
    on_demand: bool = False
    hidden: bool = False


class Unit(Event):
    """What is judged by itself: a hello, a login, a command, a question. It is complete with its last byte, nothing of
    it is told before. `fields` are some of its parser's, by name; one that is missing was not said, and will not be by
    this unit; of those in `later`, fields that are said once, a later unit may tell. Until a unit is `final`, servers
    might go by what is said once after all, and anew (TLS: a second hello): no verdict on it is.
    """

    __slots__ = ()

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        raise NotImplementedError

    @property
    def fields(self) -> Mapping[str, Value]:
        """What it says."""
        raise NotImplementedError

    @property
    def direction(self) -> int:
        """Where it goes."""
        return TO_SERVER

    @property
    def later(self) -> frozenset[str]:
        """What is not known yet."""
        return frozenset()

    @property
    def final(self) -> bool:
        """What was said once stays so."""
        return True


@dataclass(slots=True)
class Said(Unit):
    """A unit that is nothing more."""

    protocol: str
    fields: Mapping[str, Value]
    direction: int = TO_SERVER
    later: frozenset[str] = frozenset()
    final: bool = True


# Of a long text, what is told once more with its next bytes: what a pattern finds in 512 bytes is whole in one piece.
OVERLAP: Final = 512


@dataclass(slots=True)
class Content(Unit):
    """The next bytes of a long text, such as a body: told as they come, so nothing of it waits, and how it is divided
    is a matter of cuts (design 2.2: all of it is seen before it goes on). `head` is what it belongs to, whose fields it
    has too; `before` are the last bytes ahead of these, `OVERLAP` at most.
    """

    head: Unit
    field: str
    data: bytes
    before: bytes = b""
    direction: int = TO_SERVER

    @property
    def protocol(self) -> str:
        """That of the head."""
        return self.head.protocol

    @property
    def fields(self) -> Mapping[str, Value]:
        """What the head says, and the bytes."""
        return {**self.head.fields, self.field: self.before + self.data}


@dataclass(slots=True)
class Switched(Event):
    """The connection goes on in another protocol, or in one to be identified (""), from these bytes on; the parser
    has read none of them and is done.
    """

    protocol: str
    to_server: bytes = b""
    to_client: bytes = b""


@dataclass(slots=True)
class Request(Unit):
    """A complete request head, of HTTP/1 (`stream` 0) or HTTP/2. `path` is the target
    as sent, without scheme and authority; `host` as sent.
    """

    method: bytes
    path: bytes
    host: bytes
    content_type: bytes = b""
    stream: int = 0
    scheme: bytes = b""
    upgrade: bytes = b""  # what it offers to switch to: h2c, websocket, connect ...
    said: Mapping[str, Value] | None = None  # what was asked for

    @property
    def is_grpc(self) -> bool:
        """Whether it is gRPC over HTTP/2: content-type begins with application/grpc."""
        return self.stream > 0 and self.content_type[:16].lower() == b"application/grpc" and not self.is_web

    @property
    def is_web(self) -> bool:
        """Whether it is gRPC-Web, which any version of HTTP carries."""
        return self.content_type[:20].lower() == b"application/grpc-web"

    @property
    def is_call(self) -> bool:
        """Whether it is either."""
        return self.is_grpc or self.is_web

    @property
    def protocol(self) -> str:
        """By its content type where it is HTTP/2."""
        if not self.stream:
            return "http"
        return "grpc" if self.is_grpc else "http2"

    @property
    def fields(self) -> Mapping[str, Value]:
        """What rules may ask for."""
        fields: dict[str, Value] = {"http.method": self.method, "http.path": self.path, "http.host": self.host}
        if self.is_call:
            fields["grpc.service"], fields["grpc.method"] = self.grpc
        return {**fields, **self.said} if self.said else fields

    @property
    def grpc(self) -> tuple[bytes, bytes]:
        """Service and method out of "/pkg.Service/Method"."""
        path = self.path.partition(b"?")[0] if self.is_web else self.path
        service, _, method = path[1:].rpartition(b"/")
        return service, method


HTTP_FIELDS: Final = (
    Field("http.method", "the request's method"),
    Field("http.path", "its target without scheme, authority and query, in normal form"),
    Field("http.host", "its authority without port and final dot", folded=True),
    Field("http.version", "its version: 1.0, 1.1 or 2", on_demand=True),
    Field("http.target", "its target as sent, with the query", on_demand=True, hidden=True),
    Field("http.query", "what follows the question mark in its target, as sent", on_demand=True, hidden=True),
    Field("http.content_type", "its media type without parameters", Kind.LIST, folded=True, on_demand=True),
    Field("http.encoding", "codings of the body, of a response its own: gzip, identity", folded=True, on_demand=True),
    Field("http.protocol", "protocols that it offers to switch to", Kind.LIST, folded=True, on_demand=True),
    Field(
        "http.header", "values of its header NAME, of each with that name", Kind.LIST, keyed=True, on_demand=True,
        hidden=True,
    ),
    Field("http.status", "status of the response", Kind.NUMBER, on_demand=True),
    Field(
        "http.response_header", "values of the response's header NAME, of each with that name", Kind.LIST, keyed=True,
        on_demand=True, hidden=True,
    ),
    Field("http.body", "bytes of its body, their coding undone", on_demand=True, hidden=True),
    Field("http.response_body", "bytes of the response's body, their coding undone", on_demand=True, hidden=True),
)  # fmt: skip
GRPC_FIELDS: Final = (
    Field("grpc.service", "package and service of the call"),
    Field("grpc.method", "method of the call"),
    Field("grpc.status", "status of the call, as it ends", Kind.NUMBER, on_demand=True),
    Field("grpc.message_size", "bytes of a message", Kind.NUMBER, on_demand=True),
    Field("grpc.compressed", "1: the message is compressed, 0: it is not", Kind.NUMBER, on_demand=True),
)


@dataclass(slots=True)
class Response(Event):
    """A response head. HTTP/2 trailers come as a Response with `status` 0."""

    status: int
    stream: int = 0
    grpc_status: bytes = b""
    tunnel: bool = False  # of HTTP/1: a CONNECT is granted


@dataclass(slots=True)
class Upgraded(Event):
    """The server agreed to leave HTTP/1. The bytes behind the switch were not read."""

    protocol: bytes
    request: Request
    settings: bytes  # HTTP2-Settings, decoded
    to_server: bytes
    to_client: bytes


@dataclass(slots=True)
class Preface(Event):
    """The client's HTTP/2 connection preface is complete."""


@dataclass(slots=True)
class Settings(Event):
    """SETTINGS of one side (not an acknowledgement)."""

    direction: int
    values: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class StreamReset(Event):
    """RST_STREAM."""

    direction: int
    stream: int
    code: int


@dataclass(slots=True)
class GoAway(Event):
    """GOAWAY."""

    direction: int
    code: int


class Parser(abc.ABC):
    """One connection, or one flow of datagrams; `tests/contract` holds every parser of `parsers.registry` to this.

    `name` is the protocol's of design.md, `fields` all that its units may say, `transports` the IP protocols that it
    runs over. Over UDP each `feed` is a datagram; a parser for both takes ``datagrams=True`` for these.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]]
    transports: ClassVar[tuple[int, ...]] = (TCP,)
    # Names (of keyed fields: with their keys) that somebody asks for; of fields that are told on demand no others are.
    asked: frozenset[str] = frozenset()

    @property
    @abc.abstractmethod
    def buffered(self) -> int:
        """Bytes retained; bounded by the parser's limits."""

    @abc.abstractmethod
    def pending(self, direction: int) -> bool:
        """The bytes so far leave a unit of this direction incomplete: they may go on, its last byte may not."""

    @property
    def blocked(self) -> bool:
        """Bytes are buffered whose meaning depends on the other side: they may not go on."""
        return False

    @abc.abstractmethod
    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume any number of bytes; ParseError kills the parser. How bytes were cut into pieces changes nothing in
        the events.
        """

    def eof(self, direction: int) -> list[Event]:
        """The direction has ended: what is incomplete stays so."""
        del direction
        return []

    @abc.abstractmethod
    def gap(self, direction: int, size: int) -> list[Event]:
        """Bytes were lost: resynchronise, or ParseError."""
