"""Named groups of addresses: what they say, and the prefixes that this comes to.

Sets of addresses are inclusive ranges on one line of numbers: IPv4 at its own value, IPv6 from 2^128 on. Sorted,
disjoint, none touching the next, so equal sets are equal lists.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from socket import AF_INET, AF_INET6, inet_pton

from fastpath.document import Network, Node
from fastpath.policy.fields import Fields, definitions, is_name, some
from fastpath.policy.model import ANYWHERE, Networks, is_mapped, merged

MAX_GROUPS = 10_000
# Of all rules' `from` and `to` together, those of a group counted once.
MAX_NETWORKS = 1_000_000
# Ranges handled to resolve all groups, some seconds' worth: nesting multiplies.
MAX_WORK = 5_000_000
# Of a cycle's names, in its message.
_SHOWN = 8

_CIDR = re.compile(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?")
_IPV6 = 1 << 128
_MAPPED = (_IPV6 + (0xFFFF << 32), _IPV6 + (0xFFFF << 32) + 0xFFFFFFFF)

Range = tuple[int, int]
# A network, or the name of a group.
Member = Network | str


@dataclass(slots=True)
class _Group:
    """One definition, read. `broken`: it has problems of its own, or stands on a group that does."""

    node: Node
    include: list[Member]
    exclude: list[Member]
    broken: bool = False

    def names(self) -> Iterator[str]:
        return (member for member in (*self.include, *self.exclude) if isinstance(member, str))


class Groups:
    """All groups of a policy, resolved. Problems are reported at the definitions' nodes.

    `complete` is False when a file could not be read: then an unknown name may be its. Networks of groups that are
    as they were in `earlier` are its objects.
    """

    def __init__(self, nodes: Iterable[Node], *, complete: bool, earlier: Groups | None = None) -> None:
        self._complete = complete
        self._members: dict[str, Member] = {}
        defined = definitions(nodes, MAX_GROUPS)
        self._names = defined.keys()
        self._groups = {name: self._read(node) for name, node in defined.items()}
        self._ranges: dict[str, list[Range]] = {}
        self._networks: dict[tuple[Member, ...], Networks] = {(): ANYWHERE}
        self._work = 0
        for name in self._order():
            self._ranges[name] = self._resolve(name)
        if earlier is not None:
            self._networks |= earlier.without(self.changed(earlier))

    def without(self, names: set[str]) -> dict[tuple[Member, ...], Networks]:
        """Networks by the members that they are of, where none of these groups is among them."""
        return {members: networks for members, networks in self._networks.items() if names.isdisjoint(members)}

    @property
    def remembered(self) -> int:
        """How many lists of members have their networks at hand, whoever named them last."""
        return len(self._networks)

    def changed(self, earlier: Groups) -> set[str]:
        """Names of groups that came, went, or do not come to the same addresses as in `earlier`."""
        return {
            name
            for name in self._ranges.keys() | earlier._ranges.keys()
            if self._ranges.get(name) != earlier._ranges.get(name)
        }

    def member(self, node: Node) -> Member:
        """An address, a prefix, or the name of a group that is there."""
        text = node.text(max_length=128)
        known = self._members.get(text)
        if known is not None:
            return known
        if not is_name(text):
            return self._members.setdefault(text, read_network(node))
        if text not in self._names and self._complete:
            raise node.fail(f"there is no group {text!r}, and it is no address")
        return self._members.setdefault(text, text)

    def networks(self, members: tuple[Member, ...]) -> Networks:
        """The networks that members come to, the same object for the same members: as they stand when there is no
        group among them, else the fewest that hold the same addresses; of each group no more than MAX_NETWORKS + 1.
        None at all when a group among them has problems.
        """
        made = self._networks.get(members)
        if made is None:
            made = self._networks[members] = self._make(members)
        return made

    def _make(self, members: tuple[Member, ...]) -> Networks:
        names = list(dict.fromkeys(member for member in members if isinstance(member, str)))
        if any(name not in self._groups or self._groups[name].broken for name in names):
            return ANYWHERE
        prefixes = tuple(member for member in members if not isinstance(member, str))
        if not names:
            return Networks(prefixes)
        if not prefixes and len(names) == 1:
            return Networks(islice(_networks(self._ranges[names[0]]), MAX_NETWORKS + 1))
        parts = [self.networks((name,)) for name in names]
        return Networks.union([*parts, self.networks(prefixes)] if prefixes else parts)

    def _read(self, node: Node) -> _Group:
        group = _Group(node, [], [])
        lists = [(node, group.include)]
        if node.is_mapping:
            nodes = node.attempt(lambda node: node.mapping(required=("include",), optional=("exclude", "description")))
            group.broken = nodes is None
            nodes = nodes or {}
            Fields(nodes).one("description", Node.text, "")
            lists = [(nodes[name], getattr(group, name)) for name in ("include", "exclude") if name in nodes]
        for values, members in lists:
            members += some(values, self.member, empty="a list without members")
            group.broken |= len(members) < len(values.items_or_one()) or not members
        return group

    def _order(self) -> list[str]:
        """Names, each behind those that it stands on. Cycles are reported, and cut where they close."""
        order: list[str] = []
        done: set[str] = set()
        for start in self._groups:
            path = {} if start in done else {start: self._groups[start].names()}
            closed: set[str] = set()
            while path:
                name, names = next(reversed(path.items()))
                for other in names:
                    if other in path and name not in closed:
                        closed.add(name)
                        self._report_cycle(path, other)
                    elif other in self._groups and other not in path and other not in done:
                        path[other] = self._groups[other].names()
                        break
                else:
                    path.popitem()
                    done.add(name)
                    order.append(name)
        return order

    def _report_cycle(self, path: Iterable[str], first: str) -> None:
        cycle = list(path)
        cycle = cycle[cycle.index(first) :]
        shown = cycle if len(cycle) <= _SHOWN else [*cycle[:_SHOWN], f"({len(cycle) - _SHOWN} more)"]
        self._groups[first].node.report(f"is a member of itself: {' -> '.join([*shown, first])}")

    def _resolve(self, name: str) -> list[Range]:
        """Ranges of a group, those that it stands on being resolved already; [] when it is broken."""
        group = self._groups[name]
        # Not resolved: unknown, or in a cycle with this one.
        if any(other not in self._ranges or self._groups[other].broken for other in set(group.names())):
            group.broken = True
        if group.broken:
            return []
        ranges = _without(self._union(group.include), self._union(group.exclude))
        if self._work > MAX_WORK:
            group.node.report(f"the groups up to here take more than {MAX_WORK} ranges of addresses to work out")
        # As an IPv6 network the IPv4-mapped addresses are nobody's.
        elif not ranges or ranges == [_MAPPED]:
            group.node.report("is empty: what it includes is excluded")
        else:
            return ranges
        group.broken = True
        return []

    def _union(self, members: Iterable[Member]) -> list[Range]:
        """Ranges of members that are all resolved. A policy's groups stop being worked out behind MAX_WORK."""
        found: list[Range] = []
        for member in set(members):
            if self._work > MAX_WORK:
                return []
            if isinstance(member, str):
                found += self._ranges[member]
                self._work += len(self._ranges[member])
            else:
                base = _IPV6 if member.version == 6 else 0
                found.append((base + int(member.network_address), base + int(member.broadcast_address)))
                self._work += 1
        return merged(found)


