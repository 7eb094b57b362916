"""Policy to what bpf/lib/policy.h walks; what lies where, tells `struct ms_policy` in bpf/include/abi.h.

Rules are not compared with one another, so no overlap multiplies them. The addresses that rules name, a group or the
prefixes of one `from` or `to`, are numbered *sets*. Each address has a *class*: the sets that hold it. A rule is filed
under one of its sides, its destination unless too many rules share that and its ports: it stands in the *tree* of each
set of that side, an index by protocol and port, and there as a *candidate*, which holds if the other address is in a
set of the other side. A walk looks at the trees of both addresses' classes and at the candidates that they have for
the port; the lowest number decides.

The kernel's loop is bounded, MS_POLICY_CANDIDATES and MS_POLICY_LISTS, and a policy of which some walk might be longer
is refused.
"""

from __future__ import annotations

import itertools
import operator
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fastpath import abi
from fastpath.abi import Limit
from fastpath.document import Network, Problem, without_collector
from fastpath.policy.compiler.bound import longest_walk, rows_of
from fastpath.policy.compiler.forest import Forest, Row
from fastpath.policy.compiler.layout import CLASS_WORDS, PAGE, aligned, rule_at
from fastpath.policy.compiler.pages import Pages
from fastpath.policy.compiler.records import put_ethertypes, put_rule, put_zones
from fastpath.policy.compiler.sets import Sets, class_ranges, is_ipv4, prefix_classes
from fastpath.policy.compiler.tables import PolicyTooLargeError, Sizes, Tables
from fastpath.policy.model import Networks, Policy, Rule
from fastpath.policy.where import Where

MAX_RULES = int(Limit.POLICY_RULES)
# Rules that differ from those before, of which not all is made anew.
MAX_CHANGES = 100


def compile_policy(policy: Policy) -> Tables:
    """The tables of a policy. PolicyTooLargeError when they would not fit the kernel's."""
    return Compiler().compile(policy)


class Compiler:
    """Compiles one policy again and again. Where a few rules changed and none came or went, only what holds these is
    made anew.
    """

    def __init__(self) -> None:
        self._last: _Build | None = None

    def compile(self, policy: Policy) -> Tables:
        """Its tables. PolicyTooLargeError when they would not fit the kernel's; what was compiled before stays."""
        with without_collector():
            build = self._last.changed(policy) if self._last is not None else None
            if build is None:
                build = _Build.of(policy)
            tables = build.tables()
        self._last = build
        return tables


@dataclass(frozen=True)
class _Build:
    """What tables are made of: of so many prefixes, where their classes lie, those classes' rows of trees (`rows_of`),
    and what says where rules hold. Before any change there were `first` words.
    """

    policy: Policy
    sets: Sets
    forest: Forest
    prefixes: int
    records: Mapping[tuple[int, ...], int]
    rows: list[list[set[Row]]]
    places: Mapping[Where, int]
    words: array[int]
    first: int

    @classmethod
    def of(cls, policy: Policy) -> _Build:
        if len(policy.rules) > MAX_RULES:
            message = f"{len(policy.rules)} rules; the kernel's tables hold {MAX_RULES}"
            raise PolicyTooLargeError([Problem(policy.file, 0, "rules", message)])
        sets = Sets()
        forest = Forest(policy, sets)
        pages = Pages()
        pages.put(itertools.repeat(0, rule_at(policy.last + 1)))
        places: dict[Where, int] = {}
        for number in range(policy.last + 1):
            put_rule(policy, number, places, pages)
        put_zones(policy, pages)
        put_ethertypes(policy, pages)
        prefixes = prefix_classes(sets.networks)
        records = {
            members: pages.put_class(sets.with_unions(members), forest.trees_of(members, pages))
            for members in set(prefixes.values())
        }
        for root, of_ipv4 in enumerate((True, False)):
            starts = [(start, records[members]) for start, members in class_ranges(prefixes, of_ipv4=of_ipv4)]
            pages.words[root] = pages.put_addresses(starts, 32 if of_ipv4 else 128)
        families = [
            {members for (address, _), members in prefixes.items() if is_ipv4(address) == of_ipv4}
            for of_ipv4 in (True, False)
        ]
        rows = rows_of(forest, families)
        return cls(policy, sets, forest, len(prefixes), records, rows, places, pages.words, len(pages.words))

    def changed(self, policy: Policy) -> _Build | None:
        """The same for a policy of which some rules differ; None where all has to be made anew."""
        if len(policy.rules) != len(self.policy.rules) or len(self.words) > 2 * self.first:
            return None
        if [each.id for each in policy.defaults] != [each.id for each in self.policy.defaults]:
            return None
        if policy.zone_numbers != self.policy.zone_numbers:
            return None
        old, new = self.policy.rules, policy.rules
        others = itertools.compress(itertools.count(), map(operator.is_not, old, new))
        differing = [index for index in others if _meaning(old[index]) != _meaning(new[index])]
        forest = self.forest.changed(policy, differing, self.sets) if len(differing) <= MAX_CHANGES else None
        if forest is None:
            return None
        pages = Pages(self.words[:])
        put_ethertypes(policy, pages)
        places = dict(self.places)
        for number in (0, *(index + 1 for index in differing), *range(len(policy.rules) + 1, policy.last + 1)):
            put_rule(policy, number, places, pages)
        pages.words[abi.Policy.asks_for_zones.offset // 4] = policy.asks_for_zones
        stale = self.forest.built.keys() - forest.built.keys()
        for members, at in self.records.items():
            if not stale.isdisjoint(itertools.chain(*forest.names_of(members))):
                refs = array("I", itertools.chain(*forest.trees_of(members, pages)))
                pages.words[at + CLASS_WORDS : at + CLASS_WORDS + len(refs)] = refs
        return replace(self, policy=policy, forest=forest, places=places, words=pages.words)

    def tables(self) -> Tables:
        """PolicyTooLargeError when a walk may be too long."""
        longest = longest_walk(self.policy, self.forest, self.rows)
        sizes = Sizes(
            rules=len(self.policy.rules),
            prefixes=self.prefixes,
            classes=len(self.records),
            trees=len(self.forest.built),
            longest=longest,
            value_bytes=4 * aligned(len(self.words), PAGE),
        )
        return Tables(self.policy, self.words, self.forest.sides, sizes)


def _meaning(rule: Rule) -> object:
    """All of a rule that the tables depend on."""
    return (
        rule.protocols, rule.ports, rule.udp_ports, rule.icmp_types, rule.icmp6_types, rule.apps, rule.action,
        rule.flags, rule.where, rule.hash, _digest(rule.sources), _digest(rule.destinations),
    )  # fmt: skip


def _digest(networks: Networks | tuple[Network, ...]) -> object:
    return networks.digest if isinstance(networks, Networks) else networks
