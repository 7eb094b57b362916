from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowpath.cli.main import main
from slowpath.record import Record
from tests.unit.slowpath.record import sample


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    calls: list[tuple[object, ...]] = []
    module = types.ModuleType("slowpath.replay")

    def replay(path: Path, rules: Path | None, policy: Path | None) -> Iterator[Record]:
        calls.append((path, rules, policy))
        if path.name == "cut.pcap":
            raise EOFError("ends in the middle of a packet")
        if path.name == "none.pcap":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        yield sample.record(1)
        yield sample.end(2)

    module.replay = replay  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "slowpath.replay", module)
    return calls


def test_json_by_default(calls: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "a.pcap", "--policy", "p.yaml", "--rules", "r"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [sample.record(1), sample.end(2)]
    assert calls == [(Path("a.pcap"), Path("r"), Path("p.yaml"))]


def test_compact(calls: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "a.pcap", "-o", "compact"]) == 0
    assert "/lab.Admin/Wipe" in capsys.readouterr().out
    assert calls == [(Path("a.pcap"), None, None)]


@pytest.mark.parametrize(("name", "message"), [("cut.pcap", "in the middle"), ("none.pcap", "No such file")])
def test_bad_captures(
    name: str, message: str, calls: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", name]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert name in err
    assert "Traceback" not in err
