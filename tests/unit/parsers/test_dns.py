from __future__ import annotations

import contextlib
import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdata
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import dns.update
import pytest

from parsers.base import TO_CLIENT, TO_SERVER, ParseError, Said, Unit, Value
from parsers.dns import DnsParser, Limits, Message
from parsers.dnsdata import LAYOUTS

QUERY = 0x0100
RESPONSE = 0x8180
NAME = b"\3www\7example\3com\0"
IN_A = b"\0\1\0\1"
ZONE = NAME + b"\0\6\0\1"
POINTER = b"\xc0\x0c"
LOCATION = struct.pack(">4B3I", 0, 0x12, 0x16, 0x13, 2**31, 2**31 - 1, 10_000_150)


def message(
    question: bytes = NAME + IN_A,
    *records: bytes,
    flags: int = QUERY,
    counts: tuple[int, int, int, int] | None = None,
    identity: int = 7,
) -> bytes:
    """Records are answers if `flags` say response, else additional; unless `counts` says otherwise."""
    number = len(records)
    counts = counts or (bool(question), number if flags & 0x8000 else 0, 0, 0 if flags & 0x8000 else number)
    return struct.pack(">6H", identity, flags, *counts) + question + b"".join(records)


def record(kind: int, data: bytes, *, owner: bytes = POINTER, group: int = 1, ttl: int = 0) -> bytes:
    return owner + struct.pack(">HHIH", kind, group, ttl, len(data)) + data


def option(code: int, value: bytes) -> bytes:
    return struct.pack(">HH", code, len(value)) + value


def opt(*options: bytes, size: int = 1232, ttl: int = 0) -> bytes:
    return record(41, b"".join(options), owner=b"\0", group=size, ttl=ttl)


def read(data: bytes, direction: int | None = None) -> dict[str, Value]:
    way = direction if direction is not None else TO_CLIENT if data[2] & 0x80 else TO_SERVER
    (unit,) = DnsParser(datagrams=True).feed(way, data)
    assert isinstance(unit, Unit)
    assert (unit.protocol, unit.direction, unit.later) == ("dns", way, frozenset())
    return {name.removeprefix("dns."): value for name, value in unit.fields.items()}


def answers(*records: bytes) -> tuple[bytes, ...]:
    found = read(message(NAME + IN_A, *records, flags=RESPONSE))["answer"]
    assert isinstance(found, tuple)
    return found


def refused(data: bytes) -> tuple[str, int]:
    with pytest.raises(ParseError) as error:
        DnsParser(datagrams=True).feed(TO_CLIENT if data[2:3] >= b"\x80" else TO_SERVER, data)
    assert error.value.events == ()
    return error.value.code, error.value.offset


def framed(*messages: bytes) -> bytes:
    return b"".join(len(each).to_bytes(2, "big") + each for each in messages)


def test_query() -> None:
    assert read(message()) == {"qname": b"www.example.com", "qtype": b"A", "qclass": b"IN", "opcode": b"QUERY"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"\0", b"."),
        (b"\3WwW\0", b"WwW"),
        (b"\3a.b\1c\0", b"a\\.b.c"),
        (b"\1a\1b\1c\0", b"a.b.c"),
        (b'\4\\"@$\0', b'\\\\\\"\\@\\$'),
        (b"\4();\x7f\0", b"\\(\\)\\;\\127"),
        (b"\4\0 \xff*\0", b"\\000\\032\\255*"),
        (b"\x3f" + b"x" * 63 + b"\0", b"x" * 63),
        ((b"\x3f" + b"x" * 63) * 3 + b"\x3d" + b"y" * 61 + b"\0", b".".join([b"x" * 63] * 3 + [b"y" * 61])),
        (b"\1a" * 127 + b"\0", b".".join([b"a"] * 127)),
    ],
)
def test_names(name: bytes, text: bytes) -> None:
    assert read(message(name + IN_A))["qname"] == text
    assert answers(record(5, name)) == (text,)


@pytest.mark.parametrize(
    ("kind", "group", "texts"),
    [
        (1, 1, (b"A", b"IN")),
        (65, 1, (b"HTTPS", b"IN")),
        (255, 255, (b"ANY", b"ANY")),
        (65280, 3, (b"TYPE65280", b"CH")),
        (0, 5, (b"TYPE0", b"CLASS5")),
        (12, 0x8001, (b"PTR", b"IN")),
        (12, 0x80FF, (b"PTR", b"ANY")),
        (12, 0x8003, (b"PTR", b"CLASS32771")),
        (6, 254, (b"SOA", b"NONE")),
    ],
)
def test_types_and_classes(kind: int, group: int, texts: tuple[bytes, bytes]) -> None:
    found = read(message(NAME + struct.pack(">HH", kind, group)))
    assert (found["qtype"], found["qclass"]) == texts


