"""A policy file, or a folder of them: YAML to `Policy`, all problems at once, each with its place.

configs/policy.yaml shows every field. What is not known here is refused, never ignored.
"""

from __future__ import annotations

import functools
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
from fastpath.policy.pieces import Pieces, cut, lines
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
class _List:
    """A file's rules, and the items that they were read from; the first item stands in line `first`."""

    indent: str
    first: int
    items: list[str]
    rules: list[Rule]


@dataclass(frozen=True, slots=True)
class _Read:
    """What a reader remembers of a policy without problems: heads and tails in the order of the files, what they and no
    more came to, the lists by file, the ids and rule files in them, and a number of prefixes that they do not exceed.
    """

    frames: list[tuple[str, str]]
    shared: Shared
    lists: Mapping[str, _List]
    ids: AbstractSet[str]
    uses: Mapping[str, str]
    networks: int

    @property
    def count(self) -> int:
        """Of rules."""
        return sum(len(each.rules) for each in self.lists.values())

    def stale(self, shared: Shared, rule_hash: RuleHash) -> Callable[[str, Rule], bool] | None:
        """Which of the rules, by their items, are others with these groups, services and rule files; None: none is."""
        files = {name for name, digest in self.uses.items() if rule_hash(name) != digest}
        changed: set[str] = set()
        if shared is not self.shared:
            changed = shared.groups.changed(self.shared.groups) | shared.services.changed(self.shared.services)
        everything = shared.monitor != self.shared.monitor
        if not everything and not files and not changed:
            return None

        def is_stale(item: str, rule: Rule) -> bool:
            # Escapes can hide a name.
            named = "\\" in item or not changed.isdisjoint(_WORD.findall(item))
            return everything or (bool(changed) and named) or any(use.name in files for use in rule.rule_files)

        return is_stale


@dataclass(slots=True)
class _Known:
    """Rules read before: of each file so many at its list's beginning and end, which are where they were, and others
    by indentation and item (how far in it stands is part of what it says), each with the line of its item at which it
    begins, from 0.
    """

    ends: dict[str, tuple[_List, int, int]]
    others: dict[tuple[str, str], tuple[Rule, int]]

    @classmethod
    def of(cls, read: _Read, cuts: Mapping[str, Pieces], stale: Callable[[str, Rule], bool] | None) -> _Known:
        """What of all that may be taken over for these pieces."""
        known = cls({}, {})
        for name, old in read.lists.items():
            front, behind = 0, 0
            if stale is None and name in cuts and cuts[name].indent == old.indent:
                front, behind = _ends(old.items, cuts[name].items)
                known.ends[name] = old, front, behind
            line = old.first + lines(old.items[:front])
            rest = slice(front, len(old.items) - behind)
            for item, rule in zip(old.items[rest], old.rules[rest], strict=True):
                if stale is None or not stale(item, rule):
                    known.others[old.indent, item] = rule, rule.line - line
                line += lines((item,))
        return known


