"""`microseg-fastpath sessions`: what the kernel holds now, and closing some of it."""

from __future__ import annotations

import argparse
import functools
import heapq
import json
import operator
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastpath import abi
from fastpath.commands import Clocks, Commands
from fastpath.config import Config
from fastpath.exit import CommandError, ExitStatus
from fastpath.filters import add_filters
from fastpath.gateway import open_map, pins_of
from fastpath.policy.icmp import has_types, type_text
from fastpath.policy.model import PROTOCOL_NUMBERS
from fastpath.resets import Resetter
from fastpath.selection import GROUPS, ORDERS, Batch, RuleNames, address, batches, flags, l4_name, select
from fastpath.text import escape
from fastpath.word import Word

FORMATS = ("table", "compact", "json")
MOST = 1000  # rows, unless --limit says otherwise
WATCH = 2.0

Row = dict[str, Any]

_FIRST = operator.itemgetter(0)


def add_list(parser: argparse.ArgumentParser) -> None:
    """Options of `sessions list`."""
    add_filters(parser, flags())
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", choices=FORMATS, default="table", help="json is one session a line")
    group.add_argument("--limit", type=_limit, default=MOST, metavar="N", help=f"N rows at most (0: all; {MOST})")
    group.add_argument("--sort", type=_order, metavar="KEY[:desc]", help=f"by one of {', '.join(ORDERS)}")
    group.add_argument("--count", action="store_true", help="only how many there are")
    group.add_argument("--by", choices=tuple(GROUPS), metavar="FIELD", help=f"with --count: {', '.join(GROUPS)}")
    group.add_argument(
        "--watch", nargs="?", type=_interval, const=WATCH, metavar="SECONDS", help=f"again and again ({WATCH:g} s)"
    )


def add_close(parser: argparse.ArgumentParser) -> None:
    """Options of `sessions close`."""
    add_filters(parser, flags())
    parser.add_argument("--all", action="store_true", help="close every session")
    parser.add_argument("--dry-run", action="store_true", help="only show which")
    parser.add_argument("-o", "--output", choices=("compact", "json"), default="compact", help="what was closed")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of sessions")
    return int(text)


def _order(text: str) -> tuple[str, bool]:
    name, colon, direction = text.partition(":")
    if name not in ORDERS or (colon and direction not in {"asc", "desc"}):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(ORDERS)}, with :desc or without")
    return name, direction == "desc"


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0.1 to 3600")
    return seconds


def _check(options: argparse.Namespace, *wrong: tuple[bool, str]) -> None:
    for is_so, text in ((options.negate, "--not needs a filter behind it"), *wrong):
        if is_so:
            raise CommandError(text, ExitStatus.USAGE)


class _Gateway:
    """What the commands read."""

    def __init__(self, config: Config) -> None:
        self.table = open_map(config, "sessions")
        self.commands = Commands(pins_of(config))
        self.rules = RuleNames(config.run_dir)

    @functools.cached_property
    def hertz(self) -> int:
        return self.commands.hertz()

    def batches(self) -> Iterator[Batch]:
        return batches(self.table, self.rules)

    def row(self, key: bytes, session: abi.Session, now: Clocks) -> Row:
        """A session for people and programs."""
        batch = Batch(1, key, bytes(session), self.rules)
        word = Word.unpack(session.verdict)
        return {
            "session": session.id,
            "src": address(batch.src[0]),
            "sport": batch.sport[0],
            "dst": address(batch.dst[0]),
            "dport": batch.dport[0],
            "l4": l4_name(batch.l4[0]),
            "protocol": abi.Protocol(session.protocol).name.lower(),
            "verdict": word.verdict.name.lower(),
            "scope": word.scope.name.lower(),
            "reason": word.reason.name.lower(),
            "rule": self.rules.of(session.verdict >> abi.Word.RULE),
            "revision": word.revision,
            "tcp": [abi.Tcp(state).name.lower() for state in batch.states[0]] if batch.states[0] else None,
            "packets": list(session.packets),
            "bytes": list(session.bytes),
            "held": list(session.held),
            "age": round((now.ns - session.first_ns) / 1e9, 3),
            "idle": round(max(0, now.jiffies - session.last_jiffies) / self.hertz, 3),
        }


