from __future__ import annotations

import pytest

from parsers.amqp import AmqpParser
from parsers.base import TO_CLIENT, TO_SERVER, ParseError, Switched, Unit
from tests.contract.conversations.amqp import (
    ANONYMOUS,
    CONTENT,
    HEADER,
    INIT,
    LINKS,
    LOGIN,
    OPEN,
    OPENED,
    RECEIVES,
    SASL,
    SENDS,
    START_OK,
    frame,
    long,
    method,
    performative,
    short,
)
from tests.unit.parsers.streams import fed, flooded, refused, said

TLS = b"AMQP\2\1\0\0"


def after(*parts: bytes) -> AmqpParser:
    parser = AmqpParser()
    fed(parser, *[(TO_SERVER, part) for part in parts])
    return parser


def last(*parts: bytes) -> dict[str, object]:
    found = said(fed(AmqpParser(), *[(TO_SERVER, part) for part in parts]))[-1]
    return {name: value for name, value in found.items() if name not in {"amqp.mechanism", "amqp.user", "amqp.vhost"}}


@pytest.mark.parametrize(
    ("number", "texts", "names"),
    [
        ((40, 20), (b"e",), ("exchange",)),
        ((40, 30), (b"e", b"s", b"k"), ("exchange", "source", "routing_key")),
        ((40, 40), (b"e", b"s", b"k"), ("exchange", "source", "routing_key")),
        ((50, 30), (b"q",), ("queue",)),
        ((50, 40), (b"q",), ("queue",)),
        ((50, 50), (b"q", b"e", b"k"), ("queue", "exchange", "routing_key")),
        ((60, 40), (b"", b"k" * 255), ("exchange", "routing_key")),
        ((60, 70), (b"q",), ("queue",)),
    ],
)
def test_methods(number: tuple[int, int], texts: tuple[bytes, ...], names: tuple[str, ...]) -> None:
    unit = last(LOGIN, method(*number, b"\0\0" + b"".join(map(short, texts)) + b"\0"))
    del unit["amqp.method"]
    assert unit == {f"amqp.{name}": text for name, text in zip(names, texts, strict=True)}


def test_logins() -> None:
    def login(mechanism: bytes, response: bytes) -> list[Unit]:
        answer = method(10, 11, long(b"") + short(mechanism) + long(response) + short(b"en"))
        return [event for event in fed(AmqpParser(), (TO_SERVER, HEADER + answer)) if isinstance(event, Unit)]

    (unit,) = login(b"PLAIN", b"admin\0guest\0secret")
    assert unit.fields["amqp.user"] == b"guest"
    assert unit.later == {"amqp.vhost"}
    (unit,) = login(b"AMQPLAIN", b"\5LOGINS\0\0\0\5guest")
    assert dict(unit.fields) == {"amqp.method": b"connection.start-ok", "amqp.mechanism": b"AMQPLAIN"}
    (unit,) = login(b"PLAIN", b"guest")
    assert "amqp.user" not in unit.fields


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"AMQP\0\0\x09\2", "version"),
        (b"AMQP\1\1\x08\0", "version"),
        (b"AMQX\0\0\x09\1", "header"),
        (HEADER + b"\4\0\0\0\0\0\0", "frame_type"),
        (HEADER + b"\1\0\0\xff\xff\xff\xff", "frame_size"),
        (HEADER + frame(1, 0, b"\0\x0a"), "frame_size"),
        (HEADER + START_OK[:-1] + b"\0", "frame_end"),
        (HEADER + method(10, 11, b"\xff\xff\xff\xff"), "frame"),
        (HEADER + method(10, 11, long(b"") + b"\xffPLAIN"), "frame"),
        (HEADER + method(10, 11, channel=1), "channel"),
        (HEADER + OPEN, "order"),
        (HEADER + START_OK + START_OK, "order"),
        (HEADER + START_OK + method(20, 10, b"\0"), "order"),
        (HEADER + START_OK + CONTENT, "order"),
        (LOGIN + OPEN, "order"),
        (LOGIN + method(10, 31, bytes(8)), "order"),
        (LOGIN + method(20, 10, b"\0", channel=0), "channel"),
        (LOGIN + method(10, 10), "method"),
        (LOGIN + method(61, 40), "method"),
        (LOGIN + method(60, 40, b"\0\0\x05ex"), "frame"),
        (LOGIN + frame(8, 1, b""), "frame_size"),
        (LOGIN + frame(8, 0, b"x"), "frame_size"),
        (LOGIN + b"\3\0\1\xff\xff\xff\xff", "frame_size"),
        (LOGIN + CONTENT[:-1] + b"\0", "frame_end"),
        (SASL + LINKS, "version"),
        (SASL + INIT + SASL, "version"),
        (SASL + INIT + INIT, "order"),
        (SASL + OPENED, "frame_type"),
        (SASL + performative(0x41, kind=1), "mechanism"),
        (SASL + performative(0x41, b"@", kind=1), "mechanism"),
        (SASL + performative(0x41, b"P\0", kind=1), "text"),
        (SASL + performative(0x45, kind=1), "performative"),
        (LINKS + INIT, "frame_type"),
        (LINKS + LINKS, "frame_type"),
        (LINKS + performative(0x11), "order"),
        (LINKS + OPENED + OPENED, "order"),
        (LINKS + performative(0x19), "performative"),
        (LINKS + b"\0\0\0\7\2\0\0\0", "frame_size"),
        (LINKS + b"\0\0\0\x08\1\0\0\0", "frame_size"),
        (LINKS + b"\0\0\0\x08\3\0\0\0", "frame_size"),
        (LINKS + b"\0\0\0\x0b\2\0\0\0\0Sp", "performative"),
        (LINKS + b"\0\0\0\x0c\2\0\0\0\0\xa3\1x", "descriptor"),
        (LINKS + b"\0\0\0\x0c\2\0\0\0Sxxx", "descriptor"),
        (LINKS + b"\0\0\0\x0e\2\0\0\0\0S\x10\xc0\xff\2", "frame"),
        (LINKS + b"\0\0\0\x0c\2\0\0\0\0S\x10\xa1", "list"),
        (LINKS + OPENED + performative(0x12, b"@"), "attach"),
        (LINKS + OPENED + performative(0x12, b"@", b"C", b"C"), "attach"),
        (LINKS + OPENED + performative(0x12, b"@", b"\x10", b"A"), "value"),
        (LINKS + OPENED + performative(0x12, bytes(40), b"C", b"A"), "nested"),
        (LINKS + OPENED + performative(0x12, b"\xb1\xff\xff\xff\xff", b"C", b"A"), "frame"),
    ],
)
def test_refused(data: bytes, code: str) -> None:
    assert refused(AmqpParser(), (TO_SERVER, data))[0] == code
    with pytest.raises(ParseError, match=code):
        fed(AmqpParser(), *[(TO_SERVER, bytes((byte,))) for byte in data])


