"""Rule files, compiled: who is allowed to ask for what.

First match wins; no rule matching is a denial (`no_rule`). The compiler derives what
a decision depends on: rules without a condition on requests are connection-scoped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from fastpath.abi import Action, Protocol, Reason, Scope
from fastpath.document import InvalidDocumentError, Node, Problem, Problems, compose, read_text
from parsers.base import Request
from slowpath.rules import normal
from slowpath.rules.glob import Glob

PROTOCOLS = (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC)
MAX_RULES = 10_000
NO_PATH = normal.Path("")


@dataclass(frozen=True, slots=True)
class Subject:
    """One request as rules see it."""

    protocol: Protocol
    method: str = ""
    path: normal.Path = NO_PATH
    host: str = ""
    grpc_service: str = ""
    grpc_method: str = ""

    @classmethod
    def of(cls, protocol: Protocol, request: Request) -> Subject:
        """What a parsed request is to the rules."""
        service = method = b""
        if protocol == Protocol.GRPC:
            service, method = request.grpc
        return cls(
            protocol,
            request.method.decode("latin-1"),
            normal.path(request.path),
            normal.host(request.host),
            service.decode("latin-1"),
            method.decode("latin-1"),
        )


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a `match`: the values it may have."""

    key: str
    exact: frozenset[str]
    prefixes: tuple[str, ...]
    globs: tuple[Glob, ...]

    def matches(self, text: str) -> bool:
        """Any of the values fits."""
        return (
            text in self.exact
            or (bool(self.prefixes) and text.startswith(self.prefixes))
            or any(glob.matches(text) for glob in self.globs)
        )

    def canonical(self) -> tuple[object, ...]:
        """Equal for equal meaning."""
        return self.key, sorted(self.exact), sorted(self.prefixes), sorted(glob.pattern for glob in self.globs)


@dataclass(frozen=True, slots=True)
class Sample:
    """A request of a rule's `samples`, with its place."""

    subject: Subject
    line: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a file."""

    id: str
    action: Action
    conditions: tuple[Condition, ...]
    must_match: tuple[Sample, ...] = ()
    must_not_match: tuple[Sample, ...] = ()
    line: int = 0

    @property
    def scope(self) -> Scope:
        """What the rule depends on."""
        return Scope.REQUEST if self.conditions else Scope.CONNECTION

    def matches(self, subject: Subject) -> bool:
        """All conditions hold."""
        for condition in self.conditions:
            key = condition.key
            if key == "http.path":
                if subject.path.ambiguous:
                    if self.action == Action.ALLOW:
                        return False
                elif not condition.matches(subject.path.text):
                    return False
            elif key.startswith("grpc."):
                if subject.protocol != Protocol.GRPC:
                    return False
                if not condition.matches(subject.grpc_service if key == "grpc.service" else subject.grpc_method):
                    return False
            elif not condition.matches(subject.method if key == "http.method" else subject.host):
                return False
        return True


@dataclass(frozen=True, slots=True)
class RuleFile:
    """One file of rules.d."""

    name: str
    protocols: frozenset[Protocol]
    rules: tuple[Rule, ...]
    hash: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rule files say. `rule` is "file/id", empty when none matched."""

    action: Action
    reason: Reason
    scope: Scope
    rule: str = ""


