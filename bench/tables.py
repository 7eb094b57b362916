"""The kinds of session table: what each does when it is full, and what a million sessions cost.

First as many inserts as there is room for, from one CPU, then half as many more. `live` and `kept` are shares of
the capacity: what is in the table after the first, and how many of those still are after the second. A sweep
is over a table in which nothing is over, an emergency sweep over one in which all sessions are half-open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from bench.filled import Filled, filled
from bench.programs import peers
from bench.results import HIGHER, Result
from bench.testrun import SYN, tcp
from fastpath import abi
from fastpath.loader.pins import KINDS
from fastpath.statistics import sessions
from fastpath.sweep import HALF_OPEN_AGE, Sweep

CAPACITY = 1_000_000
OPENING = tcp(SYN, seq=100)
NEVER = [1 << 40] * abi.Timeout.MAX


def ids(table: Filled) -> set[int]:
    """Of all sessions."""
    return {session.id for _, session in sessions(table.table)}


def sweeps(table: Filled) -> Iterator[Result]:
    """CPU seconds of a full sweep, seconds of an emergency sweep."""
    sweep = Sweep(table.table, table.stats, table.commands, table.population, table.hertz)
    begin = time.thread_time()
    asyncio.run(sweep.full(NEVER, share=1))
    # Of a core, at one sweep in ten seconds.
    yield Result("tables.sweep_share", "%", (time.thread_time() - begin) * 10, target=10)
    time.sleep(2 * HALF_OPEN_AGE)
    begin = time.monotonic()
    asyncio.run(sweep.emergency(table.revisions.settings.timeouts))
    yield Result("tables.emergency_sweep", "s", time.monotonic() - begin, target=2)
    if table.live:
        raise RuntimeError(f"{table.live} sessions are left")


def bench() -> Iterator[Result]:
    """Shares in percent of the capacity."""
    with peers() as bed:
        for kind in KINDS:
            with filled(kind, CAPACITY, bed) as table:
                table.send(OPENING, CAPACITY)
                live = table.live
                first = ids(table)
                table.send(OPENING, CAPACITY // 2, first=CAPACITY)
                kept = len(first & ids(table))
                stats = table.counters.stats
                after = table.live
                percent = 100 / CAPACITY
                target = 99 if kind == "lru" else None
                yield Result(f"tables.{kind}.live", "%", live * percent, target=target, better=HIGHER)
                yield Result(f"tables.{kind}.kept", "%", kept * percent, better=HIGHER)
                yield Result(f"tables.{kind}.evicted", "%", (stats["inserts"] - after) * percent)
                yield Result(f"tables.{kind}.refused", "%", stats["insert_failures"] * percent)
                yield Result(f"tables.{kind}.memory", "B/session", table.memory / CAPACITY)
                if kind == "lru":
                    yield from sweeps(table)
