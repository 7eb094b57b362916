"""Messages as dnspython makes them, for tests of the parser."""

from __future__ import annotations

import struct
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.update
from hypothesis import strategies as st

LABELS = st.one_of(
    st.sampled_from((b"www", b"example", b"com", b"WwW", b"_tcp", b"a.b", b"*", b"\\", b'"', b"\0", b"\xff", b"-")),
    st.binary(min_size=1, max_size=63),
)
SHARED = st.sampled_from([dns.name.from_text(text) for text in (".", "com", "example.com", "www.example.com")])


def written(name: dns.name.Name) -> bytes:
    return name.to_wire() or b""


@st.composite
def names(draw: st.DrawFn) -> dns.name.Name:
    """Of labels with any bytes; many have an end in common with others."""
    name = draw(SHARED)
    for label in draw(st.lists(LABELS, max_size=4)):
        if len(written(name)) + len(label) < 255:
            name = dns.name.Name((label, *name.labels))
    return name


def _u(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


_NAME = names().map(written)
_REST = st.binary(min_size=1, max_size=80)
_STRING = st.binary(max_size=255).map(lambda text: bytes((len(text),)) + text)
_FILLED = st.binary(min_size=1, max_size=40).map(lambda text: bytes((len(text),)) + text)


_YES_OR_NO = st.booleans()


@st.composite
def _bitmap(draw: st.DrawFn) -> bytes:
    windows = sorted(draw(st.sets(st.integers(0, 255), max_size=3)))
    return b"".join(
        bytes((window, len(bits))) + bits
        for window in windows
        for bits in [draw(st.binary(min_size=1, max_size=32).filter(lambda bits: bits[-1] > 0))]
    )


@st.composite
def _parameters(draw: st.DrawFn) -> bytes:
    values: dict[int, st.SearchStrategy[bytes]] = {
        1: st.lists(st.one_of(st.sampled_from((b"h2", b"h3", b"a,b")), _REST), min_size=1, max_size=3).map(
            lambda ids: b"".join(bytes((len(each),)) + each for each in ids)
        ),
        3: _u(2),
        4: st.lists(_u(4), min_size=1, max_size=3).map(b"".join),
        5: _u(8).map(lambda ech: b"\0\x08" + ech),
        6: st.lists(_u(16), min_size=1, max_size=3).map(b"".join),
        7: st.sampled_from((b"/dns-query{?dns}", b"")),
        667: st.binary(max_size=20),
        65000: st.binary(max_size=20),
    }
    keys = draw(st.sets(st.sampled_from(sorted(values))))
    found: dict[int, bytes] = {key: draw(values[key]) for key in keys}
    if 1 in keys and draw(_YES_OR_NO):
        found[2] = b""
    if draw(_YES_OR_NO) and found:
        wanted = sorted(draw(st.sets(st.sampled_from(sorted(found)), min_size=1)))
        found[0] = b"".join(struct.pack(">H", key) for key in wanted)
    return b"".join(struct.pack(">HH", key, len(found[key])) + found[key] for key in sorted(found))


def _location() -> st.SearchStrategy[bytes]:
    size = st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda pair: pair[0] << 4 | pair[1])
    angle = (st.integers(2**31 - bound * 3600000, 2**31 + bound * 3600000) for bound in (90, 180))
    return st.tuples(size, size, size, *angle, st.integers(0, 2**32 - 1)).map(
        lambda parts: struct.pack(">BBBBIII", 0, *parts)
    )


DIGESTS = {1: 20, 2: 32, 4: 48}
_DIGEST = st.sampled_from(sorted(DIGESTS)).flatmap(
    lambda kind: _u(DIGESTS[kind]).map(lambda digest: bytes((kind,)) + digest)
)

