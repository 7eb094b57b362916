"""What begins in the clear and goes on encrypted: TLS, SSH, QUIC."""

from __future__ import annotations

from typing import Final

from parsers.identify.answers import MORE, NO, YES, fixed


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
        if fixed(header, b"\x16\x03") == NO or (len(header) > 2 and header[2] > 4):
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
    answer = fixed(data, b"SSH-")
    if answer != YES:
        return answer
    best = NO
    for version in (b"2.0-", b"1.99-", b"1.3-", b"1.5-"):
        best = max(best, fixed(data[4:], version))
        if best == YES:
            after = data[4 + len(version) : 5 + len(version)]
            return MORE if not after else YES if after > b" " else NO
    return best


# A version's name, the type bits of its Initial, and whether the connection ids' lengths share a byte, as they did
# before draft 22.
_QUIC_1: Final = 0x00000001
_QUIC_2: Final = 0x6B3343CF  # RFC 9369
_QUIC_DRAFTS: Final = range(0xFF000011, 0xFF000023)
_QUIC_PACKED: Final = range(0xFF000011, 0xFF000016)
# Facebook's and Google's names for drafts.
_QUIC_OTHERS: Final = frozenset(
    (0xFACEB001, 0xFACEB002, *(int.from_bytes(v, "big") for v in (b"Q050", b"T050", b"T051")))
)
_QUIC_LEAST: Final = 1200
_QUIC_ID_MAX: Final = 20


def quic(data: bytes) -> int:
    """A client's first datagram: at least 1200 bytes (RFC 9000 §14.1) that begin with an Initial packet (§17.2.2): long
    header, fixed bit, a version known, connection ids of 8..20 and 0..20 bytes, a token and a length that fit.
    """
    version = int.from_bytes(data[1:5], "big")
    if len(data) < _QUIC_LEAST or not (
        version in {_QUIC_1, _QUIC_2} or version in _QUIC_DRAFTS or version in _QUIC_OTHERS
    ):
        return NO
    if data[0] & 0xF0 != (0xD0 if version == _QUIC_2 else 0xC0):
        return NO
    if version in _QUIC_PACKED:
        destination, source = ((nibble + 3) if nibble else 0 for nibble in (data[5] >> 4, data[5] & 15))
        at = 6 + destination + source
    else:
        destination = data[5]
        source = data[6 + destination]
        at = 7 + destination + source
    if not 8 <= destination <= _QUIC_ID_MAX or source > _QUIC_ID_MAX:
        return NO
    token, at = _variable(data, at)
    length, at = _variable(data, at + token)
    # A packet number, and a sample of 16 bytes for header protection (RFC 9001 §5.4.2).
    return YES if 20 <= length <= len(data) - at else NO


def _variable(data: bytes, at: int) -> tuple[int, int]:
    """(value, behind it) of an integer of RFC 9000 §16."""
    size = 1 << (data[at] >> 6) if at < len(data) else 1
    return int.from_bytes(data[at : at + size], "big") & (1 << (8 * size - 2)) - 1, at + size
