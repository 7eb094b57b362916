from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from fastpath.admin import AdminServer
from fastpath.cli.main import main

COMMANDS = ("load", "unload", "run", "status", "stats", "sessions", "policy", "config")


def config_file(folder: Path, policy: str = "rules: []\n", more: str = "") -> Path:
    (folder / "policy.yaml").write_text(policy)
    path = folder / "gateway.yaml"
    path.write_text(f"interfaces: [seg0, seg1]\npolicy: policy.yaml\nrun_dir: {folder}\n{more}")
    return path


@pytest.mark.parametrize("argv", [["--version"], *([name, "--version"] for name in COMMANDS)])
def test_version_everywhere(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out == f"microseg-fastpath {metadata.version('microseg')}\n"


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        *([name, "--help"] for name in COMMANDS),
        ["config", "check", "--help"],
        ["sessions", "list", "--help"],
        ["sessions", "close", "--help"],
        *(["policy", name, "--help"] for name in ("check", "show", "simulate", "diff", "apply", "rollback", "history")),
    ],
)
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert "usage: microseg-fastpath" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["frobnicate"],
        ["--frobnicate"],
        ["run", "x"],
        ["run", "--log-level", "loud"],
        ["stats", "-o", "table"],
        ["sessions", "--limit", "-1"],
        ["sessions", "--limit", "many"],
        ["sessions", "open"],
        ["sessions", "--event", "end"],
        ["sessions", "list", "--sort", "colour"],
        ["sessions", "--sort", "age:up"],
        ["sessions", "--watch", "0"],
        ["sessions", "--watch", "nan"],
        ["sessions", "--by", "colour", "--count"],
        ["sessions", "--all"],
        ["sessions", "close", "--limit", "3"],
        ["sessions", "--ip", "::1", "close"],
        ["policy"],
        ["policy", "praise"],
        ["policy", "apply", "one", "another"],
        ["policy", "rollback", "--to", "yesterday"],
        ["policy", "history", "-o", "yaml"],
        ["config"],
        ["config", "mend"],
        ["policy", "show", "-o", "text"],
        ["policy", "diff"],
        ["policy", "diff", "a", "b", "c"],
    ],
)
def test_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "microseg-fastpath" in err


@pytest.mark.parametrize(
    "argv",
    [
        ["sessions", "--by", "rule"],
        ["sessions", "--count", "--sort", "age"],
        ["sessions", "--watch", "-o", "json"],
        ["sessions", "--not"],
        ["sessions", "close"],
        ["sessions", "close", "--all", "--l4", "tcp"],
        ["sessions", "close", "--l4", "tcp", "--not"],
    ],
)
def test_what_does_not_go_together(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*argv, "--config", str(config_file(tmp_path))]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "behind it"])
def test_config_check(tmp_path: Path, before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    option = ["--config", str(config_file(tmp_path, "rules: [{id: a, action: allow}]\n"))]
    assert main([*option, "config", "check"] if before else ["config", "check", *option]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{tmp_path}/gateway.yaml: ok; {tmp_path}/policy.yaml: 1 rules")


def test_config_check_reports_everything_wrong_with_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = "rules:\n  - {id: a, action: perhaps}\n  - {id: b, ports: 80, action: allow}\n  - {action: deny}\n"
    assert main(["config", "check", "--config", str(config_file(tmp_path, policy))]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(": ")[0] for line in err.splitlines()] == [f"{tmp_path}/policy.yaml:{n}" for n in (2, 3, 4)]


@pytest.mark.parametrize("command", ["load", "unload", "run", "status", "stats", "sessions"])
def test_every_command_reports_everything_wrong_with_the_config(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file(tmp_path, more="prio: 0\nshape: round\n")
    assert main([command, "--config", str(path)]) == 3
    assert [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()] == [f"{path}:{n}" for n in (4, 5)]


def test_status_asks_the_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_file(tmp_path)
    status = {"healthy": True, "problem": None, "policy": {"revision": 7}}

    async def serve() -> None:
        server = AdminServer(tmp_path / "fastpath.sock", status=lambda: status)
        await server.start()
        try:
            assert await asyncio.to_thread(main, ["status", "--config", str(path)]) == 0
            assert await asyncio.to_thread(main, ["status", "-o", "json", "--config", str(path)]) == 0
        finally:
            await server.stop()

    asyncio.run(serve())
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["healthy          yes", "problem          none", "policy.revision  7"]
    assert json.loads("\n".join(lines[3:])) == status


def test_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--config", str(config_file(tmp_path))]) == 4
    assert "no daemon answers" in capsys.readouterr().err


def test_only_run_imports_what_only_it_needs() -> None:
    script = """
import sys
from fastpath.cli.main import main
assert main(["--help"]) == 0
print(sorted({"aiohttp", "pyroute2", "bcc", "prometheus_client"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
