"""What the first bytes of a flow are: match, no match, or need more.

Content only; ports are never evidence. Each check looks at one side's bytes from
its very first byte, decides as early as its grammar allows and is mirrored by
bpf/lib/identify.h. All but HTTP/1 look at no more than the first 64 bytes.
The grammars exclude each other once complete; while two could still match, the
answer is need more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TCP: Final = 6
UDP: Final = 17

NO: Final = 0
MORE: Final = 1
YES: Final = 2

H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Match:
    """The flow is this protocol, by its name in design.md. `malformed`: a header beyond doubt, and a body that
    its grammar forbids (the kernel says need more, the inspector calls it a parse error).
    """

    protocol: str
    malformed: bool = False


@dataclass(frozen=True, slots=True)
class NoMatch:
    """No byte that follows can make it one of the known protocols."""


@dataclass(frozen=True, slots=True)
class NeedMore:
    """Too short to tell."""


Answer = Match | NoMatch | NeedMore

NO_MATCH: Final = NoMatch()
NEED_MORE: Final = NeedMore()

_UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_METHOD = _UPPER | frozenset(b"-_")
_METHOD_MAX = 24
_ALNUM = _UPPER | frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_DIGITS = frozenset(b"0123456789")
_TARGET_END = re.compile(rb"[\x00-\x20\x7f]")
_TARGET_FIRST = _ALNUM | frozenset(b"/*[")


def _fixed(data: bytes, pattern: bytes) -> int:
    """`pattern`, or a prefix of it."""
    head = data[: len(pattern)]
    if not pattern.startswith(head):
        return NO
    return YES if len(head) == len(pattern) else MORE


def http_request(data: bytes) -> int:
    """(CR LF){0,4} METHOD SP target SP "HTTP/1." DIGIT (CR LF | LF), or HTTP/0.9's "GET /" ... (CR LF | LF).

    METHOD is 1-24 of [A-Z_-], the first a letter. target begins with [A-Za-z0-9/*[] and has
    only bytes above 0x20 without 0x7f. A bare LF is taken for a line end here so that it is
    HTTP that the parser then refuses, and not an unknown protocol that a rule may let pass.
    """
    start = 0
    while start < 8 and data[start : start + 1] == b"\r":
        if data[start + 1 : start + 2] != b"\n":
            return NO if len(data) > start + 1 else MORE
        start += 2
    space = data.find(b" ", start, start + _METHOD_MAX + 1)
    method = data[start : space if space >= 0 else start + _METHOD_MAX + 1]
    if method and (method[0] not in _UPPER or not _METHOD.issuperset(method)):
        return NO
    if space < 0:
        return MORE if len(method) <= _METHOD_MAX else NO
    if not method:
        return NO
    # In C: an endless target, one byte a segment, is scanned anew each time.
    stop = _TARGET_END.search(data, space + 1)
    end = stop.start() if stop else len(data)
    target = data[space + 1 : end]
    if target and target[0] not in _TARGET_FIRST:
        return NO
    if end == len(data):
        return MORE
    if not target:
        return NO
    if data[end] != 0x20:
        return _line_end(data, end) if method == b"GET" and target[:1] == b"/" else NO
    version = data[end + 1 : end + 9]
    answer = _fixed(version, b"HTTP/1.")
    if answer != YES or len(version) < 8:
        return min(answer, MORE)
    return _line_end(data, end + 9) if version[7] in _DIGITS else NO


def _line_end(data: bytes, at: int) -> int:
    if data[at : at + 1] == b"\n":
        return YES
    return _fixed(data[at : at + 2], b"\r\n")


def http_response(data: bytes) -> int:
    """Status line: "HTTP/1." DIGIT SP [1-5] DIGIT DIGIT (SP | CR | LF): 13 bytes."""
    answer = _fixed(data, b"HTTP/1.")
    if answer != YES:
        return answer
    for index, allowed in ((7, b"0123456789"), (8, b" "), (9, b"12345"), (10, b"0123456789"), (11, b"0123456789")):
        if len(data) <= index:
            return MORE
        if data[index] not in allowed:
            return NO
    if len(data) < 13:
        return MORE
    return YES if data[12] in b" \r\n" else NO


def http2_client(data: bytes) -> int:
    """The 24 bytes of the connection preface (RFC 9113 §3.4)."""
    return _fixed(data, H2_PREFACE)


def http2_server(data: bytes) -> int:
    """A SETTINGS frame header, 9 bytes: length (24 bit, a multiple of 6, at most 120), type 4,
    flags 0, stream 0. Never more than MORE: servers may speak first, the client's preface decides.
    """
    for index, byte in enumerate(data[:9]):
        if (index == 2 and (byte % 6 or byte > 120)) or (index != 2 and byte != (4 if index == 3 else 0)):
            return NO
    return MORE


def tls_client(data: bytes) -> int:
    """Records `16 03 [00-04] len16` (1..16384) whose payloads, put together, begin with a
    ClientHello: `01 00 len16` (at least 38), `03 [00-04]`; or an SSLv2 hello (`_ssl2_client`).
    """
    if data[:1] >= b"\x80":
        return _ssl2_client(data)
    return _tls_handshake(data, 0x01)


def tls_server(data: bytes) -> int:
    """As the client's with ServerHello (02), or an alert record: `15 03 [00-04] 00 02 [01 02] xx`."""
    if data[:1] != b"\x15":
        return _tls_handshake(data, 0x02)
    for index, allowed in ((1, b"\x03"), (2, b"\0\1\2\3\4"), (3, b"\0"), (4, b"\2"), (5, b"\1\2")):
        if len(data) <= index:
            return MORE
        if data[index] not in allowed:
            return NO
    return YES if len(data) > 6 else MORE


def _tls_handshake(data: bytes, kind: int) -> int:
    hello = bytearray()
    at = 0
    data = data[:64]
    while len(hello) < 6 and at < len(data):
        header = data[at : at + 5]
        if _fixed(header, b"\x16\x03") == NO or (len(header) > 2 and header[2] > 4):
            return NO
        if len(header) < 5:
            break
        size = int.from_bytes(header[3:5], "big")
        if not 1 <= size <= 16384:
            return NO
        hello += data[at + 5 : at + 5 + size]
        at += 5 + size
    for index, byte in enumerate(hello[:6]):
        if (
            (index == 0 and byte != kind)
            or (index == 1 and byte)
            or (index == 4 and byte != 3)
            or (index == 5 and byte > 4)
        ):
            return NO
    if len(hello) >= 4 and int.from_bytes(hello[2:4], "big") < 38:
        return NO
    return YES if len(hello) >= 6 else MORE if len(data) < 64 else NO


def _ssl2_client(data: bytes) -> int:
    """`1LLLLLLL LLLLLLLL 01 (03 [00-04] | 00 02)` cipher length (a multiple of 3, not 0), session id
    length (0 or 16), challenge length (16..32), and the length is 9 plus these three: 11 bytes.
    """
    if len(data) > 2 and data[2] != 1:
        return NO
    if len(data) > 4 and not ((data[3] == 3 and data[4] <= 4) or (data[3] == 0 and data[4] == 2)):
        return NO
    if len(data) < 11:
        return MORE
    total, ciphers = int.from_bytes(data[:2], "big") & 0x7FFF, int.from_bytes(data[5:7], "big")
    session, challenge = int.from_bytes(data[7:9], "big"), int.from_bytes(data[9:11], "big")
    fits = ciphers and ciphers % 3 == 0 and session in {0, 16} and 16 <= challenge <= 32
    return YES if fits and total == 9 + ciphers + session + challenge else NO


def ssh(data: bytes) -> int:
    """Banner: "SSH-" ("2.0" | "1.99" | "1.3" | "1.5") "-" and one byte above 0x20 (RFC 4253 §4.2), either side."""
    answer = _fixed(data, b"SSH-")
    if answer != YES:
        return answer
    best = NO
    for version in (b"2.0-", b"1.99-", b"1.3-", b"1.5-"):
        best = max(best, _fixed(data[4:], version))
        if best == YES:
            after = data[4 + len(version) : 5 + len(version)]
            return MORE if not after else YES if after > b" " else NO
    return best


def mysql_server(data: bytes) -> int:
    """Greeting: length (24 bit little-endian, 30..1024), sequence 0, 0x0a, version text
    DIGIT{1,2} "." DIGIT and 0-50 more of 0x20-0x7e, NUL, 12 bytes, NUL; or a refusal:
    length (9..512), sequence 0, 0xff, error code 1000..1999 or 3000..4999 little-endian,
    and printable text up to the length or byte 64. MariaDB's "5.5.5-10..." is a version like any.
    """
    if len(data) > 2 and (data[2] or int.from_bytes(data[:2], "little") > 1024):
        return NO
    if len(data) > 3 and data[3]:
        return NO
    if len(data) < 5:
        return MORE
    size = int.from_bytes(data[:3], "little")
    if data[4] == 0xFF:
        return _mysql_refusal(data, size)
    if data[4] != 0x0A or size < 30:
        return NO
    end = data.find(b"\0", 5, 60)
    version = data[5 : end if end >= 0 else 60]
    dot = version.find(b".")
    if dot < 0:
        if len(version) > 2 or not _DIGITS.issuperset(version):
            return NO
    elif not 1 <= dot <= 2 or not _DIGITS.issuperset(version[:dot] + version[dot + 1 : dot + 2]):
        return NO
    if not all(0x20 <= byte < 0x7F for byte in version):
        return NO
    if end < 0:
        return MORE if len(data) < 60 else NO
    if dot < 0 or len(version) < dot + 2 or size < end + 14 - 4:
        return NO
    if len(data) <= end + 13:
        return MORE
    return YES if data[end + 13] == 0 else NO


def _mysql_refusal(data: bytes, size: int) -> int:
    if not 9 <= size <= 512:
        return NO
    code = int.from_bytes(data[5:7], "little")
    if len(data) >= 7 and not (1000 <= code < 2000 or 3000 <= code < 5000):
        return NO
    end = min(4 + size, 64)
    if not all(0x20 <= byte < 0x7F for byte in data[7:end]):
        return NO
    return YES if len(data) >= end else MORE


_POSTGRES_REQUESTS: Final = {80877103: range(8, 9), 80877104: range(8, 9), 80877102: range(16, 269)}
_POSTGRES_KEY = _ALNUM | frozenset(b"_.")


def postgres_client(data: bytes) -> int:
    """Length (32 bit), code: SSLRequest 80877103 and GSSENCRequest 80877104 (length 8), CancelRequest 80877102
    (16..268), or startup 3.0/3.2 (0x00030000, 0x00030002; length 14..10000) with a first parameter
    name of 1-40 of [A-Za-z0-9_.], the first a letter or _, and its NUL.
    """
    if len(data) > 1 and (data[0] or data[1]):
        return NO
    if data[:1] > b"\0":
        return NO
    size = int.from_bytes(data[:4], "big")
    if len(data) >= 4 and not 8 <= size <= 10000:
        return NO
    best = NO
    for code, sizes in _POSTGRES_REQUESTS.items():
        if len(data) < 4 or size in sizes:
            best = max(best, _fixed(data[4:], code.to_bytes(4, "big")))
    if best == YES:
        return YES
    for startup in (b"\0\3\0\0", b"\0\3\0\2"):
        answer = _fixed(data[4:], startup) if len(data) < 4 or size >= 14 else NO
        if answer == YES:
            return _postgres_parameter(data)
        best = max(best, answer)
    return best


def _postgres_parameter(data: bytes) -> int:
    end = data.find(b"\0", 8, 49)
    name = data[8 : end if end >= 0 else 49]
    if not _POSTGRES_KEY.issuperset(name) or (name and (name[0] in _DIGITS or name[:1] == b".")):
        return NO
    if end < 0:
        return MORE if len(data) < 49 else NO
    return YES if name else NO


_RESP_COMMAND = _ALNUM | frozenset(b"._-|")
# Inline commands that no other text protocol's client says first.
_INLINE: Final = frozenset((
    b"BGSAVE", b"CLIENT", b"CLUSTER", b"COMMAND", b"CONFIG", b"DBSIZE", b"FLUSHDB", b"INFO", b"KEYS", b"LASTSAVE",
    b"MONITOR", b"PING", b"PSYNC", b"PUBLISH", b"REPLCONF", b"SCAN", b"SLOWLOG", b"SYNC",
))  # fmt: skip
# Inline commands that Memcached, FTP and others know too: the server's reply must be RESP.
_INLINE_SHARED: Final = frozenset((
    b"AUTH", b"DECR", b"DEL", b"ECHO", b"EXISTS", b"EXPIRE", b"FLUSHALL", b"GET", b"HELLO", b"HGETALL", b"HSET",
    b"INCR", b"LPUSH", b"LRANGE", b"MGET", b"MSET", b"MULTI", b"RPUSH", b"SADD", b"SELECT", b"SET", b"SUBSCRIBE",
    b"TTL", b"TYPE",
))  # fmt: skip
_INLINE_MAX = max(map(len, _INLINE | _INLINE_SHARED))


def redis_client(data: bytes) -> int:
    """An array of bulk strings, "*" N CR LF "$" M CR LF and M bytes of [A-Za-z0-9._|-] (the first a letter), CR LF;
    N is 1-7 digits, M 1-2 digits up to 32, neither beginning with 0. Or an inline command of `_INLINE`,
    in one case, then CR, LF, or SP and anything. One of `_INLINE_SHARED` stays MORE (`redis_reply`).
    """
    if data[:1] != b"*":
        return _redis_inline(data)
    end, count, answer = _resp_number(data, 1, 7)
    if answer != YES:
        return answer
    if count < 1:
        return NO
    answer = _fixed(data[end : end + 1], b"$")
    if answer != YES:
        return answer
    end, size, answer = _resp_number(data, end + 1, 2)
    if answer != YES:
        return answer
    if not 1 <= size <= 32:
        return NO
    word = data[end : end + size]
    if not _RESP_COMMAND.issuperset(word) or (word and (word[0] not in _ALNUM or word[0] in _DIGITS)):
        return NO
    return _fixed(data[end + size : end + size + 2], b"\r\n") if len(word) == size else MORE


def _resp_number(data: bytes, at: int, digits: int) -> tuple[int, int, int]:
    """(behind its CR LF, value, answer) of a number without leading zero."""
    end = at
    while end < len(data) and end - at < digits and data[end] in _DIGITS:
        end += 1
    if end > at and data[at : at + 1] == b"0":
        return end, 0, NO
    if end == len(data):
        return end, 0, MORE
    if end == at:
        return end, 0, NO
    return end + 2, int(data[at:end]), _fixed(data[end : end + 2], b"\r\n")


def _redis_inline(data: bytes) -> int:
    end = 0
    while end < len(data) and end <= _INLINE_MAX and data[end] in _ALNUM:
        end += 1
    word = data[:end]
    if word not in (word.upper(), word.lower()):
        return NO
    word = word.upper()
    if end == len(data):
        return MORE if any(name.startswith(word) for name in _INLINE | _INLINE_SHARED) else NO
    if data[end] not in b"\r\n ":
        return NO
    return YES if word in _INLINE else MORE if word in _INLINE_SHARED else NO


def redis_reply(data: bytes) -> int:
    """What a RESP server says: "+" or "-" text of [A-Z] (then anything), "$" or ":" or "*" or "%" an integer CR LF.
    Only asked when the client's bytes are an inline command other protocols know too.
    """
    if data[:1] in {b"+", b"-"}:
        return MORE if len(data) < 2 else YES if data[1] in _UPPER else NO
    if data[:1] not in {b"$", b":", b"*", b"%"}:
        return NO
    end = data.find(b"\r\n", 1, 24)
    number = data[1 : end if end >= 0 else 24].removeprefix(b"-")
    if not _DIGITS.issuperset(number):
        return NO
    if end < 0:
        return MORE if len(data) < 24 else NO
    return YES if number else NO


_MONGO_MAX = 48_000_000
_MONGO_OPS = {2013: "msg", 2012: "compressed", 2004: "query", 1: "reply", 2001: "", 2002: "", 2005: "", 2006: ""}


def mongodb(data: bytes, *, server: bool = False) -> int:
    """Header of four little-endian words: length (26..48,000,000), request id, response to (0 from a client),
    operation. OP_MSG 2013: flags with no bit but 0, 1, 16; section kind 0 whose BSON length is 5..length-21
    (kind 1: size 8..length-21). OP_QUERY 2004 (client): flags below 0x100, collection name of 3..32 printable
    bytes with a ".", NUL. OP_REPLY 1 (server): flags below 0x10, response to not 0, cursor, starting from,
    number returned below 65,536, then BSON. OP_COMPRESSED 2012: original operation 2004, 2013 or 1,
    size up to 48,000,000, compressor 0..3. A BSON document's first element type must be one of 01-13, 7f, ff,
    or the document is empty.
    """
    data = data[:64]
    if len(data) >= 4 and not 26 <= int.from_bytes(data[:4], "little") <= _MONGO_MAX:
        return NO
    if not server and any(data[8:12]):
        return NO
    if len(data) < 16:
        operation = data[12:16]
        allowed = (1, 2012, 2013) if server else (2004, 2012, 2013)
        return MORE if any(op.to_bytes(4, "little").startswith(operation) for op in allowed) else NO
    size, operation_code = int.from_bytes(data[:4], "little"), int.from_bytes(data[12:16], "little")
    body = data[16:]
    if operation_code == 2013:
        return _mongo_msg(body, size)
    if operation_code == 2012:
        return _mongo_compressed(body)
    if operation_code == 2004 and not server:
        return _mongo_query(body)
    if operation_code == 1 and server:
        return _mongo_reply(data, size)
    return NO


def _mongo_msg(body: bytes, size: int) -> int:
    flags = int.from_bytes(body[:4], "little")
    if flags & ~0x10003:
        return NO
    if len(body) < 5:
        return MORE
    if body[4] > 1:
        return NO
    if body[4] == 1:
        if len(body) < 9:
            return MORE
        return YES if 8 <= int.from_bytes(body[5:9], "little") <= size - 21 else NO
    return _bson(body[5:], size - 21)


def _bson(document: bytes, room: int) -> int:
    if len(document) < 5:
        return MORE
    size = int.from_bytes(document[:4], "little")
    if not 5 <= size <= room:
        return NO
    if size == 5:
        return YES if document[4] == 0 else NO
    return YES if 1 <= document[4] <= 0x13 or document[4] in b"\x7f\xff" else NO


def _mongo_compressed(body: bytes) -> int:
    original = int.from_bytes(body[:4], "little")
    if len(body) >= 4 and original not in {1, 2004, 2013}:
        return NO
    if len(body) >= 8 and int.from_bytes(body[4:8], "little") > _MONGO_MAX:
        return NO
    if len(body) < 9:
        return MORE
    return YES if body[8] <= 3 else NO


def _mongo_query(body: bytes) -> int:
    if any(body[1:4]):
        return NO
    end = body.find(b"\0", 4, 37)
    name = body[4 : end if end >= 0 else 37]
    if not all(0x21 <= byte < 0x7F for byte in name):
        return NO
    if end < 0:
        return MORE if len(body) < 37 else NO
    return YES if len(name) >= 3 and b"." in name else NO


def _mongo_reply(data: bytes, size: int) -> int:
    if not any(data[8:12]) or any(data[17:20]) or data[16:17] > b"\x0f":
        return NO
    if len(data) < 36:
        return MORE
    if int.from_bytes(data[32:36], "little") > 65535:
        return NO
    return YES if size == 36 else _bson(data[36:], size - 36)


_DNS_CLASSES = frozenset((1, 3, 4, 254, 255, 0x8001))


def dns_message(data: bytes, *, whole: bool) -> int:
    """Header of 12 bytes: operation 0, 4 or 5, reserved bit 0; a query has no AA, TC, RA and code 0, an answer
    code 0..10. One question (an update's zone, an answer may have none): labels of 1..63 bytes, together up to
    254, then 0, no pointers; type not 0, class 1, 3, 4, 254, 255 or multicast's 0x8001. A query (operation 0) has no
    answers, up to 1 authority and 2 additional records, and ends behind its question when it has none. When `whole`
    (a datagram) an answer's first record is checked: name, type, class, and its length fits.
    Over TCP the question must be whole; a kernel that looks at 64 bytes says need more for a longer one.
    """
    if len(data) > 2 and _dns_flags(data) == NO:
        return NO
    if len(data) < 12:
        return MORE
    answer = data[2] & 0x80
    operation = data[2] >> 3 & 15
    questions, answers, authority, additional = (int.from_bytes(data[i : i + 2], "big") for i in (4, 6, 8, 10))
    if questions > 1 or (not questions and not (answer and answers)):
        return NO
    if answers > 4096 or authority > 4096 or additional > 4096:
        return NO
    if not answer and operation != 5 and (answers > (operation == 4) or authority > 1 or additional > 2):
        return NO
    at = 12
    if questions:
        at, state = _dns_name(data, 12)
        if state != YES:
            return state
        if at + 4 > len(data):
            return MORE
        if not any(data[at : at + 2]) or int.from_bytes(data[at + 2 : at + 4], "big") not in _DNS_CLASSES:
            return NO
        at += 4
    if not whole:
        return YES
    if not answers + authority + additional:
        return YES if at == len(data) else NO
    return _dns_record(data, at)


def dns_query_header(data: bytes) -> bool:
    """Ten bytes that leave no doubt: a standard query (flags RD, AD, CD only), one question, no answer, no authority,
    at most one additional record, and at least one byte of a name.
    """
    flags = int.from_bytes(data[2:4], "big")
    return len(data) > 12 and not flags & ~0x0130 and data[4:11] == b"\0\1\0\0\0\0\0" and data[11] <= 1


def _dns_flags(data: bytes) -> int:
    if data[2] >> 3 & 15 not in {0, 4, 5} or (len(data) > 3 and data[3] & 0x40):
        return NO
    if data[2] & 0x80:
        return NO if len(data) > 3 and data[3] & 15 > 10 else YES
    if data[2] & 0x02 or (data[2] & 0x04 and data[2] >> 3 & 15 != 4):
        return NO
    return NO if len(data) > 3 and data[3] & 0x8F else YES


def _dns_name(data: bytes, at: int) -> tuple[int, int]:
    first = at
    while at < len(data):
        size = data[at]
        if size == 0:
            return at + 1, YES
        if size > 63 or at + size - first > 253:
            return at, NO
        at += 1 + size
    return at, MORE


def _dns_record(data: bytes, at: int) -> int:
    while at < len(data) and 0 < data[at] <= 63:
        at += 1 + data[at]
    if at >= len(data):
        return MORE
    if data[at] >= 0xC0:
        if at + 1 >= len(data) or not 12 <= int.from_bytes(data[at : at + 2], "big") & 0x3FFF < at:
            return NO
        at += 1
    elif data[at]:
        return NO
    fixed = data[at + 1 : at + 11]
    if len(fixed) < 10:
        return MORE
    kind, group = int.from_bytes(fixed[:2], "big"), int.from_bytes(fixed[2:4], "big")
    if not kind or (kind != 41 and group & 0x7FFF not in _DNS_CLASSES):
        return NO
    return YES if at + 11 + int.from_bytes(fixed[8:10], "big") <= len(data) else NO


def dns_tcp(data: bytes) -> int:
    """Length (16 bit, 17..65535; an answer may have 12), then `dns_message`."""
    if len(data) < 2:
        return MORE
    size = int.from_bytes(data[:2], "big")
    if size < 17:
        return NO
    return dns_message(data[2 : 2 + size], whole=False)


Check = Callable[[bytes], int]

_TCP_CLIENT: Final[dict[str, Check]] = {
    "http": http_request,
    "http2": http2_client,
    "tls": tls_client,
    "ssh": ssh,
    "postgres": postgres_client,
    "redis": redis_client,
    "mongodb": mongodb,
    "dns": dns_tcp,
}
_TCP_SERVER: Final[dict[str, Check]] = {
    "http": http_response,
    "tls": tls_server,
    "ssh": ssh,
    "mysql": mysql_server,
    "mongodb": lambda data: mongodb(data, server=True),
    "dns": dns_tcp,
}


def identify(to_server: bytes, to_client: bytes, l4: int = TCP) -> Answer:
    """What the flow is, from the first bytes of either side (each from its beginning)."""
    if l4 == UDP:
        states = (dns_message(data, whole=True) for data in (to_server, to_client) if data)
        if YES in states:
            return Match("dns")
        return Match("dns", malformed=True) if dns_query_header(to_server) else NO_MATCH
    if l4 != TCP:
        return NO_MATCH
    found: dict[str, int] = {}
    if to_server:
        for name, check in _TCP_CLIENT.items():
            found[name] = check(to_server)
    if to_client:
        for name, check in _TCP_SERVER.items():
            found[name] = max(found.get(name, NO), check(to_client))
        if found.get("redis") == MORE:
            found["redis"] = redis_reply(to_client)
        if not to_server:
            found["http2"] = http2_server(to_client)
    matches = [name for name, state in found.items() if state == YES]
    if len(matches) > 1:
        return NO_MATCH
    if matches and found.get("redis") == MORE and b"\n" in to_server:
        del found["redis"]  # "GET / HTTP/1.1" is an inline command too, one that never completes by itself
    if MORE in found.values() or not found:
        return NEED_MORE
    return Match(matches[0]) if matches else NO_MATCH
