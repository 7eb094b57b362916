"""MongoDB: PyMongo 4.20 at MockupDB 1.8 as recorded (tests/data/record.py), what it said to a server that has zlib and
to one that has not, and operations before OP_MSG.
"""

from __future__ import annotations

import struct

from parsers.base import TO_CLIENT, TO_SERVER, Value
from tests.contract.conversations import Conversation
from tests.data import recorded

# Recorded.
_ISMASTER = bytes.fromhex(
    "80010000c6237b3200000000dd07000000000000006b0100001069736d617374657200010000000868656c6c6f4f6b0001026261636b70"
    "726573737572650002000000320003636c69656e74001101000003647269766572002e000000026e616d65000a00000050794d6f6e676f"
    "7c63000276657273696f6e0008000000342e32302e317c0000036f73005b000000027479706500060000004c696e757800026e616d6500"
    "060000004c696e7578000261726368697465637475726500070000007838365f3634000276657273696f6e0010000000362e31382e3434"
    "2d66632d76383537000002706c6174666f726d001700000043507974686f6e20332e31312e372e66696e616c2e3000036170706c696361"
    "74696f6e0017000000026e616d65000800000062696c6c696e67000003656e76002900000003636f6e7461696e65720019000000027275"
    "6e74696d650007000000646f636b65720000000004636f6d7072657373696f6e00050000000002246462000600000061646d696e0000"
)
_ISMASTER_REPLY = bytes.fromhex(
    "0401000001000000c6237b32dd0700000000000000ef000000016f6b00000000000000f03f0869736d6173746572000108697357726974"
    "61626c655072696d61727900010868656c6c6f4f6b0001106d61785769726556657273696f6e0015000000106d696e5769726556657273"
    "696f6e0000000000106d617842736f6e4f626a65637453697a650000000001106d61784d65737361676553697a65427974657300006cdc"
    "02106d61785772697465426174636853697a6500a086010010636f6e6e656374696f6e49640001000000106c6f676963616c5365737369"
    "6f6e54696d656f75744d696e75746573001e00000004636f6d7072657373696f6e00050000000000"
)
_INSERT = bytes.fromhex(
    "f200000069983c6400000000dd07000000000000005400000002696e7365727400070000006f726465727300086f726465726564000103"
    "6c736964001e000000056964001000000004a67ddddda38646fdb19f7f43e279d50b0002246462000500000073686f7000000188000000"
    "646f63756d656e7473007a000000105f696400010000000278006500000079797979797979797979797979797979797979797979797979"
    "79797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979797979"
    "79797979797979797979797979797979797979790000"
)
_GET_MORE = bytes.fromhex(
    "83000000ff5c491900000000dd07000000000000006e000000126765744d6f726500070000000000000002636f6c6c656374696f6e0007"
    "0000006f72646572730010626174636853697a650001000000036c736964001e000000056964001000000004a67ddddda38646fdb19f7f"
    "43e279d50b0002246462000500000073686f700000"
)
_PING = bytes.fromhex(
    "56000000abd77e5000000000dd0700000000000000410000001070696e670001000000036c736964001e000000056964001000000004a6"
    "7ddddda38646fdb19f7f43e279d50b0002246462000500000073686f700000"
)
_EXPLAIN = bytes.fromhex(
    "78000000fb1eb74100000000dd070000000000000063000000036578706c61696e00230000000266696e6400070000006f726465727300"
    "0366696c74657200050000000000036c736964001e000000056964001000000004a67ddddda38646fdb19f7f43e279d50b000224646200"
    "0500000073686f700000"
)
_INSERT_ZLIB = bytes.fromhex(
    "340100008efb495c00000000dc070000dd070000c42b000002789cddcf314e02511485e13b032388888328282820a0a2a3808d950d7ba0"
    "379137891865ccbca12134746eca05505bd9b80c6aae36eee13fc9cbb9c9c92b3e11cd489f3b99da304e24a377149b30b692fdebd08893"
    "7ab51323759d3c6d5f3bbdfc7a0846c970fdb1f82cde7bdf05713be6493c9dec73f42ee2bc0422261acfdec26962e54707ff513fffc64d"
    "64a5358744fe750e5ae7a27529b42e8dd67968dd165a9741ebb268dd365a9743eb76d0ba3c5ab78bd615d0ba3db4ce47eb8a68dd3e5a57"
    "42eb0ed0ba43b4ae8cd655d0ba23b4ee18adaba27535b4ee04ad3b45ebea685d03ad6ba27567685d0bad6ba3751db4ee1cadbb40eb2ed1"
    "ba2e5a7785d65da375015a7783d6dda2753db4ae8fd60dd0ba3ba26e03586263cc"
)
_PING_ZLIB = bytes.fromhex(
    "5e000000494d211300000000dc070000dd0700004600000002789c6360000247201628c8cc4b676004b298738a335318e4802c56202d00"
    "a4591a2fdb688794387eeba8d92b68c67a938f8149252589811528559c915fc0c00000ad1e0e0d"
)


def element(name: bytes, value: object) -> bytes:
    """Of BSON, as far as the tests need it."""
    if isinstance(value, dict):
        return b"\x03" + name + b"\0" + document(value)
    if isinstance(value, bytes):
        return b"\x02" + name + b"\0" + struct.pack("<i", len(value) + 1) + value + b"\0"
    assert isinstance(value, int)
    return b"\x10" + name + b"\0" + struct.pack("<i", value)


