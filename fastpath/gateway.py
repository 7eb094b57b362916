"""The kernel half of one gateway: load, policy, attach, and take it all away again."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastpath.accelerate import Acceleration, refuse
from fastpath.attach import Attachment, detach, hook_of, netlink
from fastpath.commands import Commands
from fastpath.config import Config
from fastpath.document import Problems
from fastpath.exit import CommandError, ExitStatus
from fastpath.history import History, HistoryError
from fastpath.hits import HitsError, Ledger
from fastpath.libbpf import Map
from fastpath.loader.pins import Origin, Pins, Table, remove_tree
from fastpath.policy.compiler.compile import Compiler
from fastpath.policy.compiler.tables import Sizes, Tables
from fastpath.policy.model import DEFAULT_ID
from fastpath.policy.names import Naming, write_names
from fastpath.policy.read import Reader
from fastpath.policy.source import Source, read_what_can_be
from fastpath.revisions import Revisions

LOCKS = Path("/run/lock")

log = logging.getLogger(__name__)


def pins_of(config: Config) -> Pins:
    """Where this configuration's programs and maps are pinned."""
    return Pins(config.pin_root, Table(config.capacity, config.table), cache=config.program_cache)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A policy's tables and the very bytes that they come from."""

    tables: Tables
    source: Source


def compile_source(config: Config, reader: Reader | None = None, compiler: Compiler | None = None) -> Compiled:
    """The policy as it stands now; a `reader` and a `compiler` that had it before are faster. InvalidDocumentError
    with all its problems.
    """
    source = read_what_can_be(config.policy, problems := Problems())
    policy = (reader or Reader(tuple(config.zones))).read(config.policy, source, config.rule_digest, problems)
    return Compiled((compiler or Compiler()).compile(policy), source)


def need_root() -> None:
    """CommandError without it."""
    if os.geteuid() != 0:
        raise CommandError("needs root: it loads BPF programs", ExitStatus.UNAVAILABLE)


def open_map(config: Config, name: str) -> Map:
    """A pinned map of a loaded gateway."""
    need_root()
    try:
        return pins_of(config).map(name)
    except FileNotFoundError:
        raise CommandError(f"{config.pin_root}: nothing is loaded there", ExitStatus.UNREACHABLE) from None


