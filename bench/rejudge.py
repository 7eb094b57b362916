"""What a reload costs live sessions: each one's next packet judges it anew, against the packet after, which is a hit.

1,000,000 established TCP sessions: 20,000 flows out of the rule set from 50 ports each, every packet of another session
than the one before. The new revision has the same rules. Means, for the total is what counts, above an empty program;
the best of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from bench import testrun
from bench.filled import Filled, filled
from bench.flows import Replay, draw
from bench.packet_cost import handshake, segment
from bench.policies import COUNTS, Sizes, allowing, generate, load
from bench.programs import FLOWS, Peers, peers
from bench.results import Result
from bench.rounds import ROUNDS, one_cpu
from fastpath.libbpf import Program
from fastpath.loader.pins import Table
from fastpath.policy.compiler.compile import compile_policy

SHIFTS = 50
SESSIONS = SHIFTS * FLOWS
# Room to spare: no session is evicted.
CAPACITY = 1_300_000
PORT = 80


def bench() -> Iterator[Result]:
    """Nanoseconds a packet and seconds of CPU for all sessions."""
    with peers(Table(CAPACITY).shape) as bed, one_cpu():
        for count in (COUNTS[0], COUNTS[-1]):
            with filled("lru", CAPACITY, bed) as table:
                yield from _of(count, bed, table)


def _of(count: int, bed: Peers, table: Filled) -> Iterator[Result]:
    generated = generate(Sizes.of(count))
    # Which protocol they speak, nobody shall ask.
    policy = load(allowing(generated.text).replace("app: [tls, http], ", ""))
    tables = compile_policy(policy)
    table.revisions.apply(tables, table.revisions.next())
    replay = Replay(bed, draw(generated, policy))

    def each(program: Program, frame: Callable[[int], testrun.Frame]) -> float:
        """A packet of all sessions: mean of its nanoseconds."""
        return statistics.fmean(cost for shift in range(SHIFTS) for cost in replay.send(program, frame, shift))

    for number in range(3):
        each(table.ingress, lambda version, number=number: handshake(PORT, version)[number])  # type: ignore[misc]
    if table.live != SESSIONS:
        raise RuntimeError(f"{table.live} sessions are live instead of {SESSIONS}")

    def data(version: int) -> testrun.Frame:
        return segment(PORT, version=version)

    costs: dict[str, list[float]] = {"nothing": [], "rejudged": [], "hit": []}
    for _ in range(min(ROUNDS, 6)):
        table.revisions.apply(tables, table.revisions.next())
        for name, program, expected in (
            ("rejudged", table.ingress, SESSIONS),
            ("hit", table.ingress, 0),
            ("nothing", bed.empty, 0),
        ):
            before = table.counters.stats["rejudged"]
            costs[name].append(each(program, data))
            if (number := table.counters.stats["rejudged"] - before) != expected:
                raise RuntimeError(f"{name}: {number} sessions were judged anew instead of {expected}")
    nothing, rejudged, hit = (min(costs[name]) for name in ("nothing", "rejudged", "hit"))
    yield Result(f"rejudge.{count}", "ns", rejudged - nothing, hit - nothing)
    # What the reload adds, once.
    yield Result(f"rejudge.{count}.total", "s", (rejudged - hit) * SESSIONS / 1e9)
