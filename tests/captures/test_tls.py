"""TLS of the public captures, and the strange hellos of those made for evasion."""

from __future__ import annotations

import pytest

from parsers.base import TO_CLIENT, TO_SERVER, ParseError, Said, Value
from parsers.tls import TlsParser
from tests.captures.streams import CapturedFlow, flows

# Nothing here is TLS as it should be: records of another protocol that truth.jsonl takes for TLS on purpose; a server
# that answers with HTTP; a certificate of more than 300 KB.
MALFORMED = {
    "nDPI__mongo_false_positive.pcapng": (0, "record_type"),
    "zeek__tls__https-to-http.pcap": (1, "record_type"),
    "zeek__tls__tls-fragmented-handshake.pcap.gz": (1, "certificate_too_long"),
}
HELLOS: dict[str, dict[str, Value]] = {
    "nDPI__tls_2_reasms.pcapng": {},
    "nDPI__tls_2_reasms_b.pcapng": {},
    "nDPI__443-git.pcap": {"tls.sni": b"github.com", "tls.version": (b"1.2",), "tls.alpn": (b"http/1.1",)},
    "nDPI__tls_ech.pcapng": {"tls.ech": 1, "tls.outer_sni": b"performance.radar.cloudflare.com"},
    "nDPI__tls-esni-fuzzed.pcap": {"tls.ech": 1},
    # FoxIO's own snapshot of this capture.
    "arkime__tls-alpn-h2.pcap": {"tls.sni": b"www.cloudflare.com", "tls.ja4": b"t12d4605h2_85626a9a5f7f_aaf95bb78ec9"},
    "zeek__tls__https-to-http.pcap": {"tls.ja4": b"t13i3111h2_e8f1e7e78f70_b26ce05bbdd6"},
    "zeek__tls__tls-fragmented-handshake.pcap.gz": {"tls.sni": b"104.236.167.107"},
}
SERVERS: dict[str, dict[str, Value]] = {
    "nDPI__443-git.pcap": {
        "tls.selected_version": b"1.2",
        "tls.cipher": 0xC02F,
        "tls.selected_alpn": b"http/1.1",
        "tls.certificate": (b"github.com", b"www.github.com"),
    },
    "nDPI__tls_ech.pcapng": {"tls.selected_version": b"1.3", "tls.cipher": 0x1301},
    "arkime__tls-alpn-h2.pcap": {
        "tls.selected_version": b"1.2",
        "tls.cipher": 0xCCA9,
        "tls.selected_alpn": b"h2",
        "tls.certificate": (b"cloudflare.com", b"www.cloudflare.com"),
    },
}
FLOWS = flows("tls", agree=False)


def told(flow: CapturedFlow) -> tuple[list[Said], tuple[int, str] | None]:
    """Units, and what the flow is refused for. Where its SYN is missing, the side that says hello is the client."""
    client = flow.parts[0][0]
    parser = TlsParser()
    units: list[Said] = []
    for direction, data in flow.parts:
        try:
            units += [event for event in parser.feed(abs(direction - client), data) if isinstance(event, Said)]
        except ParseError as error:
            return [*units, *(event for event in error.events if isinstance(event, Said))], (
                abs(direction - client),
                error.code,
            )
    return units, None


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_a_flow_of_the_captures(flow: CapturedFlow) -> None:
    name = flow.truth["file"]
    units, error = told(flow)
    assert error == MALFORMED.get(name)
    hellos = [unit for unit in units if unit.direction == TO_SERVER]
    servers = [unit for unit in units if unit.direction == TO_CLIENT]
    assert len(hellos) == (name != "nDPI__mongo_false_positive.pcapng")
    for unit in hellos:
        assert HELLOS.get(name, {}).items() <= unit.fields.items()
    if name in SERVERS:
        assert [dict(unit.fields) for unit in servers] == [SERVERS[name]]


def test_there_are_flows() -> None:
    assert {flow.truth["file"] for flow in FLOWS} >= HELLOS.keys() | MALFORMED.keys() | SERVERS.keys()
