"""A policy file, or a folder of them: YAML to `Policy`, all problems at once, each with its place.

configs/policy.yaml shows every field. What is not known here is refused, never ignored.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastpath.document import Node, Problem, Problems, compose, decode, without_collector
from fastpath.policy.ethertypes import read_ethertypes
from fastpath.policy.fields import Fields, place
from fastpath.policy.groups import MAX_NETWORKS, Groups
from fastpath.policy.model import (
    MAX_RULES,
    Default,
    Policy,
    Rule,
)
from fastpath.policy.pieces import Pieces, cut, height
from fastpath.policy.rules import (
    RuleHash,
    Shared,
    Zones,
    read_default,
    read_defaults,
    read_monitor,
    read_rule,
)
from fastpath.policy.services import Services
from fastpath.policy.source import Source, read_what_can_be

_DOCUMENT = ("default", "defaults", "mode", "ethertypes", "groups", "services", "rules")
# Rules composed at a time.
_AT_ONCE = 5000
# Whatever may be a name's.
_WORD = re.compile(r"[A-Za-z0-9_.-]+")


def load_policy(path: Path, rule_hash: RuleHash, zones: Zones = None) -> Policy:
    """Read a policy's file or folder. InvalidDocumentError has all its problems, with their places."""
    problems = Problems()
    source = read_what_can_be(path, problems)
    return Reader(zones).read(path, source, rule_hash, problems)


def read_roots(path: Path, problems: Problems) -> list[Node]:
    """Roots of the documents that stand at `path`."""
    with without_collector():
        return _roots(_texts(path, read_what_can_be(path, problems), problems), problems)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a reader remembers: heads and tails in the order of the files, what they and no more came to, and rules
    without problems by their list's indentation and their text (how far in it stands is part of what it says).
    """

    frames: list[tuple[str, str]]
    shared: Shared
    rules: Mapping[tuple[str, str], Rule]

    def rules_under(self, shared: Shared) -> Mapping[tuple[str, str], Rule]:
        """Those that are the same with other groups and services."""
        if shared is self.shared:
            return self.rules
        if shared.monitor != self.shared.monitor:
            return {}
        changed = shared.groups.changed(self.shared.groups) | shared.services.changed(self.shared.services)
        return {
            key: rule
            for key, rule in self.rules.items()
            # Escapes can hide a name.
            if "\\" not in key[1] and changed.isdisjoint(_WORD.findall(key[1]))
        }


class Reader:
    """Reads one policy again and again. A rule is not read anew whose text, and what it names, are as they were."""

    def __init__(self, zones: Zones = None) -> None:
        self._zones = zones
        self._last: _Read | None = None

    def read(self, path: Path, source: Source, rule_hash: RuleHash, problems: Problems | None = None) -> Policy:
        """The policy that stands at `path`. InvalidDocumentError has all its problems; `problems` are those that were
        found before.
        """
        problems = problems or Problems()
        with without_collector():
            complete = not problems.found
            rule_hash = functools.cache(rule_hash)
            files = _texts(path, source, problems)
            policy = self._in_pieces(files, str(path), rule_hash, problems) if not problems.found else None
            if policy is None:
                policy = _whole(files, str(path), rule_hash, self._zones, problems, complete=complete)
        problems.raise_if_any()
        return policy

    def _in_pieces(
        self, files: Mapping[str, str | None], file: str, rule_hash: RuleHash, problems: Problems
    ) -> Policy | None:
        """None where only the whole tells."""
        pieces = {name: cut(text) for name, text in files.items() if text is not None}
        cuts = {name: each for name, each in pieces.items() if each is not None}
        if len(cuts) < len(files) or sum(len(each.items) for each in cuts.values()) > MAX_RULES:
            return None
        # Edits leave names behind that nobody uses any more.
        if self._last is not None and self._last.shared.groups.remembered > 4 * len(self._last.rules) + 1000:
            self._last = None
        found = Problems()
        frames = [(each.head, each.tail) for each in cuts.values()]
        if self._last is not None and frames == self._last.frames:
            shared: Shared | None = self._last.shared
        else:
            shared = _shared(cuts, self._last.shared.groups if self._last else None, self._zones, found)
        if shared is None:
            return None
        sound = not found.found
        known = self._last.rules_under(shared) if self._last is not None and sound else {}
        rules: list[tuple[int, Rule]] = []
        kept: dict[tuple[str, str], Rule] = {}
        for name, each in cuts.items():
            read = _read_rules(name, each, shared, rule_hash, known=known, found=found)
            if read is None:
                return None
            rules += read[0]
            kept |= read[1]
        problems.found += found.found
        _check_together(rules, problems)
        if sound:
            self._last = _Read(frames, shared, kept)
        return _policy((rule for _, rule in rules), shared, file)


def _policy(rules: Iterable[Rule], shared: Shared, file: str) -> Policy:
    return Policy(
        tuple(rules),
        shared.default,
        file,
        ethertypes=shared.ethertypes,
        defaults=shared.defaults,
        zones=tuple(shared.zones or ()),
    )


def _shared(pieces: Mapping[str, Pieces], earlier: Groups | None, zones: Zones, found: Problems) -> Shared | None:
    """Of what is not in the lists of rules; None where libyaml does not see the lists that we see."""
    roots: list[Node] = []
    for name, each in pieces.items():
        root = compose(each.frame(), name, found)
        if root is None or not _is_cut(root, each) or found.found:
            return None
        roots.append(root)
    return _read_frame(roots, zones, complete=True, earlier=earlier)[0]


def _is_cut(root: Node, pieces: Pieces) -> bool:
    """The frame's list of rules is where the pieces have it, and the list of the document itself."""
    if not root.is_mapping or not root.is_block:
        return False
    fields = root.mapping(optional=None)
    if not pieces.line:
        return "rules" not in fields
    return "rules" in fields and fields["rules"].is_null and fields["rules"].line == pieces.line


