"""Entry point of `microseg-fastpath`. A command imports what it alone needs when it is called: netlink, aiohttp
and the policy compiler take ten times as long as `status`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fastpath import admin_client, config, log
from fastpath.exit import CommandError, ExitStatus, run_command
from fastpath.text import aligned

PROGRAM = "microseg-fastpath"

# Name, what declares its options, what runs it, help.
Action = tuple[
    str,
    Callable[[argparse.ArgumentParser], None],
    Callable[[config.Config, argparse.Namespace], int],
    str,
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""

    def command() -> int:
        options = _parser().parse_args(argv)
        return int(options.run(options) or 0)

    return run_command(PROGRAM, command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="The kernel half of the microseg gateway.",
        epilog="exit status: 0 ok, 1 failed, 2 usage, 3 invalid configuration, 4 daemon unreachable, "
        "5 privilege or kernel feature missing, 130 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.set_defaults(run=_version_or_usage)
    _common(parser, default=config.DEFAULT)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Command)

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command: _Command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        command.name = name
        command.add_argument("--version", action=_Version, nargs=0, help=argparse.SUPPRESS)
        _common(command, default=argparse.SUPPRESS)
        return command

    for name, run, text in (
        ("load", _load, "load and attach once, without a daemon"),
        ("unload", _unload, "detach, unpin, remove everything that was added"),
        ("run", _run, "load, attach and stay: sweeps, reloads on SIGHUP, status and metrics"),
    ):
        add(name, run, text).add_argument("--log-level", choices=log.LEVELS, help="what goes to stderr")
    for name, run, text in (
        ("status", _status, "what the running daemon says of itself"),
        ("stats", _stats, "counters of the kernel half, read from the kernel"),
    ):
        command = add(name, run, text)
        command.add_argument("-o", "--output", choices=("text", "json"), default="text", help="for people or programs")
    add("sessions", _act, "live sessions, read from the kernel: list (unless told otherwise), close")
    add("policy", _act, "offline: check, show, simulate, diff; of the gateway: hits, suggest, apply, rollback, history")
    check = add("config", _check, "check the configuration").add_subparsers(metavar="check", required=True)
    _common(check.add_parser("check", help="check gateway.yaml and the policy"), default=argparse.SUPPRESS)
    return parser


class _Command(argparse.ArgumentParser):
    """Parser of a command. Those of `sessions` and `policy` ask for their actions when they are used."""

    name = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.name == "sessions":
            from fastpath.cli import sessions  # noqa: PLC0415  of this command alone

            self.name = ""
            _declare(self, sessions.ACTIONS)
            # Without a word of its own it lists. Not a default of argparse's: what stood before `close` would be lost.
            if not args or (args[0].startswith("-") and args[0] not in {"-h", "--help", "--version"}):
                args = ["list", *args]
        elif self.name == "policy":
            from fastpath.cli import apply, hits, policy, suggest  # noqa: PLC0415  of this command alone

            self.name = ""
            _declare(self, (*policy.ACTIONS, *hits.ACTIONS, *suggest.ACTIONS, *apply.ACTIONS))
        return super().parse_known_args(args, namespace)


def _declare(parser: argparse.ArgumentParser, actions: Iterable[Action]) -> None:
    subparsers = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=_Command)
    for name, declare, run, text in actions:
        action = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.set_defaults(run_action=run)
        _common(action, default=argparse.SUPPRESS)
        declare(action)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        _show_version()
        parser.exit()


def _common(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument(
        "--config", metavar="PATH", type=Path, default=default, help=f"gateway.yaml (default: {config.DEFAULT})"
    )


def _show_version() -> None:
    from importlib import metadata  # noqa: PLC0415  30 ms

    try:
        version = metadata.version("microseg")
    except metadata.PackageNotFoundError:
        version = "unknown (not installed)"
    sys.stdout.write(f"{PROGRAM} {version}\n")


def _version_or_usage(options: argparse.Namespace) -> int:
    if options.version:
        _show_version()
        return ExitStatus.OK
    raise CommandError("a command is missing; see --help", ExitStatus.USAGE)


def _settings(options: argparse.Namespace) -> config.Config:
    settings = config.load_config(options.config)
    log.setup(getattr(options, "log_level", None) or settings.log_level)
    return settings


def _load(options: argparse.Namespace) -> int:
    from fastpath.gateway import Gateway, only_instance  # noqa: PLC0415  of this command alone

    settings = _settings(options)
    with only_instance(settings.pin_root):
        gateway = Gateway(settings)
        asyncio.run(gateway.start())
    return ExitStatus.OK


def _unload(options: argparse.Namespace) -> int:
    from fastpath.gateway import need_root, only_instance, unload  # noqa: PLC0415  of this command alone

    settings = _settings(options)
    need_root()
    with only_instance(settings.pin_root):
        asyncio.run(unload(settings))
    return ExitStatus.OK


def _run(options: argparse.Namespace) -> int:
    from fastpath.service import Service  # noqa: PLC0415  of this command alone

    _settings(options)

    async def serve() -> None:
        await Service(options.config).run()

    asyncio.run(serve())
    return ExitStatus.OK


def _check(options: argparse.Namespace) -> int:
    from fastpath.gateway import compile_source  # noqa: PLC0415  of this command alone

    settings = config.load_config(options.config)
    sizes = compile_source(settings).tables.sizes
    sys.stdout.write(f"{settings.file}: ok; {settings.policy}: {sizes}\n")
    return ExitStatus.OK


def _status(options: argparse.Namespace) -> int:
    settings = config.load_config(options.config)
    status = admin_client.fetch_status(settings.fastpath_socket)
    _show(status, options.output)
    return ExitStatus.OK


def _stats(options: argparse.Namespace) -> int:
    from fastpath.gateway import open_map  # noqa: PLC0415  of this command alone
    from fastpath.statistics import read_counters  # noqa: PLC0415  of this command alone

    settings = config.load_config(options.config)
    counters = read_counters(open_map(settings, "stats"))
    live = sum(count for count, *_ in open_map(settings, "sessions").batches())
    sessions: dict[str, Any] = {
        "live": live,
        "capacity": settings.capacity,
        "evictions": max(0, counters.balance - live),
        "swept": None,
        "emergency_sweeps": None,
    }
    # What only the daemon knows, if there is one.
    with contextlib.suppress(admin_client.DaemonUnreachableError):
        told = admin_client.fetch_status(settings.fastpath_socket)["sessions"]
        sessions |= {name: told[name] for name in ("evictions", "swept", "emergency_sweeps")}
    _show({"packets": counters.stats, "drops": counters.drops, "sessions": sessions}, options.output)
    return ExitStatus.OK


def _act(options: argparse.Namespace) -> int:
    return int(options.run_action(config.load_config(options.config), options))


def _show(status: dict[str, Any], output: str) -> None:
    sys.stdout.write(json.dumps(status, indent=2) + "\n" if output == "json" else aligned(status))


if __name__ == "__main__":
    sys.exit(main())