def test_notification_and_its_answer() -> None:
    soa = record(6, b"\0\0" + bytes(20))
    notify = message(NAME + b"\0\6\0\1", soa, flags=0x2400, counts=(1, 1, 0, 0))
    found = read(notify)
    assert found["opcode"] == b"NOTIFY"
    assert "answer" not in found
    assert read(message(NAME + b"\0\6\0\1", flags=0xA400))["opcode"] == b"NOTIFY"


def test_update() -> None:
    update = dns.update.UpdateMessage("example.com", id=1)
    update.present("www", "A")
    update.absent("old")
    update.present("mail", "MX", "10 mail")
    update.add("www", 60, "SRV", "1 2 3 host")
    update.delete("www", "AAAA", "::1")
    update.delete("mail")
    found = read(update.to_wire())
    assert found == {"qname": b"example.com", "qtype": b"SOA", "qclass": b"IN", "opcode": b"UPDATE"}


@pytest.mark.parametrize(
    ("code", "extended", "text"),
    [
        (0, None, b"NOERROR"),
        (3, None, b"NXDOMAIN"),
        (12, None, b"RCODE12"),
        (0, 1, b"BADVERS"),
        (7, 1, b"BADCOOKIE"),
        (1, 240, b"RCODE3841"),
    ],
)
def test_codes(code: int, extended: int | None, text: bytes) -> None:
    extra = () if extended is None else (opt(ttl=extended << 24),)
    assert read(message(NAME + IN_A, *extra, flags=0x8180 | code, counts=(1, 0, 0, len(extra))))["rcode"] == text


def test_edns() -> None:
    found = read(message(NAME + IN_A, opt(option(65001, b"abc"), option(10, bytes(8)), size=4096, ttl=0x8000)))
    assert (found["udp_size"], found["dnssec_ok"]) == (4096, 1)
    assert "client_subnet" not in found
    assert "udp_size" not in read(message())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"\0\1\x18\0\xc0\0\2", b"192.0.2.0/24"),
        (b"\0\1\x20\x10\xc0\0\2\1", b"192.0.2.1/32"),
        (b"\0\1\x09\0\x0a\x80", b"10.128.0.0/9"),
        (b"\0\1\0\0", b"0.0.0.0/0"),
        (b"\0\2\x38\0\x20\x01\x0d\xb8\0\0\1", b"2001:db8:0:100::/56"),
        (b"\0\0\0\0", None),
        (b"\0\x09\x08\0anything", None),
    ],
)
def test_client_subnet(value: bytes, text: bytes | None) -> None:
    assert read(message(NAME + IN_A, opt(option(8, value)))).get("client_subnet") == text


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\0\1\x18",
        b"\0\1\x18\0\xc0\0",
        b"\0\1\x18\0\xc0\0\2\0",
        b"\0\1\x17\0\xc0\0\3",
        b"\0\1\x21\0\xc0\0\2\1\0",
        b"\0\1\x18\x21\xc0\0\2",
        b"\0\2\x81\0" + bytes(17),
    ],
)
def test_client_subnet_that_contradicts_itself(value: bytes) -> None:
    assert refused(message(NAME + IN_A, opt(option(8, value))))[0] == "client_subnet"


