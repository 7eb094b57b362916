"""SMB and RDP."""

from __future__ import annotations

from typing import Final

from parsers.identify.answers import ASK, LIKELY, MORE, NO, YES, fixed

# First bytes of a message, and the least length: SMB 1, 2 and 3, encrypted, compressed.
_SMB: Final = {b"\xffSMB": 35, b"\xfeSMB\x40\0": 66, b"\xfdSMB": 52, b"\xfcSMB": 16}
_ENCODED: Final = frozenset(b"ABCDEFGHIJKLMNOP")
_POSITIVE: Final = b"\x82\0\0\0"
_KEEPALIVE: Final = b"\x85\0\0\0"
# Before the first message; clients have it ready when the session is granted.
_KEEPALIVES: Final = 16
# Of a name, its labels' sizes and its NUL included: as in DNS.
_NAME: Final = 255


def smb_client(data: bytes) -> int:
    """A message; or NetBIOS' request for a session, keep-alives and a message. The request alone is that of all who
    talk over NetBIOS.
    """
    if data[:1] != b"\x81":
        return _message(data)
    answer = session_request(data)
    return answer if answer != YES else _behind(data, 4 + int.from_bytes(data[2:4], "big"))


def smb_server(data: bytes) -> int:
    """A message; or NetBIOS' positive response, keep-alives and a message."""
    if data[:1] != b"\x82":
        return _message(data)
    answer = fixed(data, _POSITIVE)
    return answer if answer != YES else _behind(data, 4)


def session_request(data: bytes) -> int:
    """NetBIOS' (RFC 1002 §4.3.2): `81 00`, length (16 bit), and the called and the calling name."""
    if fixed(data, b"\x81\0") == NO:
        return NO
    if len(data) < 4:
        return MORE
    at, end = 4, 4 + int.from_bytes(data[2:4], "big")
    for _ in range(2):
        answer, at = _name(data[:end], at)
        if answer != YES:
            return NO if len(data) >= end else answer
    return YES if at == end else NO


def _name(data: bytes, at: int) -> tuple[int, int]:
    """(answer, behind it): 32 letters A-P, the labels of a scope, and NUL (RFC 1001 §14.1)."""
    begin = at
    while at < len(data):
        size = data[at]
        if at == begin and (size != 32 or not _ENCODED.issuperset(data[at + 1 : at + 33])):
            return NO, at
        if size > 63 or at + size - begin >= _NAME:
            return NO, at
        at += 1 + size
        if not size:
            return YES, at
    return MORE, at


def _behind(data: bytes, at: int) -> int:
    """Keep-alives and a message."""
    for begin in range(at, at + 4 * _KEEPALIVES, 4):
        answer = fixed(data[begin:], _KEEPALIVE)
        if answer != YES:
            return max(answer, _message(data[begin:]))
    return NO


def _message(data: bytes) -> int:
    """`00`, length (24 bit), and `ff`, `fe`, `fd` or `fc` "SMB" (MS-SMB2 §2.1, 2.2.1, 2.2.41, 2.2.42), of SMB 2 the
    structure's size 64.
    """
    if any(data[:1]):
        return NO
    size = int.from_bytes(data[1:4], "big")
    return max(NO if len(data) >= 4 and size < least else fixed(data[4:], begun) for begun, least in _SMB.items())


# And the tokens of connection brokers: .rdp files have them as loadbalanceinfo.
_COOKIES: Final = (b"Cookie: mstshash=", b"Cookie: msts=", b"tsv:", b"mth://")
# A negotiation request alone, and with correlation information behind it.
_NEGOTIATIONS: Final = frozenset((19, 19 + 36))
# Its flags: restricted administration, redirected authentication, correlation information.
_REQUEST_FLAGS: Final = frozenset(range(16))


def rdp(to_server: bytes, to_client: bytes) -> int:
    """TPKT (`03 00`, length 11..512) with X.224's connection request, its length, `e0 00 00`, any reference, class 0
    (MS-RDPBCGR §2.2.1.1), and a cookie or routing token, or a negotiation request (`01`, flags, `08 00`, protocols
    below 64). The old request with neither is X.224 for all who use it: with a confirm as bare it agrees in shape.
    """
    if not to_server:
        return NO
    answer = _x224(to_server, b"\xe0\0\0")
    if answer != YES:
        return answer
    size = int.from_bytes(to_server[2:4], "big")
    if size == 11:
        answer = _x224(to_client, b"\xd0\0\0") if to_client else MORE
        return LIKELY if answer == YES else ASK if answer == MORE else NO
    rest = to_server[11:size]
    cookie = max(fixed(rest, text) for text in _COOKIES)
    return max(cookie, _negotiation(rest) if size in _NEGOTIATIONS else NO)


def _x224(data: bytes, begun: bytes) -> int:
    answer = fixed(data, b"\x03\0")
    size = int.from_bytes(data[2:4], "big")
    if answer != YES:
        return answer
    if (len(data) >= 4 and not 11 <= size <= 512) or (len(data) > 4 and data[4] != size - 5):
        return NO
    answer = fixed(data[5:], begun)
    return answer if answer != YES else MORE if len(data) < 11 else YES if not data[10] else NO


def _negotiation(rest: bytes) -> int:
    if rest[:1] > b"\x01" or (len(rest) > 1 and rest[1] not in _REQUEST_FLAGS):
        return NO
    if fixed(rest[2:], b"\x08\0") == NO:
        return NO
    if len(rest) < 8:
        return MORE
    return YES if rest[0] == 1 and int.from_bytes(rest[4:8], "little") < 64 else NO
