"""`microseg-slowpath rules`: rule files checked, tried, listed and explained, offline and unprivileged."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastpath.abi import Scope
from fastpath.document import Problems
from fastpath.exit import CommandError, ExitStatus
from fastpath.text import escape
from slowpath.cli.places import rules_folder
from slowpath.rules.check import samples, unsound
from slowpath.rules.explain import outline, reasons, said
from slowpath.rules.fields import Subject
from slowpath.rules.patterns import Patterns, load_patterns
from slowpath.rules.ruleset import Attributes, Outcome, Rule, RuleFile, RuleSet, load_rules, pattern_files
from slowpath.rules.samples import sample_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=run)
        made.add_argument("-o", "--output", choices=("text", "json"), default="text", help="to stdout as")
        return made

    check = command("check", _check, "all problems of rule files, and samples that do not hold")
    test = command("test", _test, "which rule decides, on which field and why")
    test.add_argument("file", metavar="FILE", type=Path, help="rule file")
    what = test.add_mutually_exclusive_group()
    what.add_argument("--sample", metavar="YAML", help="a unit, as in `samples`: '{http.path: /admin}'")
    what.add_argument("--pcap", metavar="FILE", type=Path, help="a capture: every unit in it")
    test.add_argument("--rule", metavar="ID", help="why this rule holds or does not, not the one that decides")
    listing = command("list", _list, "all rules, with what their decisions depend on")
    listing.add_argument("--patterns", action="store_true", help="the content patterns instead, that rules may name")
    explain = command("explain", _explain, "one rule in words, with its samples")
    explain.add_argument("id", metavar="FILE/ID", help="as records have it: rule_file/l7_rule")
    for one in (check, listing, explain):
        one.add_argument("paths", metavar="PATH", type=Path, nargs="*", help="files, folders (default: the configured)")


def main(options: argparse.Namespace) -> int:
    """Run the command."""
    return int(options.run(options))


def _load(options: argparse.Namespace) -> RuleSet:
    paths = options.paths or [rules_folder(options.config)]
    for path in paths:
        if not path.exists():
            raise CommandError(f"{path}: no such file or folder", ExitStatus.INVALID_CONFIGURATION)
    return load_rules(paths)


def _patterns(options: argparse.Namespace) -> Patterns:
    """What the rules may name."""
    problems = Problems()
    found = load_patterns(pattern_files(options.paths or [rules_folder(options.config)]), problems)
    problems.raise_if_any()
    return found


def _write(options: argparse.Namespace, found: Any, lines: Iterable[str]) -> None:
    if options.output == "json":
        sys.stdout.write(json.dumps(found, ensure_ascii=True) + "\n")
    else:
        sys.stdout.writelines(escape(line) + "\n" for line in lines)


# -- check ------------------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    rules = _load(options)
    patterns = _patterns(options)
    wrong = [problem for rule_file in rules.files.values() for problem in unsound(rule_file)]
    wrong += [problem for pattern in patterns for problem in pattern.unsound()]
    files: list[dict[str, Any]] = [
        {
            "file": each.file,
            "name": each.name,
            "rules": len(each.rules),
            "protocols": _protocols(each),
            "scope": _scope(each.rules),
        }
        for each in rules.files.values()
    ]
    lines = [f"{f['file']}: {f['rules']} rules on {', '.join(f['protocols'])}, scope {f['scope']}" for f in files]
    sets = [
        {"name": name, "patterns": len(found), "file": found[0].file} for name, found in patterns.sets.items() if found
    ]
    lines += [f"{each['file']}: {each['patterns']} patterns" for each in sets]
    _write(options, {"files": files, "patterns": sets, "problems": wrong}, lines + wrong)
    return ExitStatus.FAILED if wrong else ExitStatus.OK


def _attributes(rule: Rule) -> dict[str, Any]:
    """As a rule file has them; None where the policy's rule says it."""
    reset, log = rule.attributes.reset, rule.attributes.log
    return {
        "severity": _severity(rule.attributes),
        "mode": "monitor" if rule.monitor else "enforce",
        "deny_with": None if reset is None else "reset" if reset else "drop",
        "log": None if log is None else log.value,
    }