def test_links() -> None:
    opened = LINKS + OPENED
    assert last(opened, performative(0x12, *SENDS)) == {"amqp.method": b"attach", "amqp.address": b"q1"}
    assert last(opened, performative(0x12, *RECEIVES)) == {"amqp.method": b"attach", "amqp.address": b"q2"}
    long_role = (*RECEIVES[:2], b"\x56\1", *RECEIVES[3:])
    assert last(opened, performative(0x12, *long_role)) == {"amqp.method": b"attach", "amqp.address": b"q2"}
    for target in (b"@", ANONYMOUS, b"\0S)E", b"\0S0E"):  # none, without an address twice, a coordinator
        assert last(opened, performative(0x12, *SENDS[:6], target)) == {"amqp.method": b"attach"}
    assert last(opened, performative(0x12, *SENDS[:6])) == {"amqp.method": b"attach"}


def test_descriptors_of_any_width() -> None:
    wide = b"\0\0\0\x13\2\0\0\0\0\x80\0\0\0\0\0\0\0\x10E"
    assert last(LINKS, wide) == {"amqp.method": b"open"}


def test_content_is_passed() -> None:
    parser = after(LOGIN)
    fed(parser, (TO_SERVER, b"\3\0\1\x08\0\0\0"))
    assert flooded(parser, bytes(65536), times=100) == ("", 0)
    assert not parser.pending(TO_SERVER)
    assert parser.gap(TO_SERVER, (128 << 20) - 6553600) == []
    assert said(fed(parser, (TO_SERVER, b"\xce" + method(90, 10))))[0]["amqp.method"] == b"tx.select"


def test_empty_content() -> None:
    assert last(LOGIN, frame(3, 1, b"") + method(90, 20))["amqp.method"] == b"tx.commit"


def test_transfers_are_passed() -> None:
    parser = after(LINKS + OPENED)
    fed(parser, (TO_SERVER, b"\0\x10\0\0\2\0\0\0\0S\x14\xc0\7\4CC\xa0\0011C"))
    assert flooded(parser, bytes(65536), times=15) == ("", 0)
    assert parser.gap(TO_SERVER, 65536 - 20) == []
    assert said(fed(parser, (TO_SERVER, performative(0x12, *SENDS))))[0]["amqp.address"] == b"q1"


def test_what_is_kept_is_bounded() -> None:
    assert refused(after(LOGIN), (TO_SERVER, b"\1\0\1\0\1\0\1"))[0] == "frame_size"
    parser = after(LINKS)
    assert refused(parser, (TO_SERVER, b"\0\1\0\1\2\0\0\0\0S\x10\xd0\0\0\0\0\0\0\0"))[0] == "frame_size"
    parser = after(LOGIN)
    fed(parser, (TO_SERVER, b"\1\0\1\0\1\0\0"))
    code, most = flooded(parser, bytes(1000))
    assert code == "frame_end"
    assert most <= 65544


def test_server_that_speaks_first_or_another_version() -> None:
    assert refused(AmqpParser(), (TO_CLIENT, HEADER)) == ("order", 0)
    parser = after(HEADER)
    assert fed(parser, (TO_CLIENT, b"AMQP\0\0\x09\1"), (TO_CLIENT, b"goodbye!")) == []
    assert refused(after(HEADER), (TO_CLIENT, b"HTTP/1.1"))[0] == "frame_type"
    assert refused(after(LINKS), (TO_CLIENT, b"HTTP/1.1"))[0] == "header"
    assert refused(after(HEADER), (TO_CLIENT, method(10, 10) + HEADER)) == ("frame_type", 12)
    assert refused(after(SASL), (TO_CLIENT, SASL + performative(0x40, kind=1) + b"\0\0\0\7\2\1\0\0"))[0] == "frame_size"


def test_open_without_a_host() -> None:
    (unit,) = fed(AmqpParser(), (TO_SERVER, LINKS + performative(0x10, b"\xa1\4self", b"@")))
    assert isinstance(unit, Unit)
    assert dict(unit.fields) == {"amqp.method": b"open"}
    assert not unit.later


def test_tls() -> None:
    parser = after(TLS)
    fed(parser, (TO_SERVER, b"\x16\3\1"))
    assert parser.blocked
    assert fed(parser, (TO_CLIENT, TLS)) == [Switched("tls", b"\x16\3\1")]
