"""Figures: what a bench yields, how they are shown, and bench/results.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("results.json")

LOWER = "lower"
HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. With a reference the target is for the ratio, without one for the figure itself."""

    name: str
    unit: str
    ours: float
    reference: float | None = None
    target: float | None = None
    better: str = LOWER
    note: str = ""  # why something is not there

    @property
    def ratio(self) -> float | None:
        """Ours by the reference."""
        return self.ours / self.reference if self.reference else None

    @property
    def met(self) -> bool | None:
        """The target is reached; None without one."""
        value = self.ours if self.reference is None else self.ratio
        if self.target is None or value is None:
            return None
        return value <= self.target if self.better == LOWER else value >= self.target

    def row(self) -> dict[str, Any]:
        """As it stands in results.json."""
        fields = asdict(self)
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": significant(self.ours),
            "reference": significant(self.reference),
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "target": fields["target"],
            "better": self.better,
        } | ({"note": self.note} if self.note else {})


def significant(value: float | None) -> float | None:
    """Four digits: more were noise."""
    return None if value is None else float(f"{value:.4g}")


def merge(results: Sequence[Result], path: Path = PATH) -> None:
    """Put the figures into the file: new ones replace those of the same name where they stand, or go to the end."""
    old = json.loads(path.read_text()) if path.exists() else []
    rows = {row["name"]: row for row in old}
    rows |= {result.name: result.row() for result in results}
    fresh = path.with_suffix(".new")
    fresh.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows.values()) + "\n]\n")
    fresh.rename(path)


def table(results: Iterable[Result]) -> str:
    """Aligned lines for people."""
    rows = [("", "unit", "ours", "reference", "ratio", "target", "")]
    for result in results:
        row = result.row()
        sign = "<=" if result.better == LOWER else ">="
        rows.append(
            (
                result.name,
                result.unit,
                f"{row['ours']:g}",
                "" if row["reference"] is None else f"{row['reference']:g}",
                "" if row["ratio"] is None else f"{row['ratio']:.3f}",
                "" if result.target is None else f"{sign} {result.target:g}",
                result.note or {None: "", True: "met", False: "MISSED"}[result.met],
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"
