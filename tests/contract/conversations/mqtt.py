"""MQTT: mosquitto_pub and mosquitto_sub at Mosquitto 2.0 as recorded (tests/data/record.py); paho's client at it
shortened.
"""

from __future__ import annotations

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation
from tests.data import recorded

CONNECT_31 = b"\x10\x2d\0\6MQIsdp\3\xce\0\x3c\0\5dev-3\0\x09state/dev\0\4gone\0\3joe\0\2pw"
CONNECT_311 = b"\x10\x11\0\4MQTT\4\2\0\x3c\0\5dev-4"
CONNECT_5 = b"\x10\x2d\0\4MQTT\5\xce\0\x3c\0\0\5dev-5\0\0\x09state/dev\0\4gone\0\3joe\0\2pw"
CONNACK = b"\x20\2\0\0"
CONNACK_5 = b'\x20\x09\0\0\6"\0\x0a!\0\x14'
SUBSCRIBE = b"\x82\x10\0\1\0\3a/#\0\0\5b/+/c\1"
LONG = b"\xb1\2\0\3a/0" + b"x" * 300


def _said(client: dict[str, Value], command: bytes, **fields: Value) -> tuple[str, dict[str, Value]]:
    return "mqtt", {"mqtt.command": command, **client, **{f"mqtt.{name}": value for name, value in fields.items()}}


def _client(name: bytes, version: bytes, **fields: Value) -> dict[str, Value]:
    return {"mqtt.client": name, "mqtt.version": version, **{f"mqtt.{key}": value for key, value in fields.items()}}


_3 = _client(b"dev-3", b"3.1", user=b"joe")
_4 = _client(b"dev-4", b"3.1.1")
_5 = _client(b"dev-5", b"5", user=b"joe")


def _mosquitto(version: bytes) -> list[tuple[tuple[str, dict[str, Value]], ...]]:
    """Of its clients, the one that publishes and the one that subscribes."""
    told, heard = _client(b"till-1", version, user=b"joe"), _client(b"till-2", version)
    return [
        (_said(told, b"connect", will=b"shop/gone"), _said(told, b"publish", topic=b"shop/orders")),
        (_said(heard, b"connect"), _said(heard, b"subscribe", topics=(b"shop/#", b"other/+/state"))),
    ]


CONVERSATIONS = [
    *(
        Conversation(name, "mqtt", parts, units)
        for (name, parts), units in zip(
            recorded("mqtt").items(), [*_mosquitto(b"3.1.1"), *_mosquitto(b"5")], strict=True
        )
    ),
    Conversation(
        "3.1",
        "mqtt",
        (
            (TO_SERVER, CONNECT_31),
            (TO_CLIENT, CONNACK),
            (TO_SERVER, SUBSCRIBE),
            (TO_CLIENT, b"\x90\4\0\1\0\1"),
            (TO_SERVER, b"\x30" + LONG + b"\xa2\7\0\4\0\3a/#"),
            (TO_CLIENT, b"\x30" + LONG + b"\xb0\2\0\4"),
            (TO_SERVER, b"\xe0\0"),
        ),
        (
            _said(_3, b"connect", will=b"state/dev"),
            _said(_3, b"subscribe", topics=(b"a/#", b"b/+/c")),
            _said(_3, b"publish", topic=b"a/0"),
            _said(_3, b"unsubscribe", topics=(b"a/#",)),
        ),
    ),
    Conversation(
        "3.1.1",
        "mqtt",
        (
            (TO_SERVER, CONNECT_311 + b"\xc0\0"),
            (TO_CLIENT, CONNACK + b"\xd0\0"),
            (TO_SERVER, b"\x34\x0a\0\3a/2\0\7abc"),
            (TO_CLIENT, b"\x50\2\0\7"),
            (TO_SERVER, b"\x62\2\0\7\x30\5\0\3top"),
            (TO_CLIENT, b"\x70\2\0\7"),
        ),
        (_said(_4, b"connect"), _said(_4, b"publish", topic=b"a/2"), _said(_4, b"publish", topic=b"top")),
    ),
    Conversation(
        "5",
        "mqtt",
        (
            (TO_SERVER, CONNECT_5),
            (TO_CLIENT, CONNACK_5),
            (TO_SERVER, b"\x82\x11\0\1\0\0\3a/#\0\0\5b/+/c\1"),
            (TO_CLIENT, b"\x90\5\0\1\0\0\1"),
            (TO_SERVER, b"\x30\x1e\0\7a/alias\x13\3\0\1t\x26\0\1k\0\1v#\0\3\2\0\0\0\x091"),
            (TO_SERVER, b"\x32\x09\0\0\0\2\3#\0\3" + b"2"),
            (TO_CLIENT, b"\x40\2\0\2"),
            (TO_SERVER, b"\xe0\2\x04\0"),
        ),
        (
            _said(_5, b"connect", will=b"state/dev"),
            _said(_5, b"subscribe", topics=(b"a/#", b"b/+/c")),
            _said(_5, b"publish", topic=b"a/alias"),
            _said(_5, b"publish", topic=b"a/alias"),
        ),
    ),
]
