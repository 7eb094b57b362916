"""`match` of a rule, read: fields with the values they may have, and all, any, not."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import re2

from fastpath.abi import Protocol
from fastpath.document import Node, read_text
from parsers.base import Kind
from parsers.registry import field_of
from slowpath.rules import normal
from slowpath.rules.fields import SEPARATORS, Subject, is_keyed, is_list, known, protocols_of, wrong_key
from slowpath.rules.glob import Glob
from slowpath.rules.match import All, Answer, AnyOf, Condition, Contains, Not, Test
from slowpath.rules.patterns import Pattern
from slowpath.rules.scan import Library

MAX_TEXT = 2048
# Of `file`: values, one a line.
MAX_VALUES = 100_000
MAX_DEPTH = 16
# For one pattern's automata, in matching too; beyond that RE2 goes on more slowly, and still in linear time.
MAX_PATTERN_MEMORY = 1 << 20

_KINDS = ("exact", "prefix", "glob", "regex", "file")
_PATTERN = "pattern"
_COMBINED = ("all", "any", "not")


class _Values(enum.Enum):
    ANY = enum.auto()
    EVERY = enum.auto()


def read_match(node: Node, protocols: Iterable[Protocol], library: Library, *, allow: bool) -> Condition:
    """Of a rule that allows or denies flows of some protocols. Of a field with several values an allow rule wants every
    one to fit, a deny rule refuses any, and within `not` it is the other way: the safe side; `values` says otherwise.
    """
    return _all(node, frozenset(protocols), library, every=allow, depth=0)


def _all(node: Node, protocols: frozenset[Protocol], library: Library, *, every: bool, depth: int) -> Condition:
    if depth > MAX_DEPTH:
        raise node.fail(f"nested more than {MAX_DEPTH} deep")
    parts: list[Condition] = []
    for key, value in node.mapping(optional=(*known(), *_COMBINED), others=is_keyed).items():
        part = value.attempt(lambda item, key=key: _part(key, item, protocols, library, every=every, depth=depth + 1))  # type: ignore[misc]
        if part is not None:
            parts.append(part)
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _part(
    key: str, node: Node, protocols: frozenset[Protocol], library: Library, *, every: bool, depth: int
) -> Condition:
    if key == "not":
        # What is refused when some value fits must, turned round, be allowed when none does.
        return Not(_all(node, protocols, library, every=not every, depth=depth))
    if key in _COMBINED:
        parts = tuple(
            part
            for item in node.items()
            if (part := item.attempt(lambda item: _all(item, protocols, library, every=every, depth=depth))) is not None
        )
        if not parts:
            raise node.fail("needs a condition")
        return All(parts) if key == "all" else AnyOf(parts)
    if (wrong := wrong_key(key)) is not None:
        raise node.fail(wrong)
    if not protocols_of(key) & protocols:
        names = " or ".join(sorted(each.name.lower() for each in protocols_of(key)))
        node.report(f"{key} needs `protocol: {names}`")
    if field_of(key).kind == Kind.NUMBER:
        ranges = tuple(node.collect(_range))
        if not ranges:
            node.report("needs a value")
        return Test(key, ranges=ranges)
    return _texts(key, node, library, every=every and is_list(key))


def _range(node: Node) -> tuple[int, int]:
    text = node.text(max_length=64)
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        raise node.fail("needs a number, or two with a dash between: 1-5")
    values = int(low), int(high if dash else low)
    if values[0] > values[1]:
        raise node.fail("the range is empty")
    return values


def _texts(key: str, node: Node, library: Library, *, every: bool) -> Condition:
    if not node.is_mapping:
        values = node.collect(lambda item: _value(item, key, "exact"))
        if not values:
            node.report("needs a value")
        return Test(key, frozenset(values), every=every)
    found: dict[str, list[Any]] = {kind: [] for kind in (*_KINDS, _PATTERN)}
    for kind, value in node.mapping(optional=(*found, "values")).items():
        if kind == "values":
            every = value.choice(_Values) == _Values.EVERY
            if not is_list(key):
                value.report(f"{key} has one value")
        elif kind == "file":
            found[kind] = [each for names in value.collect(lambda item: _file(item, key)) for each in names]
        elif kind == "regex":
            found[kind] = value.collect(_regex)
        elif kind == _PATTERN:
            found[kind] = [each for named in value.collect(lambda item: _named(item, library)) for each in named]
        else:
            found[kind] = value.collect(lambda item, kind=kind: _value(item, key, kind))  # type: ignore[misc]
    if not any(found.values()):
        node.report("needs exact, prefix, glob, regex, file or pattern")
    if found[_PATTERN]:
        if any(found[kind] for kind in _KINDS):
            node.report(
                "pattern stands by itself: it looks into a value, the others at all of it; put them under `any`"
            )
        scanner = library.scanner(key)
        scanner.add(found[_PATTERN])
        return Contains(key, tuple(found[_PATTERN]), scanner, every=every)
    return Test(
        key,
        frozenset(found["exact"] + found["file"]),
        tuple(found["prefix"]),
        tuple(Glob(pattern, SEPARATORS.get(key, "")) for pattern in found["glob"]),
        tuple(found["regex"]),
        every=every,
    )


def _file(node: Node, key: str) -> list[str]:
    """Values out of a file beside the rule file; blank lines and what begins with # are none."""
    path = Path(node.file).parent / node.text(max_length=MAX_TEXT)
    problems = node.problems
    before = len(problems.found)
    text = read_text(path, problems)
    if text is None:
        if len(problems.found) == before:
            node.report(f"{path} cannot be read")
        return []
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    values = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if len(values) > MAX_VALUES:
        raise node.fail(f"{path}: {len(values)} values; {MAX_VALUES} is the most")
    for number, value in values:
        if (wrong := _wrong(value, key, "exact")) is not None:
            node.report(f"{path}:{number}: {wrong}")
    return [value for _, value in values]