def test_records_share_names() -> None:
    # www.example.com, then mail + pointer to example.com, then a pointer to that.
    records = (
        record(5, b"\4mail\xc0\x10"),
        record(15, b"\0\x0a\xc0\x2d", owner=b"\xc0\x2d"),
        record(2, b"\xc0\x10", owner=b"\xc0\x10"),
    )
    assert answers(*records) == (b"mail.example.com", b"10 mail.example.com", b"example.com")


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        (1, b"\xc0\0\2\1", b"192.0.2.1"),
        (28, bytes(15) + b"\1", b"::1"),
        (28, bytes(10) + b"\xff\xff\xc0\0\2\1", b"::ffff:192.0.2.1"),
        (6, b"\2ns\0\0" + struct.pack(">5I", 1, 2, 3, 4, 2**32 - 1), b"ns . 1 2 3 4 4294967295"),
        (12, POINTER, b"www.example.com"),
        (13, b"\3PDP\0", b'"PDP" ""'),
        (16, b'\3a"b\0\2\xff\\', b'"a\\"b" "" "\\255\\\\"'),
        (33, b"\0\1\0\2\x13\xc4\0", b"1 2 5060 ."),
        (35, b"\0\1\0\2\1u\3E2U\2!!\0", b'1 2 "u" "E2U" "!!" .'),
        (43, b"\x12\x34\x08\2\xab\xcd", b"4660 8 2 abcd"),
        (46, b"\0\1\x08\2\0\0\0\x3c" + bytes(7) + b"\x3c\0\1\0sig", b"A 8 2 60 19700101000000 19700101000100 1 . c2ln"),
        (48, b"\1\1\3\x0dkey", b"257 3 13 a2V5"),
        (47, b"\0\0\2\x40\1\1\1\x40", b". A MX CAA"),
        (50, b"\1\0\0\x0a\2\xab\xcd\5\0\x44\x32\x14\xc7\0\1\x40", b"1 0 10 abcd 01234567 A"),
        (50, b"\1\0\0\0\0\1\0", b"1 0 0 - 00"),
        (52, b"\3\1\1\xab", b"3 1 1 ab"),
        (257, b"\x80\5issueca;", b'128 issue "ca;"'),
        (257, b"\x80\2a ca;", b"\\# 7 8002612063613b"),
        (64, b"\0\0\3svc\0", b"0 svc"),
        (65, b"\0\1\0\0\1\0\6\2h2\2h3\0\3\0\2\x01\xbb", b'1 . alpn="h2,h3" port="443"'),
        (65, b"\0\1\0\0\0\0\4\0\1\0\3\0\1\0\2\1,\0\3\0\2\0\1", b'1 . mandatory="alpn,port" key1="\\001," port="1"'),
        (65, b"\0\1\0\0\1\0\2\1x\0\2\0\0\0\4\0\4\1\2\3\4", b'1 . alpn="x" no-default-alpn ipv4hint="1.2.3.4"'),
        (65, b"\0\1\0\1\0\0\0", b"1 . key256"),
        (29, LOCATION, b"0 0 0.000 N 0 0 0.001 W 1.50m 1.00m 10000.00m 10.00m"),
        (108, b"\0\1\2\3\4\xff", b"00-01-02-03-04-ff"),
        (256, b"\0\1\0\2ftp", b'1 2 "ftp"'),
        (10, b"", b"\\# 0"),
        (65280, b"\x0a\0\0\1", b"\\# 4 0a000001"),
    ],
)  # fmt: skip
def test_record_data(kind: int, data: bytes, text: bytes) -> None:
    assert answers(record(kind, data)) == (text,)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (1, b"\1\2\3"),
        (1, b"\1\2\3\4\5"),
        (28, bytes(15)),
        (5, b""),
        (5, b"\1a"),
        (5, POINTER + b"x"),
        (5, b"\1a\0x"),
        (6, b"\0\0" + bytes(19)),
        (15, b"\0"),
        (15, b"\0\1"),
        (16, b""),
        (16, b"\3ab"),
        (13, b"\1a"),
        (33, b"\0\1\0\2\0"),
        (35, b"\0\1\0\2\1u\3E2U\2!"),
        (47, b"\0\0\0"),
        (47, b"\0\0\x21" + bytes(32) + b"\1"),
        (47, b"\0\1\1\1\0\1\1"),
        (47, b"\0\0\1\0"),
        (50, b"\1\0\0\0\0\0"),
        (64, b"\0\1\0\0\3\0\2\0\1\0\1\0\2\1x"),
        (64, b"\0\1\0\0\3\0\1\0"),
        (64, b"\0\1\0\0\1\0\2\2x"),
        (64, b"\0\1\0\0\0\0\2\0\3"),
        (64, b"\0\1\0\0\2\0\0"),
        (64, b"\0\1\0\0\4\0\3\0\0\0"),
        (64, b"\0\1\0\0\7\0\\9"),
        (29, b"\1" + LOCATION[1:]),
        (29, b"\0\xa0" + LOCATION[2:]),
        (29, b"\0\x1a" + LOCATION[2:]),
        (29, bytes(16)),
        (256, b"\0\1\0\1"),
        (257, b"\0\0x"),
    ],
)
def test_record_data_that_does_not_fit(kind: int, data: bytes) -> None:
    # Behind it is room, so that no end of the message helps.
    code, _ = refused(message(NAME + IN_A, record(kind, data), record(16, b"\xff" + bytes(255)), flags=RESPONSE))
    assert code in {"record_data", "short", "label"}


