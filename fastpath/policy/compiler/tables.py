"""What a policy is compiled to, and reading it as the kernel does."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from fastpath import abi
from fastpath.abi import Index
from fastpath.document import InvalidDocumentError
from fastpath.policy.compiler.layout import (
    ANYONE,
    BLOCK,
    BUCKET,
    CLASS_WORDS,
    LEAF,
    MORE,
    NO_RULE,
    NODE,
    PAGE,
    POLICY_WORDS,
    RULE_WORDS,
    VLAN_WORDS,
    WHERE_WORDS,
    aligned,
    rule_at,
)
from fastpath.policy.evaluate import Walk, decide
from fastpath.policy.keys import Span, Spans, key_of, meets
from fastpath.policy.model import Policy
from fastpath.policy.where import NOWHERE, Context

_MAPPED = bytes(10) + b"\xff\xff"


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
            for each in (ANYONE, *self._sets_of(self._class_of_address(address))):
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
        return set(self.words[first : first + (BUCKET << 32 - found.shift)]) - {0}

    def _matching(self, src: bytes, dst: bytes, key: int) -> set[int]:
        """Indices of the rules that hold, up to one that decides."""
        classes = [self._class_of_address(address) for address in (dst, src)]
        found: set[int] = set()
        for (own, by_source), other in zip(((classes[0], False), (classes[1], True)), reversed(classes), strict=True):
            for tree in self._trees(own)[by_source]:
                for number, tested in self._candidates(self._value_of(tree, key)):
                    if tested == ANYONE or self._in_set(other, tested):
                        found.add(number - 1)
        return found

    def _rule(self, number: int) -> abi.Rule:
        at = rule_at(number)
        return abi.Rule.from_buffer_copy(self.words[at : at + RULE_WORDS])

    def _is_there(self, location: int, place: _Place) -> bool:
        if not location:
            return True
        where = abi.Where.from_buffer_copy(self.words[location : location + WHERE_WORDS])
        tags = location + where.vlans
        return (
            _has(where.from_zones, place.from_zone)
            and _has(where.to_zones, place.to_zone)
            and bool(where.courses >> place.course & 1)
            and (not where.vlans or _has(self.words[tags : tags + VLAN_WORDS], place.vlan))
        )

    def _default_of(self, place: _Place) -> int:
        """Number of what decides where no rule does."""
        root = abi.Policy.from_buffer_copy(self.words[:POLICY_WORDS])
        return self.words[root.defaults + place.from_zone * root.zones + place.to_zone] if root.defaults else 0

    def _candidates(self, at: int) -> Iterator[tuple[int, int]]:
        """Numbers of a list's rules, and the sets that they test."""
        more = bool(at)
        while more:
            sets, rules = self.words[at : at + BLOCK], self.words[at + BLOCK : at + 2 * BLOCK]
            more = bool(rules[-1] & MORE)
            for number, tested in zip(rules, sets, strict=True):
                if number & ~MORE != NO_RULE:
                    yield number & ~MORE, tested
            at += 2 * BLOCK

    def _class(self, location: int) -> abi.Class:
        return abi.Class.from_buffer_copy(self.words[location : location + CLASS_WORDS])

    def _trees(self, location: int) -> tuple[array[int], array[int]]:
        found = self._class(location)
        first = location + CLASS_WORDS
        between = first + found.by_destination
        return self.words[first:between], self.words[between : between + found.by_source]

    def _in_set(self, location: int, number: int) -> bool:
        found = self._class(location)
        if not found.signature >> number % 64 & 1:
            return False
        bucket = self._buckets(location, found) + BUCKET * ((number * found.spread & 0xFFFFFFFF) >> found.shift)
        return number in self.words[bucket : bucket + BUCKET]

    @staticmethod
    def _buckets(location: int, found: abi.Class) -> int:
        return location + CLASS_WORDS + aligned(found.by_destination + found.by_source, BUCKET)

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
            node = index & ~(NODE - 1)
            if index & Index.DEPTH == 1:
                return words[bisect_left(words, key, node + 1, node + LEAF) - 1 + LEAF]
            index = words[node] + NODE * (bisect_left(words, key, node + 1, node + NODE) - node - 1)


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


def _has(words: Sequence[int], bit: int) -> bool:
    return bool(words[bit // 32] >> bit % 32 & 1)
