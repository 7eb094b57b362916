"""Cost of a session hit against the number of live sessions, and a plot of it: bench/live_sessions.svg.

Every packet belongs to another session, in an order that no prefetcher follows; net of what the empty program and
`scatter` cost. The minimal program has a table of the same capacity.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench import testrun
from bench.filled import CLIENTS, filled
from bench.packet_cost import handshake, segment
from bench.plot import Line, Plot
from bench.programs import peers
from bench.results import Result
from bench.rounds import interleaved
from fastpath.loader.pins import Table

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
# Room to spare: no session is evicted.
CAPACITY = 1_300_000
PORT = 80
ROUNDS = 6
PLOT = Path(__file__).with_name("live_sessions.svg")


def bench() -> Iterator[Result]:
    """Nanoseconds above the empty program's."""
    costs: dict[str, dict[int, float]] = {"ours": {}, "minimal": {}}
    with peers(Table(CAPACITY).shape) as bed, filled("lru", CAPACITY, bed) as table:
        programs = {"ours": table.ingress, "minimal": bed.minimal, "empty": bed.empty}
        for count in COUNTS:
            for program in (table.ingress, bed.minimal):
                for frame in handshake(PORT):
                    bed.spread(CLIENTS, count)
                    testrun.scattered(bed, program, frame, count)
            if table.live != count:
                raise RuntimeError(f"{table.live} sessions are live instead of {count}")

            def cost(name: str, count: int = count) -> float:
                bed.spread(CLIENTS, count, testrun.STEP)
                return testrun.scattered(bed, programs[name], segment(PORT), max(count, 100_000))

            floors = {
                name: min(values)
                for name, values in interleaved(
                    {name: lambda name=name: cost(name) for name in programs},  # type: ignore[misc]
                    ROUNDS,
                ).items()
            }
            for name, found in costs.items():
                found[count] = floors[name] - floors["empty"]
            yield Result(f"live_sessions.{count}", "ns", costs["ours"][count], costs["minimal"][count])
    lines = {"ours": Line("#0b6"), "minimal": Line("#888", above=False)}
    plot = Plot("live sessions", "ns a packet, above an empty program", COUNTS)
    PLOT.write_text(plot.draw(costs, lines))
