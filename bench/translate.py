"""The same policy for nftables and iptables, as their users would write it: groups as named sets, rules in order.

`linear` is one rule after the other. `dispatched` looks up the destination in a verdict map first, which leads to a
chain of the rules that it meets, in their order. A rule's port comes first: it is cheaper to look at than a set. For
iptables the groups are ipsets. What depends on the application
protocol is beyond both: such rules are taken as if they did not.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.policies import Network
from fastpath.abi import Action
from fastpath.policy.model import TCP, UDP, Networks, Policy, protocol_name

Part = tuple[Network, ...]
_FAMILIES = {4: ("ip", "ipv4_addr", "inet"), 6: ("ip6", "ipv6_addr", "inet6")}


@dataclass(frozen=True, slots=True)
class Row:
    """A rule of one family, without alternatives; None is any. Sides are a prefix or the name of a set."""

    source: str | None
    destination: str | None
    l4: int | None
    ports: tuple[int, int] | None
    allow: bool


class Rows:
    """A policy's rules of one IP version, in order, and the sets that they name."""

    def __init__(self, policy: Policy, version: int) -> None:
        self.version = version
        self.default_allow = policy.default.action == Action.ALLOW
        self.sets: dict[str, Part] = {}
        self.rows: list[Row] = []
        self._names: dict[int, str | None] = {}  # by the part's identity: rules that name one group share it
        for rule in policy.rules:
            sides = (self._sides(rule.sources), self._sides(rule.destinations))
            over: list[tuple[int | None, tuple[int, int] | None]] = []
            for l4 in rule.protocols or (None,):
                spans = rule.ports_of(l4) if l4 in {TCP, UDP} else ((0, 65535),)
                over += ((l4, None if ports == (0, 65535) else ports) for ports in spans)
            for source, destination, (l4, ports) in itertools.product(*sides, over):
                self.rows.append(Row(source, destination, l4, ports, allow=rule.action == Action.ALLOW))

    def members(self, side: str) -> Iterable[Network]:
        """Prefixes of a row's side."""
        return self.sets.get(side) or (ipaddress.ip_network(side),)

    def _sides(self, networks: Sequence[Network]) -> list[str | None]:
        if not networks:
            return [None]
        parts = networks.parts if isinstance(networks, Networks) else (tuple(networks),)
        return [name for name in map(self._name, parts) if name]

    def _name(self, part: Part) -> str | None:
        """None: nothing of the part is of this version."""
        if id(part) not in self._names:
            prefixes = tuple(ipaddress.collapse_addresses(n for n in part if n.version == self.version))
            name = str(prefixes[0]) if len(prefixes) == 1 else f"v{self.version}s{len(self.sets)}"
            if len(prefixes) > 1:
                self.sets[name] = prefixes
            self._names[id(part)] = name if prefixes else None
        return self._names[id(part)]


def linear(policy: Policy) -> str:
    """For ``nft -f``: established flows first, then all rules, each after the other."""
    tables = (Rows(policy, version) for version in _FAMILIES)
    return "\n".join(_table(rows, rows.rows) for rows in tables)


def dispatched(policy: Policy) -> str:
    """For ``nft -f``: by destination to the chain of its rules."""
    return "\n".join(_by_destination(Rows(policy, version)) for version in _FAMILIES)


def ipsets(policy: Policy) -> str:
    """For ``ipset restore``."""
    lines: list[str] = []
    for version, (_, _, family) in _FAMILIES.items():
        for name, members in Rows(policy, version).sets.items():
            lines.append(f"create {name} hash:net family {family} maxelem {max(64, len(members))}")
            lines += (f"add {name} {member}" for member in members)
    return "\n".join(lines) + "\n"


