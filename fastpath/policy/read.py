"""A policy file, or a folder of them: YAML to `Policy`, all problems at once, each with its place.

configs/policy.yaml shows every field. What is not known here is refused, never ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastpath.abi import Action, Protocol
from fastpath.document import Node, Problems, without_collector
from fastpath.policy.fields import Fields, place
from fastpath.policy.folder import read_documents
from fastpath.policy.groups import MAX_NETWORKS, Groups
from fastpath.policy.model import (
    ANY_APP,
    DEFAULT_ID,
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    MAX_RULES,
    RECOGNISED,
    TCP,
    UDP,
    Default,
    Log,
    Policy,
    Rule,
    RuleFileUse,
    all_protocols,
    protocol_name,
)
from fastpath.policy.services import Services, Traffic, carry_ports, protocols_and_ports

# Digest of a rule file's contents by its name, None when there is no such file.
RuleHash = Callable[[str], str | None]

_DOCUMENT = ("default", "mode", "groups", "services", "rules")
_ATTRIBUTES = ("deny_with", "log", "mode")
_OPTIONAL = (
    *("description", "priority", "from", "to", "service", "proto", "ports", "app", "rules", "on_inspector_down"),
    *_ATTRIBUTES,
)


class _Mode(enum.Enum):
    ENFORCE = enum.auto()
    MONITOR = enum.auto()


class _DenyWith(enum.Enum):
    RESET = enum.auto()
    DROP = enum.auto()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all rules of a policy are read with."""

    groups: Groups
    services: Services
    monitor: bool
    rule_hash: RuleHash


def load_policy(path: Path, rule_hash: RuleHash) -> Policy:
    """Read a policy's file or folder. InvalidDocumentError has all its problems, with their places."""
    problems = Problems()
    with without_collector():
        documents = read_documents(path, problems)
        roots = [root for root in documents if root is not None]
        policy = _policy(roots, str(path), rule_hash, complete=len(roots) == len(documents))
    problems.raise_if_any()
    return policy


def read_policy(root: Node, rule_hash: RuleHash) -> Policy:
    """The policy of a single document's root; problems are reported to it."""
    return _policy([root], root.file, rule_hash, complete=True)


def _policy(roots: Sequence[Node], file: str, rule_hash: RuleHash, *, complete: bool) -> Policy:
    """Of all documents together; `complete`: none is missing here that could define a name."""
    attempts = [root.attempt(lambda root: root.mapping(optional=_DOCUMENT)) for root in roots]
    files = [fields for fields in attempts if fields is not None]
    complete = complete and len(files) == len(roots)
    top = Fields({name: node for name in ("default", "mode") for node in _only(files, name)})
    monitor = _monitor(top, absent=False)
    default = top.one("default", lambda node: _default(node, monitor), Default(monitor=monitor))
    shared = _Shared(
        Groups([fields["groups"] for fields in files if "groups" in fields], complete=complete),
        Services([fields["services"] for fields in files if "services" in fields], complete=complete),
        monitor,
        rule_hash,
    )
    lists = [fields["rules"] for fields in files if "rules" in fields]
    if complete and roots and not lists:
        roots[0].report("missing rules")
    return Policy(tuple(_rules(lists, shared)), default, file)


def _only(files: Sequence[dict[str, Node]], name: str) -> list[Node]:
    """The first of the fields of that name; others are reported."""
    nodes = [fields[name] for fields in files if name in fields]
    for node in nodes[1:]:
        node.report(f"is given in {place(nodes[0], seen_from=node)} already")
    return nodes[:1]


def _rules(lists: Sequence[Node], shared: _Shared) -> Iterator[Rule]:
    first: dict[str, Node] = {}
    count = networks = 0
    seen: set[int] = set()
    for node in lists:
        items = node.attempt(Node.items) or []
        count += len(items)
        if count > MAX_RULES:
            node.report(f"{count} rules; {MAX_RULES} is the most")
            return
        for item in items:
            rule = item.attempt(lambda node: _rule(node, shared))
            if rule is None:
                continue
            if rule.id in first:
                item.report(f"id {rule.id!r} is used in {place(first[rule.id], seen_from=item)} already")
            first.setdefault(rule.id, item)
            for part in (*rule.sources.parts, *rule.destinations.parts):
                if id(part) not in seen:
                    seen.add(id(part))
                    networks += len(part)
            if networks > MAX_NETWORKS:
                item.report(f"the rules up to here come to more than {MAX_NETWORKS} prefixes in `from` and `to`")
                return
            yield rule


def _default(node: Node, monitor: bool) -> Default:
    def action(node: Node) -> Action:
        return node.choice(Action, allowed=(Action.ALLOW, Action.DENY))

    if not node.is_mapping:
        return Default(action(node), monitor=monitor)
    fields = Fields(node.mapping(optional=("action", *_ATTRIBUTES)))
    return Default(
        action=fields.one("action", action, Action.DENY),
        # Silence by default: an answer to a scan is a map of the network.
        reset=fields.one("deny_with", lambda value: value.choice(_DenyWith), _DenyWith.DROP) == _DenyWith.RESET,
        log=_log(fields),
        monitor=_monitor(fields, absent=monitor),
    )


def _rule(node: Node, shared: _Shared) -> Rule:
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
    with_ = fields.one("deny_with", lambda value: value.choice(_DenyWith), None)
    if with_ == _DenyWith.RESET and not may_be_tcp:
        fields.report("deny_with", "only tcp can be reset")
    if "rules" in fields and action != Action.INSPECT:
        fields.report("rules", "rule files belong to `action: inspect`")
    return Rule(
        id=rule_id,
        action=action,
        sources=sources,
        destinations=destinations,
        protocols=protocols,
        ports=over.ports,
        udp_ports=over.udp_ports,
        apps=sum({1 << app for app in apps}) if apps else ANY_APP,
        rule_files=fields.some("rules", lambda value: _rule_file(value, shared.rule_hash)),
        # Also of an allow rule: an exception may deny its flows.
        reset=may_be_tcp and with_ != _DenyWith.DROP,
        log=_log(fields),
        monitor=_monitor(fields, absent=shared.monitor),
        down_allow=fields.one(
            "on_inspector_down",
            lambda value: value.choice(Action, allowed=(Action.ALLOW, Action.DENY)),
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
        return Traffic(product.protocols, product.ports)
    if "proto" in fields or "ports" in fields:
        fields.report("service", "stands in place of `proto` and `ports`: write it or them")
    return services.traffic(fields.some("service", services.name))


def _log(fields: Fields) -> Log:
    return fields.one("log", lambda node: node.choice(Log), Log.DENY)


def _monitor(fields: Fields, *, absent: bool) -> bool:
    mode = fields.one("mode", lambda node: node.choice(_Mode), None)
    return absent if mode is None else mode == _Mode.MONITOR


def _id(node: Node) -> str:
    value = node.text(max_length=128)
    if not value.isprintable():
        raise node.fail("an id is printable text")
    if value == DEFAULT_ID:
        raise node.fail(f"{DEFAULT_ID!r} is what records call the default rule")
    return value


def _app(node: Node) -> Protocol:
    app = node.choice(Protocol, allowed=(p for p in Protocol if p not in {Protocol.NONE, Protocol.ICMP, Protocol.MAX}))
    if app not in RECOGNISED:
        name = app.name.lower()
        raise node.fail(f"{name} is not recognised yet, the rule would never match: such flows are `unknown`")
    return app


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
