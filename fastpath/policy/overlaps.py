"""Which rules meet: found by the sets of addresses and the services that they name, of which there are far fewer than
of rules.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache

from fastpath.document import Network
from fastpath.policy.edges import Blocks, Edges, union
from fastpath.policy.keys import key_spans
from fastpath.policy.model import Networks, Rule

# Addresses as numbers: IPv6, and IPv4 right behind it, so that all of them are one stretch.
IPV4 = 1 << 128
END = IPV4 + (1 << 32)

# Sets that a side of a rule may have; of more, one is made.
_PARTS = 4
# Number of the set of all addresses.
_ANYONE = 0
# Sides made of several sets that are kept.
_KEPT = 4096

_ByNumber = dict[int, list[int]]


class Overlaps:
    """Rules by what they have in common. `spend` is told the work, in microseconds or so, before it is done."""

    def __init__(self, rules: Iterable[Rule], spend: Callable[[int], None]) -> None:
        self._spend = spend
        sets, services = _Sets(), _Services()
        # Of each rule.
        self._named: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
        # Rules by service and sets of both sides; for each service, by the sets of one side.
        self._by_both: defaultdict[tuple[int, int, int], list[int]] = defaultdict(list)
        self._by_side: tuple[defaultdict[int, _ByNumber], ...] = (defaultdict(dict), defaultdict(dict))
        for index, rule in enumerate(rules):
            sides, service = (sets.named(rule.sources), sets.named(rule.destinations)), services.number(rule)
            self._named.append((*sides, service))
            for pair in itertools.product(*sides):
                self._by_both[service, *pair].append(index)
            for by_side, named in zip(self._by_side, sides, strict=True):
                for each in named:
                    by_side[service].setdefault(each, []).append(index)
        self._sets, self._services = sets.edges, services.edges
        self._every = frozenset(range(len(self._sets)))
        self._by_address, self._by_key = Blocks(self._sets, spend), Blocks(self._services, spend)
        self._union = lru_cache(_KEPT)(lambda own: union(self._sets[each] for each in own))

    def of(self, index: int) -> tuple[Edges, Edges, Edges]:
        """Sources, destinations and keys of a rule."""
        sources, destinations, service = self._named[index]
        return self._edges(sources), self._edges(destinations), self._services[service]

    def at(self, source: int, destination: int, key: int) -> list[int]:
        """The rules that a flow meets, in order."""
        services = self._by_key.at(key)
        sources, destinations = self._by_address.at(source), self._by_address.at(destination)
        self._spend(len(services) * len(sources) * len(destinations) // 8)
        found = [
            self._by_both[each] for each in itertools.product(services, sources, destinations) if each in self._by_both
        ]
        self._spend(sum(map(len, found)) // 8)
        return sorted(set(itertools.chain.from_iterable(found)))

    def behind(self, index: int) -> Iterator[int]:
        """The rules behind one that meet it in source, destination and key, in no order. They may do so in different
        families only.
        """
        sources, destinations, service = self._named[index]
        near = [self._meeting(sets) for sets in (sources, destinations)]
        for alike in self._by_key.near(service):
            named = [by_side[alike] for by_side in self._by_side]
            self._spend(sum(min(len(rules), len(sets)) for rules, sets in zip(named, near, strict=True)) // 8)
            lists = [[rules[each] for each in rules.keys() & sets] for rules, sets in zip(named, near, strict=True)]
            # By the side that leaves fewer to look at.
            counts = [sum(map(len, some)) for some in lists]
            side = 0 if counts[0] <= counts[1] else 1
            self._spend(counts[side] // 4)
            other = near[1 - side]
            for some in lists[side]:
                for found in some[bisect_right(some, index) :]:
                    if not other.isdisjoint(self._named[found][:2][1 - side]):
                        yield found

    def _meeting(self, sets: tuple[int, ...]) -> AbstractSet[int]:
        """Sets that have an address in common with any of these."""
        if sets == (_ANYONE,):
            return self._every
        found = self._by_address.near(sets[0])
        return found.union(*map(self._by_address.near, sets[1:])) if len(sets) > 1 else found

    def _edges(self, sets: tuple[int, ...]) -> Edges:
        return self._sets[sets[0]] if len(sets) == 1 else self._union(sets)


class _Sets:
    """Sets of addresses, numbered from that of all."""

    def __init__(self) -> None:
        self.edges: list[Edges] = [(0, END)]
        self._numbers: dict[bytes, int] = {}  # by digest
        self._named: dict[int, tuple[int, ...]] = {}  # by the id of what the rules keep alive

    def named(self, side: Networks) -> tuple[int, ...]:
        """The sets that a `from` or `to` names."""
        if not side:
            return (_ANYONE,)
        known = self._named.get(id(side))
        if known is None:
            parts = side.parts if len(side.parts) <= _PARTS else (side,)
            known = self._named[id(side)] = tuple(dict.fromkeys(map(self._number, parts)))
        return known

    def _number(self, networks: Networks) -> int:
        number = self._numbers.setdefault(networks.digest, len(self.edges))
        if number == len(self.edges):
            self.edges.append(union(map(_addresses, networks)))
        return number


class _Services:
    """Keys that rules have, numbered."""

    def __init__(self) -> None:
        self.edges: list[Edges] = []
        self._numbers: dict[object, int] = {}

    def number(self, rule: Rule) -> int:
        """Those of a rule."""
        fields = (rule.protocols, rule.ports, rule.udp_ports)
        if fields not in self._numbers:
            self._numbers[fields] = len(self.edges)
            self.edges.append(tuple(union((low, high + 1) for low, high in key_spans(rule))))
        return self._numbers[fields]


def _addresses(network: Network) -> Edges:
    first = int(network.network_address) + (IPV4 if network.version == 4 else 0)
    return first, first + (1 << network.max_prefixlen - network.prefixlen)
