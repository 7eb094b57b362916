"""A rule, or a default, of a policy's document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastpath.abi import Action, Protocol
from fastpath.document import Node
from fastpath.policy.fields import Fields
from fastpath.policy.groups import Groups
from fastpath.policy.model import (
    ANY_APP,
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    RECOGNISED,
    TCP,
    UDP,
    Default,
    DenyWith,
    Log,
    Mode,
    PairDefault,
    Rule,
    RuleFileUse,
    all_protocols,
    is_default,
    protocol_name,
)
from fastpath.policy.services import Services, Traffic, carry_ports, protocols_and_ports
from fastpath.policy.where import HOST, WHERE_FIELDS, read_where, zone_reader

# Digest of a rule file's contents by its name, None when there is no such file.
RuleHash = Callable[[str], str | None]
# Names of the zones that gateway.yaml has; None where there is none to ask, and any name will do.
Zones = Sequence[str] | None

_ATTRIBUTES = ("deny_with", "log", "mode")
_OPTIONAL = (
    *("description", "priority", "from", "to", "service", "proto", "ports", "types", "app", "rules"),
    "on_inspector_down",
    *WHERE_FIELDS,
    *_ATTRIBUTES,
)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all rules of a policy are read with."""

    groups: Groups
    services: Services
    monitor: bool
    default: Default
    ethertypes: tuple[int, ...]
    defaults: tuple[PairDefault, ...]
    zones: Zones


def read_default(node: Node, monitor: bool) -> Default:
    """`default`: what no rule matches; `monitor` is the policy's mode."""
    if not node.is_mapping:
        return Default(_answer(node), monitor=monitor)
    return Default(**_default_attributes(Fields(node.mapping(optional=("action", *_ATTRIBUTES))), monitor))


def _default_attributes(fields: Fields, monitor: bool) -> dict[str, Any]:
    return {
        "action": fields.one("action", _answer, Action.DENY),
        # Silence by default: an answer to a scan is a map of the network.
        "reset": fields.one("deny_with", lambda value: value.choice(DenyWith), DenyWith.DROP) == DenyWith.RESET,
        "log": _log(fields),
        "monitor": read_monitor(fields, absent=monitor),
    }


def _answer(node: Node) -> Action:
    return node.choice(Action, allowed=(Action.ALLOW, Action.DENY))


def read_defaults(node: Node, monitor: bool, zones: Zones) -> tuple[PairDefault, ...]:
    """`defaults`: the same for pairs of zones."""
    read = (item.attempt(lambda item: _pair_default(item, monitor, zones)) for item in node.items())
    found: dict[str, PairDefault] = {}
    for item, each in zip(node.items(), read, strict=True):
        if each is None:
            continue
        if (other := found.setdefault(each.id, each)) is not each:
            item.report(f"this pair of zones has its default in line {other.line} already")
    return tuple(found.values())


def _pair_default(node: Node, monitor: bool, zones: Zones) -> PairDefault:
    fields = Fields(nodes := node.mapping(required=("action",), optional=("from_zone", "to_zone", *_ATTRIBUTES)))
    if not nodes.keys() & {"from_zone", "to_zone"}:
        node.report("names no zone: that is `default`")
    from_zone, to_zone = (fields.one(name, zone_reader(zones), "") for name in ("from_zone", "to_zone"))
    if from_zone == to_zone == HOST:
        node.report("never matches: the gateway's own traffic to itself goes nowhere")
    return PairDefault(
        **_default_attributes(fields, monitor), from_zone=from_zone, to_zone=to_zone, line=node.line, file=node.file
    )