def document(values: dict[bytes, object], *more: bytes) -> bytes:
    """Elements by name, and some that are encoded."""
    body = b"".join(element(name, value) for name, value in values.items()) + b"".join(more)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def message(operation: int, body: bytes) -> bytes:
    """A message of the client."""
    return struct.pack("<iiii", 16 + len(body), 7, 0, operation) + body


def op_msg(values: dict[bytes, object], *more: bytes, flags: int = 0, sections: bytes = b"") -> bytes:
    """A command and its sections of documents."""
    end = b"sums" if flags & 1 else b""
    return message(2013, struct.pack("<I", flags) + b"\0" + document(values, *more) + sections + end)


def section(name: bytes, *documents: bytes) -> bytes:
    """Of documents."""
    body = name + b"\0" + b"".join(documents)
    return b"\x01" + struct.pack("<i", len(body) + 4) + body


def said(command: bytes, database: bytes, **more: Value) -> tuple[str, dict[str, Value]]:
    """A unit."""
    fields: dict[str, Value] = {"mongodb.command": command, "mongodb.database": database}
    return "mongodb", fields | {f"mongodb.{name}": value for name, value in more.items()}


_ORDER = document({b"_id": 1, b"$db": b"fake", b"text": b"x" * 300})

RECORDED = {
    "pymongo": (
        said(b"ismaster", b"admin", client=b"PyMongo|c", application=b"till"),
        *(
            said(command, b"shop", collection=b"orders")
            for command in (b"insert", b"insert", b"update", b"find", b"getMore", b"aggregate", b"getMore", b"delete")
        ),
    )
}

CONVERSATIONS = [
    *(Conversation(name, "mongodb", parts, RECORDED[name]) for name, parts in recorded("mongodb").items()),
    Conversation(
        "PyMongo",
        "mongodb",
        (
            (TO_SERVER, _ISMASTER),
            (TO_CLIENT, _ISMASTER_REPLY),
            (TO_SERVER, _INSERT),
            (TO_SERVER, _GET_MORE + _PING),
            (TO_SERVER, _EXPLAIN),
        ),
        (
            said(b"ismaster", b"admin", client=b"PyMongo|c", application=b"billing"),
            said(b"insert", b"shop", collection=b"orders"),
            said(b"getMore", b"shop", collection=b"orders"),
            said(b"ping", b"shop"),
            said(b"explain", b"shop", collection=b"orders"),
        ),
    ),
    Conversation(
        "zlib",
        "mongodb",
        ((TO_SERVER, _ISMASTER), (TO_CLIENT, _ISMASTER_REPLY), (TO_SERVER, _INSERT_ZLIB), (TO_SERVER, _PING_ZLIB)),
        (
            said(b"ismaster", b"admin", client=b"PyMongo|c", application=b"billing"),
            said(b"insert", b"shop", collection=b"orders"),
            said(b"ping", b"shop"),
        ),
    ),
    Conversation(
        "sections and what stands last",
        "mongodb",
        (
            (TO_SERVER, op_msg({b"insert": b"orders", b"$db": b"shop"}, sections=section(b"documents", *[_ORDER] * 9))),
            (
                TO_SERVER,
                message(
                    2013,
                    b"\1\0\0\0"
                    + section(b"documents", _ORDER)
                    + b"\0"
                    + document({b"update": b"orders", b"$db": b"shop"})
                    + b"sums",
                ),
            ),
            (TO_SERVER, op_msg({b"insert": b"orders", b"documents": {b"0": {b"a": b"x" * 5000}}, b"$db": b"shop"})),
            (TO_SERVER, op_msg({b"dropDatabase": 1, b"$db": b"shop"}, flags=2)),
        ),
        (
            said(b"insert", b"shop", collection=b"orders"),
            said(b"update", b"shop", collection=b"orders"),
            said(b"insert", b"shop", collection=b"orders"),
            said(b"dropDatabase", b"shop"),
        ),
    ),
    Conversation(
        "before OP_MSG",
        "mongodb",
        (
            (
                TO_SERVER,
                message(2004, bytes(4) + b"shop.$cmd\0" + bytes(8) + document({b"$query": {b"count": b"orders"}})),
            ),
            (TO_SERVER, message(2004, bytes(4) + b"shop.orders.old\0" + bytes(8) + document({b"a": 1}))),
            (
                TO_SERVER,
                message(2002, bytes(4) + b"shop.orders\0" + _ORDER) + message(2001, bytes(4) + b"shop.orders\0"),
            ),
            (TO_SERVER, message(2006, bytes(4) + b"shop.orders\0" + bytes(4) + _ORDER)),
            (TO_SERVER, message(2005, bytes(4) + b"shop.orders\0" + bytes(12)) + message(2007, bytes(16))),
            (TO_SERVER, message(2012, struct.pack("<iiB", 2013, 99, 1) + b"snappy, which is not read")),
        ),
        (
            said(b"count", b"shop", collection=b"orders"),
            said(b"find", b"shop", collection=b"orders.old"),
            said(b"insert", b"shop", collection=b"orders"),
            said(b"update", b"shop", collection=b"orders"),
            said(b"delete", b"shop", collection=b"orders"),
            said(b"getMore", b"shop", collection=b"orders"),
            ("mongodb", {"mongodb.command": b"killCursors"}),
            ("mongodb", {"mongodb.compressed": 1}),
        ),
    ),
]
