"""`microseg-fastpath policy`: policy files checked, shown, tried out and compared, without a kernel or a daemon."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fastpath.cli.flows import FIELDS, flow_of, read_flows
from fastpath.config import Config
from fastpath.exit import CommandError, ExitStatus
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.compiler.tables import Tables
from fastpath.policy.describe import default_fields, difference, fields, named, place, rule_id
from fastpath.policy.ethertypes import ethertype_texts
from fastpath.policy.explain import Condition, Flow, as_json, explain
from fastpath.policy.model import Policy, Rule, is_default
from fastpath.policy.read import load_policy
from fastpath.policy.shadow import Finding, Kind, lint
from fastpath.policy.where import WHERE_FIELDS
from fastpath.text import escape

SHOWN = 10  # rules named in one line
WIDTH = 60  # columns of what the file says


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="policy file (default: gateway.yaml's)")


def _output(parser: argparse.ArgumentParser, people: str) -> None:
    parser.add_argument("-o", "--output", choices=(people, "json"), default=people, help="for people or programs")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("--strict", action="store_true", help="exit status 1 if there are warnings")


def _add_show(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    _output(parser, "table")
    parser.add_argument("--rule", metavar="ID", help="only this one")


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    _output(parser, "text")
    group = parser.add_argument_group("flow")
    group.add_argument("--from", metavar="ADDR", help="client's address")
    group.add_argument("--to", metavar="ADDR", help="server's address")
    group.add_argument("--proto", metavar="NAME", help="tcp, udp, icmp ... or an IP protocol number")
    group.add_argument("--sport", metavar="PORT", help="client's port; no rule asks for it")
    group.add_argument("--port", metavar="PORT", help="server's port, with tcp and udp")
    group.add_argument("--type", metavar="TYPE", help="type, or type/code, of icmp and icmp6 (default: echo-request)")
    group.add_argument("--app", metavar="NAME", help="application protocol (default: not known yet)")
    group.add_argument("--from-zone", metavar="ZONE", help="where it comes from; host: the gateway (default: no zone)")
    group.add_argument("--to-zone", metavar="ZONE", help="where it goes to; host: the gateway (default: no zone)")
    group.add_argument("--vlan", metavar="ID", help="its outer VLAN tag (default: none)")
    parser.add_argument(
        "--flows", metavar="FILE", help=f"many flows, a JSON object a line with {', '.join(FIELDS)}; - is stdin"
    )


def _add_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("new", metavar="NEW", type=Path, help="policy file")
    parser.add_argument("old", metavar="OLD", nargs="?", type=Path, help="what it changes (default: gateway.yaml's)")
    parser.add_argument(
        "--sessions", action="store_true", help="also what NEW would make of the live sessions, as they are judged now"
    )
    _output(parser, "text")


def _load(config: Config, file: Path | None) -> Tables:
    return compile_policy(load_policy(file or config.policy, config.rule_digest, tuple(config.zones)))


def _write(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


# -- check -------------------------------------------------------------------------------------------------------------


def check(config: Config, options: argparse.Namespace) -> int:
    """All problems, or the sizes and what is odd."""
    tables = _load(config, options.file)
    policy = tables.policy
    findings = lint(policy)
    _write([f"{escape(policy.file)}: ok; {tables.sizes}"])
    odd = [finding for finding in findings if finding.kind != Kind.UNKNOWN]
    _write(_warning(policy, finding) for finding in odd)
    if unknown := [finding.rule for finding in findings if finding.kind == Kind.UNKNOWN]:
        what = "shadowed or redundant, it would take too long to tell"
        _write([f"{escape(policy.file)}: note: {len(unknown)} rules may be {what}: {_ids(policy, unknown)}"])
    return ExitStatus.FAILED if odd and options.strict else ExitStatus.OK


def _warning(policy: Policy, finding: Finding) -> str:
    others = _ids(policy, finding.by)
    what = (
        f"no flow gets to it, all are taken by {others}"
        if finding.kind == Kind.SHADOWED
        else f"without it every verdict would be the same, by {others}"
    )
    where, rule = escape(place(policy, finding.rule)), _id(policy, finding.rule)
    return f"{where}: warning: rule {rule} is {finding.kind}: {what}"


def _ids(policy: Policy, numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return ", ".join(_id(policy, number) for number in numbers[:SHOWN]) + more


def _id(policy: Policy, number: int) -> str:
    return escape(rule_id(policy, number), WIDTH)


# -- show --------------------------------------------------------------------------------------------------------------


def show(config: Config, options: argparse.Namespace) -> int:
    """The rules in the order in which they are judged, the defaults last."""
    policy = _load(config, options.file).policy
    numbers = [*range(1, policy.last + 1), 0]
    if options.rule is not None:
        numbers = [number for number in numbers if rule_id(policy, number) == options.rule]
        if not numbers:
            raise CommandError(f"{policy.file}: there is no rule {options.rule!r}")
    rows = [_rule_row(policy, number) for number in numbers]
    if options.output == "json":
        ethertypes = ethertype_texts(policy.ethertypes)
        _write([json.dumps({"file": policy.file, "ethertypes": ethertypes, "rules": rows}, indent=2)])
    else:
        _write(_table(rows))
        if policy.ethertypes:
            _write([f"ethertypes that pass: {', '.join(ethertype_texts(policy.ethertypes))}"])
    return ExitStatus.OK


def _rule_row(policy: Policy, number: int) -> dict[str, Any]:
    decider = policy.decider(number)
    return named(policy, number) | (fields(decider) if isinstance(decider, Rule) else default_fields(decider))


def _table(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    titles = (
        "NO", "ID", "PRIORITY", "FROM", "TO", "PROTO", "PORTS", "TYPES", "APP", "WHERE", "ACTION", "RULES",
        "ATTRIBUTES",
    )  # fmt: skip
    columns = ("priority", "from", "to", "proto", "ports", "types", "app", "action", "rules")
    lines: list[tuple[str, ...]] = [titles]
    for row in rows:
        values = ["-" if is_default(row["id"]) else str(row["number"]), row["id"]]
        values += [_text(row.get(column)) for column in columns]
        where = (f"{name}={_text(row[name])}" for name in WHERE_FIELDS if row.get(name) is not None)
        values.insert(columns.index("action") + 2, " ".join(where) or "-")
        attributes = [row["deny_with"], f"log={row['log']}", *(["monitor"] if row["mode"] == "monitor" else [])]
        attributes += ["down=allow"] if row.get("on_inspector_down") == "allow" else []
        lines.append(tuple(escape(value, WIDTH) for value in (*values, " ".join(attributes))))
    widths = [max(len(line[n]) for line in lines) for n in range(len(titles))]
    for line in lines:
        yield "  ".join(f"{value:<{width}}" for value, width in zip(line, widths, strict=True)).rstrip()


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return ",".join(value) if isinstance(value, list) else str(value)


# -- simulate ----------------------------------------------------------------------------------------------------------


def simulate(config: Config, options: argparse.Namespace) -> int:
    """Judge one flow, or many, and say why."""
    given = {name: getattr(options, name) for name in FIELDS}
    if options.flows is not None:
        if any(value is not None for value in given.values()):
            raise CommandError("--flows has the flows: leave out what describes one", ExitStatus.USAGE)
        return _simulate_all(_load(config, options.file), options.flows)
    missing = [f"--{name}" for name in ("from", "to", "proto") if given[name] is None]
    if missing:
        raise CommandError(f"missing {', '.join(missing)}, or --flows", ExitStatus.USAGE)
    try:
        flow = flow_of(given, config.zones)
    except ValueError as error:
        raise CommandError(str(error), ExitStatus.USAGE) from None
    tables = _load(config, options.file)
    result = as_json(tables.policy, explanation := explain(tables, flow))
    if options.output == "json":
        _write([json.dumps(result, indent=2)])
    else:
        _write(_explained(result, explanation.conditions))
    return ExitStatus.OK


def _simulate_all(tables: Tables, file: str) -> int:
    if file == "-":
        return _judge_lines(tables, sys.stdin.buffer, "stdin")
    with Path(file).open("rb") as stream:
        return _judge_lines(tables, stream, file)


def _judge_lines(tables: Tables, stream: IO[bytes], file: str) -> int:
    status = ExitStatus.OK
    for number, flow in enumerate(read_flows(stream, tables.policy.zones), 1):
        if isinstance(flow, Flow):
            result = as_json(tables.policy, explain(tables, flow))
        else:
            status = ExitStatus.FAILED
            result = {"line": number, "error": str(flow)}
            sys.stderr.write(f"{escape(file)}:{number}: {escape(str(flow), 200)}\n")
        _write([json.dumps(result)])
    return status


def _explained(result: Mapping[str, Any], conditions: Iterable[Condition]) -> Iterator[str]:
    yield f"{_verdict(result)}, reason {result['reason']}"
    if result["reason"] == "default":
        yield "  no rule matches"
    for each in conditions:
        if each.wanted is None:
            how = "any"
        elif each.name == "app" and result["flow"]["app"] is None:
            how = f"{'depends on it: ' if result['verdict'] == 'undecided' else ''}{each.met}"
        else:
            how = f"in {each.met}" if each.met != each.flow else "matches"
        yield f"  {each.name:<5}  {escape(each.flow)}: {escape(how, WIDTH)}"
    if result["later"]:
        yield "once the application protocol is known:"
        for each in result["later"]:
            yield f"  {', '.join(each['apps'])}: {_verdict(each)}"
    if result["near"]:
        yield "nearly matched:"
    for each in result["near"]:
        wanted = escape(_text(each["wanted"]), WIDTH)
        yield f"  {_named(each['rule'])}: {each['condition']} is {escape(each['flow'])}, wanted {wanted}"
    if result["near_more"]:
        yield f"  and {result['near_more']} more"


def _verdict(judged: Mapping[str, Any]) -> str:
    enforced = "" if judged["enforced"] else " (monitor: not enforced)"
    return f"{judged['verdict']}{enforced} by {_named(judged['rule'])}"


def _named(rule: Mapping[str, Any]) -> str:
    if not rule["number"]:
        return f"the default ({escape(rule['place'])})"
    if is_default(rule["id"]):
        return f"{escape(rule['id'], WIDTH)} ({escape(rule['place'])})"
    return f"rule {rule['number']} {escape(rule['id'], WIDTH)} ({escape(rule['place'])})"


# -- diff --------------------------------------------------------------------------------------------------------------


def diff(config: Config, options: argparse.Namespace) -> int:
    """What another policy file changes, in rules and in live sessions."""
    new = _load(config, options.new)
    result = difference(_load(config, options.old).policy, new.policy)
    lines = list(_differences(result)) or ["no differences"]
    if options.sessions:
        from fastpath.cli import rejudged  # noqa: PLC0415  netlink, which files alone do not need

        result["sessions"] = rejudged.rejudge_live(config, new)
        lines += rejudged.lines(result["sessions"])
    _write([json.dumps(result, indent=2)] if options.output == "json" else lines)
    return ExitStatus.OK


def _differences(result: Mapping[str, Any]) -> Iterator[str]:
    for word in ("removed", "added"):
        for rule in result[word]:
            yield f"{word} {_named(rule)}: {rule['action']}"
    for rule in result["changed"]:
        yield f"changed {_named(rule)}: {_changes(rule['fields'])}"
    for rule in result["moved"]:
        yield f"moved rule {escape(rule['id'], WIDTH)}: {rule['old']} -> {rule['new']}"
    if result["default"]:
        yield f"changed the default: {_changes(result['default'])}"
    if result["ethertypes"]:
        yield f"changed {_changes(result['ethertypes'])}"
    if result["defaults"]:
        yield f"changed {_changes(result['defaults'])}"


def _changes(changed: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{name} {escape(_text(values['old']), WIDTH)} -> {escape(_text(values['new']), WIDTH)}"
        for name, values in changed.items()
    )


ACTIONS = (
    ("check", _add_check, check, "check a policy file: all problems at once, then rules that do nothing"),
    ("show", _add_show, show, "the rules in the order in which they are judged"),
    ("simulate", _add_simulate, simulate, "the verdict of a flow, and why"),
    ("diff", _add_diff, diff, "what a policy file changes"),
)
