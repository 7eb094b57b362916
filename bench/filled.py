"""The gateway's programs with a session table of any kind, filled from one CPU without a network."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench import testrun
from bench.programs import BPFFS, Peers
from fastpath import abi
from fastpath.commands import Commands
from fastpath.config import Config
from fastpath.libbpf import Map
from fastpath.loader.pins import Pins, Table
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.model import Default, Log, Policy
from fastpath.population import Population
from fastpath.revisions import Revisions
from fastpath.statistics import Counters, read_counters

PREFIX = "microseg-filled-"
CLIENTS = testrun.address("11.0.0.0")


class Filled:
    """Loaded, and everything is allowed."""

    def __init__(self, pins: Pins, bed: Peers) -> None:
        self.pins = pins
        self.capacity = pins.table.capacity
        self.commands = Commands(pins)
        self.hertz = self.commands.hertz()
        self.revisions = Revisions(pins, self.hertz)
        # No port is failsafe: that would be a route lookup for each of its flows.
        self.revisions.configure(Config(Path(), (), Path(), Path(), capacity=self.capacity, failsafe=()), 1)
        self.revisions.apply(compile_policy(Policy((), Default(abi.Action.ALLOW, log=Log.NONE))), self.revisions.next())
        self.table, self.stats = pins.map("sessions"), pins.map("stats")
        self.population = Population(pins.table)
        self._bed = bed
        self.ingress = pins.program("ms_ingress")

    def send(self, frame: testrun.Frame, clients: int, *, first: int = 0) -> None:
        """The frame once for each of so many clients, all on this CPU."""
        self._bed.spread(CLIENTS + first, clients)
        testrun.scattered(self._bed, self.ingress, frame, clients)

    def clear(self) -> None:
        """No session is left."""
        size = self.table.shape.key_size
        keys = [bytes(keys[n * size : (n + 1) * size]) for count, keys, _ in self.table.batches() for n in range(count)]
        for key in keys:
            self.table.delete(key)

    @property
    def counters(self) -> Counters:
        """The kernel's."""
        return read_counters(self.stats)

    @property
    def live(self) -> int:
        """Sessions that a walk finds."""
        return sum(count for count, *_ in self.table.batches())

    @property
    def memory(self) -> int:
        """Bytes of the table."""
        return memlock(self.table)


def memlock(table: Map) -> int:
    """Bytes that the kernel says a map takes."""
    lines = Path(f"/proc/self/fdinfo/{table.fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("memlock:"))


@contextlib.contextmanager
def filled(kind: str, capacity: int, bed: Peers) -> Iterator[Filled]:
    """A gateway of its own; nothing stays. While it lasts, this thread is on one CPU."""
    for root in BPFFS.glob(f"{PREFIX}*"):
        if not Path(f"/proc/{root.name.split('-')[2]}").exists():
            shutil.rmtree(root, ignore_errors=True)
    pins = Pins(BPFFS / f"{PREFIX}{os.getpid()}-{secrets.token_hex(2)}", Table(capacity, kind))
    before = os.sched_getaffinity(0)
    try:
        pins.load()
        os.sched_setaffinity(0, {max(before)})
        yield Filled(pins, bed)
    finally:
        os.sched_setaffinity(0, before)
        pins.unload()
