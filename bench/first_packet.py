"""Cost of a session's first packet in the kernel against the number of rules, with BPF_PROG_TEST_RUN, packet by packet.

Every packet is the SYN of another of 20,000 flows out of the rule set (bench/flows.py), IPv4 and IPv6, and is timed by
itself; median and 99th percentile, above an empty program; the best of interleaved rounds of each. The reference is a
policy of 10 rules over the very same packets, nearly all of which meet none of them. All rules and the default allow,
so that a packet goes the same way whatever it meets; no port is failsafe, for the route lookup of one packet in sixty
would be the 99th percentile by itself. The session table has the default capacity and is empty at the start of a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

from bench.filled import Filled, filled
from bench.flows import Replay, draw
from bench.packet_cost import handshake
from bench.policies import COUNTS, Shape, Sizes, allowing, generate, load
from bench.programs import FLOWS, Peers, peers
from bench.results import Result
from bench.rounds import interleaved, quantile
from fastpath.libbpf import Program
from fastpath.loader.pins import Table
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.compiler.tables import PolicyTooLargeError

FEW = COUNTS[0]
PORT = 80
CAPACITY = 262_144  # the default
TARGET = 1.5  # of 100,000 rules by 10, at the 99th percentile

Quantiles = tuple[float, float]


def bench() -> Iterator[Result]:
    """Nanoseconds."""
    with peers(Table(CAPACITY).shape) as bed, ExitStack() as stack:
        tables = {count: stack.enter_context(filled("lru", CAPACITY, bed)) for count in COUNTS}
        for shape in Shape:
            yield from _of(shape, bed, tables)


def _of(shape: Shape, bed: Peers, tables: dict[int, Filled]) -> Iterator[Result]:
    subjects: dict[str, Callable[[], Quantiles]] = {}
    for count, table in tables.items():
        generated = generate(Sizes.of(count), shape)
        policy = load(allowing(generated.text))
        try:
            table.revisions.apply(compile_policy(policy), table.revisions.next())
        except PolicyTooLargeError as error:
            yield Result(f"first_packet.{shape}.{count}", "rules", count, note=f"refused: {error.problems[0].message}")
            continue
        replay = Replay(bed, draw(generated, policy))
        subjects[f"{count} by {count}"] = _first(replay, table)
        subjects[f"{count} by {FEW}"] = _first(replay, tables[FEW])
        subjects[f"{count} by none"] = lambda replay=replay: _quantiles(replay, bed.empty)
    figures = interleaved(subjects)
    for count in tables:
        if f"{count} by none" not in figures:
            continue
        nothing = min(median for median, _ in figures[f"{count} by none"])
        for at, name in enumerate(("p50", "p99")):
            ours, few = (min(each[at] for each in figures[f"{count} by {n}"]) - nothing for n in (count, FEW))
            target = TARGET if name == "p99" and count == 100_000 and shape != Shape.HEAVY else None
            reference = None if count == FEW else few
            yield Result(f"first_packet.{shape}.{count}.{name}", "ns", ours, reference, target)


def _first(replay: Replay, table: Filled) -> Callable[[], Quantiles]:
    def once() -> Quantiles:
        inserts = table.counters.stats["inserts"]
        found = _quantiles(replay, table.ingress)
        if (made := table.counters.stats["inserts"] - inserts) != FLOWS:
            raise RuntimeError(f"{made} sessions instead of {FLOWS}")
        table.clear()
        return found

    return once


def _quantiles(replay: Replay, program: Program) -> Quantiles:
    costs = replay.send(program, lambda version: handshake(PORT, version)[0])
    return quantile(costs, 0.5), quantile(costs, 0.99)
