"""What `policy hits` shows; tests/netns/test_hits.py asks a real gateway."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastpath.cli.hits import as_json, table
from fastpath.cli.main import main
from fastpath.hits import Figures, Hits, Total
from fastpath.policy.names import NamedRule, Names

NAMES = Names(3, NamedRule("default", "deny"), (NamedRule("web", "allow"), NamedRule("old\x1b[m", "deny")))
TOTAL = Total(
    86400.0,
    Hits({"web": Figures(2, 20, 2000), "gone": Figures(1, 5, 300), "zero": Figures()}, Figures(1, 1, 40)),
    Hits({"web": Figures(1, 10, 1000)}),
)


def test_rows() -> None:
    told = as_json(TOTAL, NAMES, {"old\x1b[m": "shadowed"})
    assert (told["since"], told["revision"]) == (86400.0, 3)
    nothing = {"sessions": 0, "live": 0, "packets": 0, "bytes": 0}
    assert told["rules"] == [
        {"number": 1, "id": "web", "action": "allow", "sessions": 2, "live": 1, "packets": 20, "bytes": 2000,
         "never": False, "lint": None},
        {"number": 2, "id": "old\x1b[m", "action": "deny", **nothing, "never": True, "lint": "shadowed"},
        {"number": 0, "id": "default", "action": "deny", **nothing, "never": True, "lint": None},
    ]  # fmt: skip
    assert told["removed"] == [{"id": "gone", "sessions": 1, "live": 0, "packets": 5, "bytes": 300}]
    assert (told["host"], told["lost"]) == ({**nothing, "sessions": 1, "packets": 1, "bytes": 40}, nothing)


def test_no_figure_is_below_zero() -> None:
    """As after the eviction of a session that a reload gave to the rule."""
    row = as_json(Total(0.0, Hits({"web": Figures(-1, -3, 7)}), Hits()), NAMES, {})["rules"][0]
    assert (row["sessions"], row["packets"], row["bytes"]) == (0, 0, 7)


def test_table() -> None:
    lines = list(table(as_json(TOTAL, NAMES, {"old\x1b[m": "shadowed"})))
    assert lines == [
        "revision 3, counted since 1970-01-02T00:00:00Z",
        "NO  ID         ACTION  SESSIONS  LIVE  PACKETS  BYTES",
        "1   web        allow          2     1       20   2000",
        "2   old\\x1b[m  deny           0     0        0      0  never, shadowed",
        "-   default    deny           0     0        0      0  never",
        "-   gone       -              1     0        5    300  removed",
        "-   -          -              1     0        1     40  the gateway's own traffic",
    ]
    assert len(list(table(as_json(TOTAL, NAMES, {}), short=True))) == 5


@pytest.mark.parametrize("argv", [["--sort", "id"], ["--output", "text"], ["policy.yaml"]])
def test_usage(tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "hits", *argv, "--config", str(tmp_path / "gateway.yaml")]) == 2
    assert "usage:" in capsys.readouterr().err


def test_where_nothing_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "interfaces: [seg0, seg1]\npolicy: policy.yaml\npin_root: /sys/fs/bpf/microseg-none\n"
    )
    status = main(["policy", "hits", "--config", str(tmp_path / "gateway.yaml")])
    assert (status, capsys.readouterr().out) == (4 if os.geteuid() == 0 else 5, "")