NO_RULE_CONNECTION = Outcome(Action.DENY, Reason.NO_RULE, Scope.CONNECTION)
NO_RULE_REQUEST = Outcome(Action.DENY, Reason.NO_RULE, Scope.REQUEST)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rule files, by name."""

    files: Mapping[str, RuleFile] = field(default_factory=dict)

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

    def decide(self, names: Iterable[str], protocol: Protocol) -> Outcome | None:
        """The decision for the whole connection, or None: it depends on the requests."""
        for name, rule in self._rules(names, protocol):
            if rule.conditions:
                return None
            return Outcome(rule.action, Reason.RULE, Scope.CONNECTION, f"{name}/{rule.id}")
        return NO_RULE_CONNECTION

    def evaluate(self, names: Iterable[str], subject: Subject) -> Outcome:
        """The decision for one request."""
        for name, rule in self._rules(names, subject.protocol):
            if rule.matches(subject):
                return Outcome(rule.action, Reason.RULE, Scope.REQUEST, f"{name}/{rule.id}")
        return NO_RULE_REQUEST

    def _rules(self, names: Iterable[str], protocol: Protocol) -> Iterator[tuple[str, Rule]]:
        for name in names:
            rule_file = self.files.get(name)
            if rule_file is not None and protocol in rule_file.protocols:
                for rule in rule_file.rules:
                    if protocol == Protocol.GRPC or not any(c.key.startswith("grpc.") for c in rule.conditions):
                        yield name, rule


_SEPARATORS = {"http.method": "", "http.path": "/", "http.host": ".", "grpc.service": ".", "grpc.method": ""}
_SAMPLE_KEYS = ("protocol", *_SEPARATORS)


def _path_value(node: Node, value: str) -> None:
    if value == "*":
        return
    if not value.startswith("/"):
        node.report("a path begins with /")
    elif "?" in value:
        node.report("the query is no part of http.path")
    else:
        seen = normal.path(value.encode())
        if seen.ambiguous:
            node.report("no rule can match this path: servers read it in more than one way")
        elif seen.text != value:
            node.report(f"requests are compared in normal form: write {seen.text}")


def _value(node: Node, key: str, kind: str) -> str:
    text = node.text(max_length=2048)
    if kind != "glob" and key == "http.path":
        _path_value(node, text)
    elif kind == "glob" and key == "http.path" and text[0] not in "/*":
        node.report("a path begins with /")
    elif key == "http.host" and text != text.lower():
        node.report(f"hosts are compared in lower case: write {text.lower()}")
    elif key == "http.host" and kind == "exact" and normal.host(text.encode()) != text:
        node.report(f"hosts are compared without port and final dot: write {normal.host(text.encode())}")
    elif key == "grpc.service" and text.startswith("/"):
        node.report("write the service as package.Service")
    return text


def _condition(key: str, node: Node) -> Condition:
    separator = _SEPARATORS[key]
    if not node.is_mapping:
        values = node.collect(lambda item: _value(item, key, "exact"))
        if not values:
            node.report("needs a value")
        return Condition(key, frozenset(values), (), ())
    fields = node.mapping(optional=("exact", "prefix", "glob"))
    found: dict[str, list[str]] = {"exact": [], "prefix": [], "glob": []}
    for kind, value in fields.items():

        def read(item: Node, kind: str = kind) -> str:
            return _value(item, key, kind)

        found[kind] = value.collect(read)
    if not any(found.values()):
        node.report("needs exact, prefix or glob")
    globs = tuple(Glob(pattern, separator) for pattern in found["glob"])
    return Condition(key, frozenset(found["exact"]), tuple(found["prefix"]), globs)


def _sample(node: Node, protocols: list[Protocol]) -> Sample:
    fields = node.mapping(optional=_SAMPLE_KEYS)

    def text(key: str) -> str:
        return fields[key].text(max_length=2048) if key in fields else ""

    protocol = fields["protocol"].choice(Protocol, allowed=PROTOCOLS) if "protocol" in fields else protocols[0]
    if "protocol" not in fields and Protocol.GRPC in protocols and any(key.startswith("grpc.") for key in fields):
        protocol = Protocol.GRPC
    target = text("http.path") or f"/{text('grpc.service')}/{text('grpc.method')}"
    subject = Subject(
        protocol,
        text("http.method") or ("POST" if protocol == Protocol.GRPC else "GET"),
        normal.path(target.encode()),
        normal.host(text("http.host").encode()),
        text("grpc.service"),
        text("grpc.method"),
    )
    return Sample(subject, node.line)


def _rule(node: Node, protocols: list[Protocol]) -> Rule:
    fields = node.mapping(required=("id", "action"), optional=("description", "match", "samples"))
    rule_id = fields["id"].text(max_length=128)
    action = fields["action"].choice(Action, allowed=(Action.ALLOW, Action.DENY))
    if "description" in fields:
        fields["description"].text()
    conditions: list[Condition] = []
    if "match" in fields and not fields["match"].is_null:
        for key, value in fields["match"].mapping(optional=_SEPARATORS).items():
            if key.startswith("grpc.") and Protocol.GRPC not in protocols:
                value.report(f"{key} needs `protocol: grpc`")
            condition = value.attempt(lambda item, key=key: _condition(key, item))  # type: ignore[misc]
            if condition is not None:
                conditions.append(condition)
    samples: dict[str, tuple[Sample, ...]] = {"must_match": (), "must_not_match": ()}
    if "samples" in fields:
        for key, value in fields["samples"].mapping(optional=tuple(samples)).items():
            samples[key] = tuple(value.collect(lambda item: _sample(item, protocols)))
    return Rule(rule_id, action, tuple(conditions), samples["must_match"], samples["must_not_match"], node.line)


def _file(root: Node) -> RuleFile:
    fields = root.mapping(required=("name", "protocol", "rules"), optional=("description",))
    name = fields["name"].text(max_length=128)
    if "/" in name:
        fields["name"].report("a name has no slash: records say name/id")
    if "description" in fields:
        fields["description"].text()
    protocols = fields["protocol"].collect(lambda item: item.choice(Protocol, allowed=PROTOCOLS))
    if not protocols:
        raise fields["protocol"].fail("needs a protocol")
    items = fields["rules"].items()
    if len(items) > MAX_RULES:
        raise fields["rules"].fail(f"more than {MAX_RULES} rules")
    rules: list[Rule] = []
    seen: dict[str, int] = {}
    final = 0
    for item in items:
        rule = item.attempt(lambda node: _rule(node, protocols))
        if rule is None:
            continue
        if rule.id in seen:
            item.report(f"id {rule.id!r} is used in line {seen[rule.id]} already")
        if final:
            item.report(f"never reached: the rule in line {final} matches everything")
        seen.setdefault(rule.id, rule.line)
        final = final or (0 if rule.conditions else rule.line)
        rules.append(rule)
    canonical = (
        sorted(protocol.name for protocol in protocols),
        [(rule.id, rule.action.name, sorted(map(repr, (c.canonical() for c in rule.conditions)))) for rule in rules],
    )
    digest = hashlib.sha256(repr(canonical).encode()).hexdigest()
    return RuleFile(name, frozenset(protocols), tuple(rules), digest, root.file)


def read_rule_file(text: str, file: str, problems: Problems) -> RuleFile | None:
    """Compile one file's text; problems are collected."""
    root = compose(text, file, problems)
    return root.attempt(_file) if root is not None else None


def load_rules(paths: Iterable[FilePath]) -> RuleSet:
    """Compile rule files (of a directory: its *.yaml). InvalidDocumentError has all problems of all of them."""
    problems = Problems()
    files: dict[str, RuleFile] = {}
    for path in _expand(paths):
        text = read_text(path, problems)
        compiled = read_rule_file(text, str(path), problems) if text is not None else None
        if compiled is None:
            continue
        if compiled.name in files:
            other = files[compiled.name].file
            problems.found.append(Problem(str(path), 0, "name", f"{compiled.name!r} is the name of {other} already"))
        files.setdefault(compiled.name, compiled)
    problems.raise_if_any()
    return RuleSet(files)


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
    "read_rule_file",
]
