"""`microseg-slowpath status`: what the running inspector says of itself."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastpath import admin_client
from fastpath.exit import ExitStatus
from fastpath.text import escape
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
        sys.stdout.write(render(status))
    return ExitStatus.OK


def render(status: Mapping[str, Any]) -> str:
    """Aligned ``name  value`` lines, nested names joined by dots."""
    rows = [(escape(name, 60), escape(text, 200)) for name, text in _flatten(status, "")]
    width = max((len(name) for name, _ in rows), default=0)
    return "".join(f"{name:<{width}}  {text}\n" for name, text in rows)


def _flatten(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{name}.")
        elif isinstance(item, list):
            texts = [each if isinstance(each, str) else json.dumps(each) for each in item]
            yield name, ", ".join(texts) or "none"
        elif isinstance(item, bool):
            yield name, "yes" if item else "no"
        elif isinstance(item, float):
            yield name, f"{item:.6g}" if abs(item) < 1e6 else f"{item:.0f}"
        else:
            yield name, "none" if item is None else str(item)
