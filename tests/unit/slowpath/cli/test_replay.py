from __future__ import annotations

import json
from pathlib import Path

import pytest

from slowpath.cli.main import main
from tests.unit.slowpath.core.wire import valid
from tests.unit.slowpath.test_replay import ADMIN, GET, OK, conversation, pcap

RULES = str(Path(__file__).parents[4] / "configs" / "rules.d")
POLICY = "rules: [{id: web, proto: tcp, app: http, action: inspect, rules: [web]}]\n"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(conversation((0, GET), (1, OK), (0, ADMIN))))
    return path


def test_json_by_default(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(capture)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert valid(json.loads(line))["protocol"] == "http"


def test_policy_and_rules(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert main(["replay", str(capture), "--policy", str(tmp_path / "policy.yaml"), "--rules", RULES]) == 0
    records = [valid(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert [(r["verdict"], r["rule"], r["l7_rule"]) for r in records] == [
        ("allow", "web", "read-and-post"),
        ("deny", "web", "no-admin"),
    ]


def test_compact(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(capture), "-o", "compact"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "10.0.0.1" in line
    assert not line.startswith("{")


def test_bad_policy_and_rules_are_invalid_configuration(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert main(["replay", str(capture), "--policy", str(tmp_path / "policy.yaml")]) == 3
    assert "no rule file 'web'" in capsys.readouterr().err
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "x.yaml").write_text("name: x\n")
    assert main(["replay", str(capture), "--rules", str(tmp_path / "rules")]) == 3
    assert main(["replay", str(capture), "--rules", str(tmp_path / "none")]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_truncated_capture_prints_what_came_before(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture.write_bytes(capture.read_bytes()[:-3])
    assert main(["replay", str(capture)]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["protocol"] == "http"
    assert err == f"microseg-slowpath: {capture}: ends in the middle of a packet\n"


@pytest.mark.parametrize("content", [None, b"", b"no capture, this", b"\xd4\xc3\xb2\xa1short"])
def test_bad_files_are_one_line(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.pcap"
    if content is not None:
        path.write_bytes(content)
    assert main(["replay", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"microseg-slowpath: {path}: ")
    assert err.count("\n") == 1


def test_a_folder_is_no_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path)]) == 1
    assert "Is a directory" in capsys.readouterr().err
