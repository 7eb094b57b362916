"""What a policy's size costs: reading, compiling and loading it, a reload that changes one rule, and memory.

The parts are those of a start of the daemon, with its own functions. The reload goes through a running daemon that is
asked to apply a file in which one rule is another. Best of a few tries, the median of the reloads.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from bench.filled import Filled, filled
from bench.gateway import FASTPATH, Gateway
from bench.policies import COUNTS, Sizes, changed, generate
from bench.programs import peers
from bench.results import Result
from bench.rounds import ROUNDS
from bench.start_up import MEGABYTE
from fastpath.admin_client import request_change
from fastpath.exit import CommandError
from fastpath.loader.pins import MAPS
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.read import load_policy
from tests.lab.namespaces import Lab

TRIES = min(3, ROUNDS)
# The last of them also replace counters of rules.
RELOADS = min(12, ROUNDS)
PATIENCE = 300  # seconds
# Of the largest policy.
LOAD_TARGET, RELOAD_TARGET = 10, 1
SESSIONS = 1024

T = TypeVar("T")


def bench() -> Iterator[Result]:
    """Seconds and megabytes."""
    with peers() as bed, filled("lru", SESSIONS, bed) as table:
        for count in COUNTS:
            yield from _parts(table, count)
    for count in COUNTS:
        yield from _daemon(count)


def _parts(table: Filled, count: int) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text(generate(Sizes.of(count)).text)
        seconds: dict[str, list[float]] = {"read": [], "compile": [], "load": []}

        def timed(part: str, work: Callable[[], T]) -> T:
            start = time.monotonic()
            result = work()
            seconds[part].append(time.monotonic() - start)
            return result

        for _ in range(TRIES):
            policy = timed("read", lambda: load_policy(path, lambda _: None))
            tables = timed("compile", lambda policy=policy: compile_policy(policy))  # type: ignore[misc]
            revision = table.revisions.next()
            timed("load", lambda tables=tables, revision=revision: table.revisions.apply(tables, revision))  # type: ignore[misc]
    best = {part: min(values) for part, values in seconds.items()}
    target = LOAD_TARGET if count == 100_000 else None
    yield Result(f"policy_load.{count}", "s", sum(best.values()), target=target)
    for part, value in best.items():
        yield Result(f"policy_load.{count}.{part}", "s", value)
    yield Result(f"policy_load.{count}.kernel_memory", "MB", _policy_memory(table) / MEGABYTE)


def _policy_memory(table: Filled) -> int:
    """Bytes of the maps of the policy in force; bpftool asks the kernel for those that only others refer to."""
    table.revisions.retire()
    total = 0
    for outer in (table.pins.map(name) for name in MAPS if name.startswith("pol_")):
        for number in filter(None, map(outer.lookup, list(outer.keys()))):
            argv = ["bpftool", "-j", "map", "show", "id", str(int.from_bytes(number, sys.byteorder))]
            shown = subprocess.run(argv, capture_output=True, check=True).stdout
            total += json.loads(shown)["bytes_memlock"]
    return total


def _daemon(count: int) -> Iterator[Result]:
    text = generate(Sizes.of(count)).text
    times = []
    # Not on its own account: the file is applied when it is asked for.
    with Lab() as lab, Gateway(lab, text, {"watch": False}, inspector=False) as gateway:
        socket = gateway.directory / "run" / "fastpath.sock"
        time.sleep(1)  # what the first moments leave behind is freed
        started = gateway.resident(FASTPATH)
        for number in range(RELOADS):
            gateway.write_policy(changed(text, number))
            start = time.monotonic()
            code, answer = request_change(socket, "/policy/apply", timeout=PATIENCE)
            times.append(time.monotonic() - start)
            if code != 200:
                raise CommandError(f"reload: {answer}")
        time.sleep(1)
        reloaded = gateway.resident(FASTPATH)
    target = RELOAD_TARGET if count == 100_000 else None
    yield Result(f"policy_load.{count}.reload", "s", statistics.median(times), target=target)
    yield Result(f"policy_load.{count}.resident", "MB", started / MEGABYTE)
    yield Result(f"policy_load.{count}.resident_reloaded", "MB", reloaded / MEGABYTE)
