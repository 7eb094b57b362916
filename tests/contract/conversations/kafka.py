"""Kafka: librdkafka 2.16 and aiokafka 0.14 at librdkafka's mock cluster, each connection as recorded
(tests/data/record.py), and shortened with more of what they can say.
"""

from __future__ import annotations

import struct

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation
from tests.data import recorded

# Recorded.
_VERSIONS_3 = bytes.fromhex(
    "0000003d0012000300000001000473686f700017636f6e666c75656e742d6b61666b612d707974686f6e16322e31362e312d72646b6166"
    "6b612d322e31362e3000"
)
_VERSIONS_0 = bytes.fromhex("0000000e0012000000000002000473686f70")
_VERSIONS_REPLY = bytes.fromhex("000000110000000100230100120000000200000000")
_METADATA = bytes.fromhex(
    "000000450003000d00000003000473686f70000300000000000000000000000000000000076f7264657273000000000000000000000000"
    "0000000000097061796d656e747300010000"
)
_PRODUCE = bytes.fromhex(
    "0000006e0000000a000000070002747800037431ffff0000753002097061796d656e747302000000004600000000000000000000003900"
    "0000000295c8fd4c001000000000000001a222333d2d000001a222333d2d0000000035764398000000000000000000010e000000010232"
    "00000000"
)
_ADD_PARTITIONS = bytes.fromhex(
    "0000004000180000000000050002747800027431000000003576439800000000000200066f726465727300000001000000010008706179"
    "6d656e74730000000100000000"
)
_FETCH = bytes.fromhex(
    "00000156000100100000000e000672656164657200000001f400000001032000000100000000ffffffff03f486aaa50acd424295045ecb"
    "f48fd69e0500000000000000000000000000000000ffffffffffffffffffffffff001000000000000001000000000000000000000000ff"
    "ffffffffffffffffffffff001000000000000002000000000000000000000000ffffffffffffffffffffffff0010000000000000030000"
    "00000000000000000000ffffffffffffffffffffffff001000000000a39953dc6a2147899111fe1cea42ed490500000000000000000000"
    "000000000000ffffffffffffffffffffffff001000000000000001000000000000000000000000ffffffffffffffffffffffff00100000"
    "0000000002000000000000000000000000ffffffffffffffffffffffff001000000000000003000000000000000000000000ffffffffff"
    "ffffffffffffff001000000000010100"
)
_OFFSET_COMMIT = bytes.fromhex(
    "0000007300080009000000090006726561646572000267000000020f30783766366230303030393363300003076f726465727302000000"
    "01000000000000001400000000010000097061796d656e7473030000000000000000000000040000000001000000000100000000000000"
    "060000000001000000"
)
_AIO_PRODUCE = bytes.fromhex(
    "000000760000000700000003000361696fffff000100009c400000000100066f7264657273000000010000000300000049000000000000"
    "00000000003dffffffff02d15e0122000000000000000001a222334d16000001a222334d16ffffffffffffffffffff0000000000000001"
    "16000000010a68656c6c6f00"
)
_AIO_FETCH = bytes.fromhex(
    "000000ad0001000b00000005000461696f72ffffffff000001f400000001032000000000000000ffffffff0000000100066f7264657273"
    "0000000400000001ffffffff0000000000000000ffffffffffffffff0010000000000000ffffffff0000000000000000ffffffffffffff"
    "ff0010000000000003ffffffff0000000000000000ffffffffffffffff0010000000000002ffffffff0000000000000000ffffffffffff"
    "ffff00100000000000000000"
)


def request(
    key: int, version: int, body: bytes = b"", *, client: bytes | None = b"me", flexible: bool = False
) -> bytes:
    """A request with a header of version 1 or 2."""
    named = b"\xff\xff" if client is None else struct.pack(">h", len(client)) + client
    data = struct.pack(">hhi", key, version, 7) + named + (b"\0" if flexible else b"") + body
    return struct.pack(">i", len(data)) + data


def said(api: bytes, version: int, client: bytes, *topics: bytes) -> tuple[str, dict[str, Value]]:
    """A unit."""
    fields: dict[str, Value] = {"kafka.api": api, "kafka.version": version, "kafka.client": client}
    return "kafka", {**fields, "kafka.topics": topics} if topics else fields


_BATCH = b"record batch " * 100
_TOPIC = b"\7orders\3" + bytes(4) + b"\x95\x0a" + _BATCH + b"\0" + b"\0\0\0\1" + b"\1\0\0"


def _hello(client: bytes) -> tuple[tuple[str, dict[str, Value]], ...]:
    return said(b"ApiVersions", 3, client), said(b"ApiVersions", 0, client)


