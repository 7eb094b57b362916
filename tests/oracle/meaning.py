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
    still be, nothing known when empty.
    """

    src: str
    dst: str
    proto: int
    dport: int | None = None
    apps: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a flow. `rule` is an id, "default" for none; `flags` are the attributes of that rule."""

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

    last = decider or _default(document)
    if waiting and {rule["action"] for rule in (*waiting, last)} != {"deny"}:
        return Answer("undecided", "pending", "none", waiting[0]["id"], _flags(document, waiting[0]))
    if decider is None:
        return Answer(last["action"], "default", "none", "default", _flags(document, last))
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
    )


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


def _default(document: Document) -> Rule:
    default = document.get("default", "deny")
    written = default if isinstance(default, dict) else {"action": default}
    # Silent where a rule would reset.
    return {"action": "deny", "deny_with": "drop", **written}


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
