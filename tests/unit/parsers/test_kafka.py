from __future__ import annotations

import struct

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Unit, Value
from parsers.kafka import _APIS, KafkaParser, Limits, _layout
from tests.contract.conversations.kafka import request

ID = bytes(range(16))
ID_TEXT = b"AAECAwQFBgcICQoLDA0ODw"


def only(events: list[Event]) -> dict[str, Value]:
    (unit,) = events
    assert isinstance(unit, Unit)
    return {name.removeprefix("kafka."): value for name, value in unit.fields.items()}


def text(value: bytes) -> bytes:
    return struct.pack(">h", len(value)) + value


def compact(value: bytes) -> bytes:
    return bytes((len(value) + 1,)) + value


def array(*items: bytes) -> bytes:
    return struct.pack(">i", len(items)) + b"".join(items)


def several(*items: bytes) -> bytes:
    return bytes((len(items) + 1,)) + b"".join(items)


TAGS = b"\2\0\3abc\x05\x80\1" + b"x" * 128
NULL = b"\xff\xff"
A, B = text(b"a"), text(b"b")
CA, CB = compact(b"a"), compact(b"b")
INTS = array(bytes(4), bytes(4))

OLD = [
    (0, 2, bytes(6) + array(A + array(bytes(4) + b"\0\0\0\3abc", bytes(4) + b"\xff\xff\xff\xff"), B + array())),
    (0, 3, NULL + bytes(6) + array(A + array(bytes(4) + b"\0\0\0\3abc"), B + array())),
    (1, 0, bytes(12) + array(A + array(bytes(16)), B + array(bytes(16)))),
    (1, 3, bytes(16) + array(A + array(bytes(16)), B + array(bytes(16)))),
    (1, 7, bytes(25) + array(A + array(bytes(24)), B + array(bytes(24))) + array()),
    (1, 11, bytes(25) + array(A + array(bytes(28)), B + array(bytes(28))) + array() + text(b"")),
    (2, 0, bytes(4) + array(A + array(bytes(16)), B)),
    (2, 4, bytes(5) + array(A + array(bytes(16)), B)),
    (3, 0, array(A, B)),
    (3, 8, array(A, B) + bytes(3)),
    (8, 0, text(b"group") + array(A + array(bytes(12) + text(b"meta")), B + array())),
    (8, 7, text(b"group") + bytes(4) + text(b"m") + NULL + array(A + array(bytes(16) + NULL), B + array())),
    (9, 1, text(b"group") + array(A + INTS, B + INTS)),
    (
        19,
        1,
        array(A + bytes(6) + array(bytes(4) + INTS) + array(text(b"k") + text(b"v")), B + bytes(6) + array() * 2)
        + bytes(5),
    ),
    (20, 1, array(A, B) + bytes(4)),
    (21, 0, array(A + array(bytes(12)), B + array()) + bytes(4)),
    (23, 2, array(A + array(bytes(12)), B + array())),
    (24, 0, text(b"t") + bytes(10) + array(A + INTS, B + INTS)),
    (28, 2, text(b"t") + text(b"g") + bytes(10) + array(A + array(bytes(16) + NULL), B + array())),
    (
        32,
        1,
        array(b"\2" + A + array(text(b"k")), b"\4" + text(b"1") + b"\xff\xff\xff\xff", b"\2" + B + array()) + b"\0",
    ),
    (30, 1, array(b"\2" + A + b"\3" + text(b"p") + text(b"*") + b"\2\3", b"\2" + B + b"\3" + text(b"p") * 2 + b"\2\3")),
    (37, 0, array(A + bytes(4) + array(INTS), B + bytes(4) + b"\xff\xff\xff\xff") + bytes(5)),
    (43, 1, b"\0" + array(A + INTS, B + INTS) + bytes(4)),
    (47, 0, text(b"g") + array(A + INTS, B + INTS)),
]


@pytest.mark.parametrize(("key", "version", "body"), OLD, ids=lambda value: str(value)[:8])
def test_topics_before_flexible_versions(key: int, version: int, body: bytes) -> None:
    parser = KafkaParser()
    said = only(parser.feed(TO_SERVER, request(key, version, body)))
    assert said == {"api": _APIS[key].name, "version": version, "client": b"me", "topics": (b"a", b"b")}
    assert not parser.pending(TO_SERVER)
    assert parser.buffered == 0


