"""Put the programs on interfaces and take them off again, through netlink (pyroute2).

What was added is written down before it is added, so that `unload` removes exactly that,
also after a crash. Filters are replaced atomically under a fixed prio and handle: traffic
never meets an interface without its program.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fastpath.config import Config
from fastpath.exit import CommandError
from fastpath.libbpf import Program, possible_cpus
from fastpath.loader.compile import LoadError
from fastpath.loader.pins import Pins

INGRESS = 0xFFFFFFF2
EGRESS = 0xFFFFFFF3
ETH_P_ALL = 3
CLSACT = "clsact"
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
        self._file = config.run_dir / "attached.json"
        self._state = State.read(self._file)
        self._state.prio = config.prio
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
        await self._filter(route, far, "ms_wall", INGRESS)
        await self._filter(route, far, "ms_release", EGRESS)
        await self._filter(route, near, "ms_tap", INGRESS)
        self._steer()
        for name in (far, near):
            await route.link("set", index=indexes[name], state="up")
        return indexes[near]

    async def attach(self, route: Any, announce: Callable[[list[int]], None]) -> list[str]:
        """Put the programs on every interface that is there and does not have them; those that got them.
        `announce` is told the indexes of all that are there, before.
        """
        done = []
        present = {name: index for name in self._config.interfaces if (index := _ifindex(name)) is not None}
        # Before the programs: what one interface forwards must count as judged on another.
        keep = {index.to_bytes(4, sys.byteorder) for index in present.values()}
        for key in keep:
            self._managed.update(key, (1).to_bytes(4, sys.byteorder))
        announce(list(present.values()))
        for key in list(self._managed.keys()):
            if key not in keep:
                self._managed.delete(key)
        for name, index in present.items():
            if self.ifindex.get(name) == index:
                continue
            await self._filter(route, name, "ms_egress", EGRESS)
            await self._filter(route, name, "ms_ingress", INGRESS)
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

    async def _filter(self, route: Any, name: str, program: str, parent: int) -> None:
        index = _ifindex(name)
        if index is None:
            raise CommandError(f"{name}: there is no such interface")
        if name not in self._state.filtered:
            self._state.filtered.append(name)
            self._save()
        if not await _has_clsact(route, index):
            self._state.clsact.append(name)
            self._save()
            try:
                await route.tc("add", CLSACT, index=index)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise LoadError(f"{name}: cannot add the clsact qdisc: {error}") from None
        if program not in self._programs:
            self._programs[program] = self._pins.program(program)
        try:
            await route.tc(
                "replace-filter", "bpf", index=index, fd=self._programs[program].fd, name=program, parent=parent,
                direct_action=True, prio=self._config.prio, handle=1, protocol=ETH_P_ALL,
            )  # fmt: skip
        except NetlinkError as error:
            raise LoadError(f"{name}: cannot attach {program}: {error}") from None

    def _save(self) -> None:
        self._state.write(self._file)


async def detach(run_dir: Path) -> bool:
    """Remove what `run_dir` says was added; False if it says nothing."""
    file = run_dir / "attached.json"
    if not file.exists():
        return False
    state = State.read(file)
    async with netlink() as route:
        for name in state.filtered:
            index = _ifindex(name)
            if index is None:
                continue
            for parent in (INGRESS, EGRESS):
                with contextlib.suppress(NetlinkError):
                    await route.tc(
                        "del-filter", "bpf", index=index, parent=parent, prio=state.prio, handle=1, protocol=ETH_P_ALL
                    )
            if name in state.clsact and not await _filters(route, index):
                with contextlib.suppress(NetlinkError):
                    await route.tc("del", CLSACT, index=index)
        if state.tap and (index := _ifindex(state.tap)) is not None:
            await route.link("del", index=index)
    file.unlink(missing_ok=True)
    return True


async def _has_clsact(route: Any, index: int) -> bool:
    return any([qdisc.get("kind") == CLSACT async for qdisc in await route.get_qdiscs(index=index)])


async def _filters(route: Any, index: int) -> bool:
    """Somebody's filters are on the interface."""
    for parent in (INGRESS, EGRESS):
        async for _ in await route.get_filters(index=index, parent=parent):
            return True
    return False


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
