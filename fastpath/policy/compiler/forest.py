"""The trees of candidates, and which of them a rule is filed in."""

from __future__ import annotations

import copy
import itertools
from array import array
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastpath.abi import Limit
from fastpath.policy.compiler.layout import ANYONE
from fastpath.policy.compiler.pages import Pages
from fastpath.policy.compiler.sets import Sets
from fastpath.policy.keys import KEYS, Span, Spans
from fastpath.policy.model import Policy, Rule

# Of each of the two classes of a walk.
MAX_TREES = Limit.POLICY_LISTS // 2
# So many rules may share a set of destinations and their ports before a rule is filed under its source instead.
CROWD = 32
# What counts for one tree when they are added up, so that the sum of MAX_TREES has room in 16 bits.
_LANE_TOP = 0xFFFF // MAX_TREES

# A candidate: its rule's number, the set that it tests, the keys of its rule, and whether it ends every walk that
# gets to it.
Entry = tuple[int, int, tuple[Span, ...], bool]
# The side that a tree's rules are filed under, and its sets: more than one where a class has too many trees.
Name = tuple[bool, tuple[int, ...]]
# Trees of a class on one side.
Row = tuple[Name, ...]


@dataclass(slots=True)
class Tree:
    """Where it lies, and the lists' lengths by the keys where their intervals begin."""

    location: int
    starts: list[int]
    lengths: list[int]
    longest: int

    @classmethod
    def put(cls, entries: Sequence[Entry], pages: Pages) -> Tree:
        """A tree of these, which are in order."""
        starts, lists = _intervals(entries)
        where: dict[tuple[int, ...], int] = {(): 0}
        for each in lists:
            if each not in where:
                where[each] = pages.put_list([entries[index][:2] for index in each])
        lengths = [len(each) for each in lists]
        return cls(pages.put_index(starts, [where[each] for each in lists]), starts, lengths, max(lengths))

    def length_at(self, key: int) -> int:
        """Candidates at a key."""
        return self.lengths[bisect_right(self.starts, key) - 1]

    def lanes(self, stretches: Sequence[Sequence[int]]) -> int:
        """The longest list in each stretch of keys, 16 bits each, so that adding up trees is adding up numbers."""
        tops = array("H")
        for keys in stretches:
            first, end = bisect_right(self.starts, keys[0]) - 1, bisect_right(self.starts, keys[-1])
            tops.append(min(max(self.lengths[first:end]), _LANE_TOP))
        return int.from_bytes(tops.tobytes(), "little")