def _read_rules(
    file: str, pieces: Pieces, shared: Shared, rule_hash: RuleHash, *, known: Mapping[tuple[str, str], Rule],
    found: Problems,
) -> tuple[list[tuple[int, Rule]], dict[tuple[str, str], Rule]] | None:  # fmt: skip
    """A file's rules with their indices, and those without problems; None where libyaml does not see the items that
    we see.
    """
    sound: dict[tuple[str, str], Rule] = {}
    line = pieces.first
    made: list[Rule | None] = []
    fresh: dict[int, tuple[int, tuple[str, str]]] = {}
    for index, item in enumerate(pieces.items):
        key = pieces.indent, item
        rule = known.get(key)
        if rule is not None and all(rule_hash(use.name) == use.digest for use in rule.rule_files):
            sound[key] = rule = rule.at(file, line)
        else:
            fresh[index] = line, key
            rule = None
        made.append(rule)
        line += height(item)
    # Nodes take ten times what comes of them: all at once they would leave a heap full of holes.
    remaining = iter(fresh.items())
    while some := dict(itertools.islice(remaining, _AT_ONCE)):
        root = compose(pieces.some(some), file, found)
        nodes = root.mapping(optional=None)["rules"].items() if root is not None else []
        if len(nodes) != len(some):
            return None
        for (index, (first, key)), node in zip(some.items(), nodes, strict=True):
            before = len(found.found)
            rule = made[index] = node.numbered(index).attempt(lambda node: read_rule(node, shared, rule_hash))
            # Behind comments it begins further down, and would be told to be elsewhere the next time.
            if rule is not None and rule.line == first and len(found.found) == before:
                sound[key] = rule
    return [(index, rule) for index, rule in enumerate(made) if rule is not None], sound


def read_policy(root: Node, rule_hash: RuleHash, zones: Zones = None) -> Policy:
    """The policy of a single document's root; problems are reported to it."""
    shared, lists = _read_frame([root], zones, complete=True)
    return _policy(_all_rules(lists, shared, rule_hash, root.problems), shared, root.file)


def _texts(path: Path, source: Source, problems: Problems) -> dict[str, str | None]:
    """By the file's name in messages; None for what is none of a policy's."""
    texts: dict[str, str | None] = {}
    for name, raw in source.files.items():
        file = str(path / name) if source.folder else str(path)
        if source.folder and not name.endswith(".yaml"):
            message = "is no *.yaml file; only names that begin with a dot are left alone"
            problems.found.append(Problem(file, 0, "", message))
        else:
            texts[file] = decode(raw, file, problems)
    if source.folder and not source.files and not problems.found:
        problems.found.append(Problem(str(path), 0, "", "the folder has no *.yaml files: that is no policy"))
    return texts


