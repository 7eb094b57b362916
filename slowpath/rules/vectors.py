"""Hyperscan, where it is installed: which of many patterns a text contains, in one pass whatever their number.

Expressions are written anew from the patterns' syntax trees, with every byte spelt out, so that nothing is left to what
either engine means by a class. What cannot be written such that no match of RE2's is missed stays with RE2. A database
takes seconds to compile, so it is kept on disk (`fastpath.store`), and compiled with the GIL released.

A match that is missed is a rule that is evaded, so the engine has to be one of which that is known not to happen.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import logging
import re._constants as syntax  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from fastpath.store import Store

try:
    hyperscan: Any = importlib.import_module("hyperscan")
except ImportError:
    hyperscan = None

FORMAT: Final = 1
# Databases on disk, those used last. One of 572 patterns has 4 MiB.
MOST: Final = 32
MAX_BYTES: Final = 64 << 20

log = logging.getLogger(__name__)

_FOLD: Final = int(syntax.SRE_FLAG_IGNORECASE)
# Case, and what is so anyway: `.` is any byte.
_READ_FLAGS: Final = _FOLD | int(syntax.SRE_FLAG_DOTALL)
_ALL: Final = frozenset(range(256))
_HIGH: Final = frozenset(range(0x80, 256))
_CLASSES: Final[dict[Any, frozenset[int]]] = {
    syntax.CATEGORY_DIGIT: frozenset(b"0123456789"),
    syntax.CATEGORY_SPACE: frozenset(b"\t\n\f\r "),
    syntax.CATEGORY_WORD: frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"),
}
_NOT: Final = {
    syntax.CATEGORY_NOT_DIGIT: syntax.CATEGORY_DIGIT,
    syntax.CATEGORY_NOT_SPACE: syntax.CATEGORY_SPACE,
    syntax.CATEGORY_NOT_WORD: syntax.CATEGORY_WORD,
}
_AT: Final = {
    syntax.AT_BEGINNING: "^",
    syntax.AT_BEGINNING_STRING: "^",
    syntax.AT_BOUNDARY: r"\b",
    syntax.AT_NON_BOUNDARY: r"\B",
    syntax.AT_END: "$",
}


# Vectorscan, which newer packages hold, misses matches up to 5.4.12 at least (its issues 358, 382).
SOUND: Final = ("5.4.2",)
# Patterns, and a text that each of them matches at its end: what Vectorscan misses, after some number of other bytes.
_PROBES: Final = (
    ((rb"curl.*\|\s*python",), b"curl http://a.example/ 2>&1 | python"),
    ((rb"ab$|cd",), b"cd"),
    ((rb"ab\b|cd",), b"cd"),
    ((rb"(?:--|#)\s*$",), b"-- "),
    ((rb"x\d|a\w", rb"[a-z]x\d|b"), b"ax1"),
    ((rb"cdeq.*x|ab", rb"ab"), b"ab"),
)


@functools.cache
def unusable() -> str:
    """Why Hyperscan is not to be used; nothing if it is. Tried once."""
    if hyperscan is None:
        return "hyperscan is not installed (the package's extra of that name)"
    try:
        version = library_version()
        if version not in SOUND:
            return f"hyperscan's library {version} may miss matches; {', '.join(SOUND)} does not"
        for regexes, ending in _PROBES:
            written = {n: expression_of(regex, fold=False) for n, regex in enumerate(regexes)}
            database = Database(_compile({n: each.text for n, each in written.items() if each}), frozenset(written))
            if any(set(database.scan(b"." * size + ending)) != set(written) for size in range(100)):
                return "hyperscan misses matches on this machine"
    except (hyperscan.error, EngineError) as error:
        return f"hyperscan does not work on this machine: {error}"
    return ""


@functools.cache
def library_version() -> str:
    """Of the library, not of the package around it."""
    info: str = _compile({0: "a"}).info().decode()
    return info.partition("Version: ")[2].partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Expression:
    """A pattern as Hyperscan reads it. `exact`: it finds nothing that RE2 does not."""

    text: str
    exact: bool


def expression_of(regex: bytes, *, fold: bool) -> Expression | None:
    """Of a pattern that `slowpath.rules.literals` reads; None where a match might be missed."""
    tree = parser.parse(regex)
    flags = int(tree.state.flags)
    try:
        text = _sequence(tree, _folds(flags, 0, fold=fold))
    except _NotWrittenError:
        return None
    # Before a line feed at the very end Hyperscan sees an end, too.
    return Expression(text, exact="$" not in text)


class _NotWrittenError(Exception):
    pass


def _sequence(items: Iterable[tuple[Any, Any]], fold: bool) -> str:
    return "".join(_part(kind, argument, fold) for kind, argument in items)


def _part(kind: Any, argument: Any, fold: bool) -> str:
    if kind is syntax.ANY:
        return "."
    if kind in {syntax.LITERAL, syntax.NOT_LITERAL}:
        return _one_of(frozenset((argument,)), fold, inverted=kind is syntax.NOT_LITERAL)
    if kind is syntax.IN:
        return _one_of(_members(argument), fold, inverted=argument[0][0] is syntax.NEGATE)
    if kind is syntax.AT and argument in _AT:
        return _AT[argument]
    if kind is syntax.SUBPATTERN:
        _, added, removed, inner = argument
        return f"(?:{_sequence(inner, _folds(int(added), int(removed), fold=fold))})"
    if kind is syntax.BRANCH:
        return f"(?:{'|'.join(_sequence(each, fold) for each in argument[1])})"
    if kind in {syntax.MAX_REPEAT, syntax.MIN_REPEAT}:
        low, high, inner = argument
        return f"(?:{_sequence(inner, fold)}){{{int(low)},{'' if high is syntax.MAXREPEAT else int(high)}}}"
    raise _NotWrittenError


def _folds(added: int, removed: int, *, fold: bool) -> bool:
    """Whether case means nothing behind these flags."""
    if added & ~_READ_FLAGS or removed & ~_FOLD:
        raise _NotWrittenError
    return (fold or bool(added & _FOLD)) and not removed & _FOLD


def _one_of(members: frozenset[int], fold: bool, *, inverted: bool) -> str:
    if fold:
        # Of bytes above 0x7f RE2 pairs some; where all of them are meant, that changes nothing.
        if not members.isdisjoint(_HIGH) and not members >= _HIGH:
            raise _NotWrittenError
        members |= {other for member in members if member <= 0x7F for other in bytes((member,)).swapcase()}
    if inverted:
        members = _ALL - members
    if not members:
        raise _NotWrittenError
    return f"\\x{min(members):02x}" if len(members) == 1 else f"[{_ranges(members)}]"


def _members(items: Sequence[tuple[Any, Any]]) -> frozenset[int]:
    found: set[int] = set()
    for kind, argument in items:
        if kind is syntax.LITERAL:
            found.add(argument)
        elif kind is syntax.RANGE:
            found.update(range(argument[0], argument[1] + 1))
        elif kind is syntax.CATEGORY:
            found |= _CLASSES[argument] if argument in _CLASSES else _ALL - _CLASSES[_NOT[argument]]
    return frozenset(found)


def _ranges(members: frozenset[int]) -> str:
    parts: list[str] = []
    ordered = sorted(members)
    start = ordered[0]
    for here, following in zip(ordered, [*ordered[1:], 512], strict=True):
        if following != here + 1:
            parts.append(f"\\x{start:02x}" if start == here else f"\\x{start:02x}-\\x{here:02x}")
            start = following
    return "".join(parts)


class Databases:
    """Makes them, and keeps them in `folder`; one that is still in use is not made again."""

    _known: ClassVar[weakref.WeakValueDictionary[str, Database]] = weakref.WeakValueDictionary()

    def __init__(self, folder: Path | None = None) -> None:
        self._store = (
            Store(folder, ".patterns", "databases of patterns", most=MOST, max_bytes=MAX_BYTES) if folder else None
        )

    def of(self, expressions: Mapping[int, Expression]) -> Database | None:
        """Of these, by their numbers; None where none can be had."""
        texts = {number: each.text for number, each in expressions.items()}
        if not texts:
            return None
        key = hashlib.sha256(repr((FORMAT, library_version(), sorted(texts.items()))).encode()).hexdigest()
        found = self._known.get(key) or self._stored(key) or self._made(key, texts)
        if found is not None:
            self._known[key] = found
        return found

    def _stored(self, key: str) -> Database | None:
        content = self._store.find(key) if self._store is not None else None
        if content is None:
            return None
        taken, _, data = content.partition(b"\n")
        try:
            return Database(hyperscan.loadb(data, hyperscan.HS_MODE_BLOCK), frozenset(map(int, taken.split())))
        except (hyperscan.error, ValueError):
            return None  # of another machine, as a rule

    def _made(self, key: str, texts: Mapping[int, str]) -> Database | None:
        taken = dict(texts)
        try:
            try:
                compiled = _compile(taken)
            except hyperscan.error:
                # Some are too large for it: RE2 has them.
                taken = {number: text for number, text in texts.items() if _takes(text)}
                if not taken:
                    return None
                compiled = _compile(taken)
            database = Database(compiled, frozenset(taken))
        except hyperscan.error as error:
            log.warning("patterns are looked for without hyperscan: %s", error)
            return None
        if self._store is not None:
            numbers = " ".join(map(str, sorted(taken))).encode()
            self._store.keep(key, numbers + b"\n" + bytes(hyperscan.dumpb(compiled)))
        return database


class EngineError(Exception):
    """It did not look."""


class Database:
    """Compiled expressions, of those that were asked for the `taken` ones. For one thread at a time."""

    def __init__(self, compiled: Any, taken: frozenset[int]) -> None:
        compiled.scratch = hyperscan.Scratch(compiled)
        self._compiled = compiled
        self.taken = taken

    def scan(self, text: bytes) -> list[int]:
        """Numbers of those that the text contains. EngineError."""
        found: list[int] = []

        def note(number: int, _begin: int, _end: int, _flags: int, _context: object) -> None:
            found.append(number)

        try:
            self._compiled.scan(text, match_event_handler=note)
        except hyperscan.error as error:
            raise EngineError(str(error)) from None
        return found


def _compile(texts: Mapping[int, str]) -> Any:
    compiled = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    flags = hyperscan.HS_FLAG_DOTALL | hyperscan.HS_FLAG_SINGLEMATCH
    compiled.compile(
        expressions=[text.encode() for text in texts.values()], ids=list(texts), elements=len(texts),
        flags=[flags] * len(texts),
    )  # fmt: skip
    return compiled


def _takes(text: str) -> bool:
    try:
        _compile({0: text})
    except hyperscan.error:
        return False
    return True
