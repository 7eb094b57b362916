"""Redis (RESP2, RESP3 and inline commands), both directions.

After the protocol's specification (redis.io/docs/latest/develop/reference/protocol-spec) and what the server's
networking.c takes; key positions as COMMAND tells them. A command is told with the last of its arguments that is a
field: values behind it are a body, which is skipped and keeps nobody waiting. A script's text, and what MOVE, COPY
and SWAPDB do in other databases, are not looked at.

AUTH, HELLO and SELECT may fail, and commands behind them then run as who, and where, the client was before. So replies
are framed and counted, and what stands behind such a command waits for its answer (`blocked`). Where there is not one
reply a command any more (subscriptions, MONITOR, replication, CLIENT REPLY) no reply is looked at from then on, and
these commands are refused; inside a transaction too, where their answer says nothing yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Event, Field, Kind, ParseError, Parser, Said, Value


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # PROTO_INLINE_MAX_SIZE of the server: inline commands, and lines of replies.
    line: int = 64 * 1024
    # What is kept of one command: its name, options and keys.
    kept: int = 64 * 1024
    keys: int = 8192
    # proto-max-bulk-len as the server has it by default.
    bulk: int = 512 * 1024 * 1024
    # Bytes behind a command whose answer decides what they mean: one initial window.
    behind: int = 64 * 1024


FIELDS: Final = (
    Field("redis.command", "the command's name", folded=True),
    Field("redis.subcommand", "second word of commands like CONFIG SET and CLIENT KILL", folded=True),
    Field("redis.keys", "keys it names; of commands not known, such as a module's, the first argument", Kind.LIST),
    Field("redis.channels", "channels or patterns it subscribes to or publishes in", Kind.LIST),
    Field("redis.user", "who the server takes the client for, or who logs in with this command"),
    Field("redis.database", "the database it works in, or selects", Kind.NUMBER),
)

# What is to be known of a command: yields the number of the next argument wanted and is sent it; the name is known.
_Plan = Generator[int, bytes, dict[str, Value]]

_DIGITS: Final = re.compile(rb"0|[1-9]\d{0,9}")
_LENGTH: Final = re.compile(rb"-?\d{1,19}")
# As the server's sdssplitargs: a quoted part ends its word. What does not match is found out in one way back.
_WORD: Final = re.compile(
    rb"""[ \t\r]*(?![ \t\r])([^ \t\r"']*)(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\'?)*)')?(?=[ \t\r]|\Z)""", re.DOTALL
)
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
# Where the server's own reading of an inline command ends or differs from its versions.
_PLAIN: Final = frozenset(b"\0\v\f")
_ESCAPED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}

# Replies of one line, with so many bytes, and with so many values.
_SIMPLE: Final = frozenset(b"+-:,_#(")
_BULK: Final = frozenset(b"$!=")
_AGGREGATE: Final = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
_UNASKED: Final = frozenset(b">|")


def _number(text: bytes) -> int:
    """As all servers read it, or an offence."""
    if not _DIGITS.fullmatch(text):
        raise ParseError("number")
    return int(text)


def _take(places: Iterable[int]) -> Generator[int, bytes, tuple[bytes, ...]]:
    found = []
    for place in places:
        found.append((yield place))  # noqa: PERF401 (a comprehension cannot yield)
    return tuple(found)


def _range(field: str, first: int, last: int, step: int, count: int) -> _Plan:
    places = range(first, min((last if last >= 0 else count + last) + 1, count), step)
    found = yield from _take(places)
    return {field: found} if found else {}


def _keys(first: int, last: int = 0, step: int = 1) -> Callable[[int], _Plan]:
    return lambda count: _range("redis.keys", first, last or first, step, count)


def _channels(last: int) -> Callable[[int], _Plan]:
    return lambda count: _range("redis.channels", 1, last, 1, count)


def _counted(at: int, *before: int, step: int = 1) -> Callable[[int], _Plan]:
    """How many keys there are is said by an argument."""

    def plan(count: int) -> _Plan:
        keys = yield from _take(place for place in before if place < count)
        if at < count:
            number = _number((yield at)) * step
            if number >= count - at:
                raise ParseError("numkeys")
            keys += yield from _take(range(at + 1, at + 1 + number, step))
        return {"redis.keys": keys}

    return plan


