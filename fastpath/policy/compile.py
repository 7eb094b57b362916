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

import copy
import functools
import itertools
import operator
import struct
from array import array
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ctypes import sizeof
from dataclasses import dataclass, field, replace
from functools import cached_property

from fastpath import abi
from fastpath.abi import Index, Limit
from fastpath.document import InvalidDocumentError, Network, Problem, without_collector
from fastpath.policy.evaluate import Walk, decide
from fastpath.policy.keys import KEYS, Span, Spans, key_of, key_text, meets
from fastpath.policy.model import (
    ANY_APP,
    Default,
    Networks,
    Policy,
    Rule,
    is_mapped,
)
from fastpath.policy.where import HOST, MAX_ZONES, NOWHERE, Context, Where

MAX_RULES = int(Limit.POLICY_RULES)
MAX_CANDIDATES = int(Limit.POLICY_CANDIDATES)
# Of each of the two classes of a walk.
MAX_TREES = Limit.POLICY_LISTS // 2
PAGE = int(Limit.POLICY_PAGE)


# So many rules may share a set of destinations and their ports before a rule is filed under its source instead.
CROWD = 32
# Sets that a rule names on the side where it is not filed, each a candidate of its own; of more, one set is made.
MAX_TESTS = 4
# Sums of trees' lengths made to find out whether a walk would be too long, some seconds' worth.
MAX_WORK = 500_000
# Stretches of keys for which that is done at a time; what counts for one tree, so that the sum of MAX_TREES has room.
_LANES = 256
_LANE_TOP = 0xFFFF // MAX_TREES

NO_RULE = 0x7FFFFFFF
MORE = 0x80000000
# Rules that differ from those before, of which not all is made anew.
MAX_CHANGES = 100

_POLICY_WORDS = sizeof(abi.Policy) // 4
_ETHERTYPES = abi.Policy.ethertypes.offset // 4
_RULE_WORDS = sizeof(abi.Rule) // 4
_WHERE_WORDS = sizeof(abi.Where) // 4
_VLAN_WORDS = 128
_CLASS_WORDS = sizeof(abi.Class) // 4
_BUCKET = 4
_BLOCK = 8
_NODE = int(Index.NODE)
_LEAF = _NODE // 2
_UNUSED = 0xFFFFFFFF
_MAPPED = bytes(10) + b"\xff\xff"
# Odd numbers; one of them spreads the sets of a class over few buckets.
_SPREADS = [0x9E3779B1 * (2 * n + 1) & 0xFFFFFFFF for n in range(16)]
# Number of all addresses, where a rule names none. It is no set: every class has its trees, and no candidate tests it.
_ANYONE = 0

# (address as a 128-bit number, prefix length), IPv4 mapped.
_Mapped = tuple[int, int]
_ROOT6: _Mapped = (0, 0)
_ROOT4: _Mapped = (0xFFFF << 32, 96)


class PolicyTooLargeError(InvalidDocumentError):
    """The policy does not fit the kernel's tables; the message has the numbers."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What there is of each, `longest` being the bound of a walk in candidates; all takes `value_bytes`."""

    rules: int
    prefixes: int
    classes: int
    trees: int
    longest: int
    value_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.rules} rules, {self.prefixes} prefixes of {self.classes} classes, {self.trees} trees, "
            f"{self.longest} candidates at most, {self.value_bytes >> 10} KiB"
        )


