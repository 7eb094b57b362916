"""Conditions of rules, put together with all, any and not.

An answer may be open: the connection has yet to tell (`LATER`), or servers read what it told in more than one way
(`DOUBT`). A doubt is closed on both sides: it satisfies deny rules and no allow rule.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from fastpath.abi import Action
from slowpath.rules.fields import Subject
from slowpath.rules.glob import Glob
from slowpath.rules.patterns import Pattern
from slowpath.rules.scan import Scanner


class Answer(enum.Enum):
    """Whether a condition holds."""

    NO = enum.auto()
    YES = enum.auto()
    LATER = enum.auto()
    DOUBT = enum.auto()


# Reading a member of an enumeration costs more than comparing it, and rules do it for every unit.
_NO, _YES, _LATER, _DOUBT = Answer


class Condition(Protocol):
    """Of a rule."""

    def answer(self, subject: Subject) -> Answer:
        """Whether it holds of a unit."""

    def fields(self) -> Iterator[str]:
        """What it asks for."""

    def canonical(self) -> object:
        """Equal for equal meaning, and its `repr` too."""


@dataclass(frozen=True, slots=True)
class Test:
    """One field and the values it may have. Of a field with several values `every` one has to fit, and there must be
    one; else one that fits will do.
    """

    field: str
    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    globs: tuple[Glob, ...] = ()
    regexes: tuple[Any, ...] = ()  # re2's
    ranges: tuple[tuple[int, int], ...] | None = None  # of a number, inclusive
    every: bool = False

    def answer(self, subject: Subject) -> Answer:
        """See `Condition`."""
        if not subject.has(self.field):
            return _LATER if self.field in subject.later else _NO
        if self.ranges is not None:
            number = subject.number(self.field)
            return _YES if any(low <= number <= high for low, high in self.ranges) else _NO
        texts = subject.texts(self.field)
        if texts is None:
            return _DOUBT
        if len(texts) == 1:
            return _YES if self._fits(texts[0]) else _NO
        fits = bool(texts) and (all if self.every else any)(map(self._fits, texts))
        return _YES if fits else _NO

    def _fits(self, text: str) -> bool:
        return (
            text in self.exact
            or (bool(self.prefixes) and text.startswith(self.prefixes))
            or (bool(self.globs) and any(glob.matches(text) for glob in self.globs))
            or (bool(self.regexes) and self._fits_regex(text.encode("utf-8", "surrogateescape")))
        )

    def _fits_regex(self, data: bytes) -> bool:
        return any(regex.fullmatch(data) is not None for regex in self.regexes)

    def fields(self) -> Iterator[str]:
        """See `Condition`."""
        yield self.field

    def canonical(self) -> object:
        """See `Condition`."""
        globs, regexes = sorted(glob.pattern for glob in self.globs), sorted(str(each.pattern) for each in self.regexes)
        return self.field, sorted(self.exact), sorted(self.prefixes), globs, regexes, self.ranges, self.every


@dataclass(frozen=True, slots=True)
class Contains:
    """Patterns in the bytes of one field, each value of which (`every`) or one has to contain one of them. `scanner`
    looks for all that any rule asks of the field.
    """

    field: str
    patterns: tuple[Pattern, ...]
    scanner: Scanner
    every: bool = False

    def answer(self, subject: Subject) -> Answer:
        """See `Condition`. Over the budget it is in doubt, unless what was not looked at counts as not there."""
        if not subject.has(self.field):
            return _LATER if self.field in subject.later else _NO
        found = subject.found(self.field, self.scanner)
        ids = {pattern.id for pattern in self.patterns}
        fits = [not ids.isdisjoint(each.ids) for each in found]
        if fits and (all if self.every else any)(fits):
            return _YES
        if any(each.over and not fit for each, fit in zip(found, fits, strict=True)):
            subject.over_budget = True
            return _NO if subject.on_budget == Action.ALLOW else _DOUBT
        return _NO

    def fields(self) -> Iterator[str]:
        """See `Condition`."""
        yield self.field

    def canonical(self) -> object:
        """See `Condition`."""
        return "contains", self.field, sorted({repr(pattern.canonical()) for pattern in self.patterns}), self.every


@dataclass(frozen=True, slots=True)
class _Several:
    """Conditions together: one answer of a part decides at once, of the others the more open one counts."""

    parts: Sequence[Condition]

    name: ClassVar[str]
    decides: ClassVar[Answer]
    otherwise: ClassVar[Answer]

    def answer(self, subject: Subject) -> Answer:
        """See `Condition`."""
        found = self.otherwise
        for part in self.parts:
            answer = part.answer(subject)
            if answer is self.decides:
                return answer
            if answer is _LATER or found is self.otherwise:
                found = answer
        return found

    def fields(self) -> Iterator[str]:
        """See `Condition`."""
        for part in self.parts:
            yield from part.fields()

    def canonical(self) -> object:
        """See `Condition`."""
        return self.name, sorted((part.canonical() for part in self.parts), key=repr)


class All(_Several):
    """All of them hold; of none that is true."""

    __slots__ = ()
    name = "all"
    decides, otherwise = _NO, _YES


class AnyOf(_Several):
    """One of them holds."""

    __slots__ = ()
    name = "any"
    decides, otherwise = _YES, _NO


@dataclass(frozen=True, slots=True)
class Not:
    """It does not hold."""

    part: Condition

    def answer(self, subject: Subject) -> Answer:
        """See `Condition`."""
        answer = self.part.answer(subject)
        return {_YES: _NO, _NO: _YES}.get(answer, answer)

    def fields(self) -> Iterator[str]:
        """See `Condition`."""
        yield from self.part.fields()

    def canonical(self) -> object:
        """See `Condition`."""
        return "not", self.part.canonical()


ALWAYS = All(())
