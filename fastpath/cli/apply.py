"""`microseg-fastpath policy apply | rollback | history`: which policy the running daemon enforces.

The daemon judges and applies what stands in the configured source. Files are put there by this process, with the
rights of whoever called it: the daemon, which is root, writes nothing that a client names.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastpath.admin_client import fetch_status, request_change
from fastpath.config import Config
from fastpath.document import InvalidDocumentError, Problem
from fastpath.exit import CommandError, ExitStatus
from fastpath.gateway import only_instance
from fastpath.history import Entry, History, HistoryError
from fastpath.install import Installation
from fastpath.policy.source import Source, read_source
from fastpath.text import escape

# The largest policy takes the daemon some seconds.
TIMEOUT = 60.0


def add_apply(parser: argparse.ArgumentParser) -> None:
    """Arguments of `policy apply`."""
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE",
        help="check it, put it in the place of the configured policy, and apply it (a folder for a folder); "
        "without it, the configured policy is read anew",
    )  # fmt: skip


def add_rollback(parser: argparse.ArgumentParser) -> None:
    """Arguments of `policy rollback`."""
    parser.add_argument(
        "--to", type=int, metavar="REVISION", help="this one (default: the policy before the one in force)"
    )


def add_history(parser: argparse.ArgumentParser) -> None:
    """Arguments of `policy history`."""
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="json is one revision a line"
    )


def apply(config: Config, options: argparse.Namespace) -> int:
    """Apply the configured policy as it stands, or another in its place."""
    if options.file is None or _same(options.file, config.policy):
        _report(_request(config, "/policy/apply", {"why": "apply"}))
    else:
        _install(config, read_source(options.file), "apply", str(options.file))
    return ExitStatus.OK


def rollback(config: Config, options: argparse.Namespace) -> int:
    """Make an earlier policy the configured one again, and apply it."""
    status = fetch_status(config.fastpath_socket)
    entries, problems = History(config.state_dir, config.policy_history).entries()
    _warn(problems)
    entry = _wanted(entries, options.to, status["policy"].get("digest"))
    source = entry.source()
    for name, digest in entry.rule_files.items():
        if config.rule_digest(name) not in {digest, None}:  # one that is missing is a mistake, and said as such
            _warn([f"rule file {name} was another when revision {entry.revision} was applied; it stays as it is now"])
    _install(config, source, "rollback", f"revision {entry.revision}, {config.policy}")
    return ExitStatus.OK


def history(config: Config, options: argparse.Namespace) -> int:
    """What was applied, newest first."""
    entries, problems = History(config.state_dir, config.policy_history).entries()
    entries.reverse()
    try:
        current = fetch_status(config.fastpath_socket)["policy"]["revision"]
    except CommandError:  # without a daemon the kernel goes on with the last one
        current = entries[0].revision if entries else None
    is_current = {id(next((entry for entry in entries if entry.revision == current), None))}
    rows = (_row(entry, id(entry) in is_current) for entry in entries)
    for line in map(json.dumps, rows) if options.output == "json" else _table(rows):
        sys.stdout.write(line + "\n")
    if problems:
        raise HistoryError("\n".join(problems))
    return ExitStatus.OK


def _row(entry: Entry, current: bool) -> dict[str, Any]:
    return {
        "revision": entry.revision,
        "current": current,
        "at": entry.at,
        "why": entry.why,
        "rules": entry.rules,
        "digest": entry.digest,
        "files": list(entry.sizes),
        "rule_files": dict(entry.rule_files),
    }


def _table(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    line = "{:>9} {:<7} {:<20} {:<8} {:>6}  {}"
    yield line.format("REVISION", "", "APPLIED", "WHY", "RULES", "DIGEST")
    for row in rows:
        yield line.format(
            row["revision"],
            "current" if row["current"] else "",
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row["at"])),
            escape(row["why"], 8),
            row["rules"],
            escape(row["digest"][:12]),
        )


def _wanted(entries: list[Entry], revision: int | None, in_force: str | None) -> Entry:
    """The newest of that number; without one, the newest policy other than the one in force."""
    for entry in reversed(entries):
        if entry.revision == revision if revision is not None else entry.digest != in_force:
            return entry
    kept = ", ".join(str(entry.revision) for entry in entries) or "none"
    what = "no policy before the one in force" if revision is None else f"no revision {revision}"
    raise CommandError(f"{what} in the history; there: {kept}")


def _install(config: Config, source: Source, why: str, name: str) -> None:
    """`source` in the place of the configured one, applied; `name` is what messages call it."""
    with (
        only_instance(config.pin_root, "microseg-fastpath policy"),
        Installation(config.policy, source) as installation,
    ):
        # The very files that will be applied, so that nothing is put in place only to be taken away again.
        before = _request(
            config, "/policy/check", {"policy": str(installation.staged)}, {str(installation.staged): name}
        )["revision"]  # fmt: skip
        installation.swap()
        try:
            outcome = _request(config, "/policy/apply", {"why": why}, {str(installation.path): name})
        except BaseException:
            # An answer may be lost and the change made all the same: files and kernel do not part.
            if _was_applied(config, source, before):
                _keep_edits(config, installation)
            else:
                installation.undo()
            raise
        _report(outcome)
        _keep_edits(config, installation)


def _keep_edits(config: Config, installation: Installation) -> None:
    """What was replaced, if it was never applied and would be lost."""
    try:
        replaced = installation.replaced()
        entries, _ = History(config.state_dir, config.policy_history).entries()
        if replaced is not None and replaced.digest not in {entry.digest for entry in entries}:
            kept = config.state_dir / "replaced"
            installation.keep_replaced(kept)
            _warn([f"what was replaced is not in the history (never applied, or long ago); it is in {kept}"])
    except (InvalidDocumentError, HistoryError, OSError) as error:
        _warn([f"what was replaced is lost: {error}"])


def _was_applied(config: Config, source: Source, before: int) -> bool:
    try:
        policy: Mapping[str, Any] = fetch_status(config.fastpath_socket)["policy"]
    except CommandError:
        return False
    return policy.get("digest") == source.digest and policy["revision"] != before


def _request(
    config: Config, target: str, query: Mapping[str, str], names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The daemon's answer. InvalidDocumentError with its problems, files renamed by `names`; CommandError."""
    path = config.fastpath_socket
    status, answer = request_change(path, f"{target}?{urlencode(query)}", timeout=TIMEOUT)
    if status == 200:
        return answer
    if status == 422:
        problems = [Problem(**problem) for problem in answer["problems"]]
        raise InvalidDocumentError(_renamed(problem, names or {}) for problem in problems)
    raise CommandError(str(answer.get("error", f"{path}: the daemon answers with HTTP status {status}")))


def _renamed(problem: Problem, names: Mapping[str, str]) -> Problem:
    for old, new in names.items():
        if problem.file == old or problem.file.startswith(f"{old}/"):
            return Problem(new + problem.file[len(old) :], problem.line, problem.path, problem.message)
    return problem


def _report(outcome: Mapping[str, Any]) -> None:
    sys.stdout.write(
        f"revision {outcome['revision']} (before: {outcome['before']}): {outcome['sizes']}, "
        f"{outcome['seconds']:.3f} s\n"
    )
    if outcome["warning"]:
        _warn([outcome["warning"]])


def _warn(texts: list[str]) -> None:
    for text in texts:
        sys.stderr.write(f"{escape(text)}\n")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


ACTIONS = (
    ("apply", add_apply, apply, "let the daemon read the configured policy anew, or another in its place"),
    ("rollback", add_rollback, rollback, "make the policy before the present one, or another, current"),
    ("history", add_history, history, "which policies were applied"),
)
