from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, ParseError, Value
from parsers.mqtt import Limits, MqttParser
from tests.contract.conversations.mqtt import CONNACK, CONNECT_5, CONNECT_31, CONNECT_311
from tests.unit.parsers.streams import fed, flooded, refused, said


def packet(first: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while size > 0x7F:
        length += bytes((0x80 | size & 0x7F,))
        size >>= 7
    return bytes((first,)) + length + bytes((size,)) + body


def text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def connect(name: bytes, level: int, flags: int, rest: bytes) -> bytes:
    return packet(0x10, text(name) + bytes((level, flags)) + b"\0\x3c" + rest)


def connected(client: bytes = CONNECT_311, limits: Limits | None = None) -> MqttParser:
    parser = MqttParser(limits)
    fed(parser, (TO_SERVER, client))
    return parser


def topics(parser: MqttParser, data: bytes) -> list[Value]:
    return [unit["mqtt.topic"] for unit in said(fed(parser, (TO_SERVER, data)))]


def publish(topic: bytes, properties: bytes = b"") -> bytes:
    return packet(0x30, text(topic) + bytes((len(properties),)) + properties + b"payload")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc0\0", "order"),
        (packet(0x11, CONNECT_311[2:]), "flags"),
        (b"\0\0", "type"),
        (b"\xf0\0", "type"),
        (CONNACK, "type"),
        (connect(b"MQTT", 3, 2, text(b"a")), "version"),
        (connect(b"MQTT", 6, 2, text(b"a")), "version"),
        (connect(b"MQTX", 4, 2, text(b"a")), "version"),
        (connect(b"MQTT", 4, 3, text(b"a")), "connect_flags"),
        (connect(b"MQTT", 4, 0x42, text(b"a") + text(b"pw")), "connect_flags"),
        (connect(b"MQTT", 4, 0x0A, text(b"a")), "connect_flags"),
        (connect(b"MQTT", 4, 0x1E, text(b"a") + text(b"t") + text(b"")), "connect_flags"),
        (connect(b"MQTT", 4, 6, text(b"a") + text(b"t/#") + text(b"")), "wildcard"),
        (connect(b"MQTT", 4, 2, text(b"a\xff")), "utf8"),
        (connect(b"MQTT", 4, 2, text(b"a\0")), "utf8"),
        (connect(b"MQTT", 4, 2, text(b"a") + b"x"), "packet"),
        (connect(b"MQTT", 4, 2, b"\xff\xffa"), "packet"),
        (connect(b"MQTT", 4, 0x82, text(b"a")), "packet"),
        (connect(b"MQTT", 5, 2, b"\x7f" + text(b"a")), "properties"),
        (connect(b"MQTT", 5, 2, b"\2\x7f\0" + text(b"a")), "properties"),
        (connect(b"MQTT", 5, 2, b"\4\x15\0\5a" + text(b"a")), "packet"),
        (connect(b"MQTT", 5, 2, b"\x80\0" + text(b"a")), "length"),
        (b"\x10\xff\xff\xff\xff\1", "length"),
        (b"\x10\x80\0", "length"),
        (b"\x10\xff\xff\xff\x7f", "packet_too_long"),
    ],
)
def test_no_beginning(data: bytes, code: str) -> None:
    assert refused(MqttParser(), (TO_SERVER, data)) == (code, 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (CONNECT_311, "order"),
        (b"\xc0\1\0", "packet"),
        (b"\xc1\0", "flags"),
        (b"\x60\2\0\1", "flags"),
        (b"\x36\7\0\1a\0\1xy", "flags"),
        (b"\x30\1\0", "packet"),
        (b"\x30\3\0\5a", "packet"),
        (b"\x32\3\0\1a", "packet"),
        (b"\x32\5\0\1a\0\0", "packet_identifier"),
        (b"\x30\2\0\0", "topic"),
        (b"\x30\5\0\3a/+", "wildcard"),
        (b"\x30\5\0\3a/#", "wildcard"),
        (b"\x30\3\0\1\xff", "utf8"),
        (b"\x80\6\0\1\0\1a\0", "flags"),
        (b"\x8a\6\0\1\0\1a\0", "flags"),
        (b"\x82\2\0\1", "packet"),
        (b"\x82\6\0\0\0\1a\0", "packet_identifier"),
        (b"\x82\5\0\1\0\1a", "packet"),
        (b"\x82\5\0\1\0\0\0", "filter"),
        (b"\x82\6\0\1\0\1a\3", "options"),
        (b"\x82\6\0\1\0\1a\4", "options"),
        (b"\x82\7\0\1\0\2a#\0", "filter"),
        (b"\x82\x08\0\1\0\3#/a\0", "filter"),
        (b"\x82\7\0\1\0\2a+\0", "filter"),
        (b"\xf0\2\0\0", "type"),
        (b"\xe0\0\xc0\0", "after_disconnect"),
    ],
)
def test_refused(data: bytes, code: str) -> None:
    assert refused(connected(), (TO_SERVER, data))[0] == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x30\3\0\1a", "packet"),
        (b"\x30\4\0\1a\5", "properties"),
        (b"\x30\5\0\1a\5#", "properties"),
        (publish(b"a", b"#\0\1#\0\2"), "topic_alias"),
        (b"\x82\2\0\1", "packet"),
        (b"\x82\3\0\1\x7f", "properties"),
        (packet(0x82, b"\0\1\2\x0b\x80" + text(b"a") + b"\0"), "properties"),
        (packet(0x82, b"\0\1\0" + text(b"a") + b"\x30"), "options"),
        (packet(0x82, b"\0\1\0" + text(b"a") + b"\x40"), "options"),
    ],
)
def test_refused_of_5(data: bytes, code: str) -> None:
    assert refused(connected(CONNECT_5), (TO_SERVER, data))[0] == code


