"""Lying lengths in every binary protocol: nothing, one, one less or more than there is, the greatest of its sign and of
all. Conversations are well-formed but for that; through the inspector, with bytes behind it that a believer would wait
for, it is refused, or waited for within bounds, or (a body) passed over; memory never follows what is claimed.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, ParseError
from tests.contract.conversations import Conversation, conversations
from tests.fuzz.target import MOST
from tests.hostile.attack import Quick, judged, rule_files, through, unit_by_unit
from tests.hostile.test_split import SWITCH, UPGRADE, parts_of
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.h2 import frame

ALL = {f"{each.parser} {each.name}": each for each in conversations()}


@dataclass(frozen=True, slots=True)
class Length:
    """A length field: of which conversation, in which part of it, where."""

    conversation: str
    part: int
    at: int
    width: int
    what: str
    order: str = "big"

    def __str__(self) -> str:
        return f"{self.conversation.partition(' ')[0]}: {self.what}"


AMQP, AMQP1, KAFKA = "amqp 0-9-1", "amqp 1.0", "kafka librdkafka"
BINARY, MONGODB, MQTT = "memcached binary", "mongodb PyMongo", "mqtt 3.1"
MYSQL, POSTGRES = "mysql queries and databases", "postgres queries and copies, encryption declined"
RDP, SMB, SSH, TLS = "rdp cookie and TLS", "smb 3.1.1", "ssh client first", "tls openssl 1.3"
NETBIOS = "smb 1"
DNS, WEBSOCKET = "dns two at once in one segment", "websocket texts, fragments and a close"
LENGTHS = [
    Length(AMQP, 2, 3, 4, "frame"), Length(AMQP, 2, 11, 4, "table"), Length(AMQP, 2, 15, 1, "short string"),
    Length(AMQP, 2, 24, 4, "long string within the table"), Length(AMQP, 6, 3, 4, "heartbeat"),
    Length(AMQP, 4, 3, 4, "frame before another"), Length(AMQP1, 2, 0, 4, "frame of 1.0"),
    Length(AMQP1, 2, 4, 1, "offset of data"), Length(AMQP1, 2, 12, 1, "list"), Length(AMQP1, 2, 15, 1, "symbol"),
    Length(KAFKA, 0, 0, 4, "request"), Length(KAFKA, 0, 12, 2, "client id"), Length(KAFKA, 3, 0, 4, "produce"),
    Length(KAFKA, 3, 18, 2, "transaction"), Length(KAFKA, 3, 28, 1, "compact array"),
    Length(KAFKA, 3, 29, 1, "compact string"), Length(KAFKA, 4, 31, 4, "array"),
    Length(BINARY, 0, 2, 2, "key"), Length(BINARY, 0, 4, 1, "extras"), Length(BINARY, 0, 8, 4, "body"),
    Length(BINARY, 2, 8, 4, "body of a get"), Length(BINARY, 3, 2, 2, "mechanism"),
    Length(MONGODB, 0, 0, 4, "message", "little"), Length(MONGODB, 0, 21, 4, "document", "little"),
    Length(MONGODB, 2, 0, 4, "second message", "little"), Length(MONGODB, 2, 21, 4, "its document", "little"),
    Length(MONGODB, 2, 33, 4, "string", "little"), Length(MONGODB, 4, 33, 4, "document within", "little"),
    Length(MQTT, 0, 1, 1, "connect"), Length(MQTT, 0, 2, 2, "protocol name"), Length(MQTT, 0, 12, 2, "client id"),
    Length(MQTT, 2, 1, 1, "subscribe"), Length(MQTT, 2, 4, 2, "topic"), Length(MQTT, 4, 3, 2, "topic of publish"),
    Length(MYSQL, 1, 0, 3, "login", "little"), Length(MYSQL, 3, 0, 3, "command", "little"),
    Length(MYSQL, 0, 0, 3, "greeting", "little"), Length(MYSQL, 2, 0, 3, "answer", "little"),
    Length(POSTGRES, 0, 0, 4, "SSLRequest"), Length(POSTGRES, 2, 0, 4, "startup"), Length(POSTGRES, 4, 1, 4, "query"),
    Length(POSTGRES, 3, 1, 4, "authentication"), Length(POSTGRES, 6, 1, 4, "second query"),
    Length(RDP, 0, 2, 2, "TPKT"), Length(RDP, 0, 4, 1, "X.224"),
    Length(NETBIOS, 0, 1, 3, "session request"), Length(NETBIOS, 0, 4, 1, "called name"),
    Length(NETBIOS, 0, 37, 1, "its scope"), Length(NETBIOS, 0, 38, 1, "calling name"),
    Length(NETBIOS, 1, 1, 3, "positive response"), Length(NETBIOS, 2, 1, 3, "keep-alive"),
    Length(NETBIOS, 2, 5, 3, "message behind it"),
    Length(SMB, 0, 1, 3, "session message"), Length(SMB, 2, 1, 3, "second message"), Length(SMB, 6, 1, 3, "later"),
    Length(SSH, 2, 0, 4, "packet"), Length(SSH, 2, 4, 1, "padding"), Length(SSH, 2, 22, 4, "list of names"),
    Length(TLS, 0, 3, 2, "record"), Length(TLS, 0, 6, 3, "handshake"), Length(TLS, 0, 43, 1, "session id"),
    Length(TLS, 0, 76, 2, "cipher suites"), Length(DNS, 0, 0, 2, "message"),
    Length(WEBSOCKET, 0, 1, 1, "frame"), Length(WEBSOCKET, 4, 1, 1, "close"),
]  # fmt: skip


def begun(conversation: Conversation, part: int) -> tuple[Quick, tuple[tuple[int, bytes], ...]]:
    """The play up to a part."""
    names = {conversation.parser} | ({"http"} if conversation.parser == "websocket" else set())
    # The first thing that SSH says would decide it for good.
    denied = [{"ssh.kex": (b"never",)}] if conversation.parser == "ssh" else []
    p = Quick(judged(*names), rule_files(*(unit_by_unit(name, *denied) for name in names)))
    before = len(parts_of(conversation)) - len(conversation.parts)
    for direction, data in parts_of(conversation)[: before + part]:
        p.feed(p.connection.segment(direction, data))
    return p, conversation.parts


def lies(honest: int, width: int) -> list[int]:
    most = (1 << 8 * width) - 1
    values = {0, 1, 2, honest - 1, honest + 1, most >> 1, (most >> 1) + 1, most - 1, most}
    return sorted(value for value in values - {honest} if 0 <= value <= most)


def outlived(p: Quick, side: int, filler: bytes = bytes(60_000)) -> None:
    """More behind it than any parser keeps; then time passes."""
    for _ in range(10):
        p.feed(p.connection.segment(side, filler))
        p.wait(0.001)
        for flow in p.inspector._flows.values():
            assert flow.parser is None or flow.parser.buffered <= MOST
        # Both sides' histories of what was not acknowledged have 256 KiB each.
        assert p.inspector.stats.kept_bytes < 2 * 256 * 1024 + 2 * MOST
    p.wait(3)
    assert p.inspector.stats.held_bytes == 0


@pytest.mark.parametrize("field", LENGTHS, ids=str)
def test_a_lie_is_refused_or_waited_for_within_bounds(field: Length) -> None:
    conversation = ALL[field.conversation]
    _, data = conversation.parts[field.part]
    honest = int.from_bytes(data[field.at : field.at + field.width], field.order)  # type: ignore[arg-type]
    refused = 0
    for value in lies(honest, field.width):
        p, parts = begun(conversation, field.part)
        assert not [d for d in p.decisions if d.verdict.name == "DENY"]
        side = parts[field.part][0]
        lie = value.to_bytes(field.width, field.order)  # type: ignore[arg-type]
        p.feed(p.connection.segment(side, data[: field.at] + lie + data[field.at + field.width :]))
        outlived(p, side)
        refused += p.records[-1]["verdict"] == "deny" if p.records else 0
        if p.records and p.records[-1]["verdict"] == "deny":
            assert p.records[-1]["reason"] in {"parse_error", "need_more", "default", "overlap_conflict"}, value
    assert refused, "not one of them was noticed"


def text(line: bytes) -> list[bytes]:
    return [
        line.replace(b"#", size)
        for size in (
            b"-1", b"-2", b"+1", b"0x1", b" 1", b"1 ", b"", b"1.0", b"1e9", b"\xc2\xb2", b"2147483648",
            b"4294967296", b"18446744073709551616", b"9" * 40, b"-9223372036854775808", b"536870913",
        )
    ]  # fmt: skip


SMTP = ((TO_CLIENT, b"220 mx ESMTP\r\n"), (TO_SERVER, b"EHLO a\r\n"), (TO_CLIENT, b"250-mx\r\n250 CHUNKING\r\n"))
MAIL = (*SMTP, (0, b"MAIL FROM:<a@b>\r\n"), (1, b"250 ok\r\n"), (0, b"RCPT TO:<c@d>\r\n"), (1, b"250 ok\r\n"))
PING = ((0, b"*1\r\n$4\r\nPING\r\n"), (1, b"+PONG\r\n"))
WRITTEN: dict[str, tuple[str, tuple[tuple[int, bytes], ...], list[bytes]]] = {
    "redis: bulk string": ("redis", PING, text(b"*2\r\n$4\r\nECHO\r\n$#\r\nx\r\n")),
    "redis: array": ("redis", PING, text(b"*#\r\n$4\r\nECHO\r\n")),
    "redis: first array": ("redis", (), text(b"*#\r\n$4\r\nPING\r\n")),
    "smtp: BDAT": ("smtp", MAIL, text(b"BDAT #\r\n")),
    "memcached: set": ("memcached", ((0, b"set k 0 0 1\r\nx\r\n"), (1, b"STORED\r\n")), text(b"set k 0 0 #\r\nx\r\n")),
    "http: Content-Length": ("http", (), text(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:#\r\n\r\n")[:-1]),
    "http: chunk": (
        "http", (), text(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n#\r\nx\r\n"),
    ),
    "http2: HEADERS": (
        "http2", ((0, h2.START), (1, h2.settings())),
        [size.to_bytes(3, "big") + b"\1\4\0\0\0\1" for size in (0x4001, 0x7FFFFF, 0xFFFFFF)],
    ),
    "http2: SETTINGS": (
        "http2", (), [h2.PREFACE + size.to_bytes(3, "big") + b"\4\0\0\0\0\0" for size in (1, 5, 7, 0x4001, 0xFFFFFF)],
    ),
    "http2: fixed frames": (
        "http2", ((0, h2.START), (1, h2.settings())),
        [frame(kind, 0, stream, bytes(size))
         for kind, stream, right in ((2, 1, 5), (3, 1, 4), (6, 0, 8), (8, 0, 4)) for size in (0, right - 1, right + 1)],
    ),
    "websocket: 16 and 64 bits": (
        "websocket", ((0, UPGRADE), (1, SWITCH)),
        [b"\x82\xfe\0\5", b"\x82\xff" + bytes(8), b"\x82\xff" + b"\xff" * 8, b"\x82\xff\x80" + bytes(7),
         b"\x89\xfe\0\x7e", b"\x88\x81\0\0\0\0x"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_lengths_that_are_no_numbers_or_too_great(name: str) -> None:
    """Each is refused at once, or never whole (a length of 512 MiB that a server takes), or passed over."""
    protocol, before, messages = WRITTEN[name]
    names = {protocol} | ({"http"} if protocol == "websocket" else set())
    refused = 0
    for message in messages:
        p = Quick(judged(*names), rule_files(*(unit_by_unit(each) for each in names)))
        for direction, data in before:
            p.feed(p.connection.segment(direction, data))
        already = len(p.records)
        p.client(message)
        outlived(p, TO_SERVER, b"0" * 60_000)
        fresh = p.records[already:]
        refused += bool(fresh) and fresh[-1]["verdict"] == "deny"
    assert refused >= len(messages) - 4


def test_memory_does_not_follow_what_is_claimed() -> None:
    tracemalloc.start()
    try:
        for field in LENGTHS:
            conversation = ALL[field.conversation]
            direction, data = conversation.parts[field.part]
            p, _ = begun(conversation, field.part)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            lie = ((1 << 8 * field.width) - 1) >> 1
            claimed = lie.to_bytes(field.width, field.order)  # type: ignore[arg-type]
            p.feed(p.connection.segment(direction, data[: field.at] + claimed + data[field.at + field.width :]))
            assert tracemalloc.get_traced_memory()[1] - before < 1 << 20, field
    finally:
        tracemalloc.stop()


def places() -> Iterator[tuple[int, int, bytes]]:
    for part in range(6):
        for at in range(28):
            for lie in (
                b"\0",
                b"\xff",
                b"\0\0",
                b"\xff\xff",
                b"\x7f\xff\xff\xff",
                b"\xff\xff\xff\xff",
                b"\xff\xff\xff\x7f",
            ):
                yield part, at, lie


@pytest.mark.parametrize("name", [name for name, each in ALL.items() if each.parser not in {"smtp", "ftp", "http"}])
def test_any_field_that_lies(name: str) -> None:
    """Of the heads of messages, wherever a length may stand; the parser by itself."""
    conversation = ALL[name]
    filler = bytes(range(256)) * 64
    for part, at, lie in places():
        if part >= len(conversation.parts) or at >= len(conversation.parts[part][1]):
            continue
        parser = conversation.begin()
        direction, data = conversation.parts[part]
        try:
            for other, before in conversation.parts[:part]:
                parser.feed(other, before)
            parser.feed(direction, data[:at] + lie + data[at + len(lie) :])
            parser.feed(direction, filler)
        except ParseError:
            continue
        assert parser.buffered <= MOST


def test_a_denied_command_behind_a_lie_is_not_let_through() -> None:
    """Its place is another message's for whoever believes the length: nobody gets it unless it was body for all."""
    conversation = ALL[MYSQL]
    for claimed in (0, 1, 17, 19, 22, 40, 0xFFFFFF):
        p, parts = begun(conversation, 3)
        _, data = parts[3]
        secret = b"\x13\0\0\0\3DROP TABLE customer"
        p.client(claimed.to_bytes(3, "little") + data[3:] + secret)
        p.wait(3)
        denied = [record for record in p.records if record["verdict"] == "deny"]
        assert denied or secret not in through(p), claimed
