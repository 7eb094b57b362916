"""The inspector's daemon: packet mode around the sans-io core, records, status.

All of it runs in one event loop, so the heartbeat stops when the inspector is stuck, and
the kernel half takes the rule's `on_inspector_down`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fastpath import log as logs
from fastpath.abi import Action
from fastpath.admin import AdminError, AdminServer
from fastpath.config import DEFAULT, Config, load_config
from fastpath.document import InvalidDocumentError, Problem
from fastpath.exit import CommandError, ExitStatus
from fastpath.gateway import need_root, only_instance, pins_of
from fastpath.loader.pins import Pins
from fastpath.service import version
from slowpath.core.frame import FrameError, checksum_ok, parse_frame
from slowpath.core.inspector import Inspector
from slowpath.core.model import Command, Decide, Discard, Exceptions, Limits, Release, Write
from slowpath.packet.events import Events
from slowpath.packet.kernel import KernelSessions, RuleNames
from slowpath.packet.tap import Frame, Tap, TapGoneError
from slowpath.record.write import Writer
from slowpath.rules.ruleset import RuleSet, load_rules
from slowpath.rules.vectors import Databases, unusable

# Objects made until Python looks for unused cycles among the youngest, then how many such looks until the next kind.
COLLECTION = (10_000, 10, 1000)
# design section 4: every 100 ms, gone after 1 s.
HEARTBEAT = 0.1
WAIT_FOR_FASTPATH = 60.0
CLOCK_INTERVAL = 60.0

log = logging.getLogger(__name__)


class Service:
    """One inspector, from start to stop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = load_config(path)
        self.rules, self.engine = read_rules(self.config), engine_of(self.config)
        self.started = time.time()
        self.not_judged: dict[str, int] = {}
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._failure: CommandError | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve until told to stop. CommandError when the kernel half went away."""
        need_root()
        with only_instance(self.config.pin_root, "microseg-slowpath"):
            self._loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop.set)
            pins = await self._wait_for_fastpath()
            if pins is None:
                return
            self.names = RuleNames(self.config.run_dir)
            self.kernel = KernelSessions(pins, self.names)
            self.writer = Writer(self.config.records.path, max_bytes=self.config.records.max_bytes,
                                 keep=self.config.records.keep)  # fmt: skip
            self.inspector = Inspector(self.rules, self.kernel, limits_of(self.config), exceptions_of(self.config))
            self.events = Events(pins, self.names.name, self.writer.write, self._ended)
            self.tap = Tap(self.config.tap_names[1])
            registry = CollectorRegistry()
            registry.register(_Metrics(self))
            admin = AdminServer(self.config.slowpath_socket, status=self.status, registry=registry,
                                tcp=self.config.slowpath_listen)  # fmt: skip
            try:
                await admin.start()
            except AdminError as error:
                raise CommandError(str(error)) from None
            self._loop.add_signal_handler(signal.SIGHUP, self._reload.set)
            self._loop.add_reader(self.tap.fileno(), self._packets)
            self._loop.add_reader(self.events.fd, self._events)
            self.kernel.commands.heartbeat()
            self._events()
            collect_seldom()
            log.info("ready: %d rule files, records go to %s", len(self.rules.files), self.config.records.path)
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._beat(pins)), group.create_task(self._reloads())]
                    await self._stop.wait()
                    for task in tasks:
                        task.cancel()
            finally:
                self._loop.remove_reader(self.tap.fileno())
                self._loop.remove_reader(self.events.fd)
                await admin.stop()
                self._do(self.inspector.close(self._loop.time()))
                self.tap.close()
                self.events.consume()
                self.events.close()
                self.writer.close()
            if self._failure is not None:
                raise self._failure
            log.info("stopped")

    async def _wait_for_fastpath(self) -> Pins | None:
        pins = pins_of(self.config)
        deadline = self._loop.time() + WAIT_FOR_FASTPATH
        said = False
        while not (pins.loaded and is_up(self.config.tap_names[1])):
            if not said:
                log.info("waiting for microseg-fastpath to load %s", pins.directory)
                said = True
            if self._loop.time() > deadline:
                raise CommandError(
                    f"{pins.directory}: nothing is loaded there; is microseg-fastpath running?", ExitStatus.UNREACHABLE
                )
            try:
                await asyncio.wait_for(self._stop.wait(), 0.05)
            except TimeoutError:
                continue
            return None
        return pins

    # -- packets --------------------------------------------------------------------------------------------------

    def _packets(self) -> None:
        now = self._loop.time()
        # Ends first: a new connection on the same ports is none of a known flow's.
        self.events.consume()
        if self.kernel.refresh():
            self.inspector.reload(self.rules)
        try:
            for frame in self.tap.frames():
                self._do(self._judge(frame, now))
        except TapGoneError:
            self._fail()
        self._arm()

    def _judge(self, frame: Frame, now: float) -> list[Command]:
        try:
            packet = parse_frame(frame.octets, frame)
        except FrameError as error:
            name = error.reason.name.lower()
            self.not_judged[name] = self.not_judged.get(name, 0) + 1
            return []
        packet.bad_checksum = not frame.checksum_known and not checksum_ok(packet)
        return self.inspector.packet(packet, now)

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Release):
                # What was decided before stands before the frame goes on.
                self.kernel.flush()
                if not self.tap.send(command.packet.context):
                    self.kernel.discard(command.packet)
            elif isinstance(command, Discard):
                self.kernel.discard(command.packet)
            elif isinstance(command, Decide):
                self.kernel.decide(command)
            elif isinstance(command, Write):
                record = command.record
                # The core's time stood still since the frame was taken from the tap.
                spent = self._loop.time() - record["ts"]
                record["ts"] = round(time.time(), 6)
                if "latency" in record:
                    record["latency"] = round(record["latency"] + spent, 6)
                self.writer.write(record)
        self.kernel.flush()

    def _timers(self) -> None:
        self._timer = None
        try:
            self._do(self.inspector.timers(self._loop.time()))
        except TapGoneError:
            self._fail()
        self._arm()

    def _arm(self) -> None:
        due = self.inspector.next_timer()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_at(due, self._timers)

    # -- the rest -------------------------------------------------------------------------------------------------

    def _events(self) -> None:
        self.events.consume()

    def _ended(self, session: int) -> None:
        self._do(self.inspector.forget(session))

    async def _beat(self, pins: Pins) -> None:
        clock = self._loop.time()
        while True:
            self.kernel.commands.heartbeat()
            now = self._loop.time()
            self.writer.flush(now)
            if now - clock > CLOCK_INTERVAL:
                clock = now
                self.events.set_clock()
                self.tap.read_statistics()
            if not pins.loaded:
                self._fail()
            await asyncio.sleep(HEARTBEAT)

    def _fail(self) -> None:
        self._failure = CommandError("the kernel half was unloaded; start microseg-fastpath", ExitStatus.UNREACHABLE)
        self._stop.set()

    async def _reloads(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            await self._read_anew()

    async def _read_anew(self) -> None:
        try:
            # Packets are judged by the rules in force while new ones, and their patterns, are read and compiled.
            config, self.rules = await asyncio.to_thread(read_all, self.path)
        except (InvalidDocumentError, OSError) as error:
            for line in str(error).splitlines():
                log.error("%s", line)
            log.error("the rule files in force stay")
            return
        self.engine = engine_of(config)
        self.inspector.reload(self.rules, limits_of(config), exceptions_of(config))
        self.writer.reopen()
        log.info("rule files read anew: %d", len(self.rules.files))

    def status(self) -> dict[str, Any]:
        """For `status` and the admin socket."""
        return {
            "version": version(),
            "pid": os.getpid(),
            "uptime": round(time.time() - self.started, 1),
            "healthy": True,
            "config": str(self.config.file),
            "revision": self.kernel.commands.clocks().revision,
            "rule_files": sorted(self.rules.files),
            "pattern_engine": self.engine,
            "inspector": asdict(self.inspector.stats),
            "tap": asdict(self.tap.stats),
            "not_judged": self.not_judged,
            "verdicts_refused": self.kernel.refused,
            "events": {"received": self.events.received, "unreadable": self.events.unreadable},
            "records": {
                "path": str(self.config.records.path),
                "written": self.writer.written,
                "lost": self.writer.lost,
            },
        }


class _Metrics(Collector):
    """The counters, for Prometheus."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """One family for each kind of figure."""
        status = self._service.status()
        gauges = ("flows", "held_bytes", "kept_bytes")
        counted = CounterMetricFamily("microseg_inspector", "What the inspector counted.", labels=["event"])
        for name, number in status["inspector"].items():
            if name in gauges:
                yield GaugeMetricFamily(f"microseg_inspector_{name}", "Kept by the inspector now.", value=number)
            else:
                counted.add_metric([name], number)
        yield counted
        frames = CounterMetricFamily("microseg_tap_frames", "Frames at the tap.", labels=["event"])
        for name, number in status["tap"].items():
            frames.add_metric([name], number)
        yield frames
        records = CounterMetricFamily("microseg_records", "Records of the inspection log.", labels=["event"])
        for name in ("written", "lost"):
            records.add_metric([name], status["records"][name])
        yield records


def is_up(interface: str) -> bool:
    """The interface is there, and up: a packet socket on one that is down reports just that."""
    try:
        return bool(int(Path(f"/sys/class/net/{interface}/flags").read_text(), 16) & 1)
    except (OSError, ValueError):
        return False


def read_all(path: Path) -> tuple[Config, RuleSet]:
    """gateway.yaml and the rule files. InvalidDocumentError with the problems of the one or the others."""
    config = load_config(path)
    return config, read_rules(config)


def collect_seldom() -> None:
    """Flows form no cycles, and to look through the objects of 65,536 takes 0.3 s, in which no packet is judged."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTION)


