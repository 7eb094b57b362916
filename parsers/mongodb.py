"""MongoDB's wire protocol, what the client says of it; replies change nothing in that and are not looked at.

After MongoDB's "Wire Protocol", OP_MSG and OP_COMPRESSED specifications, and bsonspec.org. Of BSON only element heads
of a command's own level are walked through, values are passed over by their length: a decoder would build what nobody
asks for. A command is told with the end of its document, because $db may be its last element; sections of documents
behind it are a body. OP_COMPRESSED is read where it is zlib; what snappy and zstd hide is told to be hidden.

Other collections that a command reaches (aggregate's $lookup and $out, the namespaces of bulkWrite, the new name of
renameCollection) are not told.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from parsers.base import TO_CLIENT, TO_SERVER, Field, Kind, ParseError, Said, Value
from parsers.walk import Steps, Walk, WalkParser


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # maxMessageSizeBytes of all servers.
    message: int = 48_000_000
    # Texts that are kept: a namespace has up to 255 bytes, a client's metadata 512.
    text: int = 4096
    # zlib's output before the command is told: a multiple of what was sent, and something to begin with.
    inflation: int = 64
    inflated: int = 64 * 1024


FIELDS: Final = (
    Field(
        "mongodb.command",
        "the command's name, case matters; of the operations before OP_MSG find, insert, update, delete, getMore or"
        " killCursors",
    ),
    Field("mongodb.database", "the database it is for"),
    Field("mongodb.collection", "the collection it names first, nothing where it is for a whole database"),
    Field("mongodb.client", "name of the driver, as the client's hello says it"),
    Field("mongodb.application", "name of the application, as the client's hello says it"),
    Field("mongodb.compressed", "1 where the command is compressed by what is not read (all but zlib)", Kind.NUMBER),
)

OP_UPDATE: Final = 2001
OP_INSERT: Final = 2002
OP_QUERY: Final = 2004
OP_GET_MORE: Final = 2005
OP_DELETE: Final = 2006
OP_KILL_CURSORS: Final = 2007
OP_COMPRESSED: Final = 2012
OP_MSG: Final = 2013

_LEGACY: Final = {OP_UPDATE: b"update", OP_INSERT: b"insert", OP_GET_MORE: b"getMore", OP_DELETE: b"delete"}

_CHECKSUM: Final = 1
# Of the lower half, which a receiver must know; 1 is moreToCome.
_REQUIRED: Final = 0xFFFF & ~3

_NOOP: Final = 0
_ZLIB: Final = 2
_CHUNK: Final = 16384

_NUL: Final = b"\0"
_STRING: Final = 2
_DOCUMENT: Final = 3
_HEADER: Final = struct.Struct("<iiii")
_COMPRESSED: Final = struct.Struct("<iiB")

# Sizes of BSON values: fixed; a length in front and so much more; a length that counts itself.
_FIXED: Final = {
    0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0,
}  # fmt: skip
_COUNTED: Final = {0x02: 0, 0x05: 1, 0x0C: 12, 0x0D: 0, 0x0E: 0}
_OWN: Final = frozenset((0x03, 0x04, 0x0F))
_REGEX: Final = 0x0B


def _word(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


class MongodbParser(WalkParser):
    """One connection; see `parsers.base.Parser`."""

    name = "mongodb"
    fields = FIELDS

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        super().__init__()

    def _requests(self, walk: Walk) -> Steps[None]:
        while True:
            walk.message()
            size, _, _, operation = _HEADER.unpack((yield 16))
            if not 16 <= size <= self.limits.message:
                raise ParseError("message_size")
            end = walk.inside(size - 16, walk.begin + size)
            if operation == OP_COMPRESSED:
                yield from self._compressed(walk, end)
            else:
                yield from self._operation(walk, operation, end)
            yield walk.offset - end

    def _tell(self, walk: Walk, **said: Value) -> None:
        self._events.append(Said("mongodb", {f"mongodb.{name}": value for name, value in said.items()}))
        walk.judging = False

    def _operation(self, walk: Walk, operation: int, end: int) -> Steps[None]:
        if operation == OP_MSG:
            yield from self._message(walk, end)
        elif operation == OP_QUERY:
            yield from self._query(walk, end)
        elif operation in _LEGACY:
            walk.inside(4, end)
            yield -4
            name = yield from self._namespace(walk, end)
            self._tell(walk, command=_LEGACY[operation], **name)
        elif operation == OP_KILL_CURSORS:
            self._tell(walk, command=b"killCursors")
        else:
            raise ParseError("operation")

    def _message(self, walk: Walk, end: int) -> Steps[None]:
        walk.inside(4, end)
        flags = _word((yield 4))
        if flags & _REQUIRED:
            raise ParseError("flags")
        if flags & _CHECKSUM:
            end -= 4
        while walk.offset < end:
            kind = (yield 1)[0]
            walk.inside(4, end)
            size = _word((yield 4))
            last = walk.inside(size - 4, end)
            if kind == 1:
                yield walk.offset - last
            elif kind == 0 and walk.judging:
                said = yield from self._command(walk, last)
                if "database" not in said:
                    raise ParseError("no_database")
                self._tell(walk, **said)
            else:
                raise ParseError("section")
        if walk.judging:
            raise ParseError("no_body")

    def _query(self, walk: Walk, end: int) -> Steps[None]:
        walk.inside(4, end)
        yield -4
        name = yield from self._namespace(walk, end)
        walk.inside(8, end)
        yield -8
        if name.get("collection") != b"$cmd":
            self._tell(walk, command=b"find", **name)
            return
        walk.inside(4, end)
        last = walk.inside(_word((yield 4)) - 4, end)
        said = yield from self._command(walk, last, wrapped=True)
        self._tell(walk, **{**said, "database": name["database"]})

    def _namespace(self, walk: Walk, end: int) -> Steps[dict[str, Value]]:
        database, _, collection = (yield _NUL).partition(b".")
        walk.inside(0, end)
        return {"database": database, "collection": collection}

    def _command(self, walk: Walk, end: int, *, wrapped: bool = False) -> Steps[dict[str, Value]]:
        """Its document, whose length is read."""
        said: dict[str, Value] = {}
        while head := (yield _NUL):
            kind, name = head[0], head[1:]
            if "command" not in said:
                if wrapped and kind == _DOCUMENT and name in {b"$query", b"query"}:
                    last = walk.inside(_word((yield 4)) - 4, end)
                    said = yield from self._command(walk, last)
                    continue
                said["command"] = name
                if kind == _STRING:
                    said["collection"] = yield from self._text(walk, end)
                    continue
                if kind == _DOCUMENT and name == b"explain":
                    inner = yield from self._first(walk, end)
                    if inner:
                        said["collection"] = inner
                    continue
            elif name == b"$db" and kind == _STRING and "database" not in said:
                said["database"] = yield from self._text(walk, end)
                continue
            elif name == b"$db":
                raise ParseError("database")
            elif name == b"collection" and kind == _STRING and said["command"] == b"getMore":
                said["collection"] = yield from self._text(walk, end)
                continue
            elif name == b"client" and kind == _DOCUMENT:
                yield from self._client(walk, end, said)
                continue
            yield from self._value(walk, kind, end)
        if walk.offset != end or "command" not in said:
            raise ParseError("document")
        return said

    def _first(self, walk: Walk, end: int) -> Steps[bytes]:
        """The first value of a document, if it is a text."""
        last = yield from self._inner(walk, end)
        head = yield _NUL
        text = b""
        if head and head[0] == _STRING:
            text = yield from self._text(walk, last)
        yield walk.offset - walk.inside(last - walk.offset, last)
        return text

    def _client(self, walk: Walk, end: int, said: dict[str, Value]) -> Steps[None]:
        """{application: {name: ...}, driver: {name: ...}, ...}."""
        last = yield from self._inner(walk, end)
        while head := (yield _NUL):
            field = {b"\x03driver": "client", b"\x03application": "application"}.get(head)
            if field:
                if text := (yield from self._first(walk, last)):
                    said[field] = text
            else:
                yield from self._value(walk, head[0], last)
        if walk.offset != last:
            raise ParseError("document")

    def _inner(self, walk: Walk, end: int) -> Steps[int]:
        walk.inside(5, end)
        size = _word((yield 4))
        if size < 5:
            raise ParseError("document")
        return walk.inside(size - 4, end)

    def _text(self, walk: Walk, end: int) -> Steps[bytes]:
        walk.inside(5, end)
        size = _word((yield 4))
        walk.inside(size, end)
        if not 1 <= size <= self.limits.text:
            raise ParseError("text_size")
        text = yield size
        if text.find(0) != size - 1:
            raise ParseError("text_end")
        return text[:-1]

    def _value(self, walk: Walk, kind: int, end: int) -> Steps[None]:
        """Pass over it."""
        size = _FIXED.get(kind, 0)
        if kind in _COUNTED or kind in _OWN:
            walk.inside(4, end)
            size = _word((yield 4))
            if size < 0:
                raise ParseError("length")
            size += _COUNTED.get(kind, -4)
        elif kind == _REGEX:
            yield _NUL
            yield _NUL
        elif kind not in _FIXED:
            raise ParseError("type")
        walk.inside(size, end)
        yield -size

    def _compressed(self, walk: Walk, end: int) -> Steps[None]:
        walk.inside(9, end)
        operation, size, compressor = _COMPRESSED.unpack((yield 9))
        if not 0 <= size <= self.limits.message - 16:
            raise ParseError("message_size")
        if compressor == _NOOP:
            if size != end - walk.offset:
                raise ParseError("message_size")
            yield from self._operation(walk, operation, end)
        elif compressor == _ZLIB:
            yield from self._inflated(walk, operation, size, end)
        else:
            self._tell(walk, compressed=1)

    def _inflated(self, walk: Walk, operation: int, size: int, end: int) -> Steps[None]:
        """Up to where the command is told; sections behind it are nobody's concern."""
        inner = Walk(lambda own: self._whole(own, operation, size))
        inflater = zlib.decompressobj()
        while inner.judging and walk.offset < end:
            piece = yield min(_CHUNK, end - walk.offset)
            while piece and inner.judging:
                room = size - inner.offset - inner.buffered + 1
                try:
                    text = inflater.decompress(piece, min(_CHUNK, room))
                except zlib.error:
                    raise ParseError("zlib") from None
                piece = inflater.unconsumed_tail
                inner.feed(text)
                out = inner.offset + inner.buffered
                if out > size:  # no room would be any room
                    raise ParseError("message_size")
                sent = walk.offset - walk.begin
                if inner.judging and out > self.limits.inflated + self.limits.inflation * sent:
                    raise ParseError("inflated")
        if inner.judging:
            raise ParseError("message_size")
        walk.judging = False

    def _whole(self, walk: Walk, operation: int, size: int) -> Steps[None]:
        yield from self._operation(walk, operation, size)


__all__ = ["TO_CLIENT", "TO_SERVER", "Limits", "MongodbParser"]
