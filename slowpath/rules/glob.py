"""Globs that match in linear time: `?` one character, `*` a run without the separator, `**` any run.

The pattern is a row of positions, their set one integer; a character moves the whole
set at once. No backtracking, so hostile text costs what harmless text costs.
"""

from __future__ import annotations


class Glob:
    """A compiled pattern; `separator` is what `?` and `*` do not match (empty: they match anything)."""

    __slots__ = ("_any", "_end", "_literals", "_one", "_prefix", "_run", "pattern", "separator")

    def __init__(self, pattern: str, separator: str) -> None:
        self.pattern = pattern
        self.separator = separator
        self._literals: dict[str, int] = {}
        self._one = self._run = self._any = 0
        position = at = 0
        while at < len(pattern):
            bit = 1 << position
            if pattern[at] == "*":
                end = at
                while end < len(pattern) and pattern[end] == "*":
                    end += 1
                if end - at > 1:
                    self._any |= bit
                else:
                    self._run |= bit
                at = end
            else:
                if pattern[at] == "?":
                    self._one |= bit
                else:
                    self._literals[pattern[at]] = self._literals.get(pattern[at], 0) | bit
                at += 1
            position += 1
        self._end = 1 << position
        stops = [found for found in (pattern.find("*"), pattern.find("?")) if found >= 0]
        self._prefix = pattern[: min(stops, default=len(pattern))]

    def matches(self, text: str) -> bool:
        """The whole text matches."""
        if not text.startswith(self._prefix):
            return False
        skipped = len(self._prefix)
        loops = self._run | self._any
        current = 1 << skipped
        current |= (current & loops) << 1
        literals, one, always, separator = self._literals, self._one, self._any, self.separator
        for character in text[skipped:]:
            if character == separator:
                moved = (current & literals.get(character, 0)) << 1 | (current & always)
            else:
                moved = (current & (literals.get(character, 0) | one)) << 1 | (current & loops)
            current = moved | (moved & loops) << 1
            if not current:
                return False
        return bool(current & self._end)
