"""First bytes, and what both halves must say of them.

`kernel` is the answer of bpf/lib/identify.h to one segment (or datagram) that holds exactly these bytes: a
protocol's name, or `INSPECTOR` for everything it leaves to the inspector (no match, two matches, need more).
`parsers` is the answer of parsers/identify: a protocol's name, `UNKNOWN` (no match), `MORE`, or a name with `MALFORMED`
or `LIKELY` behind it. Where the kernel names a protocol the parsers name the same one.
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
LIKELY: Final = " likely"


class Vector(NamedTuple):
    """One case."""

    name: str
    l4: int
    direction: int
    data: bytes
    kernel: str
    parsers: str


class Dialogue(NamedTuple):
    """Both sides' bytes; `first` is the side that speaks first. The kernel leaves what it says to the inspector."""

    name: str
    first: int
    to_server: bytes
    to_client: bytes
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
    Vector("ssh client, short", TCP, TO_SERVER, b"SSH-2.0-x\r\n", "ssh", "ssh"),
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
    Vector("http target with a space", TCP, TO_SERVER, b"PUT /a b HTTP/1.1\r\n\r\n", INSPECTOR, "http"),
    Vector("http of two spaces", TCP, TO_SERVER, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", INSPECTOR, "http"),
    Vector("http behind line feeds", TCP, TO_SERVER, b"\n\n" + GET, INSPECTOR, "http"),
    Vector("http 0.9 of two spaces", TCP, TO_SERVER, b"GET  /\r\n", INSPECTOR, "http"),
    Vector("http control character", TCP, TO_SERVER, b"POST /\x01 HTTP/1.0\r\n\r\n", INSPECTOR, "http"),
    Vector("http without its H", TCP, TO_SERVER, b"PUT / xTTP/1.1\r\nHost: a\r\n\r\n", INSPECTOR, UNKNOWN),
    Vector("http version in the target", TCP, TO_SERVER, b"PUT / /HTTP/1.1\r\nHost: a\r\n\r\n", INSPECTOR, UNKNOWN),
    Vector(
        "http target of no such beginning", TCP, TO_SERVER, b"PUT \x80a HTTP/1.1\r\nHost: a\r\n\r\n", INSPECTOR, "http"
    ),
    Vector("mysql zero in the version", TCP, TO_CLIENT, _mysql(b"8.0\x0036"), INSPECTOR, UNKNOWN),
    Vector("postgres parameter of a letter", TCP, TO_SERVER, _startup(parameters=b"_\0app\0\0"), INSPECTOR, UNKNOWN),
    Vector("postgres parameter's name", TCP, TO_SERVER, _startup(parameters=b"u\xffer\0app\0\0"), INSPECTOR, UNKNOWN),
    Vector("mongodb query without a dot", TCP, TO_SERVER, OP_QUERY.replace(b".", b"_"), INSPECTOR, UNKNOWN),
    Vector("mongodb msg of no type", TCP, TO_SERVER, _mongo(2013, bytes(5) + _bson(0x40)), INSPECTOR, UNKNOWN),
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
    Vector("noise", TCP, TO_SERVER, b"\xde\xad\xbe\xef\xff\xff", INSPECTOR, UNKNOWN),
    Vector("noise as datagram", UDP, TO_SERVER, b"\xde\xad\xbe\xef", INSPECTOR, UNKNOWN),
    Vector("one byte", TCP, TO_SERVER, b"G", INSPECTOR, MORE),
    Vector("one zero byte", TCP, TO_SERVER, b"\0", INSPECTOR, MORE),
]


def _kafka(
    api: int, version: int, body: bytes = b"", *, client: bytes | None = b"rdkafka", correlation: int = 1
) -> bytes:
    name = b"\xff\xff" if client is None else len(client).to_bytes(2, "big") + client
    request = struct.pack("!hhi", api, version, correlation) + name + body
    return len(request).to_bytes(4, "big") + request


def _mqtt(body: bytes) -> bytes:
    return b"\x10" + bytes((len(body),)) + body


def _binary(opcode: int, key: bytes = b"", extras: bytes = b"", value: bytes = b"", *, magic: int = 0x80) -> bytes:
    sizes = len(key), len(extras), 0, 0, len(extras + key + value)
    return struct.pack("!BBHBBHIIQ", magic, opcode, *sizes, 7, 0) + extras + key + value


