"""Bodies of 1 GB, and 64 MB of what others call a body: passed over in bounded memory, not held for want of their end,
and what follows on the same connection is judged. Made as they are sent, all at once, in super-packets of 65,000 bytes.
"""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import pytest

from parsers.base import Value
from slowpath.core.model import Command, Release
from tests.contract.conversations import conversations
from tests.fuzz.target import MOST
from tests.hostile.attack import Quick, judged, rule_files, unit_by_unit
from tests.hostile.test_split import SWITCH, UPGRADE
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.h2 import END_HEADERS, frame

SEGMENT = 65_000
GIGA = 1 << 30
MEGA = 64 << 20
ZEROS = bytes(SEGMENT)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SAID = {str(each): each for each in conversations()}
Parts = tuple[tuple[int, bytes], ...]


def filled(size: int, piece: bytes = ZEROS) -> Iterator[bytes]:
    """So many bytes, in pieces."""
    for _ in range(size // len(piece)):
        yield piece
    yield piece[: size % len(piece)]


@dataclass(frozen=True)
class Large:
    """What comes before, the body and its head, what the server says to it, and what is denied behind it."""

    name: str
    protocol: str
    before: Parts
    body: Iterator[bytes]
    answer: bytes
    denied: bytes
    says: dict[str, Value]
    size: int = MEGA

    def __str__(self) -> str:
        return self.name


def _parts(name: str, most: int) -> Parts:
    return SAID[name].parts[:most]


def http_length() -> Iterator[bytes]:
    yield b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % GIGA
    yield from filled(GIGA)


def http_chunked() -> Iterator[bytes]:
    yield b"POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield from filled(GIGA, b"f000\r\n" + bytes(0xF000) + b"\r\n")
    # The last piece may end within a chunk.
    rest = GIGA % len(b"f000\r\n" + bytes(0xF000) + b"\r\n")
    yield (b"f000\r\n" + bytes(0xF000) + b"\r\n")[rest:] if rest else b""
    yield b"0\r\n\r\n"


def http_small_chunks() -> Iterator[bytes]:
    """A chunk for each ten bytes: 64 MB of them."""
    yield b"POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"0a\r\n0123456789\r\n" * 4000
    for _ in range(MEGA // len(chunks)):
        yield chunks
    yield b"0\r\n\r\n"


def http2_data() -> Iterator[bytes]:
    head = h2.Sender().request(1, "/ok", "POST")
    yield head[:4] + bytes((END_HEADERS,)) + head[5:]
    piece = frame(0, 0, 1, bytes(16384)) * 3
    for _ in range(GIGA // len(piece)):
        yield piece
    yield frame(0, 1, 1, b"")


def websocket_frame() -> Iterator[bytes]:
    yield b"\x82\xff" + MEGA.to_bytes(8, "big") + bytes(4)
    yield from filled(MEGA)


def websocket_fragments() -> Iterator[bytes]:
    yield b"\x01\x80" + bytes(4)
    piece = b"\x00\xfe\xf0\x00" + bytes(4) + b"a" * 0xF000
    for _ in range(MEGA // len(piece)):
        yield piece
    yield b"\x80\x80" + bytes(4)


def mysql_query() -> Iterator[bytes]:
    """Packets of 16 MB - 1 that are one command, as long as they are full."""
    full = (1 << 24) - 1
    for number in range(4):
        yield b"\xff\xff\xff" + bytes((number,))
        start = b"\3SELECT '" if not number else b""
        yield start
        yield from filled(full - len(start), b"x" * SEGMENT)
    yield b"\1\0\0\4'"


def postgres_copy() -> Iterator[bytes]:
    piece = b"d" + (4 + 60_000).to_bytes(4, "big") + b"1,2\n" * 15_000
    for _ in range(MEGA // len(piece)):
        yield piece
    yield b"c\0\0\0\4"


def postgres_query() -> Iterator[bytes]:
    yield b"Q" + (4 + MEGA + 1).to_bytes(4, "big")
    yield from filled(MEGA, b"SELECT 1; " * 6500)
    yield b"\0"


def redis_set() -> Iterator[bytes]:
    yield b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % MEGA
    yield from filled(MEGA)
    yield b"\r\n"


def redis_many() -> Iterator[bytes]:
    yield b"*1044481\r\n$5\r\nRPUSH\r\n"  # Redis takes up to 1,048,576
    for _ in range(255):
        yield b"$1\r\nk\r\n" * (1 << 12)


def kafka_produce() -> Iterator[bytes]:
    produce = SAID["kafka-librdkafka"].parts[3][1]
    yield (len(produce) - 4 + MEGA).to_bytes(4, "big") + produce[4:]
    yield from filled(MEGA)


def mongodb_insert() -> Iterator[bytes]:
    """At most 48,000,000 bytes to a message."""
    size = 45_000_000
    fields = b"\2insert\0\7\0\0\0orders\0\2$db\0\5\0\0\0shop\0\5x\0" + struct.pack("<iB", size, 0)
    document = struct.pack("<i", 4 + len(fields) + size + 1) + fields
    yield struct.pack("<iiiiiB", 21 + len(document) + size + 1, 7, 0, 2013, 0, 0) + document
    yield from filled(size)
    yield b"\0"


def _mongodb(*fields: bytes) -> bytes:
    document = b"".join(fields) + b"\2$db\0\5\0\0\0shop\0\0"
    document = struct.pack("<i", 4 + len(document)) + document
    return struct.pack("<iiiiiB", 21 + len(document), 8, 0, 2013, 0, 0) + document


def smtp_data() -> Iterator[bytes]:
    piece = (b"x" * 998 + b"\r\n") * 65
    for _ in range(MEGA // len(piece)):
        yield piece
    yield b".\r\n"


def memcached_set() -> Iterator[bytes]:
    yield b"set k 0 0 %d\r\n" % MEGA
    yield from filled(MEGA)
    yield b"\r\n"


PING: Parts = ((0, b"*1\r\n$4\r\nPING\r\n"), (1, b"+PONG\r\n"))
GREETED: Parts = (
    (1, b"220 mx ESMTP\r\n"), (0, b"EHLO a\r\n"), (1, b"250 mx\r\n"), (0, b"MAIL FROM:<a@b>\r\n"), (1, b"250 ok\r\n"),
    (0, b"RCPT TO:<c@d>\r\n"), (1, b"250 ok\r\n"), (0, b"DATA\r\n"), (1, b"354 go on\r\n"),
)  # fmt: skip
ADMIN = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
BEGUN: Parts = ((0, h2.START), (1, h2.settings()))
SENDER = h2.Sender()
SENDER.request(1, "/ok", "POST")
UPGRADED: Parts = ((0, UPGRADE), (1, SWITCH))
PSQL = "postgres-queries-and-copies,-encryption-declined"
DROP = b"Q\0\0\0\x12DROP TABLE a;\0"
PATH: dict[str, Value] = {"http.path": b"/admin"}
MYSQL = "mysql-queries-and-databases"
BODIES = [
    Large("HTTP/1, Content-Length", "http", (), http_length(), OK, ADMIN, PATH, GIGA),
    Large("HTTP/1, chunked", "http", (), http_chunked(), OK, ADMIN, PATH, GIGA),
    Large("HTTP/1, chunks of ten bytes", "http", (), http_small_chunks(), OK, ADMIN, PATH, MEGA * 9 // 10),
    Large("HTTP/2, DATA", "http2", BEGUN, http2_data(), b"", SENDER.request(3, "/admin"), PATH, GIGA * 99 // 100),
    Large("WebSocket, a frame", "websocket", UPGRADED, websocket_frame(), b"", b"\x81\x84" + bytes(4) + b"drop",
          {"websocket.text": b"drop"}),
    Large("WebSocket, fragments", "websocket", UPGRADED, websocket_fragments(), b"", b"\x81\x84" + bytes(4) + b"drop",
          {"websocket.text": b"drop"}, MEGA * 99 // 100),
    Large("MySQL, a query", "mysql", _parts(MYSQL, 3), mysql_query(), b"\7\0\0\1\0\0\0\2\0\0\0",
          b"\x0d\0\0\0\3DROP TABLE a", {"mysql.verb": (b"drop",)}, MEGA - 100),
    Large("PostgreSQL, COPY", "postgres", _parts(PSQL, 10), postgres_copy(), b"C\0\0\0\x0bCOPY 2\0Z\0\0\0\5I", DROP,
          {"postgres.verb": (b"drop",)}, MEGA * 99 // 100),
    Large("PostgreSQL, a query", "postgres", _parts(PSQL, 4), postgres_query(), b"Z\0\0\0\5I", DROP,
          {"postgres.verb": (b"drop",)}),
    Large("Redis, a bulk string", "redis", PING, redis_set(), b"+OK\r\n", b"*1\r\n$8\r\nFLUSHALL\r\n",
          {"redis.command": b"flushall"}),
    Large("Redis, a million arguments", "redis", PING, redis_many(), b"+OK\r\n", b"*1\r\n$8\r\nFLUSHALL\r\n",
          {"redis.command": b"flushall"}, 6 << 20),
    Large("Kafka, produce", "kafka", _parts("kafka-librdkafka", 2), kafka_produce(), b"",
          SAID["kafka-librdkafka"].parts[5][1], {"kafka.api": b"Fetch"}),
    Large("MongoDB, OP_MSG", "mongodb", (), mongodb_insert(), b"",
          _mongodb(b"\2dropDatabase\0\2\0\0\x001\0"), {"mongodb.command": b"dropDatabase"}, 45_000_000),
    Large("SMTP, DATA", "smtp", GREETED, smtp_data(), b"250 ok\r\n", b"MAIL FROM:<e@evil>\r\n",
          {"smtp.sender": b"e@evil"}, MEGA * 99 // 100),
    Large("Memcached, set", "memcached", (), memcached_set(), b"STORED\r\n", b"flush_all\r\n",
          {"memcached.command": b"flush_all"}),
]  # fmt: skip


class Sender:
    """A client whose segments cost little to make, and whose commands are looked at and forgotten."""

    def __init__(self, large: Large) -> None:
        names = {large.protocol} | ({"http"} if large.protocol == "websocket" else set())
        files = (unit_by_unit(name, *([large.says] if name == large.protocol else [])) for name in names)
        self.play = Quick(judged(*names), rule_files(*files))
        self._template = self.play.connection.client(ZEROS, at=0)
        self.released = self.most = 0

    def send(self, data: bytes) -> None:
        p, c = self.play, self.play.connection
        packet = copy(self._template)
        packet.seq, packet.payload = (c.isn[0] + 1 + c.sent[0]) & 0xFFFFFFFF, data
        packet.ack = (c.isn[1] + 1 + c.sent[1]) & 0xFFFFFFFF
        c.sent[0] += len(data)
        self._look(p.feed(packet))
        self.most = max(self.most, p.inspector.stats.kept_bytes)

    def _look(self, commands: list[Command]) -> None:
        self.released += sum(len(command.packet.payload) for command in commands if isinstance(command, Release))
        self.play.done.clear()

    def stream(self, pieces: Iterator[bytes]) -> int:
        """In segments of their own size; how many bytes that was."""
        sent = 0
        for piece in pieces:
            for at in range(0, len(piece), SEGMENT):
                self.send(piece[at : at + SEGMENT])
            sent += len(piece)
        return sent


@pytest.mark.parametrize("large", BODIES, ids=str)
def test_it_is_passed_over_and_what_follows_is_judged(large: Large) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = Sender(large)
    p = one.play
    for side, data in large.before:
        p.feed(p.connection.segment(side, data))
    one.released = 0
    sent = one.stream(large.body)
    assert sent >= large.size
    # Nothing is held back but what waits for its last byte.
    assert one.released >= sent - SEGMENT - 20
    if large.answer:
        p.server(large.answer)
    assert {record["verdict"] for record in p.records} == {"allow"}
    assert one.most < MOST + 2 * 256 * 1024 + 2 * SEGMENT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB"
    one.released = 0
    one.send(large.denied)
    assert p.records[-1]["verdict"] == "deny"
    assert p.records[-1].get("l7_rule") == "no-0", p.records[-1]
