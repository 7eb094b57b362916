from __future__ import annotations

import struct
import zlib

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Unit, Value
from parsers.mongodb import Limits, MongodbParser
from tests.contract.conversations.mongodb import document, element, message, op_msg, section

DB = element(b"$db", b"shop")


def only(events: list[Event]) -> dict[str, Value]:
    (unit,) = events
    assert isinstance(unit, Unit)
    return {name.removeprefix("mongodb."): value for name, value in unit.fields.items()}


def said(data: bytes) -> dict[str, Value]:
    parser = MongodbParser()
    fields = only(parser.feed(TO_SERVER, data))
    assert not parser.pending(TO_SERVER)
    assert parser.buffered == 0
    return fields


def compressed(body: bytes, *, size: int | None = None, compressor: int = 2, operation: int = 2013) -> bytes:
    data = zlib.compress(body) if compressor == 2 else body
    return message(2012, struct.pack("<iiB", operation, len(body) if size is None else size, compressor) + data)


VALUES = [
    b"\x01%s\0" + bytes(8),
    b"\x02%s\0" + b"\2\0\0\0a\0",
    b"\x03%s\0" + document({b"$db": b"fake"}),
    b"\x04%s\0" + document({b"0": b"a"}),
    b"\x05%s\0" + b"\3\0\0\0\0abc",
    b"\x06%s\0",
    b"\x07%s\0" + bytes(12),
    b"\x08%s\0" + b"\1",
    b"\x09%s\0" + bytes(8),
    b"\x0a%s\0",
    b"\x0b%s\0" + b"re\0i\0",
    b"\x0c%s\0" + b"\2\0\0\0a\0" + bytes(12),
    b"\x0d%s\0" + b"\2\0\0\0a\0",
    b"\x0e%s\0" + b"\2\0\0\0a\0",
    b"\x0f%s\0" + b"\x10\0\0\0" + bytes(12),
    b"\x10%s\0" + bytes(4),
    b"\x11%s\0" + bytes(8),
    b"\x12%s\0" + bytes(8),
    b"\x13%s\0" + bytes(16),
    b"\x7f%s\0",
    b"\xff%s\0",
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value[0]:02x}")
def test_every_type_is_passed_over(value: bytes) -> None:
    data = op_msg({b"find": b"orders"}, value % b"x" if value[0] != 0x10 else b"\x10x\0" + bytes(4), DB)
    assert said(data) == {"command": b"find", "database": b"shop", "collection": b"orders"}


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({b"ping": 1}, {"command": b"ping"}),
        ({b"Find": b"a"}, {"command": b"Find", "collection": b"a"}),
        ({b"getMore": 7, b"collection": b"a"}, {"command": b"getMore", "collection": b"a"}),
        ({b"find": b"a", b"collection": b"b"}, {"command": b"find", "collection": b"a"}),
        ({b"explain": {b"find": b"a", b"x": 1}}, {"command": b"explain", "collection": b"a"}),
        ({b"explain": {b"aggregate": 1}}, {"command": b"explain"}),
        ({b"explain": {}}, {"command": b"explain"}),
        (
            {
                b"hello": 1,
                b"client": {b"os": {b"name": b"x"}, b"driver": {b"name": b"D"}, b"application": {b"name": b"A"}},
            },
            {"command": b"hello", "client": b"D", "application": b"A"},
        ),
        ({b"hello": 1, b"client": {b"driver": {}, b"application": {b"name": 1}}}, {"command": b"hello"}),
        ({b"find": b"a", b"filter": {b"client": {b"driver": b"x"}}}, {"command": b"find", "collection": b"a"}),
    ],
)
def test_commands(values: dict[bytes, object], fields: dict[str, Value]) -> None:
    assert said(op_msg({**values, b"$db": b"shop"})) == {**fields, "database": b"shop"}
    noop = op_msg({**values, b"$db": b"shop"})[16:]
    assert said(compressed(noop)) == {**fields, "database": b"shop"}
    assert said(compressed(noop, compressor=0)) == {**fields, "database": b"shop"}