def _ends(old: Sequence[str], new: Sequence[str]) -> tuple[int, int]:
    """How many of two lists are the same from the front, and how many behind those from the back."""
    most = min(len(old), len(new))
    front, back = (
        next(itertools.compress(itertools.count(), map(operator.ne, *both)), most)
        for both in ((old, new), (reversed(old), reversed(new)))
    )
    return front, min(back, most - front)


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
        count = sum(len(each.items) for each in cuts.values())
        if len(cuts) < len(files) or count > MAX_RULES:
            return None
        last = self._last
        # Edits leave names behind that nobody uses any more.
        if last is not None and last.shared.groups.remembered > 4 * last.count + 1000:
            last = None
        found = Problems()
        frames = [(each.head, each.tail) for each in cuts.values()]
        if last is not None and frames == last.frames:
            shared: Shared | None = last.shared
        else:
            shared = _shared(cuts, last.shared.groups if last else None, self._zones, found)
        if shared is None:
            return None
        stale = None
        known = _Known({}, {})
        if last is not None and not found.found:
            stale = last.stale(shared, rule_hash)
            known = _Known.of(last, cuts, stale)
        lists: dict[str, list[Rule | None]] = {}
        fresh: list[Rule] = []
        for name, each in cuts.items():
            rules = _read_rules(name, each, shared, rule_hash, known=known, fresh=fresh, found=found)
            if rules is None:
                return None
            lists[name] = rules
        read = {name: [rule for rule in rules if rule is not None] for name, rules in lists.items()}
        anew = last is None or stale is not None or bool(found.found)
        looked_at = [*itertools.chain.from_iterable(read.values())] if anew else fresh
        ids = {rule.id for rule in looked_at}
        uses = {use.name: use.digest for rule in looked_at for use in rule.rule_files}
        networks = _prefixes(looked_at)
        if not anew and last is not None:
            # What nobody took is gone.
            ids |= last.ids - {rule.id for rule, _ in known.others.values()}
            uses = {**last.uses, **uses}
            networks += last.networks
        if len(ids) < count or networks > MAX_NETWORKS:
            networks = _check_together(lists.values(), found)
        if found.found:
            problems.found += found.found
        else:
            kept = {name: _List(each.indent, each.first, each.items, read[name]) for name, each in cuts.items()}
            self._last = _Read(frames, shared, kept, ids, uses, networks)
        return _policy(itertools.chain.from_iterable(read.values()), shared, file)


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
    file: str, pieces: Pieces, shared: Shared, rule_hash: RuleHash, *, known: _Known, fresh: list[Rule],
    found: Problems,
) -> list[Rule | None] | None:  # fmt: skip
    """A file's rules, None for one with problems, those that nobody had read before also in `fresh`; None where libyaml
    does not see the items that we see.
    """
    old, front, behind = known.ends.get(file, (_List("", 0, [], []), 0, 0))
    until = len(pieces.items) - behind
    made: list[Rule | None] = [*_moved(old.rules[:front], pieces.first - old.first)]
    line = pieces.first + lines(pieces.items[:front])
    unread: list[int] = []
    for index, item in enumerate(pieces.items[front:until], front):
        rule, further = known.others.pop((pieces.indent, item), (None, 0))
        if rule is None:
            unread.append(index)
        made.append(rule and rule.at(file, line + further))
        line += lines((item,))
    # Nodes take ten times what comes of them: all at once they would leave a heap full of holes.
    for start in range(0, len(unread), _AT_ONCE):
        some = unread[start : start + _AT_ONCE]
        root = compose(pieces.some(some), file, found)
        nodes = root.mapping(optional=None)["rules"].items() if root is not None else []
        if len(nodes) != len(some):
            return None
        for index, node in zip(some, nodes, strict=True):
            rule = made[index] = node.numbered(index).attempt(lambda node: read_rule(node, shared, rule_hash))
            if rule is not None:
                fresh.append(rule)
    rest = len(old.items) - behind
    made += _moved(old.rules[rest:], line - old.first - lines(old.items[:rest]))
    return made


def _moved(rules: list[Rule], by: int) -> list[Rule]:
    """So many lines further down in the same file."""
    return [rule.at(rule.file, rule.line + by) for rule in rules] if by else rules


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
    rules: list[list[Rule | None]] = []
    count = 0
    for node in lists:
        items = node.attempt(Node.items) or []
        count += len(items)
        if count > MAX_RULES:
            node.report(f"{count} rules; {MAX_RULES} is the most")
            break
        rules.append([item.attempt(lambda node: read_rule(node, shared, rule_hash)) for item in items])
    _check_together(rules, problems)
    return [rule for each in rules for rule in each if rule is not None]


def _check_together(lists: Iterable[Sequence[Rule | None]], problems: Problems) -> int:
    """What no rule shows by itself, of each file's list in turn; how many prefixes they have."""

    def report(rule: Rule, index: int, message: str) -> None:
        problems.found.append(Problem(rule.file, rule.line, f"rules[{index}]", message))

    first: dict[str, Rule] = {}
    seen: set[int] = set()
    networks = 0
    for rules in lists:
        for index, rule in enumerate(rules):
            if rule is None:
                continue
            other = first.setdefault(rule.id, rule)
            if other is not rule:
                where = f"line {other.line}" if other.file == rule.file else f"{other.file}:{other.line}"
                report(rule, index, f"id {rule.id!r} is used in {where} already")
            networks += _prefixes((rule,), seen)
            if networks > MAX_NETWORKS:
                message = f"the rules up to here come to more than {MAX_NETWORKS} prefixes in `from` and `to`"
                report(rule, index, message)
                return networks
    return networks


def _prefixes(rules: Iterable[Rule], seen: set[int] | None = None) -> int:
    """How many prefixes these name, but for what was `seen`, by identity."""
    seen = set() if seen is None else seen
    count = 0
    for rule in rules:
        for side in (rule.sources, rule.destinations):
            if id(side) in seen:
                continue
            seen.add(id(side))
            for part in side.parts:
                if part is side or id(part) not in seen:
                    seen.add(id(part))
                    count += len(part)
    return count
