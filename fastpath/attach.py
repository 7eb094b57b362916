"""Put the programs on interfaces and take them off again: by tcx, which costs a packet less, or as clsact filters.

What was added is written down before it is added, so that `unload` removes exactly that,
also after a crash. Programs are replaced atomically, filters under a fixed prio and handle, at tcx
in the place of the one with a known id: traffic never meets an interface without its program.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fastpath import abi, overlap
from fastpath.config import Config
from fastpath.exit import CommandError, ExitStatus
from fastpath.libbpf import (
    TCX_EGRESS,
    TCX_INGRESS,
    Program,
    possible_cpus,
    tcx_attach,
    tcx_detach,
    tcx_programs,
    tcx_supported,
)
from fastpath.loader.compile import LoadError
from fastpath.loader.pins import Pins

INGRESS = 0xFFFFFFF2
EGRESS = 0xFFFFFFF3
ETH_P_ALL = 3
CLSACT = "clsact"
TCX = "tcx"
# The hooks: their tcx attach types by their parents in clsact.
TCX_TYPES = {INGRESS: TCX_INGRESS, EGRESS: TCX_EGRESS}
# Programs that must not judge a packet twice: their slots in the prog array. The tap's may.
JUDGING = {"ms_ingress": abi.Prog.INGRESS, "ms_egress": abi.Prog.EGRESS}
BOOT = Path("/proc/sys/kernel/random/boot_id")
# A held super-packet comes back in one piece.
TAP_MTU = 65535

log = logging.getLogger(__name__)


@dataclass(slots=True)
class State:
    """What was added to the host."""

    prio: int = 0
    tap: str = ""
    # Interfaces that got filters, and those on which the clsact qdisc is ours.
    filtered: list[str] = field(default_factory=list)
    clsact: list[str] = field(default_factory=list)
    # Interfaces that got programs at tcx, and the ids that these ever had since that boot.
    tcx: list[str] = field(default_factory=list)
    programs: list[int] = field(default_factory=list)
    boot: str = ""

    @classmethod
    def read(cls, path: Path) -> State:
        """From a file; empty if there is none or it is damaged."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.replace(path)

    def at(self, index: int, hook: int) -> tuple[list[int], list[int]]:
        """Ids of the programs at a tcx hook, and which of them are ours."""
        there = tcx_programs(index, hook)
        known = self.programs if self.boot == boot() else ()
        return there, [number for number in there if number in known]


def boot() -> str:
    """Programs of another boot are gone, and their ids given to others."""
    return BOOT.read_text().strip()


def state_file(run_dir: Path) -> Path:
    """Where it is written down."""
    return run_dir / "attached.json"


def hook_of(config: Config) -> str:
    """Where this host's programs go. CommandError where the kernel lacks what is asked for."""
    if config.hook == CLSACT:
        return CLSACT
    if tcx_supported():
        return TCX
    if config.hook == TCX:
        raise CommandError(
            f"{config.file}: hook: tcx needs Linux 6.6 or later, and this is {os.uname().release}",
            ExitStatus.UNAVAILABLE,
        )
    return CLSACT


@contextlib.asynccontextmanager
async def netlink() -> AsyncIterator[Any]:
    """A netlink socket whose errors say what is wrong."""
    async with AsyncIPRoute(ext_ack=True) as route:
        yield route


