"""SSL 3.0 to TLS 1.3 over TCP, both directions, as far as it is in the clear.

RFC 8446 and RFC 5246 with RFC 6101; a first hello in SSL 2.0's form too (RFC 5246 E.2). A unit is the client's hello
(`parsers.hello`), another is what the server chose: its hello and, up to TLS 1.2, the certificate behind it, of which
the names are read and nothing is verified. With a session that is resumed there is none, from TLS 1.3 on it is
encrypted.

After a HelloRetryRequest the client says hello a second time. That is no unit: it must say what the first one said,
or it is refused. Any other second hello in the clear is refused as well; renegotiation is encrypted and not seen.
Behind the ChangeCipherSpec, or TLS 1.3's ServerHello, only the records' headers are read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from parsers.base import TO_CLIENT, TO_SERVER, Event, Field, Kind, ParseError, Parser, Said, Value
from parsers.hello import (
    ALPN,
    CLIENT_HELLO,
    HELLO_FIELDS,
    SSL2,
    SUPPORTED_VERSIONS,
    TLS12,
    TLS13,
    ClientHello,
    read_alpn,
    read_client_hello,
    read_extensions,
    version_text,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection's parser."""

    # Either side's hello: with post-quantum keys 2 KB; what identification takes ends at 64 KiB, too.
    hello: int = 64 * 1024
    # The server's own certificate: a thousand long names are 40 KB.
    certificate: int = 64 * 1024
    # Any other message, a chain of certificates among them. OpenSSL takes 100 KB unless told otherwise, and chains of
    # more than 300 KB are seen; they are not kept.
    message: int = 1024 * 1024


SERVER_FIELDS: Final = (
    Field("tls.selected_version", "the version that the server chose, as in tls.version", once=True),
    Field("tls.cipher", "number of the cipher suite that the server chose", Kind.NUMBER, once=True),
    Field("tls.selected_alpn", "the application protocol that the server chose; encrypted from TLS 1.3 on", once=True),
    Field(
        "tls.certificate",
        "names in the server's certificate: its subject's CN, DNS names of subjectAltName; up to TLS 1.2",
        Kind.LIST,
        once=True,
        folded=True,
    ),
)
_LATER: Final = frozenset(each.name for each in SERVER_FIELDS)

CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23
HEARTBEAT: Final = 24
_SSL2_HELLO: Final = 128

SERVER_HELLO: Final = 2
CERTIFICATE: Final = 11
_SERVER_CERTIFICATE_TYPE: Final = 20

_RECORD: Final = struct.Struct(">BHH")
_PLAIN: Final = 1 << 14
# How much encryption may add: RFC 5246 §6.2.3, RFC 8446 §5.2.
_SEALED: Final = _PLAIN + 2048
_SEALED_13: Final = _PLAIN + 256
# Records that have one size only.
_IN_CLEAR: Final = {CHANGE_CIPHER_SPEC: 1, ALERT: 2}
# SHA-256 of "HelloRetryRequest" (RFC 8446 §4.1.3).
_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


@dataclass(slots=True)
class _Side:
    """One direction: its records, and the handshake message in them."""

    direction: int
    read: int = 0
    start: int = 0  # of the record that is read
    header: bytes = b""  # incomplete
    kind: int = 0
    left: int = 0  # of the record
    opaque: bool = False  # what is left is not looked at
    sealed: bool = False  # records are encrypted from here on
    head: bytearray = field(default_factory=bytearray)  # of the message, until it ends
    body: bytearray = field(default_factory=bytearray)
    want: int = 0  # of the body
    skip: int = 0

    @property
    def buffered(self) -> int:
        return len(self.header) + len(self.head) + len(self.body)


@dataclass(frozen=True, slots=True)
class _ServerHello:
    version: int
    cipher: int
    alpn: bytes
    retry: bool
    raw_key: bool  # stands where the certificate would


