"""QUIC: Initial packets, their CRYPTO frames, and what is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.base import TO_CLIENT, TO_SERVER, Event, ParseError, Said, Value
from parsers.hello import HELLO_FIELDS
from parsers.quic import Limits, QuicParser
from tests.unit.parsers.hellos import (
    MODERN,
    V1,
    V2,
    alpn,
    crypto,
    ech,
    extension,
    hello,
    initial,
    long_header,
    message,
    sni,
    varint,
    versions,
)

DRAFT_29 = 0xFF00001D
HELLO = hello(*MODERN, extension(57, b"x"))
EVIL = hello(sni(b"evil.lab"), *MODERN[1:])
# Of the server: short, and nothing in it is read.
ANSWER = long_header(2, V1, b"", b"server-1") + varint(20) + bytes(20)
CLOSE = b"\x1c\0\0\3bye"


def fed(*datagrams: bytes | tuple[int, bytes], limits: Limits | None = None) -> list[dict[str, Value]]:
    """Of the client, unless told otherwise."""
    parser = QuicParser(limits)
    events: list[Event] = []
    for each in datagrams:
        events += parser.feed(*(each if isinstance(each, tuple) else (TO_SERVER, each)))
    return [dict(event.fields) for event in events if isinstance(event, Said)]


def refused(*datagrams: bytes | tuple[int, bytes], limits: Limits | None = None) -> str:
    """What the last is refused for; the others are not."""
    parser = QuicParser(limits)
    parts = [each if isinstance(each, tuple) else (TO_SERVER, each) for each in datagrams]
    for direction, data in parts[:-1]:
        parser.feed(direction, data)
    with pytest.raises(ParseError) as caught:
        parser.feed(*parts[-1])
    return caught.value.code


def names(*datagrams: bytes | tuple[int, bytes]) -> list[Value | None]:
    return [fields.get("tls.sni") for fields in fed(*datagrams)]


@pytest.mark.parametrize(("version", "text"), [(V1, b"1"), (V2, b"2"), (DRAFT_29, b"draft-29")])
def test_a_hello(version: int, text: bytes) -> None:
    parser = QuicParser()
    (unit,) = parser.feed(TO_SERVER, initial(crypto(HELLO), version=version))
    assert isinstance(unit, Said)
    assert unit.protocol == "quic"
    assert not unit.later
    ja4 = unit.fields["tls.ja4"]
    assert isinstance(ja4, bytes)
    assert ja4.startswith(b"q13d0205h2_")
    assert dict(unit.fields) == {
        "quic.version": text,
        "tls.sni": b"web.lab",
        "tls.alpn": (b"h2",),
        "tls.version": (b"1.3", b"1.2"),
        "tls.ech": 0,
        "tls.ja4": ja4,
    }


RFC_HELLO = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010"
    "000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005010000000000330026"
    "0024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305030603"
    "0203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901"
    "100f088394c8f03e51570806048000ffff"
)


@pytest.mark.parametrize(
    ("version", "begins"),
    [
        (V1, "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c"),
        (V2, "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071bf03dceebfa162e75d6c"),
    ],
)
def test_the_example_of_rfc_9001_and_rfc_9369(version: int, begins: str) -> None:
    packet = initial(RFC_HELLO, bytes.fromhex("8394c8f03e515708"), number=2, version=version)
    assert len(packet) == 1200
    assert packet.hex().startswith(begins)
    (fields,) = fed(packet)
    assert fields["tls.sni"] == b"example.com"
    assert fields["tls.alpn"] == (b"alpn",)


def test_a_hello_in_many_frames_in_any_order() -> None:
    big = hello(sni(b"web.lab"), versions(0x0304), extension(51, bytes(2500)))
    chance = random.Random(9)
    for size in (1, 7, 100, 1100):
        pieces = [(at, big[at : at + size]) for at in range(0, len(big), size)]
        pieces += [(at, big[at : at + size + 9]) for at in range(5, len(big), 400)]  # again, and overlapping
        chance.shuffle(pieces)
        parser = QuicParser()
        events: list[Event] = []
        for number in range(0, len(pieces), 20):
            frames = b"\1".join(crypto(data, at) for at, data in pieces[number : number + 20])
            assert parser.pending(TO_SERVER) == (number > 0 and not events)
            events += parser.feed(TO_SERVER, initial(frames, number=number))
        (unit,) = events
        assert isinstance(unit, Said)
        assert unit.fields["tls.sni"] == b"web.lab"
        assert not parser.pending(TO_SERVER)


def test_other_frames_of_initial_packets() -> None:
    acks = b"\2\5\0\1\2\0\1" + b"\3\5\0\0\0\1\2\3" + b"\0\0\1" + CLOSE
    assert names(initial(acks + crypto(HELLO[:9]) + acks + crypto(HELLO[9:], 9) + acks)) == [b"web.lab"]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"", "no_frames"),
        (b"\4\0\0\0", "frame_type"),  # RESET_STREAM
        (b"\x0a\0\1x", "frame_type"),  # STREAM
        (b"\x40\6\0\1x", "frame_type"),  # CRYPTO, its type longer than it needs to be
        (b"\x1d\0\0", "frame_type"),
        (b"\6\0\x44\xb0" + bytes(1000), "frame_length"),
        (b"\6\0\xff" + b"\xff" * 7, "frame_length"),
        (b"\6\xff" + b"\xff" * 7 + b"\1x", "crypto_too_long"),
        (b"\6" + varint(32 * 1024) + b"\1x", "crypto_too_long"),
        (b"\2\0\0\xff" + b"\xff" * 7 + b"\0" * 30, "varint"),  # ranges without end
        (b"\6", "varint"),
        (b"\6\0\x40", "varint"),
        (b"\x1c\0\0\x40\xff", "frame_length"),
        (crypto(message(2, bytes(40))), "no_hello"),
        (crypto(message(1, b"")), "hello_length"),
        (crypto(b"\1\0\x80\0"), "hello_too_long"),
        (crypto(b"\1\xff\xff\xff"), "hello_too_long"),
        (crypto(hello(sni(b"a\0b"))), "sni_name"),
        (crypto(HELLO) + crypto(b"x", 3), "crypto_differs"),
        (crypto(HELLO[5:], 5) + crypto(HELLO[:4] + b"x" + HELLO[5:7]) + crypto(HELLO[:9]), "crypto_differs"),
        (crypto(HELLO + message(11, b"x")), "no_hello"),
    ],
    ids=lambda value: value[:12].hex() if isinstance(value, bytes) else value,
)
def test_frames_that_are_refused(frames: bytes, code: str) -> None:
    pad = 0 if code in {"varint", "no_frames"} or frames[:1] == b"\x1c" else 1200
    assert refused(initial(frames, pad=pad)) == code


def test_connection_ids_of_all_sizes() -> None:
    for size in (8, 20):
        assert names(initial(crypto(HELLO), bytes(size), own=bytes(20))) == [b"web.lab"]
    # A Retry's is the server's choice.
    for size in (0, 1):
        assert names(initial(crypto(HELLO)), initial(crypto(HELLO), bytes(size), number=1)) == [b"web.lab"] * 2


def test_too_many_pieces() -> None:
    big = hello(sni(b"web.lab"), extension(51, bytes(4000)))
    odd = [crypto(big[at : at + 1], at) for at in range(1, 1000, 2)]
    limits = Limits(pieces=100)
    assert refused(initial(b"".join(odd[:99])), initial(b"".join(odd[99:110]), number=1), limits=limits) == (
        "too_many_pieces"
    )


# Packets


def test_packets_in_one_datagram() -> None:
    first, second = initial(crypto(HELLO[:50]), pad=0), initial(crypto(HELLO[50:], 50), number=1, pad=0)
    early = long_header(1, V1, b"original", b"") + varint(30) + bytes(30)
    assert names(first + early + second + bytes(100)) == [b"web.lab"]
    assert names(early, first, second + b"\x40 one of the application's") == [b"web.lab"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "no_initial"),
        (b"\x40" + bytes(40), "no_initial"),
        (b"\xc0", "header"),
        (b"\xc0\0\0\0\1", "header"),
        (b"\xc0\0\0\0\1\x08abc", "header"),
        (b"\xc0\0\0\0\1\x08" + b"original" + b"\xff", "header"),
        (long_header(0, V1, bytes(21), b"") + bytes(1200), "connection_id"),
        (long_header(0, V1, b"original", bytes(21)) + bytes(1200), "connection_id"),
        (long_header(0, V1, b"original", b""), "varint"),
        (long_header(0, V1, b"original", b"") + b"\x44\x00" + bytes(20), "varint"),
        (long_header(0, V1, b"original", b"") + b"\0\x13" + bytes(19), "packet_length"),
        (long_header(0, V1, b"original", b"") + b"\0\x44\xb0" + bytes(1000), "packet_length"),
        (long_header(0, V1, b"original", b"") + b"\0\xff" + b"\xff" * 7, "packet_length"),
        (long_header(1, V1, b"original", b"") + b"\x44\xb0", "packet_length"),
        (long_header(2, V1, b"original", b"") + b"\x14" + bytes(20), "no_initial"),
        (long_header(3, V1, b"original", b"") + bytes(1200), "retry"),
        (long_header(0, 0, b"original", b"") + b"\0\0\0\1", "version"),
        (long_header(0, 2, b"original", b"") + bytes(1200), "version"),
        (initial(crypto(HELLO))[:-1] + b"\xff", "undecryptable"),
        (initial(crypto(HELLO), key=b"another1"), "undecryptable"),
        (initial(crypto(HELLO), reserved=1), "reserved_bits"),
        (initial(crypto(HELLO)) + b"\x80", "header"),
    ],
    ids=lambda value: f"{value[:14].hex()}-{len(value)}" if isinstance(value, bytes) else value,
)
def test_what_a_client_may_not_send(data: bytes, code: str) -> None:
    assert refused(data) == code


def test_packets_of_the_server_are_not_opened() -> None:
    client = initial(crypto(HELLO[:60]))
    again = initial(crypto(HELLO[60:], 60), b"server-1", key=b"original", number=1)
    short = b"\x40" + bytes(30)
    assert names(client, (TO_CLIENT, ANSWER + ANSWER + short), again) == [b"web.lab"]
    assert refused((TO_CLIENT, ANSWER)) == "unasked"
    assert refused(client, (TO_CLIENT, ANSWER[:-1])) == "packet_length"
    assert refused(client, (TO_CLIENT, b"\xc0\0")) == "header"


def test_numbers_of_packets_go_on() -> None:
    parser = QuicParser()
    for number in (0, 0x7FFF_FFF0, 0xFFFF_FFF0, 0x1_0000_0001):
        parser.feed(TO_SERVER, initial(b"\1", number=number) if number < 1 << 32 else _wide(number))
    assert len(parser.feed(TO_SERVER, _wide(0x1_0000_0002, crypto(HELLO)))) == 1


def _wide(number: int, frames: bytes = b"\1") -> bytes:
    """Of a number that has more bytes than its packet shows."""
    import tests.unit.parsers.hellos as module

    class Shown(int):
        def to_bytes(self, length: int = 1, byteorder: str = "big", *, signed: bool = False) -> bytes:  # type: ignore[override]
            return (int(self) & 0xFFFF_FFFF).to_bytes(length, "big")

    return module.initial(frames, number=Shown(number))


# Retry and versions


def test_after_a_retry_keys_are_another_connection_id_s() -> None:
    retry = long_header(3, V1, b"", b"fromserv") + b"token" + bytes(16)
    again = initial(crypto(HELLO), b"fromserv", token=b"token", number=1)
    assert names(initial(crypto(HELLO)), (TO_CLIENT, retry), again) == [b"web.lab"] * 2
    assert names(initial(crypto(HELLO[:70])), (TO_CLIENT, retry), again) == [b"web.lab"]
    evil = initial(crypto(EVIL), b"fromserv", token=b"token", number=1)
    assert refused(initial(crypto(HELLO)), (TO_CLIENT, retry), evil) == "second_hello_differs"


def test_after_version_negotiation_the_client_begins_again() -> None:
    offer = b"\x80\0\0\0\0\0\x08original" + V1.to_bytes(4, "big")
    other = hello(*MODERN, extension(57, b"longer than before"))
    found = fed(initial(crypto(HELLO), version=V2), (TO_CLIENT, offer), initial(crypto(other), number=1))
    assert [fields["quic.version"] for fields in found] == [b"2", b"1"]
    assert found[0] | {"quic.version": b"1"} == found[1]
    assert refused(initial(crypto(HELLO), version=V2), (TO_CLIENT, offer), initial(crypto(EVIL))) == (
        "second_hello_differs"
    )
    for malformed in (offer[:-1], offer[:-4]):
        assert refused(initial(crypto(HELLO)), (TO_CLIENT, malformed)) == "version_negotiation"


def test_a_compatible_version_goes_on_with_what_was_said() -> None:
    first = initial(crypto(HELLO), own=b"client01")
    second = hello(*MODERN, extension(57, b"x"), extension(44, b"cookie"))
    goes_on = initial(crypto(second, len(HELLO)), b"server-1", key=b"original", version=V2, number=1)
    found = fed(first, goes_on)
    assert [fields["quic.version"] for fields in found] == [b"1", b"2"]
    # Of a version that only the server has begun all packets are told of: the first one may have been denied.
    acknowledged = initial(b"\2\0\0\0\0", b"server-1", key=b"original", version=V2, number=1)
    found = fed(first, acknowledged, acknowledged)
    assert [fields["quic.version"] for fields in found] == [b"1", b"2", b"2"]
    evil = initial(crypto(EVIL, len(HELLO)), b"server-1", key=b"original", version=V2, number=1)
    assert refused(first, evil) == "second_hello_differs"
    # Not even behind something that seems to be a longer hello in that version.
    decoy = initial(crypto(b"\1\0\x20\0"), b"server-1", key=b"original", version=V2, number=1)
    assert refused(first, decoy, evil) == "second_hello_differs"


def test_a_second_hello_must_say_the_same() -> None:
    first = initial(crypto(HELLO))
    for changed in (EVIL, hello(*MODERN[1:]), hello(MODERN[0], alpn(b"h3"), *MODERN[2:]), hello(*MODERN, ech())):
        assert refused(first, initial(crypto(changed, len(HELLO)), number=1)) == "second_hello_differs"
    assert names(first, initial(crypto(hello(*MODERN, extension(44, b"x")), len(HELLO)), number=1)) == [b"web.lab"] * 2


def test_what_was_said_is_not_said_otherwise() -> None:
    first = initial(crypto(HELLO))
    # Whole or in part it is told again, for what was told before may have been denied; what is no hello is not told.
    again = (initial(crypto(HELLO), number=1), initial(crypto(HELLO[9:20], 9), number=2))
    assert names(first, *again, initial(b"\1", number=3), initial(b"\2\0\0\0\0", number=4)) == [b"web.lab"] * 3
    assert refused(first, initial(crypto(EVIL), number=1)) == "crypto_differs"
    # Another connection on the same ports.
    assert names(first, initial(crypto(HELLO), b"another1")) == [b"web.lab"] * 2
    assert refused(first, initial(crypto(EVIL), b"another1")) == "second_hello_differs"
    part = initial(crypto(HELLO[:60]))
    assert names(part, initial(crypto(EVIL), b"another1")) == [b"evil.lab"]
    assert refused(part, initial(crypto(EVIL), b"another1"), initial(crypto(HELLO[60:], 60), number=1)) == (
        "second_hello_differs"
    )


def test_more_connections_than_are_kept() -> None:
    parser = QuicParser()
    for number in range(50):
        parser.feed(TO_SERVER, initial(crypto(HELLO), b"conn%04d" % number))
        assert parser.buffered <= 3 * len(HELLO)
    with pytest.raises(ParseError, match="undecryptable"):
        parser.feed(TO_SERVER, initial(crypto(HELLO), b"server-1", key=b"conn0000"))


def test_memory_of_all_connections() -> None:
    last = crypto(b"x", 32 * 1024 - 1)
    datagrams = [initial(last, b"conn%04d" % number, version=version) for number in range(2) for version in (V1, V2)]
    assert refused(*datagrams) == "crypto_too_long"


def test_too_many_hellos() -> None:
    small = hello(versions(0x0304))
    frames = [initial(crypto(small, len(small) * number), number=number) for number in range(17)]
    assert refused(*frames) == "too_many_hellos"


@pytest.mark.parametrize("version", [0x1A2A3A4A, 0xFACEB002, 0x51303530, 0xFF00001B])
def test_a_version_that_is_not_known(version: int) -> None:
    data = long_header(0, version, b"original", b"") + bytes(1200)
    parser = QuicParser()
    (unit,) = parser.feed(TO_SERVER, data)
    assert isinstance(unit, Said)
    assert dict(unit.fields) == {"quic.version": b"0x%08x" % version}
    assert unit.later == {field.name for field in HELLO_FIELDS}
    assert parser.feed(TO_SERVER, data) == [unit]
    assert parser.feed(TO_CLIENT, data[:100]) == []
    # The server knows another.
    offer = b"\x80\0\0\0\0\0\x08original" + V1.to_bytes(4, "big")
    parser.feed(TO_CLIENT, offer)
    (known,) = parser.feed(TO_SERVER, initial(crypto(HELLO)))
    assert isinstance(known, Said)
    assert known.fields["quic.version"] == b"1"
    # What it hides then may be another hello.
    with pytest.raises(ParseError, match="version"):
        parser.feed(TO_SERVER, data)


def test_a_version_that_is_not_known_needs_a_header_beyond_doubt() -> None:
    grease = 0x1A2A3A4A
    assert refused(long_header(0, grease, b"original", b"") + bytes(1000)) == "version"
    assert refused(long_header(0, grease, b"short", b"") + bytes(1200)) == "version"
    assert refused(long_header(0, grease, bytes(21), b"") + bytes(1200)) == "version"
    assert refused(b"\x80" + long_header(0, grease, b"original", b"")[1:] + bytes(1200)) == "version"
    assert refused(long_header(0, 0x12345678, b"original", b"") + bytes(1200)) == "version"


def test_too_many_versions() -> None:
    datagrams = [long_header(0, 0x0A0A0A0A | number << 28, b"original", b"") + bytes(1200) for number in range(9)]
    assert len(fed(*datagrams)) == 9
    assert refused(*datagrams, limits=Limits(versions=8)) == "too_many_versions"


def test_lost_datagrams() -> None:
    parser = QuicParser()
    parser.feed(TO_SERVER, initial(crypto(HELLO[:60])))
    assert parser.gap(TO_SERVER, 1200) == []
    (unit,) = parser.feed(TO_SERVER, initial(crypto(HELLO), number=9))
    assert isinstance(unit, Said)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=60), st.sampled_from((V1, V2)))), st.binary())
def test_frames_of_any_kind_are_read_or_refused(pieces: list[tuple[int, bytes, int]], last: bytes) -> None:
    parser = QuicParser()
    try:
        for number, (offset, data, version) in enumerate(pieces):
            frames = crypto(data, offset) + crypto(HELLO[offset:], offset)
            parser.feed(TO_SERVER, initial(frames, number=number, version=version))
        parser.feed(TO_SERVER, initial(last + b"\0\0\0\0", number=99, pad=0))
    except ParseError:
        pass
    assert parser.buffered < 200_000
