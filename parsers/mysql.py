"""The client/server protocol of MySQL and MariaDB, both directions.

Read are the greeting, logins (4.1 and 3.20), COM_CHANGE_USER, every command, and of the answers as much as tells which
statement an id stands for, whether a change of user or database held, how text is quoted, and whether the
server asks for a file (LOCAL INFILE). Rows, columns, parameters and files are stepped over by their packets' headers.

A command is a packet with number 0; a packet with another is refused unless the server has asked for it (a file, an
authentication exchange): servers refuse it too. Before the login is through nothing may follow it. PING, QUIT,
SEND_LONG_DATA, CLOSE, RESET and FETCH of statements are no units: they do nothing that was not judged. Compression is
read where it is zlib's; with zstd everything behind the login is ParseError("compressed").

Statements: `parsers.sql`. One that follows, before its answer, another that changes user, database or the way text is
read is `unsure`, as is the execution of a statement that the server has not confirmed or that is remembered no more.

MySQL 8.0 Source Code Documentation, "Client/Server Protocol" (the order of column count and metadata flag is the
server's, sql/protocol_classic.cc); MariaDB documentation, "Client/Server Protocol".
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from parsers import sql
from parsers.base import TO_CLIENT, TO_SERVER, Event, Field, Kind, ParseError, Parser, Said, Switched, Value


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # Servers take 64 KiB of connection attributes; libmysql sends below 1 KiB.
    login: int = 64 * 1024
    # Attributes of a query, before its text.
    attributes: int = 16 * 1024
    # Names of databases are 64 characters; the file of LOCAL INFILE is a path.
    name: int = 1024
    path: int = 4096
    # max_allowed_packet is 1 GiB at most.
    command: int = 1 << 30
    # Commands without an answer; and what is kept of them and of prepared statements, in bytes.
    unanswered: int = 1024
    statements: int = 128 * 1024
    # Packets of an authentication exchange: plugins use up to 6.
    rounds: int = 64


_GREETING, _LOGIN, _AUTHENTICATION, _COMMANDS, _OVER = range(5)

# Capabilities.
_CONNECT_WITH_DB = 1 << 3
_COMPRESS = 1 << 5
_PROTOCOL_41 = 1 << 9
_SSL = 1 << 11
_SECURE_CONNECTION = 1 << 15
_PLUGIN_AUTH = 1 << 19
_CONNECT_ATTRS = 1 << 20
_AUTH_LENENC = 1 << 21
_DEPRECATE_EOF = 1 << 24
_OPTIONAL_METADATA = 1 << 25
_ZSTD = 1 << 26
_QUERY_ATTRIBUTES = 1 << 27
# MariaDB's own, where the first bit of all is missing on both sides.
_MYSQL = 1
_CACHE_METADATA = 1 << 36
# With these the meaning of bytes changes: a client that sets what was not offered is refused. Not so query attributes:
# mysql2 sets theirs to every server, and sends none to those that did not offer them.
_DECISIVE = _COMPRESS | _SSL | _ZSTD

# Status of a session.
_MORE_RESULTS = 0x0008
_CURSOR = 0x0040
_NO_BACKSLASHES = 0x0200

# How a command is answered: not at all, by one packet, by results, by columns or rows, by a statement's id,
# by an authentication exchange, by a stream of events.
_NONE, _ONE, _RESULTS, _ROWS_ONLY, _PREPARED, _EXCHANGE, _STREAM = range(7)

_INIT_DB, _QUERY, _FIELD_LIST, _CREATE_DB, _DROP_DB, _CHANGE_USER = 0x02, 0x03, 0x04, 0x05, 0x06, 0x11
_PREPARE, _EXECUTE, _CLOSE, _BULK, _RESET_CONNECTION, _QUIT = 0x16, 0x17, 0x19, 0xFA, 0x1F, 0x01
_COMMAND: Final[dict[int, tuple[bytes, int]]] = {
    0x00: (b"sleep", _ONE),
    _QUIT: (b"", _NONE),
    _INIT_DB: (b"init_db", _ONE),
    _QUERY: (b"query", _RESULTS),
    _FIELD_LIST: (b"field_list", _ROWS_ONLY),
    _CREATE_DB: (b"create_db", _ONE),
    _DROP_DB: (b"drop_db", _ONE),
    0x07: (b"refresh", _ONE),
    0x08: (b"shutdown", _ONE),
    0x09: (b"statistics", _ONE),
    0x0A: (b"process_info", _RESULTS),
    0x0B: (b"connect", _ONE),
    0x0C: (b"process_kill", _ONE),
    0x0D: (b"debug", _ONE),
    0x0E: (b"", _ONE),  # PING
    0x0F: (b"time", _ONE),
    0x10: (b"delayed_insert", _ONE),
    _CHANGE_USER: (b"change_user", _EXCHANGE),
    0x12: (b"binlog_dump", _STREAM),
    0x13: (b"table_dump", _STREAM),
    0x14: (b"connect_out", _ONE),
    0x15: (b"register_slave", _ONE),
    _PREPARE: (b"stmt_prepare", _PREPARED),
    _EXECUTE: (b"stmt_execute", _RESULTS),
    0x18: (b"", _NONE),  # STMT_SEND_LONG_DATA
    _CLOSE: (b"", _NONE),
    0x1A: (b"", _ONE),  # STMT_RESET
    0x1B: (b"set_option", _ONE),
    0x1C: (b"", _ROWS_ONLY),  # STMT_FETCH
    0x1D: (b"daemon", _ONE),
    0x1E: (b"binlog_dump_gtid", _STREAM),
    _RESET_CONNECTION: (b"reset_connection", _ONE),
    _BULK: (b"stmt_bulk_execute", _RESULTS),
}
_NAMING: Final = frozenset((_INIT_DB, _FIELD_LIST, _CREATE_DB, _DROP_DB))
# A replica's acknowledgement of an event: no command.
_SEMISYNC = 0xEF
# MariaDB: the statement that was prepared last.
_LAST = 0xFFFFFFFF

_FULL = 0xFFFFFF


def _is_utf8(collation: int) -> bool:
    """By the numbers of both servers."""
    return (
        collation in {33, 45, 46, 76, 83}
        or 192 <= collation <= 247
        or 255 <= collation <= 323
        or 576 <= collation <= 578
        or 608 <= collation <= 610
        or 2048 <= collation <= 2559
    )


class _Cursor:
    """Reads a payload; what is not there is a ParseError."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> bytes:
        """So many bytes."""
        if not 0 <= size <= len(self.data) - self.at:
            raise ParseError("length")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        """An integer of a fixed size."""
        return int.from_bytes(self.take(size), "little")

    def text(self) -> bytes:
        """Text up to its NUL."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ParseError("unterminated")
        start, self.at = self.at, end + 1
        return self.data[start:end]

    def count(self) -> int:
        """An integer of variable size."""
        first = self.number(1)
        if first < 0xFB:
            return first
        if first not in {0xFC, 0xFD, 0xFE}:
            raise ParseError("length")
        return self.number({0xFC: 2, 0xFD: 3, 0xFE: 8}[first])

    def counted(self) -> bytes:
        """Text behind its length."""
        return self.take(self.count())

    @property
    def left(self) -> int:
        """Bytes to come."""
        return len(self.data) - self.at


@dataclass(slots=True)
class _Session:
    """What commands are judged with."""

    user: bytes = b""
    database: bytes | None = b""  # None: it is not known
    plugin: bytes = b""
    program: bytes | None = None
    encoding: bool = False
    doubtful: bool = False  # text was run that nobody has seen


@dataclass(slots=True)
class _Asked:
    """A command that waits for its answer."""

    reply: int
    statement: sql.Statement | None = None
    generation: int = 0
    before: _Session | None = None  # it changes the session, from this
    certain: bool = True  # `before` is
    partly: bool = False  # a part of it may hold though the whole is refused
    resets: bool = False  # statements are forgotten


# Where in an answer: a result's first packet, its columns, its rows; definitions behind a statement's id.
_HEAD, _COLUMNS, _ROWS, _DEFINITIONS = range(4)


@dataclass(slots=True)
class _Reply:
    state: int = _HEAD
    left: int = 0


class _Packets:
    """One direction's framing."""

    __slots__ = ("first", "header", "keep", "kept", "left", "more", "number", "open", "role", "size")

    def __init__(self) -> None:
        self.header = bytearray()
        self.kept = bytearray()
        self.keep = 0
        self.left = 0  # of this packet
        self.size = 0  # of the payload so far, all packets
        self.number = 0
        self.first = 0  # number of the payload's first packet
        self.open = False
        self.more = False  # the payload goes on in another packet
        self.role = 0


