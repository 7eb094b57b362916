from __future__ import annotations

import argparse
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from slowpath.cli.main import COMMANDS, main


@pytest.mark.parametrize("argv", [["--version"], *([name, "--version"] for name in COMMANDS)])
def test_version_everywhere(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out == f"microseg-slowpath {metadata.version('microseg')}\n"


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert "usage: microseg-slowpath" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["frobnicate"], ["--frobnicate"], ["inspect", "--frobnicate"], ["run", "x"]])
def test_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: microseg-slowpath" in err


@pytest.mark.parametrize(
    ("argv", "config"),
    [
        (["run"], None),
        (["--config", "/a", "run"], Path("/a")),
        (["run", "--config", "/b"], Path("/b")),
        (["--config", "/a", "run", "--config", "/b"], Path("/b")),
    ],
)
def test_run_gets_its_options(argv: list[str], config: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    service = types.ModuleType("slowpath.service")
    service.main = lambda options: seen.append(options) or 3  # type: ignore[attr-defined,func-returns-value]
    monkeypatch.setitem(sys.modules, "slowpath.service", service)
    assert main([*argv, "--log-level", "debug"]) == 3
    assert (seen[0].config, seen[0].log_level) == (config, "debug")


def test_subcommands_are_imported_only_when_called() -> None:
    script = """
import sys
from slowpath.cli.main import main
assert main(["--help"]) == 0
print([name for name in sys.modules if name.startswith("slowpath.") and name != "slowpath.cli.main"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['slowpath.cli']"