class Forest:
    """All trees, built when a class asks for them."""

    def __init__(self, policy: Policy, sets: Sets) -> None:
        self.entries: tuple[dict[int, list[Entry]], ...] = ({}, {})
        self.built: dict[Name, Tree] = {}
        self.names: dict[tuple[int, ...], tuple[Row, ...]] = {}
        self.spans = Spans()
        self.sides = [(sets.named(rule.destinations), sets.named(rule.sources)) for rule in policy.rules]
        # How many rules share a set and their keys.
        self.crowds: tuple[Counter[tuple[int, int]], ...] = (Counter(), Counter())
        for rule, named in zip(policy.rules, self.sides, strict=True):
            keys = id(self.spans.of(rule))
            for crowd, side in zip(self.crowds, named, strict=True):
                crowd.update((each, keys) for each in side)
        self.by_source = [
            self.belongs_to_source(rule, named) for rule, named in zip(policy.rules, self.sides, strict=True)
        ]
        for index, rule in enumerate(policy.rules):
            for each, entries in self.filed(index, rule, sets):
                self.entries[self.by_source[index]].setdefault(each, []).extend(entries)

    def belongs_to_source(self, rule: Rule, named: tuple[tuple[int, ...], ...]) -> bool:
        """Whether a rule that names these sets is filed under its source."""
        keys = id(self.spans.of(rule))
        # Between equal ones it is better not to burden every packet.
        to, from_ = (
            (max([crowd[each, keys] for each in side]), side == (ANYONE,))
            for crowd, side in zip(self.crowds, named, strict=True)
        )
        return to[0] > CROWD and from_ < to

    def filed(self, index: int, rule: Rule, sets: Sets) -> Iterator[tuple[int, list[Entry]]]:
        """The sets under which a rule is filed, and its candidates there."""
        by_source = self.by_source[index]
        keys = self.spans.of(rule)
        tests = sets.tested(self.sides[index][not by_source])
        entries = [(index + 1, test, keys, test == ANYONE and not rule.candidate) for test in tests]
        return ((each, entries) for each in self.sides[index][by_source])

    def changed(self, policy: Policy, differing: Sequence[int], sets: Sets) -> Forest | None:
        """The trees with other rules in these places, those not built that hold them; None where other classes come of
        it.
        """
        forest = copy.copy(self)
        forest.sides, forest.by_source = self.sides[:], self.by_source[:]
        entries: tuple[dict[int, list[Entry]], ...] = (dict(self.entries[0]), dict(self.entries[1]))
        touched: set[tuple[bool, int]] = set()
        for index in differing:
            number, rule = index + 1, policy.rules[index]
            for each in self.sides[index][self.by_source[index]]:
                filed = entries[self.by_source[index]]
                filed[each] = [entry for entry in filed[each] if entry[0] != number]
                touched.add((self.by_source[index], each))
            to, from_ = sets.known(rule.destinations), sets.known(rule.sources)
            if to is None or from_ is None:
                return None
            forest.sides[index] = to, from_
            forest.by_source[index] = by_source = forest.belongs_to_source(rule, (to, from_))
            for each, own in forest.filed(index, rule, sets):
                if each not in entries[by_source]:
                    return None
                entries[by_source][each] = sorted([*entries[by_source][each], *own])
                touched.add((by_source, each))
        forest.entries = entries
        forest.built = {
            name: tree for name, tree in self.built.items() if touched.isdisjoint((name[0], each) for each in name[1])
        }
        return forest

    def names_of(self, members: tuple[int, ...]) -> tuple[Row, ...]:
        """The trees of a class by destination, and those by source."""
        if members not in self.names:
            found = []
            for by_source in (False, True):
                filed = self.entries[by_source]
                own = [each for each in (ANYONE, *members) if each in filed]
                names: Row = tuple((by_source, (each,)) for each in own)
                found.append(names if len(names) <= MAX_TREES else ((by_source, tuple(own)),))
            self.names[members] = tuple(found)
        return self.names[members]

    def trees_of(self, members: tuple[int, ...], pages: Pages) -> tuple[list[int], ...]:
        """Where they are."""
        found = []
        for names in self.names_of(members):
            for name in names:
                if name not in self.built:
                    self.built[name] = Tree.put(self.entries_of(name), pages)
            found.append([self.built[name].location for name in names])
        return tuple(found)

    def entries_of(self, name: Name) -> list[Entry]:
        """The candidates of a tree in the order of their rules."""
        by_source, sets = name
        lists = [self.entries[by_source][each] for each in sets]
        return lists[0] if len(lists) == 1 else sorted(set(itertools.chain.from_iterable(lists)))


def _intervals(entries: Sequence[Entry]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Where intervals of keys begin, and the indices of the candidates in each, up to one that ends the walk."""
    edges: dict[int, list[int]] = {0: []}
    for index, (_, _, spans, _) in enumerate(entries):
        for low, high in spans:
            edges.setdefault(low, []).append(index)
            edges.setdefault(high + 1, []).append(~index)
    edges.pop(KEYS, None)
    active: list[int] = []
    enders: list[int] = []
    starts: list[int] = []
    lists: list[tuple[int, ...]] = []
    for key in sorted(edges):
        for change in edges[key]:
            index = change if change >= 0 else ~change
            for row in (active, enders) if entries[index][3] else (active,):
                if change >= 0:
                    insort(row, index)
                else:
                    row.remove(index)
        found = tuple(active[: bisect_right(active, enders[0])] if enders else active)
        if not lists or found != lists[-1]:
            starts.append(key)
            lists.append(found)
    return starts, lists