class Attachment:
    """The gateway's programs on the interfaces of one configuration."""

    def __init__(self, config: Config, pins: Pins) -> None:
        self._config = config
        self._pins = pins
        self.hook = hook_of(config)
        self._file = state_file(config.run_dir)
        self._state = State.read(self._file)
        if self._state.boot != boot():
            self._state.boot, self._state.programs = boot(), []
        self._managed = pins.map("managed")
        self._programs: dict[str, Program] = {}
        self.ifindex: dict[str, int] = {}

    async def tap(self, route: Any) -> int:
        """Make the tap if it is not there; ifindex of its near end."""
        near, far = self._config.tap_names
        if _ifindex(near) is None or _ifindex(far) is None:
            self._state.tap = near
            self._save()
            try:
                # One for each CPU, and queue 0, which counts as "none" (see ms_release).
                number = possible_cpus() + 1
                queues = {"num_tx_queues": number, "num_rx_queues": number}
                peer = {"ifname": far, "mtu": TAP_MTU, **queues}
                await route.link("add", ifname=near, kind="veth", mtu=TAP_MTU, peer=peer, **queues)
            except NetlinkError as error:
                raise LoadError(f"cannot create the tap {near}: {error}") from None
        indexes = {name: _ifindex(name) or 0 for name in (near, far)}
        for name in (near, far):
            # No address of its own, nothing to answer, nothing to learn.
            _write(Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")
            # IFF_NOARP
            await route.link("set", index=indexes[name], mtu=TAP_MTU, flags=0x80, change=0x80)
        # The wall stands before the far end goes up (AF_PACKET sees frames earlier than it).
        await self._put(route, far, {INGRESS: "ms_wall", EGRESS: "ms_release"})
        await self._put(route, near, {INGRESS: "ms_tap"})
        self._steer()
        for name in (far, near):
            await route.link("set", index=indexes[name], state="up")
        return indexes[near]

    def place(self) -> None:
        """Tell the zones of the interfaces that are managed already: before a policy goes by them."""
        managed = {int.from_bytes(key, sys.byteorder) for key in list(self._managed.keys())}
        self._place({name: index for name in self._config.interfaces if (index := _ifindex(name)) in managed and index})

    def _place(self, indexes: Mapping[str, int]) -> None:
        for name, index in indexes.items():
            zone = self._config.zone_number(name)
            self._managed.update(index.to_bytes(4, sys.byteorder), zone.to_bytes(4, sys.byteorder))

    async def attach(self, route: Any, announce: Callable[[list[int]], None]) -> list[str]:
        """Put the programs on every interface that is there and does not have them; those that got them.
        `announce` is told the indexes of all that are there, before.
        """
        done = []
        present = {name: index for name in self._config.interfaces if (index := _ifindex(name)) is not None}
        # Before the programs: what one interface forwards must count as judged on another.
        keep = {index.to_bytes(4, sys.byteorder) for index in present.values()}
        self._place(present)
        announce(list(present.values()))
        for key in list(self._managed.keys()):
            if key not in keep:
                self._managed.delete(key)
        for name, index in present.items():
            if self.ifindex.get(name) == index:
                continue
            await self._put(route, name, {EGRESS: "ms_egress", INGRESS: "ms_ingress"})
            self.ifindex[name] = index
            done.append(name)
        for name in set(self.ifindex) - set(present):
            del self.ifindex[name]
        return done

    def missing(self) -> list[str]:
        """Configured interfaces that are not there now."""
        return [name for name in self._config.interfaces if _ifindex(name) is None]

    def _steer(self) -> None:
        """Receive packet steering: each receive queue of the tap's near end runs on a CPU of its own (queue n on
        CPU n); `ms_release` picks the queue (Documentation/networking/scaling.rst).
        """
        near, _ = self._config.tap_names
        for cpu in range(possible_cpus()):
            digits = f"{1 << cpu:x}"
            groups = [digits[max(0, end - 8) : end] for end in range(len(digits) % 8 or 8, len(digits) + 1, 8)]
            _write(Path(f"/sys/class/net/{near}/queues/rx-{cpu}/rps_cpus"), ",".join(groups))

    async def _put(self, route: Any, name: str, programs: dict[int, str]) -> None:
        """Programs on an interface; then it has none of ours at the other hook."""
        index = _ifindex(name)
        if index is None:
            raise CommandError(f"{name}: there is no such interface")
        state = self._state
        put = self._put_tcx if self.hook == TCX else self._put_filter
        for parent, program in programs.items():
            if program not in self._programs:
                self._programs[program] = self._pins.program(program)
            try:
                await put(route, name, index, parent, program)
            except (NetlinkError, OSError) as error:
                raise LoadError(f"{name}: cannot attach {program} ({self.hook}): {error}") from None
        if self.hook == TCX and name in state.filtered:
            await _remove_filters(route, state, name, index)
            state.filtered.remove(name)
            state.clsact = [other for other in state.clsact if other != name]
        elif self.hook == CLSACT and name in state.tcx:
            state.tcx.remove(name)
        self._save()

    async def _put_tcx(self, route: Any, name: str, index: int, parent: int, program: str) -> None:
        final, slot = self._programs[program], JUDGING.get(program)
        if slot is not None and await self._filtered(route, name, index, parent):
            # See fastpath.overlap.
            with self._pins.map("progs") as progs:
                tag = _tag(index, parent)
                await self._replace_filter(route, index, parent, program, overlap.unmarked(progs, slot, tag))
                self._replace_tcx(name, index, parent, overlap.marking(progs, slot, tag))
            await _remove_filter(route, self._state.prio, index, parent)
        self._replace_tcx(name, index, parent, final)

    async def _put_filter(self, route: Any, name: str, index: int, parent: int, program: str) -> None:
        state, hook = self._state, TCX_TYPES[parent]
        final, slot = self._programs[program], JUDGING.get(program)
        state.prio = self._config.prio
        if name not in state.filtered:
            state.filtered.append(name)
            self._save()
        if not await _has_clsact(route, index):
            state.clsact.append(name)
            self._save()
            try:
                await route.tc("add", CLSACT, index=index)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
        if name in state.tcx and state.at(index, hook)[1]:
            if slot is not None:
                with self._pins.map("progs") as progs:
                    tag = _tag(index, parent)
                    self._replace_tcx(name, index, parent, overlap.marking(progs, slot, tag))
                    await self._replace_filter(route, index, parent, program, overlap.unmarked(progs, slot, tag))
            else:
                await self._replace_filter(route, index, parent, program, final)
            _detach_tcx(state, index, hook)
        await self._replace_filter(route, index, parent, program, final)

    def _replace_tcx(self, name: str, index: int, parent: int, program: Program) -> None:
        """In the place of ours that is there, else behind all others."""
        state, hook, number = self._state, TCX_TYPES[parent], program.id
        if name not in state.tcx or number not in state.programs:
            state.tcx += [name] * (name not in state.tcx)
            state.programs += [number] * (number not in state.programs)
            self._save()
        _, ours = state.at(index, hook)
        if number not in ours:
            tcx_attach(program, index, hook, Program.by_id(ours[0]) if ours else None)
        _detach_tcx(state, index, hook, keep=number)

    async def _replace_filter(self, route: Any, index: int, parent: int, name: str, program: Program) -> None:
        await route.tc(
            "replace-filter", "bpf", index=index, fd=program.fd, name=name, parent=parent,
            direct_action=True, prio=self._state.prio, handle=1, protocol=ETH_P_ALL,
        )  # fmt: skip

    async def _filtered(self, route: Any, name: str, index: int, parent: int) -> bool:
        """A filter of ours is there."""
        return name in self._state.filtered and self._state.prio in await filter_prios(route, index, parent)

    def _save(self) -> None:
        self._state.write(self._file)


async def detach(run_dir: Path) -> bool:
    """Remove what `run_dir` says was added; False if it says nothing."""
    file = run_dir / "attached.json"
    if not file.exists():
        return False
    state = State.read(file)
    async with netlink() as route:
        for name in {*state.filtered, *state.tcx}:
            index = _ifindex(name)
            if index is None:
                continue
            if name in state.tcx:
                for hook in TCX_TYPES.values():
                    _detach_tcx(state, index, hook)
            if name in state.filtered:
                await _remove_filters(route, state, name, index)
        if state.tap and (index := _ifindex(state.tap)) is not None:
            await route.link("del", index=index)
    file.unlink(missing_ok=True)
    return True


def _detach_tcx(state: State, index: int, hook: int, keep: int = 0) -> None:
    """Ours off a tcx hook."""
    for number in state.at(index, hook)[1]:
        if number != keep:
            tcx_detach(Program.by_id(number), index, hook)


async def _remove_filters(route: Any, state: State, name: str, index: int) -> None:
    """Our filters off an interface, and the qdisc if it is ours and nobody else uses it."""
    for parent in (INGRESS, EGRESS):
        await _remove_filter(route, state.prio, index, parent)
    if name in state.clsact and not [
        prio for parent in (INGRESS, EGRESS) for prio in await filter_prios(route, index, parent)
    ]:
        with contextlib.suppress(NetlinkError):
            await route.tc("del", CLSACT, index=index)


async def _remove_filter(route: Any, prio: int, index: int, parent: int) -> None:
    with contextlib.suppress(NetlinkError):
        await route.tc("del-filter", "bpf", index=index, parent=parent, prio=prio, handle=1, protocol=ETH_P_ALL)


async def filter_prios(route: Any, index: int, parent: int) -> list[int]:
    """Prio of each clsact filter."""
    return [found["info"] >> 16 async for found in await route.get_filters(index=index, parent=parent)]


def _tag(index: int, parent: int) -> int:
    """Of one hook of one interface: what another marked does not count."""
    return 0x6D000000 | (index & 0x7FFFFF) << 1 | (parent == EGRESS)


async def _has_clsact(route: Any, index: int) -> bool:
    return any([qdisc.get("kind") == CLSACT async for qdisc in await route.get_qdiscs(index=index)])


def _ifindex(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except FileNotFoundError:  # IPv6 is not built in, or the queue went away
        pass
    except OSError as error:
        log.warning("%s: %s", path, error.strerror)
