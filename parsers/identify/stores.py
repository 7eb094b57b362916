"""Redis and Memcached: some of their commands are each other's, the server's reply tells."""

from __future__ import annotations

import re
from typing import Final

from parsers.identify.answers import ALNUM, ASK, DIGITS, LIKELY, MORE, NO, YES, fixed

_RESP_COMMAND = ALNUM | frozenset(b"._-|")
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
    in one case, then CR, LF, or SP and anything but "{" (NATS). One of `_INLINE_SHARED` is ASK (`redis_reply`).
    """
    if data[:1] != b"*":
        return _redis_inline(data)
    end, count, answer = _resp_number(data, 1, 7)
    if answer != YES:
        return answer
    if count < 1:
        return NO
    answer = fixed(data[end : end + 1], b"$")
    if answer != YES:
        return answer
    end, size, answer = _resp_number(data, end + 1, 2)
    if answer != YES:
        return answer
    if not 1 <= size <= 32:
        return NO
    word = data[end : end + size]
    if not _RESP_COMMAND.issuperset(word) or (word and (word[0] not in ALNUM or word[0] in DIGITS)):
        return NO
    return fixed(data[end + size : end + size + 2], b"\r\n") if len(word) == size else MORE


def _resp_number(data: bytes, at: int, digits: int) -> tuple[int, int, int]:
    """(behind its CR LF, value, answer) of a number without leading zero."""
    end = at
    while end < len(data) and end - at < digits and data[end] in DIGITS:
        end += 1
    if end > at and data[at : at + 1] == b"0":
        return end, 0, NO
    if end == len(data):
        return end, 0, MORE
    if end == at:
        return end, 0, NO
    return end + 2, int(data[at:end]), fixed(data[end : end + 2], b"\r\n")


def _redis_inline(data: bytes) -> int:
    end = 0
    while end < len(data) and end <= _INLINE_MAX and data[end] in ALNUM:
        end += 1
    word = data[:end]
    if word not in (word.upper(), word.lower()):
        return NO
    word = word.upper()
    if end == len(data):
        return MORE if any(name.startswith(word) for name in _INLINE | _INLINE_SHARED) else NO
    if data[end] not in b"\r\n ":
        return NO
    if word in _INLINE_SHARED:
        return ASK
    return NO if word not in _INLINE or data[end : end + 2] == b" {" else YES


_SIMPLE = re.compile(rb"\+[A-Za-z]+\r\n|-[A-Z]+ ")
_SIMPLE_BEGUN = re.compile(rb"\+[A-Za-z]*\r?|-[A-Z]*")


def redis_reply(data: bytes) -> int:
    """What a RESP server says: "+" a word CR LF (POP3 says more), "-" a word of [A-Z] and SP, "$" or ":" or "*" or "%"
    an integer CR LF. Only asked when the client's bytes are an inline command other protocols know too.
    """
    if data[:1] in {b"+", b"-"}:
        head = data[:32]
        return YES if _SIMPLE.match(head) else MORE if _SIMPLE_BEGUN.fullmatch(head) and len(head) < 32 else NO
    if data[:1] not in {b"$", b":", b"*", b"%"}:
        return NO
    end = data.find(b"\r\n", 1, 24)
    number = data[1 : end if end >= 0 else 24].removeprefix(b"-")
    if end < 0:
        return MORE if len(data) < 24 and DIGITS.issuperset(number.removesuffix(b"\r")) else NO
    return YES if number and DIGITS.issuperset(number) else NO


def redis(to_server: bytes, to_client: bytes) -> int:
    """`redis_client`; where that is ASK, `redis_reply` tells."""
    if not to_server:
        return NO
    answer = redis_client(to_server)
    return redis_reply(to_client) if answer == ASK and to_client else answer


_KEY = rb"[^\x00-\x20\x7f]{1,250}"
_NUMBER = rb" -?[0-9]{1,20}"
# Lines that are no other protocol's.
_SURE: Final = re.compile(
    rb"(?:(?:set|add|replace|append|prepend) " + _KEY + _NUMBER * 3 + rb"(?: noreply)?"
    rb"|cas " + _KEY + _NUMBER * 4 + rb"(?: noreply)?"
    rb"|(?:incr|decr) " + _KEY + rb" [0-9]{1,20}(?: noreply)?"
    rb"|gats?" + _NUMBER + rb"(?: " + _KEY + rb")+"
    rb"|(?:flush_all|verbosity|cache_memlimit)(?: [0-9]{1,10})?(?: noreply)?"
    rb"|ms " + _KEY + rb" [0-9]{1,10}(?: [A-Za-z][^\x00-\x20\x7f]*)*)\r?\n"
)
_KEYS = rb"(?: " + _KEY + rb")+"
# Lines that others say too, and what a Memcached server says to them.
_SHARED: Final = {
    b"get": (_KEYS, (b"VALUE ", b"END\r\n")),
    b"gets": (_KEYS, (b"VALUE ", b"END\r\n")),
    b"delete": (rb" " + _KEY + rb"(?: 0)?(?: noreply)?", (b"DELETED\r\n", b"NOT_FOUND\r\n")),
    b"touch": (rb" " + _KEY + _NUMBER + rb"(?: noreply)?", (b"TOUCHED\r\n", b"NOT_FOUND\r\n")),
    b"stats": (rb"(?: [a-z0-9_]+)*", (b"STAT ", b"ITEM ", b"END\r\n", b"RESET\r\n")),
    b"version": (rb"", (b"VERSION ",)),
    b"mn": (rb"", (b"MN\r\n",)),
    b"mg": (_KEYS, (b"VA ", b"HD", b"EN\r\n")),
    b"md": (_KEYS, (b"HD", b"NF", b"EX")),
    b"ma": (_KEYS, (b"VA ", b"HD", b"NF", b"NS", b"EX")),
    b"me": (_KEYS, (b"ME ", b"EN\r\n")),
}
_SHARED_LINES: Final = {word: re.compile(word + rest + rb"\r?\n") for word, (rest, _) in _SHARED.items()}
_REFUSALS: Final = (b"CLIENT_ERROR ", b"SERVER_ERROR ")
_WORDS: Final = frozenset(_SHARED) | {
    b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"incr", b"decr", b"gat", b"gats", b"flush_all",
    b"verbosity", b"cache_memlimit", b"ms",
}  # fmt: skip
_WORD_END = re.compile(rb"[ \r\n]")
_WORD_MAX = max(map(len, _WORDS))
_NO_TEXT = re.compile(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")


def memcached(to_server: bytes, to_client: bytes) -> int:
    """Text (protocol.txt): a line of `_SURE`; or one of `_SHARED`, and what the server says to it. Or binary."""
    if not to_server:
        return NO
    if to_server[:1] == b"\x80":
        return memcached_binary(to_server)
    answer = _memcached_line(to_server)
    if answer != ASK or not to_client:
        return answer
    line = to_server[: to_server.index(b"\n")].split()
    answer = max(fixed(to_client, reply) for reply in (*_SHARED[line[0]][1], *_REFUSALS))
    # Beanstalkd deletes and touches numbers, with the same replies.
    alike = line[0] in {b"delete", b"touch"} and line[1].isdigit()
    return ASK if answer == MORE else LIKELY if answer == YES and alike else answer


def _memcached_line(data: bytes) -> int:
    end = _WORD_END.search(data, 0, _WORD_MAX + 1)
    if end is None:
        return MORE if any(word.startswith(data) for word in _WORDS) else NO
    word = data[: end.start()]
    if word not in _WORDS:
        return NO
    newline = data.find(b"\n")
    if newline < 0:
        return NO if _NO_TEXT.search(data) else MORE
    if _SURE.match(data):
        return YES
    return ASK if word in _SHARED and _SHARED_LINES[word].match(data) else NO


# Opcodes by the lengths of their extras (protocol-binary.xml §4); those with a key, and those without.
_EXTRAS: Final = {
    **dict.fromkeys((0x00, 0x04, 0x07, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x14, 0x17, 0x19, 0x1A), (0,)),
    **dict.fromkeys((0x01, 0x02, 0x03, 0x11, 0x12, 0x13), (8,)),
    **dict.fromkeys((0x05, 0x06, 0x15, 0x16), (20,)),
    **dict.fromkeys((0x08, 0x18), (0, 4)),
    **dict.fromkeys((0x1B, 0x1C, 0x1D, 0x1E, 0x23, 0x24), (4,)),
    **dict.fromkeys((0x20, 0x21, 0x22), (0,)),
}
_KEYLESS: Final = frozenset((0x07, 0x08, 0x0A, 0x0B, 0x17, 0x18, 0x1B, 0x20))
_BODY_MAX = 1 << 27


def memcached_binary(data: bytes) -> int:
    """Request header of 24 bytes: `80`, opcode, key length (up to 250, none where the opcode has no key), extras length
    as the opcode has it, data type 0, vbucket 0, body length (at least extras and key, up to 128 MiB).
    """
    if len(data) > 1 and data[1] not in _EXTRAS:
        return NO
    if any(data[2:3]) or data[3:4] > b"\xfa" or any(data[5:8]):
        return NO
    if len(data) > 3 and bool(data[3]) == (data[1] in _KEYLESS) and data[1] != 0x10:
        return NO
    if len(data) > 4 and data[4] not in _EXTRAS[data[1]]:
        return NO
    if len(data) < 24:
        return MORE
    return YES if data[3] + data[4] <= int.from_bytes(data[8:12], "big") < _BODY_MAX else NO


def memcached_udp(data: bytes, *, reply: bool = False) -> int:
    """Frame header of 8 bytes: request id, sequence number, count of datagrams, reserved 0; a request is one datagram.
    Behind it a command as over TCP, whole; or, with sequence number 0, the beginning of a reply.
    """
    sequence, count, reserved = (int.from_bytes(data[at : at + 2], "big") for at in (2, 4, 6))
    if sequence or not count or reserved or (count > 1 and not reply):
        return NO
    rest = data[8:]
    if reply:
        return YES if rest.startswith(_REPLIES) else NO
    return YES if max(memcached(rest, b""), NO) in {ASK, YES} else NO


_REPLIES: Final = (
    *sorted({reply for _, replies in _SHARED.values() for reply in replies if len(reply) > 3}), *_REFUSALS,
    b"STORED\r\n", b"NOT_STORED\r\n", b"ERROR\r\n", b"OK\r\n",
)  # fmt: skip
