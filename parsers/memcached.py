"""Memcached's text, meta and binary protocols over TCP and UDP, what the client says of them; answers change nothing
in that and are not looked at.

After protocol.txt, proto_text.c and protocol_binary.h of the server. A connection's first byte decides between text and
binary. Commands are told by the names of the text protocol in both. Values are passed over; where a server that
declines a command would read its value as commands, or not, the command is refused: one with a value and without a
proper line.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass
from typing import Final

from parsers.base import TCP, TO_CLIENT, TO_SERVER, UDP, Event, Field, Kind, ParseError, Said, Value
from parsers.walk import Steps, Walk, WalkParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # The server takes 2 KiB, and more where it is a get of many keys.
    line: int = 64 * 1024
    # The largest item a server can be told to take.
    value: int = 1024 * 1024 * 1024


FIELDS: Final = (
    Field("memcached.command", "the command's name in the text protocol, of quiet ones too", folded=True),
    Field("memcached.keys", "the keys it names", Kind.LIST),
)

# Which words are keys.
_KEYS: Final = {
    b"get": slice(1, None), b"gets": slice(1, None), b"bget": slice(1, None),
    b"gat": slice(2, None), b"gats": slice(2, None),
    b"delete": slice(1, 2), b"incr": slice(1, 2), b"decr": slice(1, 2), b"touch": slice(1, 2),
}  # fmt: skip
# KEY FLAGS EXPTIME BYTES, of cas one number more.
_STORES: Final = {b"set": 5, b"add": 5, b"replace": 5, b"append": 5, b"prepend": 5, b"cas": 6}
_META: Final = frozenset((b"mg", b"ms", b"md", b"ma", b"me"))
_KEY_MAX: Final = 250

_NUMBER: Final = re.compile(rb"\d{1,20}")
_EXPIRY: Final = re.compile(rb"-?\d{1,18}")

_REQUEST: Final = 0x80
# magic, operation, key's length, extras' length, data type, reserved, body's length, opaque, cas
_HEADER: Final = struct.Struct(">BBHBBHI4s8s")
_FRAME: Final = struct.Struct(">HHHH")

_OPERATIONS: Final = {
    number: name.encode()
    for names in (
        "0 get 1 set 2 add 3 replace 4 delete 5 incr 6 decr 7 quit 8 flush_all 9 get 10 noop 11 version 12 get 13 get",
        "14 append 15 prepend 16 stats 17 set 18 add 19 replace 20 delete 21 incr 22 decr 23 quit 24 flush_all",
        "25 append 26 prepend 27 verbosity 28 touch 29 gat 30 gat 32 sasl_list_mechs 33 sasl_auth 34 sasl_step",
        "35 gat 36 gat 48 rget 49 rset 50 rset 51 rappend 52 rappend 53 rprepend 54 rprepend 55 rdelete 56 rdelete",
        "57 rincr 58 rincr 59 rdecr 60 rdecr",
    )
    for number, name in zip(map(int, names.split()[::2]), names.split()[1::2], strict=True)
}
# What stands in the key's place there is none.
_KEYLESS: Final = frozenset((b"stats", b"sasl_list_mechs", b"sasl_auth", b"sasl_step"))


class MemcachedParser(WalkParser):
    """One connection; see `parsers.base.Parser`. Over UDP every request is one datagram with a frame header."""

    name = "memcached"
    fields = FIELDS
    transports = (TCP, UDP)

    def __init__(self, limits: Limits | None = None, *, datagrams: bool = False) -> None:
        self.limits = limits or Limits()
        self._datagrams = datagrams
        super().__init__(self.limits.line)

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction, or a datagram."""
        if not self._datagrams or direction != TO_SERVER:
            return super().feed(direction, data)
        self._events = []
        walk = Walk(self._requests, self.limits.line)
        try:
            if len(data) < _FRAME.size:
                raise ParseError("frame")
            _, number, count, _ = _FRAME.unpack_from(data)
            # The server does not put requests together.
            if number or count != 1:
                raise ParseError("several_datagrams")
            walk.feed(data[_FRAME.size :])
            if walk.incomplete:
                raise ParseError("incomplete")
        except ParseError as error:
            raise ParseError(error.code, walk.offset, self._events) from None
        return self._events

    def gap(self, direction: int, size: int) -> list[Event]:
        """Bytes of values and answers may be missing, and whole datagrams."""
        return [] if self._datagrams else super().gap(direction, size)

    def _requests(self, walk: Walk) -> Steps[None]:
        first = yield 1
        if first[0] == _REQUEST:
            yield from self._binary(walk, first)
        while True:
            line = first if first == b"\n" else first + (yield b"\n")
            size = self._line(walk, line.removesuffix(b"\n").removesuffix(b"\r"))
            if size is not None:
                yield -size
                if (yield 2) != b"\r\n":
                    raise ParseError("value_end")
            walk.message()
            first = b""

    def _tell(self, walk: Walk, command: bytes, keys: tuple[bytes, ...]) -> None:
        said: dict[str, Value] = {"memcached.command": command}
        if keys:
            said["memcached.keys"] = keys
        self._events.append(Said("memcached", said))
        walk.judging = False

    def _line(self, walk: Walk, line: bytes) -> int | None:
        """A command; how long its value is, if it has one."""
        if b"\0" in line or line[:1] == b" ":
            raise ParseError("line")
        words = [word for word in line.split(b" ") if word]
        if not words:
            return None
        command = words[0]
        size = None
        keys: tuple[bytes, ...] = ()
        if command in _STORES:
            size = self._store(words)
            keys = (words[1],)
        elif command in _META:
            keys = self._meta(words)
            if command == b"ms":
                size = self._size(words[2] if len(words) > 2 else b"")
        elif command in _KEYS:
            keys = tuple(words[_KEYS[command]])
        self._tell(walk, command, keys)
        return size

    def _store(self, words: list[bytes]) -> int:
        count = _STORES[words[0]]
        if len(words) == count + 1 and words[-1] == b"noreply":
            words = words[:-1]
        if len(words) != count or len(words[1]) > _KEY_MAX or not _EXPIRY.fullmatch(words[3]):
            raise ParseError("store")
        flags = words[2]
        if not _NUMBER.fullmatch(flags) or int(flags) >> 32 or (count > 5 and not _NUMBER.fullmatch(words[5])):
            raise ParseError("store")
        return self._size(words[4])

    def _size(self, text: bytes) -> int:
        if not _NUMBER.fullmatch(text) or int(text) > self.limits.value:
            raise ParseError("value_size")
        return int(text)

    @staticmethod
    def _meta(words: list[bytes]) -> tuple[bytes, ...]:
        """Its key, which a flag says to be in base64."""
        if len(words) < 2 or len(words[1]) > _KEY_MAX:
            raise ParseError("meta")
        key = words[1]
        if any(word[:1] == b"b" for word in words[2:]):
            try:
                key = base64.b64decode(key, validate=True)
            except binascii.Error:
                raise ParseError("base64") from None
        return (key,)

    def _binary(self, walk: Walk, first: bytes) -> Steps[None]:
        while True:
            head = first + (yield _HEADER.size - len(first))
            magic, operation, key, extras, _, _, body, _, _ = _HEADER.unpack(head)
            if magic != _REQUEST:
                raise ParseError("magic")
            if key + extras > body or body > self.limits.value:
                raise ParseError("length")
            yield -extras
            command = _OPERATIONS.get(operation, b"%d" % operation)
            if key and command not in _KEYLESS:
                name = yield key
                self._tell(walk, command, (name,))
                yield -(body - key - extras)
            else:
                self._tell(walk, command, ())
                yield -(body - extras)
            walk.message()
            first = b""


__all__ = ["TO_CLIENT", "TO_SERVER", "Limits", "MemcachedParser"]