def _quic(version: int = 1, *, first: int = 0xC3, ids: bytes = b"\x08" + b"d" * 8 + b"\0", size: int = 1200) -> bytes:
    head = bytes((first,)) + version.to_bytes(4, "big") + ids + b"\0"
    return head + (0x4000 | size - len(head) - 2).to_bytes(2, "big") + b"e" * (size - len(head) - 2)


def _x224(code: int, rest: bytes = b"") -> bytes:
    return struct.pack("!BBHBBHHB", 3, 0, 11 + len(rest), 6 + len(rest), code, 0, 0, 0) + rest


SMB1 = b"\0\0\0\x2f\xffSMBr\0\0\0\0\x18\x05\xd8" + bytes(20) + b"\0\x0c\0\x02NT LM 0.12\0"
SMB2 = b"\0\0\0\x66\xfeSMB\x40\0" + bytes(58) + b"\x24\0\1\0" + bytes(32) + b"\2\2"
NETBIOS = (
    b"\x81\0\0\x44\x20" + b"CKFDENECFDEFFCFGEFFCCACACACACACA" + b"\0\x20" + b"FHEJEOCACACACACACACACACACACACAAA" + b"\0"
)
NEGOTIATE = b"\x01\0\x08\0\x03\0\0\0"
TOPIC = b"\0\x06orders"
SCOPED = b"\x81\0\0\x4d" + NETBIOS[4:37] + b"\x03lab\x04test" + NETBIOS[37:]
POSITIVE, KEEPALIVE = b"\x82\0\0\0", b"\x85\0\0\0"
PRODUCE_9 = b"\0\0\0\1\0\0\x75\x30\x02\x09orders-1\x02" + bytes(20)

