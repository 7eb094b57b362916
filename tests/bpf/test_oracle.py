"""The kernel's walk, and the verdicts of real frames, are what the oracle says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
import scapy.packet
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from fastpath.abi import Status, Zone
from fastpath.policy.compiler import forest
from fastpath.policy.model import Policy
from fastpath.word import Word
from tests.bpf.harness import ICMP_L4, ICMPV6_L4, QUERIES, TCP_L4, UDP_L4, Flow, Kernel, key_of
from tests.oracle import Answer, Packet, draw_document, draw_packets, judge
from tests.oracle.documents import ZONES
from tests.oracle.meaning import Document
from tests.oracle.product import answer, flow, load

pytestmark = pytest.mark.root

# Each policy costs the kernel grace periods, about 0.1 s.
WALKED, SENT = range(200), range(200, 280)


def drawn(kernel: Kernel, folder: Path, seeds: range, packets: int) -> Iterator[tuple[str, Document, Policy, Packet]]:
    """So many packets a policy, each with what to call it, and the policy that is in force."""
    for seed in seeds:
        choose = random.Random(seed)
        document = draw_document(choose)
        policy = load(document, folder)
        kernel.apply(policy)
        for packet in draw_packets(choose, document, packets):
            yield f"seed {seed}: {packet}", document, policy, packet


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seeds", "crowd"), [(WALKED[:120], forest.CROWD), (WALKED[120:], 0)])
def test_the_walk(kernel: Kernel, tmp_path: Path, seeds: range, crowd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a crowd, few rules would be filed under their sources.
    monkeypatch.setattr(forest, "CROWD", crowd)
    verdicts: Counter[str] = Counter()
    for name, document, policy, packet in drawn(kernel, tmp_path, seeds, 40):
        numbers = policy.zone_numbers
        from_zone, to_zone = numbers[packet.from_zone], numbers[packet.to_zone]
        walked = kernel.commands.walk(*flow(packet), from_zone=from_zone, to_zone=to_zone, vlan=packet.vlan or 0)
        assert (walked.status, walked.revision) == (Status.OK, kernel.revisions.revision), name
        expected = judge(document, packet)
        assert answer(policy, walked.verdict, walked.rule_flags) == expected, name
        verdicts[expected.verdict] += 1
    assert verdicts.total() > 35 * len(seeds)
    assert verdicts.keys() == {"allow", "deny", "inspect", "undecided"}


@pytest.mark.timeout(300)
def test_frames(kernel: Kernel, tmp_path: Path) -> None:
    verdicts: Counter[str] = Counter()
    kernel.commands.heartbeat()
    # The default route leads from one to the other.
    kernel.manage(*(kernel.namespace.ifindex[name] for name in ("seg0", "seg1")), zones=[Zone.FIRST, Zone.FIRST + 1])
    for name, document, policy, packet in drawn(kernel, tmp_path, SENT, 120):
        frame = frame_of(packet)
        if frame is None:
            continue
        outcome = kernel.send(frame)
        expected = judge(document, replace(packet, apps=frozenset(), from_zone=ZONES[0], to_zone=ZONES[1]))
        word = outcome.entry.verdict
        number = Word.unpack(word).rule
        assert answer(policy, word, policy.decider(number).flags) == expected, name
        assert outcome.said in said(expected, packet), name
        kernel.table.delete(key_of(frame))
        verdicts[expected.verdict] += 1
    assert verdicts.total() > 2000
    assert verdicts.keys() == {"allow", "deny", "inspect", "undecided"}


def said(expected: Answer, packet: Packet) -> set[str]:
    """What may become of the frame."""
    if expected.verdict == "deny":
        # A reset goes back.
        stopped = "redirect" if packet.proto == TCP_L4 and "reset" in expected.flags else "drop"
        return {f"{'pass' if 'monitor' in expected.flags else stopped} {expected.reason}"}
    # Of a handshake there is nothing to inspect.
    return {"pass", "redirect"} if expected.verdict == "inspect" else {"pass"}


def frame_of(packet: Packet) -> scapy.packet.Packet | None:
    """A frame; none where its addresses, or its protocol in this family, are not for policy to judge."""
    if not all(map(is_plausible, (packet.src, packet.dst))) or packet.src == packet.dst or packet.dport == 0:
        return None
    bare = _untagged(packet)
    if bare is None or packet.vlan is None:
        return bare
    return Ether(src=bare.src, dst=bare.dst) / Dot1Q(vlan=packet.vlan) / bare.payload


def _untagged(packet: Packet) -> scapy.packet.Packet | None:
    version = ip_address(packet.src).version
    of = Flow(version, dport=packet.dport or 0, client=packet.src, server=packet.dst)
    if packet.proto == TCP_L4:
        return of.segment("S")
    if packet.proto == UDP_L4:
        return of.datagram()
    if packet.proto in {ICMP_L4, ICMPV6_L4}:
        return message_of(of, packet)
    # Number 0 is IPv6's hop-by-hop options.
    return of.ip(**{"proto" if version == 4 else "nh": packet.proto}) / Raw(bytes(24)) if packet.proto else None


def message_of(of: Flow, packet: Packet) -> scapy.packet.Packet | None:
    """What rules judge: no errors, no neighbour discovery, and a reply that nobody asked for has another key."""
    kind, code = divmod(packet.dport or 0, 256)
    wanted = packet.proto == (ICMP_L4 if of.version == 4 else ICMPV6_L4)
    if not wanted or kind in QUERIES[packet.proto] or (of.version == 6 and (kind < 5 or 130 <= kind <= 137)):
        return None
    return of.message(kind, code)


def is_plausible(text: str) -> bool:
    """Some host's own: not of the ranges that lib/martian.h refuses, nor multicast."""
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return 0 < int(address) >> 24 < 224 and not address.is_loopback
    return int(address) >> 64 != 0 and not address.is_multicast