@dataclass(frozen=True)
class Tables:
    """Contents of the policy map of one slot. `words` are the pages one behind the other, the last one cut short;
    `sides` the numbers of the sets that each rule names as its destinations, and as its sources.
    """

    policy: Policy
    words: array[int]
    sides: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    sizes: Sizes

    def page_values(self) -> Iterator[bytes]:
        """The pages, each as the kernel has it."""
        for start in range(0, len(self.words), PAGE):
            yield self.words[start : start + PAGE].tobytes().ljust(PAGE * 4, b"\0")

    def walk(
        self,
        src: bytes,
        dst: bytes,
        l4: int,
        dport: int = 0,
        *,
        possible: int = 0,
        context: Context = NOWHERE,
    ) -> Walk:
        """Judge a flow as the kernel does, from the tables; parameters and result as of `evaluate`."""
        place = _Place.of(self.policy, context)
        found = self._matching(src, dst, key_of(l4, dport))
        matching = [index for index in sorted(found) if self._is_there(self._rule(index + 1).where, place)]
        return decide(self.policy, matching, l4, possible, self._default_of(place))

    def likely(self, src: bytes, dst: bytes, l4: int, dport: int = 0) -> list[tuple[int, bool, bool]]:
        """Indices of the rules that a flow meets in two at least of source, destination, and protocol and port; and
        whether source and destination are of these.
        """
        sides, services = self._naming
        # By service, the rules that have the address of a side.
        met: list[dict[int, set[int]]] = []
        for naming, address in zip(sides, (dst, src), strict=True):
            by_service: defaultdict[int, set[int]] = defaultdict(set)
            for each in (_ANYONE, *self._sets_of(self._class_of_address(address))):
                for service, indices in naming.get(each, {}).items():
                    by_service[service] |= indices
            met.append(by_service)
        key = key_of(l4, dport)
        found: list[tuple[int, bool, bool]] = []
        for service in met[0].keys() | met[1].keys():
            to, by = (by_service.get(service, set()) for by_service in met)
            some = to | by if meets(services[service], key) else to & by
            found += [(index, index in by, index in to) for index in some]
        return sorted(found)

    @cached_property
    def _naming(self) -> tuple[tuple[dict[int, dict[int, set[int]]], ...], list[tuple[Span, ...]]]:
        """Indices of the rules by the sets that they name as destinations, and as sources, and by their keys; and
        these.
        """
        naming: tuple[dict[int, dict[int, set[int]]], ...] = ({}, {})
        services: dict[tuple[Span, ...], int] = {}
        spans = Spans()
        for index, (sides, rule) in enumerate(zip(self.sides, self.policy.rules, strict=True)):
            service = services.setdefault(spans.of(rule), len(services))
            for by_set, named in zip(naming, sides, strict=True):
                for each in named:
                    by_set.setdefault(each, {}).setdefault(service, set()).add(index)
        return naming, list(services)

    def _sets_of(self, location: int) -> set[int]:
        found = self._class(location)
        first = self._buckets(location, found)
        return set(self.words[first : first + (_BUCKET << 32 - found.shift)]) - {0}

    def _matching(self, src: bytes, dst: bytes, key: int) -> set[int]:
        """Indices of the rules that hold, up to one that decides."""
        classes = [self._class_of_address(address) for address in (dst, src)]
        found: set[int] = set()
        for (own, by_source), other in zip(((classes[0], False), (classes[1], True)), reversed(classes), strict=True):
            for tree in self._trees(own)[by_source]:
                for number, tested in self._candidates(self._value_of(tree, key)):
                    if tested == _ANYONE or self._in_set(other, tested):
                        found.add(number - 1)
        return found

    def _rule(self, number: int) -> abi.Rule:
        at = _rule_at(number)
        return abi.Rule.from_buffer_copy(self.words[at : at + _RULE_WORDS])

    def _is_there(self, location: int, place: _Place) -> bool:
        if not location:
            return True
        where = abi.Where.from_buffer_copy(self.words[location : location + _WHERE_WORDS])
        tags = location + where.vlans
        return (
            _has(where.from_zones, place.from_zone)
            and _has(where.to_zones, place.to_zone)
            and bool(where.courses >> place.course & 1)
            and (not where.vlans or _has(self.words[tags : tags + _VLAN_WORDS], place.vlan))
        )

    def _default_of(self, place: _Place) -> int:
        """Number of what decides where no rule does."""
        root = abi.Policy.from_buffer_copy(self.words[:_POLICY_WORDS])
        return self.words[root.defaults + place.from_zone * root.zones + place.to_zone] if root.defaults else 0

    def _candidates(self, at: int) -> Iterator[tuple[int, int]]:
        """Numbers of a list's rules, and the sets that they test."""
        more = bool(at)
        while more:
            sets, rules = self.words[at : at + _BLOCK], self.words[at + _BLOCK : at + 2 * _BLOCK]
            more = bool(rules[-1] & MORE)
            for number, tested in zip(rules, sets, strict=True):
                if number & ~MORE != NO_RULE:
                    yield number & ~MORE, tested
            at += 2 * _BLOCK

    def _class(self, location: int) -> abi.Class:
        return abi.Class.from_buffer_copy(self.words[location : location + _CLASS_WORDS])

    def _trees(self, location: int) -> tuple[array[int], array[int]]:
        found = self._class(location)
        first = location + _CLASS_WORDS
        between = first + found.by_destination
        return self.words[first:between], self.words[between : between + found.by_source]

    def _in_set(self, location: int, number: int) -> bool:
        found = self._class(location)
        if not found.signature >> number % 64 & 1:
            return False
        bucket = self._buckets(location, found) + _BUCKET * ((number * found.spread & 0xFFFFFFFF) >> found.shift)
        return number in self.words[bucket : bucket + _BUCKET]

    @staticmethod
    def _buckets(location: int, found: abi.Class) -> int:
        return location + _CLASS_WORDS + _aligned(found.by_destination + found.by_source, _BUCKET)

    def _class_of_address(self, packed: bytes) -> int:
        if len(packed) != 16:
            raise ValueError(f"an address is 16 bytes, not {len(packed)}")
        root, packed = (0, packed[12:]) if packed.startswith(_MAPPED) else (1, packed)
        value = self.words[root]
        for (key,) in struct.iter_unpack(">I", packed):
            value = self._value_of(value, key)
            if not value & Index.ON:
                break
        return value

    def _value_of(self, index: int, key: int) -> int:
        words = self.words
        while True:
            node = index & ~(_NODE - 1)
            if index & Index.DEPTH == 1:
                return words[bisect_left(words, key, node + 1, node + _LEAF) - 1 + _LEAF]
            index = words[node] + _NODE * (bisect_left(words, key, node + 1, node + _NODE) - node - 1)


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
    """What tables are made of: of so many prefixes, the classes of each family and where all classes lie, and what says
    where rules hold. Before any change there were `first` words.
    """

    policy: Policy
    sets: _Sets
    forest: _Forest
    prefixes: int
    families: tuple[set[tuple[int, ...]], ...]
    records: Mapping[tuple[int, ...], int]
    places: Mapping[Where, int]
    words: array[int]
    first: int

    @classmethod
    def of(cls, policy: Policy) -> _Build:
        if len(policy.rules) > MAX_RULES:
            message = f"{len(policy.rules)} rules; the kernel's tables hold {MAX_RULES}"
            raise PolicyTooLargeError([Problem(policy.file, 0, "rules", message)])
        sets = _Sets()
        forest = _Forest(policy, sets)
        pages = _Pages()
        pages.put(itertools.repeat(0, _rule_at(policy.last + 1)))
        places: dict[Where, int] = {}
        for number in range(policy.last + 1):
            _put_rule(policy, number, places, pages)
        _put_zones(policy, pages)
        pages.words[_ETHERTYPES:_POLICY_WORDS] = _ethertype_words(policy)
        prefixes = _classes(sets.networks)
        records = {
            members: pages.put_class(sets.with_unions(members), forest.trees_of(members, pages))
            for members in set(prefixes.values())
        }
        for root, of_ipv4 in enumerate((True, False)):
            starts = [(start, records[members]) for start, members in _ranges(prefixes, of_ipv4=of_ipv4)]
            pages.words[root] = pages.put_addresses(starts, 32 if of_ipv4 else 128)
        families = tuple(
            {members for (address, _), members in prefixes.items() if _is_ipv4(address) == of_ipv4}
            for of_ipv4 in (True, False)
        )
        return cls(policy, sets, forest, len(prefixes), families, records, places, pages.words, len(pages.words))

    def changed(self, policy: Policy) -> _Build | None:
        """The same for a policy of which some rules differ; None where all has to be made anew."""
        if len(policy.rules) != len(self.policy.rules) or len(self.words) > 2 * self.first:
            return None
        if [each.id for each in policy.defaults] != [each.id for each in self.policy.defaults]:
            return None
        if policy.zone_numbers != self.policy.zone_numbers:
            return None
        pairs = enumerate(zip(self.policy.rules, policy.rules, strict=True))
        differing = [index for index, (old, new) in pairs if old is not new and _meaning(old) != _meaning(new)]
        forest = self.forest.changed(policy, differing, self.sets) if len(differing) <= MAX_CHANGES else None
        if forest is None:
            return None
        pages = _Pages(self.words[:])
        pages.words[_ETHERTYPES:_POLICY_WORDS] = _ethertype_words(policy)
        places = dict(self.places)
        for number in (0, *(index + 1 for index in differing), *range(len(policy.rules) + 1, policy.last + 1)):
            _put_rule(policy, number, places, pages)
        pages.words[abi.Policy.asks_for_zones.offset // 4] = policy.asks_for_zones
        stale = self.forest.built.keys() - forest.built.keys()
        for members, at in self.records.items():
            if not stale.isdisjoint(itertools.chain(*forest.names_of(members))):
                refs = array("I", itertools.chain(*forest.trees_of(members, pages)))
                pages.words[at + _CLASS_WORDS : at + _CLASS_WORDS + len(refs)] = refs
        return replace(self, policy=policy, forest=forest, places=places, words=pages.words)

    def tables(self) -> Tables:
        """PolicyTooLargeError when a walk may be too long."""
        longest = _longest_walk(self.policy, self.forest, self.families)
        sizes = Sizes(
            rules=len(self.policy.rules),
            prefixes=self.prefixes,
            classes=len(self.records),
            trees=len(self.forest.built),
            longest=longest,
            value_bytes=4 * _aligned(len(self.words), PAGE),
        )
        return Tables(self.policy, self.words, self.forest.sides, sizes)


@dataclass(frozen=True, slots=True)
class _Place:
    """A context in numbers."""

    from_zone: int
    to_zone: int
    course: int
    vlan: int

    @classmethod
    def of(cls, policy: Policy, context: Context) -> _Place:
        """Zones that the policy does not name are no different from none."""
        numbers = policy.zone_numbers
        from_zone, to_zone = (numbers.get(zone, numbers[None]) for zone in (context.from_zone, context.to_zone))
        return cls(from_zone, to_zone, context.course, context.vlan)


def _put_zones(policy: Policy, pages: _Pages) -> None:
    """What the policy as a whole says of zones."""
    numbers = policy.zone_numbers
    count = max(numbers.values()) + 1
    if count > abi.Zone.FIRST + MAX_ZONES:
        message = f"{count - abi.Zone.FIRST} zones; {MAX_ZONES} is the most"
        raise PolicyTooLargeError([Problem(policy.file, 0, "rules", message)])
    root = abi.Policy(asks_for_zones=policy.asks_for_zones, zones=count)
    if policy.defaults:
        table = array("I", bytes(4 * count * count))
        anywhere = [number for zone, number in numbers.items() if zone != HOST]
        # The first that fits is written last.
        for number, each in reversed([*enumerate(policy.defaults, len(policy.rules) + 1)]):
            from_zones = [numbers[each.from_zone]] if each.from_zone else anywhere
            to_zones = [numbers[each.to_zone]] if each.to_zone else numbers.values()
            for one, other in itertools.product(from_zones, to_zones):
                table[one * count + other] = number
        root.defaults = pages.make_room(len(table), 1)
        pages.put(table)
    pages.words[:_POLICY_WORDS] = array("I", bytes(root))


def _put_rule(policy: Policy, number: int, places: dict[Where, int], pages: _Pages) -> None:
    """A rule's record in its place, and what says where it holds, if that is not in `places`."""
    rule = policy.decider(number)
    words = _rule_words(rule)
    if isinstance(rule, Rule) and rule.where is not None:
        if rule.where not in places:
            said = _where_words(rule.where, policy.zone_numbers)
            places[rule.where] = pages.make_room(len(said), _WHERE_WORDS)
            pages.put(said)
        words[abi.Rule.where.offset // 4] = places[rule.where]
    at = _rule_at(number)
    pages.words[at : at + _RULE_WORDS] = words


def _where_words(where: Where, numbers: Mapping[str | None, int]) -> array[int]:
    from_zones, to_zones = ([numbers[zone] for zone in zones] for zones in (where.from_zones, where.to_zones))
    record = abi.Where(courses=_mask(where.courses, 32)[0], vlans=_WHERE_WORDS if where.vlans else 0)
    record.from_zones[:] = _mask(from_zones, 256)
    record.to_zones[:] = _mask(to_zones, 256)
    words = array("I", bytes(record))
    if where.vlans:
        words.extend(_mask([each for low, high in where.vlans for each in range(low, high + 1)], 32 * _VLAN_WORDS))
    return words


def _mask(numbers: Iterable[int], bits: int) -> list[int]:
    """Words with these bits set, all of them where there are no numbers."""
    whole = functools.reduce(operator.or_, (1 << number for number in numbers), 0) or (1 << bits) - 1
    return [whole >> at & 0xFFFFFFFF for at in range(0, bits, 32)]


def _has(words: Sequence[int], bit: int) -> bool:
    return bool(words[bit // 32] >> bit % 32 & 1)


class _Sets:
    """Sets of addresses by number, from 1 on."""

    def __init__(self) -> None:
        self.networks: dict[int, Networks] = {}
        self._numbers: dict[bytes, int] = {}  # by digest
        # By the id of what the policy keeps alive: thousands of rules name the same group.
        self._known: dict[int, tuple[int, ...]] = {}
        self._unions: dict[tuple[int, ...], int] = {}
        self._unions_of: defaultdict[int, list[int]] = defaultdict(list)

    def named(self, networks: Networks | tuple[Network, ...]) -> tuple[int, ...]:
        """The sets that a `from` or `to` names; `_ANYONE` alone where it names none."""
        if not networks:
            return (_ANYONE,)
        known = self._known.get(id(networks))
        if known is None:
            known = self._known[id(networks)] = tuple(dict.fromkeys(map(self._number, _parts(networks))))
        return known

    def known(self, networks: Networks | tuple[Network, ...]) -> tuple[int, ...] | None:
        """The same of other rules than those it was made for; None where a set is not there, or none to be tested."""
        if not networks:
            return (_ANYONE,)
        named: dict[int, None] = {}
        for part in _parts(networks):
            number = self._numbers.get(part.digest)
            if number is None:
                return None
            named[number] = None
        return tuple(named) if len(named) <= MAX_TESTS or tuple(named) in self._unions else None

    def tested(self, named: tuple[int, ...]) -> tuple[int, ...]:
        """The same to be tested: not many."""
        if len(named) <= MAX_TESTS:
            return named
        if named not in self._unions:
            number = self._unions[named] = len(self._numbers) + len(self._unions) + 1
            for each in named:
                self._unions_of[each].append(number)
        return (self._unions[named],)

    def with_unions(self, members: Iterable[int]) -> set[int]:
        """Sets of a class, and those made of them."""
        every = set(members)
        return every.union(*(self._unions_of[each] for each in every if each in self._unions_of))

    def _number(self, networks: Networks) -> int:
        number = self._numbers.setdefault(networks.digest, len(self._numbers) + len(self._unions) + 1)
        self.networks.setdefault(number, networks)
        return number


@dataclass(slots=True)
class _Tree:
    """Where it lies, and the lists' lengths by the keys where their intervals begin."""

    location: int
    starts: list[int]
    lengths: list[int]
    longest: int

    def length_at(self, key: int) -> int:
        return self.lengths[bisect_right(self.starts, key) - 1]

    def lanes(self, stretches: Sequence[Sequence[int]]) -> int:
        """The longest list in each stretch of keys, 16 bits each, so that adding up trees is adding up numbers."""
        tops = array("H")
        for keys in stretches:
            first, end = bisect_right(self.starts, keys[0]) - 1, bisect_right(self.starts, keys[-1])
            tops.append(min(max(self.lengths[first:end]), _LANE_TOP))
        return int.from_bytes(tops.tobytes(), "little")


# A candidate: its rule's number, the set that it tests, the keys of its rule, and whether it ends every walk that
# gets to it.
_Entry = tuple[int, int, tuple[Span, ...], bool]
# The side that a tree's rules are filed under, and its sets: more than one where a class has too many trees.
_Name = tuple[bool, tuple[int, ...]]


class _Forest:
    """All trees, built when a class asks for them."""

    def __init__(self, policy: Policy, sets: _Sets) -> None:
        self.entries: tuple[dict[int, list[_Entry]], ...] = ({}, {})
        self.built: dict[_Name, _Tree] = {}
        self.names: dict[tuple[int, ...], tuple[list[_Name], ...]] = {}
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
        keys = id(self.spans.of(rule))
        # Between equal ones it is better not to burden every packet.
        to, from_ = (
            (max([crowd[each, keys] for each in side]), side == (_ANYONE,))
            for crowd, side in zip(self.crowds, named, strict=True)
        )
        return to[0] > CROWD and from_ < to

    def filed(self, index: int, rule: Rule, sets: _Sets) -> Iterator[tuple[int, list[_Entry]]]:
        """The sets under which a rule is filed, and its candidates there."""
        by_source = self.by_source[index]
        keys = self.spans.of(rule)
        tests = sets.tested(self.sides[index][not by_source])
        entries = [(index + 1, test, keys, test == _ANYONE and not rule.candidate) for test in tests]
        return ((each, entries) for each in self.sides[index][by_source])

    def changed(self, policy: Policy, differing: Sequence[int], sets: _Sets) -> _Forest | None:
        """The trees with other rules in these places, those not built that hold them; None where other classes come of
        it.
        """
        forest = copy.copy(self)
        forest.sides, forest.by_source = self.sides[:], self.by_source[:]
        entries: tuple[dict[int, list[_Entry]], ...] = (dict(self.entries[0]), dict(self.entries[1]))
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

    def names_of(self, members: tuple[int, ...]) -> tuple[list[_Name], ...]:
        """The trees of a class by destination, and those by source."""
        if members not in self.names:
            found = []
            for by_source in (False, True):
                filed = self.entries[by_source]
                own = [each for each in (_ANYONE, *members) if each in filed]
                names: list[_Name] = [(by_source, (each,)) for each in own]
                found.append(names if len(names) <= MAX_TREES else [(by_source, tuple(own))])
            self.names[members] = tuple(found)
        return self.names[members]

    def trees_of(self, members: tuple[int, ...], pages: _Pages) -> tuple[list[int], ...]:
        """Where they are."""
        found = []
        for names in self.names_of(members):
            for name in names:
                if name not in self.built:
                    self.built[name] = pages.put_tree(self.entries_of(name))
            found.append([self.built[name].location for name in names])
        return tuple(found)

    def entries_of(self, name: _Name) -> list[_Entry]:
        """The candidates of a tree in the order of their rules."""
        by_source, sets = name
        lists = [self.entries[by_source][each] for each in sets]
        return lists[0] if len(lists) == 1 else sorted(set(itertools.chain.from_iterable(lists)))


def _meaning(rule: Rule) -> object:
    """All of a rule that the tables depend on."""
    return (
        rule.protocols, rule.ports, rule.udp_ports, rule.icmp_types, rule.icmp6_types, rule.apps, rule.action,
        rule.flags, rule.where, rule.hash, _digest(rule.sources), _digest(rule.destinations),
    )  # fmt: skip


def _parts(networks: Networks | tuple[Network, ...]) -> tuple[Networks, ...]:
    return networks.parts if isinstance(networks, Networks) else (Networks(networks),)


def _digest(networks: Networks | tuple[Network, ...]) -> object:
    return networks.digest if isinstance(networks, Networks) else networks


@dataclass(slots=True)
class _Pages:
    """Words, of which nothing lies across two pages."""

    words: array[int] = field(default_factory=lambda: array("I"))

    def make_room(self, count: int, align: int) -> int:
        """Where as many words will lie that are put next."""
        words = self.words
        at = _aligned(len(words), align)
        if at % PAGE + count > PAGE:
            at = _aligned(at, PAGE)
        words.frombytes(bytes(4 * (at - len(words))))
        return at

    def put(self, values: Iterable[int]) -> None:
        """At the end."""
        self.words.extend(values)

    def put_class(self, sets: set[int], trees: tuple[list[int], ...]) -> int:
        """A class; where it lies."""
        spread, shift, buckets = _buckets(sets)
        # Whatever is tested for nobody in particular passes.
        signature = functools.reduce(operator.or_, (1 << number % 64 for number in sets), 1)
        by_destination, by_source = trees
        record = abi.Class(signature, spread, shift, len(by_destination), len(by_source))
        count = _aligned(len(by_destination) + len(by_source), _BUCKET)
        at = self.make_room(_CLASS_WORDS + count + len(buckets), _NODE)
        self.words.frombytes(bytes(record))
        self.put((*by_destination, *by_source))
        self.make_room(len(buckets), _BUCKET)
        self.put(buckets)
        return at

    def put_tree(self, entries: Sequence[_Entry]) -> _Tree:
        """A tree of candidates in order."""
        starts, lists = _intervals(entries)
        where: dict[tuple[int, ...], int] = {(): 0}
        for each in lists:
            if each not in where:
                where[each] = self._put_list([entries[index] for index in each])
        lengths = [len(each) for each in lists]
        return _Tree(self.put_index(starts, [where[each] for each in lists]), starts, lengths, max(lengths))

    def _put_list(self, entries: Sequence[_Entry]) -> int:
        blocks = -(-len(entries) // _BLOCK)
        at = self.make_room(2 * _BLOCK * blocks, 2 * _BLOCK)
        for first in range(0, len(entries), _BLOCK):
            row = entries[first : first + _BLOCK]
            empty = _BLOCK - len(row)
            self.put((*(entry[1] for entry in row), *[_ANYONE] * empty))
            self.put((*(entry[0] for entry in row), *[NO_RULE] * empty))
            if first + _BLOCK < len(entries):
                self.words[-1] |= MORE
        return at

    def put_addresses(self, starts: Sequence[tuple[int, int]], bits: int) -> int:
        """An index of addresses of so many bits, by 32 of them at a time: where ranges begin, and their values."""
        rest = bits - 32
        entries: list[tuple[int, int]] = []
        value = 0
        for key, group in itertools.groupby(starts, key=lambda start: start[0] >> rest):
            low = [(start - (key << rest), own) for start, own in group]
            if len(low) == 1 and not low[0][0]:
                entries.append((key, low[0][1]))
            else:
                within = low if not low[0][0] else [(0, value), *low]
                entries += [(key, self.put_addresses(within, rest) | Index.ON), (key + 1, low[-1][1])]
            value = low[-1][1]
        # Behind a word that is looked into stands what follows it, unless that has an entry of its own.
        last = dict(entries)
        last.pop(1 << 32, None)
        keys = sorted(last)
        return self.put_index(keys, [last[key] for key in keys])

    def put_index(self, keys: Sequence[int], values: Sequence[int]) -> int:
        """An index, of which the first key is 0; its reference."""
        words = self.words
        firsts = keys[::_LEAF]
        at = self._make_nodes(len(firsts))
        for first in range(0, len(keys), _LEAF):
            own = [key - 1 for key in keys[first + 1 : first + _LEAF]]
            words.extend((0, *own, *[_UNUSED] * (_LEAF - 1 - len(own))))
            row = values[first : first + _LEAF]
            words.extend((*row, *[0] * (_LEAF - len(row))))
        depth = 1
        while len(firsts) > 1:
            begin, children = at, firsts
            firsts = children[::_NODE]
            at = self._make_nodes(len(firsts))
            for first in range(0, len(children), _NODE):
                own = [key - 1 for key in children[first + 1 : first + _NODE]]
                words.extend((begin + _NODE * first | depth, *own, *[_UNUSED] * (_NODE - 1 - len(own))))
            depth += 1
        assert depth <= Index.LEVELS
        return at | depth

    def _make_nodes(self, count: int) -> int:
        """Where as many nodes will lie; the children of one node never across two pages."""
        return self.make_room(_NODE * count, _NODE if _NODE * count <= PAGE else PAGE)


def _intervals(entries: Sequence[_Entry]) -> tuple[list[int], list[tuple[int, ...]]]:
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


def _buckets(sets: set[int]) -> tuple[int, int, list[int]]:
    """Multiplier, shift, and the buckets' words."""
    for bits in itertools.count(0):
        shift = 32 - bits
        for spread in _SPREADS if bits else _SPREADS[:1]:
            buckets: list[list[int]] = [[] for _ in range(1 << bits)]
            for number in sorted(sets):
                buckets[(number * spread & 0xFFFFFFFF) >> shift].append(number)
            if all(len(bucket) <= _BUCKET for bucket in buckets):
                return spread, shift, [n for bucket in buckets for n in (*bucket, *[0] * (_BUCKET - len(bucket)))]
    raise AssertionError


def _aligned(count: int, align: int) -> int:
    return -(-count // align) * align


def _ethertype_words(policy: Policy) -> array[int]:
    count = int(Limit.POLICY_ETHERTYPES)
    row = array("H", (*policy.ethertypes, *[0] * (count - len(policy.ethertypes))))
    return array("I", row.tobytes())


def _rule_at(number: int) -> int:
    """Where a rule lies."""
    return _POLICY_WORDS + _RULE_WORDS * number


def _rule_words(rule: Rule | Default) -> array[int]:
    apps, meaning = (rule.apps, rule.hash) if isinstance(rule, Rule) else (ANY_APP, 0)
    words = array("I")
    words.frombytes(bytes(abi.Rule(apps=apps, hash=meaning, action=rule.action, flags=rule.flags)))
    return words


def _mapped(network: Network) -> _Mapped:
    address = int(network.network_address)
    if network.version == 4:
        return _ROOT4[0] | address, 96 + network.prefixlen
    if is_mapped(network):
        raise ValueError(f"{network} is IPv4-mapped")
    return address, network.prefixlen


def _is_ipv4(address: int) -> bool:
    return address >> 32 == _ROOT4[0] >> 32


def _classes(networks_of: Mapping[int, Sequence[Network]]) -> dict[_Mapped, tuple[int, ...]]:
    """The sets that hold each prefix: those that name it, and all that name one around it in its family.

    Both families' roots are always there: a short IPv6 prefix never holds IPv4.
    """
    own: tuple[dict[_Mapped, list[int]], dict[_Mapped, list[int]]] = ({_ROOT4: []}, {_ROOT6: []})
    for number, networks in networks_of.items():
        for network in networks:
            own[network.version == 6].setdefault(_mapped(network), []).append(number)
    result: dict[_Mapped, tuple[int, ...]] = {}
    for family in own:
        around: list[tuple[int, int, tuple[int, ...]]] = []  # prefixes that hold the next one, outermost first
        for address, length in sorted(family):
            while around and address >> (128 - around[-1][1]) != around[-1][0] >> (128 - around[-1][1]):
                around.pop()
            members = tuple(family[address, length])
            if around:
                members = tuple(sorted({*members, *around[-1][2]}))
            around.append((address, length, members))
            result[address, length] = members
    return result


def _ranges(classes: Mapping[_Mapped, tuple[int, ...]], *, of_ipv4: bool) -> list[tuple[int, tuple[int, ...]]]:
    """Where ranges of a family's addresses begin, the first at 0, and their classes."""
    base, bits = (_ROOT4[0], 32) if of_ipv4 else (0, 128)
    starts: dict[int, tuple[int, ...]] = {}
    ends: list[tuple[int, tuple[int, ...]]] = []  # where the prefixes around the next one end, and their classes

    def close(until: int) -> None:
        while ends and ends[-1][0] <= until:
            end, _ = ends.pop()
            if ends:
                starts[end] = ends[-1][1]

    for address, length in sorted(key for key in classes if _is_ipv4(key[0]) == of_ipv4):
        own = address - base
        close(own)
        starts[own] = classes[address, length]
        ends.append((own + (1 << 128 - length), classes[address, length]))
    close(1 << bits)
    starts.pop(1 << bits, None)
    found: list[tuple[int, tuple[int, ...]]] = []
    for start in sorted(starts):
        if not found or found[-1][1] != starts[start]:
            found.append((start, starts[start]))
    return found


def _longest_walk(policy: Policy, forest: _Forest, families: Iterable[Iterable[tuple[int, ...]]]) -> int:
    """Candidates that a walk looks at, at most. A policy of which some walk might be longer than the kernel's is
    refused.
    """
    longest = 0
    for members in families:
        rows = tuple({_Row.of(forest, each, side) for each in members} for side in (0, 1))
        tops = [max(row.bound for row in side) for side in rows]
        if sum(tops) <= MAX_CANDIDATES:
            longest = max(longest, sum(tops))
            continue
        # Only of these a pair may be too long.
        crowded = [
            [row for row in side if row.bound + top > MAX_CANDIDATES]
            for side, top in zip(rows, reversed(tops), strict=True)
        ]
        longest = max(longest, _longest_pair(policy, forest, crowded))
    return longest


@dataclass(frozen=True, slots=True)
class _Row:
    """A class's trees of one side; their lists are as long together as `bound` at most."""

    names: tuple[_Name, ...]
    bound: int

    @classmethod
    def of(cls, forest: _Forest, members: tuple[int, ...], side: int) -> _Row:
        names = tuple(forest.names_of(members)[side])
        return cls(names, sum([forest.built[name].longest for name in names]))


def _longest_pair(policy: Policy, forest: _Forest, sides: Sequence[Sequence[_Row]]) -> int:
    """The same of these rows. Keys are looked at together in so many stretches, and those stretches again where a walk
    seems too long.
    """
    trees = {name: forest.built[name] for side in sides for row in side for name in row.names}
    longest = 0
    work = 0
    stretches = [sorted({start for tree in trees.values() for start in tree.starts})]
    while stretches:
        keys = stretches.pop()
        size = -(-len(keys) // _LANES)
        lanes = [keys[at : at + size] for at in range(0, len(keys), size)]
        work += sum(map(len, sides)) + len(trees)
        if work > MAX_WORK:
            message = (
                f"rules overlap so much that it cannot be told whether no more than {MAX_CANDIDATES} of them meet for "
                "one source, destination and port: narrow some of them"
            )
            raise PolicyTooLargeError([Problem(policy.file, 0, "rules", message)])
        packed = {name: tree.lanes(lanes) for name, tree in trees.items()}
        tops = [[0] * len(lanes) for _ in sides]
        for top, side in zip(tops, sides, strict=True):
            for row in side:
                counts = array("H", sum(packed[name] for name in row.names).to_bytes(2 * len(lanes), "little"))
                top[:] = map(max, top, counts)
        for lane, count in zip(lanes, map(sum, zip(*tops, strict=True)), strict=True):
            if count <= MAX_CANDIDATES:
                longest = max(longest, count)
            elif len(lane) > 1:
                stretches.append(lane)
            else:
                _refuse(policy, forest, sides, lane[0])
    return longest


def _refuse(policy: Policy, forest: _Forest, sides: Iterable[Iterable[_Row]], key: int) -> None:
    trees = forest.built
    found = [max(side, key=lambda row: sum(trees[name].length_at(key) for name in row.names)) for side in sides]
    names = [name for row in found for name in row.names]
    count = sum(trees[name].length_at(key) for name in names)
    entries = sorted({entry for name in names for entry in forest.entries_of(name) if meets(entry[2], key)})
    rule = policy.rules[entries[min(MAX_CANDIDATES, len(entries) - 1)][0] - 1]
    message = (
        f"for one source and one destination, {count} rules have to be looked at over {key_text(key)}; the kernel's "
        f"walk holds {MAX_CANDIDATES}, and {rule.id!r} is the next"
    )
    raise PolicyTooLargeError([Problem(rule.file or policy.file, rule.line, "rules", message)])
