"""PostgreSQL's frontend/backend protocol 3.x, both directions.

Read are the requests before the startup (SSLRequest and GSSENCRequest with the server's byte, CancelRequest), the
startup, Query, Parse, Execute and FunctionCall, which are units, and Bind and Close as far as they tell what an
Execute runs. Passwords, parameters, COPY data and results are stepped over by their messages' headers; of the server's
messages only those are read that tell how text is quoted and whether something has failed.

What the client sends behind a request for encryption waits for the server's byte (`blocked`).

Statements: `parsers.sql`. Servers skip what follows an error up to the next Sync: a name that is given anew may still
stand for what it was before, until ReadyForQuery without an error has told otherwise. An Execute of a later
batch is then `unsure` and names nothing, as is one whose statement is not known.

PostgreSQL 18 documentation, chapters 54.2 and 54.7 (protocol 3.0 and 3.2 differ in the size of cancel keys only);
src/backend/tcop/postgres.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from parsers import sql
from parsers.base import TO_CLIENT, TO_SERVER, Event, Field, Kind, ParseError, Parser, Said, Switched, Value


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # MAX_STARTUP_PACKET_LENGTH of the server.
    startup: int = 10000
    # PQ_LARGE_MESSAGE_LIMIT, PQ_SMALL_MESSAGE_LIMIT and PG_MAX_AUTH_TOKEN_LENGTH of the server.
    message: int = (1 << 30) - 1
    small: int = 10000
    password: int = 65535
    # Names of statements and portals; what is kept of them, in bytes.
    name: int = 1024
    statements: int = 128 * 1024
    # Behind a request for encryption: one initial window of 64 KiB.
    behind: int = 64 * 1024


_STARTUP, _ANSWER, _MESSAGES, _OVER = range(4)
_SSL_REQUEST: Final = 80877103
_GSS_REQUEST: Final = 80877104
_CANCEL_REQUEST: Final = 80877102

_UNITS: Final = frozenset(b"QPEF")
_FROM_CLIENT: Final = frozenset(b"QPBEDCSHFdcfpX")
_SMALL: Final = frozenset(b"EDCSHXc")
_FROM_SERVER: Final = frozenset(b"RKSZENCDTtnI123sAGHWVdcv")
_READ: Final = frozenset(b"RSZE")
# Encodings of which a second byte may be ASCII.
_MIXED: Final = frozenset((b"SJIS", b"SHIFT_JIS_2004", b"BIG5", b"GBK", b"UHC", b"GB18030", b"JOHAB"))
# They name, or forget, statements and portals of the protocol too.
_NAMING: Final = frozenset((b"prepare", b"deallocate", b"discard", b"declare", b"execute"))
_UNKNOWN: Final = sql.Statement(unsure=True)


class _Messages:
    """One direction's framing."""

    __slots__ = ("header", "keep", "kept", "kind", "left", "open", "size")

    def __init__(self) -> None:
        self.header = bytearray()
        self.kept = bytearray()
        self.kind = 0
        self.keep = 0
        self.size = 0  # of the payload
        self.left = 0
        self.open = False


