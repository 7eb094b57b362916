"""Policy files: YAML to `Policy`, all problems at once, each with its place.

configs/policy.yaml shows every field. What is not known here is refused, never ignored.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fastpath.abi import Action, Protocol
from fastpath.document import Network, Node, load
from fastpath.policy.model import (
    ANY_APP,
    DEFAULT_ID,
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    MAX_RULES,
    PROTOCOL_NUMBERS,
    RECOGNISED,
    TCP,
    UDP,
    Default,
    Log,
    Policy,
    Rule,
    RuleFileUse,
    all_protocols,
    is_mapped,
)

T = TypeVar("T")

# Digest of a rule file's contents by its name, None when there is no such file.
RuleHash = Callable[[str], str | None]

_CIDR = re.compile(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_NUMBER = re.compile(r"[0-9]{1,3}")
_ATTRIBUTES = ("deny_with", "log", "mode")
_OPTIONAL = (
    *("description", "priority", "from", "to", "proto", "ports", "app", "rules", "on_inspector_down"),
    *_ATTRIBUTES,
)


class _Mode(enum.Enum):
    ENFORCE = enum.auto()
    MONITOR = enum.auto()


class _DenyWith(enum.Enum):
    RESET = enum.auto()
    DROP = enum.auto()


class _Fields:
    """Fields of a mapping; a broken one is reported and counts as absent, so that the others are read too."""

    def __init__(self, fields: dict[str, Node]) -> None:
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def report(self, name: str, message: str) -> None:
        self._fields[name].report(message)

    def one(self, name: str, read: Callable[[Node], T], absent: T) -> T:
        value = self._fields[name].attempt(read) if name in self._fields else None
        return absent if value is None else value

    def some(self, name: str, read: Callable[[Node], T]) -> tuple[T, ...]:
        """Values of a list, or of a single value; () when absent. An empty list would read as "any" or as "none"."""
        if name not in self._fields:
            return ()
        node = self._fields[name]
        if node.is_sequence and not node.items():
            node.report("the list is empty: leave the field out")
        return tuple(node.collect(read))


def load_policy(path: Path, rule_hash: RuleHash) -> Policy:
    """Read a policy file. InvalidDocumentError has all its problems, with their places."""
    return load(path, lambda root: read_policy(root, rule_hash))


def read_policy(root: Node, rule_hash: RuleHash) -> Policy:
    """The policy of a document's root; problems are reported to it."""
    fields = _Fields(nodes := root.mapping(required=("rules",), optional=("default", "mode")))
    monitor = _monitor(fields, absent=False)
    default = fields.one("default", lambda node: _default(node, monitor), Default(monitor=monitor))
    items = nodes["rules"].items()
    if len(items) > MAX_RULES:
        nodes["rules"].report(f"{len(items)} rules; the kernel's tables hold {MAX_RULES}")
    rules: list[Rule] = []
    lines: dict[str, int] = {}
    for item in items:
        rule = item.attempt(lambda node: _rule(node, monitor, rule_hash))
        if rule is None:
            continue
        if rule.id in lines:
            item.report(f"id {rule.id!r} is used in line {lines[rule.id]} already")
        lines.setdefault(rule.id, rule.line)
        rules.append(rule)
    return Policy(tuple(rules), default, root.file)


def _default(node: Node, monitor: bool) -> Default:
    def action(node: Node) -> Action:
        return node.choice(Action, allowed=(Action.ALLOW, Action.DENY))

    if not node.is_mapping:
        return Default(action(node), monitor=monitor)
    fields = _Fields(node.mapping(optional=("action", *_ATTRIBUTES)))
    return Default(
        action=fields.one("action", action, Action.DENY),
        # Silence by default: an answer to a scan is a map of the network.
        reset=fields.one("deny_with", lambda value: value.choice(_DenyWith), _DenyWith.DROP) == _DenyWith.RESET,
        log=_log(fields),
        monitor=_monitor(fields, absent=monitor),
    )


