"""Sets of numbers by their edges: where a stretch of them begins, where it ends, where the next one begins, and so on;
rising, of even length, the ends not within. Nothing of it depends on how long the stretches are.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Edges = Sequence[int]


def union(parts: Iterable[Edges]) -> Edges:
    """Numbers of any of them."""
    found: list[int] = []
    stretches = (zip(part[::2], part[1::2], strict=True) for part in parts)
    for low, high in sorted(itertools.chain.from_iterable(stretches)):
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
    """Which things have a number, or any of some. Their stretches are kept as blocks, a power of two long and aligned
    to it, so that those around a number are found by as many questions as there are lengths.
    """

    def __init__(self) -> None:
        self._things: dict[tuple[int, int], list[int]] = {}
        self._bits: list[int] = []
        self._begins: list[tuple[int, int]] = []  # where stretches begin, and whose
        self._sorted = False

    def add(self, edges: Edges, thing: int) -> None:
        """A thing, by its number."""
        for low, high in zip(edges[::2], edges[1::2], strict=True):
            self._begins.append((low, thing))
            at = low
            while at < high:
                bits = (high - at).bit_length() - 1
                if at:
                    bits = min(bits, (at & -at).bit_length() - 1)
                if bits not in self._bits:
                    self._bits.append(bits)
                self._things.setdefault((bits, at >> bits), []).append(thing)
                at += 1 << bits
        self._sorted = False

    def at(self, number: int) -> list[int]:
        """Things that have the number."""
        found: list[int] = []
        for bits in self._bits:
            found += self._things.get((bits, number >> bits), ())
        return found

    def meeting(self, edges: Edges) -> set[int]:
        """Things that have any of these numbers."""
        if not self._sorted:
            self._begins.sort()
            self._sorted = True
        found: set[int] = set()
        for low, high in zip(edges[::2], edges[1::2], strict=True):
            found.update(self.at(low))
            first = bisect_left(self._begins, (low + 1,))
            found.update(thing for _, thing in self._begins[first : bisect_left(self._begins, (high,), first)])
        return found
