"""What every parser is: bytes in, typed events out.

No sockets, no clock, no decisions. A parser answers `feed` with events, with
nothing (it needs more) or with `ParseError`, after which it is dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

# Equal to MS_TO_SERVER and MS_TO_CLIENT; parsers import nothing of ours.
TO_SERVER: Final = 0
TO_CLIENT: Final = 1


class ParseError(Exception):
    """Not the grammar it began with. `events` came before the offence in the same `feed`,
    so that chunking does not change what is seen; `offset` counts the direction's bytes.
    """

    def __init__(self, code: str, offset: int = 0, events: Sequence[Event] = ()) -> None:
        super().__init__(f"{code} at byte {offset}")
        self.code = code
        self.offset = offset
        self.events = tuple(events)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Request(Event):
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

    @property
    def is_grpc(self) -> bool:
        """Whether it is gRPC over HTTP/2: content-type begins with application/grpc."""
        return self.stream > 0 and self.content_type[:16].lower() == b"application/grpc"

    @property
    def grpc(self) -> tuple[bytes, bytes]:
        """Service and method out of "/pkg.Service/Method"."""
        service, _, method = self.path[1:].rpartition(b"/")
        return service, method


@dataclass(frozen=True, slots=True)
class Response(Event):
    """A response head. HTTP/2 trailers come as a Response with `status` 0."""

    status: int
    stream: int = 0
    grpc_status: bytes = b""


@dataclass(frozen=True, slots=True)
class Upgraded(Event):
    """The server agreed to leave HTTP/1. The bytes behind the switch were not read."""

    protocol: bytes
    request: Request
    settings: bytes  # HTTP2-Settings, decoded
    to_server: bytes
    to_client: bytes


@dataclass(frozen=True, slots=True)
class Preface(Event):
    """The client's HTTP/2 connection preface is complete."""


@dataclass(frozen=True, slots=True)
class Settings(Event):
    """SETTINGS of one side (not an acknowledgement)."""

    direction: int
    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class StreamReset(Event):
    """RST_STREAM."""

    direction: int
    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class GoAway(Event):
    """GOAWAY."""

    direction: int
    code: int


class Parser(Protocol):
    """The common surface; `tests/contract` holds every parser against it."""

    @property
    def buffered(self) -> int:
        """Bytes retained; bounded by the parser's limits."""

    @property
    def pending(self) -> bool:
        """The bytes so far leave a request incomplete: they may go on, its last byte may not."""

    @property
    def blocked(self) -> bool:
        """Bytes are buffered whose meaning depends on the other side: they may not go on."""

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes; ParseError kills the parser."""

    def eof(self, direction: int) -> list[Event]:
        """The direction has ended."""

    def gap(self, direction: int, size: int) -> list[Event]:
        """Bytes were lost: resynchronise or ParseError."""