def read_network(node: Node) -> Network:
    """An address or prefix without host bits."""
    text = node.text(max_length=64)
    plain = _plain_network(text)
    if plain is not None:
        return plain
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


def _plain_network(text: str) -> Network | None:
    """What nearly all are: a prefix or address as it should be. None says nothing but that it takes a closer look."""
    address, slash, length = text.partition("/")
    try:
        if ":" in address:
            bits = int(length) if slash else 128
            network: Network = ipaddress.IPv6Network((inet_pton(AF_INET6, address), bits))
        else:
            network = ipaddress.IPv4Network((inet_pton(AF_INET, address), int(length) if slash else 32))
    except (OSError, ValueError):
        return None
    return network if _CIDR.fullmatch(text) and not (network.version == 6 and is_mapped(network)) else None


def _without(ranges: Sequence[Range], holes: Sequence[Range]) -> list[Range]:
    """What is in `ranges` and not in `holes`."""
    result: list[Range] = []
    first = 0  # hole that does not end before the range
    for low, high in ranges:
        while first < len(holes) and holes[first][1] < low:
            first += 1
        for hole in islice(holes, first, None):
            if hole[0] > high:
                break
            if hole[0] > low:
                result.append((low, hole[0] - 1))
            low = hole[1] + 1
        if low <= high:
            result.append((low, high))
    return result


def _networks(ranges: Iterable[Range]) -> Iterator[Network]:
    """The fewest networks, IPv4 first, but ::ffff:0:0/96, which can be left of an IPv6 network: it is nobody's."""
    for low, high in ranges:
        if low < _IPV6:
            yield from ipaddress.summarize_address_range(ipaddress.IPv4Address(low), ipaddress.IPv4Address(high))
        else:
            first, last = ipaddress.IPv6Address(low - _IPV6), ipaddress.IPv6Address(high - _IPV6)
            yield from (n for n in ipaddress.summarize_address_range(first, last) if not is_mapped(n))
