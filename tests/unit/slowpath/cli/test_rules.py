"""`microseg-slowpath rules`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slowpath.cli.main import main
from tests.unit.slowpath.test_replay import conversation, pcap

ROOT = Path(__file__).parents[4]
SHIPPED = ROOT / "configs" / "rules.d"
WEB = SHIPPED / "web.yaml"


def run(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    status = main(["rules", *map(str, argv)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_check_of_the_shipped_files(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "check", SHIPPED)
    assert status == 0
    assert f"{WEB}: 2 rules on http, http2, scope request\n" in out


def test_check_finds_samples_that_do_not_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        "name: w\nprotocol: http\nrules:\n  - id: a\n    match: {http.method: GET}\n    action: allow\n    samples:\n"
        "      must_match: [{http.method: PUT}]\n      must_not_match: [{http.method: GET}]\n"
        "  - {id: b, match: {http.host: x}, action: deny}\n"
    )
    status, out, _ = run(capsys, "check", path)
    assert status == 1
    assert f"{path}:8: a: must match, is decided by no rule" in out
    assert f"{path}:9: a: must not match, is decided by w/a" in out
    assert f"{path}:10: b: needs samples" in out
    path.write_text("name: w\nprotocol: http\nrules: [{id: a, action: maybe}]\n")
    status, _, err = run(capsys, "check", path)
    assert status == 3
    assert f"{path}:3: rules[0].action" in err
    assert run(capsys, "check", tmp_path / "none")[0] == 3


def test_the_configured_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "w.yaml").write_text("{name: w, protocol: http, rules: [{id: a, action: deny}]}")
    config = tmp_path / "gateway.yaml"
    config.write_text("rules: mine\n")
    assert main(["--config", str(config), "rules", "list"]) == 0
    assert capsys.readouterr().out == "w/a  deny     none        -         always\n"


def test_a_sample_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "test", WEB, "--sample", "{http.path: /admin/x, http.method: PUT}")
    assert status == 0
    assert out == "deny by web/no-admin, scope request\n  http.path is '/admin/x', wanted /admin...: yes\n"
    _, out, _ = run(capsys, "test", WEB, "--sample", "{http.method: PUT}", "--rule", "read-and-post")
    assert out.splitlines()[:2] == ["deny no_rule, scope request", "rule read-and-post:"]
    _, out, _ = run(capsys, "test", WEB, "-o", "json", "--sample", "{http.path: /}")
    assert json.loads(out)["rule"] == "web/read-and-post"
    assert run(capsys, "test", WEB, "--sample", "{http.colour: red}")[0] == 3
    assert run(capsys, "test", WEB, "--rule", "none")[0] == 2
    assert run(capsys, "test", WEB)[1] == f"{WEB}: 16 samples hold\n"


def test_attributes_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        "name: w\nprotocol: http\nrules:\n"
        "  - {id: a, match: {http.method: PUT}, action: deny, mode: monitor, severity: high, log: all,\n"
        "     deny_with: drop, samples: {must_match: [{http.method: PUT}], must_not_match: [{http.method: GET}]}}\n"
        "  - {id: b, match: {http.path: /}, action: allow, severity: info}\n"
    )
    _, out, _ = run(capsys, "test", path, "--sample", "{http.method: PUT}")
    assert out.splitlines()[:2] == [
        "allow by w/b, scope request, severity info",
        "  would deny, in monitor mode: w/a",
    ]
    _, out, _ = run(capsys, "list", path)
    assert out.splitlines()[0].split() == ["w/a", "monitor", "request", "high", "http.method"]
    _, out, _ = run(capsys, "explain", "w/a", path)
    assert {"severity: high", "mode: monitor", "deny_with: drop", "log: all"} <= {
        each.strip() for each in out.splitlines()
    }
    assert run(capsys, "check", path)[1].count("problem") == 0


def test_a_capture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(conversation((0, b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"))))
    status, out, _ = run(capsys, "test", WEB, "--pcap", path)
    assert status == 0
    assert "http: deny by web/no-admin, scope request\n  http.path is '/admin', wanted /admin...: yes\n" in out
    assert run(capsys, "test", WEB, "--pcap", tmp_path / "none")[0] == 1


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list", SHIPPED)
    assert status == 0
    assert ["web/no-admin", "deny", "request", "-", "http.path"] in [line.split() for line in out.splitlines()]


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "explain", "web/no-admin", SHIPPED)
    assert status == 0
    assert "depends on what each request may say anew" in out
    assert run(capsys, "explain", "web/none", SHIPPED)[0] == 2


OWN = """
name: own
patterns:
  - id: word
    description: a word
    regex: secret
    severity: high
    samples: {must_match: [a secret], must_not_match: [a sacret]}
"""
LOOKS = """
name: looks
protocol: http
rules:
  - id: no
    match: {http.path: {pattern: own}}
    action: deny
    samples: {must_match: [{http.path: /secret}], must_not_match: [{http.path: /}]}
"""


@pytest.fixture(name="folder")
def with_patterns(tmp_path: Path) -> Path:
    for name, text in (("patterns.d/own.yaml", OWN), ("rules.d/looks.yaml", LOOKS)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


def test_pattern_files_are_checked_too(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, out, _ = run(capsys, "check", folder / "rules.d")
    assert status == 0
    own = folder / "patterns.d" / "own.yaml"
    assert f"{own}: 1 patterns\n" in out
    own.write_text(OWN.replace("a sacret", "my secret"))
    status, out, _ = run(capsys, "check", folder / "rules.d" / "looks.yaml")
    assert (status, f"{own}:4: own/word: must not match b'my secret'\n" in out) == (1, True)
    own.write_text(OWN[: OWN.index("    samples")])
    status, out, _ = run(capsys, "check", folder / "rules.d")
    assert (status, "own/word: needs samples" in out) == (1, True)
    own.write_text(OWN.replace("regex: secret", "regex: s*"))
    status, _, err = run(capsys, "check", folder / "rules.d")
    assert status == 3
    assert f"{own}:6: patterns[0].regex: matches nothing" in err


def test_patterns_are_listed_and_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(capsys, "list", "--patterns", folder / "rules.d") == (0, "own/word  high      a word\n", "")
    assert "http.path: pattern own/word\n" in run(capsys, "explain", "looks/no", folder / "rules.d")[1]
    looks = folder / "rules.d" / "looks.yaml"
    _, out, _ = run(capsys, "test", looks, "--sample", "{http.path: /my/secret}")
    assert "http.path is '/my/secret', contains own/word, wanted pattern own/word: yes" in out
