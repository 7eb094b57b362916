"""First bytes, and what both halves must say of them.

`kernel` is the answer of bpf/lib/identify.h to one segment (or datagram) that holds exactly these bytes: a
protocol's name, or `INSPECTOR` for everything it leaves to the inspector (no match, two matches, need more).
`parsers` is the answer of parsers/identify.py: a protocol's name, `UNKNOWN` (no match), `MORE`, or a name with
`MALFORMED` behind it. Where the kernel names a protocol the parsers name the same one.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

TCP, UDP = 6, 17
TO_SERVER, TO_CLIENT = 0, 1
INSPECTOR: Final = "inspector"
UNKNOWN: Final = "unknown"
MORE: Final = "need more"
MALFORMED: Final = " malformed"


class Vector(NamedTuple):
    """One case."""

    name: str
    l4: int
    direction: int
    data: bytes
    kernel: str
    parsers: str


def _dns(name: bytes = b"\x03web\x03lab\x04test\x00", *, flags: int = 0x0100, counts: tuple[int, ...] = (1, 0, 0, 0), tail: bytes = b"") -> bytes:  # fmt: skip  # noqa: E501
    return struct.pack("!HH4H", 0x1234, flags, *counts) + name + b"\x00\x01\x00\x01" + tail


def _hello(*, version: int = 3, extra: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + extra
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03" + bytes((version,)) + len(handshake).to_bytes(2, "big") + handshake


def _mysql(version: bytes = b"5.5.5-10.11.6-MariaDB") -> bytes:
    body = (
        b"\x0a" + version + b"\0" + struct.pack("<I", 7) + b"saltsalt\0" + bytes(18) + b"restofsalt12\0mysql_native\0"
    )
    return len(body).to_bytes(3, "little") + b"\0" + body


def _startup(code: int = 0x00030000, parameters: bytes = b"user\0app\0database\0app\0\0") -> bytes:
    return struct.pack("!II", 8 + len(parameters), code) + parameters


def _bson(element: int = 0x10) -> bytes:
    document = bytes((element,)) + b"hello\0\1\0\0\0\0"
    return struct.pack("<I", 4 + len(document)) + document


def _mongo(operation: int, body: bytes, *, response_to: int = 0) -> bytes:
    return struct.pack("<iiii", 16 + len(body), 1, response_to, operation) + body


OP_MSG = _mongo(2013, bytes(4) + b"\0" + _bson())
OP_QUERY = _mongo(2004, bytes(4) + b"admin.$cmd\0" + struct.pack("<ii", 0, -1) + _bson())
OPT = b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"

WHOLE = [
    Vector("http get", TCP, TO_SERVER, GET, "http", "http"),
    Vector("http post with body", TCP, TO_SERVER, b"POST /a?b HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", "http", "http"),
    Vector("tls 1.2 hello", TCP, TO_SERVER, _hello(), "tls", "tls"),
    Vector("tls 1.0 hello", TCP, TO_SERVER, _hello(version=1), "tls", "tls"),
    Vector("ssh client", TCP, TO_SERVER, b"SSH-2.0-OpenSSH_9.2p1\r\n", "ssh", "ssh"),
    Vector("ssh server", TCP, TO_CLIENT, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "ssh", "ssh"),
    Vector("ssh 1.99", TCP, TO_CLIENT, b"SSH-1.99-Cisco-1.25\n", "ssh", "ssh"),
    Vector("mariadb greeting", TCP, TO_CLIENT, _mysql(), "mysql", "mysql"),
    Vector("mysql greeting", TCP, TO_CLIENT, _mysql(b"8.0.36"), "mysql", "mysql"),
    Vector("postgres startup", TCP, TO_SERVER, _startup(), "postgres", "postgres"),
    Vector("postgres startup 3.2", TCP, TO_SERVER, _startup(0x00030002), "postgres", "postgres"),
    Vector("postgres ssl request", TCP, TO_SERVER, struct.pack("!II", 8, 80877103), "postgres", "postgres"),
    Vector("postgres gssenc request", TCP, TO_SERVER, struct.pack("!II", 8, 80877104), "postgres", "postgres"),
    Vector("postgres cancel", TCP, TO_SERVER, struct.pack("!IIII", 16, 80877102, 5, 6), "postgres", "postgres"),
    Vector("redis ping", TCP, TO_SERVER, b"*1\r\n$4\r\nPING\r\n", "redis", "redis"),
    Vector("redis set", TCP, TO_SERVER, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n", "redis", "redis"),
    Vector("redis long word", TCP, TO_SERVER, b"*2\r\n$12\r\nHINCRBYFLOAT\r\n$1\r\na\r\n", "redis", "redis"),
    Vector("mongodb msg", TCP, TO_SERVER, OP_MSG, "mongodb", "mongodb"),
    Vector("mongodb query", TCP, TO_SERVER, OP_QUERY, "mongodb", "mongodb"),
    Vector("dns query", UDP, TO_SERVER, _dns(), "dns", "dns"),
    Vector("dns query with edns", UDP, TO_SERVER, _dns(counts=(1, 0, 0, 1), tail=OPT), "dns", "dns"),
    Vector("dns tcp", TCP, TO_SERVER, len(_dns()).to_bytes(2, "big") + _dns(), "dns", "dns"),
]

# What the kernel must leave to the inspector, each way of it.
LEFT = [
    Vector("http target with a space", TCP, TO_SERVER, b"PUT /a b HTTP/1.1\r\n\r\n", INSPECTOR, UNKNOWN),
    Vector("postgres 3.1", TCP, TO_SERVER, _startup(0x00030001), INSPECTOR, UNKNOWN),
    Vector("dns query with RA", UDP, TO_SERVER, _dns(flags=0x0180), INSPECTOR, UNKNOWN),
    Vector("redis word with other bytes", TCP, TO_SERVER, b"*1\r\n$4\r\nP\x01\x02G\r\n", INSPECTOR, UNKNOWN),
    Vector("ssh banner without software", TCP, TO_SERVER, b"SSH-2.0-\r\n", INSPECTOR, UNKNOWN),
    Vector("http2 preface", TCP, TO_SERVER, PREFACE, INSPECTOR, "http2"),
    Vector("http2 settings first", TCP, TO_CLIENT, b"\0\0\0\4\0\0\0\0\0", INSPECTOR, MORE),
    Vector("h2c upgrade", TCP, TO_SERVER, UPGRADE, INSPECTOR, "http"),
    Vector(
        "websocket, other case",
        TCP,
        TO_SERVER,
        UPGRADE.replace(b"Upgrade: h2c", b"uPGRADE:websocket"),
        INSPECTOR,
        "http",
    ),
    Vector("connect", TCP, TO_SERVER, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", INSPECTOR, "http"),
    Vector("other method", TCP, TO_SERVER, b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n", INSPECTOR, "http"),
    Vector("http head not whole", TCP, TO_SERVER, GET[:-2], INSPECTOR, "http"),
    Vector("http 0.9", TCP, TO_SERVER, b"GET /\r\n", INSPECTOR, "http"),
    Vector("http bare line feed", TCP, TO_SERVER, b"GET / HTTP/1.1\nHost: a\n\n", INSPECTOR, "http"),
    Vector("http response first", TCP, TO_CLIENT, b"HTTP/1.1 200 OK\r\n\r\n", INSPECTOR, "http"),
    Vector("http leading crlf", TCP, TO_SERVER, b"\r\n" + GET, INSPECTOR, "http"),
    Vector("tls hello cut", TCP, TO_SERVER, _hello()[:-1], INSPECTOR, "tls"),
    Vector(
        "tls hello in two records",
        TCP,
        TO_SERVER,
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x2d\x16\x03\x01\x00\x29" + _hello()[9:],
        INSPECTOR,
        "tls",
    ),
    Vector(
        "tls server hello",
        TCP,
        TO_CLIENT,
        b"\x16\x03\x03\x00\x2c\x02\x00\x00\x28\x03\x03" + bytes(38),
        INSPECTOR,
        "tls",
    ),
    Vector("ssh banner cut", TCP, TO_SERVER, b"SSH-2.0-Open", INSPECTOR, "ssh"),
    Vector("ssh too short", TCP, TO_SERVER, b"SSH-", INSPECTOR, MORE),
    Vector("mysql greeting cut", TCP, TO_CLIENT, _mysql()[:40], INSPECTOR, "mysql"),
    Vector("mysql refusal", TCP, TO_CLIENT, b"\x17\0\0\0\xff\x10\x04Too many connections", INSPECTOR, "mysql"),
    Vector("mysql from the client", TCP, TO_SERVER, _mysql(), INSPECTOR, UNKNOWN),
    Vector("postgres startup cut", TCP, TO_SERVER, _startup()[:-1], INSPECTOR, "postgres"),
    Vector("postgres 2.0", TCP, TO_SERVER, _startup(0x00020000), INSPECTOR, UNKNOWN),
    Vector("redis inline", TCP, TO_SERVER, b"PING\r\n", INSPECTOR, "redis"),
    Vector("redis no word", TCP, TO_SERVER, b"*1\r\n$4\r\n1234\r\n", INSPECTOR, UNKNOWN),
    Vector("redis empty array", TCP, TO_SERVER, b"*0\r\n*0\r\n*0\r\n", INSPECTOR, UNKNOWN),
    Vector("memcached get", TCP, TO_SERVER, b"get a\r\n", INSPECTOR, MORE),
    Vector("mongodb msg cut", TCP, TO_SERVER, OP_MSG[:-1], INSPECTOR, "mongodb"),
    Vector(
        "mongodb compressed",
        TCP,
        TO_SERVER,
        _mongo(2012, struct.pack("<iiB", 2013, 40, 1) + bytes(20)),
        INSPECTOR,
        "mongodb",
    ),
    Vector(
        "mongodb reply",
        TCP,
        TO_CLIENT,
        _mongo(1, struct.pack("<iqii", 8, 0, 0, 1) + _bson(), response_to=1),
        INSPECTOR,
        "mongodb",
    ),
    Vector("mongodb lying length", TCP, TO_SERVER, b"\xff\xff\xff\x7f" + OP_MSG[4:], INSPECTOR, UNKNOWN),
    Vector("dns answer", UDP, TO_CLIENT, _dns(flags=0x8180), INSPECTOR, "dns"),
    Vector("dns label over 63", UDP, TO_SERVER, _dns(b"\x40" + b"a" * 64 + b"\0"), INSPECTOR, "dns" + MALFORMED),
    Vector("dns pointer", UDP, TO_SERVER, _dns(b"\xc0\x0c"), INSPECTOR, "dns" + MALFORMED),
    Vector("dns trailing byte", UDP, TO_SERVER, _dns(tail=b"x"), INSPECTOR, "dns" + MALFORMED),
    Vector("dns two questions", UDP, TO_SERVER, _dns(counts=(2, 0, 0, 0)), INSPECTOR, UNKNOWN),
    Vector("dns tcp cut", TCP, TO_SERVER, (len(_dns()).to_bytes(2, "big") + _dns())[:20], INSPECTOR, MORE),
    Vector("quic", UDP, TO_SERVER, b"\xc3\0\0\0\1\x08" + bytes(30), INSPECTOR, UNKNOWN),
    Vector("smtp greeting", TCP, TO_CLIENT, b"220 mail ESMTP\r\n", INSPECTOR, UNKNOWN),
    Vector("noise", TCP, TO_SERVER, b"\xde\xad\xbe\xef\xff\xff", INSPECTOR, UNKNOWN),
    Vector("noise as datagram", UDP, TO_SERVER, b"\xde\xad\xbe\xef", INSPECTOR, UNKNOWN),
    Vector("one byte", TCP, TO_SERVER, b"G", INSPECTOR, MORE),
    Vector("one zero byte", TCP, TO_SERVER, b"\0", INSPECTOR, MORE),
]

# The kernel looks at less here.
VECTORS = [*WHOLE, *LEFT]
