"""`microseg-fastpath policy hits`: what each rule judged, read from the kernel and the file of older counters."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fastpath import abi
from fastpath.config import Config
from fastpath.document import InvalidDocumentError
from fastpath.exit import CommandError, ExitStatus
from fastpath.gateway import open_map, pins_of
from fastpath.history import History, HistoryError
from fastpath.hits import Figures, Ledger, Total
from fastpath.policy.names import NamedRule, Names, read_names
from fastpath.policy.read import Reader
from fastpath.policy.shadow import Kind, lint
from fastpath.text import escape

# Reading and linting more takes seconds.
LINTED = 2000
WIDTH = 60
SORTS = ("rule", "sessions", "live", "packets", "bytes")

Row = dict[str, Any]


def add_hits(parser: argparse.ArgumentParser) -> None:
    """Arguments of `policy hits`."""
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="for people or programs")
    parser.add_argument("--sort", choices=SORTS, default="rule", help="by number, or the largest first")
    parser.add_argument("--never", action="store_true", help="only rules of which nothing is counted")
    parser.add_argument(
        "--lint", action=argparse.BooleanOptionalAction,
        help=f"mark shadowed and redundant rules (default: of up to {LINTED} rules)",
    )  # fmt: skip
    parser.add_argument("--reset", action="store_true", help="show nothing, count from zero")


def hits(config: Config, options: argparse.Namespace) -> int:
    """Show the figures, or begin anew."""
    settings = open_map(config, "config").lookup(bytes(4))
    assert settings is not None
    revision = abi.Config.from_buffer_copy(settings).revision
    ledger = Ledger(pins_of(config), config.run_dir, config.state_dir)
    if options.reset:
        ledger.reset()
        return ExitStatus.OK
    names = _names(config.run_dir, revision)
    total = ledger.total()
    marks: Mapping[str, str] = {}
    if options.lint or (options.lint is None and len(names.rules) <= LINTED):
        marks = _marks(config, revision)
    result = as_json(total, names, marks)
    if options.never:
        result = {**result, "rules": [row for row in result["rules"] if row["never"]], "removed": []}
    if options.sort != "rule":
        for key in ("rules", "removed"):
            result[key].sort(key=lambda row: -row[options.sort])
    if options.output == "json":
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return ExitStatus.OK
    for line in table(result, short=options.never):
        sys.stdout.write(line + "\n")
    if options.lint is None and len(names.rules) > LINTED:
        sys.stderr.write(f"more than {LINTED} rules: --lint looks for shadowed and redundant ones\n")
    return ExitStatus.OK


def as_json(total: Total, names: Names, marks: Mapping[str, str]) -> dict[str, Any]:
    """``rules`` of the revision in order, the default last; ``removed``: those that are no more, by id; ``host`` and
    ``lost`` as in `fastpath.hits.Hits`. `marks` are findings by id.
    """
    nothing = Figures()

    def row(rule_id: str) -> Row:
        live = total.live.rules.get(rule_id, nothing)
        return _figures(total.hits.rules.get(rule_id, nothing), live)

    def ruled(number: int | None, rule: NamedRule) -> Row:
        figures = row(rule.id)
        kind = {"number": number, "id": rule.id, "action": rule.action}
        return kind | figures | {"never": not any(figures.values()), "lint": marks.get(rule.id)}

    known = {names.default.id, *(rule.id for rule in names.rules)}
    return {
        "since": total.since,
        "revision": names.revision,
        "rules": [ruled(n, rule) for n, rule in enumerate(names.rules, 1)] + [ruled(0, names.default)],
        "removed": [
            {"id": each} | row(each)
            for each in sorted(total.hits.rules)
            if each not in known and any(total.hits.rules[each].values)
        ],
        "host": _figures(total.hits.host, total.live.host),
        "lost": _figures(total.hits.lost, total.live.lost),
    }


def _figures(figures: Figures, live: Figures) -> Row:
    # What an evicted session took with it may have been taken from its rule before.
    sessions, packets, octets = (max(0, value) for value in figures.values)
    return {"sessions": sessions, "live": live.sessions, "packets": packets, "bytes": octets}


def table(result: Mapping[str, Any], *, short: bool = False) -> Iterator[str]:
    """For people; `short`: the rules alone."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(result["since"]))
    yield f"revision {result['revision']}, counted since {since}"
    lines: list[tuple[str, ...]] = [("NO", "ID", "ACTION", "SESSIONS", "LIVE", "PACKETS", "BYTES", "")]
    for row in result["rules"]:
        notes = [*(["never"] if row["never"] else []), *([row["lint"]] if row["lint"] else [])]
        lines.append(_line(str(row["number"] or "-"), row["id"], row["action"], row, ", ".join(notes)))
    if not short:
        lines += [_line("-", row["id"], "-", row, "removed") for row in result["removed"]]
        for key, note in (("host", "the gateway's own traffic"), ("lost", "rules and revisions long gone")):
            if any(result[key].values()):
                lines.append(_line("-", "-", "-", result[key], note))
    yield from _aligned(lines)


def _line(number: str, rule_id: str, action: str, row: Row, note: str) -> tuple[str, ...]:
    figures = (str(row[name]) for name in SORTS[1:])
    return (number, escape(rule_id, WIDTH), escape(action), *figures, note)


def _aligned(lines: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            f"{value:>{width}}" if n in range(3, 7) else f"{value:<{width}}"
            for n, (value, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _names(run_dir: Path, revision: int) -> Names:
    try:
        names = read_names(run_dir, revision)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if names is None:
        raise CommandError(f"{run_dir}: the names of revision {revision} are not there")
    return names


def _marks(config: Config, revision: int) -> dict[str, str]:
    """Rules of the policy in force that do nothing, by id; none, with a word of why, where its files are not known."""
    try:
        entry = History(config.state_dir, config.policy_history).newest()
        if entry is None or entry.revision != revision:
            raise HistoryError("it is not in the history")
        policy = Reader().read(config.policy, entry.source(), config.rule_digest)
    except (HistoryError, InvalidDocumentError) as error:
        reason = escape(str(error).splitlines()[0])
        sys.stderr.write(f"shadowed and redundant rules are not marked: the policy in force: {reason}\n")
        return {}
    return {
        policy.rules[finding.rule - 1].id: str(finding.kind) for finding in lint(policy) if finding.kind != Kind.UNKNOWN
    }


ACTIONS = (("hits", add_hits, hits, "what each rule judged: sessions, packets, bytes"),)