def _severity(attributes: Attributes) -> str | None:
    return attributes.severity.name.lower() if attributes.severity is not None else None


def _protocols(rule_file: RuleFile) -> list[str]:
    return sorted(protocol.name.lower() for protocol in rule_file.protocols)


def _scope(rules: Iterable[Rule]) -> str:
    return max((rule.scope for rule in rules), default=Scope.NONE).name.lower()


# -- test -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Watched(RuleSet):
    """Remembers what was judged."""

    judged: list[Subject] = field(default_factory=list)

    def evaluate(self, names: tuple[str, ...], subject: Subject) -> Outcome | None:
        """See `RuleSet`."""
        self.judged.append(subject)
        return super().evaluate(names, subject)


def _test(options: argparse.Namespace) -> int:
    if not options.file.is_file():
        raise CommandError(f"{options.file}: no such file", ExitStatus.INVALID_CONFIGURATION)
    (rule_file,) = load_rules([options.file]).files.values()
    if options.rule is not None and all(rule.id != options.rule for rule in rule_file.rules):
        raise CommandError(f"{options.file}: no rule {options.rule!r}", ExitStatus.USAGE)
    if options.pcap is not None:
        return _test_capture(options, rule_file)
    if options.sample is not None:
        sample = sample_of(options.sample, sorted(rule_file.protocols))
        found = _decision(rule_file, sample.subject, options.rule)
        _write(options, found, _told(found))
        return ExitStatus.OK
    wrong = list(unsound(rule_file))
    count = sum(1 for rule in rule_file.rules for _ in samples(rule))
    _write(options, {"samples": count, "problems": wrong}, wrong or [f"{rule_file.file}: {count} samples hold"])
    return ExitStatus.FAILED if wrong else ExitStatus.OK


def _decision(rule_file: RuleFile, subject: Subject, rule_id: str | None) -> dict[str, Any]:
    outcome = RuleSet({rule_file.name: rule_file}).evaluate((rule_file.name,), subject)
    decided = outcome.rule.partition("/")[2] if outcome is not None else ""
    about = next((rule for rule in rule_file.rules if rule.id == (rule_id or decided)), None)
    return {
        "protocol": subject.protocol.name.lower(),
        "verdict": outcome.action.name.lower() if outcome is not None else "undecided",
        "scope": outcome.scope.name.lower() if outcome is not None else None,
        "reason": outcome.reason.name.lower() if outcome is not None else "pending",
        "rule": f"{rule_file.name}/{decided}" if decided else None,
        "severity": _severity(outcome.attributes) if outcome is not None else None,
        "noted": [each.rule for each in outcome.noted] if outcome is not None else [],
        "about": about.id if about is not None else None,
        "why": list(reasons(about.match, subject)) if about is not None else [],
        "said": {name: said(name, subject) for name in subject},
    }


def _told(found: dict[str, Any]) -> Iterator[str]:
    by = f"by {found['rule']}" if found["rule"] else found["reason"]
    scope = f", scope {found['scope']}" if found["scope"] else ""
    yield f"{found['verdict']} {by}{scope}" + (f", severity {found['severity']}" if found["severity"] else "")
    yield from (f"  would deny, in monitor mode: {rule}" for rule in found["noted"])
    if found["about"] is not None and f"/{found['about']}" not in (found["rule"] or ""):
        yield f"rule {found['about']}:"
    yield from (f"  {line}" for line in found["why"])
    if not found["why"]:
        yield from (f"  {name} is {value}" for name, value in found["said"].items())