def _roots(files: Mapping[str, str | None], problems: Problems) -> list[Node]:
    """Of the documents that have one."""
    documents = (None if text is None else compose(text, name, problems) for name, text in files.items())
    return [root for root in documents if root is not None]


def _whole(
    files: Mapping[str, str | None], file: str, rule_hash: RuleHash, zones: Zones, problems: Problems, *, complete: bool
) -> Policy:
    """Everything read; `complete`: no file is missing here that could define a name."""
    roots = _roots(files, problems)
    complete = complete and len(roots) == len(files)
    shared, lists = _read_frame(roots, zones, complete=complete)
    return _policy(_all_rules(lists, shared, rule_hash, problems), shared, file)


def _read_frame(
    roots: Sequence[Node], zones: Zones, *, complete: bool, earlier: Groups | None = None
) -> tuple[Shared, list[Node]]:
    """Of all documents together all but the rules, and their lists."""
    attempts = [root.attempt(lambda root: root.mapping(optional=_DOCUMENT)) for root in roots]
    files = [fields for fields in attempts if fields is not None]
    complete = complete and len(files) == len(roots)
    names = ("default", "defaults", "mode", "ethertypes")
    top = Fields({name: node for name in names for node in _only(files, name)})
    monitor = read_monitor(top, absent=False)
    shared = Shared(
        Groups([fields["groups"] for fields in files if "groups" in fields], complete=complete, earlier=earlier),
        Services([fields["services"] for fields in files if "services" in fields], complete=complete),
        monitor,
        top.one("default", lambda node: read_default(node, monitor), Default(monitor=monitor)),
        top.one("ethertypes", read_ethertypes, ()),
        top.one("defaults", lambda node: read_defaults(node, monitor, zones), ()),
        zones,
    )
    lists = [fields["rules"] for fields in files if "rules" in fields]
    if complete and roots and not lists:
        roots[0].report("missing rules")
    return shared, lists


def _only(files: Sequence[dict[str, Node]], name: str) -> list[Node]:
    """The first of the fields of that name; others are reported."""
    nodes = [fields[name] for fields in files if name in fields]
    for node in nodes[1:]:
        node.report(f"is given in {place(nodes[0], seen_from=node)} already")
    return nodes[:1]


def _all_rules(lists: Sequence[Node], shared: Shared, rule_hash: RuleHash, problems: Problems) -> list[Rule]:
    rules: list[tuple[int, Rule]] = []
    count = 0
    for node in lists:
        items = node.attempt(Node.items) or []
        count += len(items)
        if count > MAX_RULES:
            node.report(f"{count} rules; {MAX_RULES} is the most")
            break
        for index, item in enumerate(items):
            rule = item.attempt(lambda node: read_rule(node, shared, rule_hash))
            if rule is not None:
                rules.append((index, rule))
    _check_together(rules, problems)
    return [rule for _, rule in rules]


def _check_together(rules: Iterable[tuple[int, Rule]], problems: Problems) -> None:
    """What no rule shows by itself. Rules in the order of the files, with their indices in their lists."""

    def report(rule: Rule, index: int, message: str) -> None:
        problems.found.append(Problem(rule.file, rule.line, f"rules[{index}]", message))

    first: dict[str, Rule] = {}
    seen: set[int] = set()
    networks = 0
    for index, rule in rules:
        other = first.setdefault(rule.id, rule)
        if other is not rule:
            where = f"line {other.line}" if other.file == rule.file else f"{other.file}:{other.line}"
            report(rule, index, f"id {rule.id!r} is used in {where} already")
        for side in (rule.sources, rule.destinations):
            if id(side) in seen:
                continue
            seen.add(id(side))
            for part in side.parts:
                if part is side or id(part) not in seen:
                    seen.add(id(part))
                    networks += len(part)
        if networks > MAX_NETWORKS:
            report(rule, index, f"the rules up to here come to more than {MAX_NETWORKS} prefixes in `from` and `to`")
            return
