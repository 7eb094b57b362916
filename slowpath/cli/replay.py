"""`microseg-slowpath replay`: the inspector on a capture, offline and unprivileged."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from fastpath.exit import CommandError, ExitStatus
from slowpath.cli.output import formatter
from slowpath.record.write import encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE.pcap", type=Path, help="capture to read")
    parser.add_argument(
        "--policy",
        metavar="PATH",
        type=Path,
        help="policy file; without it nothing is decided. Flows of a capture are in no zone",
    )
    parser.add_argument("--rules", metavar="DIR", type=Path, help="folder of rule files that the policy names")
    parser.add_argument("-o", "--output", choices=("json", "compact"), default="json", help="records to stdout as")
    parser.add_argument("--utc", action="store_true", help="show times in UTC")


def main(options: argparse.Namespace) -> int:
    """Run the command."""
    # Parsers and all: not at the command's start.
    from fastpath.policy.read import load_policy  # noqa: PLC0415
    from slowpath.replay import CaptureError, replay  # noqa: PLC0415
    from slowpath.rules.ruleset import RuleSet, load_rules  # noqa: PLC0415

    rules = load_rules([options.rules]) if options.rules is not None else RuleSet()
    policy = load_policy(options.policy, rules.digest) if options.policy is not None else None
    show = formatter(options.output, colour=False, utc=options.utc, now=time.time())
    try:
        for record in replay(options.file, rules, policy):
            sys.stdout.write(show(encode(record)[:-1], record))
    except BrokenPipeError:
        raise
    except CaptureError as error:
        raise CommandError(f"{options.file}: {error}") from None
    except OSError as error:
        raise CommandError(f"{options.file}: {error.strerror or error}") from None
    return ExitStatus.OK