def read_rule(node: Node, shared: Shared, rule_hash: RuleHash) -> Rule:
    """One item of `rules`."""
    fields = Fields(nodes := node.mapping(required=("id", "action"), optional=_OPTIONAL))
    rule_id = fields.one("id", _id, "")
    action = nodes["action"].choice(Action)
    over = _traffic(fields, shared.services)
    protocols = over.protocols
    apps = fields.some("app", _app)
    sources = shared.groups.networks(fields.some("from", shared.groups.member))
    destinations = shared.groups.networks(fields.some("to", shared.groups.member))
    if sources and destinations and not sources.versions & destinations.versions:
        fields.report("to", "never matches: `from` and `to` have no address family in common")
    may_be_tcp = not protocols or TCP in protocols
    named = "service" if "service" in fields else "proto"
    # A broken `proto` or `service` was reported already; what hangs on it would only repeat that.
    if protocols or named not in fields:
        if "app" in fields and not carry_ports(protocols):
            fields.report("app", "needs `proto: tcp`, `udp` or both, and no other")
        if apps and carry_ports(protocols):
            _check_carried(fields, protocols, apps)
        if action == Action.INSPECT and protocols and not set(protocols) & {TCP, UDP}:
            fields.report(named, "only tcp and udp can be inspected")
    with_ = fields.one("deny_with", lambda value: value.choice(DenyWith), None)
    if with_ == DenyWith.RESET and not may_be_tcp:
        fields.report("deny_with", "only tcp can be reset")
    if "rules" in fields and action != Action.INSPECT:
        fields.report("rules", "rule files belong to `action: inspect`")
    where = read_where(fields, shared.zones)
    return Rule(
        id=rule_id,
        action=action,
        sources=sources,
        destinations=destinations,
        protocols=protocols,
        ports=over.ports,
        udp_ports=over.udp_ports,
        icmp_types=over.icmp_types,
        icmp6_types=over.icmp6_types,
        apps=sum({1 << app for app in apps}) if apps else ANY_APP,
        where=where,
        rule_files=fields.some("rules", lambda value: _rule_file(value, rule_hash)),
        # Also of an allow rule: an exception may deny its flows.
        reset=may_be_tcp and with_ != DenyWith.DROP,
        log=_log(fields),
        monitor=read_monitor(fields, absent=shared.monitor),
        down_allow=fields.one(
            "on_inspector_down",
            _answer,
            Action.DENY,
        )
        == Action.ALLOW,
        priority=fields.one("priority", lambda value: value.integer(0, MAX_PRIORITY), DEFAULT_PRIORITY),
        description=fields.one("description", lambda value: value.text(), ""),
        line=node.line,
        file=node.file,
    )


def _traffic(fields: Fields, services: Services) -> Traffic:
    if "service" not in fields:
        product = protocols_and_ports(fields)
        return Traffic(product.protocols, product.ports, None, product.icmp_types, product.icmp6_types)
    if "proto" in fields or "ports" in fields or "types" in fields:
        fields.report("service", "stands in place of `proto`, `ports` and `types`: write it or them")
    return services.traffic(fields.some("service", services.name))


def _log(fields: Fields) -> Log:
    return fields.one("log", lambda node: node.choice(Log), Log.DENY)


def read_monitor(fields: Fields, *, absent: bool) -> bool:
    """`mode`: whether to let pass what would be denied."""
    mode = fields.one("mode", lambda node: node.choice(Mode), None)
    return absent if mode is None else mode == Mode.MONITOR


def _id(node: Node) -> str:
    value = node.text(max_length=128)
    if not value.isprintable():
        raise node.fail("an id is printable text")
    if is_default(value):
        raise node.fail(f"{value[:40]!r} is what records call a default")
    return value


def _app(node: Node) -> Protocol:
    return node.choice(Protocol, allowed=RECOGNISED)


def _check_carried(fields: Fields, protocols: tuple[int, ...], apps: tuple[Protocol, ...]) -> None:
    idle = [number for number in sorted(set(protocols)) if not any(all_protocols(number) >> app & 1 for app in apps)]
    if idle:
        fields.report("app", f"never matches over {' and '.join(map(protocol_name, idle))}")
        return
    for app in apps:
        if not any(all_protocols(number) >> app & 1 for number in protocols):
            fields.report("app", f"{app.name.lower()} never runs over {' or '.join(map(protocol_name, protocols))}")


def _rule_file(node: Node, rule_hash: RuleHash) -> RuleFileUse:
    name = node.text(max_length=128)
    digest = rule_hash(name)
    if digest is None:
        raise node.fail(f"there is no rule file {name!r}")
    return RuleFileUse(name, digest)
