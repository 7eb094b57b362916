"""`microseg-slowpath replay`: the inspector on a capture, offline and unprivileged."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastpath.exit import CommandError, ExitStatus
from slowpath.cli.output import formatter
from slowpath.record.write import encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE.pcap", type=Path, help="capture to read")
    parser.add_argument("--policy", metavar="PATH", type=Path, help="policy file; without it everything is inspected")
    parser.add_argument("--rules", metavar="DIR", type=Path, help="folder of rule files")
    parser.add_argument("-o", "--output", choices=("json", "compact"), default="json", help="records to stdout as")
    parser.add_argument("--utc", action="store_true", help="show times in UTC")


def main(options: argparse.Namespace) -> int:
    """Run the command."""
    module: Any = importlib.import_module("slowpath.replay")  # parsers and all: not at the command's start
    show = formatter(options.output, colour=False, utc=options.utc, now=time.time())
    records: Iterator[dict[str, Any]] = module.replay(options.file, options.rules, options.policy)
    try:
        for record in records:
            sys.stdout.write(show(encode(record)[:-1], record))
    except EOFError as error:
        raise CommandError(f"{options.file}: {error}") from None
    return ExitStatus.OK
