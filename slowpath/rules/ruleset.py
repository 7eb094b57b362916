"""Rule files, compiled: who is allowed to ask for what.

First match wins; no rule matching is a denial (`no_rule`). The compiler derives what a decision depends on: it is
the connection's where every rule up to the one that decides asks only for what a connection says once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path as FilePath

from fastpath.abi import Action, Reason, Scope
from fastpath.abi import Protocol as App
from fastpath.document import InvalidDocumentError, Node, Problem, Problems, compose, read_text
from fastpath.policy.model import DenyWith, Log, Mode
from parsers.registry import field_of
from slowpath.rules.conditions import may_match, read_match
from slowpath.rules.fields import PROTOCOLS, Subject
from slowpath.rules.match import ALWAYS, Answer, Condition
from slowpath.rules.patterns import Severity, load_patterns
from slowpath.rules.samples import Sample, read_sample
from slowpath.rules.scan import Library
from slowpath.rules.vectors import Databases

MAX_RULES = 10_000
# Read for every unit; see `slowpath.rules.match`.
_YES, _LATER, _DOUBT = Answer.YES, Answer.LATER, Answer.DOUBT


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a rule says beside its action; None: as the policy's rule has it."""

    reset: bool | None = None
    log: Log | None = None
    severity: Severity | None = None


NO_ATTRIBUTES = Attributes()


@dataclass(frozen=True)
class Rule:
    """One rule of a file. With `monitor` it denies nothing: what it would deny is noted, and the next rule asked."""

    id: str
    action: Action
    match: Condition = ALWAYS
    attributes: Attributes = NO_ATTRIBUTES
    monitor: bool = False
    must_match: tuple[Sample, ...] = ()
    must_not_match: tuple[Sample, ...] = ()
    description: str = ""
    line: int = 0

    @cached_property
    def fields(self) -> frozenset[str]:
        """What it asks for."""
        return frozenset(self.match.fields())

    @cached_property
    def scope(self) -> Scope:
        """What it depends on: NONE where it matches everything."""
        if not self.fields:
            return Scope.NONE
        return Scope.CONNECTION if all(field_of(name).once for name in self.fields) else Scope.REQUEST

    def answer(self, subject: Subject) -> Answer:
        """YES, NO, or LATER."""
        answer = self.match.answer(subject)
        if answer is _DOUBT:
            return Answer.NO if self.action == Action.ALLOW else _YES
        return answer


@dataclass(frozen=True, slots=True)
class RuleFile:
    """One file of rules.d."""

    name: str
    protocols: frozenset[App]
    rules: tuple[Rule, ...]
    hash: str
    file: str = ""
    by_protocol: Mapping[App, tuple[Rule, ...]] = field(init=False)
    fields: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        # A rule on calls has nothing to say of what is no call.
        by_protocol = {
            protocol: tuple(rule for rule in self.rules if may_match(rule.match, protocol))
            for protocol in self.protocols
        }
        object.__setattr__(self, "by_protocol", by_protocol)
        object.__setattr__(self, "fields", frozenset().union(*(rule.fields for rule in self.rules)))


