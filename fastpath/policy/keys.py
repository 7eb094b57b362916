"""Keys: where protocols and ports stand in a policy's tables, and which of them a rule meets."""

from __future__ import annotations

from collections.abc import Sequence

from fastpath.abi import PolicyKey
from fastpath.policy.icmp import has_types, type_text
from fastpath.policy.model import ICMP, ICMP6, TCP, UDP, Rule, merged, protocol_name

# Where each protocol's keys begin.
KEY_BASE = {
    TCP: int(PolicyKey.TCP), UDP: int(PolicyKey.UDP), ICMP: int(PolicyKey.ICMP), ICMP6: int(PolicyKey.ICMPV6),
}  # fmt: skip
KEY_OTHER = int(PolicyKey.OTHER)
KEYS = int(PolicyKey.MAX)

# Keys, both within.
Span = tuple[int, int]


def key_of(l4: int, dport: int) -> int:
    """Where a packet's protocol and port (of ICMP type and code) stand among the keys."""
    return KEY_BASE[l4] + dport if l4 in KEY_BASE else KEY_OTHER + l4


def key_spans(rule: Rule) -> tuple[Span, ...]:
    """Keys that a rule meets, inclusive ranges in order, none touching the next."""
    if not rule.protocols:
        return ((0, KEYS - 1),)
    spans: list[Span] = []
    for l4 in rule.protocols:
        if l4 in KEY_BASE:
            spans += [(KEY_BASE[l4] + low, KEY_BASE[l4] + high) for low, high in rule.ports_of(l4)]
        else:
            spans.append((KEY_OTHER + l4, KEY_OTHER + l4))
    return tuple(merged(spans))


def key_text(key: int) -> str:
    """A key for people: ``tcp/443``, ``icmp/echo-request``, ``gre``."""
    for l4, base in KEY_BASE.items():
        if base <= key < base + 65536:
            number = key - base
            return f"{protocol_name(l4)}/{type_text(l4, number) if has_types(l4) else number}"
    return protocol_name(key - KEY_OTHER)


def meets(spans: Sequence[Span], key: int) -> bool:
    """A key is in one of the spans."""
    return any(low <= key <= high for low, high in spans)


class Spans:
    """Keys of rules; the same object for the same keys."""

    def __init__(self) -> None:
        self._known: dict[object, tuple[Span, ...]] = {}
        self._same: dict[tuple[Span, ...], tuple[Span, ...]] = {}

    def of(self, rule: Rule) -> tuple[Span, ...]:
        """As `key_spans`."""
        fields = (rule.protocols, rule.ports, rule.udp_ports, rule.icmp_types, rule.icmp6_types)
        known = self._known.get(fields)
        if known is None:
            spans = key_spans(rule)
            known = self._known[fields] = self._same.setdefault(spans, spans)
        return known
