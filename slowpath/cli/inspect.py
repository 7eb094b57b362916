"""`microseg-slowpath inspect`: show, search and follow the inspection log."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from fastpath.exit import CommandError, ExitStatus
from fastpath.text import escape
from fastpath.timespec import FORMS, parse_time
from slowpath.cli.filters import add_filters, combine, needles
from slowpath.cli.output import FORMATS, formatter
from slowpath.record import read

DEFAULT_LAST = 20

EPILOG = f"""\
The last {DEFAULT_LAST} records are shown unless --last, --all, --since, --until or --input-file say otherwise;
--follow goes on from there. With filters, --last counts the records that match.
A verdict with a star was not enforced (monitor mode). Times: {FORMS}.

examples:
  microseg-slowpath inspect --follow --verdict deny
  microseg-slowpath inspect --since 1h --to-ip 10.0.1.0/24 --port 443 --not --protocol tls
  microseg-slowpath inspect --all --reason no_rule -o json | jq .grpc
"""


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of records")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    group = parser.add_argument_group("which records")
    group.add_argument("-f", "--follow", action="store_true", help="show new records as they come")
    group.add_argument("--last", type=_count, metavar="N", help=f"only the last N that match (default {DEFAULT_LAST})")
    group.add_argument("--all", action="store_true", help="all that match")
    group.add_argument("--since", metavar="TIME", help="not older than this")
    group.add_argument("--until", metavar="TIME", help="not newer than this")
    group.add_argument("--input-file", metavar="PATH", help="read this file, or standard input if it is -")
    add_filters(parser)
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", choices=FORMATS, default="compact", help="json is one record a line")
    group.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="also obeys NO_COLOR")
    group.add_argument("--utc", action="store_true", help="show and read times in UTC")
    group.add_argument("-q", "--quiet", action="store_true", help="no notes on stderr")


def main(options: argparse.Namespace) -> int:
    """Run the command."""
    now = time.time()
    _check(options)
    sieve = read.Sieve(
        combine(options.filters),
        needles=needles(options.filters),
        since=_time(options.since, now, options, "--since", float("-inf")),
        until=_time(options.until, now, options, "--until", float("inf")),
    )
    show = formatter(options.output, colour=_use_colour(options.color), utc=options.utc, now=now)

    def note(text: str) -> None:
        if not options.quiet:
            with contextlib.suppress(OSError):
                sys.stderr.write(f"microseg-slowpath inspect: {escape(text)}\n")
                sys.stderr.flush()

    out = sys.stdout.buffer
    try:
        with contextlib.ExitStack() as files:
            for batch in _batches(options, sieve, note, files):
                if batch:
                    out.write("".join([show(line, record) for line, record in batch]).encode("ascii"))
                    out.flush()
    finally:
        if sieve.corrupt:
            note(f"{sieve.corrupt} corrupt line{'s' if sieve.corrupt > 1 else ''} left out")
    return ExitStatus.OK


def _check(options: argparse.Namespace) -> None:
    wrong = None
    if options.negate:
        wrong = "--not needs a filter behind it"
    elif options.all and options.last is not None:
        wrong = "--all and --last contradict each other"
    elif options.follow and options.until:
        wrong = "--follow and --until contradict each other"
    if wrong:
        raise CommandError(wrong, ExitStatus.USAGE)


def _time(text: str | None, now: float, options: argparse.Namespace, flag: str, default: float) -> float:
    if text is None:
        return default
    try:
        return parse_time(text, now, utc=options.utc)
    except ValueError as error:
        raise CommandError(f"{flag}: {error}", ExitStatus.USAGE) from None


def _use_colour(choice: str) -> bool:
    if choice == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return choice == "always"


def _batches(
    options: argparse.Namespace, sieve: read.Sieve, note: Callable[[str], None], stack: contextlib.ExitStack
) -> Iterator[read.Batch]:
    count = options.last
    if count is None and not (options.all or options.since or options.until or options.input_file):
        count = DEFAULT_LAST
    if options.input_file == "-":
        yield from _stream(sys.stdin.buffer, sieve, count)
        return
    if options.input_file:
        path = Path(options.input_file)
        files = [] if options.follow and not path.exists() else [stack.enter_context(read.open_file(path))]
        if files and not read.is_seekable(files[0]):
            yield from _stream(files[0], sieve, count)
            return
    else:
        from slowpath.cli.places import records_path  # noqa: PLC0415  # may need YAML

        path = records_path(options.config)
        files = [stack.enter_context(file) for file in read.open_all(path)]
    if not files and not options.follow:
        raise CommandError(
            f"{path}: no records there; has the gateway run? --config and --input-file name other places"
        )
    yield from _of_files(path, files, sieve, count, follow=options.follow, note=note)


def _stream(file: BinaryIO, sieve: read.Sieve, count: int | None) -> Iterator[read.Batch]:
    return read.forwards(file, sieve) if count is None else read.last_of_stream(file, sieve, count)


def _of_files(
    path: Path,
    files: list[BinaryIO],
    sieve: read.Sieve,
    count: int | None,
    *,
    follow: bool,
    note: Callable[[str], None],
) -> Iterator[read.Batch]:
    if not follow:
        if count is not None:
            yield from read.last(files, sieve, count)
            return
        for file in files:
            yield from read.forwards(file, sieve)
        return
    newest = files[-1] if files else None
    offset = 0
    if count is None:
        for file in files[:-1]:
            yield from read.forwards(file, sieve)
    elif newest is not None:
        # A line that is still being written is the follower's.
        offset = read.line_end(newest)
        yield from read.last(files, sieve, count, offset)
    yield from read.Follower(path, sieve, file=newest, offset=offset, note=note)
