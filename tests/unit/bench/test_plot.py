from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from bench.plot import Line, Plot

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("logarithmic", [False, True])
def test_lines_rise_with_their_figures_and_stand_where_they_belong(logarithmic: bool) -> None:
    plot = Plot("rules", "ns", (10, 1_000, 100_000), logarithmic=logarithmic)
    drawn = plot.draw({"ours": {10: 5, 1_000: 6, 100_000: 8}, "peer": {10: 9, 1_000: 900}}, {
        "ours": Line("#0b6"), "peer": Line("#888", above=False),
    })  # fmt: skip
    root = ET.fromstring(drawn)
    lines = {
        element.get("stroke"): [tuple(map(float, point.split(","))) for point in element.get("points", "").split()]
        for element in root.iter(f"{SVG}polyline")
    }
    assert [x for x, _ in lines["#0b6"]] == [56, 320, 584]
    assert [x for x, _ in lines["#888"]] == [56, 320]
    heights = [y for _, y in (*lines["#0b6"], *lines["#888"])]
    assert heights == sorted(heights, reverse=True)
    assert all(56 < y < 304 for y in heights)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"rules", "ns", "ours", "peer", "10", "1,000", "100,000", "900", "5.0"} <= set(texts)
