"""`microseg-fastpath policy suggest`: rules that allow what was observed, as a policy file to review."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fastpath.cli.flows import FIELDS, read_flows
from fastpath.commands import Commands
from fastpath.config import Config
from fastpath.document import InvalidDocumentError
from fastpath.exit import CommandError, ExitStatus
from fastpath.observe import Intake, mapped, observe_records, observe_sessions, open_log
from fastpath.policy.defined import Defined, read_defined
from fastpath.policy.draft import Account, Draft
from fastpath.policy.explain import Flow
from fastpath.policy.observed import INCLUDABLE
from fastpath.policy.suggest import EPHEMERAL, Widening, suggest
from fastpath.text import escape
from fastpath.timespec import FORMS, parse_time

_EPILOG = f"""\
Observed are the live sessions, and the ended ones that the inspection log has, if their last packet came since TIME.
The rules allow just that, unless --widen, --widen6 or --span say more. It is one policy of its own: rules of the
present one are not in it, but names of its groups and services are used where they fit exactly.

To learn from a gateway that denies nothing yet, let its policy be:

  mode: monitor
  default: deny
  rules: [{{id: learn, action: inspect}}]     # tells the application protocols; leave it out to learn ports only

TIME: {FORMS}.
"""


def add_suggest(parser: argparse.ArgumentParser) -> None:
    """Options of `policy suggest`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    group = parser.add_argument_group("what is observed")
    group.add_argument("--since", metavar="TIME", help="last packet not before this (default: all there is)")
    group.add_argument(
        "--include", action="append", choices=INCLUDABLE, default=[], metavar="KIND",
        help=f"also what is left out otherwise: {', '.join(INCLUDABLE)}",
    )  # fmt: skip
    sources = group.add_mutually_exclusive_group()
    sources.add_argument("--records", metavar="FILE", type=Path, help="only the ended sessions of this inspection log")
    sources.add_argument(
        "--flows", metavar="FILE", help=f"only these flows, a JSON object a line with {', '.join(FIELDS)}; - is stdin"
    )
    group = parser.add_argument_group("what is allowed beyond it")
    group.add_argument(
        "--widen", type=_widen(32), metavar="LENGTH:COUNT",
        help="a prefix of IPv4 with so many clients of a server's port, or more, is a client as a whole",
    )  # fmt: skip
    group.add_argument("--widen6", type=_widen(128), metavar="LENGTH:COUNT", help="the same of IPv6")
    group.add_argument(
        "--span", type=_count, metavar="COUNT",
        help=f"so many ports of a server from {EPHEMERAL} on, or more, are all from the lowest to the highest",
    )  # fmt: skip
    parser.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml", help="json: with all numbers")


def _widen(longest: int) -> Callable[[str], tuple[int, int]]:
    def read(text: str) -> tuple[int, int]:
        length, _, count = text.partition(":")
        if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= longest):
            raise argparse.ArgumentTypeError(f"{text!r} is not LENGTH:COUNT with a prefix length of 0 to {longest}")
        return int(length), _count(count)

    return read


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


@dataclass(slots=True)
class _Observation:
    intake: Intake
    now: float
    since: float | None
    notes: list[str] = field(default_factory=list)


def run(config: Config, options: argparse.Namespace) -> int:
    """Write the policy file to stdout."""
    now = time.time()
    seen = _Observation(Intake(options.include), now, _since(options.since, now))
    status: int = ExitStatus.OK
    if options.flows is not None:
        if options.since is not None or options.include:
            raise CommandError("--flows are taken as they are: --since and --include do not apply", ExitStatus.USAGE)
        status = _observe_flows(options.flows, seen.intake)
    elif options.records is not None:
        _observe_records(options.records, seen, set())
    else:
        _observe_gateway(config, seen)
    prefixes = {version: wide for version, wide in ((4, options.widen), (6, options.widen6)) if wide is not None}
    rules = suggest(seen.intake.observed, Widening(prefixes, options.span))
    defined = _defined(config.policy, seen.notes)
    draft = Draft(rules, defined, Account(seen.since, now, seen.intake.amount, seen.intake.left_out, seen.notes))
    if options.output == "json":
        sys.stdout.write(json.dumps(draft.as_json(), indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in draft.lines())
    return status


def _since(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    try:
        return parse_time(text, now)
    except ValueError as error:
        raise CommandError(f"--since: {error}", ExitStatus.USAGE) from None


def _observe_gateway(config: Config, seen: _Observation) -> None:
    from fastpath.gateway import open_map, pins_of  # noqa: PLC0415  netlink, which files alone do not need
    from fastpath.selection import RuleNames, batches  # noqa: PLC0415

    table = open_map(config, "sessions")
    earliest = 0
    if seen.since is not None:
        commands = Commands(pins_of(config))
        earliest = commands.clocks().jiffies - int((seen.now - seen.since) * commands.hertz())
    # Sessions first: one that ends meanwhile is in the log too, and known by then.
    ids = observe_sessions(batches(table, RuleNames(config.run_dir)), seen.intake, earliest)
    _observe_records(config.records.path, seen, ids)


def _observe_records(path: Path, seen: _Observation, known: set[int]) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context(file) for file in open_log(path)]
        if not files:
            seen.notes.append(f"There is no inspection log {path}: no ended sessions.")
        if bad := observe_records(files, seen.intake, seen.since or 0, known):
            seen.notes.append(f"Of {path} {bad} lines are no records.")


def _observe_flows(file: str, intake: Intake) -> int:
    if file == "-":
        return _take_flows(sys.stdin.buffer, "stdin", intake)
    with Path(file).open("rb") as stream:
        return _take_flows(stream, file, intake)


def _take_flows(stream: IO[bytes], file: str, intake: Intake) -> int:
    status = ExitStatus.OK
    for number, flow in enumerate(read_flows(stream), 1):
        if isinstance(flow, Flow):
            intake.accept(mapped(flow.source), mapped(flow.destination), flow.l4, flow.dport or 0, app=flow.app or 0)
        else:
            status = ExitStatus.FAILED
            sys.stderr.write(f"{escape(file)}:{number}: {escape(str(flow), 200)}\n")
    return status


def _defined(policy: Path, notes: list[str]) -> Defined:
    try:
        return read_defined(policy)
    except InvalidDocumentError as error:
        notes.append(f"Names of groups and services of {policy} are not used: {error.problems[0]}.")
        return Defined()


ACTIONS = (("suggest", add_suggest, run, "rules that allow what was observed, as a policy file to review"),)