def test_subscription_of_5() -> None:
    data = packet(0x82, b"\0\1\3\x0b\x80\1" + text(b"a") + b"\x2e")
    (unit,) = said(fed(connected(CONNECT_5), (TO_SERVER, data)))
    assert unit["mqtt.topics"] == (b"a",)


@pytest.mark.parametrize(
    "topic", [b"#", b"+", b"/", b"a", b"a/", b"/a", b"+/+/#", b"a/+/b", b"a/#", b"$share/g/a/#", "ü".encode()]
)
def test_filters(topic: bytes) -> None:
    (unit,) = said(fed(connected(), (TO_SERVER, packet(0x82, b"\0\1" + text(topic) + b"\2"))))
    assert unit["mqtt.topics"] == (topic,)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"\xd0\0", "order"), (CONNACK + CONNACK, "order"), (CONNACK + b"\x82\2\0\0", "type"), (b"\x21\0", "flags")],
)
def test_broker(data: bytes, code: str) -> None:
    assert refused(connected(), (TO_CLIENT, data))[0] == code


def test_authentication_of_5() -> None:
    parser = connected(CONNECT_5)
    auth = b"\xf0\2\x18\0"
    assert fed(parser, (TO_CLIENT, auth), (TO_SERVER, auth), (TO_CLIENT, b"\x20\3\0\0\0"), (TO_SERVER, auth)) == []


def test_bridge_and_repeated_subscribe() -> None:
    (unit,) = said(fed(MqttParser(), (TO_SERVER, connect(b"MQTT", 0x84, 2, text(b"bridge")))))
    assert unit["mqtt.version"] == b"3.1.1"
    assert len(said(fed(connected(CONNECT_31), (TO_SERVER, b"\x8a\6\0\1\0\1a\0")))) == 1


def test_aliases() -> None:
    parser = connected(CONNECT_5)
    assert topics(parser, publish(b"one", b"#\0\1") + publish(b"two", b"#\0\2")) == [b"one", b"two"]
    assert topics(parser, publish(b"", b"#\0\1") + publish(b"three", b"#\0\1")) == [b"one", b"three"]
    assert topics(parser, publish(b"", b"#\0\1") + publish(b"", b"#\0\2")) == [b"three", b"two"]
    assert parser.buffered == len(b"threetwo")
    for properties, code in ((b"#\0\0", "topic_alias"), (b"#\0\3", "topic_alias"), (b"#\0\1#\0\1", "topic_alias")):
        assert refused(connected(CONNECT_5), (TO_SERVER, publish(b"", properties)))[0] == code
    assert refused(connected(CONNECT_5), (TO_SERVER, publish(b"")))[0] == "topic"


def test_aliases_are_bounded() -> None:
    limits = Limits(aliases=2, alias_bytes=10)
    assert refused(connected(CONNECT_5, limits), (TO_SERVER, publish(b"x" * 11, b"#\0\1")))[0] == "topic_aliases"
    many = b"".join(publish(b"a", bytes((0x23, 0, number))) for number in (1, 2, 1, 3))
    assert refused(connected(CONNECT_5, limits), (TO_SERVER, many))[0] == "topic_aliases"


def test_a_payload_is_passed() -> None:
    parser = connected()
    head = b"\x30\xff\xff\xff\x7f\0\1a"
    fed(parser, (TO_SERVER, head[:6]))
    assert parser.pending(TO_SERVER)
    assert topics(parser, head[6:]) == [b"a"]
    assert flooded(parser, bytes(65536), times=10) == ("", 0)
    assert not parser.pending(TO_SERVER)
    left = (1 << 28) - 1 - 3 - 655360
    assert parser.gap(TO_SERVER, left) == []
    assert topics(parser, b"\x30\3\0\1b") == [b"b"]
    with pytest.raises(ParseError, match="gap"):
        parser.gap(TO_SERVER, 1)


def test_what_is_kept_is_bounded() -> None:
    lie = b"\x30\xff\xff\xff\x7f\0\1a\xff\xff\xff\x7e"
    assert refused(connected(CONNECT_5), (TO_SERVER, lie))[0] == "packet_too_long"
    assert topics(connected(), packet(0x30, text(b"t" * 65535) + bytes(100_000))) == [b"t" * 65535]
    parser = connected()
    fed(parser, (TO_SERVER, b"\x82\x80\x80\x04\0\1"))
    assert parser.buffered == 6
    filters = packet(0x82, b"\0\1" + (text(b"a" * 1000) + b"\0") * 74)
    assert refused(connected(), (TO_SERVER, filters))[0] == "packet_too_long"


def test_many_properties_take_linear_time() -> None:
    pairs = b"\x26\0\0\0\0" * 14000
    size = bytes((len(pairs) & 0x7F | 0x80, len(pairs) >> 7 & 0x7F | 0x80, len(pairs) >> 14))
    assert topics(connected(CONNECT_5), packet(0x30, text(b"a") + size + pairs)) == [b"a"]
