"""The ClientHello, which TLS and QUIC share, and its fingerprint.

RFC 8446 §4.1.2 and RFC 5246 §7.4.1.2 with the extensions that rules ask for: server_name (RFC 6066 §3), ALPN
(RFC 7301), supported_versions, signature_algorithms, early_data and encrypted_client_hello (RFC 9849). What these RFCs
tell servers to refuse is refused, of other extensions only that they fit and come once. JA4 is FoxIO's
(technical_details/JA4.md); its GREASE values are those of RFC 8701.

An extension of Encrypted ClientHello hides the name that is meant, unless it is made up: clients send made-up ones
(GREASE) wherever they know no key, and nobody but the server can tell. The name beside it counts as outer in both.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final

from parsers.base import Field, Kind, ParseError, Value

HELLO_FIELDS: Final = (
    Field(
        "tls.sni",
        "the server's name that the client asks for, without a final dot; not said where the hello is encrypted (ECH)",
        once=True,
        folded=True,
    ),
    Field(
        "tls.outer_sni",
        "the name beside an encrypted hello (ECH), which need not be the one meant",
        once=True,
        folded=True,
    ),
    Field(
        "tls.alpn", "application protocols that the client offers, of the outer hello with ECH", Kind.LIST, once=True
    ),
    Field(
        "tls.version",
        "versions that the client offers: 1.3, 1.2, 1.1, 1.0, ssl3, ssl2, others as 0x and four hex digits; where it "
        "lists none, its highest",
        Kind.LIST,
        once=True,
    ),
    Field("tls.ja4", "JA4 fingerprint of the client's hello", once=True),
    Field(
        "tls.ech",
        "1: the hello has an encrypted one inside, or one made up to look like it (GREASE): only the server can tell; "
        "else 0",
        Kind.NUMBER,
        once=True,
    ),
)

CLIENT_HELLO: Final = 1
SSL2: Final = 0x0002
TLS12: Final = 0x0303
TLS13: Final = 0x0304

SERVER_NAME: Final = 0
SIGNATURE_ALGORITHMS: Final = 13
ALPN: Final = 16
PRE_SHARED_KEY: Final = 41
EARLY_DATA: Final = 42
SUPPORTED_VERSIONS: Final = 43
ECH: Final = 0xFE0D
# Drafts of ECH, and what was encrypted_server_name before.
_ECH_DRAFTS: Final = frozenset((0xFE08, 0xFE09, 0xFE0A, 0xFE0B, 0xFE0C, 0xFFCE))

_VERSIONS: Final = {SSL2: b"ssl2", 0x0300: b"ssl3", 0x0301: b"1.0", 0x0302: b"1.1", TLS12: b"1.2", TLS13: b"1.3"}
_JA4_VERSIONS: Final = {SSL2: "s2", 0x0300: "s3", 0x0301: "10", 0x0302: "11", TLS12: "12", TLS13: "13"}
_GREASE: Final = frozenset(0x0A0A + 0x1010 * step for step in range(16))
# RFC 6066 §3 has ASCII; a name that is sent with its final dot is the same name.
_NAME: Final = re.compile(rb"([!-~]{0,254}[!-\-/-~])\.?")
_EXTENSION: Final = struct.Struct(">HH")
_ALNUM: Final = re.compile(rb"[0-9A-Za-z]")
# Browsers send some 20 extensions and 2 protocols.
EXTENSIONS: Final = 256
PROTOCOLS: Final = 256
# OpenSSL lists 31 suites and 26 algorithms at most by default.
_USUAL: Final = 128


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What was read, without GREASE. `extensions` are their types in the order of the hello; `legacy_version` is what
    the hello says where it lists no `versions`.
    """

    legacy_version: int
    versions: tuple[int, ...]
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    signature_algorithms: tuple[int, ...]
    name: bytes
    alpn: tuple[bytes, ...]
    ech: bool
    early_data: bool

    @property
    def fields(self) -> dict[str, Value]:
        """All but the fingerprint."""
        # RFC 8446 §4.2.1: a legacy_version never means more than 1.2.
        versions = self.versions if SUPPORTED_VERSIONS in self.extensions else (min(self.legacy_version, TLS12),)
        fields: dict[str, Value] = {
            "tls.version": tuple(map(version_text, versions)),
            "tls.alpn": self.alpn,
            "tls.ech": int(self.ech),
        }
        if self.name:
            fields["tls.outer_sni" if self.ech else "tls.sni"] = self.name
        return fields

    def repeats(self, first: ClientHello) -> bool:
        """Whether it may follow `first` unjudged: RFC 8446 §4.1.2 lets a second hello differ in key shares, cookie,
        early data, pre-shared keys and padding only.
        """
        return (
            self.name.lower() == first.name.lower()
            and self.alpn == first.alpn
            and self.ech == first.ech
            and self.legacy_version == first.legacy_version
            and self.versions == first.versions
            and self.ciphers == first.ciphers
        )

    def ja4(self, transport: str) -> bytes:
        """JA4; `transport` is "t" or "q"."""
        listed = SUPPORTED_VERSIONS in self.extensions
        version = max(self.versions, default=0) if listed else self.legacy_version
        kept = tuple(sorted(set(self.extensions) - {SERVER_NAME, ALPN}))
        return (
            f"{transport}{_JA4_VERSIONS.get(version, '00')}{'d' if SERVER_NAME in self.extensions else 'i'}"
            f"{min(len(self.ciphers), 99):02}{min(len(self.extensions), 99):02}{_ends(self.alpn)}"
            f"_{_hash(tuple(sorted(self.ciphers)))}_{_hash(kept, self.signature_algorithms)}"
        ).encode()