_KINDS: dict[str, tuple[st.SearchStrategy[bytes], ...]] = {
    "A": (_u(4),),
    "AAAA": (st.one_of(_u(16), st.sampled_from((bytes(16), bytes(10) + b"\xff\xff\1\2\3\4", bytes(15) + b"\1"))),),
    **dict.fromkeys(("NS", "CNAME", "PTR", "DNAME", "NSAP-PTR"), (_NAME,)),
    "SOA": (_NAME, _NAME, _u(20)),
    "MX": (_u(2), _NAME),
    "AFSDB": (_u(2), _NAME),
    "RT": (_u(2), _NAME),
    "KX": (_u(2), _NAME),
    "LP": (_u(2), _NAME),
    "PX": (_u(2), _NAME, _NAME),
    "RP": (_NAME, _NAME),
    "TXT": (st.lists(_STRING, min_size=1, max_size=3).map(b"".join),),
    "SPF": (_STRING,),
    "HINFO": (_STRING, _STRING),
    "X25": (st.sampled_from((b"\x043117", b"\x06123456")),),
    "SRV": (_u(6), _NAME),
    "NAPTR": (_u(4), _STRING, _STRING, _STRING, _NAME),
    "LOC": (_location(),),
    "CERT": (_u(5), _REST),
    "DS": (_u(3), _DIGEST),
    "CDS": (_u(3), _DIGEST),
    "SSHFP": (st.just(b"\1"), st.one_of(_u(20).map(lambda d: b"\1" + d), _u(32).map(lambda d: b"\2" + d))),
    "RRSIG": (st.just(b"\0\1"), _u(16), _NAME, _REST),
    "DNSKEY": (_u(2), st.just(b"\3"), _u(1), _REST),
    "NSEC": (_NAME, _bitmap()),
    "NSEC3": (_u(4), _STRING, _FILLED, _bitmap()),
    "NSEC3PARAM": (_u(4), _STRING),
    "TLSA": (_u(2), st.just(b"\0"), _REST),
    "SMIMEA": (_u(2), st.one_of(_u(32).map(lambda d: b"\1" + d), _u(64).map(lambda d: b"\2" + d))),
    "OPENPGPKEY": (_REST,),
    "DHCID": (_REST,),
    "CSYNC": (_u(6), _bitmap()),
    "ZONEMD": (_u(4), st.just(b"\1\1"), _u(48)),
    "SVCB": (st.just(b"\0\1"), _NAME, _parameters()),
    "HTTPS": (st.just(b"\0\1"), _NAME, _parameters()),
    "NID": (_u(10),),
    "L32": (_u(6),),
    "L64": (_u(10),),
    "EUI48": (_u(6),),
    "EUI64": (_u(8),),
    "URI": (_u(4), _REST),
    "CAA": (_u(1), st.sampled_from((b"\5issue", b"\11issuewild")), _REST),
    "DSYNC": (st.sampled_from((b"\0\x3b", b"\0\x3e")), st.just(b"\1"), _u(2), _NAME),
    "NULL": (_REST,),
    "TYPE65280": (st.binary(max_size=40),),
}
# What dnspython knows of and the parser takes for bytes has no place here: HIP, APL, IPSECKEY and the like.
KINDS = sorted(_KINDS)


@st.composite
def rdatas(draw: st.DrawFn, kind: str) -> dns.rdata.Rdata:
    wire = b"".join(draw(part) for part in _KINDS[kind])
    return dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.from_text(kind), wire, 0, len(wire))


@st.composite
def rrsets(draw: st.DrawFn) -> dns.rrset.RRset:
    kind = draw(st.sampled_from(KINDS))
    ttl = draw(st.integers(0, 2**31 - 1))
    return dns.rrset.from_rdata_list(draw(names()), ttl, draw(st.lists(rdatas(kind), min_size=1, max_size=3)))


_SUBNETS = st.sampled_from([
    dns.edns.ECSOption("192.0.2.0", 24),
    dns.edns.ECSOption("2001:db8::", 56, 48),
    dns.edns.ECSOption("10.129.0.0", 9),
    dns.edns.ECSOption("0.0.0.0", 0),
])  # fmt: skip
_UNKNOWN = st.tuples(st.integers(65001, 65534), st.binary(max_size=20)).map(
    lambda pair: dns.edns.GenericOption(dns.edns.OptionType.make(pair[0]), pair[1])
)


def _edns(draw: st.DrawFn, message: dns.message.Message) -> None:
    options: list[Any] = draw(st.lists(_UNKNOWN, max_size=2))
    if draw(st.booleans()):
        options.append(draw(_SUBNETS))
    message.use_edns(0, draw(st.sampled_from((0, 0x8000))), draw(st.integers(512, 65535)), options=options)


_QTYPES = st.one_of(st.sampled_from(("A", "AAAA", "ANY", "HTTPS", "AXFR", "TYPE65280")), st.sampled_from(KINDS))


@st.composite
def queries(draw: st.DrawFn) -> dns.message.Message:
    name, kind, group = draw(names()), draw(_QTYPES), draw(st.sampled_from(("IN", "CH", "HS", "ANY", "CLASS5")))
    query = dns.message.make_query(name, kind, group, id=draw(st.integers(0, 65535)))
    if draw(st.integers(0, 4)) == 0:
        query.set_opcode(dns.opcode.NOTIFY)
    if draw(st.booleans()):
        _edns(draw, query)
    return query


@st.composite
def responses(draw: st.DrawFn) -> dns.message.Message:
    response = dns.message.make_response(draw(queries()))
    code = draw(st.sampled_from((0, 2, 3, 5, 9) if response.edns < 0 else (0, 1, 16, 23, 3841)))
    response.set_rcode(dns.rcode.Rcode.make(code))
    for section in (response.answer, response.authority, response.additional):
        section.extend(draw(st.lists(rrsets(), max_size=3)))
    return response


@st.composite
def updates(draw: st.DrawFn) -> dns.message.Message:
    update = dns.update.UpdateMessage(draw(SHARED), id=draw(st.integers(0, 65535)))
    for _ in range(draw(st.integers(0, 4))):
        name = draw(names())
        kind = draw(st.sampled_from(("A", "CNAME", "MX", "TXT", "SRV")))
        change = draw(st.sampled_from(("add", "delete", "delete all", "present", "absent")))
        if change == "delete all":
            update.delete(name, kind)
        elif change == "absent":
            update.absent(name, kind)
        else:
            rdata = draw(rdatas(kind))
            if change == "add":
                update.add(name, 300, rdata)
            elif change == "delete":
                update.delete(name, rdata)
            else:
                update.present(name, rdata)
    return update


def any_message() -> st.SearchStrategy[dns.message.Message]:
    return st.one_of(queries(), responses(), updates())
