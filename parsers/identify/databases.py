"""MySQL, PostgreSQL, MongoDB."""

from __future__ import annotations

from typing import Final

from parsers.identify.answers import ALNUM, DIGITS, MORE, NO, YES, fixed


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
        if len(version) > 2 or not DIGITS.issuperset(version):
            return NO
    elif not 1 <= dot <= 2 or not DIGITS.issuperset(version[:dot] + version[dot + 1 : dot + 2]):
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
_POSTGRES_KEY = ALNUM | frozenset(b"_.")


def postgres_client(data: bytes) -> int:
    """Length (32 bit), code: SSLRequest 80877103 and GSSENCRequest 80877104 (length 8), CancelRequest 80877102
    (16..268), or startup 3.0/3.2 (0x00030000, 0x00030002; length 14..10000) with a first parameter
    name of 2-40 of [A-Za-z0-9_.], the first a letter or _, and its NUL. (Kafka has numbers there.)
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
            best = max(best, fixed(data[4:], code.to_bytes(4, "big")))
    if best == YES:
        return YES
    for startup in (b"\0\3\0\0", b"\0\3\0\2"):
        answer = fixed(data[4:], startup) if len(data) < 4 or size >= 14 else NO
        if answer == YES:
            return _postgres_parameter(data)
        best = max(best, answer)
    return best


def _postgres_parameter(data: bytes) -> int:
    end = data.find(b"\0", 8, 49)
    name = data[8 : end if end >= 0 else 49]
    if not _POSTGRES_KEY.issuperset(name) or (name and (name[0] in DIGITS or name[:1] == b".")):
        return NO
    if end < 0:
        return MORE if len(data) < 49 else NO
    return YES if len(name) > 1 else NO


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
