"""`microseg-slowpath status`: what the running inspector says of itself."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fastpath import admin_client
from fastpath.exit import ExitStatus
from fastpath.text import aligned
from slowpath.cli.places import SOCKET, run_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--socket", metavar="PATH", type=Path, help="the daemon's socket (default: in its run_dir)")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=admin_client.TIMEOUT, help="for its answer")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="aligned lines or JSON")


def main(options: argparse.Namespace) -> int:
    """Run the command."""
    path = options.socket or run_dir(options.config) / SOCKET
    status = admin_client.fetch_status(path, timeout=options.timeout)
    if options.output == "json":
        sys.stdout.write(json.dumps(status, indent=2) + "\n")
    else:
        sys.stdout.write(aligned(status))
    return ExitStatus.OK
