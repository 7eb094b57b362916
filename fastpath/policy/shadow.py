"""Rules that do nothing: those that no flow reaches, and those without which every verdict is the same.

A rule's flows are boxes: a range of sources, one of destinations, one of entries of the port table, and a mask of
application protocols. What other rules take is cut off, piece by piece, until nothing is left or a piece that nobody
takes is found. Whatever is said here holds for every flow, with whichever application protocols it may still be;
where that would take too much work to tell, it says so. Of rules that ask for zones, a direction or VLAN tags it does
not tell all: such a rule counts as one that takes a rule's flows only if by each of these conditions it takes them all.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastpath.abi import Action
from fastpath.document import Network
from fastpath.policy.compile import KEY_BASE, KEY_OTHER, key_spans
from fastpath.policy.model import Default, PairDefault, Policy, Rule, all_protocols, merged
from fastpath.policy.where import ANYWHERE, Where

# About a microsecond each: for one rule, and for all of them.
RULE_WORK = 50_000
ALL_WORK = 5_000_000
_STEP = 10  # what it takes to cut a piece
_UNIONS = 16  # of sets, in one
_TRIED = 4

# First and last, both within.
_Span = tuple[int, int]
_Block = tuple[_Span, _Span, _Span]
_BITS = {4: 32, 6: 128}

# Stretches of the port table whose flows have the same choice of application protocols. Protocols with ports, or types
# and codes, have their own entries by these, so the entries of their numbers among the others stand for no flow.
_STRETCHES: tuple[tuple[int, int, int], ...] = (
    *((base, base + 65535, all_protocols(l4)) for l4, base in KEY_BASE.items()),
    *(
        (KEY_OTHER + before + 1, KEY_OTHER + after - 1, all_protocols(before + 1))
        for before, after in itertools.pairwise([-1, *sorted(KEY_BASE), 256])
        if before + 1 < after
    ),
)


class Kind(enum.StrEnum):
    """What is wrong with a rule."""

    SHADOWED = "shadowed"
    REDUNDANT = "redundant"
    UNKNOWN = "unknown"  # too much work to tell


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule and those that take its flows; numbers are those of `Policy`."""

    kind: Kind
    rule: int
    by: tuple[int, ...] = ()


class _Box(NamedTuple):
    """Flows of one address family; `carried` are the application protocols that its IP protocols can carry."""

    spans: _Block
    apps: int
    carried: int


class _TooMuchError(Exception):
    """The work is more than was allowed."""


def lint(policy: Policy, rule_work: int = RULE_WORK, all_work: int = ALL_WORK) -> list[Finding]:
    """Findings in the order of the rules, at most one for each."""
    shadows = _Shadows(policy, rule_work, all_work)
    findings: dict[int, Finding] = {}
    for find in (shadows.shadowed, shadows.redundant):
        # The second goes by what the first has found.
        for number in range(len(policy.rules)):
            if number not in findings and (finding := find(number)) is not None:
                findings[number] = finding
    return [findings[number] for number in sorted(findings)]