def version_text(version: int) -> bytes:
    """As `tls.version` has it."""
    return _VERSIONS.get(version) or b"0x%04x" % version


def _hex(numbers: tuple[int, ...]) -> str:
    return struct.pack(f">{len(numbers)}H", *numbers).hex(",", 2)


def _hash(numbers: tuple[int, ...], algorithms: tuple[int, ...] = ()) -> str:
    # Most hellos come from a handful of programs; those of none are as long as an attacker likes.
    digest = _known_digest if len(numbers) + len(algorithms) <= _USUAL else _digest
    return digest(numbers, algorithms)


def _digest(numbers: tuple[int, ...], algorithms: tuple[int, ...]) -> str:
    if not numbers:
        return "000000000000"
    text = _hex(numbers) + ("_" + _hex(algorithms) if algorithms else "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_known_digest: Final = functools.lru_cache(maxsize=256)(_digest)


def _ends(alpn: tuple[bytes, ...]) -> str:
    """First and last character of the first protocol, of its hex digits where one of these is no letter or digit."""
    if not alpn:
        return "00"
    first, last = alpn[0][:1], alpn[0][-1:]
    if _ALNUM.match(first) and _ALNUM.match(last):
        return (first + last).decode()
    return first.hex()[0] + last.hex()[1]


def read_client_hello(body: bytes) -> ClientHello:
    """A ClientHello without the header of its message."""
    if len(body) < 38:
        raise ParseError("hello_length")
    legacy_version = int.from_bytes(body[:2], "big")
    if body[0] != 3:
        raise ParseError("hello_version")
    session = body[34]
    at = 35 + session
    ciphers = int.from_bytes(body[at : at + 2], "big")
    behind = at + 2 + ciphers
    if session > 32 or not ciphers or ciphers % 2 or behind >= len(body):
        raise ParseError("hello_length")
    at, behind = at + 2, behind + 1 + body[behind]
    if behind > len(body) or b"\0" not in body[at + ciphers + 1 : behind]:
        raise ParseError("compression")
    extensions = read_extensions(body, behind)
    if PRE_SHARED_KEY in extensions and next(reversed(extensions)) != PRE_SHARED_KEY:
        raise ParseError("pre_shared_key_not_last")
    if extensions.get(EARLY_DATA):
        raise ParseError("early_data")
    versions = _numbers(extensions.get(SUPPORTED_VERSIONS), 1, "supported_versions")
    algorithms = _numbers(extensions.get(SIGNATURE_ALGORITHMS), 2, "signature_algorithms")
    return ClientHello(
        legacy_version=legacy_version,
        versions=versions,
        ciphers=_without_grease(struct.unpack_from(f">{ciphers // 2}H", body, at)),
        extensions=_without_grease(tuple(extensions)),
        signature_algorithms=algorithms,
        name=_server_name(extensions.get(SERVER_NAME)),
        alpn=read_alpn(extensions.get(ALPN)),
        ech=_is_encrypted(extensions),
        early_data=EARLY_DATA in extensions,
    )


def read_extensions(body: bytes, at: int) -> dict[int, bytes]:
    """Extensions with their length before them, up to the end of `body`; a hello may have none of it."""
    end = len(body)
    found: dict[int, bytes] = {}
    if at == end:
        return found
    if at + 2 + int.from_bytes(body[at : at + 2], "big") != end:
        raise ParseError("extensions_length")
    at += 2
    while at < end:
        start = at + 4
        if start > end:
            raise ParseError("extension_length")
        kind, size = _EXTENSION.unpack_from(body, at)
        at = start + size
        if at > end:
            raise ParseError("extension_length")
        if kind in found:
            raise ParseError("extension_twice")
        found[kind] = body[start:at]
    if len(found) > EXTENSIONS:
        raise ParseError("too_many_extensions")
    return found


def read_alpn(extension: bytes | None) -> tuple[bytes, ...]:
    """Names of protocols."""
    if extension is None:
        return ()
    end = len(extension)
    if end < 4 or 2 + int.from_bytes(extension[:2], "big") != end:
        raise ParseError("alpn")
    found: list[bytes] = []
    at = 2
    while at < end:
        start = at + 1
        at = start + extension[at]
        if at == start or at > end or len(found) == PROTOCOLS:
            raise ParseError("alpn")
        found.append(extension[start:at])
    return tuple(found)


def _server_name(extension: bytes | None) -> bytes:
    """One name, of type host_name: more than one of a type is forbidden, and no other type was ever defined."""
    if extension is None:
        return b""
    size = len(extension) - 5
    if size < 1 or extension[:5] != struct.pack(">HBH", size + 3, 0, size):
        raise ParseError("sni_length")
    match = _NAME.fullmatch(extension, 5)
    if size > 255 or match is None:
        raise ParseError("sni_name")
    return match[1]


def _numbers(extension: bytes | None, prefix: int, code: str) -> tuple[int, ...]:
    """16-bit numbers with their length before them, which takes `prefix` bytes."""
    if extension is None:
        return ()
    size = len(extension) - prefix
    if size < 2 or size % 2 or int.from_bytes(extension[:prefix], "big") != size:
        raise ParseError(code)
    return _without_grease(struct.unpack_from(f">{size // 2}H", extension, prefix))


def _without_grease(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return numbers if _GREASE.isdisjoint(numbers) else tuple([each for each in numbers if each not in _GREASE])


def _is_encrypted(extensions: dict[int, bytes]) -> bool:
    """The outer one of two hellos: type 0, two 16-bit algorithms, an 8-bit config, key and payload. Type 1 marks the
    inner one, which then is no longer encrypted.
    """
    extension = extensions.get(ECH)
    if extension is None:
        return not _ECH_DRAFTS.isdisjoint(extensions)
    if extension == b"\1":
        return False
    key = 8 + int.from_bytes(extension[6:8], "big")
    size = int.from_bytes(extension[key : key + 2], "big")
    if extension[:1] != b"\0" or not size or key + 2 + size != len(extension):
        raise ParseError("ech")
    return True
