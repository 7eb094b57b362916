"""Rules that do nothing: those that no flow reaches, and those without which every verdict is the same.

A rule's flows are those from any of its sources to any of its destinations over any of its entries of the port table.
What other rules take is cut off, piece by piece, until nothing is left or a flow that nobody takes is found: most rules
are told by a flow or two. Whatever is said here holds for every flow, with whichever application protocols it may still
be; where that would take too much work to tell, it says so. Of rules that ask for zones, a direction or VLAN tags it
does not tell all: such a rule counts as one that takes a rule's flows only if by each of these conditions it takes them
all.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from fastpath.abi import Action
from fastpath.policy.edges import Edges, common, first, last, size, union, without
from fastpath.policy.keys import KEY_BASE, KEY_OTHER
from fastpath.policy.model import Default, PairDefault, Policy, Rule, all_protocols
from fastpath.policy.overlaps import END, IPV4, Overlaps
from fastpath.policy.where import ANYWHERE, Where

# About a microsecond each: for one rule, and for all of them.
RULE_WORK = 50_000
ALL_WORK = 20_000_000
_STEP = 10  # what it takes to look into a piece
_TRIED = 4
_KEPT = 16


def _entries_by_choice() -> dict[int, Edges]:
    """Entries of the port table by the application protocols that their flows may be. TCP and UDP have their own by
    port, so the entries of their numbers among the others stand for no flow.
    """
    found: defaultdict[int, list[Edges]] = defaultdict(list)
    for l4 in range(256):
        first, count = (KEY_BASE[l4], 65536) if l4 in KEY_BASE else (KEY_OTHER + l4, 1)
        found[all_protocols(l4)].append((first, first + count))
    return {carried: union(entries) for carried, entries in found.items()}


_ENTRIES = _entries_by_choice()


class Kind(enum.StrEnum):
    """What is wrong with a rule."""

    SHADOWED = "shadowed"
    REDUNDANT = "redundant"
    UNKNOWN = "unknown"  # too much work to tell


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule and those that take its flows; numbers are 0 for the default, else 1 + index in `Policy.rules`."""

    kind: Kind
    rule: int
    by: tuple[int, ...] = ()


class _Flow(NamedTuple):
    """Addresses of one family, and an entry of the port table."""

    source: int
    destination: int
    entry: int


class _Piece(NamedTuple):
    """Flows; `carried` are the application protocols that their IP protocols can carry, `apps` some of these."""

    sources: Edges
    destinations: Edges
    entries: Edges
    apps: int
    carried: int

    @property
    def families(self) -> tuple[bool, bool]:
        """There are flows of IPv6, and of IPv4."""
        if not (self.sources and self.destinations and self.entries):
            return False, False
        return (
            self.sources[0] < IPV4 and self.destinations[0] < IPV4,
            self.sources[-1] > IPV4 and self.destinations[-1] > IPV4,
        )

    @property
    def corners(self) -> tuple[_Flow, _Flow]:
        """The flow of the lowest numbers, and that of the highest. There must be some."""
        of_ipv6, of_ipv4 = self.families
        low, high = (0 if of_ipv6 else IPV4), (END if of_ipv4 else IPV4)
        return (
            _Flow(first(self.sources, low), first(self.destinations, low), self.entries[0]),
            _Flow(last(self.sources, high), last(self.destinations, high), self.entries[-1] - 1),
        )

    @property
    def volume(self) -> int:
        """A measure of how many there are."""
        return self.apps.bit_count() * math.prod(map(size, self[:3]))


class _TooMuchError(Exception):
    """The work is more than was allowed."""


def lint(policy: Policy, rule_work: int = RULE_WORK, all_work: int = ALL_WORK) -> list[Finding]:
    """Findings in the order of the rules, at most one for each."""
    shadows = _Shadows(policy, rule_work, all_work)
    findings: dict[int, Finding] = {}
    doubtful: list[int] = []
    for number in range(len(policy.rules)):
        if (finding := shadows.shadowed(number)) is not None:
            findings[number] = finding
        elif shadows.seems_redundant(number):
            doubtful.append(number)
    # These go by what has been found shadowed.
    for number in doubtful:
        if (finding := shadows.redundant(number)) is not None:
            findings[number] = finding
    return [findings[number] for number in sorted(findings)]


