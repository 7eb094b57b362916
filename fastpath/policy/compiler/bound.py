"""How many candidates a walk looks at, at most."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from fastpath.abi import Limit
from fastpath.document import Problem
from fastpath.policy.compiler.forest import Forest, Row
from fastpath.policy.compiler.tables import PolicyTooLargeError
from fastpath.policy.keys import key_text, meets
from fastpath.policy.model import Policy

MAX_CANDIDATES = int(Limit.POLICY_CANDIDATES)
# Sums of trees' lengths made to find out whether a walk would be too long, some seconds' worth.
MAX_WORK = 500_000
# Stretches of keys for which that is done at a time.
_LANES = 256


def rows_of(forest: Forest, families: Iterable[Iterable[tuple[int, ...]]]) -> list[list[set[Row]]]:
    """By family of addresses and side, the rows of all classes of that family."""
    return [[{forest.names_of(each)[side] for each in members} for side in (0, 1)] for members in families]


def longest_walk(policy: Policy, forest: Forest, families: Iterable[Iterable[set[Row]]]) -> int:
    """Candidates that a walk looks at, at most. A policy of which some walk might be longer than the kernel's is
    refused.
    """
    longest = 0
    lengths = {name: tree.longest for name, tree in forest.built.items()}
    for family in families:
        # So long are a row's lists together at most.
        bounds = [{row: sum([lengths[name] for name in row]) for row in side} for side in family]
        tops = [max(side.values()) for side in bounds]
        if sum(tops) <= MAX_CANDIDATES:
            longest = max(longest, sum(tops))
            continue
        # Only of these a pair may be too long.
        crowded = [
            [row for row, bound in side.items() if bound + top > MAX_CANDIDATES]
            for side, top in zip(bounds, reversed(tops), strict=True)
        ]
        longest = max(longest, _longest_pair(policy, forest, crowded))
    return longest


def _longest_pair(policy: Policy, forest: Forest, sides: Sequence[Sequence[Row]]) -> int:
    """The same of these rows. Keys are looked at together in so many stretches, and those stretches again where a walk
    seems too long.
    """
    trees = {name: forest.built[name] for side in sides for row in side for name in row}
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
                counts = array("H", sum(packed[name] for name in row).to_bytes(2 * len(lanes), "little"))
                top[:] = map(max, top, counts)
        for lane, count in zip(lanes, map(sum, zip(*tops, strict=True)), strict=True):
            if count <= MAX_CANDIDATES:
                longest = max(longest, count)
            elif len(lane) > 1:
                stretches.append(lane)
            else:
                _refuse(policy, forest, sides, lane[0])
    return longest


def _refuse(policy: Policy, forest: Forest, sides: Iterable[Iterable[Row]], key: int) -> None:
    trees = forest.built
    found = [max(side, key=lambda row: sum(trees[name].length_at(key) for name in row)) for side in sides]
    names = [name for row in found for name in row]
    count = sum(trees[name].length_at(key) for name in names)
    entries = sorted({entry for name in names for entry in forest.entries_of(name) if meets(entry[2], key)})
    rule = policy.rules[entries[min(MAX_CANDIDATES, len(entries) - 1)][0] - 1]
    message = (
        f"for one source and one destination, {count} rules have to be looked at over {key_text(key)}; the kernel's "
        f"walk holds {MAX_CANDIDATES}, and {rule.id!r} is the next"
    )
    raise PolicyTooLargeError([Problem(rule.file or policy.file, rule.line, "rules", message)])
