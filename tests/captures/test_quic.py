"""QUIC of the public captures: every flow's hello is read."""

from __future__ import annotations

from parsers.base import Said, Value
from parsers.quic import QuicParser
from tests.captures.streams import CapturedFlow, flows

FACTS: dict[str, dict[str, Value]] = {
    "nDPI__quic-34.pcap": {"quic.version": b"draft-34"},
    "nDPI__quic_frags_ch_in_multiple_packets.pcapng": {"quic.version": b"1"},
    "zeek__quic__quic-multiple-initial-fragmented-crypto.pcap": {
        "quic.version": b"1",
        "tls.alpn": (b"h3",),
        "tls.ech": 1,
        "tls.outer_sni": b"googleads.g.doubleclick.net",
    },
    "arkime__quicietfooo.pcap": {"tls.sni": b"ssl.gstatic.com", "tls.version": (b"1.3",)},
    "suricata-verify__quic-frag-unordered__input.pcap": {"tls.outer_sni": b"mastodon.social"},
    "suricata-verify__quic-frag__input.pcap": {"tls.outer_sni": b"token.services.mozilla.com"},
}
CRAZINESS = "nDPI__quic_frags_ch_out_of_order_same_packet_craziness.pcapng"


def told(flow: CapturedFlow) -> list[Said]:
    parser = QuicParser()
    return [
        event for direction, data in flow.parts for event in parser.feed(direction, data) if isinstance(event, Said)
    ]


def test_every_flow_says_hello() -> None:
    seen = set()
    for flow in flows("quic", agree=False):
        unit, *again = told(flow)
        assert all(other.fields == unit.fields for other in again)
        name = flow.truth["file"]
        seen.add(name)
        assert FACTS.get(name, {}).items() <= unit.fields.items()
        if name == CRAZINESS:
            assert unit.fields["quic.version"] in {b"1", b"draft-29"}
            assert unit.fields["tls.sni"]
    assert seen == FACTS.keys() | {CRAZINESS}