def _nothing(_count: int) -> _Plan:
    return {}
    yield 0


def _subcommand(keys: frozenset[bytes] = frozenset()) -> Callable[[int], _Plan]:
    """Its second word, of those in `keys` a key behind."""

    def plan(count: int) -> _Plan:
        fields: dict[str, Value] = {}
        if count > 1:
            word = (yield 1).lower()
            fields["redis.subcommand"] = word
            if word in keys and count > 2:
                fields["redis.keys"] = ((yield 2),)
        return fields

    return plan


def _stored(option: frozenset[bytes]) -> Callable[[int], _Plan]:
    """A key, and those behind an option. Of a word that is only by chance the option's too much is told."""

    def plan(count: int) -> _Plan:
        keys = []
        word = b""
        for at in range(1, count):
            last, word = word, (yield at)
            if at == 1 or last.lower() in option:
                keys.append(word)
        return {"redis.keys": tuple(keys)}

    return plan


def _streams(count: int) -> _Plan:
    """XREAD, XREADGROUP: behind STREAMS as many keys as identifiers."""
    at = 1
    while at < count:
        word = (yield at).lower()
        at += {b"group": 3, b"count": 2, b"block": 2, b"claim": 2}.get(word, 1)
        if word == b"streams":
            found = yield from _range("redis.keys", at, at + (count - at) // 2 - 1, 1, count)
            return found
    return {}


def _migrate(count: int) -> _Plan:
    """One key, or none and those behind KEYS."""
    if count <= 3:
        return {}
    key = yield 3
    if key:
        return {"redis.keys": (key,)}
    at = 6
    while at < count:
        word = (yield at).lower()
        at += {b"auth": 2, b"auth2": 3}.get(word, 1)
        if word == b"keys":
            found = yield from _range("redis.keys", at, -1, 1, count)
            return found
    return {}


def _auth(count: int) -> _Plan:
    return {"redis.user": (yield 1) if count > 2 else b"default"}


def _hello(count: int) -> _Plan:
    """HELLO [version [AUTH user password] [SETNAME name]]."""
    fields: dict[str, Value] = {}
    at = 2
    while at < count:
        word = (yield at).lower()
        if word == b"auth" and at + 2 < count:
            fields["redis.user"] = yield at + 1
            at += 3
        elif word == b"setname":
            at += 2
        else:
            break  # the server refuses it
    return fields


def _select(count: int) -> _Plan:
    return {"redis.database": _number((yield 1))} if count > 1 else {}


def _reset(_count: int) -> _Plan:
    return {"redis.user": b"default", "redis.database": 0}
    yield 0


def _table() -> Iterator[tuple[bytes, Callable[[int], _Plan]]]:
    rows: tuple[tuple[Callable[[int], _Plan], bytes], ...] = (
        (_nothing, b"asking bgrewriteaof bgsave dbsize discard echo exec failover flushall flushdb info keys lastsave"),
        (_nothing, b"lolwut monitor multi pfselftest ping psync quit randomkey readonly readwrite replconf replicaof"),
        (_nothing, b"role save scan shutdown slaveof swapdb sync time unwatch wait waitaof"),
        (_subcommand(), b"acl client cluster command config function latency module pubsub script sentinel slowlog"),
        (_subcommand(frozenset((b"object",))), b"debug"),
        (_subcommand(frozenset((b"usage",))), b"memory"),
        (_subcommand(frozenset((b"encoding", b"freq", b"idletime", b"refcount"))), b"object"),
        (_subcommand(frozenset((b"stream", b"groups", b"consumers"))), b"xinfo"),
        (
            _subcommand(frozenset((b"create", b"createconsumer", b"delconsumer", b"destroy", b"setid"))),
            b"xgroup",
        ),
        (_keys(1, -1), b"del exists mget pfcount pfmerge sdiff sdiffstore sinter sinterstore sunion sunionstore touch"),
        (_keys(1, -1), b"unlink watch"),
        (_keys(1, -2), b"blpop brpop bzpopmax bzpopmin"),
        (_keys(1, -1, 2), b"mset msetnx"),
        (
            _keys(1, 2),
            b"blmove brpoplpush copy geosearchstore lcs lmove rename renamenx rpoplpush smove zrangestore",
        ),
        (_keys(2), b"pfdebug"),
        (_keys(2, -1), b"bitop"),
        (_counted(1), b"lmpop sintercard zdiff zinter zintercard zmpop zunion"),
        (_counted(1, step=2), b"msetex"),
        (_counted(2), b"blmpop bzmpop eval eval_ro evalsha evalsha_ro fcall fcall_ro"),
        (_counted(2, 1), b"zdiffstore zinterstore zunionstore"),
        (_stored(frozenset((b"store",))), b"sort sort_ro"),
        (_stored(frozenset((b"store", b"storedist"))), b"georadius georadiusbymember"),
        (_streams, b"xread xreadgroup"),
        (_migrate, b"migrate"),
        (_channels(1), b"publish spublish"),
        (_channels(-1), b"psubscribe punsubscribe ssubscribe subscribe sunsubscribe unsubscribe"),
        (_auth, b"auth"),
        (_hello, b"hello"),
        (_select, b"select"),
        (_reset, b"reset"),
    )
    return ((name, plan) for plan, names in rows for name in names.split())


_PLANS: Final[Mapping[bytes, Callable[[int], _Plan]]] = dict(_table())
_FIRST: Final = _keys(1)

# What the answer to these says is who, and where, the client is.
_DECIDING: Final = frozenset((b"auth", b"hello", b"select", b"reset"))
# There is not one reply a command behind these.
_UNCOUNTED: Final = frozenset((
    b"monitor", b"psubscribe", b"psync", b"punsubscribe", b"replconf", b"ssubscribe", b"subscribe", b"sunsubscribe",
    b"sync", b"unsubscribe",
))  # fmt: skip


class _Command:
    """A command that is not told yet: what is wanted of its arguments."""

    __slots__ = ("_keys", "_most", "_plan", "at", "count", "fields", "name", "size", "want")

    def __init__(self, count: int, limits: Limits) -> None:
        self.count = count
        self.at = 0  # the argument that comes next
        self.want = 0
        self.size = limits.kept
        self.name = b""
        self.fields: dict[str, Value] = {}
        self._most = limits.keys
        self._plan: _Plan | None = None

    def take(self, argument: bytes) -> bool:
        """The argument that was wanted; True = it was the last."""
        try:
            if self._plan is None:
                self.name = argument.lower()
                self.size -= len(argument)
                self._plan = _PLANS.get(self.name, _FIRST)(self.count)
                self.want = next(self._plan)
            else:
                self.size -= len(argument)
                self._most -= 1
                if self.size < 0 or self._most < 0:
                    raise ParseError("too_much")
                self.want = self._plan.send(argument)
        except StopIteration as stop:
            self.fields = stop.value
            return True
        return False


class RedisParser(Parser):
    """One connection; see `parsers.base.Parser`."""

    name = "redis"
    fields = FIELDS

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._events: list[Event] = []
        self._rest = bytearray()
        self._offset = 0  # of the client's bytes in `_rest`
        self._item = 0  # of the line or argument that is read
        self._scanned = 0
        self._skip = 0
        self._left = 0  # arguments of this command to come
        self._bulk = -1  # size of the argument whose bytes come
        self._command: _Command | None = None
        self._replies = _Replies(self.limits)
        self._user = b"default"
        self._database = 0
        self._awaited: _Command | None = None

    @property
    def buffered(self) -> int:
        """Bytes retained, those of arguments included."""
        kept = self.limits.kept - self._command.size if self._command else 0
        return len(self._rest) + kept + self._replies.buffered

    def pending(self, direction: int) -> bool:
        """A command is incomplete, up to the last of its arguments that says something."""
        if direction != TO_SERVER or self._halted:
            return False
        return self._command is not None or (not self._left and bool(self._rest))

    @property
    def blocked(self) -> bool:
        """The client goes on behind a command whose answer is to come."""
        return self._halted and bool(self._rest)

    @property
    def _halted(self) -> bool:
        return self._awaited is not None and not self._left

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction."""
        self._events = []
        try:
            if direction == TO_SERVER:
                self._requests(data)
            else:
                self._answers(data)
        except ParseError as error:
            offset = self._replies.item if error.code == "reply" else self._item
            raise ParseError(error.code, offset, self._events) from None
        return self._events

    def gap(self, direction: int, size: int) -> list[Event]:
        """A value's bytes may be missing, and replies as long as nothing depends on them."""
        if direction == TO_CLIENT:
            if not self._replies.gap(size) and self._awaited is not None:
                raise ParseError("gap", self._replies.offset)
            return []
        if size > self._skip:
            raise ParseError("gap", self._offset + len(self._rest))
        self._skip -= size
        self._offset += size
        return []

    def _requests(self, data: bytes) -> None:
        if self._skip:
            size = min(self._skip, len(data))
            self._skip -= size
            self._offset += size
            if size == len(data):
                return
            data = data[size:]
        self._rest += data
        self._walk()

    def _walk(self) -> None:
        rest = self._rest
        at = 0
        try:
            while at < len(rest) and not self._halted:
                if self._bulk < 0:
                    self._item = self._offset + at
                if self._left:
                    end = self._argument(rest, at)
                elif rest[at] == ord("*"):
                    end = self._begin(rest, at)
                else:
                    end = self._inline(rest, at)
                if end < 0 or end == at:
                    break
                at = end
        finally:
            self._offset += min(at, len(rest))
            if at > len(rest):
                self._skip = at - len(rest)
            del rest[:at]
        if self._halted and len(rest) > self.limits.behind:
            raise ParseError("behind_login")

    def _begin(self, rest: bytearray, at: int) -> int:
        """How many arguments; none is no command."""
        end, count = self._line(rest, at)
        if end > 0 and count > 0:
            self._left = count
            self._command = _Command(count, self.limits)
        return end

    def _line(self, rest: bytearray, at: int) -> tuple[int, int]:
        """(behind the line, its number), or -1."""
        end = rest.find(b"\r", at + 1, at + 13)
        if end < 0:
            if len(rest) - at > 12:
                raise ParseError("number")
            return -1, 0
        text = bytes(rest[at + 1 : end])
        if not _DIGITS.fullmatch(text) and (text != b"-1" or self._left):
            raise ParseError("number")
        number = int(text)
        if number > (self.limits.bulk if self._left else 0x7FFFFFFF):
            raise ParseError("size")
        if end + 1 == len(rest):
            return -1, 0
        if rest[end + 1] != 10:
            raise ParseError("line_end")
        return end + 2, number

    def _argument(self, rest: bytearray, at: int) -> int:
        """An argument, or as much of it as there is."""
        if self._bulk < 0:
            if rest[at] != ord("$"):
                raise ParseError("bulk")
            end, size = self._line(rest, at)
            if end < 0:
                return end
            at, self._bulk = end, size
        command = self._command
        size = self._bulk
        end = at + size
        if command is None or command.at != command.want:
            if end + 2 > len(rest):
                self._bulk = 0
                return end
        else:
            if size > command.size:
                raise ParseError("too_much")
            if end + 2 > len(rest):
                return at
        if rest[end : end + 2] != b"\r\n":
            raise ParseError("line_end")
        self._bulk = -1
        self._left -= 1
        if command is not None:
            if command.at == command.want and command.take(bytes(rest[at:end])):
                self._tell(command)
            command.at += 1
        return end + 2

    def _inline(self, rest: bytearray, at: int) -> int:
        end = rest.find(b"\n", max(at, self._scanned))
        if (end if end >= 0 else len(rest)) - at > self.limits.line:
            raise ParseError("line_too_long")
        self._scanned = len(rest) - at if end < 0 else 0
        if end < 0:
            return end
        words = _words(bytes(rest[at:end].removesuffix(b"\r")))
        if words:
            command = _Command(len(words), self.limits)
            for command.at, word in enumerate(words):
                if command.at == command.want and command.take(word):
                    self._tell(command)
                    break
        return end + 1

    def _tell(self, command: _Command) -> None:
        self._command = None
        name, said = command.name, command.fields
        state: dict[str, Value] = {"redis.user": self._user, "redis.database": self._database}
        self._events.append(Said("redis", {"redis.command": name, **state, **said}))
        deciding = name in _DECIDING and any(value != state[key] for key, value in said.items())
        if name in _UNCOUNTED or said.get("redis.subcommand") == b"reply":
            self._replies.stop()
        if not self._replies.counted:
            if deciding:
                raise ParseError("unanswered")
            return
        self._replies.owed += 1
        if deciding:
            self._awaited = command

    def _answers(self, data: bytes) -> None:
        for line in self._replies.feed(data):
            self._replies.owed -= 1
            if self._replies.owed < 0:
                self._replies.stop()  # nobody asked: a server that is full or shuts down
                break
            if self._awaited is not None and not self._replies.owed:
                self._decided(self._awaited, line)
                self._awaited = None
                self._walk()

    def _decided(self, command: _Command, line: bytes) -> None:
        if line[:1] == b"-":
            return
        # +QUEUED, or what is no answer to such a command.
        if not (line[:1] in {b"%", b"*"} if command.name == b"hello" else line in {b"+OK", b"+RESET"}):
            raise ParseError("queued")
        user, database = command.fields.get("redis.user"), command.fields.get("redis.database")
        if isinstance(user, bytes):
            self._user = user
        if isinstance(database, int):
            self._database = database


class _Replies:
    """Frames what the server says; an aggregate of whatever depth is a number of values to come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rest = bytearray()
        self._skip = 0
        self._values = 0
        self._first = b""
        self._scanned = 0
        self.offset = 0
        self.item = 0  # of the line that is read
        self.owed = 0
        self.counted = True

    @property
    def buffered(self) -> int:
        return len(self._rest) + len(self._first)

    def stop(self) -> None:
        """Nothing that comes is looked at."""
        self.counted = False
        self._rest.clear()

    def gap(self, size: int) -> bool:
        """Whether framing is kept."""
        self.offset += size
        if not self.counted:
            return True
        if size > self._skip:
            self.stop()
            return False
        self._skip -= size
        return True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """First lines of whole replies, but pushes."""
        if not self.counted:
            self.offset += len(data)
            return
        if self._skip:
            size = min(self._skip, len(data))
            self._skip -= size
            self.offset += size
            data = data[size:]
        self._rest += data
        at = 0
        rest = self._rest
        while at < len(rest):
            self.item = self.offset + at
            end = rest.find(b"\r\n", max(at, self._scanned))
            if (end if end >= 0 else len(rest)) - at > self._limits.line:
                raise ParseError("reply")
            if end < 0:
                self._scanned = max(at, len(rest) - 1)
                break
            self._scanned = 0
            line = bytes(rest[at:end])
            at = end + 2 + self._line(line)
            if not self._values and self._first[0] not in _UNASKED:
                yield self._first
                if not self.counted:
                    return
        if at > len(rest):
            self._skip = at - len(rest)
        at = min(at, len(rest))
        self.offset += at
        self._scanned = max(0, self._scanned - at)
        del rest[:at]

    def _line(self, line: bytes) -> int:
        """How many bytes behind it are its value."""
        if not self._values:
            self._values = 1
            self._first = line
        kind = line[0] if line else 0
        self._values -= 1
        if kind in _SIMPLE:
            return 0
        if not _LENGTH.fullmatch(line, 1):
            raise ParseError("reply")
        size = int(line[1:])
        if kind in _BULK:
            return size + 2 if size >= 0 else 0
        if kind not in _AGGREGATE:
            raise ParseError("reply")
        # Attributes are no value themselves.
        self._values += max(size, 0) * _AGGREGATE[kind] + (kind == ord("|") and line is not self._first)
        return 0


def _words(line: bytes) -> list[bytes]:
    """Of an inline command, quotes and escapes undone."""
    if not _PLAIN.isdisjoint(line):
        raise ParseError("inline")
    words = []
    at, line = 0, line.rstrip(b" \t\r")
    while at < len(line):
        found = _WORD.match(line, at)
        if found is None:
            raise ParseError("quotes")
        plain, double, single = found.groups()
        word = plain
        if double is not None:
            word += _ESCAPE.sub(_unescaped, double)
        elif single is not None:
            word += single.replace(b"\\'", b"'")
        words.append(word)
        at = found.end()
    return words


def _unescaped(found: re.Match[bytes]) -> bytes:
    text = found[1]
    return bytes((int(text[1:], 16),)) if len(text) == 3 else _ESCAPED.get(text, text)


__all__ = ["TO_CLIENT", "TO_SERVER", "Limits", "RedisParser"]
