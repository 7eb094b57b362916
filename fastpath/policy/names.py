"""Which rule a number in a verdict word stands for: one small JSON file for each revision.

The fast path writes it before it loads the revision; the inspector and the commands read it,
in other processes and while newer revisions are in force.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastpath.policy.model import DEFAULT_ID, Default, Policy, Rule

# Sessions of older revisions than these were judged again long ago.
KEPT = 16
# Until then kinds are remembered of which there are no rules any more.
MAX_KINDS = 1000


@dataclass(frozen=True, slots=True)
class NamedRule:
    """What others than the kernel need to know of a rule."""

    id: str
    action: str  # allow, deny, inspect
    rule_files: tuple[str, ...] = ()
    monitor: bool = False
    reset: bool = False
    log: str = "deny"  # none, deny, all
    down: str = "deny"  # on_inspector_down: allow, deny


@dataclass(frozen=True, slots=True)
class Names:
    """The rules of one revision, in order, and behind them the defaults of pairs of zones."""

    revision: int
    default: NamedRule
    rules: tuple[NamedRule, ...]

    def rule(self, number: int) -> NamedRule:
        """By the rule number of a verdict word: 0 = the default. IndexError when the revision has no such rule."""
        if number < 0:
            raise IndexError(number)
        return self.rules[number - 1] if number else self.default


class Naming:
    """Puts the names of one policy after the other ready for JSON, and for `read_names` to take apart: the rules' ids,
    and by number what else there is to know, for many rules have that in common. Rules that stay are not looked at
    again.
    """

    def __init__(self) -> None:
        self._rules: tuple[Rule, ...] = ()
        self._ids: list[str] = []
        self._numbers: list[int] = []
        self._kinds: dict[tuple[Any, ...], int] = {}
        self._named: list[NamedRule] = []

    def describe(self, policy: Policy, revision: int) -> dict[str, Any]:
        """Its names."""
        rules = policy.rules
        if len(rules) != len(self._rules) or len(self._kinds) > MAX_KINDS:
            self._ids, self._numbers = [""] * len(rules), [0] * len(rules)
            self._kinds, self._named = {}, []
            differing: Iterable[int] = range(len(rules))
        else:
            differing = itertools.compress(itertools.count(), map(operator.is_not, self._rules, rules))
        for index in differing:
            rule = rules[index]
            number = self._kinds.setdefault((rule.flags, rule.action, rule.rule_files), len(self._kinds))
            if number == len(self._named):
                self._named.append(_named("", rule))
            self._ids[index], self._numbers[index] = rule.id, number
        self._rules = rules
        kinds = [*self._named, *(_named("", each) for each in policy.defaults)]
        return {
            "revision": revision,
            "default": asdict(_named(DEFAULT_ID, policy.default)),
            "ids": [*self._ids, *(each.id for each in policy.defaults)],
            "kind": [*self._numbers, *range(len(self._kinds), len(kinds))],
            "kinds": [*map(asdict, kinds)],
        }


def write_names(run_dir: Path, revision: int, policy: Policy, naming: Naming | None = None) -> Path:
    """Write ``run_dir/policy/<revision>.json``, whole or not at all, and remove all but it and 15 others; `naming` is
    that of the policies before. OSError.
    """
    description = (naming or Naming()).describe(policy, revision)
    folder = run_dir / "policy"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{revision}.json"
    fresh = folder / f".{revision}.new"
    fresh.write_text(json.dumps(description, separators=(",", ":")))
    fresh.replace(path)
    others = sorted(set(_revisions(folder)) - {revision}, reverse=True)
    for old in others[KEPT - 1 :]:
        (folder / f"{old}.json").unlink(missing_ok=True)
    return path


def read_names(run_dir: Path, revision: int) -> Names | None:
    """The names of a revision, None when there are none (any more). ValueError when the file is not one of ours."""
    path = _path(run_dir, revision)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        content = json.loads(raw)
        kinds = [_read(kind) for kind in content["kinds"]]
        rules = tuple(_with_id(kinds[kind], name) for name, kind in zip(content["ids"], content["kind"], strict=True))
        return Names(int(content["revision"]), _read(content["default"]), rules)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: not the names of a revision: {error}") from None


def read_ids(run_dir: Path, revision: int) -> list[str] | None:
    """Ids alone, by the rule number of a verdict word; otherwise as `read_names`."""
    path = _path(run_dir, revision)
    try:
        content = json.loads(path.read_bytes())
        return [str(content["default"]["id"]), *map(str, content["ids"])]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the names of a revision: {error}") from None


def _path(run_dir: Path, revision: int) -> Path:
    return run_dir / "policy" / f"{revision}.json"


def _named(rule_id: str, rule: Rule | Default) -> NamedRule:
    return NamedRule(
        id=rule_id,
        action=rule.action.name.lower(),
        rule_files=tuple(use.name for use in rule.rule_files) if isinstance(rule, Rule) else (),
        monitor=rule.monitor,
        reset=rule.reset,
        log=str(rule.log),
        down="allow" if isinstance(rule, Rule) and rule.down_allow else "deny",
    )


def _with_id(kind: NamedRule, rule_id: str) -> NamedRule:
    return NamedRule(rule_id, kind.action, kind.rule_files, kind.monitor, kind.reset, kind.log, kind.down)


def _read(content: dict[str, Any]) -> NamedRule:
    return NamedRule(**{**content, "rule_files": tuple(content["rule_files"])})


def _revisions(folder: Path) -> Iterable[int]:
    for file in folder.glob("*.json"):
        with contextlib.suppress(ValueError):
            yield int(file.stem)