def test_a_query_may_be_wrapped() -> None:
    head = bytes(4) + b"admin.$cmd\0" + bytes(8)
    hello: dict[bytes, object] = {b"isMaster": 1, b"client": {b"driver": {b"name": b"D"}}}
    several: list[dict[bytes, object]] = [hello, {b"$query": hello, b"$db": b"fake"}, {b"query": hello}]
    for values in several:
        expected = {"command": b"isMaster", "database": b"admin", "client": b"D"}
        assert said(message(2004, head + document(values) + document({b"_id": 1}))) == expected
    # Only commands of before OP_MSG are.
    assert said(op_msg({b"$query": {b"ping": 1}, b"$db": b"a"}))["command"] == b"$query"


@pytest.mark.parametrize("compressor", [1, 3, 200])
def test_what_is_not_read_is_told_to_be_hidden(compressor: int) -> None:
    assert said(compressed(b"whatever", compressor=compressor, size=5000)) == {"compressed": 1}


def test_a_command_is_told_with_its_documents_end_and_a_body_keeps_nobody_waiting() -> None:
    parser = MongodbParser()
    head = op_msg({b"insert": b"orders", b"$db": b"shop"})
    size = struct.pack("<i", len(head) + 40_000_000)
    data = size + head[4:]
    for byte in data[:-1]:
        assert parser.feed(TO_SERVER, bytes((byte,))) == []
        assert parser.pending(TO_SERVER)
    assert only(parser.feed(TO_SERVER, data[-1:]))["command"] == b"insert"
    assert not parser.pending(TO_SERVER)
    parser.feed(TO_SERVER, b"\1" + struct.pack("<i", 40_000_000 - 1))
    for _ in range(100):
        assert parser.feed(TO_SERVER, b"\2x" * 50_000) == []
        assert parser.buffered == 0
        assert not parser.pending(TO_SERVER)
    parser.gap(TO_SERVER, 30_000_000 - 5)
    assert only(parser.feed(TO_SERVER, head))["command"] == b"insert"


def test_what_stands_behind_a_large_body_is_found_without_keeping_it() -> None:
    parser = MongodbParser()
    data = op_msg({b"insert": b"orders", b"documents": {b"0": b"x" * 3_000_000}}, DB)
    events: list[Event] = []
    for at in range(0, len(data) - 1, 65536):
        events += parser.feed(TO_SERVER, data[at : min(at + 65536, len(data) - 1)])
        assert parser.buffered < 100
        assert parser.pending(TO_SERVER)
    assert events == []
    assert only(parser.feed(TO_SERVER, data[-1:]))["database"] == b"shop"


def test_large_and_compressed() -> None:
    noise = b"".join(struct.pack("<d", 1 / number) for number in range(1, 40_000))
    data = op_msg({b"insert": b"orders", b"documents": {b"0": noise}}, DB)[16:]
    assert said(compressed(data))["database"] == b"shop"


