"""Memcached: pymemcache 4.0 and python-binary-memcached 0.33 at Memcached 1.6.18 as recorded (tests/data/record.py);
shortened, with more of what they can say.
"""

from __future__ import annotations

import struct

from parsers.base import TO_CLIENT, TO_SERVER, UDP, Value
from tests.contract.conversations import Conversation
from tests.data import recorded


def binary(operation: int, key: bytes = b"", extras: bytes = b"", value: bytes = b"") -> bytes:
    """A request of the binary protocol."""
    body = len(extras) + len(key) + len(value)
    return struct.pack(">BBHBBHIIQ", 0x80, operation, len(key), len(extras), 0, 0, body, 0, 0) + extras + key + value


def said(command: bytes, *keys: bytes) -> tuple[str, dict[str, Value]]:
    """A unit."""
    fields: dict[str, Value] = {"memcached.command": command}
    return "memcached", {**fields, "memcached.keys": keys} if keys else fields


RECORDED = {
    "pymemcache": (
        said(b"set", b"shop:1"),
        said(b"set", b"shop:2"),
        said(b"get", b"shop:1", b"shop:2"),
        said(b"gets", b"shop:1"),
        said(b"cas", b"shop:1"),
        said(b"append", b"shop:2"),
        said(b"touch", b"shop:2"),
        said(b"delete", b"shop:1"),
        said(b"stats"),
        said(b"quit"),
    ),
    "python-binary-memcached": (
        said(b"set", b"shop:1"),
        said(b"get", b"shop:1"),
        said(b"set", b"shop:2"),
        said(b"set", b"shop:3"),
        said(b"noop"),
        said(b"get", b"shop:2"),
        said(b"get", b"shop:3"),
        said(b"incr", b"shop:count"),
        said(b"delete", b"shop:1"),
        said(b"flush_all"),
    ),
}
_FRAME = b"\0\7\0\0\0\1\0\0"

CONVERSATIONS = [
    *(Conversation(name, "memcached", parts, RECORDED[name]) for name, parts in recorded("memcached").items()),
    Conversation(
        "text",
        "memcached",
        (
            (TO_SERVER, b"set k 0 0 10\r\nvvvvvvvvvv\r\n"),
            (TO_CLIENT, b"STORED\r\n"),
            (TO_SERVER, b"get k\r\n"),
            (TO_CLIENT, b"VALUE k 0 10\r\nvvvvvvvvvv\r\nEND\r\n"),
            (TO_SERVER, b"set a 0 0 1\r\n1\r\nset b 0 0 8\r\nget a\r\n2\r\nget a b zz\r\ngets k\r\n"),
            (
                TO_SERVER,
                b"cas k 0 0 1 31\r\nx\r\nappend k 0 0 1 noreply\r\n1\r\nincr n 3\r\ngat 60 a b\ntouch n 60\r\n",
            ),
            (TO_SERVER, b"\r\nstats settings\r\nflush_all noreply\r\nSET k 0 0 1\r\nquit\r\n"),
        ),
        (
            said(b"set", b"k"),
            said(b"get", b"k"),
            said(b"set", b"a"),
            said(b"set", b"b"),
            said(b"get", b"a", b"b", b"zz"),
            said(b"gets", b"k"),
            said(b"cas", b"k"),
            said(b"append", b"k"),
            said(b"incr", b"n"),
            said(b"gat", b"a", b"b"),
            said(b"touch", b"n"),
            said(b"stats"),
            said(b"flush_all"),
            said(b"SET"),
            said(b"quit"),
        ),
    ),
    Conversation(
        "meta",
        "memcached",
        (
            (TO_SERVER, b"ms foo 3 T0 c\r\nbar\r\nmg foo v t f\r\n"),
            (TO_CLIENT, b"HD c31\r\nVA 3 t-1 f0\r\nbar\r\n"),
            (TO_SERVER, b"mg Zm9v b v k\r\nma num N0 J5 v\r\nmn\r\nmd foo q\r\nme foo\r\n"),
        ),
        (
            said(b"ms", b"foo"),
            said(b"mg", b"foo"),
            said(b"mg", b"foo"),
            said(b"ma", b"num"),
            said(b"mn"),
            said(b"md", b"foo"),
            said(b"me", b"foo"),
        ),
    ),
    Conversation(
        "binary",
        "memcached",
        (
            (TO_SERVER, binary(1, b"k", bytes(8), b"v" * 300)),
            (TO_CLIENT, b"\x81\1" + bytes(22)),
            (TO_SERVER, binary(0x0D, b"a") + binary(0x0D, b"b") + binary(0x0A)),
            (
                TO_SERVER,
                binary(0x21, b"PLAIN", value=b"\0alice\0secret") + binary(0x05, b"n", bytes(20)) + binary(0x18),
            ),
        ),
        (
            said(b"set", b"k"),
            said(b"get", b"a"),
            said(b"get", b"b"),
            said(b"noop"),
            said(b"sasl_auth"),
            said(b"incr", b"n"),
            said(b"flush_all"),
        ),
    ),
    Conversation(
        "datagrams",
        "memcached",
        (
            (TO_SERVER, _FRAME + b"set u 0 0 2\r\nhi\r\n"),
            (TO_CLIENT, _FRAME + b"STORED\r\n"),
            (TO_SERVER, _FRAME + b"get u\r\nget w\r\n"),
            (TO_SERVER, _FRAME + binary(0, b"u")),
            (TO_CLIENT, b"\0\7\0\0\0\2\0\0VALUE u 0 2\r\nhi\r\n"),
        ),
        (said(b"set", b"u"), said(b"get", b"u"), said(b"get", b"w"), said(b"get", b"u")),
        UDP,
    ),
]
