"""Start-up, and what the processes take in memory.

Each daemon until it answers, which is when it is attached: cold (compiled and loaded), cached (compiled earlier, as
after a boot) and warm (pins of the same ABI exist); `inspect` on a short log; `./run` with everything installed. Best
of a few tries.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from bench.gateway import FASTPATH, SLOWPATH, Gateway, allow_all
from bench.results import Result
from tests.lab.namespaces import ROOT, Lab

TRIES = 5
MEGABYTE = 1_000_000


def seconds(argv: Sequence[str | Path]) -> float:
    """How long a command takes that succeeds."""
    start = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{argv[0]}: {(done.stdout + done.stderr)[-1000:]}")
    return time.monotonic() - start


def daemons() -> Iterator[Result]:
    """Both daemons, 1,000 rules."""
    cold, cached, warm, inspector = [], [], [], []
    with Lab() as lab:
        compiled = lab.directory / "programs"
        for _ in range(TRIES):
            shutil.rmtree(compiled, ignore_errors=True)
            gateway = Gateway(lab, allow_all(), {"program_cache": str(compiled)})
            with closing(gateway):  # which unloads, so the next one finds nothing pinned
                cold.append(gateway.seconds_to_start(FASTPATH))
            with closing(gateway):
                cached.append(gateway.seconds_to_start(FASTPATH))
                gateway.stop(FASTPATH)
                warm.append(gateway.seconds_to_start(FASTPATH))
                inspector.append(gateway.seconds_to_start(SLOWPATH))
                time.sleep(1)  # what the first moments leave behind is freed
                resident = {daemon: gateway.resident(daemon) / MEGABYTE for daemon in (FASTPATH, SLOWPATH)}
    yield Result("start_up.fastpath_cold", "s", min(cold), target=5)
    yield Result("start_up.fastpath_cached", "s", min(cached), target=5)
    yield Result("start_up.fastpath_warm", "s", min(warm), target=1.5)
    yield Result("start_up.slowpath", "s", min(inspector))
    yield Result("memory.fastpath", "MB", resident[FASTPATH], target=60)
    yield Result("memory.slowpath", "MB", resident[SLOWPATH])


def bench() -> Iterator[Result]:
    """Seconds, milliseconds, megabytes."""
    yield from daemons()
    inspect: list[str | Path] = [
        Path(sys.executable).with_name(SLOWPATH),
        "inspect",
        "--last",
        "1",
        "--input-file",
        os.devnull,
    ]
    yield Result("start_up.inspect", "ms", min(seconds(inspect) for _ in range(10)) * 1000, target=150)
    seconds(["./run"])  # installs what is missing
    yield Result("start_up.run", "s", seconds(["./run"]), target=30)