def test_a_bomb_is_not_inflated() -> None:
    with pytest.raises(ParseError, match="inflated"):
        said(compressed(op_msg({b"insert": b"a", b"documents": {b"0": bytes(3_000_000)}}, DB)[16:]))
    body = section(b"documents", bytes(3_000_000))
    assert said(compressed(op_msg({b"insert": b"a", b"$db": b"b"}, sections=body)[16:]))["collection"] == b"a"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (struct.pack("<iiii", 15, 0, 0, 2013), "message_size"),
        (struct.pack("<iiii", -1, 0, 0, 2013), "message_size"),
        (struct.pack("<iiii", 48_000_001, 0, 0, 2013), "message_size"),
        (message(1, bytes(30)), "operation"),
        (message(2010, bytes(30)), "operation"),
        (message(2013, b"\4\0\0\0\0"), "flags"),
        (message(2013, b"\0\0\0\0\2\x10\0\0\0" + bytes(16)), "section"),
        (message(2013, b"\0\0"), "length"),
        (message(2013, b"\0\0\0\0"), "no_body"),
        (message(2013, b"\0\0\0\0" + section(b"documents")), "no_body"),
        (message(2013, b"\0\0\0\0\0" + struct.pack("<i", 300) + bytes(20)), "length"),
        (message(2013, b"\0\0\0\0\0" + struct.pack("<i", -5) + bytes(20)), "length"),
        (message(2013, b"\0\0\0\0\1" + struct.pack("<i", 300) + bytes(20)), "length"),
        (op_msg({b"ping": 1}), "no_database"),
        (op_msg({b"ping": 1, b"$db": 1}), "database"),
        (op_msg({b"ping": 1, b"$db": b"a"}, DB), "database"),
        (op_msg({}), "document"),
        (op_msg({b"find": b"a\0b"}, DB), "text_end"),
        (op_msg({b"find": b"a" * 5000}, DB), "text_size"),
        (op_msg({b"a" * 5000: 1}, DB), "too_long"),
        (op_msg({b"find": b"a"}, b"\x02x\0\xff\xff\xff\xff", DB), "length"),
        (op_msg({b"find": b"a"}, b"\x03x\0\xff\xff\xff\x7f", DB), "length"),
        (op_msg({b"find": b"a"}, b"\x03x\0\3\0\0\0", DB), "length"),
        (op_msg({b"find": b"a"}, b"\x14x\0", DB), "type"),
        (op_msg({b"find": b"a"}, DB, b"\0"), "document"),
        (op_msg({b"find": b"a"}, DB, b"\x10x\0\0\0"), "length"),
        (op_msg({b"hello": 1}, b"\x03client\0\4\0\0\0", DB), "document"),
        (op_msg({b"hello": 1}, b"\x03client\0\xff\xff\xff\x7f", DB), "length"),
        (op_msg({b"ping": 1}, DB, sections=op_msg({b"ping": 1}, DB)[20:]), "section"),
        (message(2013, b"\1\0\0\0\0" + document({b"ping": 1}, DB) + b"sum"), "length"),
        (message(2004, bytes(4) + b"a.$cmd\0" + bytes(8)), "length"),
        (message(2002, bytes(4) + b"a.b"), "length"),
        (compressed(b"", compressor=0, size=4), "message_size"),
        (compressed(op_msg({b"ping": 1}, DB)[16:], size=10), "length"),
        (compressed(op_msg({b"ping": 1}, DB)[16:-4], size=35), "message_size"),
        (compressed(b"", operation=2012), "operation"),
        (compressed(b"", size=-1), "message_size"),
        (message(2012, struct.pack("<iiB", 2013, 99, 2) + b"no zlib at all"), "zlib"),
        (message(2012, b"\xdd\7\0\0"), "length"),
    ],
)
def test_refused(data: bytes, code: str) -> None:
    with pytest.raises(ParseError) as caught:
        MongodbParser().feed(TO_SERVER, data + b"\0" * 64)
    assert caught.value.code == code


def test_a_checksum_is_no_section() -> None:
    assert said(op_msg({b"ping": 1, b"$db": b"a"}, flags=1)) == {"command": b"ping", "database": b"a"}


def test_not_more_is_inflated_than_was_said() -> None:
    body = b"\0\0\0\0\0" + struct.pack("<i", 25) + b"\x02" + b"a" * 60_000
    with pytest.raises(ParseError, match="message_size"):
        MongodbParser().feed(TO_SERVER, compressed(body, size=30))


def test_limits_are_the_callers() -> None:
    with pytest.raises(ParseError, match="message_size"):
        MongodbParser(Limits(message=30)).feed(TO_SERVER, op_msg({b"ping": 1}, DB))


def test_gaps() -> None:
    parser = MongodbParser()
    parser.feed(TO_CLIENT, b"whatever")
    parser.gap(TO_CLIENT, 1 << 40)
    with pytest.raises(ParseError) as caught:
        parser.gap(TO_SERVER, 1)
    assert (caught.value.code, caught.value.offset) == ("gap", 0)