class TlsParser(Parser):
    """One connection; see `parsers.base.Parser`."""

    name = "tls"
    fields = HELLO_FIELDS + SERVER_FIELDS

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._client = _Side(TO_SERVER)
        self._server = _Side(TO_CLIENT)
        self._events: list[Event] = []
        self._hello: ClientHello | None = None
        self._retried = False  # HelloRetryRequest was seen
        self._again = False  # and its second hello may come
        self._chosen: _ServerHello | None = None
        self._told = False  # the server's unit

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return self._client.buffered + self._server.buffered

    def pending(self, direction: int) -> bool:
        """The hello is incomplete, or the server's certificate has not come yet."""
        if direction == TO_SERVER:
            return self._hello is None and self._client.read > 0
        side = self._server
        inside = bool(side.head) or side.header[:1] == b"\x16" or (side.left > 0 and side.kind == HANDSHAKE)
        return not self._told and (inside or self._chosen is not None)

    def feed(self, direction: int, data: bytes) -> list[Event]:
        """Consume bytes of one direction."""
        side = self._client if direction == TO_SERVER else self._server
        self._events = []
        try:
            self._records(side, data)
        except ParseError as error:
            raise ParseError(error.code, side.start, self._events) from None
        return self._events

    def gap(self, direction: int, size: int) -> list[Event]:
        """Inside an encrypted record nothing is lost."""
        side = self._client if direction == TO_SERVER else self._server
        if not side.opaque or size > side.left:
            raise ParseError("gap", side.read)
        side.left -= size
        side.read += size
        return []

    # Records

    def _records(self, side: _Side, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end:
            if side.left:
                step = min(side.left, end - at)
                if not side.opaque:
                    self._inside(side, data[at : at + step])
                side.left -= step
                side.read += step
                at += step
                continue
            if not side.header:
                side.start = side.read
            ssl2 = not side.start and side.direction == TO_SERVER and (side.header or data)[0] & 0x80
            size = 2 if ssl2 else _RECORD.size
            part = data[at : at + size - len(side.header)]
            side.header += part
            side.read += len(part)
            at += len(part)
            if len(side.header) == size:
                header, side.header = side.header, b""
                if ssl2:
                    side.kind, side.left = _SSL2_HELLO, int.from_bytes(header, "big") & 0x7FFF
                    self._ssl2_length(side.left)
                else:
                    self._record(side, *_RECORD.unpack(header))

    def _record(self, side: _Side, kind: int, version: int, size: int) -> None:
        """A record's header."""
        if not CHANGE_CIPHER_SPEC <= kind <= HEARTBEAT:
            raise ParseError("record_type")
        if not 0x0300 <= version <= TLS13:
            raise ParseError("record_version")
        if side.head and kind != HANDSHAKE:
            raise ParseError("interleaved")
        if side.sealed:
            self._sealed_record(kind, size)
        else:
            self._clear_record(side, kind, size)
        if not size and kind != APPLICATION_DATA:
            raise ParseError("record_length")
        side.kind, side.left = kind, size
        side.opaque = side.sealed or kind == APPLICATION_DATA

    def _sealed_record(self, kind: int, size: int) -> None:
        most = _SEALED
        if self._chosen is not None and self._chosen.version >= TLS13:
            if kind in {HANDSHAKE, HEARTBEAT}:
                raise ParseError("handshake_in_clear" if kind == HANDSHAKE else "record_type")
            most = _IN_CLEAR.get(kind, _SEALED_13)
        if size > most:
            raise ParseError("record_length")

    def _clear_record(self, side: _Side, kind: int, size: int) -> None:
        if side.direction == TO_SERVER:
            if self._hello is None and kind != HANDSHAKE:
                raise ParseError("no_hello")
            # Early data stand between the hello and the server's.
            if kind == APPLICATION_DATA and not (self._hello and self._hello.early_data and self._chosen is None):
                raise ParseError("data_in_clear")
        elif kind == APPLICATION_DATA:
            raise ParseError("data_in_clear")
        elif self._hello is None and (kind != ALERT or not self._client.read):
            raise ParseError("unasked")
        if kind == HEARTBEAT:
            raise ParseError("record_type")
        if size != _IN_CLEAR.get(kind, size) or size > (_PLAIN if kind == HANDSHAKE else _SEALED_13):
            raise ParseError("record_length")
        if side.direction == TO_CLIENT and kind != HANDSHAKE:
            self._tell({})  # no certificate came

    def _inside(self, side: _Side, data: bytes) -> None:
        """Part of a record in the clear."""
        if side.kind == HANDSHAKE:
            self._messages(side, data)
        elif side.kind == ALERT:
            if side.left == 2 and data[0] not in {1, 2}:
                raise ParseError("alert")
        elif side.kind == CHANGE_CIPHER_SPEC:
            self._change(side, data[0])
        else:
            side.body += data
            if len(data) == side.left:
                self._ssl2(bytes(side.body))
                side.body.clear()

    def _change(self, side: _Side, value: int) -> None:
        """TLS 1.3 sends it to look like 1.2: behind the first hello, or the first one of the server."""
        if side.direction == TO_SERVER:
            may = self._hello is not None and any(version >= TLS13 for version in self._hello.versions)
        else:
            may = self._retried
        if value != 1 or not (may or self._chosen):
            raise ParseError("change_cipher_spec")
        side.sealed = self._chosen is not None

    # Messages

    def _messages(self, side: _Side, data: bytes) -> None:
        """Part of the handshake, whatever records it comes in."""
        at, end = 0, len(data)
        while at < end:
            if side.sealed:
                raise ParseError("handshake_in_clear")
            if side.skip:
                step = min(side.skip, end - at)
                side.skip -= step
                at += step
                if not side.skip:
                    side.head.clear()
            elif len(side.head) < 4:
                part = data[at : at + 4 - len(side.head)]
                side.head += part
                at += len(part)
                if len(side.head) == 4:
                    self._go_on(side)
            else:
                part = data[at : at + side.want - len(side.body)]
                side.body += part
                at += len(part)
                if len(side.body) == side.want:
                    self._go_on(side)

    def _go_on(self, side: _Side) -> None:
        """As much of a message as was wanted is there."""
        size = int.from_bytes(side.head[1:], "big")
        message = self._client_message if side.direction == TO_SERVER else self._server_message
        side.want = message(side.head[0], size, bytes(side.body))
        if side.want > len(side.body):
            return
        side.skip = size - len(side.body)
        side.body.clear()
        if not side.skip:
            side.head.clear()

    def _client_message(self, kind: int, size: int, body: bytes) -> int:
        """How much of the message's body is to be read; called again with it, until it is no more than there is."""
        if kind == CLIENT_HELLO:
            if self._hello is not None and not self._again:
                raise ParseError("second_hello")
            if size > self.limits.hello:
                raise ParseError("hello_too_long")
            if body or not size:
                self._client_hello(read_client_hello(body))
            return size
        if self._hello is None:
            raise ParseError("no_hello")
        if self._chosen is None:
            raise ParseError("unexpected_message")
        return self._other(size)

    def _other(self, size: int) -> int:
        if size > self.limits.message:
            raise ParseError("message_too_long")
        return 0

    def _client_hello(self, hello: ClientHello) -> None:
        if self._hello is not None:
            self._again = False
            if not hello.repeats(self._hello):
                raise ParseError("second_hello_differs")
            return
        self._hello = hello
        self._events.append(Said("tls", {**hello.fields, "tls.ja4": hello.ja4("t")}, later=_LATER, final=False))

    def _ssl2_length(self, size: int) -> None:
        if size < 9 + 3 + 16:
            raise ParseError("hello_length")

    def _ssl2(self, body: bytes) -> None:
        """The client's hello in SSL 2.0's form; of ciphers of three bytes JA4 knows nothing."""
        ciphers, session, challenge = struct.unpack_from(">HHH", body, 3)
        version = int.from_bytes(body[1:3], "big")
        if body[0] != 1:
            raise ParseError("no_hello")
        if version != SSL2 and not 0x0300 <= version <= TLS13:
            raise ParseError("hello_version")
        fits = ciphers and ciphers % 3 == 0 and session in {0, 16} and 16 <= challenge <= 32
        if not fits or len(body) != 9 + ciphers + session + challenge:
            raise ParseError("hello_length")
        self._hello = ClientHello(version, (), (), (), (), b"", (), ech=False, early_data=False)
        self._events.append(Said("tls", self._hello.fields, later=_LATER, final=False))

    def _server_message(self, kind: int, size: int, body: bytes) -> int:
        """As `_client_message`."""
        if self._chosen is None:
            if kind != SERVER_HELLO:
                raise ParseError("no_hello")
            if self._again:
                raise ParseError("unasked")
            if size > self.limits.hello:
                raise ParseError("hello_too_long")
            if body or not size:
                self._server_hello(_read_server_hello(body))
            return size
        if kind == SERVER_HELLO:
            raise ParseError("second_hello")
        if kind == CERTIFICATE and not self._told and not self._chosen.raw_key:
            return self._certificate(size, body)
        self._tell({})  # no certificate came
        return self._other(size)

    def _server_hello(self, hello: _ServerHello) -> None:
        if hello.retry:
            if self._retried:
                raise ParseError("second_retry")
            self._retried = self._again = True
            return
        self._chosen = hello
        if hello.version >= TLS13:
            self._client.sealed = self._server.sealed = True
            self._tell({})

    def _certificate(self, size: int, body: bytes) -> int:
        """Length of all, length of the first; of the others nothing is read. There may be none."""
        self._other(size)
        if not body:
            if size < 6 and size != 3:
                raise ParseError("certificate_length")
            return min(size, 6)
        first = int.from_bytes(body[3:6], "big")
        end = min(size, 6) + first
        if int.from_bytes(body[:3], "big") + 3 != size or end > size:
            raise ParseError("certificate_length")
        if first > self.limits.certificate:
            raise ParseError("certificate_too_long")
        if len(body) == end:
            self._tell({"tls.certificate": _names(body[6:])})
        return end

    def _tell(self, certificate: dict[str, Value]) -> None:
        chosen = self._chosen
        if chosen is None or self._told:
            return
        self._told = True
        fields: dict[str, Value] = {
            "tls.selected_version": version_text(chosen.version),
            "tls.cipher": chosen.cipher,
            **certificate,
        }
        if chosen.alpn:
            fields["tls.selected_alpn"] = chosen.alpn
        self._events.append(Said("tls", fields, TO_CLIENT))


def _read_server_hello(body: bytes) -> _ServerHello:
    if len(body) < 38:
        raise ParseError("hello_length")
    at = 35 + body[34]
    if body[34] > 32 or at + 3 > len(body):
        raise ParseError("hello_length")
    extensions = read_extensions(body, at + 3)
    version = int.from_bytes(body[:2], "big")
    selected = extensions.get(SUPPORTED_VERSIONS)
    if not 0x0300 <= version <= TLS12:
        raise ParseError("hello_version")
    if selected is not None:
        version = int.from_bytes(selected, "big")
        if len(selected) != 2 or version < TLS13:
            raise ParseError("supported_versions")
    retry = body[2:34] == _RETRY
    if retry and selected is None:
        raise ParseError("retry_version")
    alpn = read_alpn(extensions.get(ALPN))
    if len(alpn) > 1:
        raise ParseError("alpn")
    return _ServerHello(
        version=version,
        cipher=int.from_bytes(body[at : at + 2], "big"),
        alpn=alpn[0] if alpn else b"",
        retry=retry,
        raw_key=extensions.get(_SERVER_CERTIFICATE_TYPE, b"\0") != b"\0",
    )


def _names(certificate: bytes) -> tuple[bytes, ...]:
    """Of a certificate that cannot be read: none."""
    try:
        read = x509.load_der_x509_certificate(certificate)
        names = [str(each.value) for each in read.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        try:
            alternative = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            pass
        else:
            names += alternative.get_values_for_type(x509.DNSName)
        return tuple(dict.fromkeys(name.encode() for name in names))
    # The library has many ways to say that DER is not as it should be, and what it says is not the point.
    except Exception:  # noqa: BLE001
        return ()