# -- list --------------------------------------------------------------------------------------------------------------


def show(config: Config, options: argparse.Namespace) -> int:
    """Print the sessions that match, or how many there are; with --watch again and again."""
    _check(
        options,
        (options.by is not None and not options.count, "--by goes with --count"),
        (options.sort is not None and options.count, "--sort and --count contradict each other"),
        (options.watch is not None and options.output == "json", "--watch is for people, -o json is not"),
    )
    gateway = _Gateway(config)
    if options.watch is None:
        for line in _lines(gateway, options, options.limit):
            sys.stdout.write(line + "\n")
        return ExitStatus.OK
    screen = sys.stdout.isatty()
    while True:
        size = shutil.get_terminal_size()
        rows = max(1, size.lines - 2)
        lines = list(_lines(gateway, options, min(options.limit or rows, rows)))
        if screen:
            lines = [line[: size.columns] for line in lines[: size.lines - 1]]
            sys.stdout.write("\x1b[H\x1b[2J" + "\n".join(lines) + "\n")
        else:
            sys.stdout.write("\n".join(lines) + "\n\n")
        sys.stdout.flush()
        time.sleep(options.watch)


def _lines(gateway: _Gateway, options: argparse.Namespace, limit: int) -> Iterator[str]:
    if options.count:
        return _counted(gateway, options, limit)
    now = gateway.commands.clocks()
    rows = (gateway.row(key, session, now) for key, session in _chosen(gateway, options, limit))
    return _FORMATS[options.output](rows)


def _counted(gateway: _Gateway, options: argparse.Namespace, limit: int) -> Iterator[str]:
    positions = select(options.filters)
    if options.by is None:
        number = sum(len(positions(batch)) for batch in gateway.batches())
        yield json.dumps({"count": number}) if options.output == "json" else str(number)
        return
    column = GROUPS[options.by]
    raw: Counter[Any] = Counter()
    for batch in gateway.batches():
        chosen = positions(batch)
        values = column.values(batch)
        raw.update(values if len(chosen) == batch.count else [values[n] for n in chosen])
    # Several values may have one name, like a rule in two revisions.
    named: Counter[str] = Counter()
    for value, number in raw.most_common(limit or None):
        named[column.text(value)] += number
    if options.output != "json":
        yield f"{'COUNT':>9}  {options.by.upper()}"
    for name, number in named.most_common():
        if options.output == "json":
            yield json.dumps({options.by: name, "count": number})
        else:
            yield f"{number:>9}  {escape(name, 60)}"


def _chosen(gateway: _Gateway, options: argparse.Namespace, limit: int) -> Iterator[tuple[bytes, abi.Session]]:
    positions = select(options.filters)
    if options.sort is None:
        left = limit or sys.maxsize
        for batch in gateway.batches():
            for n in positions(batch)[:left]:
                yield batch.key(n), batch.session(n)
                left -= 1
            if not left:
                return
        return
    name, descending = options.sort
    pick = heapq.nlargest if descending else heapq.nsmallest
    best: list[tuple[Any, bytes, abi.Session]] = []
    for batch in gateway.batches():
        values = [_comparable(value) for value in ORDERS[name].values(batch)]
        # No more of each batch than can be shown.
        chosen = positions(batch)
        chosen = pick(limit, chosen, key=values.__getitem__) if limit else chosen
        best += [(values[n], batch.key(n), batch.session(n)) for n in chosen]
        if limit:
            best = pick(limit, best, key=_FIRST)
    best.sort(key=_FIRST, reverse=descending)
    for _, key, session in best:
        yield key, session


def _comparable(value: Any) -> Any:
    """Not every session has a TCP state: those without come first."""
    return () if value is None else value


def _json(rows: Iterable[Row]) -> Iterator[str]:
    return map(json.dumps, rows)


