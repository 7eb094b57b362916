"""The meaning of a policy document, as plainly as it can be said.

A document is what any YAML loader makes of a policy file: dicts, lists, texts and numbers. It is taken to be valid.
Nothing here is fast, and nothing is the product's own: every question is put to the document anew.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
Rule = Mapping[str, Any]

TCP, UDP = 6, 17
PROTOCOLS = {"icmp": 1, "tcp": TCP, "udp": UDP, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "sctp": 132}

# By the protocol's number.
TYPES = {"echo-request": {1: 8, 58: 128}, "echo-reply": {1: 0, 58: 129}, "redirect": {1: 5, 58: 137}}

# What a flow may turn out to be before a byte of its payload is seen.
CARRIED = {
    TCP: frozenset(
        {
            "unknown",
            "http",
            "http2",
            "grpc",
            "websocket",
            "tls",
            "dns",
            "mysql",
            "postgres",
            "redis",
            "mongodb",
            "kafka",
        }
        | {"memcached", "ssh", "amqp", "mqtt", "smtp", "ftp", "smb", "rdp"}
    ),
    UDP: frozenset({"unknown", "dns", "quic", "memcached"}),
    PROTOCOLS["icmp"]: frozenset({"icmp"}),
    PROTOCOLS["icmp6"]: frozenset({"icmp"}),
}


@dataclass(frozen=True, slots=True)
class Packet:
    """A flow's first packet. `dport` is TCP's or UDP's, of ICMP it is 256 * type + code; `apps` is what the flow may
    still be, nothing known when empty; zones are names, "host" the gateway itself; `vlan` is the outer tag, None
    without.
    """

    src: str
    dst: str
    proto: int
    dport: int | None = None
    apps: frozenset[str] = frozenset()
    from_zone: str | None = None
    to_zone: str | None = None
    vlan: int | None = None

    @property
    def direction(self) -> str:
        """Seen from the gateway."""
        return "from-host" if self.from_zone == "host" else "to-host" if self.to_zone == "host" else "through"


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a flow. `rule` is an id, that of a default for none; `flags` are the attributes of that rule."""

    verdict: str
    reason: str
    scope: str
    rule: str
    flags: frozenset[str]


def judge(document: Document, packet: Packet) -> Answer:
    """The first rule that matches decides.

    Whether a rule on applications matches may depend on what the flow turns out to be, and `inspect` without rule
    files has no opinion but that this be found out. Such rules wait. The flow does too, unless all that wait and the
    rule that decides without them say deny.
    """
    may_be = packet.apps or CARRIED.get(packet.proto, frozenset({"unknown"}))
    known = len(may_be) == 1
    decider: Rule | None = None
    waiting: list[Rule] = []
    for rule in matching(document, packet):
        wanted = frozenset(listed(rule.get("app"))) or may_be
        if not wanted & may_be:
            continue
        if _identifies(rule):
            if not known:
                waiting.append(rule)
        elif may_be <= wanted:
            decider = rule
            break
        else:
            waiting.append(rule)

    pair = _pair_default(document, packet)
    last = decider or pair or _default(document)
    if waiting and {rule["action"] for rule in (*waiting, last)} != {"deny"}:
        return Answer("undecided", "pending", "none", waiting[0]["id"], _flags(document, waiting[0]))
    if decider is None:
        name = f"default:{pair.get('from_zone', '*')}>{pair.get('to_zone', '*')}" if pair else "default"
        return Answer(last["action"], "default", "none", name, _flags(document, last))
    told = known and packet.proto in {TCP, UDP}  # by its payload
    reason, scope = ("protocol", "connection") if told else ("policy", "none")
    return Answer(decider["action"], reason, scope, decider["id"], _flags(document, decider))


def matching(document: Document, packet: Packet) -> Iterator[Rule]:
    """The rules that match in all but the application, in their order: by priority, then as they stand."""
    rules = sorted(document["rules"], key=lambda rule: rule.get("priority", 1000))
    return (rule for rule in rules if _meets(document, rule, packet))


def _meets(document: Document, rule: Rule, packet: Packet) -> bool:
    return (
        ("from" not in rule or within(document, rule["from"], packet.src))
        and ("to" not in rule or within(document, rule["to"], packet.dst))
        and any(_carries(traffic, packet) for traffic in _traffic(document, rule))
        and passes_by(rule, packet)
    )


