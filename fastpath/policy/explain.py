"""Why a flow gets its verdict: the rule that decides, how its conditions match, and which rules nearly match.

The verdict is that of the compiled tables, walked as the kernel walks them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastpath.abi import Protocol, RuleFlag, Verdict
from fastpath.document import Network
from fastpath.policy.compiler.tables import Tables
from fastpath.policy.describe import app_names, icmp_texts, named, port_text, port_texts
from fastpath.policy.evaluate import Walk
from fastpath.policy.icmp import ECHO, has_types, read_type, type_text
from fastpath.policy.model import (
    ANY_APP,
    RECOGNISED,
    TCP,
    UDP,
    Policy,
    Rule,
    all_protocols,
    protocol_name,
    protocol_number,
)
from fastpath.policy.where import (
    ANYWHERE,
    HOST,
    NOWHERE,
    UNTAGGED,
    Context,
    Where,
    course_text,
    read_vlan,
    vlan_text,
    vlan_texts,
)

NEAR = 10

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_ADDRESS = re.compile(r"[0-9a-fA-F:.]{2,45}")
# Those of a group are written again and again.
_text: Callable[[Network], str] = lru_cache(1 << 14)(str)
_NUMBER = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Flow:
    """A first packet, or with `app` a flow whose application protocol is known. Ports are None where there are none, as
    is `icmp`, ``type << 8 | code``.
    """

    source: _Address
    destination: _Address
    l4: int
    sport: int | None = None
    dport: int | None = None
    app: Protocol | None = None
    icmp: int | None = None
    context: Context = NOWHERE

    @property
    def number(self) -> int:
        """Where it goes to, as the walks take it: port, or type and code."""
        return self.icmp or self.dport or 0

    @property
    def possible(self) -> int:
        """Mask of the application protocols that it may still be."""
        return all_protocols(self.l4) if self.app is None else 1 << self.app


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a rule, and a flow. `wanted` is None for any; `met` is what of it matched, None if nothing did."""

    name: str
    wanted: list[str] | None
    flow: str
    met: str | None


@dataclass(frozen=True, slots=True)
class Near:
    """A rule, 1 + index, and the only condition of it that does not hold."""

    rule: int
    failed: Condition


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a flow becomes when it turns out to be one of `apps`."""

    apps: list[str]
    walk: Walk


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict and its reasons. `conditions` are those of the deciding rule, none for a default; `later` what
    differs once the application protocol is known; `near` at most `NEAR` rules in order, and how many `more`.
    """

    flow: Flow
    walk: Walk
    conditions: list[Condition]
    later: list[Outcome]
    near: list[Near]
    more: int


def read_flow(
    *,
    source: str,
    destination: str,
    proto: str,
    sport: str | None = None,
    port: str | None = None,
    kind: str | None = None,
    app: str | None = None,
    from_zone: str | None = None,
    to_zone: str | None = None,
    vlan: str | None = None,
    zones: Collection[str] = (),
) -> Flow:
    """A flow of its texts; `kind` is ICMP's type, and code unless it is 0; `zones` are those that there are. ValueError
    says what is wrong with it.
    """
    ends = (_address("from", source), _address("to", destination))
    if ends[0].version != ends[1].version:
        raise ValueError(f"from and to are of two address families: {ends[0]} and {ends[1]}")
    l4 = _l4(proto)
    ports = (_port("sport", sport), _port("port", port))
    if l4 not in {TCP, UDP}:
        for name, given in zip(("sport", "port"), ports, strict=True):
            if given is not None:
                raise ValueError(f"{name}: {protocol_name(l4)} has no ports")
    elif ports[1] is None:
        raise ValueError(f"port is missing: {protocol_name(l4)} has ports")
    if kind is not None and not has_types(l4):
        raise ValueError(f"type: {protocol_name(l4)} has no types; only icmp and icmp6 do")
    context = Context(
        _zone("from_zone", from_zone, zones),
        _zone("to_zone", to_zone, zones),
        UNTAGGED if vlan is None else _vlan(vlan),
    )
    if from_zone == to_zone == HOST:
        raise ValueError("to_zone: the gateway's own traffic to itself goes nowhere")
    return Flow(*ends, l4, *ports, None if app is None else _app(app, l4), _icmp(kind, l4), context)


