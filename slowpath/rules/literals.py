r"""What every match of a pattern contains, and how long it may be: read from its syntax, so that most patterns need no
look at most texts.

The syntax tree is that of Python's `re` (which never runs): what it reads otherwise than RE2 is refused. That is bytes,
`(?i)`, `(?s)`, `(?m)`, groups, classes without `[:names:]`, greedy and lazy repetitions; not \p, \C, \Q, \z, (?U).
"""

from __future__ import annotations

import re
import re._constants as syntax  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

# Of a set of literals one of which a match must contain.
MAX_LITERALS: Final = 256
# Bytes; a shorter one is in too many texts to leave many out.
MIN_LITERAL: Final = 2
# More of a literal leaves out hardly more texts.
_LONG: Final = 8
_MAX_CLASS: Final = 8
# Python counts no further.
_ANY_WIDTH: Final = min(int(syntax.MAXREPEAT), 1 << 20)
_REPEATS: Final = (syntax.MAX_REPEAT, syntax.MIN_REPEAT)
# RE2's and more: what Python means by \\s.
_SPACE: Final = tuple(b" \t\n\r\f\v")

_Texts = frozenset[bytes]
_EMPTY: Final[_Texts] = frozenset({b""})


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a pattern: each match contains one of the `literals` in some case (they are in lower case; none: nothing is
    known) and has `width` bytes at most (None: any number).
    """

    literals: _Texts
    width: int | None


# RE2 takes it for text.
_ODD_COUNT: Final = re.compile(rb"\{0[0-9]|\{[0-9]+,0[0-9]")


class SyntaxNotReadError(ValueError):
    """The pattern may be one of RE2, and is not read here."""


def shape_of(pattern: bytes) -> Shape:
    """Of a pattern that RE2 takes. SyntaxNotReadError."""
    if b"[:" in pattern:
        raise SyntaxNotReadError("classes have no names here, and [: may begin one: write [0-9], [,:]")
    if b"{," in pattern:
        raise SyntaxNotReadError("{, is read in two ways: write {0, or \\{,")
    if _ODD_COUNT.search(pattern):
        raise SyntaxNotReadError("a count that begins with 0 is read in two ways: write {2}, or \\{")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = parser.parse(pattern)
    except (parser.error, FutureWarning, DeprecationWarning, OverflowError, RecursionError) as error:
        raise SyntaxNotReadError(str(error)) from None
    width = int(tree.getwidth()[1])
    exact, best = _sequence(tree)
    literals = _better(best, exact)
    if literals is None or _weakest(literals) < MIN_LITERAL:
        literals = frozenset()
    # What contains another of them asks for nothing more.
    shortest = frozenset(one for one in literals if not any(other != one and other in one for other in literals))
    return Shape(shortest, width if width < _ANY_WIDTH else None)


# Of a part: all texts that it may be (None: too many), and one of which each of its matches contains.
_Known = tuple[_Texts | None, _Texts | None]


def _sequence(items: Iterable[tuple[Any, Any]]) -> _Known:
    current: _Texts = _EMPTY
    best: _Texts | None = None
    whole = True
    for kind, argument in items:
        exact, contained, ends = _part(kind, argument)
        if exact is not None and (product := _product(current, exact)) is not None:
            current = product
            continue
        whole = False
        if ends is not None and contained is not None:
            current = _product(current, contained) or current
        best = _better(_better(best, current), contained)
        current = exact or ends or _EMPTY
    return (current if whole else None), _better(best, current)


def _part(kind: Any, argument: Any) -> tuple[_Texts | None, _Texts | None, _Texts | None]:
    """The last: texts one of which each match ends with, if it begins with what it contains."""
    if kind is syntax.LITERAL:
        return _characters([argument]), None, None
    if kind is syntax.IN:
        return _characters(_members(argument)), None, None
    if kind is syntax.AT:
        return _EMPTY, None, None
    if kind is syntax.SUBPATTERN:
        return *_sequence(argument[3]), None
    if kind is syntax.BRANCH:
        return *_branch([_sequence(each) for each in argument[1]]), None
    if kind in _REPEATS:
        low, high, inner = argument
        return _repeat(int(low), int(high), _sequence(inner))
    if kind in {syntax.ANY, syntax.NOT_LITERAL}:
        return None, None, None
    raise SyntaxNotReadError(f"{kind} is not read")


def _members(items: Iterable[tuple[Any, Any]]) -> list[int]:
    """Of a class; none: too many."""
    found: list[int] = []
    for kind, argument in items:
        if kind is syntax.LITERAL:
            found.append(argument)
        elif kind is syntax.RANGE and argument[1] - argument[0] < _MAX_CLASS:
            found.extend(range(argument[0], argument[1] + 1))
        elif kind is syntax.CATEGORY and argument is syntax.CATEGORY_SPACE:
            found.extend(_SPACE)
        else:
            return []
    return found


def _characters(codes: list[int]) -> _Texts | None:
    # Beyond ASCII case is RE2's matter.
    if not codes or any(code > 0x7F for code in codes):
        return None
    texts = frozenset(bytes([code]).lower() for code in codes)
    return texts if len(texts) <= _MAX_CLASS else None


def _branch(parts: list[_Known]) -> _Known:
    exact: _Texts | None = _EMPTY - _EMPTY
    contained: _Texts | None = exact
    for one, best in parts:
        exact = exact | one if exact is not None and one is not None else None
        chosen = _better(best, one)
        contained = contained | chosen if contained is not None and chosen is not None else None
    if contained is not None and len(contained) > MAX_LITERALS:
        contained = None
    return (exact if exact is not None and len(exact) <= MAX_LITERALS else None), contained


def _repeat(low: int, high: int, inner: _Known) -> tuple[_Texts | None, _Texts | None, _Texts | None]:
    exact, best = inner
    if low == 0:
        return (exact | _EMPTY if exact is not None and high == 1 else None), None, None
    if exact is not None and low <= _LONG:
        start: _Texts | None = _EMPTY
        for _ in range(low):
            start = _product(start, exact)
        if start is not None:
            return (start, None, None) if low == high else (None, start, exact)
    return None, _better(best, exact), None


def _product(left: _Texts | None, right: _Texts) -> _Texts | None:
    if left is None or len(left) * len(right) > MAX_LITERALS:
        return None
    return frozenset(one + other for one in left for other in right)


def _better(one: _Texts | None, other: _Texts | None) -> _Texts | None:
    """That which fewer texts contain one of."""
    if one is None or other is None:
        return one if other is None else other
    return max(one, other, key=lambda texts: (min(_weakest(texts), _LONG), -len(texts)))


def _weakest(texts: _Texts) -> int:
    return min(map(len, texts))
