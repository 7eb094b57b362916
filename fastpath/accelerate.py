"""`accelerate`: what on this host stands against it, and when the kernel half has to look its next hops up anew.

Packets that go past the host's stack meet nothing of what the host does there. So where it translates addresses,
filters or encrypts, nothing is accelerated: the gateway does not start, or, while it runs, goes on without.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.nftables.main import AsyncNFTables

from fastpath.attach import INGRESS, TCX, State, filter_prios, hook_of, state_file
from fastpath.config import Config
from fastpath.exit import CommandError, ExitStatus
from fastpath.libbpf import TCX_INGRESS, Program
from fastpath.revisions import Revisions

PROC = Path("/proc/net")
NOT_ASKED = "not asked for"

# linux/netfilter.h: families, and of their hooks those that a forwarded packet meets.
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
_HOOKS = {0: "prerouting", 2: "forward", 4: "postrouting"}
_INET_INGRESS, _NETDEV_INGRESS = 5, 0
_ACCEPT = 1

_NETLINK_XFRM, _XFRM_MSG_NEWSPDINFO, _XFRM_MSG_GETSPDINFO, _XFRMA_SPD_INFO = 6, 0x24, 0x25, 1
_RTM_NEWROUTE, _RTM_GETROUTE, _RTA_METRICS = 24, 26, 8
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
# As it stands in a message: length and type.
_RTAX_MTU = struct.pack("=HH", 8, 2)
# linux/rtnetlink.h: links, addresses, routes, rules. Neighbours change all the time, a second is soon enough for them.
_ROUTE_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
# What comes in a crowd is one change.
_SETTLE = 0.1
# The kernel has no such thing.
_ABSENT = frozenset({errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL})

log = logging.getLogger(__name__)


async def refuse(route: Any, config: Config) -> None:
    """CommandError if it is asked for and the host stands against it."""
    if config.accelerate and (reason := await obstacle(route, config)):
        raise CommandError(
            f"{config.file}: accelerate: packets would bypass what this host does with them: {reason}",
            ExitStatus.INVALID_CONFIGURATION,
        )


async def obstacle(route: Any, config: Config) -> str | None:
    """Why packets between these interfaces must not go past the stack; None if they may."""
    try:
        return await _obstacle(route, config)
    except (OSError, NetlinkError) as error:
        return f"cannot tell what this host does with them: {error}"


async def _obstacle(route: Any, config: Config) -> str | None:
    async for chain in _chains(config.interfaces):
        return f"nftables: {chain}"
    for family, file in (("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")):
        if tables := _lines(PROC / file):
            return f"{family} (legacy) has the table {tables[0]}"
    # Behind three lines of heading.
    if len(_lines(PROC / "ip_vs")) > 3:
        return "IPVS has services"
    if _xfrm_policies():
        return "there are IPsec policies (ip xfrm policy)"
    hook, state = hook_of(config), State.read(state_file(config.run_dir))
    for name in config.interfaces:
        # A bridge, a bond, a VRF: the stack's way is not that of the interface itself.
        master = Path(f"/sys/class/net/{name}/master")
        if master.exists():
            return f"{name} belongs to {master.resolve().name}"
        if other := await _later(route, name, hook, config.prio, state):
            return f"{name} has {other}, behind ours"
    return None


async def _chains(interfaces: tuple[str, ...]) -> AsyncIterator[str]:
    """Base chains of nftables (and so of iptables-nft) that forwarded packets meet, and that do something."""
    try:
        async with AsyncNFTables(nfgen_family=0) as nft:
            async for chain in await nft.get_chains():
                family = _FAMILIES.get(chain["nfgen_family"])
                hook = chain.get_attr("NFTA_CHAIN_HOOK")
                if family is None or hook is None:
                    continue
                number = hook.get_attr("NFTA_HOOK_HOOKNUM")
                place = _HOOKS.get(number)
                if number == (_NETDEV_INGRESS if family == "netdev" else _INET_INGRESS):
                    place = "ingress" if _devices(hook) & {*interfaces} else None
                elif family == "netdev":
                    continue
                rules, policy = chain.get_attr("NFTA_CHAIN_USE"), chain.get_attr("NFTA_CHAIN_POLICY")
                if place and (rules or policy not in {None, _ACCEPT}):
                    what = "has rules" if rules else "drops by default"
                    name = f"{chain.get_attr('NFTA_CHAIN_TABLE')} {chain.get_attr('NFTA_CHAIN_NAME')}"
                    yield f"the chain {family} {name} (hook {place}) {what}"
    except (OSError, NetlinkError) as error:
        if (error.code if isinstance(error, NetlinkError) else error.errno) not in _ABSENT:
            raise


def _devices(hook: Any) -> set[str]:
    found = {hook.get_attr("NFTA_HOOK_DEV")}
    devices = hook.get_attr("NFTA_HOOK_DEVS")
    if devices is not None:
        found |= {value for _, value in devices["attrs"]}
    return found - {None}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _xfrm_policies() -> int:
    """How many IPsec policies this network namespace has."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM) as sock:
            # struct nlmsghdr, flags of the request (none)
            sock.send(struct.pack("=IHHIII", 20, _XFRM_MSG_GETSPDINFO, 1, 1, 0, 0))
            answer = sock.recv(4096)
    except OSError as error:
        if error.errno in _ABSENT:
            return 0
        raise
    # in, out, forwarded; behind these those of sockets
    return sum(
        sum(struct.unpack_from("=3I", value))
        for message, kind in _messages(answer)
        if kind == _XFRM_MSG_NEWSPDINFO
        for name, value in _attributes(message[4:])
        if name == _XFRMA_SPD_INFO
    )


