from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.results import HIGHER, LOWER, Result, merge, table
from bench.rounds import quantile


def test_rows_replace_those_of_their_name_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    merge([Result("a", "us", 1.23456, 2.0, 1.04), Result("b", "s", 3.0)], path)
    merge([Result("c", "1/s", 5.0, 4.0, better=HIGHER), Result("a", "us", 4.0, 2.0, 1.04)], path)
    rows = json.loads(path.read_text())
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert rows[0] == {
        "name": "a",
        "unit": "us",
        "ours": 4.0,
        "reference": 2.0,
        "ratio": 2.0,
        "target": 1.04,
        "better": "lower",
    }
    assert (rows[1]["reference"], rows[1]["ratio"], rows[1]["target"]) == (None, None, None)


@pytest.mark.parametrize(
    ("ours", "reference", "target", "better", "met"),
    [
        (1.04, 1.0, 1.04, LOWER, True),
        (1.05, 1.0, 1.04, LOWER, False),
        (97.0, 100.0, 0.97, HIGHER, True),
        (96.0, 100.0, 0.97, HIGHER, False),
        (0.9, None, 1.0, LOWER, True),
        (94.9, None, 95, HIGHER, False),
        (1.0, 1.0, None, LOWER, None),
    ],
)
def test_target(ours: float, reference: float | None, target: float | None, better: str, met: bool | None) -> None:
    result = Result("x", "us", ours, reference, target, better)
    assert result.met is met
    assert ("MISSED" in table([result])) is (met is False)


def test_quantile() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert (quantile(values, 0), quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1)) == (
        1,
        51,
        100,
        100,
    )
