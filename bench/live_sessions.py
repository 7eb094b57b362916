"""Cost of a session hit against the number of live sessions, and a plot of it: bench/live_sessions.svg.

Every packet belongs to another session, in an order that no prefetcher follows; net of what the empty program and
`scatter` cost. The minimal program has a table of the same capacity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import testrun
from bench.filled import CLIENTS, filled
from bench.packet_cost import handshake, segment
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
    PLOT.write_text(plot(costs))


def plot(costs: Mapping[str, Mapping[int, float]]) -> str:
    """SVG: nanoseconds (linear) over live sessions (logarithmic), a line for each program."""
    width, height, margin = 640, 360, 56
    top = max(max(found.values()) for found in costs.values()) * 1.1
    low, high = math.log10(COUNTS[0]), math.log10(COUNTS[-1])

    def place(count: int, cost: float) -> tuple[float, float]:
        x = margin + (math.log10(count) - low) / (high - low) * (width - 2 * margin)
        return round(x, 1), round(height - margin - cost / top * (height - 2 * margin), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{margin} {margin}V{height - margin}H{width - margin}" fill="none" stroke="black"/>',
        f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">live sessions</text>',
        f'<text x="{margin}" y="{margin - 24}">ns a packet, above an empty program</text>',
    ]
    for count in COUNTS:
        x, y = place(count, 0)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{count:,}</text>')
    for (name, found), colour in zip(costs.items(), ("#0b6", "#888"), strict=True):
        points = [place(count, cost) for count, cost in found.items()]
        path = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), cost in zip(points, found.values(), strict=True):
            shift = -8 if name == "ours" else 18
            parts.append(f'<text x="{x}" y="{y + shift}" text-anchor="middle" fill="{colour}">{cost:.0f}</text>')
        parts.append(f'<text x="{points[0][0] + 8}" y="{points[0][1] - 24}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