class _Shadows:
    def __init__(self, policy: Policy, rule_work: int, all_work: int) -> None:
        self._rules = policy.rules
        # By number; the last one is for where no other is.
        self._defaults = [
            (number, _as_rule(policy.decider(number))) for number in (*range(len(policy.rules) + 1, policy.last + 1), 0)
        ]
        # Sets of the rules by where they hold, if not everywhere.
        self._placed: dict[Where, int] = {}
        for n, rule in enumerate(policy.rules):
            if rule.where is not None:
                self._placed[rule.where] = self._placed.get(rule.where, 0) | 1 << n
        entries = [key_spans(rule) for rule in policy.rules]
        self._shapes = {
            version: [
                (_addresses(rule.sources, version), _addresses(rule.destinations, version), own)
                for rule, own in zip(policy.rules, entries, strict=True)
            ]
            for version in _BITS
        }
        by_entry = _Overlaps(entries)
        self._overlaps = {
            version: (_Overlaps([s[0] for s in shapes]), _Overlaps([s[1] for s in shapes]), by_entry)
            for version, shapes in self._shapes.items()
        }
        # By the application protocols for which a rule is the end of the walk.
        self._enders: dict[int, int] = {}
        for n, rule in enumerate(policy.rules):
            if not rule.identify:
                self._enders[rule.apps] = self._enders.get(rule.apps, 0) | 1 << n
        self._able_for: dict[tuple[int, bool], int] = {}
        self._dead = 0  # those that are shadowed
        self._rule_work = rule_work
        self._all_left = all_work
        self._left = 0

    def shadowed(self, number: int) -> Finding | None:
        """Rules before this one take all of its flows."""
        takers: set[int] = set()
        self._begin()
        try:
            if not all(self._taken(number, version, takers) for version in _BITS) or not takers:
                return None
        except _TooMuchError:
            return Finding(Kind.UNKNOWN, number + 1)
        self._dead |= 1 << number
        return Finding(Kind.SHADOWED, number + 1, tuple(sorted(takers)))

    def redundant(self, number: int) -> Finding | None:
        """Rules behind this one, or the default, do the same with all of its flows."""
        if self._rules[number].identify:
            return None
        takers: set[int] = set()
        self._begin()
        try:
            if not all(self._repeated(number, version, takers) for version in _BITS) or not takers:
                return None
        except _TooMuchError:
            return Finding(Kind.UNKNOWN, number + 1)
        by = sorted(takers - {0}) + sorted(takers & {0})  # that default is the last
        return Finding(Kind.REDUNDANT, number + 1, tuple(by))

    def _elsewhere(self, number: int) -> int:
        """Set of the rules that may not hold where this one does."""
        wanted = self._rules[number].where
        return sum(rules for where, rules in self._placed.items() if not where.covers(wanted))

    def _begin(self) -> None:
        self._all_left += self._left
        self._left = min(self._rule_work, self._all_left)
        self._all_left -= self._left

    def _spend(self, work: int) -> None:
        if self._left < work:
            raise _TooMuchError
        self._left -= work

    def _taken(self, number: int, version: int, takers: set[int]) -> bool:
        """No flow of the family gets as far as this rule."""
        before = self._meeting(number, version) & ((1 << number) - 1) & ~self._elsewhere(number)
        # Of protocols that several rules take together, a flow that may be any of them passes all of those, undecided.
        # That is the end of it, unless it is denied all the same: then the last of them is named.
        together = self._rules[number].action != Action.DENY
        for start in self._boxes(number, version):
            stack = [start]
            while stack:
                self._spend(_STEP)
                box = stack.pop()
                able = before & self._able(box.apps, together)
                low, high = ([(span[end], span[end]) for span in box.spans] for end in (0, 1))
                around = self._at(version, low) & able
                if not around or not self._at(version, high) & able:
                    return False
                other, block = self._widest(around, version, low, box)
                takers.add(other + 1)
                stack += _outside(box, block, box.apps & ~self._rules[other].apps)
        return True

    def _able(self, apps: int, together: bool) -> int:
        """Set of the rules that end the walk for these protocols, or with `together` for some of them."""
        key = (apps, together)
        if key not in self._able_for:
            sets = (rules for mask, rules in self._enders.items() if (mask & apps if together else not apps & ~mask))
            self._able_for[key] = functools.reduce(operator.or_, sets, 0)
        return self._able_for[key]

    def _at(self, version: int, point: Sequence[_Span]) -> int:
        """Set of the rules that have a point of the three."""
        sets = [overlaps.at(span[0]) for overlaps, span in zip(self._overlaps[version], point, strict=True)]
        return sets[0] & sets[1] & sets[2]

    def _widest(self, rules: int, version: int, point: Sequence[_Span], box: _Box) -> tuple[int, _Block]:
        """Of rules that have this point, one that takes much of the box, and its block around the point."""
        # The first and the last of them are the wide ones most often: policies go from narrow to wide or the other way.
        some = {*itertools.islice(_bits(rules), _TRIED), rules.bit_length() - 1}
        blocks = [(other, _block(self._shapes[version][other], point)) for other in sorted(some)]
        taken = [(self._share(other, block, box), other, block) for other, block in blocks if block is not None]
        _, other, block = max(taken)
        return other, block

    def _share(self, other: int, block: _Block, box: _Box) -> int:
        lengths = (min(b[1], s[1]) - max(b[0], s[0]) + 1 for b, s in zip(block, box.spans, strict=True))
        volume: int = math.prod(lengths)
        return (self._rules[other].apps & box.apps).bit_count() * volume

    def _repeated(self, number: int, version: int, takers: set[int]) -> bool:
        """Without this rule, flows of the family that it decides get the same verdict further down."""
        rule = self._rules[number]
        shapes = self._shapes[version]
        behind = self._meeting(number, version) >> (number + 1) << (number + 1)
        for start in self._boxes(number, version):
            stack = [(start, behind)]
            while stack:
                box, others = stack.pop()
                for other in _bits(others):
                    self._spend(1)
                    block = _block(shapes[other], box.spans)
                    if block is None:
                        continue
                    if not _where(self._rules[other]).may_meet(rule.where):
                        continue
                    if self._dead >> other & 1 or not _same(rule, self._rules[other], box.carried):
                        return False
                    takers.add(other + 1)
                    if not _where(self._rules[other]).covers(rule.where):
                        continue
                    left = others >> other << other
                    stack += [(piece, left) for piece in _outside(box, block, 0)]
                    break
                else:
                    for beyond, default in self._defaults:
                        if not _where(default).may_meet(rule.where):
                            continue
                        # The gateway's own traffic is allowed where no rule says otherwise.
                        if _where(rule).may_be_hosts or not _same(rule, default, box.carried):
                            return False
                        takers.add(beyond)
                        # Without `from_zone` it leaves out what the gateway itself sends.
                        if _where(default).from_zones and _where(default).covers(rule.where):
                            break
        return True

    def _meeting(self, number: int, version: int) -> int:
        """Set of the rules that may have flows of the family in common with this one, and more."""
        shape = self._shapes[version][number]
        found = [
            overlaps.of(spans, self._spend) for overlaps, spans in zip(self._overlaps[version], shape, strict=True)
        ]
        return found[0] & found[1] & found[2]

    def _boxes(self, number: int, version: int) -> Iterator[_Box]:
        sources, destinations, entries = self._shapes[version][number]
        for first, last, carried in _STRETCHES:
            apps = self._rules[number].apps & carried
            if not apps:
                continue
            for low, high in entries:
                if low > last or high < first:
                    continue
                span = (max(low, first), min(high, last))
                for source, destination in itertools.product(sources, destinations):
                    self._spend(1)
                    yield _Box((source, destination, span), apps, carried)


