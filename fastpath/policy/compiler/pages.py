"""Words and how they are put on pages: classes, lists of candidates, and indices."""

from __future__ import annotations

import functools
import itertools
import operator
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fastpath import abi
from fastpath.abi import Index
from fastpath.policy.compiler.layout import ANYONE, BLOCK, BUCKET, CLASS_WORDS, LEAF, MORE, NO_RULE, NODE, PAGE, aligned

# In the place of a key, that there is none: nothing is above it.
_UNUSED = 0xFFFFFFFF
# Odd numbers; one of them spreads the sets of a class over few buckets.
_SPREADS = [0x9E3779B1 * (2 * n + 1) & 0xFFFFFFFF for n in range(16)]


@dataclass(slots=True)
class Pages:
    """Words, of which nothing lies across two pages."""

    words: array[int] = field(default_factory=lambda: array("I"))

    def make_room(self, count: int, align: int) -> int:
        """Where as many words will lie that are put next."""
        words = self.words
        at = aligned(len(words), align)
        if at % PAGE + count > PAGE:
            at = aligned(at, PAGE)
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
        count = aligned(len(by_destination) + len(by_source), BUCKET)
        at = self.make_room(CLASS_WORDS + count + len(buckets), NODE)
        self.words.frombytes(bytes(record))
        self.put((*by_destination, *by_source))
        self.make_room(len(buckets), BUCKET)
        self.put(buckets)
        return at

    def put_list(self, candidates: Sequence[tuple[int, int]]) -> int:
        """A list of candidates, rules' numbers and the sets that they test; where it lies."""
        blocks = -(-len(candidates) // BLOCK)
        at = self.make_room(2 * BLOCK * blocks, 2 * BLOCK)
        for first in range(0, len(candidates), BLOCK):
            row = candidates[first : first + BLOCK]
            empty = BLOCK - len(row)
            self.put((*(tested for _, tested in row), *[ANYONE] * empty))
            self.put((*(number for number, _ in row), *[NO_RULE] * empty))
            if first + BLOCK < len(candidates):
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
        firsts = keys[::LEAF]
        at = self._make_nodes(len(firsts))
        for first in range(0, len(keys), LEAF):
            own = [key - 1 for key in keys[first + 1 : first + LEAF]]
            words.extend((0, *own, *[_UNUSED] * (LEAF - 1 - len(own))))
            row = values[first : first + LEAF]
            words.extend((*row, *[0] * (LEAF - len(row))))
        depth = 1
        while len(firsts) > 1:
            begin, children = at, firsts
            firsts = children[::NODE]
            at = self._make_nodes(len(firsts))
            for first in range(0, len(children), NODE):
                own = [key - 1 for key in children[first + 1 : first + NODE]]
                words.extend((begin + NODE * first | depth, *own, *[_UNUSED] * (NODE - 1 - len(own))))
            depth += 1
        assert depth <= Index.LEVELS
        return at | depth

    def _make_nodes(self, count: int) -> int:
        """Where as many nodes will lie; the children of one node never across two pages."""
        return self.make_room(NODE * count, NODE if NODE * count <= PAGE else PAGE)


def _buckets(sets: set[int]) -> tuple[int, int, list[int]]:
    """Multiplier, shift, and the buckets' words."""
    for bits in itertools.count(0):
        shift = 32 - bits
        for spread in _SPREADS if bits else _SPREADS[:1]:
            buckets: list[list[int]] = [[] for _ in range(1 << bits)]
            for number in sorted(sets):
                buckets[(number * spread & 0xFFFFFFFF) >> shift].append(number)
            if all(len(bucket) <= BUCKET for bucket in buckets):
                return spread, shift, [n for bucket in buckets for n in (*bucket, *[0] * (BUCKET - len(bucket)))]
    raise AssertionError