# The kernel leaves all of these to the inspector. Over TCP none is anything else before its last deciding byte.
NAMED = [
    Vector(name, TCP, TO_SERVER, data, INSPECTOR, name.split()[0])
    for name, data in (
        ("kafka api versions 3", _kafka(18, 3, b"\0\x0blibrdkafka\x062.3.0\0")),
        ("kafka api versions 0", _kafka(18, 0)),
        ("kafka api versions 0 with a list", _kafka(18, 0, bytes(4))),
        ("kafka api versions, no client id", _kafka(18, 2, client=None)),
        ("kafka metadata of every topic", _kafka(3, 1, b"\xff\xff\xff\xff")),
        ("kafka metadata 0 of a topic", _kafka(3, 0, b"\0\0\0\1" + TOPIC, correlation=0)),
        ("kafka metadata 2 of a topic", _kafka(3, 2, b"\0\0\0\1" + TOPIC, correlation=0x3FFFFFFF)),
        ("kafka metadata 12", _kafka(3, 12, b"\0\x02" + bytes(16) + b"\x07orders\0\1\0\0")),
        ("kafka sasl handshake", _kafka(17, 1, b"\0\x0dSCRAM-SHA-512")),
        ("kafka produce 2", _kafka(0, 2, b"\0\1\0\0\x13\x88\0\0\0\1" + TOPIC + bytes(30))),
        ("kafka produce 7", _kafka(0, 7, b"\xff\xff\xff\xff\0\0\x13\x88\0\0\0\1" + TOPIC + bytes(90))),
        ("kafka produce 9", _kafka(0, 9, PRODUCE_9)),
        ("kafka fetch 4", _kafka(1, 4, b"\xff\xff\xff\xff\0\0\1\xf4\0\0\0\1" + bytes(40))),
        ("kafka find coordinator 4", _kafka(10, 4, b"\0\0\x02\x06group\0")),
        ("kafka join group 5", _kafka(11, 5, b"\0\x05group" + bytes(30))),
        ("amqp 0-9-1", b"AMQP\0\0\x09\x01"),
        ("amqp 1.0", b"AMQP\0\1\0\0"),
        ("amqp 1.0 with sasl", b"AMQP\3\1\0\0"),
        ("mqtt 3.1", _mqtt(b"\0\x06MQIsdp\x03\xc2\0\x3c\0\x03dev\0\1u\0\1p")),
        ("mqtt 3.1.1", _mqtt(b"\0\x04MQTT\x04\x02\0\x3c\0\x05Bus41")),
        ("mqtt 5", _mqtt(b"\0\x04MQTT\x05\x02\0\x3c\x05\x11\0\0\0\x3c\0\0")),
        ("memcached set", b"set k 0 0 5\r\nhello\r\n"),
        ("memcached cas", b"cas k 0 -1 5 77 noreply\r\nhello\r\n"),
        ("memcached incr", b"incr k 5\r\n"),
        ("memcached flush_all", b"flush_all\r\n"),
        ("memcached meta set", b"ms k 2 T90 F0\r\nhi\r\n"),
        ("memcached binary get", _binary(0, b"key")),
        ("memcached binary set", _binary(1, b"key", bytes(8), b"value")),
        ("memcached binary version", _binary(0x0B)),
        ("memcached binary sasl", _binary(0x20)),
        ("smb 1 negotiate", SMB1),
        ("smb 2 negotiate", SMB2),
        ("smb 1 over netbios", NETBIOS + SMB1),
        ("smb 2 over netbios, behind keep-alives", NETBIOS + KEEPALIVE * 3 + SMB2),
        ("smb over netbios with a scope", SCOPED + SMB1),
        ("rdp negotiation", _x224(0xE0, NEGOTIATE)),
        ("rdp cookie", _x224(0xE0, b"Cookie: mstshash=user\r\n" + NEGOTIATE)),
        ("rdp routing token", _x224(0xE0, b"Cookie: msts=3640205228.15629.0000\r\n" + NEGOTIATE)),
        ("rdp broker token", _x224(0xE0, b"tsv://MS Terminal Services Plugin.1.Farm\r\n" + NEGOTIATE)),
        ("rdp host token", _x224(0xE0, b"mth://localhost/b/c\r\n")),
    )
] + [
    Vector("smtp greeting", TCP, TO_CLIENT, b"220 mail ESMTP\r\n", INSPECTOR, "smtp"),
    Vector("smtp greeting of ftp's host", TCP, TO_CLIENT, b"220 ftp.example.com ESMTP Postfix\r\n", INSPECTOR, "smtp"),
    Vector("ftp greeting", TCP, TO_CLIENT, b"220 (vsFTPd 3.0.5)\r\n", INSPECTOR, "ftp"),
    Vector("ftp greeting of smtp's host", TCP, TO_CLIENT, b"220 smtp.x FTP server ready.\r\n", INSPECTOR, "ftp"),
    Vector("smb 2 answer", TCP, TO_CLIENT, SMB2, INSPECTOR, "smb"),
    Vector("smb 1 answer over netbios", TCP, TO_CLIENT, POSITIVE + KEEPALIVE + SMB1, INSPECTOR, "smb"),
    Vector("amqp of another version", TCP, TO_CLIENT, b"AMQP\0\0\x09\x01", INSPECTOR, "amqp"),
]
DATAGRAMS = [
    Vector(name, UDP, TO_SERVER, data, INSPECTOR, name.split()[0])
    for name, data in (
        ("quic 1", _quic()),
        ("quic 1 with both ids", _quic(ids=b"\x14" + b"d" * 20 + b"\x08" + b"s" * 8)),
        ("quic 2", _quic(0x6B3343CF, first=0xD3)),
        ("quic draft 29", _quic(0xFF00001D)),
        ("quic draft 18", _quic(0xFF000012, ids=b"\x50" + b"d" * 8)),
        ("memcached stats by datagram", b"\x12\x34\0\0\0\1\0\0stats\r\n"),
        ("memcached get by datagram", bytes(4) + b"\0\1\0\0get a b\r\n"),
        ("memcached binary by datagram", bytes(4) + b"\0\1\0\0" + _binary(0, b"key")),
    )
] + [
    Vector("memcached answer", UDP, TO_CLIENT, b"\0\1\0\0\0\2\0\0VALUE a 0 1\r\nx\r\n", INSPECTOR, "memcached"),
]

