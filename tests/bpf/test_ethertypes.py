"""Frames neither IP nor ARP: those pass whose ethertype the policy lists."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from fastpath.abi import Action, Limit
from fastpath.policy.model import Default, Policy, Rule
from tests.bpf.harness import GATEWAY_MAC, SENDER_MAC, Kernel

pytestmark = pytest.mark.root

MPLS, PPPOE = 0x8847, 0x8864
LINK = Ether(src=SENDER_MAC, dst=GATEWAY_MAC)
TAGS = {
    "untagged": (),
    "vlan": (Dot1Q(vlan=7),),
    "qinq": (Dot1AD(vlan=7), Dot1Q(vlan=9)),
}


def frame(ethertype: int, tags: tuple[Packet, ...] = (), content: bytes = bytes(46)) -> bytes:
    packet = LINK.copy()
    for tag in tags:
        packet /= tag.copy()
    packet.lastlayer().type = ethertype
    return bytes(packet / Raw(content))


def listed(kernel: Kernel, *ethertypes: int, default: Action = Action.DENY) -> None:
    kernel.apply(Policy((Rule("any", Action.ALLOW),), Default(default), ethertypes=ethertypes))


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("program", ["ms_ingress", "ms_egress"])
def test_what_is_listed_passes(kernel: Kernel, tags: str, program: str) -> None:
    listed(kernel, MPLS)
    outcome = kernel.send(frame(MPLS, TAGS[tags]), program)
    assert (outcome.said, outcome.stats, outcome.session) == ("pass", {"ethertype": 1}, None)
    assert kernel.send(frame(PPPOE, TAGS[tags]), program).said == "drop not_ip"
    listed(kernel, PPPOE)
    assert kernel.send(frame(PPPOE, TAGS[tags]), program).said == "pass"
    assert kernel.send(frame(MPLS, TAGS[tags]), program).said == "drop not_ip"


def test_nothing_is_listed(kernel: Kernel) -> None:
    listed(kernel, default=Action.ALLOW)
    for ethertype in (MPLS, 0x0600, 0xFFFF):
        assert kernel.send(frame(ethertype)).said == "drop not_ip"


def test_as_many_as_there_may_be(kernel: Kernel) -> None:
    every = tuple(range(0x9000, 0x9000 + Limit.POLICY_ETHERTYPES))
    listed(kernel, *every)
    assert {kernel.send(frame(ethertype)).said for ethertype in every} == {"pass"}
    assert {kernel.send(frame(each)).said for each in (every[0] - 1, every[-1] + 1)} == {"drop not_ip"}


def test_only_the_ethertype_behind_all_tags_counts(kernel: Kernel) -> None:
    listed(kernel, MPLS)
    three = (Dot1Q(vlan=1), Dot1Q(vlan=2), Dot1Q(vlan=3))
    assert kernel.send(frame(MPLS, three)).said == "drop not_ip"
    assert kernel.send(frame(0x9100, content=MPLS.to_bytes(2, "big") * 23)).said == "drop not_ip"
    # What the frame holds is of no account.
    assert kernel.send(frame(PPPOE, content=MPLS.to_bytes(2, "big") * 23)).said == "drop not_ip"


def test_cut_short(kernel: Kernel) -> None:
    """Nothing behind the ethertype is looked at; a tag must be whole."""
    listed(kernel, MPLS)
    assert kernel.send(frame(MPLS, content=b"")).said == "pass"
    assert kernel.send(frame(MPLS, (Dot1Q(vlan=7),), b"")[:16]).said == "drop truncated"