FLEXIBLE = [
    (0, 12, CA + bytes(6) + several(CA + several(bytes(4) + b"\4abc" + TAGS) + TAGS, CB + several() + TAGS), b"a b"),
    (0, 13, b"\0" + bytes(6) + several(ID + several(bytes(4) + b"\0\0") + b"\0"), ID_TEXT),
    (1, 12, bytes(25) + several(CA + several(bytes(32) + TAGS) + TAGS, CB + several() + TAGS), b"a b"),
    (1, 17, bytes(21) + several(ID + several(bytes(32) + TAGS) + TAGS), ID_TEXT),
    (3, 12, several(bytes(16) + CA + b"\0", ID + b"\0" + b"\0") + bytes(3), b"a " + ID_TEXT),
    (9, 8, several(CA + several(CB + several(bytes(4)) + TAGS) + TAGS, CB + b"\0" + TAGS) + b"\0", b"b"),
    (20, 6, several(CA + bytes(16) + TAGS, b"\0" + ID + TAGS) + bytes(4), b"a " + ID_TEXT),
    (24, 4, several(CB + bytes(11) + several(CA + several(bytes(4)) + TAGS) + TAGS), b"a"),
    (44, 1, several(b"\2" + CA + several(CA + b"\0" + CA + TAGS) + TAGS, b"\2" + CB + several() + TAGS), b"a b"),
    (68, 0, CA + CB + bytes(4) + b"\0" + b"\0" + bytes(4) + several(CA, CB), b"a b"),
    (75, 0, several(CA + TAGS, CB + TAGS) + bytes(4) + b"\xff", b"a b"),
    (78, 1, CA + CB + bytes(24) + several(ID + several() + TAGS), ID_TEXT),
]


@pytest.mark.parametrize(("key", "version", "body", "topics"), FLEXIBLE, ids=lambda value: str(value)[:8])
def test_topics_of_flexible_versions(key: int, version: int, body: bytes, topics: bytes) -> None:
    data = request(key, version, body + b"\0", flexible=True)
    assert only(KafkaParser().feed(TO_SERVER, data))["topics"] == tuple(topics.split())


@pytest.mark.parametrize("null", [request(3, 1, b"\xff\xff\xff\xff"), request(3, 12, b"\0\0\0\0", flexible=True)])
def test_no_topics(null: bytes) -> None:
    assert "topics" not in only(KafkaParser().feed(TO_SERVER, null))


def test_every_layout_can_be_read() -> None:
    for key, api in _APIS.items():
        for version in range(api.newest + 1 if api.layout else 0):
            steps = _layout(key, version)
            assert any(step.names for step in steps) or (key, version) == (9, 0)


def test_names() -> None:
    assert only(KafkaParser().feed(TO_SERVER, request(10, 9)))["api"] == b"FindCoordinator"
    assert only(KafkaParser().feed(TO_SERVER, request(999, 9)))["api"] == b"999"
    assert "client" not in only(KafkaParser().feed(TO_SERVER, request(10, 0, client=None)))
    # ApiVersions of a version that is not known yet; the first ControlledShutdown names no client.
    assert only(KafkaParser().feed(TO_SERVER, request(18, 99, b"??", flexible=True)))["client"] == b"me"
    data = b"\0\0\0\x0c\0\7\0\0" + bytes(8)
    assert only(KafkaParser().feed(TO_SERVER, data)) == {"api": b"ControlledShutdown", "version": 0}


def test_a_batch_is_not_kept_and_keeps_nobody_waiting() -> None:
    parser = KafkaParser()
    records = 100_000_000
    head = request(0, 3, NULL + bytes(6) + array(A + array(bytes(4) + struct.pack(">i", records))))
    data = struct.pack(">i", len(head) - 4 + records) + head[4:]
    told = data.index(A) + len(A)
    assert parser.feed(TO_SERVER, data[: told - 1]) == []
    assert parser.pending(TO_SERVER)
    assert only(parser.feed(TO_SERVER, data[told - 1 : told]))["topics"] == (b"a",)
    parser.feed(TO_SERVER, data[told:])
    for _ in range(100):
        assert parser.feed(TO_SERVER, bytes(100_000)) == []
        assert parser.buffered == 0
        assert not parser.pending(TO_SERVER)
    parser.gap(TO_SERVER, records - 10_000_000)
    assert only(parser.feed(TO_SERVER, request(12, 0)))["api"] == b"Heartbeat"


