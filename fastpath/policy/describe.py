"""Rules as the file says them, ready for JSON, and what differs between two policies."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any

from fastpath.policy.ethertypes import ethertype_texts
from fastpath.policy.icmp import type_texts
from fastpath.policy.model import (
    ANY_APP,
    DEFAULT_ID,
    ICMP,
    ICMP6,
    RECOGNISED,
    TCP,
    UDP,
    Default,
    PairDefault,
    Policy,
    Rule,
    merged,
    protocol_name,
)
from fastpath.policy.where import ANYWHERE, Where, course_text, vlan_texts


def app_names(mask: int) -> list[str]:
    """Application protocols that are recognised, of a mask of ``1 << Protocol``."""
    return [app.name.lower() for app in RECOGNISED if mask >> app & 1]


def port_text(low: int, high: int) -> str:
    """A port or a range of them."""
    return str(low) if low == high else f"{low}-{high}"


def port_texts(rule: Rule) -> list[str]:
    """Ports and ranges, in order; each with its protocol where they differ: ``udp/53``."""
    if rule.udp_ports is None:
        return [port_text(low, high) for low, high in merged(rule.ports)]
    return [
        f"{protocol_name(l4)}/{port_text(low, high)}" for l4 in (TCP, UDP) for low, high in merged(rule.ports_of(l4))
    ]


def icmp_texts(rule: Rule) -> list[str]:
    """Types and codes, each with its protocol: ``icmp/echo-request``; none where all do."""
    if not rule.icmp_types and not rule.icmp6_types:
        return []
    return [
        f"{protocol_name(l4)}/{text}"
        for l4, types in ((ICMP, rule.icmp_types), (ICMP6, rule.icmp6_types))
        if l4 in rule.protocols
        for text in ([each for span in merged(types) for each in type_texts(l4, *span)] or ["any"])
    ]


def place(policy: Policy, number: int) -> str:
    """Where a rule stands, ``file:line``; 0 is the default."""
    rule = policy.decider(number)
    if not isinstance(rule, Rule | PairDefault):
        return policy.file
    file = rule.file or policy.file
    return f"{file}:{rule.line}" if rule.line else file


def rule_id(policy: Policy, number: int) -> str:
    """Id of a rule; 0 is the default."""
    rule = policy.decider(number)
    return rule.id if isinstance(rule, Rule | PairDefault) else DEFAULT_ID


def named(policy: Policy, number: int) -> dict[str, Any]:
    """Which rule: ``number``, ``id``, ``place``."""
    return {"number": number, "id": rule_id(policy, number), "place": place(policy, number)}


def fields(rule: Rule) -> dict[str, Any]:
    """Every field but the id; None is "any", or "none" of rule files."""
    return {
        "description": rule.description,
        "priority": rule.priority,
        "from": [str(network) for network in rule.sources] or None,
        "to": [str(network) for network in rule.destinations] or None,
        "proto": [protocol_name(l4) for l4 in rule.protocols] or None,
        "ports": port_texts(rule) or None,
        "types": icmp_texts(rule) or None,
        "app": None if rule.apps == ANY_APP else app_names(rule.apps),
        **where_fields(rule.where or ANYWHERE),
        "action": rule.action.name.lower(),
        "rules": [use.name for use in rule.rule_files] or None,
        **_attributes(rule),
        "on_inspector_down": "allow" if rule.down_allow else "deny",
    }


def where_fields(where: Where) -> dict[str, Any]:
    """The same of zones and the like."""
    return {
        "from_zone": list(where.from_zones) or None,
        "to_zone": list(where.to_zones) or None,
        "direction": [course_text(course) for course in where.courses] or None,
        "vlan": vlan_texts(where.vlans) or None,
    }


def default_fields(default: Default) -> dict[str, Any]:
    """The same of a default, as far as it has them."""
    zones = {}
    if isinstance(default, PairDefault):
        names = (default.from_zone, default.to_zone)
        zones = {name: [zone] if zone else None for name, zone in zip(("from_zone", "to_zone"), names, strict=True)}
    return zones | {"action": default.action.name.lower(), **_attributes(default)}


def _attributes(rule: Rule | Default) -> dict[str, Any]:
    return {
        "deny_with": "reset" if rule.reset else "drop",
        "log": str(rule.log),
        "mode": "monitor" if rule.monitor else "enforce",
    }


def difference(old: Policy, new: Policy) -> dict[str, Any]:
    """What `new` changes, by id: ``added``, ``removed``, ``changed`` (old and new value of each field), ``moved``
    (the fewest rules without which the others keep their order), ``default``, ``ethertypes`` and, all of them old and
    new if their meaning or order changes, ``defaults``; empty where nothing does.
    """
    before = {rule.id: number for number, rule in enumerate(old.rules, 1)}
    after = {rule.id: number for number, rule in enumerate(new.rules, 1)}
    kept = [rule.id for rule in new.rules if rule.id in before]
    changed = [
        {**named(new, after[each]), "fields": differing}
        for each in kept
        if (differing := _differing(fields(old.rules[before[each] - 1]), fields(new.rules[after[each] - 1])))
    ]
    still = _longest_rising([before[each] for each in kept])
    return {
        "old": old.file,
        "new": new.file,
        "added": [named(new, number) | fields(new.rules[number - 1]) for number in _others(after, before)],
        "removed": [named(old, number) | fields(old.rules[number - 1]) for number in _others(before, after)],
        "changed": changed,
        "moved": [{"id": each, "old": before[each], "new": after[each]} for each in kept if before[each] not in still],
        "default": _differing(default_fields(old.default), default_fields(new.default)),
        "ethertypes": _differing(_passing(old), _passing(new)),
        "defaults": _differing({"defaults": _defaults(old)}, {"defaults": _defaults(new)}),
    }


def _passing(policy: Policy) -> dict[str, Any]:
    return {"ethertypes": ethertype_texts(policy.ethertypes) or None}


def _defaults(policy: Policy) -> list[str]:
    """In a line each."""
    return [
        f"{each.id} {each.action.name.lower()} {' '.join(map(str, _attributes(each).values()))}"
        for each in policy.defaults
    ]


def _others(numbers: Mapping[str, int], known: Mapping[str, int]) -> Iterator[int]:
    return (number for each, number in numbers.items() if each not in known)


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"old": old[name], "new": new[name]} for name in old if old[name] != new[name]}


def _longest_rising(numbers: list[int]) -> set[int]:
    """The most of them that stand in rising order; they are different."""
    ends: list[int] = []  # of the rising rows by length, the smallest last number
    before: dict[int, int | None] = {}
    for number in numbers:
        length = bisect_left(ends, number)
        before[number] = ends[length - 1] if length else None
        ends[length : length + 1] = [number]
    row: set[int] = set()
    last = ends[-1] if ends else None
    while last is not None:
        row.add(last)
        last = before[last]
    return row
