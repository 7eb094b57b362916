"""`microseg-fastpath policy suggest` as an operator calls it, of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastpath.cli.main import main
from slowpath.record.write import encode
from tests.unit.slowpath.record.sample import T0, end

POLICY = "groups: {web: [10.0.0.1, 10.0.0.2]}\nrules: []\n"
FLOWS = """\
{"from": "10.0.0.1", "to": "10.1.0.1", "proto": "tcp", "port": 443, "app": "tls"}
{"from": "10.0.0.2", "to": "10.1.0.1", "proto": "tcp", "port": 443, "app": "tls"}
{"from": "fd00::1", "to": "fd00::2", "proto": "icmp6"}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    path = tmp_path / "gateway.yaml"
    path.write_text("interfaces: [seg0, seg1]\npolicy: policy.yaml\n")
    return path


def run(gateway: Path, *argv: str, command: str = "suggest") -> int:
    return main(["policy", command, *argv, "--config", str(gateway)])


def file(gateway: Path, text: str | bytes) -> str:
    path = gateway.parent / "input"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_flows(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, "--flows", file(gateway, FLOWS)) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "# Suggested by `microseg-fastpath policy suggest`, for review. Nothing of it is in force.\n"
    )
    assert (
        text.partition("\n\n")[2]
        == """\
default: deny

groups:
  web: [10.0.0.1, 10.0.0.2]

rules:
  - id: tcp-443-10.1.0.1
    description: "2 sessions (66.67 %), 0 packets, 0 bytes (0.0 %)"
    from: web
    to: 10.1.0.1
    proto: tcp
    ports: 443
    app: tls
    action: allow
  - id: "icmp6-fd00::2"
    description: "1 session (33.33 %), 0 packets, 0 bytes (0.0 %)"
    from: "fd00::1"
    to: "fd00::2"
    proto: icmp6
    action: allow
"""
    )
    suggested = gateway.parent / "suggested.yaml"
    suggested.write_text(text)
    assert run(gateway, str(suggested), "--strict", command="check") == 0


def test_bad_flows_are_told(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(gateway, f"{{}}\n{FLOWS}")
    assert run(gateway, "--flows", path) == 1
    out, err = capsys.readouterr()
    assert (err, out.count("  - id: ")) == (f"{path}:1: missing from\n", 2)


def test_records(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(
        gateway, b"".join(map(encode, [end(1), end(2), end(3, verdict="deny", enforced=True)])) + b'"event":"end"'
    )
    assert run(gateway, "--records", path, "--since", f"@{T0 + 2}", "-o", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["since"] == T0 + 2
    assert told["observed"] == {"sessions": 1, "packets": 22, "bytes": 9800, "inspected": 0}
    assert told["left_out"] == {
        "denied": {"sessions": 1, "packets": 22, "bytes": 9800, "inspected": 0},
    }
    assert told["notes"] == [f"Of {path} 1 lines are no records."]
    assert [(rule["id"], rule["sessions"], rule["sessions_percent"]) for rule in told["rules"]] == [
        ("tcp-50051-10.0.1.2", 1, 100.0)
    ]
    assert [rule["app"] for rule in told["policy"]["rules"]] == ["grpc"]
    assert run(gateway, "--records", path, "--include", "denied", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["observed"]["sessions"] == 3


def test_what_is_left_out_is_said(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(gateway, encode(end(3, verdict="deny", enforced=True)))
    (gateway.parent / "policy.yaml").write_text("groups: {a: b}\n")
    assert run(gateway, "--records", path, "--since", f"@{T0}") == 0
    header = capsys.readouterr().out.partition("\n\n")[0].replace("\n#   ", " ").splitlines()
    assert header[1].startswith("# Period: 2023-11-14T22:13:20Z, until ")
    assert header[2] == "# Explained by 0 rules: 0 sessions, 0 bytes."
    assert header[4] == "# Left out: 1 session, 9800 bytes: denied and dropped (--include denied)."
    policy = gateway.parent / "policy.yaml"
    assert header[5].startswith(f"# Names of groups and services of {policy} are not used: {policy}:1: groups.a: ")


def test_widening_options(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"from": f"10.0.0.{n}", "to": "10.1.0.1", "proto": "tcp", "port": 40000 + n}) for n in range(3)]
    lines += [json.dumps({"from": f"fd00::{n}", "to": "fd00::9", "proto": "udp", "port": 53}) for n in range(1, 3)]
    path = file(gateway, "\n".join(lines))
    assert run(gateway, "--flows", path, "--span", "3", "--widen", "24:3", "--widen6", "64:2", "-o", "json") == 0
    rules = json.loads(capsys.readouterr().out)["policy"]["rules"]
    assert [(rule["from"], rule["ports"]) for rule in rules] == [("10.0.0.0/24", "40000-40002"), ("fd00::/64", "53")]


@pytest.mark.parametrize(
    "argv",
    [
        ("--flows", "-", "--records", "x"),
        ("--flows", "-", "--since", "1h"),
        ("--flows", "-", "--include", "denied"),
        ("--since", "never"),
        ("--include", "outside"),
        ("--widen", "24"),
        ("--widen", "33:1"),
        ("--widen6", "129:1"),
        ("--span", "0"),
    ],
)
def test_usage(gateway: Path, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gateway, *argv) == 2
    assert capsys.readouterr().err
