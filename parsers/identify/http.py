"""HTTP/1 and HTTP/2."""

from __future__ import annotations

import re
from typing import Final

from parsers.identify.answers import ALNUM, DIGITS, MORE, NO, UPPER, YES, fixed, line_end

H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_METHOD = UPPER | frozenset(b"-_")
_METHOD_MAX = 24
_TARGET_END = re.compile(rb"[\x00-\x20\x7f]")
_TARGET_FIRST = ALNUM | frozenset(b"/*[")


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
    if method and (method[0] not in UPPER or not _METHOD.issuperset(method)):
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
        return line_end(data, end) if method == b"GET" and target[:1] == b"/" else NO
    version = data[end + 1 : end + 9]
    answer = fixed(version, b"HTTP/1.")
    if answer != YES or len(version) < 8:
        return min(answer, MORE)
    return line_end(data, end + 9) if version[7] in DIGITS else NO


def http_response(data: bytes) -> int:
    """Status line: "HTTP/1." DIGIT SP [1-5] DIGIT DIGIT (SP | CR | LF): 13 bytes."""
    answer = fixed(data, b"HTTP/1.")
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
    return fixed(data, H2_PREFACE)


def http2_server(data: bytes) -> int:
    """A SETTINGS frame header, 9 bytes: length (24 bit, a multiple of 6, at most 120), type 4,
    flags 0, stream 0. Never more than MORE: servers may speak first, the client's preface decides.
    """
    for index, byte in enumerate(data[:9]):
        if (index == 2 and (byte % 6 or byte > 120)) or (index != 2 and byte != (4 if index == 3 else 0)):
            return NO
    return MORE
