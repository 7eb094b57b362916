"""The fast path's daemon: keeps the kernel half as the configuration wants it.

Nothing depends on it for traffic: stopping or killing it detaches nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fastpath import abi
from fastpath.accelerate import RouteChanges
from fastpath.admin import AdminError, AdminServer, Answer
from fastpath.config import Config, load_config
from fastpath.document import InvalidDocumentError
from fastpath.exit import CommandError
from fastpath.gateway import Gateway, need_root, only_instance, trim_memory
from fastpath.loader.pins import Table
from fastpath.policy.source import Stamp, read_source, stamp
from fastpath.population import Population
from fastpath.statistics import heartbeat_age, read_counters
from fastpath.sweep import HALF_OPEN_AGE, SHARE, Sweep

PRESSURE_INTERVAL = 0.25
FOLLOW_INTERVAL = 1.0
EMERGENCY_INTERVAL = 2.0
# Two equal looks at the policy files, so far apart, mean that nobody is writing any more.
WATCH_INTERVAL = 1.0
# What a crash of the host may cost of the rules' counters.
HITS_INTERVAL = 300.0
# Packets on their way still read the slot of the revision before.
GRACE = 1.0
# Of a broken policy, as many as anybody will read.
MAX_PROBLEMS = 1000
# Share of the table (design section 2, rule 11), highest first.
LEVELS = ((0.98, abi.Pressure.FULL), (0.90, abi.Pressure.HIGH), (0.70, abi.Pressure.WARN))

log = logging.getLogger(__name__)


class Service:
    """One daemon, from start to stop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = load_config(path)
        self.gateway = Gateway(self.config)
        self.started = time.time()
        self.population = Population(Table(self.config.capacity, self.config.table))
        self.pressure = abi.Pressure.NONE
        self.problem: str | None = None
        self.policy_problem: str | None = None  # why what the files say is not in force
        # Of the policy files: when they were dealt with, and at the last look.
        self._dealt: Stamp = stamp(self.config.policy)
        self._looked: Stamp = ()
        self._retire: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        # Reading and compiling take their time in a thread; whoever asks meanwhile is next.
        self._renewing = asyncio.Lock()
        self._need = asyncio.Event()

    async def run(self) -> None:
        """Load, attach, serve until told to stop."""
        need_root()
        with only_instance(self.config.pin_root):
            await self.gateway.start()
            self._stats = self.gateway.pins.map("stats")
            self.sweep = Sweep(
                self.gateway.pins.map("sessions"), self._stats, self.gateway.commands, self.population,
                self.gateway.hertz,
            )  # fmt: skip
            registry = CollectorRegistry()
            registry.register(_Metrics(self))
            admin = AdminServer(
                self.config.fastpath_socket, status=self.status, health=lambda: self.problem, registry=registry,
                tcp=self.config.fastpath_listen, changes={"/policy/apply": self._apply, "/policy/check": self._check},
            )  # fmt: skip
            try:
                await admin.start()
            except AdminError as error:
                raise CommandError(str(error)) from None
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
            loop.add_signal_handler(signal.SIGHUP, self._reload.set)
            log.info(
                "ready: %s, revision %d, programs %s", ", ".join(self.config.interfaces),
                self.gateway.revisions.revision, self.gateway.origin,
            )  # fmt: skip
            trim_memory()
            try:
                with RouteChanges(self.gateway.acceleration):
                    async with asyncio.TaskGroup() as group:
                        tasks = [
                            group.create_task(self._every(PRESSURE_INTERVAL, self._press)),
                            group.create_task(self._every(FOLLOW_INTERVAL, self._follow)),
                            group.create_task(self._sweeps()),
                            group.create_task(self._emergencies()),
                            group.create_task(self._reloads()),
                            group.create_task(self._every(WATCH_INTERVAL, self._watch)),
                            group.create_task(self._every(HITS_INTERVAL, self._save_hits)),
                        ]
                        await self._stop.wait()
                        for task in tasks:
                            task.cancel()
                await self._try(self._save_hits())
            finally:
                await admin.stop()
            log.info("stopped; the kernel goes on with what is loaded")

    def status(self) -> dict[str, Any]:
        """For `status` and the admin socket."""
        counters = read_counters(self._stats)
        clocks = self.gateway.commands.clocks()
        age = heartbeat_age(self.gateway.pins, clocks.jiffies, self.gateway.hertz)
        return {
            "version": version(),
            "pid": os.getpid(),
            "uptime": round(time.time() - self.started, 1),
            "healthy": self.problem is None,
            "problem": self.problem,
            "config": str(self.config.file),
            "policy": {
                "file": str(self.config.policy),
                "revision": self.gateway.revisions.revision,
                "rules": self.gateway.rules,
                "digest": self.gateway.digest,
                "problem": self.policy_problem or self.gateway.unkept,
            },
            "interfaces": {name: self.gateway.attachment.ifindex.get(name) for name in self.config.interfaces},
            "accelerate": self.gateway.acceleration.status,
            "tap": self.gateway.config.tap,
            "pins": str(self.gateway.pins.directory),
            "programs": self.gateway.origin,
            "inspector": {
                "alive": age is not None and age <= self.config.inspection.timeout,
                "last_heartbeat": None if age is None else round(age, 3),
            },
            "sessions": {
                "live": self.population.live(counters),
                "capacity": self.config.capacity,
                "kind": self.config.table,
                "pressure": self.pressure.name.lower(),
                "evictions": self.population.evictions(counters),
                "swept": self.sweep.swept,
                "emergency_sweeps": self.sweep.emergencies,
            },
            "packets": counters.stats,
            "drops": {reason: number for reason, number in counters.drops.items() if number},
        }

    async def _every(self, seconds: float, task: Callable[[], Awaitable[object]]) -> None:
        """Again and again."""
        while True:
            await asyncio.sleep(seconds)
            await self._try(task())

    async def _try(self, task: Awaitable[object]) -> None:
        """A failure is reported and does not end the daemon."""
        try:
            await task
        except (OSError, CommandError) as error:
            log.error("%s", error)

    async def _press(self) -> None:
        used = self.population.fullness(read_counters(self._stats))
        pressure = next((level for share, level in LEVELS if used >= share), abi.Pressure.NONE)
        if pressure != self.pressure:
            tell = log.warning if pressure > self.pressure else log.info
            tell("session table %.0f %% full: %s", used * 100, pressure.name.lower())
            self.pressure = pressure
            self.gateway.revisions.press(pressure)
        if pressure >= abi.Pressure.HIGH:
            self._need.set()

    async def _follow(self) -> None:
        missing = self.gateway.attachment.missing()
        self.problem = f"missing interfaces: {', '.join(missing)}" if missing else None
        await self.gateway.follow()

    async def _sweeps(self) -> None:
        # The first tells how many sessions an earlier daemon left, so it does not take its time.
        await self._try(self.sweep.full(self.gateway.revisions.settings.timeouts, share=1))
        while True:
            await asyncio.sleep(self.config.sweep)
            await self._try(self.sweep.full(self.gateway.revisions.settings.timeouts))

    async def _save_hits(self) -> None:
        await asyncio.to_thread(self.gateway.ledger.save)

    async def _emergencies(self) -> None:
        while True:
            await self._need.wait()
            await self._try(self._emergency())
            self._need.clear()

    async def _emergency(self) -> None:
        """What was too young for the first sweep is not for the second; then no more than their share of a core."""
        timeouts = self.gateway.revisions.settings.timeouts
        start, swept = time.monotonic(), self.sweep.swept
        cost = await self.sweep.emergency(timeouts)
        await asyncio.sleep(HALF_OPEN_AGE - (time.monotonic() - start))
        await self._press()
        if self.pressure >= abi.Pressure.HIGH:
            cost += await self.sweep.emergency(timeouts)
        log.warning("emergency: %d sessions swept in %.1f s", self.sweep.swept - swept, time.monotonic() - start)
        await asyncio.sleep(max(EMERGENCY_INTERVAL, cost / SHARE))

    async def _reloads(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            with contextlib.suppress(InvalidDocumentError, CommandError, OSError):  # said already
                await self._renew("sighup", lambda: load_config(self.path))

    async def _watch(self) -> None:
        """Apply policy files that changed and rest. Nothing else of the configuration: that waits to be asked for."""
        if not self.config.watch:
            return
        now = stamp(self.config.policy)
        settled, self._looked = now == self._looked, now
        if now == self._dealt or not settled:
            return
        self._dealt = now
        with contextlib.suppress(InvalidDocumentError, CommandError, OSError):  # said already
            # Touched, or put back after a failure: sessions need not be judged anew.
            if await asyncio.to_thread(self._as_in_force):
                self.policy_problem = None
            else:
                await self._renew("watch", lambda: self.config)

    def _as_in_force(self) -> bool:
        """What the files hold is in force. What cannot be read is not; the reload says why."""
        try:
            return read_source(self.config.policy).digest == self.gateway.digest
        except InvalidDocumentError:
            return False

    async def _renew(self, why: str, read: Callable[[], Config]) -> dict[str, Any]:
        """Apply what the files say now, one after the other; what goes wrong is logged."""
        async with self._renewing:
            return await self._renew_now(why, read)

    async def _renew_now(self, why: str, read: Callable[[], Config]) -> dict[str, Any]:
        start = time.monotonic()
        before = self.gateway.revisions.revision
        try:
            config = read()
            self._dealt = stamp(config.policy)
            sizes = await self.gateway.reload(config, why)
        except (InvalidDocumentError, CommandError, OSError) as error:
            lines = str(error).splitlines()
            for line in lines:
                log.error("%s", line)
            log.error("nothing was applied; revision %d stays", before)
            self.policy_problem = lines[0] + (f" (and {len(lines) - 1} more)" if lines[1:] else "")
            raise
        self.config, self.policy_problem = config, None
        trim_memory()
        if self._retire is not None:
            self._retire.cancel()
        self._retire = asyncio.get_running_loop().call_later(GRACE, self.gateway.revisions.retire)
        return {
            "revision": self.gateway.revisions.revision,
            "before": before,
            "digest": self.gateway.digest,
            "sizes": str(sizes),
            "seconds": round(time.monotonic() - start, 3),
            "warning": self.gateway.unkept,
        }

    async def _apply(self, query: Mapping[str, str]) -> Answer:
        """POST /policy/apply?why=apply|rollback."""
        why = query.get("why", "apply")
        if why not in {"apply", "rollback"}:
            return 400, {"error": "why: apply or rollback"}
        return await _answer(self._renew(why, lambda: load_config(self.path)))

    async def _check(self, query: Mapping[str, str]) -> Answer:
        """POST /policy/check?policy=PATH: whether it would be applied if it were the configured one."""

        async def check() -> dict[str, Any]:
            async with self._renewing:
                config = dataclasses.replace(load_config(self.path), policy=Path(query.get("policy", "")))
                sizes = await self.gateway.check(config)
                return {"sizes": str(sizes), "revision": self.gateway.revisions.revision}

        return await _answer(check())


async def _answer(asked: Awaitable[dict[str, Any]]) -> Answer:
    """200 with what was asked for, or what is wrong: 422 with problems of documents, 409 with any other error."""
    try:
        return 200, await asked
    except InvalidDocumentError as error:
        return 422, {"problems": [dataclasses.asdict(problem) for problem in error.problems[:MAX_PROBLEMS]]}
    except (CommandError, OSError) as error:
        return 409, {"error": str(error)}


class _Metrics(Collector):
    """The counters, for Prometheus."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """One family for each kind of figure."""
        status = self._service.status()
        events = CounterMetricFamily("microseg_events", "What the kernel half counted.", labels=["event"])
        for name, number in status["packets"].items():
            events.add_metric([name], number)
        yield events
        drops = CounterMetricFamily("microseg_drops", "Dropped packets (monitored ones too).", labels=["reason"])
        for name, number in status["drops"].items():
            drops.add_metric([name], number)
        yield drops
        for name, text, value in (
            ("sessions", "Live sessions.", status["sessions"]["live"]),
            ("sessions_capacity", "Room in the session table.", status["sessions"]["capacity"]),
            ("sessions_pressure", "How full it is: 1 from 70 %, 2 from 90 %, 3 from 98 %.", self._service.pressure),
            ("policy_revision", "Policy in force.", status["policy"]["revision"]),
            ("inspector_alive", "The inspector's heartbeat is fresh.", status["inspector"]["alive"]),
        ):
            yield GaugeMetricFamily(f"microseg_{name}", text, value=float(value))
        for name, text, value in (
            ("evictions", "Sessions that the table forgot.", status["sessions"]["evictions"]),
            ("swept", "Sessions that sweeps ended.", status["sessions"]["swept"]),
            ("emergency_sweeps", "Sweeps of a nearly full table.", status["sessions"]["emergency_sweeps"]),
        ):
            yield CounterMetricFamily(f"microseg_sessions_{name}", text, value=float(value))


def version() -> str:
    """Of the installed package."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("microseg")
    return "unknown"
