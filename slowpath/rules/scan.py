"""Many patterns over one text, in one pass and within a budget.

One automaton of all patterns' literals (Aho-Corasick: a step a byte, whatever the bytes) tells which patterns may
match, and where. Only there RE2 looks, pattern by pattern. What that may cost at worst is reckoned before it is done:
the same text always takes the same steps, and what would take more than the budget is not looked at, which is told.
With `slowpath.rules.vectors` Hyperscan tells which patterns match, in steps that no text makes many, and that cost
nothing of the budget; RE2 has to look only where a pattern asks for more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ahocorasick_rs import BytesAhoCorasick

from slowpath.rules.checks import CHECKS
from slowpath.rules.patterns import Decode, Pattern, Patterns, readings
from slowpath.rules.vectors import Database, Databases, EngineError, expression_of

log = logging.getLogger(__name__)

# A step is about a nanosecond at worst (bench/patterns.py): when RE2 has to make the states of its automaton, a byte
# costs so many, and more the larger the program is; so does a search besides, and a literal found, for each pattern.
_BYTE: Final = 32
_INSTRUCTIONS: Final = 8
_SEARCH: Final = 3000
_LITERAL: Final = 250
# Steps for the texts of a field, and for each of their bytes.
BUDGET: Final = 500_000
BUDGET_OF_BYTE: Final = 500


@dataclass(frozen=True, slots=True)
class Found:
    """Ids of patterns in a text. `over`: not all of it was looked at, there may be more."""

    ids: frozenset[str] = frozenset()
    over: bool = False


class Scanner:
    """All patterns that rules look for in one field. They may be added until the first text, and after."""

    def __init__(self, patterns: Iterable[Pattern] = (), databases: Databases | None = None) -> None:
        self._patterns = {pattern.id: pattern for pattern in patterns}
        self._databases = databases
        self._compiled: _Compiled | None = None
        # A long content comes in pieces, each with all that its head says.
        self._last: tuple[Sequence[bytes], tuple[Found, ...]] | None = None

    def add(self, patterns: Iterable[Pattern]) -> None:
        """Look for these too."""
        self._patterns |= {pattern.id: pattern for pattern in patterns}
        self._compiled = self._last = None

    def compile(self) -> _Compiled:
        """Before the first text, where that takes time."""
        if self._compiled is None:
            self._compiled = _Compiled(tuple(self._patterns.values()), self._databases)
        return self._compiled

    def scan(self, text: bytes) -> Found:
        """Which of them a text contains."""
        return self.scan_each((text,))[0]

    def scan_each(self, texts: Sequence[bytes]) -> tuple[Found, ...]:
        """Which of them each text contains, all within one budget."""
        last = self._last
        if last is None or len(last[0]) != len(texts) or any(a is not b for a, b in zip(last[0], texts, strict=True)):
            last = self._last = texts, self.compile().scan(texts)
        return last[1]

    def named(self, ids: Iterable[str]) -> Iterator[Pattern]:
        """The patterns of ids that were found."""
        return (self._patterns[each] for each in ids)


class Library:
    """Patterns that rules may name, and of each field what rules look for in it."""

    def __init__(self, patterns: Patterns | None = None, databases: Databases | None = None) -> None:
        self.patterns = patterns or Patterns()
        self._databases = databases
        self._scanners: dict[str, Scanner] = {}

    def scanner(self, field: str) -> Scanner:
        """Of all rules that are read with this library."""
        if field not in self._scanners:
            self._scanners[field] = Scanner(databases=self._databases)
        return self._scanners[field]

    def compile(self) -> None:
        """All scanners, before the first text."""
        for scanner in self._scanners.values():
            scanner.compile()


class _Compiled:
    __slots__ = ("_always", "_by_literal", "_database", "_decoded", "_literals", "_patterns", "_sure", "_widths")

    def __init__(self, patterns: Sequence[Pattern], databases: Databases | None = None) -> None:
        self._patterns = patterns
        self._database: Database | None = None
        # Of those with a check it counts what matched, and where.
        self._sure: frozenset[int] = frozenset()
        self._decoded = frozenset(number for number, pattern in enumerate(patterns) if pattern.decode == Decode.URL)
        # Of those with a check it counts where else a match might end: they look at all of a text.
        self._widths = [None if pattern.check else pattern.shape.width for pattern in patterns]
        taken = self._read_by(databases) if databases is not None else frozenset()
        self._find_literals([number for number in range(len(patterns)) if number not in taken])

    def _find_literals(self, numbers: Sequence[int]) -> None:
        """Of the patterns that only RE2 reads."""
        self._always = [number for number in numbers if not self._patterns[number].shape.literals]
        by_literal: dict[bytes, list[int]] = {}
        for number in numbers:
            for literal in self._patterns[number].shape.literals:
                by_literal.setdefault(literal, []).append(number)
        self._literals = BytesAhoCorasick(list(by_literal)) if by_literal else None
        self._by_literal = list(by_literal.values())

    def _read_by(self, databases: Databases) -> frozenset[int]:
        written = {
            number: expression
            for number, pattern in enumerate(self._patterns)
            if (expression := expression_of(pattern.regex, fold=pattern.fold)) is not None
        }
        self._database = databases.of(written)
        self._sure = frozenset(n for n, each in written.items() if each.exact and not self._patterns[n].check)
        return self._database.taken if self._database is not None else frozenset()

    def scan(self, texts: Sequence[bytes]) -> tuple[Found, ...]:
        left = BUDGET + BUDGET_OF_BYTE * sum(map(len, texts))
        answers: list[Found] = []
        for text in texts:
            found: set[int] = set()
            over = left < 0
            chosen: frozenset[int] | None = None
            for seen in readings(text, decoded=bool(self._decoded)) if not over else ():
                left, over = self._read(seen, chosen, found, left)
                chosen = self._decoded
                if over:
                    break
            answers.append(Found(frozenset(self._patterns[number].id for number in found), over))
        return tuple(answers)

    def _read(self, text: bytes, chosen: frozenset[int] | None, found: set[int], left: int) -> tuple[int, bool]:
        """What is left of the budget, and whether it was too little."""
        matched = self._matched(text)
        windows: dict[int, list[list[int]]] = {number: [[0, len(text)]] for number in self._always}
        for number in matched:
            if number not in self._sure:
                windows[number] = [[0, len(text)]]
            elif chosen is None or number in chosen:
                found.add(number)
        if self._literals is not None:
            hits = self._literals.find_matches_as_indexes(text.lower(), overlapping=True)
            left = self._place(hits, len(text), windows, left)
            if left < 0:
                return left, True
        for number, places in windows.items():
            if number in found or (chosen is not None and number not in chosen):
                continue
            pattern = self._patterns[number]
            weight = _BYTE + pattern.automaton.size // _INSTRUCTIONS
            for start, end in places:
                left -= _SEARCH + (end - start) * weight
                if left < 0:
                    return left, True
                match = pattern.automaton.regex.search(text, start, end)
                while match is not None and pattern.check and not CHECKS[pattern.check](match.group()):
                    # The next may begin within this one.
                    start = match.start() + 1
                    left -= _SEARCH + (match.end() - start) * weight
                    if left < 0:
                        return left, True
                    match = pattern.automaton.regex.search(text, start, end)
                if match is not None:
                    found.add(number)
                    break
        return left, False

    def _matched(self, text: bytes) -> Sequence[int]:
        """What Hyperscan finds, of the patterns that it reads."""
        if self._database is None:
            return ()
        try:
            return self._database.scan(text)
        except EngineError as error:
            log.warning("patterns are looked for without hyperscan: %s", error)
            self._database, self._sure = None, frozenset()
            self._find_literals(range(len(self._patterns)))
            return ()

    def _place(
        self, hits: Sequence[tuple[int, int, int]], size: int, windows: dict[int, list[list[int]]], left: int
    ) -> int:
        """Where a match may lie: as far from a literal as it is long. What is left of the budget."""
        for literal, start, end in hits:  # by their ends
            numbers = self._by_literal[literal]
            left -= _LITERAL * len(numbers)
            if left < 0:
                break
            for number in numbers:
                width = self._widths[number]
                places = windows.get(number)
                low, high = (0, size) if width is None else (max(0, end - width), min(size, start + width))
                if places is None:
                    windows[number] = [[low, high]]
                elif low <= places[-1][1]:
                    places[-1][1] = max(places[-1][1], high)
                else:
                    places.append([low, high])
        return left