# What looks like them and is not, or not yet.
NEAR = [
    Vector(name, TCP, TO_SERVER, data, INSPECTOR, answer)
    for name, data, answer in (
        ("kafka version beyond all", _kafka(18, 99), UNKNOWN),
        ("kafka unknown request", _kafka(99, 0), UNKNOWN),
        ("kafka lying client id", b"\0\0\0\x0f\0\x12\0\0\0\0\0\1\0\x40rdkafka", UNKNOWN),
        ("kafka produce without a topic", _kafka(0, 2, b"\0\1\0\0\x13\x88" + bytes(12), client=b""), UNKNOWN),
        ("kafka produce of no name", _kafka(0, 2, b"\0\1\0\0\x13\x88\0\0\0\1" + TOPIC, client=b""), UNKNOWN),
        ("kafka produce, acknowledged by seven", _kafka(0, 2, b"\0\7\0\0\x13\x88\0\0\0\1" + TOPIC), UNKNOWN),
        ("kafka api versions without a name", _kafka(18, 3, bytes(5)), UNKNOWN),
        ("kafka metadata of a topic of control characters", _kafka(3, 1, b"\0\0\0\1\0\3\1\2\3"), UNKNOWN),
        ("kafka sasl handshake in small letters", _kafka(17, 1, b"\0\5plain"), UNKNOWN),
        ("kafka fetch by a broker of no number", _kafka(1, 4, b"\xff\xff\xff\x00" + bytes(40)), UNKNOWN),
        ("kafka cut", _kafka(18, 3, b"\0\x0blibrdkafka\x062.3.0\0")[:-1], MORE),
        ("zookeeper", b"\0\0\0\x2d" + bytes(14) + b"\x75\x30" + bytes(11) + b"\x10" + bytes(17), UNKNOWN),
        ("thrift framed", b"\0\0\0\x25\x80\1\0\1\0\0\0\x0cset_keyspace\0\0\0\1\x0b\0\1", UNKNOWN),
        ("thrift", b"\x80\1\0\1\0\0\0\x03add\0\0\0\0" + bytes(20), UNKNOWN),
        ("amqp 9-9", b"AMQP\0\x09\x09\x01", UNKNOWN),
        ("mqtt level 9", _mqtt(b"\0\x04MQTT\x09\x02\0\x3c\0\x05Bus41"), UNKNOWN),
        ("mqtt reserved flag", _mqtt(b"\0\x04MQTT\x04\x03\0\x3c\0\x05Bus41"), UNKNOWN),
        ("mqtt will of quality 3", _mqtt(b"\0\x04MQTT\x04\x1c\0\x3c\0\x05Bus41"), UNKNOWN),
        ("mqtt quality without a will", _mqtt(b"\0\x04MQTT\x04\x08\0\x3c\0\x05Bus41"), UNKNOWN),
        ("mqtt password without a name", _mqtt(b"\0\x04MQTT\x04\x42\0\x3c\0\x05Bus41"), UNKNOWN),
        ("memcached get", b"get a\r\n", MORE),
        ("memcached set without a size", b"set k 0 0\r\n", MORE),
        ("memcached binary with data type", b"\x80\0\0\3\0\1" + bytes(18) + b"key", UNKNOWN),
        ("memcached binary key beyond the body", b"\x80\0\0\3" + bytes(20) + b"key", UNKNOWN),
        ("smb of no version", b"\0\0\0\x2f\xf0SMBr", UNKNOWN),
        ("netbios alone", NETBIOS, MORE),
        ("netbios and keep-alives", NETBIOS + KEEPALIVE * 15, MORE),
        ("netbios and keep-alives without end", NETBIOS + KEEPALIVE * 17, UNKNOWN),
        ("netbios with a label beyond its end", SCOPED[:80] + b"\x3f" + SCOPED[81:], UNKNOWN),
        ("netbios of another's", NETBIOS + b"\0\0\0\x40" + bytes(64), UNKNOWN),
        ("netbios of small letters", NETBIOS.lower() + SMB1, UNKNOWN),
        ("netbios of a letter beyond P", NETBIOS.replace(b"CKF", b"CQF") + SMB1, UNKNOWN),
        ("netbios of a calling letter beyond P", NETBIOS.replace(b"FHE", b"FQE") + SMB1, UNKNOWN),
        ("netbios of one name", NETBIOS[:3] + b"\x22" + NETBIOS[4:38] + SMB1, UNKNOWN),
        ("netbios of a length that is less", NETBIOS[:3] + b"\x43" + NETBIOS[4:] + SMB1, UNKNOWN),
        ("netbios of a length that is more", NETBIOS[:3] + b"\x45" + NETBIOS[4:] + SMB1, UNKNOWN),
        ("netbios of a length of 17 bits", b"\x81\1" + NETBIOS[2:] + SMB1, UNKNOWN),
        ("netbios of a pointer", b"\x81\0\0\x45" + NETBIOS[4:37] + b"\xc0\x04" + NETBIOS[38:] + SMB1, UNKNOWN),
        ("keep-alive first", KEEPALIVE + SMB1, UNKNOWN),
        ("smb too short", b"\0\0\0\x02\xffSMBr", UNKNOWN),
        ("x.224 of another length", b"\3\0\0\x13\x0d\xe0\0\0\0\0\0" + NEGOTIATE, UNKNOWN),
        ("dns query without a question", b"\0\x20\x12\x34\1\0\0\0", UNKNOWN),
        ("s7", _x224(0xE0, b"\xc1\2\1\0\xc2\2\1\2\xc0\1\x0a"), UNKNOWN),
        ("x.224 alone", _x224(0xE0), MORE),
        ("tpkt of q.931", b"\3\0\0\x20\x08\2\0\1\5\4" + bytes(22), UNKNOWN),
        ("smtp client alone", b"EHLO a\r\n", MORE),
        ("ftp client alone", b"USER a\r\n", MORE),
        ("nats client", b'CONNECT {"verbose":false}\r\n', UNKNOWN),
        ("proxy protocol", b"PROXY TCP4 10.0.0.1 10.0.0.2 52176 443\r\n", UNKNOWN),
        ("websocket frame", b"\x81\x8c\xe1~\x8e\xb9\x95\x1b\xfd\xcd", UNKNOWN),
    )
] + [
    Vector("greeting that says nothing", TCP, TO_CLIENT, b"220 welcome\r\n", INSPECTOR, MORE),
    Vector("greeting that says both", TCP, TO_CLIENT, b"220 FTP and SMTP here\r\n", INSPECTOR, MORE),
    Vector("netbios from the server", TCP, TO_CLIENT, NETBIOS + SMB1, INSPECTOR, UNKNOWN),
    Vector("netbios, positive", TCP, TO_CLIENT, POSITIVE, INSPECTOR, MORE),
    Vector("netbios, positive, of another's", TCP, TO_CLIENT, POSITIVE + SMB1[:4] + bytes(47), INSPECTOR, UNKNOWN),
    Vector("pop3 greeting", TCP, TO_CLIENT, b"+OK POP server ready\r\n", INSPECTOR, UNKNOWN),
    Vector("imap greeting", TCP, TO_CLIENT, b"* OK IMAP4Rev1 ready\r\n", INSPECTOR, UNKNOWN),
    Vector("nntp greeting", TCP, TO_CLIENT, b"200 NNTP ready\r\n", INSPECTOR, UNKNOWN),
    Vector("nats greeting", TCP, TO_CLIENT, b'INFO {"server_id":"N"}\r\n', INSPECTOR, UNKNOWN),
    Vector("quic that is short", UDP, TO_SERVER, _quic(size=600), INSPECTOR, UNKNOWN),
    Vector("quic of no known version", UDP, TO_SERVER, _quic(0x0A0A0A0A), INSPECTOR, UNKNOWN),
    Vector("quic longer than its datagram", UDP, TO_SERVER, _quic(size=1300)[:1250], INSPECTOR, UNKNOWN),
    Vector("quic handshake", UDP, TO_SERVER, _quic(first=0xE3), INSPECTOR, UNKNOWN),
    Vector("quic short id", UDP, TO_SERVER, _quic(ids=b"\x04dddd\0"), INSPECTOR, UNKNOWN),
    Vector("memcached datagram of two", UDP, TO_SERVER, bytes(4) + b"\0\2\0\0stats\r\n", INSPECTOR, UNKNOWN),
    Vector("memcached datagram cut", UDP, TO_SERVER, bytes(4) + b"\0\1\0\0stats", INSPECTOR, UNKNOWN),
    Vector("coap", UDP, TO_SERVER, b"C\1\5\xcar\x163+.well-known\4core", INSPECTOR, UNKNOWN),
]