def explain(tables: Tables, flow: Flow) -> Explanation:
    """Judge a flow and say why."""
    policy = tables.policy
    where = (_packed(flow.source), _packed(flow.destination), flow.l4, flow.number)
    walk = tables.walk(*where, possible=flow.possible, context=flow.context)
    later: dict[tuple[Verdict, int], Outcome] = {}
    if flow.app is None and flow.l4 in {TCP, UDP}:
        for name in app_names(flow.possible):
            known = tables.walk(*where, possible=1 << Protocol[name.upper()], context=flow.context)
            if (known.verdict, known.rule) != (walk.verdict, walk.rule):
                later.setdefault((known.verdict, known.rule), Outcome([], known)).apps.append(name)
    near: list[Near] = []
    more = 0
    for index, of_source, of_destination in tables.likely(*where):
        rule = policy.rules[index]
        # A rule that misses a side has the protocol and port.
        failed = (
            [each for each in _of_service(rule, flow) if each.met is None]
            if of_source == of_destination or rule.apps != ANY_APP
            else []
        )
        if len(failed) + (not of_source) + (not of_destination) != 1:
            continue
        if len(near) == NEAR:
            more += 1
        else:
            near.append(Near(index + 1, next(each for each in (*failed, *_of_sides(rule, flow)) if each.met is None)))
    decider = policy.decider(walk.rule)
    own = conditions(decider, flow) if isinstance(decider, Rule) else []
    return Explanation(flow, walk, own, list(later.values()), near, more)


def conditions(rule: Rule, flow: Flow) -> list[Condition]:
    """All conditions of a rule, in the order of the file's fields."""
    return [*_of_sides(rule, flow), *_of_service(rule, flow)]


def _of_sides(rule: Rule, flow: Flow) -> Iterator[Condition]:
    yield _of_address("from", rule.sources, flow.source)
    yield _of_address("to", rule.destinations, flow.destination)


def _of_service(rule: Rule, flow: Flow) -> list[Condition]:
    proto = protocol_name(flow.l4)
    met_apps = ["any"] if rule.apps == ANY_APP else app_names(rule.apps & flow.possible)
    return [
        Condition(
            "proto",
            [protocol_name(l4) for l4 in rule.protocols] or None,
            proto,
            "any" if not rule.protocols else proto if flow.l4 in rule.protocols else None,
        ),
        Condition(
            "ports",
            port_texts(rule) or None,
            "none" if flow.dport is None else str(flow.dport),
            _met_port(rule, flow),
        ),
        Condition(
            "types",
            icmp_texts(rule) or None,
            "none" if flow.icmp is None else type_text(flow.l4, flow.icmp),
            _met_type(rule, flow),
        ),
        Condition(
            "app",
            None if rule.apps == ANY_APP else app_names(rule.apps),
            "not known yet" if flow.app is None else flow.app.name.lower(),
            ", ".join(met_apps) or None,
        ),
        *_where(rule.where or ANYWHERE, flow.context),
    ]


def _where(where: Where, context: Context) -> Iterator[Condition]:
    """Of zones and the like, which few rules ask for, only those that this one does."""
    from_zone, to_zone = context.from_zone or "none", context.to_zone or "none"
    tag = vlan_text(context.vlan, context.vlan)
    tags = (vlan_text(low, high) for low, high in where.vlans if low <= context.vlan <= high)
    course = course_text(context.course)
    for name, wanted, flow, met in (
        ("from_zone", where.from_zones, from_zone, from_zone if context.from_zone in where.from_zones else None),
        ("to_zone", where.to_zones, to_zone, to_zone if context.to_zone in where.to_zones else None),
        (
            "direction",
            tuple(map(course_text, where.courses)),
            course,
            course if context.course in where.courses else None,
        ),
        ("vlan", tuple(vlan_texts(where.vlans)), tag, next(tags, None)),
    ):
        if wanted:
            yield Condition(name, list(wanted), flow, met)


def _met_port(rule: Rule, flow: Flow) -> str | None:
    if not rule.ports and not rule.udp_ports:
        return "any"
    if flow.dport is None:
        # Ports do not concern the rule's other protocols.
        return "any" if flow.l4 in rule.protocols else None
    within = (each for each in rule.ports_of(flow.l4) if each[0] <= flow.dport <= each[1])
    return next((port_text(*each) for each in within), None)