def iptables(policy: Policy, version: int) -> str:
    """For ``iptables-restore`` or ``ip6tables-restore``."""
    rows = Rows(policy, version)

    def side(name: str | None, option: str, direction: str) -> list[str]:
        if name is None:
            return []
        return [f"-m set --match-set {name} {direction}" if name in rows.sets else f"{option} {name}"]

    lines = ["*filter", f":FORWARD {'ACCEPT' if rows.default_allow else 'DROP'} [0:0]"]
    lines.append("-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
    for row in rows.rows:
        parts = ["-A FORWARD"]
        if row.l4 is not None:
            parts.append(f"-p {_protocol(row.l4)}")
        if row.ports:
            parts.append(f"--dport {_span(row.ports, ':')}")
        parts += [*side(row.source, "-s", "src"), *side(row.destination, "-d", "dst")]
        lines.append(" ".join([*parts, "-j", "ACCEPT" if row.allow else "DROP"]))
    return "\n".join([*lines, "COMMIT", ""])


def _by_destination(rows: Rows) -> str:
    anywhere: list[int] = []
    meeting: dict[str, list[int]] = {}  # row numbers by what they name as destination
    for number, row in enumerate(rows.rows):
        (anywhere if row.destination is None else meeting.setdefault(row.destination, [])).append(number)
    # A sweep over the edges of all prefixes: which names an address between two of them lies in.
    edges: dict[int, list[tuple[str, int]]] = {}
    for name in meeting:
        for prefix in rows.members(name):
            first = int(prefix.network_address)
            edges.setdefault(first, []).append((name, 1))
            edges.setdefault(first + prefix.num_addresses, []).append((name, -1))
    chains: dict[frozenset[str], str] = {}
    elements: list[str] = []
    around: dict[str, int] = {}
    kind = ipaddress.IPv4Address if rows.version == 4 else ipaddress.IPv6Address
    for first, end in itertools.pairwise(sorted(edges)):
        for name, step in edges[first]:
            around[name] = around.get(name, 0) + step
            if not around[name]:
                del around[name]
        if around:
            chain = chains.setdefault(frozenset(around), f"d{len(chains)}")
            elements.append(f"{kind(first)}-{kind(end - 1)} : goto {chain}")
    bodies: dict[str, list[Row]] = {}
    for met, chain in chains.items():
        numbers = sorted({*anywhere, *itertools.chain.from_iterable(meeting[name] for name in met)})
        # Who is there has the right destination.
        bodies[chain] = list(dict.fromkeys(replace(rows.rows[n], destination=None) for n in numbers))
    return _table(rows, [rows.rows[n] for n in anywhere], bodies, elements)


def _table(
    rows: Rows, forward: Iterable[Row], chains: Mapping[str, Iterable[Row]] | None = None, elements: Sequence[str] = ()
) -> str:
    table, kind, _ = _FAMILIES[rows.version]
    lines = [f"table {table} bench {{"]
    for name, members in rows.sets.items():
        listed = ", ".join(map(str, members))
        lines.append(f"  set {name} {{ type {kind}; flags interval; elements = {{ {listed} }} }}")
    for name, body in (chains or {}).items():
        lines += [f"  chain {name} {{", *_rules(rows, body), "  }"]
    if elements:
        listed = ", ".join(elements)
        lines.append(f"  map destinations {{ type {kind} : verdict; flags interval; elements = {{ {listed} }} }}")
    lines += [
        "  chain forward {",
        f"    type filter hook forward priority filter; policy {'accept' if rows.default_allow else 'drop'};",
        "    ct state established,related accept",
        *([f"    {table} daddr vmap @destinations"] if elements else []),
        *_rules(rows, forward),
        "  }",
        "}",
        "",
    ]
    return "\n".join(lines)


def _rules(rows: Rows, chosen: Iterable[Row]) -> list[str]:
    table = _FAMILIES[rows.version][0]

    def side(name: str | None, field_name: str) -> Iterator[str]:
        if name is not None:
            yield f"{table} {field_name} {'@' if name in rows.sets else ''}{name}"

    lines = []
    for row in chosen:
        parts = []
        if row.ports and row.l4 is not None:
            parts.append(f"{_protocol(row.l4)} dport {_span(row.ports, '-')}")
        elif row.l4 is not None:
            parts.append(f"meta l4proto {_protocol(row.l4)}")
        parts += [*side(row.source, "saddr"), *side(row.destination, "daddr")]
        lines.append("    " + " ".join([*parts, "accept" if row.allow else "drop"]))
    return lines


def _protocol(l4: int) -> str:
    return protocol_name(l4) if l4 in {TCP, UDP} else str(l4)


def _span(ports: tuple[int, int], between: str) -> str:
    low, high = ports
    return str(low) if low == high else f"{low}{between}{high}"
