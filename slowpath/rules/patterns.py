"""Files of content patterns (patterns.d): named sets of what rules may look for in a field's bytes.

A pattern is one of RE2, over bytes: `.` is any byte, case counts unless `case: ignore`, \\d, \\w, \\s and \\b are
ASCII's. All of them can be matched in bounded time: they are refused where neither a literal that each match contains
nor their own small size sees to that.
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import unquote_to_bytes

import re2

from fastpath.document import Node, Problem, Problems, compose, read_text
from slowpath.rules.checks import CHECKS
from slowpath.rules.literals import MIN_LITERAL, Shape, SyntaxNotReadError, shape_of

MAX_PATTERNS: Final = 5000
MAX_REGEX: Final = 2048
MAX_SAMPLE: Final = 8192
# Instructions of a program: what a byte may cost.
MAX_PROGRAM: Final = 1000
# Of patterns without literals, which look at every byte of everything: each, and how many.
MAX_SMALL_PROGRAM: Final = 300
MAX_SMALL_WIDTH: Final = 64
MAX_SMALL: Final = 16
# Bytes of a pattern's automata, in matching too; RE2 begins them anew when they are full.
MAX_MEMORY: Final = 1 << 18


class Severity(enum.Enum):
    """How bad it is to find one."""

    INFO = enum.auto()
    LOW = enum.auto()
    MEDIUM = enum.auto()
    HIGH = enum.auto()
    CRITICAL = enum.auto()


class Case(enum.Enum):
    """Whether it counts."""

    EXACT = enum.auto()
    IGNORE = enum.auto()


class Decode(enum.Enum):
    """How else the bytes are looked at."""

    NONE = enum.auto()
    URL = enum.auto()


class Automaton:
    """A compiled pattern. Equal ones are compiled once, as long as one of them is in use: also over reloads."""

    __slots__ = ("__weakref__", "regex", "size")

    _known: ClassVar[weakref.WeakValueDictionary[tuple[bytes, bool], Automaton]] = weakref.WeakValueDictionary()

    def __init__(self, regex: bytes, *, fold: bool) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.case_sensitive = not fold
        options.dot_nl = True
        options.never_capture = True
        options.max_mem = MAX_MEMORY
        options.log_errors = False
        self.regex: Any = re2.compile(regex, options)
        # The second makes what finds where a match begins: now, and not with the first payload.
        self.size = max(int(self.regex.programsize), int(self.regex.reverseprogramsize))

    @classmethod
    def of(cls, regex: bytes, *, fold: bool) -> Automaton:
        """re2.error."""
        key = regex, fold
        found = cls._known.get(key)
        if found is None:
            found = cls._known[key] = cls(regex, fold=fold)
        return found


@dataclass(frozen=True)
class Pattern:
    """One of a file. `id` is "set/id"."""

    id: str
    regex: bytes
    automaton: Automaton
    shape: Shape
    description: str = ""
    severity: Severity = Severity.MEDIUM
    fold: bool = False
    decode: Decode = Decode.NONE
    check: str = ""
    must_match: tuple[bytes, ...] = ()
    must_not_match: tuple[bytes, ...] = ()
    file: str = ""
    line: int = 0

    def canonical(self) -> object:
        """Equal for equal meaning, and its `repr` too."""
        return self.regex, self.fold, self.decode.name, self.check

    def unsound(self) -> Iterator[str]:
        """Samples that do not hold, and that there are none, with their places."""
        where = f"{self.file}:{self.line}: {self.id}"
        if not self.must_match or not self.must_not_match:
            yield f"{where}: needs samples that it must match, and that it must not match"
        for sample in self.must_match:
            if not self.alone(sample):
                yield f"{where}: must match {sample!r}"
        for sample in self.must_not_match:
            if self.alone(sample):
                yield f"{where}: must not match {sample!r}"

    def alone(self, text: bytes) -> bool:
        """A text contains it. Of text that nobody bounds `scan` has to be asked."""
        return any(self._within(reading) for reading in readings(text, decoded=self.decode == Decode.URL))

    def _within(self, text: bytes) -> bool:
        match = self.automaton.regex.search(text)
        while match is not None and self.check and not CHECKS[self.check](match.group()):
            match = self.automaton.regex.search(text, match.start() + 1)
        return match is not None


def readings(text: bytes, *, decoded: bool) -> Iterator[bytes]:
    """The text as it is, and (`decoded`) as servers read it that percent-decode it once or twice."""
    yield text
    if not decoded or (b"%" not in text and b"+" not in text):
        return
    once = unquote_to_bytes(text.replace(b"+", b" "))
    if once != text:
        yield once
    if b"%" in once and (twice := unquote_to_bytes(once)) != once:
        yield twice


@dataclass(frozen=True, slots=True)
class Patterns:
    """All that rules may name."""

    sets: Mapping[str, tuple[Pattern, ...]] = field(default_factory=dict)

    def named(self, name: str) -> tuple[Pattern, ...]:
        """Of "set" all, of "set/id" one; none where there is no such."""
        chosen, slash, _ = name.partition("/")
        found = self.sets.get(chosen, ())
        return tuple(pattern for pattern in found if pattern.id == name) if slash else found

    def __iter__(self) -> Iterator[Pattern]:
        return (pattern for found in self.sets.values() for pattern in found)


def load_patterns(paths: Iterable[Path], problems: Problems) -> Patterns:
    """Read pattern files; what is wrong with any of them is reported."""
    sets: dict[str, tuple[Pattern, ...]] = {}
    places: dict[str, str] = {}
    for path in paths:
        text = read_text(path, problems)
        root = compose(text, str(path), problems) if text is not None else None
        found = root.attempt(_file) if root is not None else None
        if found is None:
            continue
        name, patterns = found
        if name in sets:
            problems.found.append(Problem(str(path), 0, "name", f"{name!r} is the name of {places[name]} already"))
        places.setdefault(name, str(path))
        sets.setdefault(name, patterns)
    patterns = tuple(Patterns(sets))
    if len(patterns) > MAX_PATTERNS:
        problems.found.append(
            Problem(patterns[-1].file, 0, "", f"{len(patterns)} patterns; {MAX_PATTERNS} is the most")
        )
    for extra in [pattern for pattern in patterns if not pattern.shape.literals][MAX_SMALL:]:
        message = f"one more than the {MAX_SMALL} patterns without a literal that there may be in all files"
        problems.found.append(Problem(extra.file, extra.line, extra.id, message))
    return Patterns(sets)


def _file(root: Node) -> tuple[str, tuple[Pattern, ...]]:
    fields = root.mapping(required=("name", "patterns"), optional=("description",))
    name = fields["name"].text(max_length=128)
    if "/" in name:
        fields["name"].report("a name has no slash: rules say name/id")
    if "description" in fields:
        fields["description"].text()
    patterns: list[Pattern] = []
    seen: dict[str, int] = {}
    for item in fields["patterns"].items():
        pattern = item.attempt(lambda node: _pattern(node, name))
        if pattern is None:
            continue
        if pattern.id in seen:
            item.report(f"id {pattern.id!r} is used in line {seen[pattern.id]} already")
        seen.setdefault(pattern.id, pattern.line)
        patterns.append(pattern)
    return name, tuple(patterns)


def _pattern(node: Node, name: str) -> Pattern:
    fields = node.mapping(
        required=("id", "description", "regex"), optional=("severity", "case", "decode", "check", "samples")
    )
    own = fields["id"].text(max_length=128)
    if "/" in own:
        fields["id"].report("an id has no slash: rules say name/id")
    description = fields["description"].text()
    severity = fields["severity"].choice(Severity) if "severity" in fields else Severity.MEDIUM
    fold = "case" in fields and fields["case"].choice(Case) == Case.IGNORE
    decode = fields["decode"].choice(Decode) if "decode" in fields else Decode.NONE
    check = fields["check"].text() if "check" in fields else ""
    if check and check not in CHECKS:
        fields["check"].report(f"{check!r} is not one of {', '.join(CHECKS)}")
    samples: dict[str, tuple[bytes, ...]] = {"must_match": (), "must_not_match": ()}
    if "samples" in fields:
        for key, value in fields["samples"].mapping(optional=tuple(samples)).items():
            samples[key] = tuple(value.collect(_sample))
    regex, automaton, shape = _regex(fields["regex"], fold=fold)
    return Pattern(
        f"{name}/{own}", regex, automaton, shape, description, severity, fold, decode, check,
        samples["must_match"], samples["must_not_match"], node.file, node.line,
    )  # fmt: skip


def _sample(node: Node) -> bytes:
    """Text, or `hex:` where bytes are no text."""
    if not node.is_mapping:
        return node.text(max_length=MAX_SAMPLE).encode()
    value = node.mapping(required=("hex",))["hex"]
    try:
        return bytes.fromhex(value.text(max_length=2 * MAX_SAMPLE))
    except ValueError:
        raise value.fail("expected bytes as two hexadecimal digits each") from None


def _regex(node: Node, *, fold: bool) -> tuple[bytes, Automaton, Shape]:
    text = node.text(max_length=MAX_REGEX)
    if not text.isascii():
        raise node.fail("patterns are over bytes: write \\xHH for what is not ASCII")
    regex = text.encode()
    try:
        automaton = Automaton.of(regex, fold=fold)
        shape = shape_of(regex)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise node.fail(f"no pattern of RE2: {reason.decode() if isinstance(reason, bytes) else reason}") from None
    except SyntaxNotReadError as error:
        raise node.fail(f"not read here, though it may be a pattern of RE2: {error}") from None
    if automaton.regex.search(b"") is not None:
        raise node.fail("matches nothing, which everything contains")
    if automaton.size > MAX_PROGRAM:
        raise node.fail(
            f"a program of {automaton.size} instructions, {MAX_PROGRAM} is the most: {{n,m}} copies its part"
        )
    small = automaton.size <= MAX_SMALL_PROGRAM and shape.width is not None and shape.width <= MAX_SMALL_WIDTH
    if not shape.literals and not small:
        raise node.fail(
            f"cannot be bounded: needs {MIN_LITERAL} bytes of text that each match contains, or at most"
            f" {MAX_SMALL_WIDTH} bytes a match and {MAX_SMALL_PROGRAM} instructions (it has {automaton.size})"
        )
    return regex, automaton, shape