def _met_type(rule: Rule, flow: Flow) -> str | None:
    if not rule.icmp_types and not rule.icmp6_types:
        return "any"
    if flow.icmp is None:
        return "any" if flow.l4 in rule.protocols else None
    if flow.l4 not in rule.protocols:
        return None
    spans = rule.ports_of(flow.l4)
    if spans == ((0, 65535),):
        return "any"
    met = any(low <= flow.icmp <= high for low, high in spans)
    return type_text(flow.l4, flow.icmp) if met else None


def as_json(policy: Policy, explanation: Explanation) -> dict[str, Any]:
    """The same for programs."""
    flow = explanation.flow
    return {
        "flow": {
            "from": str(flow.source),
            "to": str(flow.destination),
            "proto": protocol_name(flow.l4),
            "sport": flow.sport,
            "port": flow.dport,
            "type": None if flow.icmp is None else type_text(flow.l4, flow.icmp),
            "app": flow.app.name.lower() if flow.app is not None else None,
            "from_zone": flow.context.from_zone,
            "to_zone": flow.context.to_zone,
            "vlan": flow.context.vlan or None,
        },
        **_judged(policy, explanation.walk),
        "conditions": [_condition(each) for each in explanation.conditions],
        "later": [{"apps": each.apps, **_judged(policy, each.walk)} for each in explanation.later],
        "near": [{"rule": named(policy, each.rule), **_condition(each.failed)} for each in explanation.near],
        "near_more": explanation.more,
    }


def _judged(policy: Policy, walk: Walk) -> dict[str, Any]:
    return {
        "verdict": walk.verdict.name.lower(),
        "enforced": not walk.flags & RuleFlag.MONITOR,
        "reason": walk.reason.name.lower(),
        "rule": named(policy, walk.rule),
    }


def _condition(each: Condition) -> dict[str, Any]:
    return {"condition": each.name, "wanted": each.wanted, "flow": each.flow, "met": each.met}


def _of_address(name: str, networks: Sequence[Network], address: _Address) -> Condition:
    met = "any" if not networks else next((_text(network) for network in networks if address in network), None)
    return Condition(name, [_text(network) for network in networks] or None, str(address), met)


def _packed(address: _Address) -> bytes:
    return (bytes(10) + b"\xff\xff" if address.version == 4 else b"") + address.packed


def _address(name: str, text: str) -> _Address:
    try:
        # Zones are also accepted by `ipaddress`: fe80::%eth0.
        if not _ADDRESS.fullmatch(text):
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{name}: {text[:60]!r} is not an IPv4 or IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"{name}: {text} is an IPv4-mapped address; write {address.ipv4_mapped}")
    return address


def _l4(text: str) -> int:
    try:
        return protocol_number(text)
    except ValueError as error:
        raise ValueError(f"proto: {error}") from None


def _port(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > 65535:
        raise ValueError(f"{name}: {text[:60]!r} is not a port, 0..65535")
    return int(text)


def _icmp(text: str | None, l4: int) -> int | None:
    if not has_types(l4):
        return None
    try:
        # Of a type all codes: the first is 0.
        return read_type(ECHO if text is None else text, l4)[0]
    except ValueError as error:
        raise ValueError(f"type: {error}") from None


def _zone(name: str, text: str | None, zones: Collection[str]) -> str | None:
    if text is None or text == HOST or text in zones:
        return text
    raise ValueError(f"{name}: gateway.yaml has no zone {text[:60]!r}")


def _vlan(text: str) -> int:
    try:
        return read_vlan(text)
    except ValueError as error:
        raise ValueError(f"vlan: {error}") from None


def _app(text: str, l4: int) -> Protocol:
    found = next((app for app in RECOGNISED if app.name.lower() == text), None)
    if found is None:
        names = ", ".join(app.name.lower() for app in RECOGNISED)
        raise ValueError(f"app: {text[:60]!r} is not one of {names}")
    if l4 not in {TCP, UDP}:
        raise ValueError(f"app: {protocol_name(l4)} carries no application protocol; only tcp and udp do")
    if not all_protocols(l4) >> found & 1:
        raise ValueError(f"app: {text} never runs over {protocol_name(l4)}")
    return found
