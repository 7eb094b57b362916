"""The parser of DNS against dnspython: one reading, or a stated reason for two."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from hypothesis import event, given, settings
from hypothesis import strategies as st

from parsers.base import TO_CLIENT, TO_SERVER, ParseError
from parsers.dns import DnsParser, Message
from parsers.dnsdata import TYPES, Names
from tests.unit.parsers.dns_messages import any_message

ROOT = dns.name.root
# Else the first record of class ANY of a type of the internet's makes dnspython forget how to read that type.
dns.rdata.load_all_types()  # type: ignore[no-untyped-call]


def known(number: int) -> bool:
    return not dns.rdatatype.to_text(dns.rdatatype.RdataType.make(number)).startswith("TYPE")


# IANA has names for them, dnspython has not.
UNKNOWN = {text.decode(): f"TYPE{number}" for number, text in TYPES.items() if not known(number)}

# What dnspython refuses and the parser passes on, and why.
REFUSED_BY_DNSPYTHON = {
    "a digest of the wrong size for its algorithm signs nothing": (
        "digest length inconsistent|digest must be at least|fingerprint length inconsistent"
        "|certificate association data length inconsistent|digest type 0|scheme 0|hash_algorithm 0"
    ),
    "what an ECHConfigList holds is between client and server": "invalid ECHConfigList",
    "a tag of other bytes is none that a CA knows; its record is written as bytes": "tag is not alphanumeric",
    "no option but client subnet says something": "server cookie|client cookie|codec can't decode",
    "client subnet of an unknown family is not said": "unsupported family",
    "RFC 9460 §2.4.2: recipients ignore parameters of an alias": "parameters in AliasMode",
    "RFC 9460 §14.3: keys that are not known are bytes": "key \\d+ cannot be empty|ohttp",
    "RFC 3597 §4 wants these names whole; multicast DNS has pointers (RFC 6762 §18.14)": "decompression is forb",
    "RFC 1876 has two ways to write a size of nothing": "non-canonical zero",
}
# And what it reads of these.
BYTES_ONLY = {"APL", "HIP", "IPSECKEY", "AMTRELAY", "GPOS", "WKS", "ISDN", "NSAP", "TKEY", "A6", "HHIT", "BRID"}
# RFC 1035 describes them, dnspython has them as bytes.
OBSOLETE = {"MD", "MF", "MB", "MG", "MR", "MINFO", "TA"}
# What the parser refuses and dnspython reads.
REFUSED_BY_US = {
    "opcode": "other operations have no layout in common",
    "questions": "more than one has no meaning",
    "pointer": "into the header, where no name is, or to labels that run into the pointer",
    "zone": "RFC 2136 §3.1.1: an update names its zone",
}


def ours(wire: bytes) -> Message:
    direction = TO_CLIENT if len(wire) > 2 and wire[2] & 0x80 else TO_SERVER
    (message,) = DnsParser(datagrams=True).feed(direction, wire)
    assert isinstance(message, Message)
    return message


def theirs(wire: bytes) -> dns.message.Message:
    return dns.message.from_wire(wire, one_rr_per_rrset=True, keyring=False)


def compare(message: Message, other: dns.message.Message) -> None:
    fields = dict(message.fields)
    expected: dict[str, object] = {"dns.opcode": dns.opcode.to_text(other.opcode()).encode()}
    if other.question:
        question = other.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        group = dns.rdataclass.to_text(question.rdclass).replace("RESERVED0", "CLASS0")
        expected["dns.qname"] = question.name.to_text(omit_final_dot=True).encode()
        expected["dns.qtype"] = next((name for name, text in UNKNOWN.items() if text == kind), kind).encode()
        # Multicast DNS has a bit of its own there.
        expected["dns.qclass"] = {"CLASS32769": b"IN", "CLASS33023": b"ANY"}.get(group, group.encode())
    if other.edns >= 0:
        expected["dns.udp_size"] = other.payload
        expected["dns.dnssec_ok"] = int(bool(other.ednsflags & dns.flags.DO))
        for option in other.options:
            if isinstance(option, dns.edns.ECSOption):
                network = ipaddress.ip_network(f"{option.address}/{option.srclen}")
                expected.setdefault("dns.client_subnet", str(network).encode())
    if other.flags & dns.flags.QR:
        code = dns.rcode.to_text(other.rcode())
        expected["dns.rcode"] = (f"RCODE{code}" if code.isdigit() else code).encode()
        expected["dns.unasked"] = 1
        answer = fields.pop("dns.answer")
        assert isinstance(answer, tuple)
        rdatas = [rdata for rrset in other.sections[1] for rdata in rrset or [None]]
        for text, rdata in zip(answer, rdatas, strict=True):
            if rdata is None:
                assert text == b"\\# 0"
            else:
                same(text, rdata)
    assert fields == expected


def same(text: bytes, rdata: dns.rdata.Rdata) -> None:
    words = [UNKNOWN.get(word, word) for word in text.decode().split(" ")]
    if "TYPE0" in words:
        return  # no text of dnspython's
    back = dns.rdata.from_text(rdata.rdclass, rdata.rdtype, " ".join(words), ROOT, relativize=False)
    if rdata.rdtype == dns.rdatatype.LOC:
        # Binary fractions on their way lose a centimetre here and there.
        one, other = (struct.unpack(">4B3I", each.to_wire() or b"") for each in (back, rdata))
        assert all(abs(a - b) <= 1 for a, b in zip(one, other, strict=True)), text
    else:
        assert back.to_wire(origin=ROOT) == rdata.to_wire(origin=ROOT), text


def read_otherwise(other: dns.message.Message) -> bool:
    """It has records whose data is something to one of the two and bytes to the other."""
    return any(
        dns.rdatatype.to_text(rrset.rdtype) in OBSOLETE | BYTES_ONLY | UNKNOWN.keys()
        # Multicast DNS has a bit of its own there; and CHAOS' addresses are others.
        or rrset.rdclass & 0x8000
        or (rrset.rdclass == dns.rdataclass.CH and rrset.rdtype == dns.rdatatype.A)
        for section in other.sections[1:]
        for rrset in section
    )


@settings(max_examples=150)
@given(any_message())
def test_what_dnspython_writes_is_read_as_it_reads_it(message: dns.message.Message) -> None:
    wire = message.to_wire(max_size=65535, want_shuffle=False)
    compare(ours(wire), theirs(wire))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    wire = bytearray(draw(any_message()).to_wire(max_size=65535, want_shuffle=False))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(wire)))
        how = draw(st.sampled_from(("change", "change", "cut", "insert", "pointer", "end")))
        if how == "change":
            wire[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == "cut":
            del wire[at : at + draw(st.integers(1, 8))]
        elif how == "insert":
            wire[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif how == "pointer":
            wire[at : at + 2] = bytes((0xC0, draw(st.integers(0, 255))))
        else:
            del wire[at:]
    return bytes(wire)


@settings(max_examples=400)
@given(damaged())
def test_what_one_refuses_the_other_refuses_too_or_there_is_a_reason(wire: bytes) -> None:
    try:
        message = ours(wire)
    except ParseError as error:
        refused_by_us(wire, error)
        return
    try:
        other = theirs(wire)
    except Exception as error:  # noqa: BLE001 (dnspython lets through what its readers raise)
        refused_by_dnspython(wire, str(error))
        return
    event("both read it")
    if not read_otherwise(other):
        compare(message, other)


def refused_by_us(wire: bytes, error: ParseError) -> None:
    try:
        other = theirs(wire)
    except Exception:  # noqa: BLE001
        event("both refuse it")
        return
    if not read_otherwise(other):
        assert error.code in REFUSED_BY_US, (error.code, other.to_text())
        event(f"only the parser refuses it: {error.code}")


def refused_by_dnspython(wire: bytes, text: str) -> None:
    reason = next((reason for reason, texts in REFUSED_BY_DNSPYTHON.items() if re.search(texts, text)), None)
    if reason is None:
        found = dns.message.from_wire(wire, one_rr_per_rrset=True, keyring=False, continue_on_error=True)
        kinds = {kind for kind, begin, end in records(wire) for each in found.errors if begin <= each.offset <= end}
        # Options, and parameters that RFC 9460 does not describe, are bytes too.
        assert kinds & (BYTES_ONLY | {"CH A", "OPT", "HTTPS", "SVCB"}), (text, kinds)
        reason = "bytes to the parser"
    event(f"only dnspython refuses it: {reason}")


def records(wire: bytes) -> Iterator[tuple[str, int, int]]:
    """(type, first byte of its data, behind it) of a message that is in order."""
    names = Names(wire)
    questions, *counts = struct.unpack_from(">4H", wire, 4)
    at, zone = 12, 0
    for _ in range(questions):
        at = names.skip(at) + 4
        zone = int.from_bytes(wire[at - 2 : at], "big")
    for _ in range(sum(counts)):
        at = names.skip(at)
        kind, group, _, size = struct.unpack_from(">HHIH", wire, at)
        text = dns.rdatatype.to_text(kind)
        chaos = dns.rdataclass.CH in {group, zone if group == dns.rdataclass.NONE else group}
        yield f"CH {text}" if chaos else text, at + 10, at + 10 + size
        at += 10 + size
