"""Texts that match a pattern, and texts that nearly do: what an attacker sends to make matching slow."""

from __future__ import annotations

import functools
import random
import re._constants as syntax
import re._parser as parser
from collections.abc import Iterable, Sequence
from typing import Any

from slowpath.rules.patterns import Pattern

_ANY = bytes(range(0x20, 0x7F))
_MORE = 12  # repetitions beyond the fewest


def example(regex: bytes, rng: random.Random) -> bytes:
    """A text made by walking the pattern's syntax; it matches but for its anchors."""
    return _sequence(_tree(regex), rng)


@functools.cache
def _tree(regex: bytes) -> Any:
    return parser.parse(regex)


def _sequence(items: Iterable[tuple[Any, Any]], rng: random.Random) -> bytes:
    return b"".join(_part(kind, argument, rng) for kind, argument in items)


def _part(kind: Any, argument: Any, rng: random.Random) -> bytes:
    if kind is syntax.LITERAL:
        return bytes([argument])
    if kind is syntax.NOT_LITERAL:
        return bytes([rng.choice([each for each in _ANY if each != argument])])
    if kind is syntax.ANY:
        return bytes([rng.choice(_ANY)])
    if kind is syntax.IN:
        return bytes([rng.choice(_members(argument))])
    if kind is syntax.AT:
        return b""
    if kind is syntax.SUBPATTERN:
        return _sequence(argument[3], rng)
    if kind is syntax.BRANCH:
        return _sequence(rng.choice(argument[1]), rng)
    low, high, inner = argument
    return b"".join(_sequence(inner, rng) for _ in range(rng.randint(low, min(high, low + _MORE))))


_CLASSES = {
    syntax.CATEGORY_DIGIT: b"0123456789",
    syntax.CATEGORY_SPACE: b" \t\r\n",
    syntax.CATEGORY_WORD: b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_",
}
_NOT = {
    syntax.CATEGORY_NOT_DIGIT: syntax.CATEGORY_DIGIT,
    syntax.CATEGORY_NOT_SPACE: syntax.CATEGORY_SPACE,
    syntax.CATEGORY_NOT_WORD: syntax.CATEGORY_WORD,
}


def _members(items: Sequence[tuple[Any, Any]]) -> list[int]:
    found: set[int] = set()
    for kind, argument in items:
        if kind is syntax.LITERAL:
            found.add(argument)
        elif kind is syntax.RANGE:
            found |= set(range(argument[0], argument[1] + 1))
        elif kind is syntax.CATEGORY:
            found |= set(_CLASSES[argument]) if argument in _CLASSES else set(_ANY) - set(_CLASSES[_NOT[argument]])
    if items[0][0] is syntax.NEGATE:
        found = set(_ANY) - found
    return sorted(found)


def near(pattern: Pattern, rng: random.Random) -> bytes:
    """An example with something wrong about it."""
    text = example(pattern.regex, rng)
    cut = rng.randint(0, len(text))
    return rng.choice(
        [
            text[:-1],
            text[:cut],
            text[cut:],
            text[:cut] + bytes([rng.choice(_ANY)]) + text[cut + 1 :],
            text[:cut] * 2 + text[cut:],
            text[:cut] + text[: len(text) - 1],
            text.swapcase(),
        ]
    )


def hostile(patterns: Sequence[Pattern], rng: random.Random, size: int) -> bytes:
    """A payload of near-matches: of one pattern, of some, of all; repeated, one after another, or among noise. Some are
    of nothing but what makes a scanner look.
    """
    if rng.random() < 0.25:
        glue = rng.choice([b"", b" ", b"'", b"(", b"="])
        literals = [literal for pattern in patterns for literal in sorted(pattern.shape.literals)[:4]]
        return glue.join(rng.choice(literals) for _ in range(size))[:size]
    chosen = rng.sample(list(patterns), min(len(patterns), rng.choice([1, 1, 2, 5, 20, len(patterns)])))
    parts: list[bytes] = []
    length = 0
    glue = rng.choice([b"", b" ", b"\n", b"&", b"'", b"1 "])
    again = rng.random() < 0.3
    while length < size:
        part = near(rng.choice(chosen), rng) + glue
        if again:
            part *= rng.randint(1, 30)
        if rng.random() < 0.1:
            part += rng.randbytes(rng.randint(1, 40))
        parts.append(part)
        length += len(part) or 1
    return b"".join(parts)[:size]