def smallest_route_mtu() -> int:
    """The smallest MTU that a route names, 0 if none does: bpf_fib_lookup goes by the link's alone."""
    smallest = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        # struct nlmsghdr (NLM_F_REQUEST | NLM_F_DUMP), struct rtmsg
        sock.send(struct.pack("=IHHII12x", 28, _RTM_GETROUTE, 0x301, 1, 0))
        while True:
            answer = sock.recv(1 << 18)
            # Hundreds of thousands of routes are searched in a moment, and hardly any is ever looked into.
            if _RTAX_MTU in answer:
                smallest = min(filter(None, (smallest, *_route_mtus(answer))), default=0)
            last = 0
            for _, kind in _messages(answer):
                last = kind
            if last in {_NLMSG_ERROR, _NLMSG_DONE}:
                return smallest


def _messages(content: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at + 16 <= len(content):
        size, kind = struct.unpack_from("=IH", content, at)
        yield content[at + 16 : at + size], kind
        at += max(16, size + 3 & ~3)


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(content):
        size, kind = struct.unpack_from("=HH", content, at)
        yield kind & 0x3FFF, content[at + 4 : at + size]
        at += max(4, size + 3 & ~3)


def _route_mtus(content: bytes) -> Iterator[int]:
    for message, kind in _messages(content):
        if kind == _RTM_NEWROUTE:
            for name, value in _attributes(message[12:]):
                if name == _RTA_METRICS:
                    yield from (
                        int.from_bytes(mtu[:4], sys.byteorder) for metric, mtu in _attributes(value) if metric == 2
                    )


async def _later(route: Any, name: str, hook: str, prio: int, state: State) -> str | None:
    """What of another runs at ingress behind ours, and would not meet what is redirected."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        return None
    if hook == TCX:
        there, ours = state.at(index, TCX_INGRESS)
        # Ours, where they are not there yet, come last.
        if ours and (others := there[there.index(ours[-1]) + 1 :]):
            return f"the tcx program {_program_name(others[0])} of another at ingress"
        # Every filter; but not ours, which tcx is about to replace.
        prio = -1
    for number in await filter_prios(route, index, INGRESS):
        if number > prio and (hook != TCX or name not in state.filtered or number != state.prio):
            return f"an ingress filter of another at prio {number}"
    return None


def _program_name(number: int) -> str:
    """Its name and id; it may be gone."""
    try:
        return f"{Program.by_id(number).name} (id {number})"
    except OSError:
        return f"with id {number}"


class Acceleration:
    """Switches it on and off in the kernel half. `reason` says why it is off, None while it is on."""

    def __init__(self, config: Config, revisions: Revisions) -> None:
        self.config = config
        self.reason: str | None = NOT_ASKED
        self._revisions = revisions
        self._changed = True

    def routes_changed(self) -> None:
        """Every next hop is looked up anew, and at the next check the routes' MTUs."""
        self._changed = True
        self._revisions.age_hops()

    async def check(self, route: Any) -> None:
        """On if it is asked for and nothing stands against it, off otherwise."""
        reason = await obstacle(route, self.config) if self.config.accelerate else NOT_ASKED
        if reason is None and self._changed:
            # First: what changes meanwhile is told again.
            self._changed = False
            self._revisions.limit(smallest_route_mtu())
        self._revisions.accelerate(on=reason is None)
        if reason != self.reason:
            if reason is None:
                log.info("acceleration is on")
            else:
                tell = log.warning if self.config.accelerate else log.info
                tell("acceleration is off: %s", reason)
            self.reason = reason

    @property
    def status(self) -> str:
        """`on`, or `off` and why."""
        return f"off ({self.reason})" if self.reason else "on"


class RouteChanges:
    """Tells the kernel half of changed links, addresses, routes and rules, inside a running loop. Without it such
    a change takes effect within a second.
    """

    def __init__(self, acceleration: Acceleration) -> None:
        self._acceleration = acceleration
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)

    def __enter__(self) -> Self:
        self._socket.bind((0, _ROUTE_GROUPS))
        self._loop.add_reader(self._socket, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._timer:
            self._timer.cancel()

    def _heard(self) -> None:
        # What it says does not matter, nor that some of it was lost (ENOBUFS).
        with contextlib.suppress(OSError):
            while self._socket.recv(65536):
                pass
        if self._timer is None:
            self._timer = self._loop.call_later(_SETTLE, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._acceleration.routes_changed()