@pytest.mark.parametrize("kind", [*LAYOUTS, 41, 250])
def test_record_data_of_any_size_is_read_or_refused(kind: int) -> None:
    for filler in (b"\0", b"\1", b"\2", b"\x3f", b"\xc0\x0c", b"\xff"):
        for size in range(50):
            data = (filler * size)[:size]
            for records in ((record(kind, data),), (record(kind, data), record(65280, bytes(60)))):
                with contextlib.suppress(ParseError):
                    read(message(NAME + IN_A, *records, flags=RESPONSE))


def test_classes_have_layouts_of_their_own() -> None:
    assert answers(record(1, b"\1\2\3\4", group=0x8001)) == (b"1.2.3.4",)
    assert answers(record(1, b"\1a\0\0\1", group=3)) == (b"\\# 5 0161000001",)
    assert answers(record(16, b"\1a", group=3)) == (b'"a"',)


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (b"", "short", 0),
        (message()[:11], "short", 11),
        (message()[:20], "short", 20),
        (message()[:-1], "short", 32),
        (message() + b"x", "trailing", 33),
        (message(flags=RESPONSE) + bytes(5), "trailing", 33),
        (message(flags=0x0800), "opcode", 2),
        (message(flags=0x9000), "opcode", 2),
        (message(flags=0x3000), "opcode", 2),
        (message(NAME + IN_A + POINTER + IN_A, counts=(2, 0, 0, 0)), "questions", 4),
        (message(b"\x40" + b"a" * 64 + b"\0" + IN_A), "label", 12),
        (message(b"\x80\0" + IN_A), "label", 12),
        (message(POINTER + IN_A), "pointer", 12),
        (message(b"\xc0\4" + IN_A), "pointer", 12),
        (message(b"\1a\xc0\x1e" + IN_A + NAME), "pointer", 14),
        (message((b"\x3f" + b"x" * 63) * 3 + b"\x3e" + b"y" * 62 + b"\0" + IN_A), "name_long", 12),
        (message(b"\1a" * 128 + b"\0" + IN_A), "name_long", 12),
        (message(NAME + IN_A, counts=(1, 0, 0, 1)), "short", 33),
        (message(NAME + IN_A, record(16, b"\1a", owner=b"\xc0\x21")), "pointer", 33),
        (message(NAME + IN_A, record(16, b"\1a", owner=b"\xc0\x22")), "pointer", 33),
        (message(NAME + IN_A, record(16, b"\1a", owner=b"\xc0\x50")), "pointer", 33),
        (message(NAME + IN_A, record(16, b"\1a", owner=b"\xc0\x0b")), "pointer", 33),
        (message(NAME + IN_A, record(16, b"\1a", owner=b"\1a\xc0\x21")), "pointer", 35),
        (message(NAME + IN_A, record(16, b"\1a", owner=b"\x41\0")), "label", 33),
        (message(NAME + IN_A, record(65280, b"abc")[:-1]), "short", 47),
        (message(NAME + IN_A, record(5, b"\xc0\x2d")), "pointer", 45),
        (message(NAME + IN_A, opt(), opt()), "opt", 44),
        (message(NAME + IN_A, record(41, b"", owner=POINTER)), "opt", 33),
        (message(NAME + IN_A, opt(), flags=RESPONSE), "opt", 33),
        (message(NAME + IN_A, opt(b"\0")), "option", 44),
        (message(NAME + IN_A, opt(b"\0\1\0\2a")), "option", 44),
        (message(NAME + IN_A, opt(b"\0\1\xff\xff")), "option", 44),
        (message(b"", flags=0x2800), "zone", 4),
        (message(b"", record(1, bytes(4), owner=b"\0"), flags=0xA800), "zone", 4),
        (message(NAME + IN_A, flags=0x2800), "zone", 29),
        (message(NAME + b"\0\6\0\xff", flags=0x2800), "zone", 29),
        (message(ZONE, record(1, bytes(4), group=255), flags=0x2800), "record_data", 45),
        (message(ZONE, record(1, bytes(4), group=254), flags=0x2800, counts=(1, 1, 0, 0)), "record_data", 45),
        (message(ZONE, record(1, bytes(3), group=254), flags=0x2800, counts=(1, 0, 1, 0)), "record_data", 48),
    ],
    ids=lambda value: value.hex()[24:64] if isinstance(value, bytes) else None,
)
def test_malformed(data: bytes, code: str, offset: int) -> None:
    assert refused(data) == (code, offset)


