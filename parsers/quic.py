"""QUIC over UDP, as far as the client's hello needs it.

RFC 9000 (version 1), RFC 9369 (version 2) and the drafts 29 to 34. Keys of Initial packets follow from what is in the
clear (RFC 9001 §5.2): the client's are decrypted, their CRYPTO frames put together, and the ClientHello in these is
read as TLS's is. Of all other packets, and of all that the server sends, only the headers are read.

UDP's peers drop what they cannot use, and what was read here may have got lost behind us: so nothing the client says
again may differ from what it said. That holds for bytes of CRYPTO frames, for a second hello (HelloRetryRequest,
Retry, another version), and for the hellos of further connections on the same ports. Packets that no known key opens
are tried with the key of their own connection id, which is what follows a Retry, or begins another connection.

Every datagram with bytes of a hello is told as that hello, also when it comes again: the one before may have been
denied.

A version that is not known is told where its header leaves no doubt that it is one (RFC 8999, RFC 9000 §15); what its
packets say remains unknown, and behind a hello that was read they are refused.
"""

from __future__ import annotations

import hmac
import re
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from parsers.base import TO_SERVER, UDP, Event, Field, ParseError, Parser, Said, Value
from parsers.hello import CLIENT_HELLO, HELLO_FIELDS, ClientHello, read_client_hello


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one flow's parser."""

    # CRYPTO bytes of one connection: with post-quantum keys a hello has 2 KB; servers take 16 to 64 KiB.
    crypto: int = 32 * 1024
    # And of all that are kept.
    total: int = 96 * 1024
    # Pieces with gaps between them: Chromium cuts a hello into some dozens.
    pieces: int = 1024
    # Connections whose keys are kept; the oldest is forgotten.
    connections: int = 3
    # Hellos of one connection: two, in each version that is tried.
    hellos: int = 16
    # Versions a client may try on one flow.
    versions: int = 16


QUIC_FIELDS: Final = (
    *HELLO_FIELDS,
    Field("quic.version", "QUIC version of the client's packets: 1, 2, draft-29, others as 0x and eight hex digits"),
)
_LATER: Final = frozenset(each.name for each in HELLO_FIELDS)

INITIAL: Final = 0
ZERO_RTT: Final = 1
HANDSHAKE: Final = 2
RETRY: Final = 3


@dataclass(frozen=True, slots=True)
class _Version:
    text: bytes
    salt: bytes
    label: bytes = b"quic "
    first_type: int = INITIAL  # version 2 counts from another


_V1 = _Version(b"1", bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"))
_V2 = _Version(b"2", bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), b"quicv2 ", 1)
_SALT_29 = bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899")
_VERSIONS: Final = {
    0x00000001: _V1,
    0x6B3343CF: _V2,
    **{0xFF000000 + draft: _Version(b"draft-%d" % draft, _SALT_29) for draft in range(29, 33)},
    **{0xFF000000 + draft: _Version(b"draft-%d" % draft, _V1.salt) for draft in range(33, 35)},
}
NEGOTIATION: Final = 0
# RFC 9000 §14.1, §7.2; RFC 8999 allows any size of connection ids in other versions.
_DATAGRAM: Final = 1200
_CONNECTION_ID: Final = range(8, 21)
_LONGEST_ID: Final = 20

PADDING: Final = 0
PING: Final = 1
ACK: Final = 2
ACK_ECN: Final = 3
CRYPTO: Final = 6
CLOSE: Final = 0x1C
_PADDED: Final = re.compile(rb"[^\0]")
# A packet number, and the sample that its protection takes.
_SHORTEST: Final = 4 + 16