def read_rules(config: Config) -> RuleSet:
    """The rule files. InvalidDocumentError with all their problems."""
    if not config.rules.is_dir():
        return RuleSet()
    return load_rules([config.rules], databases_of(config))


def engine_of(config: Config) -> str:
    """What looks for patterns: re2 or hyperscan."""
    if config.pattern_engine == "auto":
        return "re2" if unusable() else "hyperscan"
    return config.pattern_engine


def databases_of(config: Config) -> Databases | None:
    """Hyperscan's, where it is to be used. InvalidDocumentError where it is asked for and missing."""
    if engine_of(config) == "re2":
        return None
    if reason := unusable():
        raise InvalidDocumentError([Problem(str(config.file), 0, "pattern_engine", reason)])
    return Databases(config.program_cache)


def limits_of(config: Config) -> Limits:
    """The inspector's bounds."""
    bounds = config.inspection
    return Limits(
        hold_incomplete=bounds.hold_incomplete,
        need_more=bounds.need_more,
        need_more_bytes=bounds.need_more_bytes,
        need_more_packets=bounds.need_more_packets,
        need_more_progress=bounds.need_more_progress,
        gap=bounds.gap,
        max_flows=bounds.max_flows,
        total=bounds.total,
    )


def exceptions_of(config: Config) -> Exceptions:
    """The operator's choices. The kernel adopts what rules on addresses decide; here rules must see the start."""
    names = ("need_more", "parse_error", "reassembly_limit", "overlap_conflict", "fragment", "pattern_budget")
    allow = config.exception("midstream") == Action.ALLOW
    return Exceptions(
        midstream=Action.ALLOW if allow else Action.DENY, **{name: config.exception(name) for name in names}
    )


def main(options: argparse.Namespace) -> int:
    """`microseg-slowpath run`."""
    path = options.config or DEFAULT
    logs.setup(options.log_level)

    async def serve() -> None:
        await Service(path).run()

    asyncio.run(serve())
    return ExitStatus.OK
