"""Policy documents whose conditions collide, and packets from the edges of what they name.

All choices come from one `random.Random`: hypothesis gives its own (`st.randoms`), which it can make smaller, and a
seeded one gives the same documents again. Every document is valid: what a reader must refuse is tested elsewhere.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tests.oracle.meaning import CARRIED, TCP, UDP, Document, Packet, Rule, listed, passes_by, protocols, ranges, within

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# First and last addresses of prefixes, some at the ends of their family, and one beside ::ffff:0:0/96, where IPv4
# lies in the kernel's trie.
ANCHORS = {
    4: ("10.1.1.128", "10.1.1.127", "0.0.0.0", "255.255.255.255", "127.255.255.255"),
    6: ("fd00::", "fd00::ffff:ffff:ffff:ffff", "::", "::fffe:ffff:ffff", f"{'ffff:' * 7}ffff", "::1:0:0:1"),
}
# Of both families, for policies that name addresses of one or none.
STRANGERS = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")
LENGTHS = {
    4: (0, 1, 8, 15, 16, 17, 23, 24, 25, 30, 31, 32, 32, 32),
    6: (0, 1, 7, 8, 48, 63, 64, 65, 80, 95, 96, 97, 126, 127, 128, 128, 128),
}
PORTS = (0, 1, 22, 80, 443, 1023, 8080, 32768, 65534, 65535)
APPS = ("unknown", "http", "http2", "tls", "dns", "ssh")
UDP_APPS = ("unknown", "dns")
OTHERS = ("icmp", "icmp6", "gre", 47, 0, "255")
# Side by side, the first and the last of all, and what is another number over ICMPv6.
TYPES = (
    "echo-request",
    "echo-reply",
    "redirect",
    0,
    "0/0",
    8,
    "8/0",
    "8/1",
    "7/255",
    "9/0",
    128,
    "128/0",
    "137/0",
    255,
)
TYPES_SEEN = (0x0000, 0x0001, 0x07FF, 0x0800, 0x0801, 0x08FF, 0x0900, 0x0500, 0x8000, 0x8001, 0x8100, 0x8900, 0xFFFF)
PRIORITIES = (None, None, None, 0, 10, 999, 1000, 1001, 65535)
# Of gateway.yaml; rules also name `host`.
ZONES = ("lan", "dmz", "wan")
VLANS = ("none", 1, 100, "100-101", "99-100", "102-4094", 4094)
TAGS = (None, 1, 99, 100, 101, 102, 4094)
DIRECTIONS = ("to-host", "from-host", "through")
# Never from the gateway to itself.
PLACES = [
    Packet("", "", 0, from_zone=one, to_zone=other, vlan=tag)
    for one in (None, "host", *ZONES)
    for other in (None, "host", *ZONES)
    for tag in TAGS
    if (one, other) != ("host", "host")
]
# More than one word of a set of rules, and few enough that all of them may meet in one flow.
CROWDS = (63, 64, 65, 130, 200)


def draw_document(choose: random.Random) -> dict[str, Any]:
    """A policy document; one in ten has a crowd of rules on one source or destination."""
    families = choose.choice(((4, 6), (4, 6), (4,), (6,)))
    prefixes = [prefix for version in families for prefix in _prefixes(choose, version)]
    document: dict[str, Any] = {}
    if default := choose.choice(
        (None, "allow", {"action": "deny", "deny_with": "reset", "log": "all"}, {"mode": "monitor"})
    ):
        document["default"] = default
    if choose.randrange(3) == 0:
        document["defaults"] = _defaults(choose)
    if mode := choose.choice((None, None, "monitor", "enforce")):
        document["mode"] = mode
    document["groups"] = _groups(choose, prefixes)
    ports = _ports(choose)
    document["services"] = _services(choose, ports)
    document["rules"] = [_rule(choose, document, prefixes, ports, f"r{n}") for n in range(choose.randint(1, 10))]
    if choose.randrange(10) == 9:
        crowd = _crowd(choose, document, prefixes, ports)
        document["rules"] = choose.choice((document["rules"] + crowd, crowd + document["rules"]))
    return document


def _defaults(choose: random.Random) -> list[dict[str, Any]]:
    """Of pairs of zones, or of all that come from one, or go to it."""
    pairs: dict[tuple[str | None, str | None], dict[str, Any]] = {}
    for _ in range(choose.choice((1, 2, 4))):
        pair = (choose.choice((None, "host", *ZONES)), choose.choice((None, "host", *ZONES)))
        if pair in {(None, None), ("host", "host")}:
            continue
        fields = {name: zone for name, zone in zip(("from_zone", "to_zone"), pair, strict=True) if zone}
        options = {"deny_with": ("drop", "reset"), "log": ("none", "all"), "mode": ("monitor", "enforce")}
        some = {name: choose.choice(options[name]) for name in _some(choose, list(options), (0, 1))}
        pairs.setdefault(pair, {**fields, "action": choose.choice(("allow", "deny")), **some})
    return list(pairs.values())


def _where(choose: random.Random) -> dict[str, Any]:
    """Conditions that some flow meets, of one kind or two."""
    fields: dict[str, Any] = {}
    for name in _some(choose, ("zones", "zones", "direction", "vlan"), (1, 1, 2)):
        if name == "vlan":
            fields["vlan"] = _some(choose, VLANS, (1, 1, 2, 3))
        elif name == "direction":
            fields["direction"] = _some(choose, DIRECTIONS, (1, 1, 2))
        else:
            sides = choose.choice((("from_zone",), ("to_zone",), ("from_zone", "to_zone")))
            fields |= {side: _some(choose, ("host", *ZONES), (1, 1, 2, 3)) for side in sides}
    if not any(passes_by(fields, packet) for packet in PLACES):
        return {}
    return {name: value[0] if len(value) == 1 and choose.randrange(2) else value for name, value in fields.items()}


def _prefixes(choose: random.Random, version: int) -> list[str]:
    """Nested in each other around one address, each with its neighbour: the other half of the one around both."""
    anchor = int(ipaddress.ip_address(choose.choice(ANCHORS[version])))
    kind, bits = (ipaddress.IPv4Network, 32) if version == 4 else (ipaddress.IPv6Network, 128)
    found: list[Network] = []
    for length in _some(choose, LENGTHS[version], (2, 3, 4)):
        rest = bits - length
        first = anchor >> rest << rest
        found += [kind((each, length)) for each in ((first, first ^ 1 << rest) if length else (first,))]
    # ::ffff:0:0/96 and what is in it is written as IPv4.
    return [str(one) for one in found if version == 4 or one.prefixlen < 96 or int(one[0]) >> 32 != 0xFFFF]


def _groups(choose: random.Random, prefixes: Sequence[str]) -> dict[str, Any]:
    """Some in terms of others, none of them empty."""
    groups: dict[str, Any] = {}
    group: Any
    for n in range(choose.randrange(5)):
        members = [*prefixes, *groups, *groups]
        include = _some(choose, members, (1, 2, 3))
        exclude = _some(choose, members, (0, 1, 2))
        group = {"include": include, "exclude": exclude}
        if not exclude or not _versions({"groups": {**groups, "": group}}, [""]):
            group = choose.choice((include, {"include": include}))
        groups[f"g{n}"] = group
    return dict(choose.choice((list, reversed))(list(groups.items())))


def _ports(choose: random.Random) -> list[int]:
    """A few that lie side by side, so that ranges of them overlap, touch, or leave one out."""
    anchors = [choose.choice(PORTS) for _ in range(choose.choice((1, 2)))]
    return sorted({port for anchor in anchors for port in range(anchor - 2, anchor + 3) if 0 <= port <= 65535})


def _services(choose: random.Random, ports: Sequence[int]) -> dict[str, Any]:
    return {
        f"s{n}": choose.choice((_traffic(choose, ports), [_traffic(choose, ports) for _ in range(2)]))
        for n in range(choose.randrange(3))
    }


def _traffic(choose: random.Random, ports: Sequence[int]) -> dict[str, Any]:
    if (kind := choose.randrange(6)) == 4:
        return {"proto": choose.choice((*OTHERS, ["icmp", "tcp"], ["udp", "gre"], [*OTHERS]))}
    if kind == 5:
        return {"proto": choose.choice(("icmp", 58, ["icmp", "icmp6"])), "types": _some(choose, TYPES, (1, 2, 3))}
    traffic: dict[str, Any] = {"proto": choose.choice(("tcp", "tcp", "udp", ["tcp", "udp"], 6))}
    if choose.randrange(4):
        spans = [sorted(choose.choice(ports) for _ in range(2)) for _ in range(choose.choice((1, 1, 2, 3)))]
        traffic["ports"] = [low if low == high else f"{low}-{high}" for low, high in spans]
    return traffic


def _rule(
    choose: random.Random, document: Document, prefixes: Sequence[str], ports: Sequence[int], name: str
) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": name}
    if (priority := choose.choice(PRIORITIES)) is not None:
        rule["priority"] = priority
    for side in ("from", "to"):
        if choose.randrange(3):
            members = _some(choose, [*prefixes, *document["groups"], *document["groups"]], (1, 1, 2, 3))
            rule[side] = members[0] if len(members) == 1 and choose.randrange(2) else members
    if {"from", "to"} <= rule.keys() and not _versions(document, rule["from"]) & _versions(document, rule["to"]):
        del rule["to"]
    kind = choose.choice(("any", "service", "traffic", "traffic", "traffic"))
    if kind == "service" and document["services"]:
        rule["service"] = _some(choose, list(document["services"]), (1, 2))
    elif kind != "any":
        rule |= _traffic(choose, ports)
    over = _protocols(document, rule)
    if over and set(over) <= {TCP, UDP} and choose.randrange(2):
        rule["app"] = _some(choose, UDP_APPS, (1,)) if UDP in over else []
        rule["app"] += _some(choose, APPS, (0, 1, 2) if UDP in over else (1, 2)) if TCP in over else []
    actions = ["allow", "deny"] + ["inspect"] * (not over or bool({TCP, UDP} & set(over)))
    if choose.randrange(4) == 0:
        rule |= _where(choose)
    return rule | _consequence(choose, actions, may_reset=not over or TCP in over)


def _consequence(choose: random.Random, actions: Sequence[str], *, may_reset: bool) -> dict[str, Any]:
    """What a rule does, and its attributes."""
    fields: dict[str, Any] = {"action": choose.choice(actions)}
    if fields["action"] == "inspect" and choose.randrange(2):
        fields["rules"] = choose.choice(("web", ["web", "names"]))
    options = {
        "deny_with": ("drop", "reset") if may_reset else ("drop",),
        "log": ("none", "deny", "all"),
        "mode": ("monitor", "enforce"),
        "on_inspector_down": ("allow", "deny"),
    }
    for name in _some(choose, list(options), (0, 0, 1, 2)):
        fields[name] = choose.choice(options[name])
    return fields


def _crowd(
    choose: random.Random, document: Document, prefixes: Sequence[str], ports: Sequence[int]
) -> list[dict[str, Any]]:
    """Many rules that have one side in common and differ in one thing only, or in nothing but what they do."""
    one = choose.choice([*prefixes, *document["groups"]])
    version = choose.choice(sorted(_versions(document, one)))
    common, side = choose.choice((("from", "to"), ("to", "from")))
    kind = choose.choice(("ports", "hosts", "nothing"))
    base, step, width = choose.choice(ports), choose.choice((1, 2)), choose.choice((0, 1, 2))
    first = int(ipaddress.ip_address(ANCHORS[version][0]))
    priorities = choose.choice(((1000,), (1000, 1001), (7, 5, 6, 5), (1000, 0)))
    consequences = [_consequence(choose, ("allow", "deny", "inspect"), may_reset=True) for _ in range(3)]
    apps = choose.choice(((None,), ("http", None, "tls"), ("ssh",), (None, "dns", "http")))
    zones = choose.choice(((None,), (None,), ("lan", None, "dmz"), ("wan", "host")))
    rules = []
    for n in range(choose.choice(CROWDS)):
        low = min(base + n * step, 65535 - width)
        rule = {"id": f"c{n}", "priority": priorities[n % len(priorities)], common: one, "proto": "tcp"}
        if kind == "ports":
            rule["ports"] = f"{low}-{low + width}"
        elif kind == "hosts":
            rule[side] = str(type(ipaddress.ip_address(ANCHORS[version][0]))(first + n * step))
        if app := apps[n % len(apps)]:
            rule["app"] = app
        if zone := zones[n % len(zones)]:
            rule["from_zone"] = zone
        rules.append(rule | consequences[n % len(consequences)])
    return rules


def draw_packets(choose: random.Random, document: Document, count: int) -> list[Packet]:
    """As many, or fewer where two are the same; seven in eight aim at a rule."""
    edges = _Edges(document)
    found: dict[Packet, None] = {}
    for _ in range(count):
        rule = choose.choice(document["rules"]) if choose.randrange(8) else {}
        src = choose.choice(edges.sources(rule))
        dst = choose.choice(edges.destinations(rule, src))
        proto = choose.choice(_protocols(document, rule) or (TCP, TCP, UDP, *CARRIED, 47))
        if proto in {TCP, UDP}:
            dport = choose.choice(edges.ports(rule if choose.randrange(8) else {}))
        else:
            dport = choose.choice(TYPES_SEEN) if proto in CARRIED else None
        likely = [app for app in (*APPS, "kafka", "quic") if app in CARRIED.get(proto, ())]
        apps = frozenset(_some(choose, likely, (0, 0, 0, 1, 1, 2, 3))) if likely else frozenset()
        place = choose.choice([each for each in PLACES if passes_by(rule, each)] if choose.randrange(8) else PLACES)
        found[replace(place, src=src, dst=dst, proto=proto, dport=dport, apps=apps)] = None
    return list(found)


class _Edges:
    """Of all that a document names: of each prefix and range the first and the last, one before and one behind."""

    def __init__(self, document: Document) -> None:
        self._document = document
        rules = document["rules"]
        named = [member for rule in rules for side in ("from", "to") for member in listed(rule.get(side))]
        self._addresses = [*_edges(document, named), *STRANGERS]
        self._ports = sorted({port for rule in rules for port in self._ports_of(rule)}) or [0, 80, 65535]
        self._within: dict[str, list[str]] = {}

    def sources(self, rule: Rule) -> list[str]:
        """Addresses in `from` of families that `to` has too."""
        versions = {_version(one) for one in self._of(rule, "to")}
        return [one for one in self._of(rule, "from") if _version(one) in versions]

    def destinations(self, rule: Rule, source: str) -> list[str]:
        """Addresses in `to` of the source's family."""
        return [one for one in self._of(rule, "to") if _version(one) == _version(source)]

    def ports(self, rule: Rule) -> list[int]:
        """Edges of a rule's ranges, of all where it has none."""
        return self._ports_of(rule) or self._ports

    def _ports_of(self, rule: Rule) -> list[int]:
        spans = [span for traffic in _products(self._document, rule) for span in ranges(traffic)]
        edges = [edge for low, high in spans for edge in (low, high, low - 1, high + 1)]
        return [edge for edge in edges if 0 <= edge <= 65535]

    def _of(self, rule: Rule, side: str) -> list[str]:
        if side not in rule:
            return self._addresses
        members = rule[side]
        if (key := str(members)) not in self._within:
            self._within[key] = [one for one in self._addresses if within(self._document, members, one)]
        return self._within[key]