def test_names_are_measured_through_their_pointers() -> None:
    labels = (b"\x3f" + b"x" * 63) * 3
    # Together with www.example.com 255 bytes, and one more.
    longest = record(16, b"\1a", owner=labels + b"\x2d" + b"y" * 45 + POINTER)
    assert answers(longest) == (b'"a"',)
    longer = record(16, b"\1a", owner=labels + b"\x2e" + b"y" * 46 + POINTER)
    assert refused(message(NAME + IN_A, longer, flags=RESPONSE)) == ("name_long", 33)
    at = 12 + len(NAME + IN_A)
    more = record(16, b"\1a", owner=b"\1z" + struct.pack(">H", 0xC000 | at))
    assert refused(message(NAME + IN_A, longest, more, flags=RESPONSE))[0] == "name_long"


def test_what_is_pointed_to_ends_before() -> None:
    # The label's four bytes are the pointer to it and a type.
    label = record(65280, b"\4")
    at = 12 + len(NAME + IN_A) + len(label)
    around = record(16, b"\1a", owner=struct.pack(">H", 0xC000 | (at - 1)))
    assert refused(message(NAME + IN_A, label, around, flags=RESPONSE)) == ("pointer", at)


def test_hostile_pointers_take_no_time_of_their_own() -> None:
    # A chain of thousands, and thousands of names that use all of it.
    begin = 12 + 11
    chain = b"\0" + b"".join(struct.pack(">H", 0xC000 | (begin + max(2 * at - 1, 0))) for at in range(4000))
    last = struct.pack(">H", 0xC000 | (begin + len(chain) - 2))
    records = [record(65280, chain, owner=b"\0")] + [record(5, last, owner=last)] * 3000
    wire = message(b"", *records, flags=RESPONSE)
    assert len(wire) < 65536
    found = read(wire)["answer"]
    assert isinstance(found, tuple)
    assert found[1:] == (b".",) * 3000
    # Names of many labels, and pointers into each at every label.
    names = [record(65280, b"\1a" * 126 + b"\0", owner=b"\0")] * 60
    places = [12 + number * len(names[0]) + 11 + 2 * label for number in range(60) for label in range(60)]
    records = names + [record(5, struct.pack(">H", 0xC000 | place), owner=b"\0") for place in places]
    wire = message(b"", *records, flags=RESPONSE)
    assert len(wire) < 65536
    found = read(wire)["answer"]
    assert isinstance(found, tuple)
    assert found[60:63] == tuple(b".".join([b"a"] * count) for count in (126, 125, 124))


def test_signed_messages() -> None:
    key = dns.tsig.Key("key.example", b"secret", dns.tsig.HMAC_SHA256)
    query = dns.message.make_query("www.example.com", "A", use_edns=True)
    query.use_tsig(key)
    wire = query.to_wire()
    assert read(wire)["qname"] == b"www.example.com"
    at = wire.rindex(b"\0\xfa\0\xff") - 13
    tsig = wire[at:]
    assert refused(message(NAME + IN_A, tsig[:-1] + b"\1")) == ("record_data", 12 + len(NAME + IN_A) + len(tsig))
    assert refused(message(NAME + IN_A, tsig, opt()))[0] == "tsig"
    assert refused(message(NAME + IN_A, tsig, flags=RESPONSE))[0] == "tsig"
    assert refused(message(NAME + IN_A, tsig.replace(b"\0\xfa\0\xff", b"\0\xfa\0\1")))[0] == "tsig"