class _Keys:
    """Of the client's Initial packets (RFC 9001 §5.2)."""

    __slots__ = ("_iv", "_mask", "_packet")

    def __init__(self, version: _Version, connection_id: bytes) -> None:
        secret = _expand(hmac.digest(version.salt, connection_id, "sha256"), b"client in", 32)
        self._packet = AESGCM(_expand(secret, version.label + b"key", 16))
        self._iv = int.from_bytes(_expand(secret, version.label + b"iv", 12), "big")
        # RFC 9001 §5.4.3 takes one block of it, as a mask.
        self._mask = Cipher(AES(_expand(secret, version.label + b"hp", 16)), ECB()).encryptor()  # noqa: S305

    def open(self, header: bytes, body: bytes, largest: int) -> tuple[int, int, bytes] | None:
        """(Packet number, reserved bits, payload) of a packet whose `body` begins with the number, if it opens."""
        mask = self._mask.update(body[4:20])
        first = header[0] ^ (mask[0] & 0x0F)
        size = (first & 3) + 1
        number = bytes([byte ^ key for byte, key in zip(body[:size], mask[1:], strict=False)])
        full = _full_number(int.from_bytes(number, "big"), size, largest)
        nonce = (self._iv ^ full).to_bytes(12, "big")
        try:
            payload = self._packet.decrypt(nonce, body[size:], bytes((first,)) + header[1:] + number)
        except InvalidTag:
            return None
        return full, first & 0x0C, payload


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446 §7.1, of one block, in "tls13 "."""
    label = b"tls13 " + label
    return hmac.digest(secret, b"\0%c%c%b\0\1" % (size, len(label), label), "sha256")[:size]


def _full_number(number: int, size: int, largest: int) -> int:
    """RFC 9000 A.3."""
    window = 1 << size * 8
    full = (largest + 1) & -window | number
    if full <= largest + 1 - window // 2 and full < (1 << 62) - window:
        return full + window
    return full - window if full > largest + 1 + window // 2 and full >= window else full


class _Crypto:
    """The bytes of one connection's CRYPTO frames, in whatever order they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.data = bytearray()
        self.next = 0  # where the message begins that was not read
        self.seen: set[int] = set()  # where those began that were

    def end(self, at: int) -> int:
        """Up to where all is there from `at` on."""
        index = bisect_right(self._starts, at) - 1
        return max(at, self._ends[index]) if index >= 0 else at

    def push(self, offset: int, piece: bytes) -> None:
        """Add a frame's; what was there already must be the same."""
        end = offset + len(piece)
        if end > self._limits.crypto:
            raise ParseError("crypto_too_long")
        if not piece:
            return
        if end > len(self.data):
            self.data += bytes(end - len(self.data))
        # All that overlap or touch.
        low, high = bisect_left(self._ends, offset), bisect_right(self._starts, end)
        for start, stop in zip(self._starts[low:high], self._ends[low:high], strict=True):
            first, last = max(start, offset), min(stop, end)
            if self.data[first:last] != piece[first - offset : last - offset]:
                raise ParseError("crypto_differs")
        self.data[offset:end] = piece
        if low < high:
            offset, end = min(offset, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [offset]
        self._ends[low:high] = [end]
        if len(self._starts) > self._limits.pieces:
            raise ParseError("too_many_pieces")


class _Connection:
    """What is kept of one. Its keys follow from its first connection id in each version."""

    def __init__(self, connection_id: bytes, limits: Limits) -> None:
        self._id = connection_id
        self._limits = limits
        self._keys: dict[bytes, _Keys] = {}
        self._largest = -1
        self.streams: dict[bytes, _Crypto] = {}
        self.ends: set[int] = set()  # of hellos, in any of these

    def open(self, version: _Version, header: bytes, body: bytes) -> tuple[_Crypto, bytes] | None:
        """A packet's frames and where those of CRYPTO belong, if the packet belongs here."""
        if version.text not in self._keys:
            self._keys[version.text] = _Keys(version, self._id)
        # aioquic 1.7 goes on with the keys of the version it began with when the server has chosen another.
        for text in sorted(self._keys, key=lambda text: text != version.text):
            opened = self._keys[text].open(header, body, self._largest)
            if opened is not None:
                break
        else:
            return None
        number, reserved, payload = opened
        if reserved:
            raise ParseError("reserved_bits")
        self._largest = max(self._largest, number)
        return self._stream(text), payload

    def _stream(self, version: bytes) -> _Crypto:
        """Each version's is one of its own: after Version Negotiation the client begins again, with another hello."""
        if version not in self.streams:
            self.streams[version] = _Crypto(self._limits)
        return self.streams[version]


class QuicParser(Parser):
    """One flow of datagrams; see `parsers.base.Parser`."""

    name = "quic"
    fields = QUIC_FIELDS
    transports = (UDP,)

    def __init__(self, limits: Limits | None = None, *, datagrams: bool = True) -> None:
        del datagrams  # there is no other way
        self.limits = limits or Limits()
        self._offset = [0, 0]
        self._events: list[Event] = []
        self._connections: deque[_Connection] = deque(maxlen=self.limits.connections)
        self._begun = False
        self._hello: ClientHello | None = None
        self._fields: dict[str, Value] = {}
        self._versions: set[int] = set()  # that were told
        self._with_hello: set[int] = set()  # of these, in which a hello came

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return sum(len(stream.data) for each in self._connections for stream in each.streams.values())

    def pending(self, direction: int) -> bool:
        """The hello has begun and is incomplete."""
        return direction == TO_SERVER and self._hello is None and self.buffered > 0

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """A datagram."""
        self._events = []
        try:
            if direction == TO_SERVER:
                self._from_client(data)
            else:
                self._from_server(data)
        except ParseError as error:
            raise ParseError(error.code, self._offset[direction], self._events) from None
        self._offset[direction] += len(data)
        return self._events

    def gap(self, direction: int, size: int) -> list[Event]:
        """Datagrams get lost; what was in them comes again."""
        self._offset[direction] += size
        return []

    def _from_server(self, data: bytes) -> None:
        if not self._begun:
            raise ParseError("unasked")
        at = 0
        while at < len(data) and data[at] & 0x80:
            header = _long_header(data, at)
            if header.number == NEGOTIATION and (header.behind == len(data) or (len(data) - header.behind) % 4):
                raise ParseError("version_negotiation")
            at = header.end

    def _from_client(self, data: bytes) -> None:
        at = 0
        # Versions of its packets, and whether bytes of a hello were in them.
        versions: dict[int, bool] = {}
        while at < len(data) and data[at] & 0x80:
            header = _long_header(data, at)
            hello = False
            if header.version is None:
                self._unknown_version(header, data)
            elif header.kind == RETRY:
                raise ParseError("retry")
            elif header.kind == INITIAL:
                hello = self._initial(
                    header.version, header.connection_id, data[at : header.behind], data[header.behind : header.end]
                )
            elif header.kind == HANDSHAKE and not self._begun:
                raise ParseError("no_initial")
            self._begun = True
            if header.version is not None:
                versions[header.number] = hello or versions.get(header.number, False)
            at = header.end
        # Without a long header: encrypted, or what pads the datagram; the last packet in it.
        if not self._begun:
            raise ParseError("no_initial")
        if self._hello is None:
            return
        for number, hello in versions.items():
            # In a version without a hello of its own the server has chosen it: all of its packets are told of.
            if hello or number not in self._with_hello:
                self._tell(number)
            if hello:
                self._with_hello.add(number)

    def _unknown_version(self, header: _Header, data: bytes) -> None:
        sure = data[0] & 0x40 and len(data) >= _DATAGRAM and len(header.connection_id) in _CONNECTION_ID
        if not sure or not _is_version(header.number) or self._hello is not None:
            raise ParseError("version")
        self._tell(header.number)

    def _tell(self, number: int) -> None:
        """What the client says in a version."""
        self._versions.add(number)
        if len(self._versions) > self.limits.versions:
            raise ParseError("too_many_versions")
        version = _VERSIONS.get(number)
        text = version.text if version else b"0x%08x" % number
        later = frozenset[str]() if self._hello is not None else _LATER
        self._events.append(Said("quic", {"quic.version": text, **self._fields}, later=later, final=False))

    def _initial(self, version: _Version, connection_id: bytes, header: bytes, body: bytes) -> bool:
        """Whether bytes of a hello were in it, new ones or again."""
        if len(body) < _SHORTEST:
            raise ParseError("packet_length")
        for connection in reversed(self._connections):
            opened = connection.open(version, header, body)
            if opened is not None:
                break
        else:
            connection = _Connection(connection_id, self.limits)
            opened = connection.open(version, header, body)
            if opened is None:
                raise ParseError("undecryptable")
            self._connections.append(connection)
        stream, frames = opened
        hello = _read_frames(frames, stream)
        if self.buffered > self.limits.total:
            raise ParseError("crypto_too_long")
        self._messages(connection, stream)
        return hello

    def _messages(self, connection: _Connection, stream: _Crypto) -> None:
        """Read those that are whole."""
        while (size := stream.end(stream.next) - stream.next) >= 4:
            if stream.data[stream.next] != CLIENT_HELLO:
                raise ParseError("no_hello")
            if stream.next + _message_size(stream, stream.next) > self.limits.crypto:
                raise ParseError("hello_too_long")
            if size < _message_size(stream, stream.next):
                break
            stream.next = self._read(connection, stream, stream.next)
        # If the server changes to a compatible version (RFC 9368), the second hello of its HelloRetryRequest follows
        # the first one that is in the other version's stream.
        for head in connection.ends - stream.seen:
            size = stream.end(head) - head
            if size >= 4 and stream.data[head] == CLIENT_HELLO and size >= _message_size(stream, head):
                self._read(connection, stream, head)

    def _read(self, connection: _Connection, stream: _Crypto, head: int) -> int:
        """A hello; where it ends."""
        end = head + _message_size(stream, head)
        stream.seen.add(head)
        connection.ends.add(end)
        if len(connection.ends) > self.limits.hellos:
            raise ParseError("too_many_hellos")
        self._client_hello(read_client_hello(bytes(stream.data[head + 4 : end])))
        return end

    def _client_hello(self, hello: ClientHello) -> None:
        if self._hello is None:
            self._hello = hello
            self._fields = {**hello.fields, "tls.ja4": hello.ja4("q")}
        elif not hello.repeats(self._hello):
            raise ParseError("second_hello_differs")


def _message_size(stream: _Crypto, head: int) -> int:
    return 4 + int.from_bytes(stream.data[head + 1 : head + 4], "big")


@dataclass(frozen=True, slots=True)
class _Header:
    """A long one. Of a version that is not known the rest of the datagram is its packet."""

    number: int
    version: _Version | None
    kind: int
    connection_id: bytes
    behind: int  # where it ends
    end: int  # and its packet


def _long_header(data: bytes, at: int) -> _Header:
    number = int.from_bytes(data[at + 1 : at + 5], "big")
    own = at + 6 + int.from_bytes(data[at + 5 : at + 6], "big")
    behind = own + 1 + int.from_bytes(data[own : own + 1], "big")
    if behind > len(data):
        raise ParseError("header")
    connection_id = data[at + 6 : own]
    version = _VERSIONS.get(number)
    if version is None:
        return _Header(number, None, -1, connection_id, behind, len(data))
    if len(connection_id) > _LONGEST_ID or behind - own - 1 > _LONGEST_ID:
        raise ParseError("connection_id")
    kind = ((data[at] >> 4) - version.first_type) & 3
    if kind == RETRY:
        return _Header(number, version, kind, connection_id, behind, len(data))
    if kind == INITIAL:
        token, behind = _varint(data, behind)
        behind += token
    size, behind = _varint(data, behind)
    if behind + size > len(data):
        raise ParseError("packet_length")
    return _Header(number, version, kind, connection_id, behind, behind + size)


def _is_version(number: int) -> bool:
    """Reserved (0x?a?a?a?a), drafts from 22 on, Google's Q05x and T05x, Meta's: they have the header of RFC 8999."""
    return (
        number & 0x0F0F0F0F == 0x0A0A0A0A
        or 0xFF000016 <= number <= 0xFF00001C
        or number >> 8 in {0x513035, 0x543035, 0xFACEB0}
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(Value, behind it)."""
    if at >= len(data):
        raise ParseError("varint")
    size = 1 << (data[at] >> 6)
    end = at + size
    if end > len(data):
        raise ParseError("varint")
    return int.from_bytes(data[at:end], "big") & ((1 << size * 8 - 2) - 1), end


def _read_frames(data: bytes, crypto: _Crypto) -> bool:
    """Frames that an Initial packet may have (RFC 9000 §17.2.2); whether one of CRYPTO with bytes was among them."""
    at, end = 0, len(data)
    found = False
    if not end:
        raise ParseError("no_frames")
    while at < end:
        kind = data[at]
        if kind == PADDING:
            at = len(data) if (more := _PADDED.search(data, at)) is None else more.start()
        elif kind == PING:
            at += 1
        elif kind == CRYPTO:
            offset, at = _varint(data, at + 1)
            size, at = _varint(data, at)
            crypto.push(offset, data[at : at + size])
            found = found or size > 0
            at += size
        elif kind in {ACK, ACK_ECN}:
            at = _skip_ack(data, at)
        elif kind == CLOSE:
            _, at = _varint(data, at + 1)
            _, at = _varint(data, at)
            size, at = _varint(data, at)
            at += size
        else:
            raise ParseError("frame_type")
    if at > end:
        raise ParseError("frame_length")
    return found


def _skip_ack(data: bytes, at: int) -> int:
    kind = data[at]
    _, at = _varint(data, at + 1)
    _, at = _varint(data, at)
    ranges, at = _varint(data, at)
    # The first range has no gap before it; ECN counts are three.
    for _ in range(1 + 2 * ranges + (3 if kind == ACK_ECN else 0)):
        _, at = _varint(data, at)
    return at
