"""Sets of numbers by their edges: where a stretch of them begins, where it ends, where the next one begins, and so on;
rising, of even length, the ends not within. Nothing of it depends on how long the stretches are.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

Edges = Sequence[int]

# Answers that are kept: their members together, and what one takes more.
_ROOM = 2_000_000
_COST = 8

_Found = TypeVar("_Found", tuple[int, ...], frozenset[int])


def union(parts: Iterable[Edges]) -> Edges:
    """Numbers of any of them."""
    found: list[int] = []
    stretches = [stretch for part in parts for stretch in zip(part[::2], part[1::2], strict=True)]
    stretches.sort()
    for low, high in stretches:
        if not found or low > found[-1]:
            found += (low, high)
        elif high > found[-1]:
            found[-1] = high
    return found


def common(some: Edges, others: Edges) -> Edges:
    """Numbers of both."""
    few, many = (some, others) if len(some) < len(others) else (others, some)
    found: list[int] = []
    for low, high in zip(few[::2], few[1::2], strict=True):
        first = bisect_right(many, low)
        end = bisect_left(many, high, first)
        if first & 1:
            found.append(low)
        found += many[first:end]
        if end & 1:
            found.append(high)
    return found


def without(some: Edges, others: Edges) -> Edges:
    """Numbers of the first alone."""
    if not some or not others:
        return some
    # The gaps of the others, and what is before and behind them.
    return common(some, (min(some[0], others[0] - 1), *others, max(some[-1], others[-1] + 1)))


def first(some: Edges, least: int) -> int:
    """The lowest number that is no lower than `least`. There must be one."""
    at = bisect_right(some, least)
    return least if at & 1 else some[at]


def last(some: Edges, end: int) -> int:
    """The highest number below `end`. There must be one."""
    at = bisect_left(some, end)
    return (end if at & 1 else some[at - 1]) - 1


def size(some: Edges) -> int:
    """How many numbers there are."""
    return sum(some[1::2]) - sum(some[::2])


class Blocks:
    """Which of some sets, told by their indices, hold a number or meet one another. `spend` is told the work, in
    microseconds or so, before it is done.

    Stretches are kept as blocks, a power of two long and aligned to it, so that those around a number are found by as
    many questions as there are lengths.
    """

    def __init__(self, sets: Sequence[Edges], spend: Callable[[int], None]) -> None:
        self._sets = sets
        self._spend = spend
        self._holding: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        begins: list[tuple[int, int]] = []
        for own, edges in enumerate(sets):
            for low, high in zip(edges[::2], edges[1::2], strict=True):
                begins.append((low, own))
                for block in _blocks(low, high):
                    self._holding[block].append(own)
        begins.sort()
        # Where stretches begin, and whose.
        self._begins = [low for low, _ in begins]
        self._owners = [own for _, own in begins]
        self._bits = {bits for bits, _ in self._holding}
        self._at: dict[int, tuple[int, ...]] = {}
        self._near: dict[int, frozenset[int]] = {}
        self._room = _ROOM

    def at(self, number: int) -> tuple[int, ...]:
        """The sets that hold a number."""
        found = self._at.get(number)
        if found is None:
            lists = [self._holding.get((bits, number >> bits), ()) for bits in self._bits]
            self._spend(sum(map(len, lists)))
            found = self._keep(self._at, number, tuple(itertools.chain.from_iterable(lists)))
        return found

    def near(self, own: int) -> frozenset[int]:
        """The sets that have a number in common with one, that one among them."""
        found = self._near.get(own)
        if found is None:
            met: set[int] = set()
            edges = self._sets[own]
            for low, high in zip(edges[::2], edges[1::2], strict=True):
                met.update(self.at(low))
                begin = bisect_right(self._begins, low)
                end = bisect_left(self._begins, high, begin)
                self._spend((end - begin) // 8)
                met.update(self._owners[begin:end])
            found = self._keep(self._near, own, frozenset(met))
        return found

    def _keep(self, known: dict[int, _Found], key: int, found: _Found) -> _Found:
        if (cost := _COST + len(found)) <= self._room:
            self._room -= cost
            known[key] = found
        return found


def _blocks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """Blocks of a stretch: how many low bits vary, and the others."""
    while low < high:
        bits = (high - low).bit_length() - 1
        if low:
            bits = min(bits, (low & -low).bit_length() - 1)
        yield bits, low >> bits
        low += 1 << bits