PUBLISH = b"\x32\x0c\0\x03a/b\0\x09hello"
PING_PONG = b"\xc0\0\x40\2\0\x09\x40\2\0\x0a", b"\xd0\0" + PUBLISH

DIALOGUES = [
    Dialogue("redis get", TO_SERVER, b"get a\r\n", b"$1\r\nx\r\n", "redis"),
    Dialogue("redis auth", TO_SERVER, b"AUTH secret\r\n", b"+OK\r\n", "redis"),
    Dialogue("pop3 auth", TO_SERVER, b"AUTH\r\n", b"+OK POP ready\r\n", UNKNOWN),
    Dialogue("memcached get", TO_SERVER, b"get a\r\n", b"END\r\n", "memcached"),
    Dialogue("memcached get, found", TO_SERVER, b"get a b\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n", "memcached"),
    Dialogue("memcached stats", TO_SERVER, b"stats\r\n", b"STAT pid 8837\r\n", "memcached"),
    Dialogue("memcached stats of a slab", TO_SERVER, b"stats cachedump 1 9\r\n", b"ITEM k ", "memcached"),
    Dialogue("memcached version", TO_SERVER, b"version\r\n", b"VERSION 1.6.18\r\n", "memcached"),
    Dialogue("memcached meta get", TO_SERVER, b"mg k v\r\n", b"EN\r\n", "memcached"),
    Dialogue("memcached delete", TO_SERVER, b"delete k\r\n", b"NOT_FOUND\r\n", "memcached"),
    Dialogue("memcached or beanstalkd", TO_SERVER, b"delete 5\r\n", b"NOT_FOUND\r\n", "memcached" + LIKELY),
    Dialogue("beanstalkd stats", TO_SERVER, b"stats\r\n", b"OK 900\r\n---\n", UNKNOWN),
    Dialogue("get, and neither's answer", TO_SERVER, b"get a\r\n", b"what?\r\n", UNKNOWN),
    Dialogue("smtp", TO_CLIENT, b"EHLO a\r\n", b"220 mx\r\n", "smtp"),
    Dialogue("smtp, greeting of lines", TO_CLIENT, b"helo a\r\n", b"220-a\r\n220 b\r\n", "smtp"),
    Dialogue("smtp from the middle", TO_SERVER, b"MAIL FROM:<a@b>\r\n", b"250 ok\r\n", "smtp" + LIKELY),
    Dialogue("ftp", TO_CLIENT, b"USER a\r\n", b"220 welcome\r\n", "ftp"),
    Dialogue("ftp tls", TO_CLIENT, b"AUTH TLS\r\n", b"220-FTP and SMTP\r\n220 ready\r\n", "ftp"),
    Dialogue("ftp from the middle", TO_SERVER, b"PASV\r\n", b"227 Entering Passive Mode\r\n", "ftp" + LIKELY),
    Dialogue("greeting and quit", TO_CLIENT, b"QUIT\r\n", b"220 welcome\r\n", UNKNOWN),
    Dialogue("nntp", TO_CLIENT, b"HELP\r\n", b"200 NNTP ready\r\n", UNKNOWN),
    Dialogue("mqtt ping", TO_SERVER, *PING_PONG, "mqtt" + LIKELY),
    Dialogue("mqtt publish", TO_SERVER, PUBLISH, b"\x40\2\0\x09\x40\2\0\x0a", "mqtt" + LIKELY),
    Dialogue("mqtt publish to a client", TO_CLIENT, b"\x40\2\0\x09\x40\2\0\x0a", PUBLISH, "mqtt" + LIKELY),
    Dialogue("mqtt publish, another's acknowledgment", TO_SERVER, PUBLISH, b"\x40\2\0\x08\x40\2\0\x0a", UNKNOWN),
    Dialogue("rdp without negotiation", TO_SERVER, _x224(0xE0), _x224(0xD0), "rdp" + LIKELY),
    Dialogue("mqtt", TO_SERVER, _mqtt(b"\0\x04MQTT\x04\x02\0\x3c\0\x05Bus41"), b"\x20\2\0\0", "mqtt"),
    Dialogue("amqp", TO_SERVER, b"AMQP\0\0\x09\x01", b"\1\0\0\0\0\0\x0c\0\x0a\0\x0a\0\x09", "amqp"),
    Dialogue("netbios granted", TO_SERVER, NETBIOS, POSITIVE, MORE),
    Dialogue("netbios refused", TO_SERVER, NETBIOS, b"\x83\0\0\1\x82", MORE),
    Dialogue("smb over netbios", TO_SERVER, NETBIOS + SMB1, POSITIVE + SMB1, "smb"),
    Dialogue("kafka", TO_SERVER, _kafka(18, 0), b"\0\0\0\x0a\0\0\0\1" + bytes(6), "kafka"),
]

VECTORS = [*WHOLE, *LEFT, *NAMED, *DATAGRAMS, *NEAR]