def _edges(document: Document, members: Any) -> list[str]:
    """Of all prefixes that the members stand on."""
    found: set[tuple[int, int]] = set()
    for network in {ipaddress.ip_network(text) for text in _named(document, members)}:
        first, last = int(network.network_address), int(network.broadcast_address)
        top = (1 << network.max_prefixlen) - 1
        found |= {(network.version, each) for each in (first - 1, first, last, last + 1) if 0 <= each <= top}
    # An IPv6 packet has no IPv4-mapped address.
    return [
        str((ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(number))
        for version, number in sorted(found)
        if version == 4 or number >> 32 != 0xFFFF
    ]


def _named(document: Document, members: Any) -> Iterator[str]:
    """Prefixes, groups followed to their ends."""
    for member in listed(members):
        group = document.get("groups", {}).get(member)
        if group is None:
            yield member
        else:
            for part in group.values() if isinstance(group, dict) else [group]:
                yield from _named(document, part)


def _versions(document: Document, members: Any) -> set[int]:
    """Families that have an address in a set: if one has, then at an edge."""
    return {_version(edge) for edge in _edges(document, members) if within(document, members, edge)}


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _products(document: Document, rule: Rule) -> Iterator[Mapping[str, Any]]:
    yield rule
    for name in listed(rule.get("service")):
        yield from listed(document["services"][name])


def _protocols(document: Document, rule: Rule) -> list[int]:
    return [number for traffic in _products(document, rule) for number in protocols(traffic)]


def _some(choose: random.Random, options: Sequence[T], counts: Sequence[int]) -> list[T]:
    """One of so many, without repeats."""
    return list(dict.fromkeys(choose.choice(options) for _ in range(choose.choice(counts))))
