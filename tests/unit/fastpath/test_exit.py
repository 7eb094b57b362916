from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastpath.document import InvalidDocumentError, Problem
from fastpath.exit import CommandError, ExitStatus, run_command


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


PROBLEMS = InvalidDocumentError([Problem("a.yaml", 3, "rules[0]", "bad"), Problem("a.yaml", 9, "", "worse")])


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (lambda: None, 0, ""),
        (lambda: 4, 4, ""),
        (raising(CommandError("no luck")), 1, "prog: no luck\n"),
        (raising(CommandError("old kernel", ExitStatus.UNAVAILABLE)), 5, "prog: old kernel\n"),
        (raising(FileNotFoundError(2, "No such file or directory", "/x")), 1, "prog: /x: No such file or directory\n"),
        (raising(OSError("odd")), 1, "prog: odd\n"),
        (raising(PermissionError(13, "Permission denied", "/x")), 5, "prog: /x: Permission denied (are you root?)\n"),
        (raising(PROBLEMS), 3, "a.yaml:3: rules[0]: bad\na.yaml:9: worse\n"),
        (raising(KeyboardInterrupt()), 130, ""),
        (raising(SystemExit(2)), 2, ""),
        (raising(SystemExit(None)), 0, ""),
        (raising(SystemExit("stop")), 1, "prog: stop\n"),
        (raising(CommandError("a\x1b[2Jb\nc")), 1, "prog: a\\x1b[2Jb\nc\n"),
    ],
)
def test_status(
    command: Callable[[], int | None], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("prog", command) == status
    assert capsys.readouterr() == ("", message)


def test_what_nobody_expected_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("prog", raising(ZeroDivisionError("why"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_closed_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert run_command("prog", raising(BrokenPipeError())) == 0
        out.write("goes nowhere")
    assert (tmp_path / "out").read_text() == ""
    assert capsys.readouterr().err == ""
