"""A policy file's text cut into its rules and what is around them, so that what was read before is not read again.

libyaml's verdict on where rules begin is the one that counts: `frame` and `some` are composed, and whoever does that
compares. What could mean another thing elsewhere, or by itself, is not cut.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

# The line of the list, and blank lines and comments before its first item.
_RULES = re.compile(r"^rules: *(?:#.*)?\n(?: *(?:#.*)?\n)*(?=( *)- )", re.MULTILINE)
# What begins an anchor, an alias or a tag does not follow a letter: R&D is none.
_SPECIAL = re.compile(r"(?<![\w.])[&*!]")
# Line ends of YAML that are none of ours, and tabs; a byte order mark.
_DOUBTFUL = "\t\r\x85\u2028\u2029\ufeff"
# Directives and the marks of documents.
_MARKS = ("%", "---", "...")
_LINE_ENDS: Callable[[str], int] = operator.methodcaller("count", "\n")


@dataclass(frozen=True)
class Pieces:
    """`head`, the items of the list `rules` without their ``- ``, and `tail`; `line` is that of `rules:`, 1-based,
    0 where there is none and the text is all head.
    """

    head: str
    line: int
    indent: str
    items: list[str]
    tail: str

    @property
    def first(self) -> int:
        """Line of the first item, 1-based."""
        return self.head.count("\n") + 1

    def frame(self) -> str:
        """The text with comments for the items."""
        return self.head + "#\n" * lines(self.items) + self.tail

    def some(self, wanted: Iterable[int]) -> str:
        """A document of nothing but these items, in rising order, in the lines in which they are."""
        parts = ["\n" * (self.line - 1), "rules:\n", "#\n" * (self.first - self.line - 1)]
        line = 0
        for index in wanted:
            parts += ["#\n" * (self._lines[index] - line), self.indent, "- ", self.items[index], "\n"]
            line = self._lines[index + 1]
        return "".join(parts)

    @cached_property
    def _lines(self) -> list[int]:
        """Lines before each item, and of all."""
        ends = itertools.accumulate(map(_LINE_ENDS, self.items), initial=0)
        return list(map(operator.add, ends, itertools.count()))


def lines(items: Sequence[str]) -> int:
    """How many these take."""
    return sum(map(_LINE_ENDS, items)) + len(items)


def cut(text: str) -> Pieces | None:
    """None where that might not be exact."""
    if (
        any(each in text for each in _DOUBTFUL)
        or text.startswith(_MARKS)
        or any(f"\n{mark}" in text for mark in _MARKS)
        or (any(each in text for each in "&*!") and _SPECIAL.search(text))
        or not text.endswith("\n")
    ):
        return None
    found = _RULES.search(text)
    if found is None:
        return Pieces(text, 0, "", [], "") if not re.search("^rules", text, re.MULTILINE) else None
    indent = found[1]
    behind = re.compile(r"\n[^ \n#]" if indent else r"\n(?!- )[^ \n#]").search(text, found.end())
    end = behind.start() + 1 if behind else len(text)
    body = text[found.end() : end]
    # Such an item begins without the blank that the others are told by.
    if f"\n{indent}-\n" in text:
        return None
    dash = f"{indent}- "
    items = body.removeprefix(dash).removesuffix("\n").split(f"\n{dash}")
    return Pieces(text[: found.end()], text.count("\n", 0, found.start()) + 1, indent, items, text[end:])