class _Overlaps:
    """Which rules have something in common with a range."""

    def __init__(self, spans_of: Iterable[Sequence[_Span]]) -> None:
        edges = {0: 0}
        for index, spans in enumerate(spans_of):
            for low, high in spans:
                # A rule's own spans neither overlap nor touch.
                for edge in (low, high + 1):
                    edges[edge] = edges.get(edge, 0) ^ 1 << index
        self._edges = sorted(edges)
        self._sets: list[int] = list(itertools.accumulate((edges[edge] for edge in self._edges), operator.xor))
        self._known: dict[_Span, int] = {}

    def at(self, point: int) -> int:
        """Set of the rules that have a point."""
        return self._sets[bisect_right(self._edges, point) - 1]

    def of(self, spans: Iterable[_Span], spend: Callable[[int], None]) -> int:
        """Set of the rules. `spend` is told the work before it is done."""
        return functools.reduce(operator.or_, (self._of(span, spend) for span in spans), 0)

    def _of(self, span: _Span, spend: Callable[[int], None]) -> int:
        if span not in self._known:
            first, end = bisect_right(self._edges, span[0]) - 1, bisect_right(self._edges, span[1])
            spend(1 + (end - first) // _UNIONS)
            self._known[span] = functools.reduce(operator.or_, self._sets[first:end], 0)
        return self._known[span]


def _bits(rules: int) -> Iterator[int]:
    """Indices of a set's rules, in order."""
    while rules:
        low = rules & -rules
        yield low.bit_length() - 1
        rules ^= low


def _where(rule: Rule) -> Where:
    return rule.where or ANYWHERE


def _as_rule(default: Rule | Default) -> Rule:
    where = None
    if isinstance(default, PairDefault):
        from_zones, to_zones = ((zone,) if zone else () for zone in (default.from_zone, default.to_zone))
        where = Where(from_zones, to_zones)
    return Rule("", default.action, where=where, reset=default.reset, log=default.log, monitor=default.monitor)


def _same(rule: Rule, other: Rule, carried: int) -> bool:
    """What `rule` does with a flow, `other` does too, whichever of `carried` the flow may still be.

    A flow that may or may not be what a rule asks for waits. So a rule that asks for less may not stand for one that
    asks for more, nor the other way round, but for denials: rules that may deny leave a denied flow denied.
    """
    mine, its = rule.apps & carried, other.apps & carried
    return (
        not other.identify
        and (rule.action, rule.flags, rule.rule_files) == (other.action, other.flags, other.rule_files)
        and (mine == its or (rule.action == Action.DENY and not mine & ~its))
    )


def _addresses(networks: Sequence[Network], version: int) -> list[_Span]:
    if not networks:
        return [(0, (1 << _BITS[version]) - 1)]
    return merged(
        (int(network.network_address), int(network.broadcast_address))
        for network in networks
        if network.version == version
    )


def _block(shape: tuple[Sequence[_Span], ...], where: Sequence[_Span]) -> _Block | None:
    """The first block of a rule that meets three ranges, None when none does."""
    found: list[_Span] = []
    for spans, (low, high) in zip(shape, where, strict=True):
        at = 0 if len(spans) == 1 else bisect_left(spans, low, key=operator.itemgetter(1))
        if at == len(spans) or spans[at][0] > high or spans[at][1] < low:
            return None
        found.append(spans[at])
    return found[0], found[1], found[2]


def _outside(box: _Box, block: Sequence[_Span], apps: int) -> Iterator[_Box]:
    """What is left of a box when a block that meets it is cut out; of what is within, `apps`."""
    inner = list(box.spans)
    for side, (low, high) in enumerate(block):
        first, last = inner[side]
        for piece in ((first, low - 1), (high + 1, last)):
            if piece[0] <= piece[1]:
                spans = [*inner[:side], piece, *inner[side + 1 :]]
                yield box._replace(spans=(spans[0], spans[1], spans[2]))
        inner[side] = (max(first, low), min(last, high))
    if apps:
        yield _Box((inner[0], inner[1], inner[2]), apps, box.carried)
