"""Conditions in words, and why one holds of a unit or does not."""

from __future__ import annotations

from collections.abc import Iterator

from parsers.base import Kind
from parsers.registry import field_of
from slowpath.rules.fields import Subject
from slowpath.rules.match import All, Answer, AnyOf, Condition, Contains, Not, Test

_HOLDS = {Answer.YES: "yes", Answer.NO: "no", Answer.LATER: "not known yet", Answer.DOUBT: "ambiguous"}
# Values of a condition that are shown.
MAX_SHOWN = 8


def wanted(test: Test) -> str:
    """What values a field may have."""
    if test.ranges is not None:
        return " or ".join(str(low) if low == high else f"{low}-{high}" for low, high in test.ranges)
    parts = [
        *sorted(test.exact), *(f"{prefix}..." for prefix in test.prefixes), *(glob.pattern for glob in test.globs),
        *(f"regex {regex.pattern}" for regex in test.regexes),
    ]  # fmt: skip
    return ("each of them " if test.every else "") + _some(parts)


def _some(parts: list[str]) -> str:
    more = f" and {len(parts) - MAX_SHOWN} more" if len(parts) > MAX_SHOWN else ""
    return " or ".join(parts[:MAX_SHOWN]) + more


def _contained(condition: Contains, subject: Subject) -> str:
    """What a unit says of a field, and which patterns that contains."""
    value = said(condition.field, subject)
    if not subject.has(condition.field):
        return value
    found = subject.found(condition.field, condition.scanner)
    ids = sorted({pattern.id for pattern in condition.patterns} & {name for each in found for name in each.ids})
    over = " (over budget: not all was looked at)" if any(each.over for each in found) else ""
    return f"{value}, contains {' and '.join(ids) or 'none'}{over}"


def outline(condition: Condition) -> Iterator[str]:
    """A condition, a line each for what it is made of."""
    return _lines(condition, None, 0)


def reasons(condition: Condition, subject: Subject) -> Iterator[str]:
    """The same, with what the unit says and whether that holds."""
    return _lines(condition, subject, 0)


def _lines(condition: Condition, subject: Subject | None, depth: int) -> Iterator[str]:
    indent = "  " * depth
    answer = "" if subject is None else f": {_HOLDS[condition.answer(subject)]}"
    if isinstance(condition, Test):
        if subject is None:
            yield f"{indent}{condition.field}: {wanted(condition)}"
        else:
            yield f"{indent}{condition.field} is {said(condition.field, subject)}, wanted {wanted(condition)}{answer}"
    elif isinstance(condition, Contains):
        wanted_ids = f"pattern {_some([pattern.id for pattern in condition.patterns])}"
        each = "each of them " if condition.every else ""
        if subject is None:
            yield f"{indent}{condition.field}: {each}{wanted_ids}"
        else:
            contained = _contained(condition, subject)
            yield f"{indent}{condition.field} is {contained}, wanted {each}{wanted_ids}{answer}"
    elif isinstance(condition, Not):
        yield f"{indent}not{answer}"
        yield from _lines(condition.part, subject, depth + 1)
    elif isinstance(condition, All | AnyOf):
        if not condition.parts:
            yield f"{indent}always"
        elif isinstance(condition, AnyOf) or depth:
            yield f"{indent}{condition.name} of{answer}"
            depth += 1
        for part in condition.parts:
            yield from _lines(part, subject, depth)


def said(field: str, subject: Subject) -> str:
    """What a unit says of a field, as rules compare it."""
    if not subject.has(field):
        return "not known yet" if field in subject.later else "not said"
    if field_of(field).kind == Kind.NUMBER:
        return str(subject.number(field))
    texts = subject.texts(field)
    if texts is None:
        return "ambiguous"
    return ", ".join(repr(text)[:200] for text in texts) or "none"
