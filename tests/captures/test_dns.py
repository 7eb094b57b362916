"""DNS of the captures."""

from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, ParseError, Unit, Value
from parsers.dns import DnsParser
from tests.captures.streams import CapturedFlow, flows, flows_of, truths

FLOWS = flows("dns")
# A name that runs out of its datagram, one that points to itself, one without end: zeek's tests are about these.
MALFORMED = {53000: "short", 53001: "pointer", 53002: "short"}
BY_FILE = {
    name: [flow for flow in FLOWS if flow.truth["file"] == name] for name in {flow.truth["file"] for flow in FLOWS}
}
EVASION = [truth for truth in truths("evasion") if truth["truth"] in {"dns", "dns_tcp"}]
# What a middle cannot know: which of two readings of the segments is the server's. The inspector answers for these.
AMBIGUOUS = "not_final_allow"


def told(flow: CapturedFlow) -> list[Unit]:
    parser = DnsParser(datagrams=flow.truth["l4"] == "udp")
    return [event for part in flow.parts for event in parser.feed(*part) if isinstance(event, Unit)]


def values(units: list[Unit], name: str, direction: int | None = None) -> set[Value | None]:
    return {unit.fields.get(f"dns.{name}") for unit in units if direction in {None, unit.direction}}


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_all_are_read_that_are_well_formed(flow: CapturedFlow) -> None:
    code = MALFORMED.get(flow.truth["sport"]) if "invalid-names" in flow.truth["file"] else None
    if code:
        with pytest.raises(ParseError) as error:
            told(flow)
        assert error.value.code == code
        return
    units = told(flow)
    assert units
    assert all(unit.fields["dns.qname"] and unit.fields["dns.opcode"] == b"QUERY" for unit in units)


def test_signed_zones_and_resolvers() -> None:
    units = [unit for flow in BY_FILE["nDPI__dns_fragmented.pcap"] for unit in told(flow)]
    assert len(BY_FILE["nDPI__dns_fragmented.pcap"]) == 21
    assert values(units, "qtype") == {b"A", b"AAAA", b"DNSKEY"}
    assert values(units, "client_subnet") == {None, b"2001:470:1f0b:1600::/56"}
    assert values(units, "rcode", TO_CLIENT) == {b"NOERROR", b"SERVFAIL"}
    assert values(units, "unasked", TO_CLIENT) == {0}
    assert (b"134.91.78.139",) in values(units, "answer")
    assert (b"2606:4700:30::6818:6291", b"2606:4700:30::6818:6391") in values(units, "answer")
    keys = {
        text
        for unit in units
        if unit.fields["dns.qtype"] == b"DNSKEY" and unit.direction == TO_CLIENT
        for text in unit.fields["dns.answer"]  # type: ignore[union-attr]
    }
    # In fragments and over TCP: keys for the zone, keys for keys, and what signs them.
    assert {text[:9] for text in keys} == {b"256 3 10 ", b"257 3 10 ", b"DNSKEY 10"}  # type: ignore[index]


def test_a_server_seen_first_is_no_client() -> None:
    (fixed_ports,) = BY_FILE["zeek__dns53.pcap"]
    (unit,) = told(fixed_ports)
    assert (unit.direction, unit.fields["dns.unasked"]) == (TO_SERVER, 1)
    assert len(unit.fields["dns.answer"]) == 8  # type: ignore[arg-type]
    (reversed_,) = BY_FILE["suricata-verify__dns-reversed-tcp-1__dns.pcap"]
    (unit,) = told(reversed_)
    assert (unit.fields["dns.qname"], unit.fields["dns.udp_size"]) == (b"www.google.com", 512)


def test_tunnels() -> None:
    (flow,) = BY_FILE["nDPI__dns_long_domainname.pcap"]
    assert values(told(flow), "qname") == {b"gmr02c.16.0.fhkfhsdkfhsk.tunnel.example.com"}


@pytest.mark.parametrize("truth", EVASION, ids=[truth["file"] for truth in EVASION])
def test_evasion(truth: dict[str, str]) -> None:
    found = flows_of(f"../evasion/{truth['file']}")
    if truth["must"] == "deny":
        with pytest.raises(ParseError):
            told(found[0])
        return
    units = [unit for flow in found for unit in told(flow)]
    names = {unit.fields["dns.qname"].lower() for unit in units}  # type: ignore[union-attr]
    if truth["must"] == AMBIGUOUS:
        assert names <= {b"evil.example.com"}
    elif truth["mutation"] == "response_unsolicited":
        assert (names, values(units, "unasked")) == ({b"a.b"}, {1})
    else:
        assert names == {b"evil.example.com" if truth["l4"] == "tcp" else b"db.prod.internal"}
