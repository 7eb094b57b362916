"""Ethertypes that a policy lets pass: neither IP nor what belongs to it."""

from __future__ import annotations

from collections.abc import Iterable

from fastpath.abi import Limit
from fastpath.document import Node
from fastpath.policy.fields import some

MAX_ETHERTYPES = int(Limit.POLICY_ETHERTYPES)
# What is below is the length of an IEEE 802.3 frame.
_LOWEST = 0x0600
_NAMES = {
    "aoe": (0x88A2,), "cfm": (0x8902,), "eapol": (0x888E,), "ethercat": (0x88A4,), "fcoe": (0x8906, 0x8914),
    "goose": (0x88B8,), "ipx": (0x8137,), "lacp": (0x8809,), "lldp": (0x88CC,), "macsec": (0x88E5,),
    "mpls": (0x8847, 0x8848), "nsh": (0x894F,), "pppoe": (0x8863, 0x8864), "profinet": (0x8892,), "ptp": (0x88F7,),
    "rarp": (0x8035,), "roce": (0x8915,), "sampled-values": (0x88BA,), "wake-on-lan": (0x0842,),
}  # fmt: skip
# Rules judge them, or what is behind the tag; 0x9100 and 0x9200 are tags of old.
_OWN = {
    0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x8100: "VLAN tags", 0x88A8: "VLAN tags", 0x9100: "VLAN tags",
    0x9200: "VLAN tags",
}  # fmt: skip


def read_ethertypes(node: Node) -> tuple[int, ...]:
    """A list of names and numbers, in order of the numbers."""
    found = sorted({number for numbers in some(node, _read) for number in numbers})
    if len(found) > MAX_ETHERTYPES:
        raise node.fail(f"{len(found)} ethertypes; {MAX_ETHERTYPES} is the most")
    return tuple(found)


def ethertype_texts(ethertypes: Iterable[int]) -> list[str]:
    """For people: ``0x88cc``."""
    return [f"0x{number:04x}" for number in ethertypes]


def _read(node: Node) -> tuple[int, ...]:
    text = node.text(max_length=64)
    if text in _NAMES:
        return _NAMES[text]
    try:
        number = int(text, 0)
    except ValueError:
        raise node.fail(f"{text!r} is not one of {', '.join(_NAMES)} or a number like 0x88cc") from None
    if not _LOWEST <= number <= 0xFFFF:
        raise node.fail(f"{text} is not within 0x{_LOWEST:04x}..0xffff")
    if number in _OWN:
        raise node.fail(f"0x{number:04x} is {_OWN[number]}, which rules are about")
    return (number,)