class PostgresParser(Parser):
    """One connection; see `parsers.base.Parser`."""

    name = "postgres"
    fields = (
        Field("postgres.command", "startup, query, parse, execute, function_call or cancel", folded=True),
        Field("postgres.verb", "first words of its statements and their subqueries", Kind.LIST, folded=True),
        Field("postgres.tables", "tables that it names, as the server folds them, with a schema if said", Kind.LIST),
        Field("postgres.files", "files and programs that its statements read or write", Kind.LIST),
        Field("postgres.unsure", "1: it may do more than verb and tables say", Kind.NUMBER),
        Field("postgres.cut", "1: only the first 64 KiB of its text were looked at", Kind.NUMBER),
        Field("postgres.user", "who logs in", once=True),
        Field("postgres.database", "the database of the connection", once=True),
        Field("postgres.application", "application_name of the startup", once=True),
        Field("postgres.replication", "replication of the startup: the connection reads the server's log", once=True),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._offset = [0, 0]
        self._at = 0
        self._events: list[Event] = []
        self._messages = (_Messages(), _Messages())
        self._phase = _STARTUP
        self._terminated = False
        self._requests: set[int] = set()
        self._request = 0  # for encryption, that waits for its answer
        self._behind = bytearray()
        self._switched = False
        self._who: dict[str, Value] = {}
        self._authenticated = False
        self._escapes: bool | None = None
        self._encoding = False
        self._batch = 0  # number of the batch that the client is sending, up to a Sync or Query
        self._begun = False  # it has
        self._waiting = 0  # for how many ReadyForQuery
        self._failed = False  # since all was answered last
        self._changing = False  # a statement that has no answer yet may change how text is read
        self._names: dict[bytes, sql.Statement] = {}
        self._older: dict[bytes, sql.Statement] = {}  # what names may stand for too
        self._given: dict[bytes, int] = {}  # in which batch these were given anew
        self._held = 0

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return sum(len(each.header) + len(each.kept) for each in self._messages) + len(self._behind) + self._held

    def pending(self, direction: int) -> bool:
        """A startup or a command is incomplete."""
        messages = self._messages[direction]
        if direction == TO_CLIENT or not (messages.open or messages.header):
            return False
        if self._phase != _MESSAGES:
            return self._phase == _STARTUP
        return (messages.kind if messages.open else messages.header[0]) in _UNITS

    @property
    def blocked(self) -> bool:
        """Encryption was asked for, not answered, and the client goes on."""
        return self._phase == _ANSWER and bool(self._behind)

    def gap(self, direction: int, size: int) -> list[Event]:
        """Within what is stepped over, of a message that goes on, nothing is lost."""
        messages = self._messages[direction]
        if not messages.open or messages.left <= size or len(messages.kept) < messages.keep:
            raise ParseError("gap", self._offset[direction] + size)
        messages.left -= size
        self._offset[direction] += size
        return []

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction."""
        self._events = []
        self._at = 0
        try:
            if self._switched:
                raise ParseError("after_switch")
            if direction == TO_SERVER:
                self._feed_client(data)
            else:
                self._feed_server(data)
        except ParseError as error:
            raise ParseError(error.code, self._offset[direction] + self._at, self._events) from None
        self._offset[direction] += len(data)
        return self._events

    # From the client.

    def _feed_client(self, data: bytes) -> None:
        messages = self._messages[TO_SERVER]
        at, end = 0, len(data)
        while at < end:
            if self._phase == _ANSWER:
                self._behind += data[at:]
                if len(self._behind) > self.limits.behind:
                    raise ParseError("behind_request")
                return
            if self._phase == _OVER:
                raise ParseError("after_the_end")
            if not messages.open:
                size = 4 if self._phase == _STARTUP else 5
                header = data[at : at + size - len(messages.header)]
                messages.header += header
                at += len(header)
                if self._phase == _MESSAGES and messages.header[0] not in _FROM_CLIENT:
                    raise ParseError("unknown_message")
                # Both processes of pg_basebackup end the connection that they share.
                if self._terminated and messages.header[0] != 0x58:
                    raise ParseError("after_the_end")
                if len(messages.header) < size:
                    return
                self._at = at
                self._open(messages)
            else:
                at += self._take(messages, data, at)
            if messages.left or not messages.open:
                continue
            messages.open = False
            self._at = at
            payload = bytes(messages.kept)
            messages.kept.clear()
            if self._phase == _STARTUP:
                self._started(payload)
            else:
                self._sent(messages, payload)

    @staticmethod
    def _take(messages: _Messages, data: bytes, at: int) -> int:
        take = min(messages.left, len(data) - at)
        if len(messages.kept) < messages.keep:
            messages.kept += data[at : at + min(take, messages.keep - len(messages.kept))]
        messages.left -= take
        return take

    def _open(self, messages: _Messages) -> None:
        """A message's header is complete."""
        size = int.from_bytes(messages.header[-4:], "big")
        kind = messages.kind = messages.header[0] if self._phase == _MESSAGES else 0
        messages.header.clear()
        limits = self.limits
        if self._phase == _STARTUP:
            if not 8 <= size <= limits.startup:
                raise ParseError("length")
            messages.keep = size
        else:
            most = limits.small if kind in _SMALL else limits.password if kind == 0x70 else limits.message
            if not 4 <= size <= most:
                raise ParseError("length")
            if kind == 0x70 and self._authenticated:
                raise ParseError("password_unasked")
            text = sql.LOOKED_AT + 1
            keep = {
                0x51: text,
                0x50: text + limits.name,
                0x42: 2 * limits.name + 2,
                0x45: limits.small,
                0x43: limits.small,
            }
            messages.keep = min(keep.get(kind, 0), size - 4)
        messages.size = messages.left = size - 4
        messages.open = True

    def _started(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:4], "big")
        if code in {_SSL_REQUEST, _GSS_REQUEST}:
            if len(payload) != 4:
                raise ParseError("length")
            if code in self._requests:
                raise ParseError("request_again")
            self._requests.add(code)
            self._request = code
            self._phase = _ANSWER
        elif code == _CANCEL_REQUEST:
            if not 12 <= len(payload) <= 264:
                raise ParseError("length")
            self._phase = _OVER
            self._events.append(Said("postgres", {"postgres.command": b"cancel"}))
        elif code >> 16 == 3:
            self._startup(payload)
        else:
            raise ParseError("version")

    def _startup(self, payload: bytes) -> None:
        if payload[-2:] not in {b"\0\0", b"\0"} or payload[-1:] != b"\0":
            raise ParseError("startup")
        words = payload[4:-1].split(b"\0")
        if words[-1] or len(words) % 2 == 0:
            raise ParseError("startup")
        # The server takes the last of two of a name.
        said = dict(zip(words[:-1:2], words[1::2], strict=True))
        user = said.get(b"user", b"")
        if not user or b"" in said:
            raise ParseError("startup")
        self._who = {"postgres.user": user, "postgres.database": said.get(b"database", b"") or user}
        for name, field in ((b"application_name", "application"), (b"replication", "replication")):
            if name in said:
                self._who[f"postgres.{field}"] = said[name]
        self._phase = _MESSAGES
        self._waiting = 1
        self._say(b"startup")

    def _sent(self, messages: _Messages, payload: bytes) -> None:
        """The client's message is complete."""
        kind = messages.kind
        if kind in b"QPBEDCF":
            self._begun = True
        if kind == 0x51:  # Query
            statement = self._read(self._text(payload, messages.size, 0)[0], messages.size > len(payload))
            self._say(b"query", statement)
            self._run(statement)
            # Its own batch; it ends the unnamed statement.
            self._name(b"S", None)
            self._end_batch()
        elif kind == 0x50:  # Parse
            name, at = self._named(payload, 0)
            text, end = self._text(payload, messages.size, at)
            if messages.size == len(payload) and (
                len(payload) < end + 2 or len(payload) != end + 2 + 4 * int.from_bytes(payload[end : end + 2], "big")
            ):
                raise ParseError("parse")
            statement = self._read(text, messages.size > len(payload) and end > len(payload))
            self._say(b"parse", statement)
            self._name(b"S" + name, statement)
        elif kind == 0x42:  # Bind
            portal, at = self._named(payload, 0)
            name, _ = self._named(payload, at)
            self._name(b"P" + portal, self._resolved(b"S" + name))
        elif kind == 0x45:  # Execute
            name, at = self._named(payload, 0)
            if len(payload) != at + 4:
                raise ParseError("execute")
            statement = self._resolved(b"P" + name)
            self._say(b"execute", statement)
            self._run(statement)
        elif kind == 0x43:  # Close
            name, at = self._named(payload, 1)
            if payload[:1] not in {b"S", b"P"} or at != len(payload):
                raise ParseError("close")
            self._name(payload[:1] + name, None)
        elif kind == 0x46:  # FunctionCall
            self._say(b"function_call", _UNKNOWN)
            self._end_batch()
        elif kind == 0x53:  # Sync
            self._end_batch()
        elif kind == 0x58:  # Terminate
            self._terminated = True

    def _named(self, payload: bytes, at: int) -> tuple[bytes, int]:
        end = payload.find(b"\0", at, at + self.limits.name + 1)
        if end < 0:
            raise ParseError("name")
        return payload[at:end], end + 1

    @staticmethod
    def _text(payload: bytes, size: int, at: int) -> tuple[bytes, int]:
        """A statement's text, and where what follows it begins; beyond the payload if its end is not in it."""
        end = payload.find(b"\0", at)
        if end < 0 and size == len(payload):
            raise ParseError("query")
        if end < 0:
            return payload[at:], len(payload) + 1
        if at == 0 and end + 1 != size:
            raise ParseError("query")
        return payload[at:end], end + 1

    def _read(self, text: bytes, cut: bool) -> sql.Statement:
        settled = not self._changing
        how = sql.Session(mysql=False, escapes=self._escapes if settled else None, encoding=self._encoding and settled)
        return sql.read(text, how, cut=cut)

    def _run(self, statement: sql.Statement) -> None:
        """What it may change."""
        self._changing |= statement.sets
        if not _NAMING.isdisjoint(statement.verbs):
            for key in list(self._names):
                self._name(key, _UNKNOWN)

    def _say(self, command: bytes, statement: sql.Statement | None = None) -> None:
        fields: dict[str, Value] = {"postgres.command": command}
        if statement:
            if statement is not _UNKNOWN:
                fields["postgres.verb"] = statement.verbs
                fields["postgres.tables"] = statement.tables
                fields["postgres.cut"] = int(statement.cut)
            if statement.files:
                fields["postgres.files"] = statement.files
            fields["postgres.unsure"] = int(statement.unsure)
        self._events.append(Said("postgres", fields | self._who))

    # Names of statements and portals.

    def _name(self, key: bytes, statement: sql.Statement | None) -> None:
        """From here on a name stands for this, or for nothing."""
        before = self._names.get(key)
        if before is None and len(key) > 1:
            before = _UNKNOWN  # PREPARE and DECLARE give names as well
        if before is not None:
            older = self._older.get(key)
            self._keep(self._older, key, _either(older, before) if older else before)
            self._given[key] = self._batch
        self._keep(self._names, key, statement)
        while self._held > self.limits.statements and self._names:
            self._keep(self._names, next(iter(self._names)), None)
        if self._held > self.limits.statements:
            self._settle()

    def _keep(self, names: dict[bytes, sql.Statement], key: bytes, statement: sql.Statement | None) -> None:
        before = names.pop(key, None)
        if before is not None:
            self._held -= len(key) + before.size
        if statement is not None:
            names[key] = statement
            self._held += len(key) + statement.size

    def _settle(self) -> None:
        """Names stand for what they stand for."""
        for key in self._given:
            self._keep(self._older, key, None)
        self._given.clear()

    def _resolved(self, key: bytes) -> sql.Statement:
        """What a name may stand for."""
        statement, older = self._names.get(key, _UNKNOWN), self._older.get(key)
        return statement if older is None or self._given[key] == self._batch else _either(older, statement)

    def _end_batch(self) -> None:
        self._batch += 1
        self._begun = False
        self._waiting += 1

    def _ready(self) -> None:
        """ReadyForQuery."""
        self._waiting = max(self._waiting - 1, 0)
        if self._waiting or self._begun:
            return
        if self._failed:
            for key, older in self._older.items():
                self._keep(self._names, key, _either(older, self._names.get(key, older)))
        self._settle()
        self._failed = self._changing = False

    # From the server.

    def _feed_server(self, data: bytes) -> None:
        messages = self._messages[TO_CLIENT]
        at, end = 0, len(data)
        if self._phase == _ANSWER and end:
            at = self._answered(data)
            if self._switched:
                return
        while at < end:
            if not messages.open:
                if self._phase == _STARTUP:
                    raise ParseError("unasked_answer")
                if not messages.header and end - at > 4:
                    at = self._over(data, at)
                header = data[at : at + 5 - len(messages.header)]
                messages.header += header
                at += len(header)
                if header and messages.header[0] not in _FROM_SERVER:
                    raise ParseError("unknown_answer")
                if len(messages.header) < 5:
                    return
                self._at = at
                size = int.from_bytes(messages.header[1:], "big")
                messages.kind = messages.header[0]
                messages.header.clear()
                if not 4 <= size <= self.limits.message + 4:
                    raise ParseError("length")
                messages.size = messages.left = size - 4
                messages.keep = min(size - 4, 256) if messages.kind in _READ else 0
                messages.open = True
            else:
                at += self._take(messages, data, at)
            if not messages.left:
                messages.open = False
                self._at = at
                payload = bytes(messages.kept)
                messages.kept.clear()
                self._got(messages.kind, payload)

    def _over(self, data: bytes, at: int) -> int:
        """Step over whole messages that say nothing here."""
        end, most = len(data), self.limits.message
        while at + 4 < end:
            size = int.from_bytes(data[at + 1 : at + 5], "big")
            if data[at] in _READ or data[at] not in _FROM_SERVER or not 4 <= size <= most or at + 1 + size > end:
                break
            at += 1 + size
        return at

    def _answered(self, data: bytes) -> int:
        """The server's byte to a request for encryption."""
        answer = data[:1]
        if answer == b"S" and self._request == _SSL_REQUEST:
            self._switched = True
            self._events.append(Switched("tls", bytes(self._behind), data[1:]))
            self._behind.clear()
        elif answer == b"G" and self._request == _GSS_REQUEST:
            raise ParseError("gss_encryption")
        elif answer == b"N":
            self._phase = _STARTUP
            behind = bytes(self._behind)
            self._behind.clear()
            self._feed_client(behind)
            return 1
        elif answer == b"E":
            # A server that knows no such request, or takes no more clients.
            self._phase = _OVER
            self._behind.clear()
            return 0
        else:
            raise ParseError("encryption_answer")
        return len(data)

    def _got(self, kind: int, payload: bytes) -> None:
        if kind == 0x5A:  # ReadyForQuery
            self._ready()
        elif kind == 0x45:  # ErrorResponse
            self._failed = True
        elif kind == 0x52:  # Authentication
            self._authenticated |= payload == b"\0\0\0\0"
        elif kind == 0x53:  # ParameterStatus
            name, _, value = payload.partition(b"\0")
            if name == b"standard_conforming_strings":
                self._escapes = value != b"on\0"
            elif name == b"client_encoding":
                self._encoding = value.rstrip(b"\0").upper() not in _MIXED


def _either(one: sql.Statement, other: sql.Statement) -> sql.Statement:
    """What stands for one or the other stands for neither."""
    return one if one == other else _UNKNOWN


__all__ = ["Limits", "PostgresParser"]