def test_a_batch_before_another_topic_is_waited_for() -> None:
    parser = KafkaParser()
    batch = bytes(4) + struct.pack(">i", 300_000) + bytes(300_000)
    data = request(0, 3, NULL + bytes(6) + array(A + array(batch), B + array()))
    for at in range(0, 290_000, 10_000):
        assert parser.feed(TO_SERVER, data[at : at + 10_000]) == []
        assert parser.pending(TO_SERVER)
        assert parser.buffered < 100
    assert only(parser.feed(TO_SERVER, data[290_000:]))["topics"] == (b"a", b"b")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\0\0\7", "request_size"),
        (b"\xff\xff\xff\xff", "request_size"),
        (struct.pack(">i", 100 * 1024 * 1024 + 1), "request_size"),
        (b"GET / HTTP/1.1\r\n", "request_size"),
        (request(-1, 0), "api"),
        (request(3, -1), "api"),
        (request(0, 14, flexible=True), "version"),
        (request(3, 14, flexible=True), "version"),
        (b"\0\0\0\x09\0\3\0\0" + bytes(4) + b"\0", "length"),
        (b"\0\0\0\x0a\0\3\0\0" + bytes(4) + b"\0\5", "length"),
        (b"\0\0\0\x0a\0\3\0\0" + bytes(4) + b"\xff\xfe", "length"),
        (request(12, 0, client=b"x" * 5000), "text_size"),
        (request(3, 0, b"\x7f\xff\xff\xff"), "length"),
        (request(3, 0, b"\xff\xff\xff\xfe"), "length"),
        (request(3, 0, array(text(b"x" * 5000))), "text_size"),
        (request(3, 0, b"\0\0\0\2" + A), "length"),
        (request(3, 9, b"\xff\xff\xff\xff\xff\x01", flexible=True), "varint"),
        (request(3, 9, b"\xff\xff\xff\xff\x7f", flexible=True), "length"),
        (request(3, 9, several(CA + b"\1\0\x7f", CB), flexible=True), "length"),
        (request(0, 3, NULL + bytes(6) + array(A + array(bytes(4) + b"\0\0\1\0"), B)), "length"),
        (request(1, 0, bytes(12) + array(A + b"\0\0\0\5" + bytes(16), B)), "length"),
        (request(3, 0, array(*[A] * 9000)), "too_many_topics"),
        (request(3, 0, array(*[text(b"x" * 249)] * 400)), "too_many_topics"),
        (request(17, 0, b"\0\5PLAIN"), "sasl_version"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(data: bytes, code: str) -> None:
    parser = KafkaParser()
    with pytest.raises(ParseError) as caught:
        parser.feed(TO_SERVER, data)
    assert caught.value.code == code


def test_tags_before_the_topics_are_within_the_request() -> None:
    data = request(3, 9, b"", flexible=True)[:-1] + b"\1\0\x7f"
    with pytest.raises(ParseError, match="length"):
        KafkaParser().feed(TO_SERVER, struct.pack(">i", len(data) - 4) + data[4:])


def test_responses_are_framed() -> None:
    parser = KafkaParser()
    parser.feed(TO_CLIENT, b"\0\0\1\0" + bytes(100))
    parser.gap(TO_CLIENT, 156)
    parser.feed(TO_CLIENT, b"\0\0\0\4" + bytes(4))
    with pytest.raises(ParseError) as caught:
        parser.feed(TO_CLIENT, b"\xff\xff\xff\xff")
    assert (caught.value.code, caught.value.offset) == ("response_size", 272)
    with pytest.raises(ParseError, match="gap"):
        KafkaParser().gap(TO_CLIENT, 1)


def test_limits_are_the_callers() -> None:
    with pytest.raises(ParseError, match="request_size"):
        KafkaParser(Limits(request=10)).feed(TO_SERVER, request(12, 0))
