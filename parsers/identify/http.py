"""HTTP/1 and HTTP/2."""

from __future__ import annotations

import re
from typing import Final

from parsers.identify.answers import MORE, NO, YES, fixed

H2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_METHOD_MAX = 24
_METHOD = re.compile(rb"[A-Za-z_-]{1,%d}" % _METHOD_MAX)
# What one server or another takes for a space (RFC 9112 §3).
_SPACES: Final = b" \t\v\f\r"
_VERSION = re.compile(rb"[ \t\v\f\r]HTTP/[0-9]", re.IGNORECASE)
_TARGET_OF_0_9 = re.compile(rb"[ \t\v\f\r]+(?:/|[A-Za-z]+://)")


def http_request(data: bytes) -> int:
    """(CR | LF)* METHOD space ... space "HTTP/" DIGIT ... LF, or HTTP/0.9's "GET" spaces ("/" | scheme "://") ... LF.

    METHOD is 1-24 of [A-Za-z_-]. More lenient than any server: what one may take for a request line, however bad, is
    HTTP that the parser then reads or refuses, and not an unknown protocol that a rule may let pass.
    """
    start = len(data) - len(data.lstrip(b"\r\n"))
    method = _METHOD.match(data, start)
    if method is None:
        return MORE if start == len(data) else NO
    end = method.end()
    if end == len(data):
        return MORE
    if data[end] not in _SPACES:
        return NO
    # In C: an endless target, one byte a segment, is scanned anew each time.
    line = data.find(b"\n", end)
    if line < 0:
        return MORE
    if _VERSION.search(data, end, line):
        return NO if data.startswith(H2_PREFACE[:16]) else YES
    return YES if method[0] == b"GET" and _TARGET_OF_0_9.match(data, end, line) else NO


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