# What a client's payload is.
_IS_LOGIN, _IS_EXCHANGE, _IS_COMMAND, _IS_FILE = range(4)


class MysqlParser(Parser):
    """One connection; see `parsers.base.Parser`."""

    name = "mysql"
    fields = (
        Field(
            "mysql.command", "login, query, stmt_prepare, stmt_execute, change_user, init_db, infile ...", folded=True
        ),
        Field("mysql.verb", "first words of its statements and their subqueries", Kind.LIST, folded=True),
        Field("mysql.tables", "tables that it names, with their database where one is known", Kind.LIST, folded=True),
        Field("mysql.files", "files that its statements read or write", Kind.LIST),
        Field("mysql.unsure", "1: it may do more than verb and tables say", Kind.NUMBER),
        Field("mysql.cut", "1: only the first 64 KiB of its text were looked at", Kind.NUMBER),
        Field("mysql.user", "who is logged in, or asks to be"),
        Field("mysql.database", "the default database; empty: none, missing: not known", folded=True),
        Field("mysql.plugin", "authentication plugin of the login", folded=True),
        Field("mysql.program", "program_name of the login's attributes"),
        Field("mysql.server", "version that the server's greeting names", once=True),
        Field("mysql.infile", "file that the server asks the client for"),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._offset = [0, 0]
        self._at = 0
        self._events: list[Event] = []
        self._packets = (_Packets(), _Packets())
        self._inflate: tuple[_Inflate, _Inflate] | None = None
        self._phase = _GREETING
        self._server = b""
        self._offered = 0
        self._agreed = 0
        self._unoffered = 0
        self._status = 0
        self._rounds = 0
        self._switched = False
        self._session = _Session()
        self._asked: deque[_Asked] = deque()
        self._changing = 0  # of those that wait how many change the session
        self._reply = _Reply()
        self._file = -1  # number of the next packet of a file that was asked for
        self._statements: dict[int, sql.Statement] = {}
        self._last: sql.Statement | None = None
        self._generation = 0
        self._held = 0

    @property
    def buffered(self) -> int:
        """Bytes retained; not zlib's window, 32 KiB a direction while a piece is read."""
        framing = sum(len(each.header) + len(each.kept) for each in self._packets)
        return framing + self._held + 32 * len(self._asked)

    def pending(self, direction: int) -> bool:
        """A login, a command or the request for a file is incomplete."""
        packets = self._packets[direction]
        begun = packets.open or bool(packets.header) or packets.more
        if self._inflate:
            begun = begun or self._inflate[direction].begun
        if direction == TO_CLIENT:
            asked = self._asked[0].reply if self._asked else _NONE
            if not begun or asked != _RESULTS or self._reply.state != _HEAD:
                return False
            return not packets.kept or packets.kept[0] == 0xFB
        if not begun or self._file >= 0 or self._phase == _AUTHENTICATION:
            return False
        if not (packets.open or packets.more):
            return not self._exchanging()
        if packets.role == _IS_COMMAND:
            return not packets.kept or bool(_COMMAND[packets.kept[0]][0])
        return packets.role == _IS_LOGIN

    def gap(self, direction: int, size: int) -> list[Event]:
        """Within what is stepped over, of a packet that goes on, nothing is lost."""
        packets = self._packets[direction]
        over = packets.open and packets.left >= size and len(packets.kept) >= packets.keep and not self._inflate
        if not over or packets.left == size:
            raise ParseError("gap", self._offset[direction] + size)
        packets.left -= size
        self._offset[direction] += size
        return []

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction."""
        self._events = []
        self._at = 0
        try:
            if self._switched:
                raise ParseError("after_switch")
            if self._inflate:
                self._inflated(direction, data)
            else:
                self._feed(direction, data)
        except ParseError as error:
            raise ParseError(error.code, self._offset[direction] + self._at, self._events) from None
        self._offset[direction] += len(data)
        return self._events

    def _inflated(self, direction: int, data: bytes) -> None:
        assert self._inflate
        start = self._at
        for end, plain in self._inflate[direction].feed(data):
            self._feed(direction, plain)
            self._at = start + end
        self._at = start + len(data)

    def _feed(self, direction: int, data: bytes) -> None:
        packets = self._packets[direction]
        at, end = 0, len(data)
        while at < end:
            if not packets.open:
                if direction == TO_CLIENT and not packets.header and not packets.more:
                    at = self._rows(data, at)
                header = data[at : at + 4 - len(packets.header)]
                packets.header += header
                at += len(header)
                if len(packets.header) < 4:
                    break
                self._at = at
                self._open(direction, packets)
            else:
                take = min(packets.left, end - at)
                if len(packets.kept) < packets.keep:
                    if not packets.kept and direction == TO_SERVER and packets.role == _IS_COMMAND:
                        packets.keep = self._keeps(data[at])
                    packets.kept += data[at : at + min(take, packets.keep - len(packets.kept))]
                packets.left -= take
                at += take
            if packets.left:
                continue
            packets.open = False
            if packets.more:
                continue
            self._at = at
            payload = bytes(packets.kept)
            packets.kept.clear()
            plain = self._inflate is None
            if direction == TO_SERVER:
                self._sent(packets, payload)
            else:
                self._got(packets, payload)
            if self._switched:
                self._events.append(Switched("tls", data[at:]))
                return
            if plain and self._inflate:
                # The server's OK: what follows it is compressed.
                self._at = at
                self._inflated(direction, data[at:])
                return

    def _rows(self, data: bytes, at: int) -> int:
        """Step over whole rows."""
        if self._reply.state != _ROWS:
            return at
        end = len(data)
        while at + 4 < end:
            size = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            if size == 0 or data[at + 4] >= 0xFE or size == _FULL or at + 4 + size >= end:
                break
            at += 4 + size
        return at

    def _open(self, direction: int, packets: _Packets) -> None:
        """A packet's header is complete."""
        size, number = int.from_bytes(packets.header[:3], "little"), packets.header[3]
        packets.header.clear()
        if not packets.more:
            packets.size, packets.first, packets.keep = 0, number, 0
            if direction == TO_SERVER:
                self._sends(packets, size, number)
            else:
                packets.keep = self._awaits(size)
        elif number != (packets.number + 1) & 0xFF and not self._inflate:
            raise ParseError("sequence")
        packets.number = number
        packets.left = size
        packets.size += size
        packets.more = size == _FULL
        packets.open = True
        if direction == TO_SERVER and packets.role != _IS_FILE and packets.size > self.limits.command:
            raise ParseError("too_long")

    # From the client.

    def _exchanging(self) -> bool:
        return bool(self._asked) and self._asked[0].reply == _EXCHANGE

    def _sends(self, packets: _Packets, size: int, number: int) -> None:
        """The client begins a payload."""
        if self._phase == _GREETING:
            raise ParseError("before_greeting")
        if self._phase == _OVER:
            raise ParseError("after_the_end")
        if self._phase == _LOGIN:
            if number != 1:
                raise ParseError("sequence")
            packets.role, packets.keep = _IS_LOGIN, self.limits.login
            if size > self.limits.login:
                raise ParseError("login_too_long")
        elif self._phase == _AUTHENTICATION or (number and self._exchanging() and self._file < 0):
            if not number:
                raise ParseError("early_command")
            packets.role = _IS_EXCHANGE
            self._round(size)
        elif self._file >= 0:
            if number != self._file and not self._inflate:
                raise ParseError("sequence")
            packets.role = _IS_FILE
        else:
            if number:
                raise ParseError("sequence")
            if self._asked and self._asked[-1].reply == _EXCHANGE:
                # Whose would it be? MariaDB goes on with the user of before where the new one is refused.
                raise ParseError("early_command")
            if not size:
                raise ParseError("empty_command")
            packets.role, packets.keep = _IS_COMMAND, 1

    def _round(self, size: int) -> None:
        self._rounds += 1
        if self._rounds > self.limits.rounds or size > self.limits.login:
            raise ParseError("exchange_too_long")

    def _keeps(self, command: int) -> int:
        """How much of a command is kept."""
        if command == _SEMISYNC and self._asked and self._asked[0].reply == _STREAM:
            self._packets[TO_SERVER].role = _IS_EXCHANGE
            return 0
        if command not in _COMMAND:
            raise ParseError("unknown_command")
        if command in {_QUERY, _PREPARE}:
            return 1 + sql.LOOKED_AT + (self.limits.attributes if self._agreed & _QUERY_ATTRIBUTES else 0)
        if command == _CHANGE_USER:
            return 1 + self.limits.login
        return 1 + self.limits.name if command in _NAMING else 5

    def _sent(self, packets: _Packets, payload: bytes) -> None:
        """The client's payload is complete."""
        if packets.role == _IS_LOGIN:
            self._login(payload)
        elif packets.role == _IS_COMMAND:
            self._command(payload, packets.size)
        elif packets.role == _IS_FILE:
            self._file = (packets.number + 1) & 0xFF if packets.size else -1

    def _login(self, payload: bytes) -> None:
        cursor = _Cursor(payload)
        asked = cursor.number(2)
        if asked & _PROTOCOL_41:
            asked |= cursor.number(2) << 16
        if asked & _DECISIVE & ~self._offered:
            raise ParseError("capability")
        if asked & _SSL:
            if len(payload) != (32 if asked & _PROTOCOL_41 else 5):
                raise ParseError("ssl_request")
            self._switched = True
            return
        session = self._session
        if asked & _PROTOCOL_41:
            cursor.take(4)
            session.encoding = _is_utf8(cursor.number(1))
            cursor.take(19)
            extended = cursor.number(4)
            if not (asked | self._offered) & _MYSQL:
                asked |= extended << 32
            session.user = cursor.text()
            if asked & _AUTH_LENENC:
                cursor.counted()
            elif asked & _SECURE_CONNECTION:
                cursor.take(cursor.number(1))
            else:
                cursor.text()
            # Clients leave the end off, with what it terminates.
            session.database = cursor.text() if asked & _CONNECT_WITH_DB and cursor.left else b""
            if asked & _PLUGIN_AUTH and cursor.left:
                session.plugin = cursor.text()
            if asked & _CONNECT_ATTRS and cursor.left:
                session.program = _program(cursor.counted())
        else:
            cursor.take(3)
            session.user = cursor.text()
            if asked & _CONNECT_WITH_DB:
                cursor.text()
                session.database = cursor.text() if cursor.left else b""
        self._agreed = asked & self._offered
        self._unoffered = asked & ~self._offered
        self._phase = _AUTHENTICATION
        self._say(b"login")

    def _command(self, payload: bytes, size: int) -> None:
        code = payload[0]
        command, reply = _COMMAND[code]
        asked = _Asked(reply)
        statement: sql.Statement | None = None
        doubtful = False
        cursor = _Cursor(payload, 1)
        if code in {_QUERY, _PREPARE}:
            if code == _QUERY and self._agreed & _QUERY_ATTRIBUTES:
                _skip_attributes(cursor)
            elif code == _QUERY and self._unoffered & _QUERY_ATTRIBUTES and payload[2:3] == b"\1":
                # The one set of attributes; no statement has this byte there.
                raise ParseError("attributes")
            statement = self._read(payload[cursor.at :], cut=size > len(payload))
            if code == _PREPARE:
                asked.statement = self._last = statement
                asked.generation = self._generation
        elif code in {_EXECUTE, _BULK}:
            number = cursor.number(4)
            statement = self._last if number == _LAST else self._statements.get(number)
            doubtful = statement is None
        elif code == _CLOSE:
            closed = self._statements.pop(cursor.number(4), None)
            self._held -= closed.size if closed else 0
        elif code in _NAMING:
            if size > len(payload):
                raise ParseError("name_too_long")
            name = payload[1:]
            if code == _INIT_DB:
                self._change(asked, replace(self._session, database=name))
            elif code == _FIELD_LIST:
                table = cursor.text()
                database = self._database
                names = (database + b"." + table if database else table,)
                statement = sql.Statement((b"show",), names, unsure=database is None)
            else:
                statement = sql.Statement((b"create" if code == _CREATE_DB else b"drop",), (name + b".*",))
        elif code == _CHANGE_USER:
            if size > len(payload):
                raise ParseError("login_too_long")
            self._change(asked, self._changed_user(cursor))
            self._forget()
            asked.resets = True
            self._rounds = 0
        elif code == _RESET_CONNECTION:
            self._change(asked, replace(self._session, encoding=False, doubtful=False))
            self._forget()
            asked.resets = True
        elif code == _QUIT:
            self._phase = _OVER
        if command:
            self._say(command, statement, doubtful=doubtful)
        if statement and code in {_QUERY, _EXECUTE, _BULK}:
            self._changes(asked, statement)
        if reply != _NONE:
            self._ask(asked)

    def _ask(self, asked: _Asked) -> None:
        self._asked.append(asked)
        self._changing += asked.before is not None
        self._held += asked.statement.size if asked.statement else 0
        if len(self._asked) > self.limits.unanswered or self._held > 2 * self.limits.statements:
            raise ParseError("unanswered")

    def _read(self, text: bytes, *, cut: bool) -> sql.Statement:
        session = self._session
        settled = not self._changing
        how = sql.Session(
            mysql=True,
            escapes=not self._status & _NO_BACKSLASHES if settled else None,
            encoding=session.encoding and settled,
            database=self._database,
        )
        statement = sql.read(text, how, cut=cut)
        if self._changing or session.doubtful:
            statement = replace(statement, unsure=True)
        return statement

    def _changes(self, asked: _Asked, statement: sql.Statement) -> None:
        """A statement that is run may change the session."""
        if statement.used is None and not statement.sets:
            return
        changed = replace(self._session)
        if statement.used is not None:
            changed.database = statement.used
        if statement.encoding is not None:
            changed.encoding = statement.encoding[:4] == b"utf8"
        if statement.sets and statement.unsure:
            changed.doubtful, changed.database = True, None
        asked.partly = statement.verbs not in {(b"use",), (b"set",)}
        self._change(asked, changed)

    def _change(self, asked: _Asked, session: _Session) -> None:
        asked.before, asked.certain = self._session, not self._changing
        self._session = session

    def _changed_user(self, cursor: _Cursor) -> _Session:
        user = cursor.text()
        if self._agreed & _SECURE_CONNECTION:
            cursor.take(cursor.number(1))
        else:
            cursor.text()
        changed = _Session(user, cursor.text(), program=self._session.program)
        if cursor.left >= 2:
            changed.encoding = _is_utf8(cursor.number(2))
        if self._agreed & _PLUGIN_AUTH and cursor.left:
            changed.plugin = cursor.text()
        if self._agreed & _CONNECT_ATTRS and cursor.left:
            changed.program = _program(cursor.counted())
        return changed

    def _forget(self) -> None:
        """Prepared statements are gone; answers to come are of those before."""
        self._held -= sum(each.size for each in self._statements.values())
        self._statements.clear()
        self._last = None
        self._generation += 1

    def _say(self, command: bytes, statement: sql.Statement | None = None, *, doubtful: bool = False) -> None:
        fields: dict[str, Value] = {"mysql.command": command}
        if statement:
            fields["mysql.verb"] = statement.verbs
            fields["mysql.tables"] = statement.tables
            fields["mysql.unsure"] = int(statement.unsure)
            fields["mysql.cut"] = int(statement.cut)
            if statement.files:
                fields["mysql.files"] = statement.files
        elif doubtful:
            fields["mysql.unsure"] = 1
        fields |= self._who()
        if self._changing and command not in {b"init_db", b"change_user"}:
            fields.pop("mysql.database", None)
        self._events.append(Said("mysql", fields))

    @property
    def _database(self) -> bytes | None:
        """That of the next command."""
        return None if self._changing else self._session.database

    def _who(self) -> dict[str, Value]:
        session = self._session
        fields: dict[str, Value] = {"mysql.user": session.user, "mysql.server": self._server}
        if session.database is not None:
            fields["mysql.database"] = session.database
        if session.plugin:
            fields["mysql.plugin"] = session.plugin
        if session.program is not None:
            fields["mysql.program"] = session.program
        return fields

    # From the server.

    def _awaits(self, size: int) -> int:
        """How much of the server's next payload is kept."""
        if self._phase == _GREETING:
            if size > self.limits.name:
                raise ParseError("greeting")
            return size
        return 1 + self.limits.path if self._reply.state == _HEAD else 32

    def _got(self, packets: _Packets, payload: bytes) -> None:
        """The server's payload is complete."""
        if self._phase == _GREETING:
            self._greeted(payload)
        elif self._phase == _LOGIN:
            # Time is up, or the server goes down.
            if payload[:1] != b"\xff":
                raise ParseError("unasked_answer")
            self._phase = _OVER
        elif self._phase == _AUTHENTICATION:
            self._round(0)
            if payload[:1] == b"\xff":
                self._phase = _OVER
            elif payload[:1] == b"\0":
                self._note(payload, ok=True)
                self._phase = _COMMANDS
                if self._agreed & (_COMPRESS | _ZSTD):
                    self._inflate = (
                        _Inflate(zstd=not self._agreed & _COMPRESS),
                        _Inflate(zstd=not self._agreed & _COMPRESS),
                    )
        elif payload:
            self._answer(packets, payload)
        elif not self._asked or self._asked[0].reply not in {_ONE, _STREAM, _EXCHANGE}:
            raise ParseError("empty_answer")

    def _greeted(self, payload: bytes) -> None:
        if payload[:1] == b"\xff":
            self._phase = _OVER
            return
        cursor = _Cursor(payload)
        if cursor.number(1) != 10:
            raise ParseError("version")
        self._server = cursor.text()
        cursor.take(13)
        self._offered = cursor.number(2)
        if cursor.left:
            cursor.take(1)
            self._status = cursor.number(2)
            self._offered |= cursor.number(2) << 16
            cursor.take(7)
            extended = cursor.number(4)
            if not self._offered & _MYSQL:
                self._offered |= extended << 32
        self._phase = _LOGIN

    def _answer(self, packets: _Packets, payload: bytes) -> None:
        first = payload[0]
        if not self._asked:
            if first != 0xFF:
                raise ParseError("unasked_answer")
            return  # it says why it closes
        asked, reply = self._asked[0], self._reply
        if first == 0xFF and reply.state != _DEFINITIONS:
            # MariaDB tells of progress by errors of this number.
            if payload[1:3] != b"\xff\xff":
                self._answered(ok=False)
        elif asked.reply == _ONE:
            self._note(payload, ok=first == 0)
            self._answered(ok=True)
        elif asked.reply == _EXCHANGE:
            self._round(0)
            if first == 0:
                self._note(payload, ok=True)
                self._answered(ok=True)
        elif asked.reply == _STREAM:
            if first == 0xFE and packets.size < 9:
                self._answered(ok=True)
        elif asked.reply == _PREPARED:
            self._prepared(asked, payload)
        elif asked.reply == _ROWS_ONLY or reply.state == _ROWS:
            if first == 0xFE and packets.size < (_FULL if self._agreed & _DEPRECATE_EOF else 9):
                self._ended(payload)
        elif reply.state == _HEAD:
            self._result(packets, payload)
        else:
            self._column(asked, payload)

    def _result(self, packets: _Packets, payload: bytes) -> None:
        """First packet of a result."""
        reply, first = self._reply, payload[0]
        if first == 0:
            self._note(payload, ok=True)
            if not self._status & _MORE_RESULTS:
                self._answered(ok=True)
            return
        if first == 0xFB:
            if packets.size > len(payload):
                raise ParseError("path_too_long")
            self._file = (packets.number + 1) & 0xFF
            fields: dict[str, Value] = {"mysql.command": b"infile", "mysql.infile": payload[1:]}
            self._events.append(Said("mysql", fields | self._who(), TO_CLIENT))
            return
        cursor = _Cursor(payload)
        columns = cursor.count()
        if not 0 < columns < 65536:
            raise ParseError("column_count")
        named = not (self._agreed & (_OPTIONAL_METADATA | _CACHE_METADATA) and cursor.left) or cursor.number(1)
        reply.left = (columns if named else 0) + (not self._agreed & _DEPRECATE_EOF)
        reply.state = _COLUMNS if reply.left else _ROWS

    def _column(self, asked: _Asked, payload: bytes) -> None:
        """A column's definition, or the EOF behind the last."""
        reply = self._reply
        reply.left -= 1
        if reply.left:
            return
        reply.state = _ROWS
        if not self._agreed & _DEPRECATE_EOF:
            if payload[0] != 0xFE:
                raise ParseError("column_count")
            if int.from_bytes(payload[3:5], "little") & _CURSOR and asked.reply == _RESULTS:
                self._ended(payload)

    def _ended(self, payload: bytes) -> None:
        """Behind the last row."""
        self._note(payload, ok=bool(self._agreed & _DEPRECATE_EOF))
        self._reply.state = _HEAD
        if self._asked[0].reply != _RESULTS or not self._status & _MORE_RESULTS:
            self._answered(ok=True)

    def _prepared(self, asked: _Asked, payload: bytes) -> None:
        reply = self._reply
        if reply.state == _DEFINITIONS:
            reply.left -= 1
            if not reply.left:
                self._answered(ok=True)
            return
        cursor = _Cursor(payload)
        if cursor.number(1):
            raise ParseError("prepare_answer")
        number, columns, parameters = cursor.number(4), cursor.number(2), cursor.number(2)
        named = True
        if self._agreed & _OPTIONAL_METADATA and cursor.left > 3:
            cursor.take(3)
            named = bool(cursor.number(1))
        if asked.statement and asked.generation == self._generation:
            self._remember(number, asked.statement)
        closing = not self._agreed & _DEPRECATE_EOF
        reply.left = sum(count + closing for count in (columns, parameters) if count) if named else 0
        if reply.left:
            reply.state = _DEFINITIONS
        else:
            self._answered(ok=True)

    def _remember(self, number: int, statement: sql.Statement) -> None:
        before = self._statements.pop(number, None)
        self._held += statement.size - (before.size if before else 0)
        self._statements[number] = statement
        kept = sum(each.size for each in self._statements.values()) if self._held > self.limits.statements else 0
        while kept > self.limits.statements:
            oldest = self._statements.pop(next(iter(self._statements)))
            self._held -= oldest.size
            kept -= oldest.size

    def _answered(self, *, ok: bool) -> None:
        """The first of the commands that wait has its answer."""
        asked = self._asked.popleft()
        self._reply.state = _HEAD
        self._file = -1
        self._held -= asked.statement.size if asked.statement else 0
        if asked.statement and not ok and asked.statement is self._last:
            self._last = None
        if asked.before is None:
            return
        self._changing -= 1
        if ok:
            return
        if asked.certain and not self._changing and not asked.partly:
            self._session = asked.before
        else:
            session = asked.before if asked.reply == _EXCHANGE else self._session
            self._session = replace(session, database=None, encoding=False)

    def _note(self, payload: bytes, *, ok: bool) -> None:
        """The session's status, of an OK or EOF."""
        if not ok:
            if payload[0] == 0xFE and len(payload) >= 5:
                self._status = int.from_bytes(payload[3:5], "little")
            return
        cursor = _Cursor(payload, 1)
        cursor.count()
        cursor.count()
        self._status = cursor.number(2) if cursor.left >= 2 else 0


class _Inflate:
    """The compressed protocol of one direction: length, number and plain length before each piece, which is
    plain itself where the latter is 0.
    """

    def __init__(self, *, zstd: bool) -> None:
        self._zstd = zstd
        self._header = bytearray()
        self._left = 0  # of the piece
        self._plain = 0  # that it has to make
        self._z: Any = None

    @property
    def begun(self) -> bool:
        """A piece is incomplete."""
        return bool(self._header) or self._left > 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Plain bytes, little by little, and where in `data` they end."""
        at = 0
        while at < len(data):
            if self._zstd:
                raise ParseError("compressed")
            if not self._left:
                header = data[at : at + 7 - len(self._header)]
                self._header += header
                at += len(header)
                if len(self._header) < 7:
                    return
                self._left, self._plain = _three(self._header, 0), _three(self._header, 4)
                self._header.clear()
                self._z = zlib.decompressobj() if self._plain else None
                if not self._left:
                    raise ParseError("compressed_size")
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._z is None:
                yield at, piece
                continue
            for plain in self._inflated(piece):
                yield at, plain[: self._plain]  # what is promised is told before the offence, however it was cut
                self._plain -= len(plain)
                if self._plain < 0:
                    raise ParseError("compressed_size")
            if not self._left:
                if self._plain or not self._z.eof or self._z.unused_data:
                    raise ParseError("compressed_size")
                self._z = None

    def _inflated(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            before = self._z.copy()
            try:
                plain = self._z.decompress(piece, 64 * 1024)
            except zlib.error:
                # What comes before the offence is told, however it was cut.
                if len(piece) == 1:
                    raise ParseError("compressed") from None
                self._z = before
                yield from self._inflated(piece[: len(piece) // 2])
                piece = piece[len(piece) // 2 :]
                continue
            if plain:
                yield plain
            piece = self._z.unconsumed_tail


def _three(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def _program(attributes: bytes) -> bytes | None:
    cursor = _Cursor(attributes)
    found = None
    while cursor.left:
        key, value = cursor.counted(), cursor.counted()
        if key == b"program_name":
            found = value
    return found


# Sizes of attributes' values; others say theirs.
_SIZES: Final = {1: 1, 2: 2, 13: 2, 3: 4, 9: 4, 8: 8, 4: 4, 5: 8, 6: 0}
_TIMES: Final = frozenset((7, 10, 11, 12))


def _skip_attributes(cursor: _Cursor) -> None:
    count, sets = cursor.count(), cursor.count()
    if sets != 1:
        raise ParseError("attributes")
    if not count:
        return
    nulls = cursor.take((count + 7) // 8)
    if cursor.number(1) != 1:
        raise ParseError("attributes")
    kinds = []
    for _ in range(count):
        kinds.append(cursor.number(2) & 0xFF)
        cursor.counted()
    for index, kind in enumerate(kinds):
        if nulls[index // 8] >> index % 8 & 1:
            continue
        if kind in _SIZES:
            cursor.take(_SIZES[kind])
        elif kind in _TIMES:
            cursor.take(cursor.number(1))
        else:
            cursor.counted()


__all__ = ["Limits", "MysqlParser"]
