"""The bench's own BPF programs (minimal.c), compiled as the gateway's are and pinned apart from it."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastpath import abi
from fastpath.libbpf import Map, MapShape, Program
from fastpath.loader.compile import Places, compile_and_pin
from fastpath.loader.source import flatten

SOURCE = Path(__file__).with_name("minimal.c")
BPFFS = Path("/sys/fs/bpf")
PREFIX = "microseg-bench-"

PROGRAMS = ("empty", "minimal", "scatter", "replay")
MAPS = ("flows", "walk", "target", "ends", "stamps")

ENTRIES = 1_000_000
# That `replay` has room for.
FLOWS = 20_000

_numbers = itertools.count()


class Peers:
    """Empty and minimal program, and those that run any program over many flows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.empty, self.minimal, self.scatter, self.replay = (Program.open(root / name) for name in PROGRAMS)
        self.flows, self._walk, self._target, self._ends, self._stamps = (Map.open(root / name) for name in MAPS)

    def aim(self, program: Program) -> None:
        """What `scatter` and `replay` call from now on."""
        self._target.update(struct.pack("=I", 0), struct.pack("=I", program.fd))

    def spread(self, base: int, count: int, step: int = 1) -> None:
        """Which addresses `scatter` takes from now on: `base` + 0 .. `count` - 1, each once before any
        comes again (`step` and `count` have no common divisor).
        """
        self._walk.update(struct.pack("=I", 0), struct.pack("=4Q", 0, step, count, base))

    def deal(self, ends: bytes, shift: int = 0) -> None:
        """The flows that `replay` goes through from now on: `struct ends` one after the other, `shift` added to their
        source ports.
        """
        count = len(ends) // self._ends.shape.value_size
        self._ends.update_batch(array("I", range(count)).tobytes(), ends)
        self.spread(shift, count)

    def stamps(self, count: int) -> list[int]:
        """When `replay` began with each of the first so many flows, nanoseconds."""
        return list(itertools.chain.from_iterable(values.cast("Q") for _, _, values in self._stamps.batches()))[:count]


@contextlib.contextmanager
def peers(sessions: MapShape | None = None, cflags: Sequence[str] = ()) -> Iterator[Peers]:
    """Compile, pin, and remove in the end; the flow table is like the gateway's `sessions`."""
    sweep()
    root = BPFFS / f"{PREFIX}{os.getpid()}" / str(next(_numbers))
    root.mkdir(mode=0o700, parents=True)
    try:
        compile_and_pin(
            flatten(SOURCE),
            cflags=[
                f"-DENTRIES={sessions.max_entries if sessions else ENTRIES}",
                f"-DVALUE_BYTES={ctypes.sizeof(abi.Session)}",
                f"-DTABLE_FLAGS={sessions.flags if sessions else 0}",
                f"-DFLOWS={FLOWS}",
                "-Wno-everything",
                *cflags,
            ],
            places=Places({name: root / name for name in PROGRAMS}, {name: root / name for name in MAPS}),
        )
        made = Peers(root)
        if sessions and made.flows.shape != sessions:
            raise RuntimeError(f"the bench's table is {made.flows.shape}, the gateway's {sessions}")
        yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)
        with contextlib.suppress(OSError):
            root.parent.rmdir()


def sweep() -> None:
    """Remove what a killed bench left."""
    for root in BPFFS.glob(f"{PREFIX}*"):
        if not Path(f"/proc/{root.name.removeprefix(PREFIX)}").exists():
            shutil.rmtree(root, ignore_errors=True)