def _compact(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        state = f" {'/'.join(row['tcp'])}" if row["tcp"] else ""
        yield (
            f"{row['l4']} {_end(row['src'], row['sport'])} > {_end(row['dst'], _dport(row))} {row['protocol']} "
            f"{row['verdict']} {row['reason']} {_rule(row)}{state} {sum(row['packets'])} pkts {sum(row['bytes'])} B "
            f"{row['age']:.1f}s {row['session']:#x}"
        )


def _table(rows: Iterable[Row]) -> Iterator[str]:
    line = "{:<5} {:<46} {:<46} {:<9} {:<9} {:<12} {:<16} {:<23} {:>9} {:>12} {:>9} {:>9}"
    yield line.format(
        "L4", "CLIENT", "SERVER", "PROTOCOL", "VERDICT", "REASON", "RULE", "STATE", "PACKETS", "BYTES", "AGE", "IDLE"
    )
    for row in rows:
        yield line.format(
            row["l4"],
            f"{row['src']} {row['sport']}",
            f"{row['dst']} {_dport(row)}",
            row["protocol"],
            row["verdict"],
            row["reason"],
            _rule(row),
            "/".join(row["tcp"]) if row["tcp"] else "-",
            sum(row["packets"]),
            sum(row["bytes"]),
            f"{row['age']:.1f}s",
            f"{row['idle']:.1f}s",
        )


_FORMATS = {"json": _json, "compact": _compact, "table": _table}


def _dport(row: Row) -> str:
    """Of ICMP type and code."""
    l4 = PROTOCOL_NUMBERS.get(row["l4"], 0)
    return type_text(l4, row["dport"]) if has_types(l4) else str(row["dport"])


def _end(host: str, port: int | str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _rule(row: Row) -> str:
    return escape(row["rule"], 16)


# -- close -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Closed:
    number: int = 0
    gone: int = 0
    unreached: int = 0


def close(config: Config, options: argparse.Namespace) -> int:
    """End the sessions that match. TCP: both ends are reset and no segment passes any more, until a new SYN."""
    _check(
        options,
        (not options.filters and not options.all, "name sessions by filters, or all of them by --all"),
        (bool(options.filters) and options.all, "--all and filters contradict each other"),
    )
    gateway = _Gateway(config)
    positions = select(options.filters)
    resetter = Resetter()
    told = _Closed()
    try:
        for batch in gateway.batches():
            chosen = [(batch.key(n), batch.session(n)) for n in positions(batch)]
            if not options.dry_run:
                chosen = list(_end_all(gateway, resetter, chosen, told))
            told.number += len(chosen)
            now = gateway.commands.clocks()
            rows = [gateway.row(key, session, now) for key, session in chosen]
            for line in _FORMATS[options.output](rows):
                sys.stdout.write(line + "\n")
    finally:
        resetter.close()
        sys.stdout.flush()
        verb = "would be closed" if options.dry_run else "closed"
        more = f", {told.gone} had ended by themselves" if told.gone else ""
        more += f", {told.unreached} of them without a reset: no way to an end" if told.unreached else ""
        sys.stderr.write(f"{told.number} session{'' if told.number == 1 else 's'} {verb}{more}\n")
    return ExitStatus.OK


def _end_all(
    gateway: _Gateway, resetter: Resetter, chosen: list[tuple[bytes, abi.Session]], told: _Closed
) -> Iterator[tuple[bytes, abi.Session]]:
    """Those that were there to be ended, as they were before."""
    commands = [
        abi.Command(op=abi.Op.CLOSE, key=abi.Key.from_buffer_copy(key), id=session.id) for key, session in chosen
    ]
    for (key, session), answer in zip(chosen, gateway.commands.apply(commands), strict=True):
        if answer.status != abi.Status.OK:
            told.gone += 1
            continue
        # Closed first: from then on the numbers move no more.
        value = gateway.table.lookup(key)
        if answer.key.l4 == socket.IPPROTO_TCP and value is not None:
            try:
                resetter.reset(key, abi.Session.from_buffer_copy(value))
            except OSError:
                told.unreached += 1
        yield key, session


ACTIONS = (
    ("list", add_list, show, "show them, count them, watch them (what `sessions` alone does)"),
    ("close", add_close, close, "end some: both ends of a TCP connection are reset"),
)
