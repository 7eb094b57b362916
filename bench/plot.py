"""Plots as SVG, without a library: a line for each subject over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, MARGIN = 640, 360, 56


@dataclass(frozen=True, slots=True)
class Line:
    """Its colour, and whether its figures stand above it."""

    colour: str
    above: bool = True


@dataclass(frozen=True, slots=True)
class Plot:
    """Titles of the axes and the places on the horizontal one; the vertical one begins at 0, or is logarithmic too."""

    over: str
    unit: str
    places: Sequence[int]
    logarithmic: bool = False

    def draw(self, costs: Mapping[str, Mapping[int, float]], lines: Mapping[str, Line]) -> str:
        """The SVG; a line need not have all places."""
        figures = [cost for found in costs.values() for cost in found.values()]
        top, bottom = max(figures) * 1.1, min(figures) / 2
        low, high = math.log10(self.places[0]), math.log10(self.places[-1])

        def share(cost: float) -> float:
            return math.log(cost / bottom) / math.log(top / bottom) if self.logarithmic else cost / top

        def across(place: int) -> float:
            return round(MARGIN + (math.log10(place) - low) / (high - low) * (WIDTH - 2 * MARGIN), 1)

        def up(cost: float) -> float:
            return round(HEIGHT - MARGIN - share(cost) * (HEIGHT - 2 * MARGIN), 1)

        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
            ' font-family="sans-serif" font-size="13">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none" stroke="black"/>',
            f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">{self.over}</text>',
            f'<text x="{MARGIN}" y="{MARGIN - 24}">{self.unit}</text>',
        ]
        for place in self.places:
            at = f'x="{across(place)}" y="{HEIGHT - MARGIN + 18.0}"'
            parts.append(f'<text {at} text-anchor="middle">{place:,}</text>')
        for name, found in costs.items():
            line = lines[name]
            points = [(across(place), up(cost)) for place, cost in found.items()]
            path = " ".join(f"{x},{y}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
            for (x, y), cost in zip(points, found.values(), strict=True):
                shift = -8 if line.above else 18
                parts.append(
                    f'<text x="{x}" y="{round(y + shift, 1)}" text-anchor="middle" fill="{line.colour}">'
                    f"{cost:{'.0f' if cost >= 10 else '.1f'}}</text>"
                )
            parts.append(self._name(name, line, points))
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _name(self, name: str, line: Line, points: Sequence[tuple[float, float]]) -> str:
        """At the end of a logarithmic line, which rises; else at its beginning."""
        x, y = points[-1 if self.logarithmic else 0]
        place, anchor = (x + 8, y - 24), ""
        if self.logarithmic and x + MARGIN < WIDTH:
            place = x + 8, y - 2 if line.above else y + 12
        elif self.logarithmic:
            place, anchor = (x, y - 22), ' text-anchor="end"'
        at = f'x="{place[0]}" y="{round(place[1], 1)}"{anchor}'
        return f'<text {at} fill="{line.colour}">{name}</text>'