def test_answers_are_matched_to_queries() -> None:
    parser = DnsParser(datagrams=True)

    def response(wire: bytes, direction: int = TO_CLIENT) -> Value:
        (unit,) = parser.feed(direction, wire)
        assert isinstance(unit, Unit)
        return unit.fields["dns.unasked"]

    parser.feed(TO_SERVER, message())
    assert response(message(flags=RESPONSE, identity=8)) == 1, "another id"
    assert response(message(b"\3www\7example\3org\0" + IN_A, flags=RESPONSE)) == 1, "another name"
    assert response(message(NAME + b"\0\x1c\0\1", flags=RESPONSE)) == 1, "another type"
    assert response(message(flags=RESPONSE), TO_SERVER) == 1, "the wrong way"
    assert response(message(NAME.upper() + IN_A, flags=RESPONSE)) == 0
    assert response(message(flags=RESPONSE)) == 1, "a second answer to one query"
    assert parser.buffered == 0
    # Types whose numbers differ in the bit that letters differ in.
    parser.feed(TO_SERVER, message(NAME + b"\0\x41\0\1"))
    assert response(message(NAME + b"\0\x61\0\1", flags=RESPONSE)) == 1
    assert response(message(NAME + b"\0\x41\0\1", flags=RESPONSE)) == 0
    # Sent again, answered twice.
    parser.feed(TO_SERVER, message())
    parser.feed(TO_SERVER, message())
    assert [response(message(flags=RESPONSE)) for _ in range(3)] == [0, 0, 1]
    # Both ways at once, as servers do that ask each other.
    parser.feed(TO_CLIENT, message())
    assert response(message(flags=RESPONSE), TO_SERVER) == 0


def test_one_id_for_two_questions() -> None:
    parser = DnsParser(datagrams=True)
    other = NAME + b"\0\x1c\0\1"
    parser.feed(TO_SERVER, message())
    parser.feed(TO_SERVER, message(other))
    units = parser.feed(TO_CLIENT, message(other, flags=RESPONSE)) + parser.feed(TO_CLIENT, message(flags=RESPONSE))
    assert [unit.fields["dns.unasked"] for unit in units if isinstance(unit, Unit)] == [0, 0]


def test_an_answer_without_question_has_its_querys() -> None:
    parser = DnsParser(datagrams=True)
    parser.feed(TO_SERVER, message())
    (unit,) = parser.feed(TO_CLIENT, message(b"", flags=0x8181))
    assert isinstance(unit, Unit)
    assert dict(unit.fields) == {
        "dns.qname": b"www.example.com", "dns.qtype": b"A", "dns.qclass": b"IN", "dns.opcode": b"QUERY",
        "dns.rcode": b"FORMERR", "dns.answer": (), "dns.unasked": 0,
    }  # fmt: skip
    (unit,) = parser.feed(TO_CLIENT, message(b"", flags=0x8181))
    assert isinstance(unit, Unit)
    assert unit.fields == {"dns.opcode": b"QUERY", "dns.rcode": b"FORMERR", "dns.answer": (), "dns.unasked": 1}


def test_a_transfer_has_as_many_answers_as_it_likes() -> None:
    parser = DnsParser()
    parser.feed(TO_SERVER, framed(message(NAME + b"\0\xfc\0\1")))
    first = message(NAME + b"\0\xfc\0\1", record(1, b"\1\2\3\4"), flags=RESPONSE)
    more = message(b"", record(1, b"\1\2\3\4", owner=NAME), flags=RESPONSE)
    units = parser.feed(TO_CLIENT, framed(first, more, more))
    assert [(unit.fields["dns.qtype"], unit.fields["dns.unasked"]) for unit in units if isinstance(unit, Unit)] == [
        (b"AXFR", 0),
        (b"AXFR", 0),
        (b"AXFR", 0),
    ]


def test_a_query_without_question_says_nothing_of_one() -> None:
    # It fetches a cookie (RFC 7873 §5.4).
    assert read(message(b"", opt(option(10, bytes(8))))) == {"opcode": b"QUERY", "udp_size": 1232, "dnssec_ok": 0}


@pytest.mark.parametrize(
    ("limits", "kept"),
    [(Limits(outstanding=10), 10), (Limits(outstanding_bytes=10 * (2 + len(NAME + IN_A))), 10)],
)
def test_queries_without_answers_are_forgotten(limits: Limits, kept: int) -> None:
    parser = DnsParser(limits, datagrams=True)
    for identity in range(1000):
        parser.feed(TO_SERVER, message(identity=identity))
        assert parser.buffered <= kept * (2 + len(NAME + IN_A))
    found = [
        unit.fields["dns.unasked"]
        for identity in range(1000)
        for unit in parser.feed(TO_CLIENT, message(flags=RESPONSE, identity=identity))
        if isinstance(unit, Unit)
    ]
    assert found == [1] * (1000 - kept) + [0] * kept
    assert parser.buffered == 0


