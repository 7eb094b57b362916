"""AMQP: pika 1.4 at RabbitMQ 3.10 as recorded (tests/data/record.py); pika (0-9-1) and Qpid Proton (1.0) shortened."""

from __future__ import annotations

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation
from tests.data import recorded

HEADER = b"AMQP\0\0\x09\1"
SASL = b"AMQP\3\1\0\0"
LINKS = b"AMQP\0\1\0\0"


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def long(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return bytes((kind,)) + channel.to_bytes(2, "big") + long(payload) + b"\xce"


def method(group: int, number: int, arguments: bytes = b"", *, channel: int | None = None) -> bytes:
    numbers = group.to_bytes(2, "big") + number.to_bytes(2, "big")
    return frame(1, (0 if group == 10 else 1) if channel is None else channel, numbers + arguments)


def performative(code: int, *values: bytes, kind: int = 0) -> bytes:
    body = b"".join(values)
    text = b"\0S" + bytes((code,)) + b"\xc0" + bytes((len(body) + 1, len(values))) + body
    return (len(text) + 8).to_bytes(4, "big") + bytes((2, kind, 0, 0)) + text


PROPERTIES = long(b"\7productS\0\0\0\x17Pika Python Client Library")
START_OK = method(10, 11, PROPERTIES + short(b"PLAIN") + long(b"\0guest\0secret") + short(b"en_US"))
OPEN = method(10, 40, short(b"/lab") + short(b"") + b"\1")
LOGIN = HEADER + START_OK + method(10, 31, b"\7\xff\0\2\0\0\0\x3c") + OPEN
CONTENT = frame(2, 1, b"\0\x3c\0\0\0\0\0\0\0\0\0\5\x10\0\2") + frame(3, 1, b"hello")
INIT = performative(0x41, b"\xa3\5PLAIN", b"\xa0\x0d\0guest\0secret", kind=1)
OPENED = performative(0x10, b"\xa1\4self", b"\xa1\x08mail.lab", b"p\0\0\x80\0", b"`\x7f\xff")
ANONYMOUS = b"\0S)\xc0\2\1\x40"
SENDS = (b"\xa1\4link", b"C", b"B", b"P\2", b"P\0", b"\0S(\xc0\6\5@C@CB", b"\0S)\xc0\x09\5\xa1\2q1C@CB")
RECEIVES = (b"\xa1\4link", b"R\1", b"A", b"P\2", b"P\0", b"\0S(\xc0\x09\5\xa1\2q2C@CB", b"\0S)\xc0\6\5@C@CB")

_USER: dict[str, Value] = {"amqp.mechanism": b"PLAIN", "amqp.user": b"guest"}
_ROOT = _USER | {"amqp.vhost": b"/"}
_BROKER = _USER | {"amqp.vhost": b"/lab"}
_HOST = _USER | {"amqp.vhost": b"mail.lab"}


def _said(before: dict[str, Value], name: bytes, **fields: bytes) -> tuple[str, dict[str, Value]]:
    return "amqp", {"amqp.method": name, **before, **{f"amqp.{key}": value for key, value in fields.items()}}


RECORDED = {
    "pika at RabbitMQ": (
        _said(_USER, b"connection.start-ok"),
        _said(_ROOT, b"connection.open"),
        _said(_ROOT, b"channel.open"),
        _said(_ROOT, b"exchange.declare", exchange=b"shop"),
        _said(_ROOT, b"queue.declare", queue=b"jobs"),
        _said(_ROOT, b"queue.bind", queue=b"jobs", exchange=b"shop", routing_key=b"order.#"),
        _said(_ROOT, b"basic.publish", exchange=b"shop", routing_key=b"order.new"),
        _said(_ROOT, b"basic.get", queue=b"jobs"),
        _said(_ROOT, b"queue.purge", queue=b"jobs"),
        _said(_ROOT, b"exchange.delete", exchange=b"shop"),
        _said(_ROOT, b"channel.close"),
        _said(_ROOT, b"connection.close"),
    )
}

CONVERSATIONS = [
    *(Conversation(name, "amqp", parts, RECORDED[name]) for name, parts in recorded("amqp").items()),
    Conversation(
        "0-9-1",
        "amqp",
        (
            (TO_SERVER, HEADER),
            (TO_CLIENT, method(10, 10, b"\0\x09" + PROPERTIES + long(b"AMQPLAIN PLAIN") + long(b"en_US"))),
            (TO_SERVER, START_OK),
            (TO_CLIENT, method(10, 30, b"\7\xff\0\2\0\0\0\x3c")),
            (TO_SERVER, method(10, 31, b"\7\xff\0\2\0\0\0\x3c") + OPEN),
            (TO_CLIENT, method(10, 41, b"\0") + frame(8, 0, b"")),
            (TO_SERVER, frame(8, 0, b"") + method(20, 10, b"\0")),
            (TO_CLIENT, method(20, 11, b"\0\0\0\0")),
            (TO_SERVER, method(40, 10, b"\0\0" + short(b"ex") + short(b"topic") + b"\0\0\0\0\0")),
            (TO_SERVER, method(50, 10, b"\0\0" + short(b"q") + b"\0\0\0\0\0")),
            (TO_SERVER, method(50, 20, b"\0\0" + short(b"q") + short(b"ex") + short(b"a.#") + b"\0\0\0\0\0")),
            (TO_SERVER, method(60, 40, b"\0\0" + short(b"ex") + short(b"a.b") + b"\0") + CONTENT),
            (TO_SERVER, method(60, 20, b"\0\0" + short(b"q") + short(b"tag") + b"\0\0\0\0\0")),
            (TO_CLIENT, method(60, 60, short(b"tag") + bytes(9) + short(b"ex") + short(b"a.b")) + CONTENT),
            (TO_SERVER, method(60, 80, bytes(9)) + method(10, 50, b"\0\xc8" + short(b"bye") + b"\0\0\0\0")),
            (TO_CLIENT, method(10, 51)),
        ),
        (
            _said(_USER, b"connection.start-ok"),
            _said(_BROKER, b"connection.open"),
            _said(_BROKER, b"channel.open"),
            _said(_BROKER, b"exchange.declare", exchange=b"ex"),
            _said(_BROKER, b"queue.declare", queue=b"q"),
            _said(_BROKER, b"queue.bind", queue=b"q", exchange=b"ex", routing_key=b"a.#"),
            _said(_BROKER, b"basic.publish", exchange=b"ex", routing_key=b"a.b"),
            _said(_BROKER, b"basic.consume", queue=b"q"),
            _said(_BROKER, b"connection.close"),
        ),
    ),
    Conversation(
        "1.0",
        "amqp",
        (
            (TO_SERVER, SASL),
            (TO_CLIENT, SASL + performative(0x40, b"\xe0\x10\2\xb3\0\0\0\5PLAIN\0\0\0\1X", kind=1)),
            (TO_SERVER, INIT),
            (TO_CLIENT, performative(0x44, b"P\0", b"@", kind=1)),
            (TO_SERVER, LINKS + OPENED),
            (TO_CLIENT, LINKS + performative(0x10, b"\xa1\6broker")),
            (TO_SERVER, performative(0x11, b"@", b"C") + performative(0x12, *SENDS)),
            (TO_SERVER, b"\0\0\0\x20\2\0\0\0\0S\x14\xc0\7\4CC\xa0\0011C\0Sw\xa1\7" + b"payload"),
            (TO_CLIENT, performative(0x15, b"A", b"C", b"C", b"A", b"\0S$E")),
            (TO_SERVER, performative(0x12, *RECEIVES) + b"\0\0\0\x08\2\0\0\0" + performative(0x18)),
        ),
        (
            _said(_USER, b"sasl.init"),
            _said(_HOST, b"open"),
            _said(_HOST, b"attach", address=b"q1"),
            _said(_HOST, b"attach", address=b"q2"),
        ),
    ),
]
