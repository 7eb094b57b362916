"""DNS over UDP and TCP (RFC 1035, RFC 7766)."""

from __future__ import annotations

import struct

from parsers.identify.answers import MORE, NO, YES

_COUNTS = struct.Struct(">4H")
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
    # AMQP's header of 8 bytes must not look like a message that goes on.
    if any(data[4:5]) or (len(data) > 5 and (data[5] > 1 or not (data[5] or data[2] & 0x80))):
        return NO
    if len(data) < 12:
        return MORE
    answer = data[2] & 0x80
    operation = data[2] >> 3 & 15
    questions, answers, authority, additional = _COUNTS.unpack_from(data, 4)
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
    return _dns_record(data, at, whole=whole)


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


def _dns_record(data: bytes, at: int, *, whole: bool) -> int:
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
    if at + 11 + int.from_bytes(fixed[8:10], "big") <= len(data):
        return YES
    return NO if whole else MORE


def dns_tcp(data: bytes) -> int:
    """Length (16 bit, 17..65535; an answer may have 12), then `dns_message`."""
    if len(data) < 2:
        return MORE
    size = int.from_bytes(data[:2], "big")
    if size < 17:
        return NO
    return dns_message(data[2 : 2 + size], whole=False)