def check_host(config: Config) -> None:
    """What must be so before anything is loaded. CommandError says what is not."""
    need_root()
    hook_of(config)
    for name in config.interfaces:
        if not Path(f"/sys/class/net/{name}").exists():
            raise CommandError(f"{config.file}: interfaces: there is no interface {name}")
    switches = [Path(f"/proc/sys/net/{name}") for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")]
    if not any(switch.exists() and switch.read_text().strip() != "0" for switch in switches):
        raise CommandError(
            "this host does not forward packets: set net.ipv4.ip_forward=1 or net.ipv6.conf.all.forwarding=1 (sysctl)"
        )


@contextlib.contextmanager
def only_instance(pin_root: Path, program: str = "microseg-fastpath") -> Iterator[None]:
    """One of each program per pin root."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    tag = hashlib.sha256(f"{program} {pin_root}".encode()).hexdigest()[:12]
    with (LOCKS / f"microseg-{tag}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(f"{pin_root}: another {program} is running with this pin_root") from None
        yield


class Gateway:
    """The kernel half, loaded and attached; `start` first."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.pins = pins_of(config)
        self.reader = Reader(tuple(config.zones))
        self.compiler = Compiler()
        self.naming = Naming()
        self.origin = Origin.PINNED
        # Of the policy in force: rules, digest of its files; why the history lacks it, if it does.
        self.rules = 0
        self.digest = ""
        self.unkept: str | None = None
        self.commands: Commands
        self.revisions: Revisions
        self.ledger: Ledger
        self.attachment: Attachment
        self.acceleration: Acceleration
        self.hertz = 0
        self.tap_ifindex = 0

    async def start(self) -> None:
        """Load, apply the policy, attach: in this order, so that no packet meets a gateway without a policy."""
        check_host(self.config)
        compiled = compile_source(self.config, self.reader, self.compiler)
        async with netlink() as route:
            await refuse(route, self.config)
        self.origin = self.pins.load()
        self.commands = Commands(self.pins)
        self.hertz = self.commands.hertz()
        self.revisions = Revisions(self.pins, self.hertz)
        self.ledger = Ledger(self.pins, self.config.run_dir, self.config.state_dir)
        with _told():
            self.ledger.begin()
        self.attachment = Attachment(self.config, self.pins)
        async with netlink() as route:
            self.tap_ifindex = await self.attachment.tap(route)
            self.revisions.configure(self.config, self.tap_ifindex)
            self.acceleration = Acceleration(self.config, self.revisions)
            await self.acceleration.check(route)
            self.attachment.place()
            self.apply(self.config, compiled, "start")
            await self.attachment.attach(route, self.revisions.manage)
        self.pins.remove_others()

    async def follow(self) -> None:
        """Attach to managed interfaces that came (back) since, and see whether acceleration may stay."""
        async with netlink() as route:
            for name in await self.attachment.attach(route, self.revisions.manage):
                log.info("%s is here: attached", name)
            await self.acceleration.check(route)

    def apply(self, config: Config, compiled: Compiled, why: str) -> None:
        """Make a compiled policy current. On an error the present one stays."""
        tables = compiled.tables
        floor_file = config.run_dir / "revision"
        history = History(config.state_dir, config.policy_history)
        revision = self.revisions.next(_read_number(floor_file) or _newest_revision(history))
        # Names first: an event of the new revision may come at once. And what can fail before what cannot be undone.
        config.run_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_names(config.run_dir, revision, tables.policy, self.naming)
        floor_file.write_text(f"{revision}\n")
        replaced = self.revisions.apply(tables, revision)
        self.rules = len(tables.policy.rules)
        self.digest = compiled.source.digest
        log.info("policy %s: revision %d, %s", config.policy, revision, tables.sizes)
        if replaced is not None:
            with _told():
                self.ledger.take_over(replaced, [DEFAULT_ID, *tables.policy.ids])
        uses = {use.name: use.digest for rule in tables.policy.rules for use in rule.rule_files}
        self.unkept = None
        try:
            history.add(
                compiled.source, revision=revision, at=time.time(), why=why, rules=self.rules, rule_files=uses
            )  # fmt: skip
        except HistoryError as error:
            self.unkept = f"revision {revision} is not in the history: {error}"
            log.error("%s", self.unkept)

    async def reload(self, config: Config, why: str) -> Sizes:
        """Settings and policy that can change while running; one at a time. On an error everything stays as it is."""
        self.check_fixed(config)
        compiled = await asyncio.to_thread(compile_source, config, self.reader, self.compiler)
        self.apply(config, compiled, why)
        self.config = self.acceleration.config = config
        self.revisions.configure(config, self.tap_ifindex)
        return compiled.tables.sizes

    async def check(self, config: Config) -> Sizes:
        """What `reload` would apply, or raise; nothing changes. Not while there is another, or a reload."""
        self.check_fixed(config)
        return (await asyncio.to_thread(compile_source, config, self.reader, self.compiler)).tables.sizes

    def check_fixed(self, config: Config) -> None:
        """CommandError when it differs in what cannot change while running."""
        fixed = (
            "interfaces", "zones", "run_dir", "pin_root", "tap", "hook", "prio", "capacity", "table", "fastpath_listen",
            "mark",
        )  # fmt: skip
        changed = [name for name in fixed if getattr(config, name) != getattr(self.config, name)]
        if changed:
            raise CommandError(f"{config.file}: needs a restart to change {', '.join(changed)}; nothing was applied")


async def unload(config: Config) -> None:
    """Remove exactly what was added: programs, filters, qdiscs, tap, pins, settings."""
    await detach(config.run_dir)
    pins = pins_of(config)
    with _told(), contextlib.suppress(FileNotFoundError):  # nothing is loaded
        Ledger(pins, config.run_dir, config.state_dir).save()
    pins.unload()
    remove_tree(config.run_dir / "policy")
    (config.run_dir / "revision").unlink(missing_ok=True)
    for path in (config.fastpath_socket, config.slowpath_socket):
        remove_stale_socket(path)
    with contextlib.suppress(OSError):
        config.run_dir.rmdir()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with the counters of rules is logged, and is no reason to do nothing else."""
    try:
        yield
    except HitsError as error:
        log.error("counters of rules: %s", error)


def remove_stale_socket(path: Path) -> None:
    """Remove what a killed daemon left; a socket on which one answers stays."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            pass


def trim_memory() -> None:
    """Give back what reading a large policy left behind: it is needed for a moment at each reload only. And take what
    stays out of the collector's sight: to look for cycles among 100,000 rules took longer than to read what had
    changed.
    """
    gc.freeze()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc


def _newest_revision(history: History) -> int:
    """Where counting goes on after a boot, so that a number in the history or in the records means one policy."""
    try:
        newest = history.newest()
    except HistoryError as error:
        log.error("%s", error)
        return 0
    return newest.revision if newest is not None else 0


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
