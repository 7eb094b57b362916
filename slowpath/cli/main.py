"""Entry point of `microseg-slowpath`. A subcommand's module is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fastpath.exit import run_command

PROGRAM = "microseg-slowpath"

# name: module that declares its options, module that runs it, help
COMMANDS = {
    "run": (None, "slowpath.service", "run the inspector until it is told to stop"),
    "status": ("slowpath.cli.status", "slowpath.cli.status", "what the running inspector says of itself"),
    "inspect": ("slowpath.cli.inspect", "slowpath.cli.inspect", "show, search and follow the inspection log"),
    "rules": ("slowpath.cli.rules", "slowpath.cli.rules", "check, try, list and explain rule files"),
    "replay": ("slowpath.cli.replay", "slowpath.cli.replay", "judge a capture offline"),
}


class _Version(argparse.Action):
    """--version; the metadata reader takes 30 ms, so it is imported only here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib import metadata  # noqa: PLC0415

        try:
            version = metadata.version("microseg")
        except metadata.PackageNotFoundError:
            version = "unknown (not installed)"
        sys.stdout.write(f"{PROGRAM} {version}\n")
        parser.exit()


class _Command(argparse.ArgumentParser):
    """Parser of a subcommand that asks its module for the options when it is used."""

    name = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.name:
            module = COMMANDS[self.name][0]
            if module is None:
                levels = ("error", "warning", "info", "debug")
                self.add_argument("--log-level", choices=levels, default="info", help="what goes to stderr")
            else:
                importlib.import_module(module).add_arguments(self)
            self.name = ""
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="The inspector of the microseg gateway, and its records.",
        epilog="exit status: 0 ok, 1 failed, 2 usage, 3 invalid configuration, 4 daemon unreachable, "
        "5 privilege or kernel feature missing, 130 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("--config", metavar="PATH", type=Path, help="gateway.yaml (default: in /etc/microseg)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Command)
    for name, (_, runner, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.name = name
        command.set_defaults(runner=runner)
        command.add_argument("--version", action=_Version, nargs=0, help=argparse.SUPPRESS)
        # SUPPRESS: a default here would overwrite what stood before the command's name.
        command.add_argument(
            "--config",
            metavar="PATH",
            type=Path,
            default=argparse.SUPPRESS,
            help="gateway.yaml (default: in /etc/microseg)",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""

    def command() -> int:
        options = _parser().parse_args(argv)
        return int(importlib.import_module(options.runner).main(options) or 0)

    return run_command(PROGRAM, command)


if __name__ == "__main__":
    sys.exit(main())
