"""TLS: hellos, records, and what is refused."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Said, Value
from parsers.tls import Limits, TlsParser
from tests.unit.parsers import hellos
from tests.unit.parsers.hellos import (
    CHANGE,
    MODERN,
    algorithms,
    alpn,
    certificate,
    ech,
    extension,
    hello,
    hello_body,
    message,
    numbers,
    record,
    retry,
    selects,
    server_hello,
    sized,
    sni,
    versions,
)

HELLO = record(hello(), version=0x0301)
OLD = (sni(b"web.lab"), alpn(b"h2", b"http/1.1"))
OLD_HELLO = record(hello(*OLD))
LATER = {"tls.selected_version", "tls.cipher", "tls.selected_alpn", "tls.certificate"}


def fed(*parts: tuple[int, bytes], limits: Limits | None = None) -> list[dict[str, Value]]:
    parser = TlsParser(limits)
    events = [event for direction, data in parts for event in parser.feed(direction, data)]
    return [dict(event.fields) for event in events if isinstance(event, Said)]


def client(*extensions: bytes, **more: object) -> dict[str, Value]:
    """Fields of a hello."""
    (fields,) = fed((TO_SERVER, record(hello(*extensions, **more))))
    return fields


def refused(*parts: tuple[int, bytes], limits: Limits | None = None) -> str:
    """What the last part is refused for; the others are not."""
    parser = TlsParser(limits)
    for direction, data in parts[:-1]:
        parser.feed(direction, data)
    with pytest.raises(ParseError) as caught:
        parser.feed(*parts[-1])
    return caught.value.code


def refused_hello(*extensions: bytes, **more: object) -> str:
    return refused((TO_SERVER, record(hello(*extensions, **more))))


def named(*dns: str, cn: str | None = "web.lab", key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)] if cn else [])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=36500))
    if dns:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(each) for each in dns]), critical=False
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


# The client's hello


def test_a_hello_says_what_the_client_asks_for() -> None:
    parser = TlsParser()
    assert not parser.pending(TO_SERVER)
    (unit,) = parser.feed(TO_SERVER, HELLO)
    assert not parser.pending(TO_SERVER)
    assert isinstance(unit, Said)
    assert unit.later == LATER
    assert unit.direction == TO_SERVER
    ja4 = unit.fields["tls.ja4"]
    assert dict(unit.fields) == {
        "tls.sni": b"web.lab",
        "tls.alpn": (b"h2",),
        "tls.version": (b"1.3", b"1.2"),
        "tls.ech": 0,
        "tls.ja4": ja4,
    }
    assert not parser.buffered


def test_a_hello_without_extensions() -> None:
    (fields,) = fed((TO_SERVER, record(message(1, hello_body(version=0x0301)))))
    assert fields["tls.version"] == (b"1.0",)
    assert fields["tls.alpn"] == ()
    assert "tls.sni" not in fields
    assert fields["tls.ja4"].startswith(b"t10i020000_")  # type: ignore[union-attr]
    assert fields["tls.ja4"].endswith(b"_000000000000")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("offered", "legacy", "said"),
    [
        ((0x0304,), 0x0303, (b"1.3",)),
        ((0x3A3A, 0x0304, 0x0303, 0xFAFA), 0x0303, (b"1.3", b"1.2")),
        ((0x7F1C, 0x0302, 0x0301, 0x0300), 0x0303, (b"0x7f1c", b"1.1", b"1.0", b"ssl3")),
        ((0x3A3A,), 0x0303, ()),
        ((), 0x0303, (b"1.2",)),
        ((), 0x0300, (b"ssl3",)),
        ((), 0x0304, (b"1.2",)),  # a server must take it for 1.2
    ],
)
def test_versions_offered(offered: tuple[int, ...], legacy: int, said: tuple[bytes, ...]) -> None:
    extensions = (versions(*offered),) if offered else (sni(b"web.lab"),)
    assert client(*extensions, version=legacy)["tls.version"] == said


def test_a_name_is_as_sent_but_for_its_final_dot() -> None:
    assert client(sni(b"WEB.lab"))["tls.sni"] == b"WEB.lab"
    assert client(sni(b"web.lab."))["tls.sni"] == b"web.lab"
    assert client(sni(b"192.0.2.7"))["tls.sni"] == b"192.0.2.7"
    assert client(sni(b"a" * 255))["tls.sni"] == b"a" * 255


@pytest.mark.parametrize(
    "name",
    [b"web\0.lab", b"\0", b"web lab", b"web.lab\n", b"w\xc3\xa9b", b".", b"web.lab..", b"a" * 256, b"a" * 300],
    ids=lambda name: repr(name[:12]),
)
def test_names_that_are_none(name: bytes) -> None:
    assert refused_hello(sni(name)) == "sni_name"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0",
        b"\0\3\0\0\0",  # empty name
        sized(b"\0" + sized(b"web.lab", 2), 2) + b"x",  # trailing byte
        sized(b"\0" + sized(b"web.lab", 2) + b"\0" + sized(b"evil.lab", 2), 2),  # two names
        sized(b"\1" + sized(b"web.lab", 2), 2),  # another type
        sized(b"\0\0\xff" + b"web.lab", 2),  # the name is longer than its list
        b"\xff\xff\0\0\7web.lab",  # the list is longer than its extension
    ],
    ids=lambda body: body.hex()[:16],
)
def test_server_name_that_is_malformed(body: bytes) -> None:
    assert refused_hello(extension(0, body)) == "sni_length"


@pytest.mark.parametrize(
    ("kind", "code"), [(16, "alpn"), (43, "supported_versions"), (13, "signature_algorithms"), (0xFE0D, "ech")]
)
@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0", b"\1x", b"\xff\xff\xffabc", b"\0\3\2h2x", b"\0\4\2h2\0\0"])
def test_extensions_that_are_malformed(kind: int, code: str, body: bytes) -> None:
    assert refused_hello(extension(kind, body)) == code


def test_extensions_must_fit() -> None:
    assert refused_hello(sni(b"a"), sni(b"a")) == "extension_twice"
    assert refused_hello(extension(0x1234), extension(0x1234)) == "extension_twice"
    assert refused_hello(numbers(21, 5) + b"abc") == "extension_length"
    assert refused_hello(extension(21) + b"abc") == "extension_length"
    assert refused_hello(extension(41, b"x"), extension(21)) == "pre_shared_key_not_last"
    assert refused_hello(extension(42, b"x")) == "early_data"
    assert refused_hello(*(extension(0x2000 + kind) for kind in range(257))) == "too_many_extensions"
    assert len(fed((TO_SERVER, record(hello(*(extension(0x2000 + kind) for kind in range(256))))))) == 1
    assert refused_hello(alpn(*(b"a",) * 257)) == "alpn"
    assert len(client(alpn(*(b"a",) * 256))["tls.alpn"]) == 256  # type: ignore[arg-type]
    assert client(alpn(b"a"))["tls.alpn"] == (b"a",)
    assert refused_hello(alpn(b"h2", b"")) == "alpn"
    body = hello_body(*MODERN)
    assert refused((TO_SERVER, record(message(1, body + b"\0")))) == "extensions_length"
    assert refused((TO_SERVER, record(message(1, body[:-1])))) == "extensions_length"
    assert refused((TO_SERVER, record(message(1, hello_body() + b"\0")))) == "extensions_length"


def test_the_rest_of_a_hello_must_fit() -> None:
    assert refused_hello(*MODERN, version=0x0203) == "hello_version"
    assert refused_hello(*MODERN, ciphers=()) == "hello_length"
    assert refused_hello(*MODERN, session=bytes(33)) == "hello_length"
    assert refused_hello(*MODERN, compression=b"") == "compression"
    assert refused_hello(*MODERN, compression=b"\1") == "compression"
    body = hello_body()
    for cut in (*range(38), len(body) - 1):
        assert refused((TO_SERVER, record(message(1, body[:cut])))) in {"hello_length", "compression"}
    assert (
        refused((TO_SERVER, record(message(1, numbers(0x0303) + bytes(33) + b"\xff\xff" + bytes(40)))))
        == "hello_length"
    )
    odd = numbers(0x0303) + bytes(32) + b"\0\0\3abc\1\0"
    assert refused((TO_SERVER, record(message(1, odd)))) == "hello_length"


def test_encrypted_hello_hides_the_name() -> None:
    fields = client(sni(b"outer.lab"), ech(), alpn(b"h2"))
    assert fields["tls.ech"] == 1
    assert fields["tls.outer_sni"] == b"outer.lab"
    assert "tls.sni" not in fields
    # What its drafts, and ESNI before, had in its place.
    assert "tls.sni" not in client(sni(b"outer.lab"), extension(0xFFCE, b"x"))
    # The inner one itself is in the clear.
    inner = client(sni(b"inner.lab"), extension(0xFE0D, b"\1"))
    assert inner["tls.ech"] == 0
    assert inner["tls.sni"] == b"inner.lab"
    assert refused_hello(ech(b"")) == "ech"
    assert refused_hello(extension(0xFE0D, b"\1x")) == "ech"
    assert refused_hello(extension(0xFE0D, b"\2" + bytes(60))) == "ech"


# JA4: the vectors of its specification

SPEC_CIPHERS = (
    0x1301,
    0x1302,
    0x1303,
    0xC02B,
    0xC02F,
    0xC02C,
    0xC030,
    0xCCA9,
    0xCCA8,
    0xC013,
    0xC014,
    0x9C,
    0x9D,
    0x2F,
    0x35,
)
SPEC_EXTENSIONS = (0x1B, 0, 0x33, 0x10, 0x4469, 0x17, 0x2D, 0xD, 5, 0x23, 0x12, 0x2B, 0xFF01, 0xB, 0xA, 0x15)
SPEC_ALGORITHMS = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
GREASE = 0x4A4A


def ja4(*extensions: bytes, **more: object) -> str:
    value = client(*extensions, **more)["tls.ja4"]
    assert isinstance(value, bytes)
    return value.decode()


def spec() -> list[bytes]:
    known = {
        0: sni(b"example.com"),
        0x10: alpn(b"h2", b"http/1.1"),
        0x2B: versions(GREASE, 0x0304, 0x0303),
        0x0D: algorithms(*SPEC_ALGORITHMS),
    }
    return [
        extension(0x0A0A),
        *(known.get(kind, extension(kind)) for kind in SPEC_EXTENSIONS),
        extension(0xFAFA, b"\0"),
    ]


def test_ja4_of_the_specification() -> None:
    assert ja4(*spec(), ciphers=(GREASE, *SPEC_CIPHERS)) == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    shuffled = spec()[::-1]
    assert ja4(*shuffled, ciphers=SPEC_CIPHERS[::-1]) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_ja4_without_signature_algorithms() -> None:
    # The specification's string for this has 000d in it, which no hello can have without algorithms.
    rest = [extension(kind) for kind in SPEC_EXTENSIONS if kind not in {0, 0x10, 0x0D, 0x2B}]
    found = ja4(*rest, versions(0x0304), ciphers=SPEC_CIPHERS)
    kept = b"0005,000a,000b,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01"
    assert found == "t13i151300_8daaf6152771_" + hashlib.sha256(kept).hexdigest()[:12]


def test_ja4_of_a_browser() -> None:
    # Chromium 143 as tls.browserleaks.com shows it.
    kinds = (0x2D, 0x33, 0x10, 0xFE0D, 0x17, 0x44CD, 0, 0xB, 0xA, 0x2B, 0xFF01, 0x23, 0x12, 5, 0xD, 0x1B)
    known = {
        0: sni(b"a.lab"),
        0x10: alpn(b"h2"),
        0x2B: versions(0x0304),
        0xD: algorithms(*SPEC_ALGORITHMS),
        0xFE0D: ech(),
    }
    found = ja4(*(known.get(kind, extension(kind)) for kind in kinds), ciphers=SPEC_CIPHERS)
    assert found == "t13d1516h2_8daaf6152771_d8a2da3f94cd"


def test_ja4_leaves_grease_out_of_signature_algorithms() -> None:
    # FoxIO's sigalg-grease.pcapng, by its ja4_ro.
    kinds = (0xFE0D, 0x10, 0x17, 0x33, 0x44CD, 0xFF01, 0xA, 0xD, 0x23, 0x2B, 0xB, 0xCA34, 0x2D, 0, 5, 0x1B, 0x12)
    signed = algorithms(GREASE, 0x0904, 0x0905, 0x0906, *SPEC_ALGORITHMS)
    known = {0: sni(b"a.lab"), 0x10: alpn(b"h2"), 0x2B: versions(0x0304), 0xD: signed, 0xFE0D: ech()}
    found = ja4(*(known.get(kind, extension(kind)) for kind in kinds), ciphers=SPEC_CIPHERS)
    assert found == "t13d1517h2_8daaf6152771_cb7bf5808d99"


@pytest.mark.parametrize(
    ("protocol", "ends"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"x", "xx"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ],
)
def test_ja4_of_protocols(protocol: bytes, ends: str) -> None:
    assert ja4(alpn(protocol, b"zz"), versions(0x0304))[8:10] == ends


def test_ja4_counts_no_further_than_99_and_no_grease() -> None:
    many = ja4(*(extension(0x2000 + kind) for kind in range(120)), ciphers=range(1, 121))
    assert many.startswith("t12i9999")
    assert ja4(versions(0x7F1C, 0x0304)).startswith("t00")
    assert ja4(versions(GREASE)).startswith("t00")
    assert ja4(sni(b"a"), version=0x0304).startswith("t13")
    assert ja4(versions(0x0304), algorithms(GREASE, 0x0403)) == ja4(versions(0x0304), algorithms(0x0403))
    assert ja4(versions(0x0304), ciphers=(GREASE,)).split("_")[1] == "000000000000"


# Records


def test_a_hello_in_many_records_and_pieces() -> None:
    big = hello(sni(b"web.lab"), extension(51, bytes(1800)), versions(0x0304))
    for size in (1, 3, 100, 1400):
        data = b"".join(record(big[at : at + size]) for at in range(0, len(big), size))
        parser = TlsParser()
        events: list[Event] = []
        for at in range(0, len(data), 7):
            events += parser.feed(TO_SERVER, data[at : at + 7])
            assert parser.pending(TO_SERVER) == (at + 7 < len(data))
        (unit,) = events
        assert isinstance(unit, Said)
        assert unit.fields["tls.sni"] == b"web.lab"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "record_type"),
        (record(b"x", 19), "record_type"),
        (record(b"x", 25), "record_type"),
        (record(hello(), version=0x0205), "record_version"),
        (record(hello(), version=0x0305), "record_version"),
        (record(hello(), version=0x0403), "record_version"),
        (record(b""), "record_length"),
        (b"\x16\3\1\x40\1", "record_length"),
        (b"\x16\3\1\xff\xff", "record_length"),
        (record(b"\2\x28", 21), "no_hello"),
        (CHANGE, "no_hello"),
        (record(b"data", 23), "no_hello"),
        (record(message(2, bytes(40))), "no_hello"),
        (record(message(0, b"")), "no_hello"),
        (record(message(1, b"")), "hello_length"),
        (record(b"\1\1\0\1"), "hello_too_long"),
        (record(b"\1\xff\xff\xff"), "hello_too_long"),
        (record(hello()[:10]) + record(b"\1\0", 21), "interleaved"),
        (record(hello() + hello()), "second_hello"),
        (record(hello() + message(16, b"x")), "unexpected_message"),
        (HELLO + HELLO, "second_hello"),
        (HELLO + record(b"data", 23), "data_in_clear"),
        (HELLO + record(b"data", 24), "record_type"),
        (HELLO + record(b"\3\0", 21), "alert"),
        (HELLO + record(b"\1", 21), "record_length"),
        (HELLO + record(b"\1\0\0", 21), "record_length"),
        (HELLO + record(b"\2", 20), "change_cipher_spec"),
        (HELLO + record(b"\1\1", 20), "record_length"),
        (OLD_HELLO + CHANGE, "change_cipher_spec"),
    ],
    ids=lambda value: value.hex()[:20] if isinstance(value, bytes) else value,
)
def test_what_a_client_may_not_begin_with(data: bytes, code: str) -> None:
    assert refused((TO_SERVER, data)) == code
    with pytest.raises(ParseError, match=f"^{code} at"):
        fed(*((TO_SERVER, bytes((byte,))) for byte in data))


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0304])
def test_the_record_s_version_says_nothing(version: int) -> None:
    assert fed((TO_SERVER, record(hello(), version=version))) == fed((TO_SERVER, HELLO))


def test_the_offset_is_the_record_s() -> None:
    parser = TlsParser()
    with pytest.raises(ParseError) as caught:
        parser.feed(TO_SERVER, HELLO + CHANGE + b"garbage")
    assert caught.value.offset == len(HELLO + CHANGE)
    assert len(caught.value.events) == 1


def test_the_hello_s_limit() -> None:
    padded = hello(sni(b"web.lab"), extension(21, bytes(5000)))
    data = b"".join(record(padded[at : at + 1000]) for at in range(0, len(padded), 1000))
    assert len(fed((TO_SERVER, data))) == 1
    assert len(fed((TO_SERVER, data), limits=Limits(hello=len(padded) - 4))) == 1
    assert refused((TO_SERVER, data), limits=Limits(hello=len(padded) - 5)) == "hello_too_long"


def test_early_data_stand_between_the_hellos() -> None:
    early = record(hello(*MODERN, extension(42)))
    data = record(bytes(100), 23)
    parts = ((TO_SERVER, early + CHANGE + data + data), (TO_CLIENT, record(server_hello(selects()))), (TO_SERVER, data))
    assert len(fed(*parts)) == 2
    # Refused by a HelloRetryRequest, they are followed by another hello in the clear.
    assert len(fed((TO_SERVER, early + data), (TO_CLIENT, record(retry())), (TO_SERVER, data + HELLO))) == 1


# SSL 2.0's form


def ssl2(
    ciphers: bytes = b"\0\0\x2f" * 2, session: bytes = b"", challenge: bytes = bytes(16), version: int = 0x0301
) -> bytes:
    body = b"\1" + numbers(version, len(ciphers), len(session), len(challenge)) + ciphers + session + challenge
    return numbers(0x8000 | len(body)) + body


def test_hello_in_ssl_2_form() -> None:
    (fields,) = fed((TO_SERVER, ssl2()))
    assert fields == {"tls.version": (b"1.0",), "tls.alpn": (), "tls.ech": 0}
    assert fed((TO_SERVER, ssl2(session=bytes(16), challenge=bytes(32), version=2)))[0]["tls.version"] == (b"ssl2",)
    server = record(server_hello(version=0x0301) + certificate(named()))
    assert fed((TO_SERVER, ssl2()), (TO_CLIENT, server))[1]["tls.certificate"] == (b"web.lab",)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x80\1\1", "hello_length"),
        (b"\x80\x1b" + bytes(27), "hello_length"),
        (b"\x80\x1c" + bytes(28), "no_hello"),
        (ssl2(version=0x0202), "hello_version"),
        (ssl2(ciphers=b""), "hello_length"),
        (ssl2(ciphers=b"\0\0\x2f\0"), "hello_length"),
        (ssl2(session=b"x"), "hello_length"),
        (ssl2(challenge=bytes(15)), "hello_length"),
        (ssl2(challenge=bytes(33)), "hello_length"),
        (ssl2()[:2] + b"\1\3\1\0\6\0\0\0\x11" + bytes(22), "hello_length"),
        (ssl2() + ssl2(), "record_type"),
    ],
)
def test_hello_in_ssl_2_form_that_is_malformed(data: bytes, code: str) -> None:
    assert refused((TO_SERVER, data)) == code


# The server's side


def test_tls_1_3_says_version_and_cipher() -> None:
    parser = TlsParser()
    parser.feed(TO_SERVER, HELLO)
    (unit,) = parser.feed(TO_CLIENT, record(server_hello(selects(), cipher=0x1301)))
    assert isinstance(unit, Said)
    assert unit.direction == TO_CLIENT
    assert not unit.later
    assert dict(unit.fields) == {"tls.selected_version": b"1.3", "tls.cipher": 0x1301}


def test_tls_1_2_waits_for_the_certificate_s_last_byte() -> None:
    own, other = named("web.lab", "*.api.lab"), named("ca.lab")
    flight = server_hello(alpn(b"h2")) + certificate(own, other) + message(14, b"")
    parser = TlsParser()
    parser.feed(TO_SERVER, OLD_HELLO)
    head = 5 + len(server_hello(alpn(b"h2"))) + 4 + 6 + len(own)
    data = record(flight)
    assert not parser.pending(TO_CLIENT)
    assert parser.feed(TO_CLIENT, data[: head - 1]) == []
    assert parser.pending(TO_CLIENT)
    (unit,) = parser.feed(TO_CLIENT, data[head - 1 : head])
    assert isinstance(unit, Said)
    assert dict(unit.fields) == {
        "tls.selected_version": b"1.2",
        "tls.cipher": 0xC02F,
        "tls.selected_alpn": b"h2",
        "tls.certificate": (b"web.lab", b"*.api.lab"),
    }
    assert not parser.pending(TO_CLIENT)
    assert parser.feed(TO_CLIENT, data[head:]) == []
    assert not parser.buffered


@pytest.mark.parametrize(
    "behind",
    [
        record(message(12, b"x")),  # anonymous, or a key known before
        record(message(4, b"ticket")),  # resumed, with a ticket
        CHANGE,  # resumed
        record(b"\2\x28", 21),
    ],
)
def test_tls_1_2_without_a_certificate(behind: bytes) -> None:
    units = fed((TO_SERVER, OLD_HELLO), (TO_CLIENT, record(server_hello()) + behind))
    assert units[1] == {"tls.selected_version": b"1.2", "tls.cipher": 0xC02F}


@pytest.mark.parametrize(
    "chain",
    [(), (b"",), (b"no DER",), (named()[:-1],), (named() + b"x",), (b"\x30\x84\xff\xff\xff\xff",)],
    ids=["none", "empty", "no DER", "cut", "more", "lying"],
)
def test_certificates_that_have_no_names(chain: tuple[bytes, ...]) -> None:
    units = fed((TO_SERVER, OLD_HELLO), (TO_CLIENT, record(server_hello() + certificate(*chain))))
    assert units[1]["tls.certificate"] == ()


def test_names_of_certificates() -> None:
    def names(leaf: bytes) -> Value:
        return fed((TO_SERVER, OLD_HELLO), (TO_CLIENT, record(server_hello() + certificate(leaf))))[1][
            "tls.certificate"
        ]

    assert names(named("b.lab", "a.lab", "b.lab", cn="a.lab")) == (b"a.lab", b"b.lab")
    assert names(named(cn="Jos\u00e9 & Söhne")) == ("Jos\u00e9 & Söhne".encode(),)
    assert names(named("only.lab", cn=None)) == (b"only.lab",)
    raw = record(server_hello(extension(20, b"\2")) + message(11, sized(b"a key", 3)) + message(14, b""))
    assert "tls.certificate" not in fed((TO_SERVER, OLD_HELLO), (TO_CLIENT, raw))[1]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "certificate_length"),
        (b"\0\0", "certificate_length"),
        (b"\0\0\1", "certificate_length"),
        (b"\0\0\1\0", "certificate_length"),
        (b"\0\0\7\0\0\4abcd"[:-1], "certificate_length"),
        (b"\0\0\7\0\0\5abcd", "certificate_length"),
        (b"\0\0\6\0\0\4abcd", "certificate_length"),
        (b"\xff\xff\xff\xff\xff\xff", "certificate_length"),
    ],
)
def test_certificates_whose_lengths_lie(body: bytes, code: str) -> None:
    assert refused((TO_SERVER, OLD_HELLO), (TO_CLIENT, record(server_hello() + message(11, body)))) == code


def test_limits_of_certificates() -> None:
    leaf = named(*(f"host-{number}.web.lab" for number in range(20)))
    parts = (TO_SERVER, OLD_HELLO), (TO_CLIENT, record(server_hello() + certificate(leaf, leaf)))
    assert len(fed(*parts)[1]["tls.certificate"]) == 21  # type: ignore[arg-type]
    assert refused(*parts, limits=Limits(certificate=len(leaf) - 1)) == "certificate_too_long"
    assert refused(*parts, limits=Limits(message=len(leaf))) == "message_too_long"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "record_type"),
        (record(message(1, hello_body())), "no_hello"),
        (record(message(11, b"")), "no_hello"),
        (record(message(2, bytes(37))), "hello_length"),
        (record(b"\2\1\0\1"), "hello_too_long"),
        (record(server_hello(version=0x0304)), "hello_version"),
        (record(server_hello(version=0x0203)), "hello_version"),
        (record(server_hello(selects(0x0303))), "supported_versions"),
        (record(server_hello(extension(43, b"\3\4\0"))), "supported_versions"),
        (record(server_hello(alpn(b"h2", b"h3"))), "alpn"),
        (record(server_hello(alpn(b"h2"), alpn(b"h2"))), "extension_twice"),
        (record(server_hello(random=hellos.RETRY_RANDOM)), "retry_version"),
        (record(server_hello() + server_hello()), "second_hello"),
        (record(server_hello(selects()) + message(11, b"x")), "handshake_in_clear"),
        (record(server_hello(selects())) + record(message(11, b"x")), "handshake_in_clear"),
        (record(server_hello(selects())) + record(b"x", 24), "record_type"),
        (record(server_hello(selects())) + b"\x17\3\3\x41\1", "record_length"),
        (record(retry()) + record(retry()), "unasked"),
        (record(retry() + server_hello()), "unasked"),
        (CHANGE, "change_cipher_spec"),
        (record(b"data", 23), "data_in_clear"),
        (record(b"\1\x40\0" + bytes(29), 24), "record_type"),
        (record(message(2, numbers(0x0303) + bytes(32) + b"\x21" + bytes(36))), "hello_length"),
        (record(message(2, numbers(0x0303) + bytes(32) + b"\x20" + bytes(3))), "hello_length"),
    ],
    ids=lambda value: value.hex()[:20] if isinstance(value, bytes) else value,
)
def test_what_a_server_may_not_say(data: bytes, code: str) -> None:
    assert refused((TO_SERVER, HELLO), (TO_CLIENT, data)) == code
    with pytest.raises(ParseError, match=f"^{code} at"):
        fed((TO_SERVER, HELLO), *((TO_CLIENT, bytes((byte,))) for byte in data))


def test_a_server_s_hello_that_is_too_short() -> None:
    for size in range(38):
        assert refused((TO_SERVER, HELLO), (TO_CLIENT, record(message(2, b"\3" * size)))) == "hello_length"


@pytest.mark.parametrize(("version", "text"), [(0x0300, b"ssl3"), (0x0301, b"1.0"), (0x0302, b"1.1"), (0x0303, b"1.2")])
def test_versions_selected(version: int, text: bytes) -> None:
    units = fed((TO_SERVER, HELLO), (TO_CLIENT, record(server_hello(version=version)) + CHANGE))
    assert units[1]["tls.selected_version"] == text
    assert fed((TO_SERVER, HELLO), (TO_CLIENT, record(server_hello(selects(0x7F1C)))))[1]["tls.selected_version"] == (
        b"0x7f1c"
    )


def test_a_server_does_not_speak_unasked() -> None:
    assert refused((TO_CLIENT, record(server_hello()))) == "unasked"
    assert refused((TO_CLIENT, record(b"\2\x28", 21))) == "unasked"
    assert refused((TO_SERVER, HELLO[:-1]), (TO_CLIENT, record(server_hello()))) == "unasked"
    # It may have had enough of a hello that does not end.
    assert fed((TO_SERVER, HELLO[:-1]), (TO_CLIENT, record(b"\2\x32", 21))) == []
    parser = TlsParser()
    parser.feed(TO_SERVER, HELLO)
    for byte in record(b"\2\x32", 21):
        parser.feed(TO_CLIENT, bytes((byte,)))
        assert not parser.pending(TO_CLIENT)


# HelloRetryRequest


def test_a_second_hello_must_say_the_same() -> None:
    first = (TO_SERVER, HELLO), (TO_CLIENT, record(retry()) + CHANGE)
    cookie = record(hello(*MODERN, extension(44, b"\0\1x"), extension(51, b"\0\0")))
    units = fed(*first, (TO_SERVER, CHANGE + cookie), (TO_CLIENT, record(server_hello(selects(), cipher=0x1301))))
    assert [list(unit) for unit in units][1:] == [["tls.selected_version", "tls.cipher"]]
    for changed in (
        (sni(b"evil.lab"), *MODERN[1:]),
        (MODERN[1:]),
        (MODERN[0], alpn(b"h3"), *MODERN[2:]),
        (MODERN[0], *MODERN[2:]),
        (*MODERN[:2], versions(0x0304), MODERN[3]),
        (*MODERN, ech()),
    ):
        assert refused(*first, (TO_SERVER, record(hello(*changed)))) == "second_hello_differs"
    assert refused(*first, (TO_SERVER, record(hello(*MODERN, ciphers=(0x1301,))))) == "second_hello_differs"
    assert refused(*first, (TO_SERVER, HELLO + HELLO)) == "second_hello"
    assert refused(*first, (TO_SERVER, HELLO), (TO_CLIENT, record(retry()))) == "second_retry"


# Behind the handshake


def test_records_that_are_encrypted_are_skipped_unread() -> None:
    parser = TlsParser()
    parser.feed(TO_SERVER, HELLO)
    parser.feed(TO_CLIENT, record(server_hello(selects())))
    body = bytes(16384 + 256)
    for direction in (TO_SERVER, TO_CLIENT):
        for _ in range(4):
            assert parser.feed(direction, CHANGE + record(body, 23)) == []
            assert not parser.buffered
            assert not parser.pending(direction)
        assert parser.feed(direction, record(b"\2\x28", 21)) == []


def test_tls_1_2_is_encrypted_behind_its_change() -> None:
    parser = TlsParser()
    parser.feed(TO_SERVER, OLD_HELLO)
    parser.feed(TO_CLIENT, record(server_hello() + certificate(named()) + message(14, b"")))
    parser.feed(TO_SERVER, record(message(16, b"key")) + CHANGE)
    # Renegotiation looks like this: encrypted hellos.
    for kind in (20, 21, 22, 23, 24):
        assert parser.feed(TO_SERVER, record(bytes(16384 + 2048), kind)) == []
    parser.feed(TO_CLIENT, CHANGE + record(b"finished", 22))
    with pytest.raises(ParseError, match="record_length"):
        parser.feed(TO_SERVER, b"\x17\3\3\x48\1")


def test_a_second_hello_in_the_clear_is_refused() -> None:
    flight = (TO_CLIENT, record(server_hello() + certificate(named()) + message(14, b"")))
    assert refused((TO_SERVER, OLD_HELLO), flight, (TO_SERVER, OLD_HELLO)) == "second_hello"
    key = (TO_SERVER, record(message(16, b"key")))
    assert refused((TO_SERVER, OLD_HELLO), flight, key, (TO_SERVER, OLD_HELLO)) == "second_hello"
    assert refused((TO_SERVER, HELLO), (TO_CLIENT, record(server_hello(selects()))), (TO_SERVER, HELLO)) == (
        "handshake_in_clear"
    )


def test_long_messages_are_skipped_in_bounds() -> None:
    flight = (TO_CLIENT, record(server_hello() + certificate(named()) + message(14, b"")))
    chain = message(11, bytes(100_000))
    parser = TlsParser()
    parser.feed(TO_SERVER, OLD_HELLO)
    parser.feed(*flight)
    for at in range(0, len(chain), 16384):
        parser.feed(TO_SERVER, record(chain[at : at + 16384]))
        assert parser.buffered <= 4
    with pytest.raises(ParseError, match="message_too_long"):
        parser.feed(TO_SERVER, record(b"\x0b\xff\xff\xff"))


def test_what_is_missing() -> None:
    parser = TlsParser()
    parser.feed(TO_SERVER, HELLO)
    parser.feed(TO_CLIENT, record(server_hello(selects())) + record(bytes(1000), 23)[:105])
    assert parser.gap(TO_CLIENT, 900) == []
    assert parser.feed(TO_CLIENT, record(bytes(5), 23)[:10]) == []
    with pytest.raises(ParseError, match="gap"):
        parser.gap(TO_SERVER, 1)
    parser = TlsParser()
    parser.feed(TO_SERVER, HELLO[:50])
    with pytest.raises(ParseError, match="gap"):
        parser.gap(TO_SERVER, 1)


# A real peer


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> list[tuple[int, bytes]]:
    """Python's ssl (OpenSSL) with itself, in memory."""
    pipes, copies = [ssl.MemoryBIO(), ssl.MemoryBIO()], [ssl.MemoryBIO(), ssl.MemoryBIO()]
    ends = [client.wrap_bio(copies[1], pipes[0], server_hostname="web.lab"), server.wrap_bio(copies[0], pipes[1], True)]
    parts: list[tuple[int, bytes]] = []
    for _ in range(6):
        for direction, end in enumerate(ends):
            try:
                end.do_handshake()
                end.write(b"hello")
            except ssl.SSLWantReadError:
                pass
            if data := pipes[direction].read():
                parts.append((direction, data))
                copies[direction].write(data)
    return parts


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    leaf = x509.load_der_x509_certificate(named("web.lab", "*.api.lab", key=key))
    pem = tmp_path / "server.pem"
    pem.write_bytes(private + leaf.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    server.set_alpn_protocols(["h2"])
    client = ssl.create_default_context(cadata=leaf.public_bytes(serialization.Encoding.DER))
    client.set_alpn_protocols(["h2", "http/1.1"])
    return server, client


@pytest.mark.parametrize("again", [False, True])
def test_a_real_handshake_of_1_3(contexts: tuple[ssl.SSLContext, ssl.SSLContext], again: bool) -> None:
    if again:
        contexts[0].set_ecdh_curve("secp521r1")
    parts = handshake(*contexts)
    assert len(parts) > 2
    first, second = fed(*parts)
    assert first["tls.sni"] == b"web.lab"
    assert first["tls.alpn"] == (b"h2", b"http/1.1")
    assert second["tls.selected_version"] == b"1.3"
    assert (retry()[6:38] in parts[1][1]) == again


def test_a_real_handshake_of_1_2(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    contexts[0].maximum_version = ssl.TLSVersion.TLSv1_2
    _, second = fed(*handshake(*contexts))
    assert second["tls.selected_version"] == b"1.2"
    assert second["tls.selected_alpn"] == b"h2"
    assert second["tls.certificate"] == (b"web.lab", b"*.api.lab")