class _Work:
    """How much of it is left, for a rule and for all."""

    def __init__(self, rule_work: int, all_work: int) -> None:
        self._rule_work = rule_work
        self._all_left = all_work
        self._left = 0

    def begin(self) -> None:
        """The next rule."""
        self._all_left += self._left
        self._left = min(self._rule_work, self._all_left)
        self._all_left -= self._left

    def spend(self, work: int) -> None:
        """Told before it is done. _TooMuchError when that is more than is left."""
        if self._left < work:
            raise _TooMuchError
        self._left -= work


class _Shadows:
    def __init__(self, policy: Policy, rule_work: int, all_work: int) -> None:
        self._rules = policy.rules
        # By number; the last one is for where no other is.
        self._defaults = [
            (number, _as_rule(policy.decider(number))) for number in (*range(len(policy.rules) + 1, policy.last + 1), 0)
        ]
        self._dead: set[int] = set()  # those that are shadowed
        self._work = _Work(rule_work, all_work)
        self._overlaps = Overlaps(policy.rules, self._work.spend)
        # The same flows are asked for when a rule is looked at for the other kind.
        self._at = lru_cache(_KEPT)(self._overlaps.at)

    def shadowed(self, number: int) -> Finding | None:
        """Rules before this one take all of its flows."""
        return self._find(Kind.SHADOWED, self._taken, number)

    def redundant(self, number: int) -> Finding | None:
        """Rules behind this one, or the default, do the same with all of its flows."""
        return self._find(Kind.REDUNDANT, self._repeated, number)

    def seems_redundant(self, number: int) -> bool:
        """No flow that is looked at speaks against it."""
        if self._rules[number].identify:
            return False
        self._work.begin()
        try:
            return all(
                self._repeated_at(number, flow, piece) for piece in self._pieces(number) for flow in piece.corners
            )
        except _TooMuchError:
            return True

    def _find(self, kind: Kind, holds: Callable[[int, set[int]], bool], number: int) -> Finding | None:
        takers: set[int] = set()
        self._work.begin()
        try:
            if not holds(number, takers) or not takers:
                return None
        except _TooMuchError:
            return Finding(Kind.UNKNOWN, number + 1)
        if kind == Kind.SHADOWED:
            self._dead.add(number)
        # The default is the last.
        return Finding(kind, number + 1, (*sorted(takers - {0}), *takers & {0}))

    def _taken(self, number: int, takers: set[int]) -> bool:
        """No flow gets as far as this rule."""
        # Of protocols that several rules take together, a flow that may be any of them passes all of those, undecided.
        # That is the end of it, unless it is denied all the same: then the last of them is named.
        together = self._rules[number].action != Action.DENY
        stack = self._pieces(number)
        while stack:
            piece = stack.pop()
            low, high = (
                [
                    other
                    for other in self._at(*flow)
                    if other < number
                    and self._ends(other, piece.apps, together)
                    and _where(self._rules[other]).covers(self._rules[number].where)
                ]
                for flow in piece.corners
            )
            if not low or not high:
                return False
            other, shared = self._widest(low, high, piece)
            takers.add(other + 1)
            stack += _outside(piece, shared, piece.apps & ~self._rules[other].apps)
        return True

    def _ends(self, number: int, apps: int, together: bool) -> bool:
        """A rule ends the walk for these protocols, or with `together` for some of them."""
        rule = self._rules[number]
        return not rule.identify and bool(rule.apps & apps if together else not apps & ~rule.apps)

    def _widest(self, low: Sequence[int], high: Sequence[int], piece: _Piece) -> tuple[int, _Piece]:
        """Of rules that have a corner of a piece, one that takes much of it, and what it takes."""
        far = set(high)
        some = [other for other in low if other in far] or low
        # The first and the last of them are the wide ones most often: policies go from narrow to wide or the other way.
        shared = [(other, self._shared(other, piece)) for other in sorted({*some[:_TRIED], some[-1]})]
        return max(shared, key=lambda each: each[1].volume)

    def _repeated(self, number: int, takers: set[int]) -> bool:
        """Without this rule, the flows that it decides get the same verdict further down."""
        pieces = self._pieces(number)
        behind: list[int] = []
        tried = 0
        for other in self._overlaps.behind(number):
            behind.append(other)
            if tried < _TRIED and not all(self._replaces(other, number, piece) for piece in pieces):
                for piece in pieces:
                    shared = self._shared(other, piece)
                    if any(shared.families) and not self._repeated_at(number, shared.corners[0], piece):
                        return False
                tried += 1
        behind.sort()
        stack = [(piece, 0) for piece in pieces]
        while stack:
            piece, first = stack.pop()
            for at, other in enumerate(itertools.islice(behind, first, None), first):
                shared = self._shared(other, piece)
                if not any(shared.families) or not self._may_meet(other, number):
                    continue
                if not self._replaces(other, number, piece):
                    return False
                takers.add(other + 1)
                if not _where(self._rules[other]).covers(self._rules[number].where):
                    continue
                stack += [(left, at + 1) for left in _outside(piece, shared, 0)]
                break
            else:
                if not self._default_replaces(number, piece, takers):
                    return False
        return True

    def _repeated_at(self, number: int, flow: _Flow, piece: _Piece) -> bool:
        behind = (other for other in self._at(*flow) if other > number and self._may_meet(other, number))
        other = next(behind, None)
        if other is None:
            return self._default_replaces(number, piece, set())
        return self._replaces(other, number, piece)

    def _may_meet(self, other: int, number: int) -> bool:
        """Both may hold in one place."""
        return _where(self._rules[other]).may_meet(self._rules[number].where)

    def _default_replaces(self, number: int, piece: _Piece, takers: set[int]) -> bool:
        """The defaults that a rule's flows come to do the same with a piece of it; they are added to `takers`."""
        rule = self._rules[number]
        for beyond, default in self._defaults:
            if not _where(default).may_meet(rule.where):
                continue
            # The gateway's own traffic is allowed where no rule says otherwise.
            if _where(rule).may_be_hosts or not _same(rule, default, piece.carried):
                return False
            takers.add(beyond)
            # Without `from_zone` it leaves out what the gateway itself sends.
            if _where(default).from_zones and _where(default).covers(rule.where):
                break
        return True

    def _replaces(self, other: int, number: int, piece: _Piece) -> bool:
        """One does the same as another with a piece of that."""
        return other not in self._dead and _same(self._rules[number], self._rules[other], piece.carried)

    def _shared(self, other: int, piece: _Piece) -> _Piece:
        """What a rule has of a piece."""
        sources, destinations, entries = self._overlaps.of(other)
        self._work.spend(_STEP + (len(piece.sources) + len(piece.destinations)) // 4)
        return piece._replace(
            sources=common(piece.sources, sources),
            destinations=common(piece.destinations, destinations),
            entries=common(piece.entries, entries),
            apps=piece.apps & self._rules[other].apps,
        )

    def _pieces(self, number: int) -> list[_Piece]:
        self._work.spend(_STEP)
        sources, destinations, entries = self._overlaps.of(number)
        apps = self._rules[number].apps
        pieces = (
            _Piece(sources, destinations, own, apps & carried, carried) for carried, own in _by_choice(tuple(entries))
        )
        return [piece for piece in pieces if piece.apps and any(piece.families)]


@lru_cache(1024)
def _by_choice(entries: tuple[int, ...]) -> list[tuple[int, Edges]]:
    """Of some entries, those that stand for flows, by the application protocols that these may be."""
    found = ((carried, common(entries, own)) for carried, own in _ENTRIES.items())
    return [(carried, own) for carried, own in found if own]


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


def _outside(piece: _Piece, shared: _Piece, apps: int) -> list[_Piece]:
    """What is left of a piece when some of it is cut out; of what is within, `apps`."""
    sources, destinations, entries = shared[:3]
    left = [
        piece._replace(sources=without(piece.sources, sources)),
        piece._replace(sources=sources, destinations=without(piece.destinations, destinations)),
        piece._replace(sources=sources, destinations=destinations, entries=without(piece.entries, entries)),
        shared._replace(apps=apps),
    ]
    return [each for each in left if each.apps and any(each.families)]