def _rule(node: Node, monitor: bool, rule_hash: RuleHash) -> Rule:
    fields = _Fields(nodes := node.mapping(required=("id", "action"), optional=_OPTIONAL))
    rule_id = fields.one("id", _id, "")
    action = nodes["action"].choice(Action)
    protocols = fields.some("proto", _proto)
    ports = fields.some("ports", _ports)
    apps = fields.some("app", _app)
    sources = fields.some("from", _network)
    destinations = fields.some("to", _network)
    if sources and destinations and not {n.version for n in sources} & {n.version for n in destinations}:
        fields.report("to", "never matches: `from` and `to` have no address family in common")
    may_be_tcp = not protocols or TCP in protocols
    carry_ports = bool(protocols) and not set(protocols) - {TCP, UDP}
    # A broken `proto` was reported already; what hangs on it would only repeat that.
    if protocols or "proto" not in fields:
        if "ports" in fields and not carry_ports:
            fields.report("ports", "needs `proto: tcp`, `udp` or both, and no other")
        if "app" in fields and not carry_ports:
            fields.report("app", "needs `proto: tcp`, `udp` or both, and no other")
        if apps and carry_ports:
            _check_carried(fields, protocols, apps)
        if action == Action.INSPECT and protocols and not set(protocols) & {TCP, UDP}:
            fields.report("proto", "only tcp and udp can be inspected")
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
        ports=ports,
        apps=sum({1 << app for app in apps}) if apps else ANY_APP,
        rule_files=fields.some("rules", lambda value: _rule_file(value, rule_hash)),
        # Also of an allow rule: an exception may deny its flows.
        reset=may_be_tcp and with_ != _DenyWith.DROP,
        log=_log(fields),
        monitor=_monitor(fields, absent=monitor),
        down_allow=fields.one(
            "on_inspector_down",
            lambda value: value.choice(Action, allowed=(Action.ALLOW, Action.DENY)),
            Action.DENY,
        )
        == Action.ALLOW,
        priority=fields.one("priority", lambda value: value.integer(0, MAX_PRIORITY), DEFAULT_PRIORITY),
        description=fields.one("description", lambda value: value.text(), ""),
        line=node.line,
    )


def _log(fields: _Fields) -> Log:
    return fields.one("log", lambda node: node.choice(Log), Log.DENY)


def _monitor(fields: _Fields, *, absent: bool) -> bool:
    mode = fields.one("mode", lambda node: node.choice(_Mode), None)
    return absent if mode is None else mode == _Mode.MONITOR


def _id(node: Node) -> str:
    value = node.text(max_length=128)
    if not value.isprintable():
        raise node.fail("an id is printable text")
    if value == DEFAULT_ID:
        raise node.fail(f"{DEFAULT_ID!r} is what records call the default rule")
    return value


def _network(node: Node) -> Network:
    text = node.text(max_length=64)
    try:
        # Netmasks and zones are also accepted by `ipaddress`: 10.0.0.0/0.0.0.255, fe80::%eth0.
        if not _CIDR.fullmatch(text):
            raise ValueError
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise node.fail(f"{text!r} is not an IPv4 or IPv6 address or prefix, like 10.1.0.0/16 or fd00::/8") from None
    network = interface.network
    if isinstance(network, ipaddress.IPv6Network) and is_mapped(network):
        address = ipaddress.IPv4Address(int(interface.ip) & 0xFFFFFFFF)
        raise node.fail(
            f"{text} is an IPv4-mapped address; write the IPv4 address: "
            f"{ipaddress.ip_network((address, network.prefixlen - 96), strict=False)}"
        )
    if network.network_address != interface.ip:
        raise node.fail(f"{text} has host bits set; write {network}, or {interface.ip} for the one address")
    return network


def _proto(node: Node) -> int:
    text = node.text(max_length=64)
    if text in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[text]
    if not _NUMBER.fullmatch(text) or int(text) > 255:
        raise node.fail(f"{text!r} is not one of {', '.join(PROTOCOL_NUMBERS)} or a number within 0..255")
    return int(text)


def _ports(node: Node) -> tuple[int, int]:
    text = node.text(max_length=64)
    match = _PORTS.fullmatch(text)
    if not match:
        raise node.fail(f"{text!r} is not a port or a range of ports, like 80 or 8080-8090")
    low, high = int(match[1]), int(match[2] or match[1])
    if max(low, high) > 65535:
        raise node.fail(f"port {max(low, high)} is not within 0..65535")
    if low > high:
        raise node.fail(f"the range is upside down; write {high}-{low}")
    return low, high


def _app(node: Node) -> Protocol:
    app = node.choice(Protocol, allowed=(p for p in Protocol if p not in {Protocol.NONE, Protocol.ICMP, Protocol.MAX}))
    if app not in RECOGNISED:
        name = app.name.lower()
        raise node.fail(f"{name} is not recognised yet, the rule would never match: such flows are `unknown`")
    return app


def _check_carried(fields: _Fields, protocols: tuple[int, ...], apps: tuple[Protocol, ...]) -> None:
    names = {number: name for name, number in PROTOCOL_NUMBERS.items()}
    idle = [number for number in sorted(set(protocols)) if not any(all_protocols(number) >> app & 1 for app in apps)]
    if idle:
        fields.report("app", f"never matches over {' and '.join(names[number] for number in idle)}")
        return
    for app in apps:
        if not any(all_protocols(number) >> app & 1 for number in protocols):
            fields.report("app", f"{app.name.lower()} never runs over {' or '.join(names[n] for n in protocols)}")


def _rule_file(node: Node, rule_hash: RuleHash) -> RuleFileUse:
    name = node.text(max_length=128)
    digest = rule_hash(name)
    if digest is None:
        raise node.fail(f"there is no rule file {name!r}")
    return RuleFileUse(name, digest)
