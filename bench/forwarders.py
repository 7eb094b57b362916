"""What may stand between client and server: each puts itself into a lab's gateway namespace.

Every forwarder has a lab of its own and all exist at once, so a round asks them one after
the other without attaching anything. Two of them are plain forwarding: the ratio between these two
is what a ratio means on this machine at this hour.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

from bench import rules
from bench.gateway import accelerated, ours
from bench.programs import peers
from bench.results import HIGHER, LOWER, Result
from bench.rounds import interleaved
from bench.traffic import Ends
from fastpath.libbpf import TCX_INGRESS, tcx_attach
from tests.lab.namespaces import Lab, LabError, Namespace

INTERFACES = ("seg0", "seg1")

Forwarder = Callable[[Lab], AbstractContextManager[object]]
Measure = Callable[[Ends], float]


def inside(lab: Lab, *argv: str, stdin: str | None = None, timeout: float = 10) -> None:
    """Run a tool in the gateway's namespace."""
    done = lab.run(Namespace.GATEWAY, argv, timeout, stdin=stdin)
    if done.returncode:
        raise LabError(f"{argv[0]}: {done.stderr.strip()}")


@contextlib.contextmanager
def plain(_lab: Lab) -> Iterator[None]:
    """The kernel forwards, nobody looks."""
    yield


@contextlib.contextmanager
def minimal(lab: Lab) -> Iterator[None]:
    """minimal.c at the ingress of both segments, at the same hook as the gateway."""
    with peers() as programs:

        def attach() -> None:
            for interface in INTERFACES:
                tcx_attach(programs.minimal, socket.if_nametoindex(interface), TCX_INGRESS)

        lab.call(Namespace.GATEWAY, attach)
        yield


@contextlib.contextmanager
def nftables(lab: Lab) -> Iterator[None]:
    """Connection tracking and 1,000 rules."""
    inside(lab, "nft", "-f", "-", stdin=rules.nftables())
    yield


@contextlib.contextmanager
def flowtable(lab: Lab) -> Iterator[None]:
    """Established flows in a flowtable of nftables; no rules but the one that puts them there."""
    inside(lab, "nft", "-f", "-", stdin=rules.flowtable(INTERFACES))
    yield


FORWARDERS: dict[str, Forwarder] = {
    "plain": plain,
    "plain_again": plain,
    "minimal": minimal,
    "nftables": nftables,
    "ours": ours,
    "accelerated": accelerated,
    "flowtable": flowtable,
}
# Not every kernel has them (NF_FLOW_TABLE).
OPTIONAL = frozenset({"flowtable"})


def compare(name: str, unit: str, measure: Measure, better: str, target: float) -> Iterator[Result]:
    """Run `measure` through every forwarder. Ours against plain has the target, and accelerated it has to be better
    than plain; that of plain against plain says which part of a miss, or of a win, is noise.
    """
    with ExitStack() as stack:
        subjects = {}
        for forwarder, enter in FORWARDERS.items():
            lab = stack.enter_context(Lab())
            try:
                stack.enter_context(enter(lab))
            except LabError:
                if forwarder not in OPTIONAL:
                    raise
                continue
            ends = stack.enter_context(Ends(lab))
            subjects[forwarder] = lambda ends=ends: measure(ends)
        figures = interleaved(subjects)
    best = min if better == LOWER else max
    floors = {forwarder: best(values) for forwarder, values in figures.items()}
    reference = floors["plain"]
    for forwarder in ("plain_again", "minimal", "nftables"):
        yield Result(f"{name}.{forwarder}", unit, floors[forwarder], reference, better=better)
    yield Result(name, unit, floors["ours"], reference, target, better)
    yield Result(f"{name}.against_nftables", unit, floors["ours"], floors["nftables"], 1.0, better)
    yield Result(f"{name}.accelerated", unit, floors["accelerated"], reference, 1.0, better)
    peer = floors.get("flowtable")
    against = f"{name}.accelerated.against_flowtable"
    if peer is None:
        yield Result(against, unit, floors["accelerated"], better=better, note="this kernel has no flowtables")
    else:
        yield Result(against, unit, floors["accelerated"], peer, 1.0, better)


__all__ = ["FORWARDERS", "HIGHER", "LOWER", "compare"]