def _named(node: Node, library: Library) -> tuple[Pattern, ...]:
    """Of patterns.d: all of a set, or one."""
    name = node.text(max_length=MAX_TEXT)
    found = library.patterns.named(name)
    if not found:
        sets = ", ".join(sorted(library.patterns.sets)) or "none"
        raise node.fail(f"no pattern {name!r}: sets of patterns.d are {sets}; write set or set/id")
    return found


def _regex(node: Node) -> Any:
    pattern = node.text(max_length=MAX_TEXT)
    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise node.fail(f"no pattern of RE2: {reason.decode() if isinstance(reason, bytes) else reason}") from None


def _value(node: Node, key: str, kind: str) -> str:
    text = node.text(max_length=MAX_TEXT)
    if (wrong := _wrong(text, key, kind)) is not None:
        node.report(wrong)
    return text


def _wrong(text: str, key: str, kind: str) -> str | None:
    """Why no unit could ever have this value."""
    if key == "http.path":
        if kind != "glob":
            return _wrong_path(text)
        return "a path begins with /" if text[0] not in "/*" else None
    if field_of(key).folded and text != text.lower():
        return f"{key} is compared in lower case: write {text.lower()}"
    if key == "http.host" and kind == "exact" and normal.host(text.encode()) != text:
        return f"hosts are compared without port and final dot: write {normal.host(text.encode())}"
    if key == "grpc.service" and text.startswith("/"):
        return "write the service as package.Service"
    return None


def _wrong_path(text: str) -> str | None:
    if text == "*":
        return None
    if not text.startswith("/"):
        return "a path begins with /"
    if "?" in text:
        return "the query is no part of http.path"
    seen = normal.path(text.encode())
    if seen.ambiguous:
        return "no rule can match this path: servers read it in more than one way"
    return f"requests are compared in normal form: write {seen.text}" if seen.text != text else None


def may_match(condition: Condition, protocol: Protocol) -> bool:
    """Units of a protocol may satisfy it: it does not ask for what they never say."""
    own = frozenset(name for name in condition.fields() if protocol in protocols_of(name))
    subject = Subject(protocol, {}, own)
    return condition.answer(subject) != Answer.NO
