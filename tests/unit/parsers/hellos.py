"""Hellos, records and QUIC packets for tests, well-formed unless told otherwise."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

V1 = 1
V2 = 0x6B3343CF
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
CIPHERS = (0x1301, 0xC02F)


def sized(data: bytes, size: int) -> bytes:
    """With its length before it."""
    return len(data).to_bytes(size, "big") + data


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def extension(kind: int, body: bytes = b"") -> bytes:
    return numbers(kind) + sized(body, 2)


def sni(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, sized(b"".join(bytes((kind,)) + sized(name, 2) for name in names), 2))


def alpn(*names: bytes) -> bytes:
    return extension(16, sized(b"".join(sized(name, 1) for name in names), 2))


def versions(*offered: int) -> bytes:
    return extension(43, sized(numbers(*offered), 1))


def algorithms(*offered: int) -> bytes:
    return extension(13, sized(numbers(*offered), 2))


def ech(payload: bytes = bytes(32)) -> bytes:
    return extension(0xFE0D, b"\0" + numbers(1, 1) + b"\7" + sized(bytes(32), 2) + sized(payload, 2))


MODERN = (sni(b"web.lab"), alpn(b"h2"), versions(0x0304, 0x0303), algorithms(0x0403, 0x0804))


def hello_body(
    *extensions: bytes,
    version: int = 0x0303,
    session: bytes = b"",
    ciphers: Iterable[int] = CIPHERS,
    compression: bytes = b"\0",
) -> bytes:
    body = numbers(version) + bytes(32) + sized(session, 1) + sized(numbers(*ciphers), 2) + sized(compression, 1)
    return body + sized(b"".join(extensions), 2) if extensions else body


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + sized(body, 3)


def hello(*extensions: bytes, **more: object) -> bytes:
    return message(1, hello_body(*(extensions or MODERN), **more))  # type: ignore[arg-type]


def record(data: bytes, kind: int = 22, version: int = 0x0303) -> bytes:
    return bytes((kind,)) + numbers(version) + sized(data, 2)


def server_hello(*extensions: bytes, version: int = 0x0303, random: bytes = bytes(32), cipher: int = 0xC02F) -> bytes:
    body = numbers(version) + random + b"\0" + numbers(cipher) + b"\0"
    return message(2, body + sized(b"".join(extensions), 2) if extensions else body)


def selects(version: int = 0x0304) -> bytes:
    return extension(43, numbers(version))


def retry() -> bytes:
    return server_hello(selects(), random=RETRY_RANDOM, cipher=0x1301)


def certificate(*chain: bytes) -> bytes:
    return message(11, sized(b"".join(sized(each, 3) for each in chain), 3))


CHANGE = record(b"\1", 20)


# QUIC


def varint(value: int) -> bytes:
    for exponent in range(4):
        bits = (8 << exponent) - 2
        if value < 1 << bits:
            return (value | exponent << bits).to_bytes(1 << exponent, "big")
    raise ValueError(value)


def crypto(data: bytes, offset: int = 0) -> bytes:
    return b"\6" + varint(offset) + varint(len(data)) + data


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    label = b"tls13 " + label
    return hmac.digest(secret, size.to_bytes(2, "big") + sized(label, 1) + b"\0\1", "sha256")[:size]


def long_header(kind: int, version: int, connection_id: bytes, own: bytes) -> bytes:
    first = 0xC0 | (kind + (version == V2)) % 4 << 4
    return bytes((first,)) + version.to_bytes(4, "big") + sized(connection_id, 1) + sized(own, 1)


def initial(
    frames: bytes,
    connection_id: bytes = b"original",
    *,
    key: bytes = b"",
    version: int = V1,
    own: bytes = b"",
    token: bytes = b"",
    number: int = 0,
    reserved: int = 0,
    pad: int = 1200,
) -> bytes:
    """A client's Initial packet in a datagram of `pad` bytes; its keys are of `key`, or its connection id."""
    header = long_header(0, version, connection_id, own) + varint(len(token)) + token
    frames += bytes(max(0, pad - len(header) - 2 - 4 - 16 - len(frames)))
    header = bytes((header[0] | reserved << 2 | 3,)) + header[1:]
    header += (len(frames) + 20 | 0x4000).to_bytes(2, "big") + number.to_bytes(4, "big")
    salt = {
        V1: "38762cf7f55934b34d179ae6a4c80cadccbb7f0a",
        V2: "0dede3def700a6db819381be6e269dcbf9bd2ed9",
        0xFF00001D: "afbfec289993d24c9e9786f19c6111e04390a899",
    }[version]
    label = b"quicv2 " if version == V2 else b"quic "
    secret = _expand(hmac.digest(bytes.fromhex(salt), key or connection_id, "sha256"), b"client in", 32)
    nonce = (int.from_bytes(_expand(secret, label + b"iv", 12), "big") ^ number).to_bytes(12, "big")
    body = AESGCM(_expand(secret, label + b"key", 16)).encrypt(nonce, frames, header)
    mask = Cipher(AES(_expand(secret, label + b"hp", 16)), ECB()).encryptor().update(body[:16])
    hidden = bytes(byte ^ other for byte, other in zip(header[-4:], mask[1:5], strict=True))
    return bytes((header[0] ^ mask[0] & 15,)) + header[1:-4] + hidden + body