def _test_capture(options: argparse.Namespace, rule_file: RuleFile) -> int:
    from slowpath.replay import CaptureError, InspectAll, Replay, open_capture, read_capture  # noqa: PLC0415

    rules = _Watched({rule_file.name: rule_file})
    try:
        with open_capture(options.pcap) as stream:
            for record in Replay(rules, InspectAll(rule_file.name)).run(read_capture(stream)):
                flow = record["flow"]
                found = {name: record[name] for name in ("flow", "protocol", "verdict", "scope", "reason")}
                found |= {"rule": None, "severity": None, "noted": [], "about": None, "why": [], "said": {}}
                if rules.judged and record["reason"] in {"rule", "no_rule"}:
                    found |= _decision(rule_file, rules.judged[-1], options.rule)
                ends = f"{flow['src']}:{flow['sport']} > {flow['dst']}:{flow['dport']} {record['protocol']}: "
                first, *others = _told(found)
                _write(options, found, [ends + first, *others])
                rules.judged.clear()
    except (CaptureError, OSError) as error:
        raise CommandError(f"{options.pcap}: {getattr(error, 'strerror', None) or error}") from None
    return ExitStatus.OK


# -- list and explain -------------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    if options.patterns:
        return _list_patterns(options)
    rules = _load(options)
    found: list[dict[str, Any]] = [
        {
            "rule": f"{each.name}/{rule.id}",
            "place": f"{each.file}:{rule.line}",
            "protocols": _protocols(each),
            "action": rule.action.name.lower(),
            **_attributes(rule),
            "scope": rule.scope.name.lower(),
            "fields": sorted(rule.fields),
            "description": rule.description,
        }
        for each in rules.files.values()
        for rule in each.rules
    ]
    width = max((len(str(rule["rule"])) for rule in found), default=0)
    lines = [
        f"{rule['rule']:{width}}  {rule['action'] if rule['mode'] == 'enforce' else 'monitor':7}  "
        f"{rule['scope']:10}  {rule['severity'] or '-':8}  {', '.join(rule['fields']) or 'always'}"
        for rule in found
    ]
    _write(options, found, lines)
    return ExitStatus.OK


def _list_patterns(options: argparse.Namespace) -> int:
    patterns = list(_patterns(options))
    found = [
        {
            "pattern": each.id,
            "place": f"{each.file}:{each.line}",
            "severity": each.severity.name.lower(),
            "description": each.description,
        }
        for each in patterns
    ]
    width = max((len(each["pattern"]) for each in found), default=0)
    lines = [f"{each['pattern']:{width}}  {each['severity']:8}  {each['description']}" for each in found]
    _write(options, found, lines)
    return ExitStatus.OK


def _explain(options: argparse.Namespace) -> int:
    rules = _load(options)
    name, _, rule_id = options.id.partition("/")
    rule_file = rules.files.get(name)
    rule = next((rule for rule in rule_file.rules if rule.id == rule_id), None) if rule_file is not None else None
    if rule_file is None or rule is None:
        raise CommandError(f"no rule {options.id!r}: FILE/ID, as `rules list` has it", ExitStatus.USAGE)
    scope = {
        "none": "the protocol alone: the verdict is final, the kernel takes the flow",
        "connection": "what a connection says once: the verdict is final, the kernel takes the flow",
        "request": "what each request may say anew: all of them are judged, the flow stays with the inspector",
    }[rule.scope.name.lower()]
    found: dict[str, Any] = {
        "rule": options.id,
        "place": f"{rule_file.file}:{rule.line}",
        "protocols": _protocols(rule_file),
        "action": rule.action.name.lower(),
        **_attributes(rule),
        "scope": rule.scope.name.lower(),
        "description": rule.description,
        "match": list(outline(rule.match)),
        "samples": {"must_match": len(rule.must_match), "must_not_match": len(rule.must_not_match)},
    }
    lines = [
        f"{options.id} ({found['place']}): {found['action']}",
        *([f"  {rule.description}"] if rule.description else []),
        f"  of {', '.join(_protocols(rule_file))}, when",
        *(f"    {line}" for line in found["match"]),
        *(f"  {name}: {found[name]}" for name in _attributes(rule) if found[name] is not None),
        f"  depends on {scope}",
        f"  samples: {len(rule.must_match)} that it must match, {len(rule.must_not_match)} that it must not",
    ]
    _write(options, found, lines)
    return ExitStatus.OK