def passes_by(rule: Rule, packet: Packet) -> bool:
    """Do the conditions on where a packet comes from and goes to hold?"""
    return (
        ("from_zone" not in rule or packet.from_zone in listed(rule["from_zone"]))
        and ("to_zone" not in rule or packet.to_zone in listed(rule["to_zone"]))
        and ("direction" not in rule or packet.direction in listed(rule["direction"]))
        and ("vlan" not in rule or any(_is_tagged(packet, vlan) for vlan in listed(rule["vlan"])))
    )


def _is_tagged(packet: Packet, vlan: Any) -> bool:
    if vlan == "none":
        return packet.vlan is None
    first, _, last = str(vlan).partition("-")
    return packet.vlan is not None and int(first) <= packet.vlan <= int(last or first)


def within(document: Document, members: Any, address: str) -> bool:
    """Does one of the members (groups by name, addresses, prefixes; or a single one) have the address?"""
    return any(_has(document, member, address) for member in listed(members))


def _has(document: Document, member: str, address: str) -> bool:
    group = document.get("groups", {}).get(member)
    if group is None:
        return _address(address) in _network(member)
    if not isinstance(group, dict):
        return within(document, group, address)
    return within(document, group["include"], address) and not within(document, group.get("exclude"), address)


def _traffic(document: Document, rule: Rule) -> list[Mapping[str, Any]]:
    """What has `proto` and `ports`: the services that a rule names, or the rule itself."""
    if "service" not in rule:
        return [rule]
    return [traffic for name in listed(rule["service"]) for traffic in listed(document["services"][name])]


def _carries(traffic: Mapping[str, Any], packet: Packet) -> bool:
    if "proto" in traffic and packet.proto not in protocols(traffic):
        return False
    if "types" in traffic:
        return any(_is_of_type(written, packet) for written in listed(traffic["types"]))
    return "ports" not in traffic or any(low <= (packet.dport or 0) <= high for low, high in ranges(traffic))


def _is_of_type(written: Any, packet: Packet) -> bool:
    """``8``, ``3/4``, ``echo-request``: a type, with a code or whatever its code."""
    kind, _, code = str(written).partition("/")
    own_kind, own_code = divmod(packet.dport or 0, 256)
    number = TYPES[kind][packet.proto] if kind in TYPES else int(kind)
    return own_kind == number and (not code or own_code == int(code))


def protocols(traffic: Mapping[str, Any]) -> list[int]:
    """Numbers of `proto`."""
    return [PROTOCOLS[one] if one in PROTOCOLS else int(one) for one in listed(traffic.get("proto"))]


def ranges(traffic: Mapping[str, Any]) -> list[tuple[int, int]]:
    """First and last of each of `ports`."""
    parts = (str(one).split("-") for one in listed(traffic.get("ports")))
    return [(int(part[0]), int(part[-1])) for part in parts]


def _identifies(rule: Rule) -> bool:
    return rule["action"] == "inspect" and "rules" not in rule


def _pair_default(document: Document, packet: Packet) -> Rule | None:
    """The first that fits; what the gateway itself sends only those concern that say so."""
    for pair in document.get("defaults", []):
        from_fits = pair["from_zone"] == packet.from_zone if "from_zone" in pair else packet.from_zone != "host"
        if from_fits and pair.get("to_zone", packet.to_zone) == packet.to_zone:
            return _silent(pair)
    return None


def _default(document: Document) -> Rule:
    default = document.get("default", "deny")
    written = default if isinstance(default, dict) else {"action": default}
    return {"action": "deny", **_silent(written)}


def _silent(default: Rule) -> Rule:
    """A rule would reset."""
    return {"deny_with": "drop", **default}


def _flags(document: Document, rule: Rule) -> frozenset[str]:
    log = rule.get("log", "deny")
    may_be_tcp = any("proto" not in traffic or TCP in protocols(traffic) for traffic in _traffic(document, rule))
    flags = {
        "log_deny": log in {"deny", "all"},
        "log_all": log == "all",
        "reset": may_be_tcp and rule.get("deny_with", "reset") == "reset",
        "monitor": rule.get("mode", document.get("mode", "enforce")) == "monitor",
        "down_allow": rule.get("on_inspector_down", "deny") == "allow",
        "files": "rules" in rule,
        "identify": _identifies(rule),
    }
    return frozenset(name for name, is_set in flags.items() if is_set)


def listed(value: Any) -> list[Any]:
    """A single value stands for a list of one."""
    return [] if value is None else value if isinstance(value, list) else [value]


@functools.cache
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


@functools.cache
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)