def test_one_id_again_and_again_is_bounded() -> None:
    parser = DnsParser(datagrams=True)
    for kind in range(1, 1000):
        parser.feed(TO_SERVER, message(NAME + struct.pack(">HH", kind, 1)))
    assert parser.buffered == 8 * (2 + len(NAME + IN_A))


def test_tcp_in_any_pieces() -> None:
    parser = DnsParser()
    stream = framed(message(), message(b"\1b\0" + IN_A), message(b"\1c\0" + IN_A))
    whole = parser.feed(TO_SERVER, stream)
    assert [unit.fields["dns.qname"] for unit in whole if isinstance(unit, Unit)] == [b"www.example.com", b"b", b"c"]
    parser = DnsParser()
    events = []
    for at in range(len(stream)):
        assert parser.pending(TO_SERVER) == (at not in {0, 35, 56})
        events += parser.feed(TO_SERVER, stream[at : at + 1])
    assert events == whole
    assert not parser.pending(TO_SERVER)
    assert not parser.pending(TO_CLIENT)


def test_tcp_with_the_longest_message() -> None:
    size = 65535 - 33 - 12
    longest = message(NAME + IN_A, record(65280, bytes(size)), flags=RESPONSE)
    assert len(longest) == 65535
    parser = DnsParser()
    assert parser.feed(TO_CLIENT, framed(longest)[:-1]) == []
    assert parser.buffered == 65536
    (unit,) = parser.feed(TO_CLIENT, b"\0")
    assert isinstance(unit, Message)
    assert len(unit.fields["dns.answer"][0]) == len(b"\\# 65490 ") + 2 * size  # type: ignore[index,arg-type]
    assert parser.buffered == 0


@pytest.mark.parametrize("size", [0, 1, 11])
def test_tcp_length_below_a_header(size: int) -> None:
    parser = DnsParser()
    good = framed(message())
    with pytest.raises(ParseError) as error:
        parser.feed(TO_SERVER, good + size.to_bytes(2, "big"))
    assert (error.value.code, error.value.offset) == ("length", len(good))
    assert len(error.value.events) == 1


def test_errors_have_their_place() -> None:
    good, bad = message(), message() + b"x"
    parser = DnsParser()
    parser.feed(TO_SERVER, framed(good)[:5])
    with pytest.raises(ParseError) as error:
        parser.feed(TO_SERVER, framed(good)[5:] + framed(bad))
    assert (error.value.code, error.value.offset) == ("trailing", len(framed(good)) + 2 + len(good))
    assert len(error.value.events) == 1
    parser = DnsParser()
    parser.feed(TO_SERVER, framed(good))
    with pytest.raises(ParseError) as error:
        parser.feed(TO_SERVER, b"\0\0")
    assert error.value.offset == len(framed(good))
    parser = DnsParser(datagrams=True)
    parser.feed(TO_SERVER, good)
    with pytest.raises(ParseError) as error:
        parser.feed(TO_SERVER, bad)
    assert error.value.offset == 2 * len(good)


def test_bytes_that_are_missing() -> None:
    parser = DnsParser()
    parser.feed(TO_SERVER, framed(message())[:9])
    with pytest.raises(ParseError) as error:
        parser.gap(TO_SERVER, 4)
    assert (error.value.code, error.value.offset) == ("gap", 13)
    assert DnsParser(datagrams=True).gap(TO_SERVER, 40) == []


def test_units_are_values() -> None:
    one, same = DnsParser(datagrams=True), DnsParser(datagrams=True)
    (first,), (second,) = one.feed(TO_SERVER, message()), same.feed(TO_SERVER, message())
    assert isinstance(first, Message)
    assert first == second
    assert hash(first) == hash(second)
    assert first != same.feed(TO_SERVER, message(identity=9))[0]
    assert first != Said("dns", first.fields)
    assert "www.example.com" in repr(first)


def test_fields_are_read_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    (unit,) = DnsParser(datagrams=True).feed(TO_CLIENT, message(NAME + IN_A, record(1, bytes(4)), flags=RESPONSE))
    assert isinstance(unit, Message)
    monkeypatch.setattr("parsers.dnsdata.Layout.text", lambda *_: pytest.fail("decoded"))
    fields = unit.fields
    assert fields["dns.qname"] == b"www.example.com"
    assert "dns.answer" in fields
    assert len(fields) == 7
    assert fields.get("dns.client_subnet") is None
    assert "http.path" not in fields