_ORDERS = said(b"Metadata", 13, b"till", b"orders")
_COMMIT = said(b"OffsetCommit", 9, b"till", b"orders")
RECORDED = {
    "librdkafka": (*_hello(b"shop"), *[said(b"Metadata", 13, b"shop", b"orders")] * 2),
    "librdkafka 2": (
        *_hello(b"shop"),
        said(b"Produce", 10, b"shop", b"orders"),
        said(b"GetTelemetrySubscriptions", 0, b"shop"),
    ),
    "librdkafka 3": (*_hello(b"till"), said(b"Metadata", 13, b"till"), said(b"FindCoordinator", 2, b"till")),
    "librdkafka 4": (
        *_hello(b"till"),
        said(b"Metadata", 13, b"till"),
        said(b"JoinGroup", 5, b"till"),
        _ORDERS,
        said(b"SyncGroup", 3, b"till"),
        said(b"Heartbeat", 3, b"till"),
        said(b"OffsetFetch", 6, b"till", b"orders"),
        _COMMIT,
        _COMMIT,
        said(b"LeaveGroup", 1, b"till"),
    ),
    "librdkafka 5": (
        *_hello(b"till"),
        _ORDERS,
        said(b"FindCoordinator", 2, b"till"),
        said(b"GetTelemetrySubscriptions", 0, b"till"),
        *[said(b"ListOffsets", 7, b"till", b"orders")] * 4,
        *[said(b"Fetch", 16, b"till", b"4jm7PgbhS0eTB1pZQRW3nQ")] * 3,
        _ORDERS,
    ),
    "aiokafka": (
        said(b"ApiVersions", 0, b"shop"),
        said(b"Metadata", 5, b"shop", b"orders"),
        said(b"Produce", 7, b"shop", b"orders"),
    ),
    "aiokafka 2": (
        said(b"ApiVersions", 0, b"till"),
        said(b"Metadata", 5, b"till", b"orders"),
        said(b"ListOffsets", 3, b"till", b"orders"),
        said(b"Fetch", 11, b"till", b"orders"),
    ),
}

CONVERSATIONS = [
    *(Conversation(f"{name} recorded", "kafka", parts, RECORDED[name]) for name, parts in recorded("kafka").items()),
    Conversation(
        "librdkafka",
        "kafka",
        (
            (TO_SERVER, _VERSIONS_3),
            (TO_CLIENT, _VERSIONS_REPLY),
            (TO_SERVER, _VERSIONS_0 + _METADATA),
            (TO_SERVER, _PRODUCE),
            (TO_SERVER, _ADD_PARTITIONS + _OFFSET_COMMIT),
            (TO_SERVER, _FETCH),
            (TO_CLIENT, b"\0\0\0\6\0\0\0\x07\0\0"),
        ),
        (
            said(b"ApiVersions", 3, b"shop"),
            said(b"ApiVersions", 0, b"shop"),
            said(b"Metadata", 13, b"shop", b"orders", b"payments"),
            said(b"Produce", 10, b"tx", b"payments"),
            said(b"AddPartitionsToTxn", 0, b"tx", b"orders", b"payments"),
            said(b"OffsetCommit", 9, b"reader", b"orders", b"payments"),
            said(b"Fetch", 16, b"reader", b"9IaqpQrNQkKVBF7L9I_Wng", b"o5lT3GohR4mREf4c6kLtSQ"),
        ),
    ),
    Conversation(
        "aiokafka",
        "kafka",
        ((TO_SERVER, _AIO_PRODUCE), (TO_CLIENT, b"\0\0\0\4\0\0\0\2"), (TO_SERVER, _AIO_FETCH)),
        (said(b"Produce", 7, b"aio", b"orders"), said(b"Fetch", 11, b"aior", b"orders")),
    ),
    Conversation(
        "batches and SASL",
        "kafka",
        (
            (TO_SERVER, request(17, 1, b"\0\5PLAIN") + request(36, 2, b"\x0e\0alice\0secret\0", flexible=True)),
            (
                TO_SERVER,
                request(0, 9, b"\0\xff\xff\0\0\0\1\3" + _TOPIC + b"\6other\2" + _TOPIC[8:] + b"\0", flexible=True),
            ),
            (TO_SERVER, request(3, 12, b"\0\1\0\0", flexible=True) + request(12, 0, b"\0\1g\0\0\0\1\0\1m")),
        ),
        (
            said(b"SaslHandshake", 1, b"me"),
            said(b"SaslAuthenticate", 2, b"me"),
            said(b"Produce", 9, b"me", b"orders", b"other"),
            said(b"Metadata", 12, b"me"),
            said(b"Heartbeat", 0, b"me"),
        ),
    ),
]