@dataclass(slots=True)
class Noted:
    """A rule in monitor mode that would have denied; `rule` is "file/id"."""

    rule: str
    attributes: Attributes = NO_ATTRIBUTES
    patterns: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What the rule files say. `rule` is "file/id", empty when none matched; `patterns` were found on the way."""

    action: Action
    reason: Reason
    scope: Scope
    rule: str = ""
    attributes: Attributes = NO_ATTRIBUTES
    noted: tuple[Noted, ...] = ()
    patterns: tuple[str, ...] = ()

    def matched(self, rule: str) -> bool:
        """Decided by this rule, or it would have been with the rule in force."""
        return self.rule == rule or any(each.rule == rule for each in self.noted)


NO_RULE_CONNECTION = Outcome(Action.DENY, Reason.NO_RULE, Scope.CONNECTION)
NO_RULE_REQUEST = Outcome(Action.DENY, Reason.NO_RULE, Scope.REQUEST)
OVER_BUDGET = Outcome(Action.DENY, Reason.PATTERN_BUDGET, Scope.REQUEST)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rule files, by name."""

    files: Mapping[str, RuleFile] = field(default_factory=dict)
    on_demand: bool = field(init=False)  # they ask for something that is told only then
    # What does not depend on units, by the names of the files: asked for with each flow.
    _asks: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _whole: dict[tuple[tuple[str, ...], App], Outcome | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _in_order: dict[tuple[tuple[str, ...], App], tuple[tuple[str, Rule], ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        asked = (name for rule_file in self.files.values() for name in rule_file.fields)
        object.__setattr__(self, "on_demand", any(field_of(name).on_demand for name in asked))

    def digest(self, name: str) -> str | None:
        """What a policy remembers of a file; None where there is none."""
        found = self.files.get(name)
        return found.hash if found is not None else None

    def hash(self, names: Iterable[str]) -> str:
        """Equal for flows judged by the same rules; a missing file counts too."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(f"{name}={self.files[name].hash if name in self.files else '-'};".encode())
        return digest.hexdigest()

    def asks(self, names: tuple[str, ...]) -> frozenset[str]:
        """Fields that rules of these files ask for."""
        found = self._asks.get(names)
        if found is None:
            fields = (self.files[name].fields for name in names if name in self.files)
            found = self._asks[names] = frozenset().union(*fields)
        return found

    def decide(self, names: tuple[str, ...], protocol: App) -> Outcome | None:
        """The decision for the whole connection, or None: it depends on what is said in it."""
        key = names, protocol
        if key not in self._whole:
            self._whole[key] = self._decide(*key)
        return self._whole[key]

    def _decide(self, names: tuple[str, ...], protocol: App) -> Outcome | None:
        for name, rule in self._rules(names, protocol):
            if rule.scope != Scope.NONE:
                return None
            return Outcome(rule.action, Reason.RULE, Scope.CONNECTION, name, rule.attributes)
        return NO_RULE_CONNECTION

    def evaluate(self, names: tuple[str, ...], subject: Subject) -> Outcome | None:
        """The decision for one unit, or None: it depends on what the connection has yet to say. Of scope CONNECTION it
        is that of all units to come. Where patterns would cost too much `subject.on_budget` is taken, and
        `over_budget` set.
        """
        scope = Scope.CONNECTION
        noted: tuple[Noted, ...] = ()
        for name, rule in self._rules(names, subject.protocol):
            if rule.scope == Scope.REQUEST:
                scope = Scope.REQUEST
            answer = rule.answer(subject)
            if subject.over_budget and subject.on_budget == Action.DENY:
                return OVER_BUDGET
            if answer is _LATER:
                return None
            if answer is _YES and rule.monitor:
                noted += (Noted(name, *_with_patterns(rule.attributes, subject)),)
            elif answer is _YES:
                attributes, patterns = _with_patterns(rule.attributes, subject)
                return Outcome(rule.action, Reason.RULE, scope, name, attributes, noted, patterns)
        outcome = NO_RULE_CONNECTION if scope == Scope.CONNECTION else NO_RULE_REQUEST
        return replace(outcome, noted=noted) if noted else outcome

    def _rules(self, names: tuple[str, ...], protocol: App) -> tuple[tuple[str, Rule], ...]:
        """("file/id", rule) in the order in which they are asked."""
        key = names, protocol
        found = self._in_order.get(key)
        if found is None:
            found = self._in_order[key] = tuple(
                (f"{name}/{rule.id}", rule)
                for name in names
                if name in self.files
                for rule in self.files[name].by_protocol.get(protocol, ())
            )
        return found


def _with_patterns(attributes: Attributes, subject: Subject) -> tuple[Attributes, tuple[str, ...]]:
    """Names of the patterns found; a rule that says nothing of severity has that of the worst."""
    patterns = subject.patterns()
    if not patterns:
        return attributes, ()
    if attributes.severity is None:
        worst = max((pattern.severity for pattern in patterns), key=lambda severity: severity.value)
        attributes = replace(attributes, severity=worst)
    return attributes, tuple(pattern.id for pattern in patterns)


def _rule(node: Node, protocols: list[App], library: Library) -> Rule:
    fields = node.mapping(
        required=("id", "action"),
        optional=("description", "match", "samples", "severity", "deny_with", "log", "mode"),
    )
    rule_id = fields["id"].text(max_length=128)
    action = fields["action"].choice(Action, allowed=(Action.ALLOW, Action.DENY))
    description = fields["description"].text() if "description" in fields else ""
    match: Condition = ALWAYS
    if "match" in fields and not fields["match"].is_null:
        match = read_match(fields["match"], protocols, library, allow=action == Action.ALLOW)
    attributes, monitor = _attributes(fields, protocols, allow=action == Action.ALLOW)
    if monitor and match == ALWAYS:
        fields["mode"].report("a rule without `match` has nothing to look for; the policy's rule has a mode, too")
    samples: dict[str, tuple[Sample, ...]] = {"must_match": (), "must_not_match": ()}
    if "samples" in fields:
        for key, value in fields["samples"].mapping(optional=tuple(samples)).items():
            samples[key] = tuple(value.collect(lambda item: read_sample(item, protocols)))
    return Rule(
        rule_id, action, match, attributes, monitor, samples["must_match"], samples["must_not_match"], description,
        node.line,
    )  # fmt: skip


def _attributes(fields: Mapping[str, Node], protocols: list[App], *, allow: bool) -> tuple[Attributes, bool]:
    """Attributes, and whether it is in monitor mode."""
    with_ = fields["deny_with"].choice(DenyWith) if "deny_with" in fields else None
    mode = fields["mode"].choice(Mode) if "mode" in fields else None
    for name in ("deny_with", "mode"):
        if allow and name in fields:
            fields[name].report("of rules that deny")
    if with_ == DenyWith.RESET and all(protocol == App.QUIC for protocol in protocols):
        fields["deny_with"].report("only tcp can be reset")
    return (
        Attributes(
            None if with_ is None else with_ == DenyWith.RESET,
            fields["log"].choice(Log) if "log" in fields else None,
            fields["severity"].choice(Severity) if "severity" in fields else None,
        ),
        mode == Mode.MONITOR,
    )


def _file(root: Node, library: Library) -> RuleFile:
    fields = root.mapping(required=("name", "protocol", "rules"), optional=("description",))
    name = fields["name"].text(max_length=128)
    if "/" in name:
        fields["name"].report("a name has no slash: records say name/id")
    if "description" in fields:
        fields["description"].text()
    protocols = fields["protocol"].collect(lambda item: item.choice(App, allowed=PROTOCOLS))
    if not protocols:
        raise fields["protocol"].fail("needs a protocol")
    items = fields["rules"].items()
    if len(items) > MAX_RULES:
        raise fields["rules"].fail(f"more than {MAX_RULES} rules")
    rules: list[Rule] = []
    seen: dict[str, int] = {}
    final = 0
    for item in items:
        rule = item.attempt(lambda node: _rule(node, protocols, library))
        if rule is None:
            continue
        if rule.id in seen:
            item.report(f"id {rule.id!r} is used in line {seen[rule.id]} already")
        if final:
            item.report(f"never reached: the rule in line {final} matches everything")
        seen.setdefault(rule.id, rule.line)
        final = final or (0 if rule.fields else rule.line)
        rules.append(rule)
    canonical = (
        sorted(protocol.name for protocol in protocols),
        [
            (
                rule.id,
                rule.action.name,
                rule.match.canonical(),
                rule.attributes.reset,
                rule.attributes.log,
                rule.monitor,
            )
            for rule in rules
        ],
    )
    digest = hashlib.sha256(repr(canonical).encode()).hexdigest()
    return RuleFile(name, frozenset(protocols), tuple(rules), digest, root.file)


def read_rule_file(text: str, file: str, problems: Problems, library: Library | None = None) -> RuleFile | None:
    """Compile one file's text; problems are collected. `library` has the patterns that it may name."""
    root = compose(text, file, problems)
    known = library or Library()
    return root.attempt(lambda node: _file(node, known)) if root is not None else None


def load_rules(paths: Iterable[FilePath], databases: Databases | None = None) -> RuleSet:
    """Compile rule files (of a directory: its *.yaml), with the patterns of patterns.d beside their folder; `databases`
    makes what looks for these. InvalidDocumentError has all problems of all of them.
    """
    problems = Problems()
    paths = list(paths)
    library = Library(load_patterns(pattern_files(paths), problems), databases)
    files: dict[str, RuleFile] = {}
    for path in _expand(paths):
        text = read_text(path, problems)
        compiled = read_rule_file(text, str(path), problems, library) if text is not None else None
        if compiled is None:
            continue
        if compiled.name in files:
            other = files[compiled.name].file
            problems.found.append(Problem(str(path), 0, "name", f"{compiled.name!r} is the name of {other} already"))
        files.setdefault(compiled.name, compiled)
    problems.raise_if_any()
    library.compile()
    return RuleSet(files)


def pattern_files(paths: Iterable[FilePath]) -> list[FilePath]:
    """Those that rule files (or folders of them) may name: rules.d/*.yaml those of patterns.d."""
    rules = {(path if path.is_dir() else path.parent).resolve() for path in paths}
    return sorted(found for folder in rules for found in (folder.parent / "patterns.d").glob("*.yaml"))


def _expand(paths: Iterable[FilePath]) -> Iterator[FilePath]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.glob("*.yaml"))
        else:
            yield path


__all__ = [
    "InvalidDocumentError",
    "Outcome",
    "Rule",
    "RuleFile",
    "RuleSet",
    "Sample",
    "Subject",
    "load_rules",
    "pattern_files",
    "read_rule_file",
]
