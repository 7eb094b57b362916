from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastpath import log


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def logged(message: str, *args: object, level: int = logging.WARNING, exc_info: bool = False) -> str:
    stream = io.StringIO()
    log.setup("debug", stream=stream)
    logging.getLogger("fastpath.load").log(level, message, *args, exc_info=exc_info)
    return stream.getvalue()


def test_line() -> None:
    line = logged("eth0: %s", "no such interface")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning fastpath\.load: eth0: no such interface\n", line
    )


def test_control_characters_are_escaped() -> None:
    line = logged("path %s", "/\n2025-01-01T00:00:00.000Z error forged\x1b[2J\u202e")
    assert line.count("\n") == 1
    assert "\\n2025" in line
    assert "\\x1b[2J\\u202e" in line


def test_long_messages_are_cut() -> None:
    assert len(logged("x" * 100_000)) < log.MAX_MESSAGE + 100


def test_traceback_is_indented() -> None:
    try:
        raise ValueError("first\n2025-01-01T00:00:00.000Z error forged\x1b")
    except ValueError:
        lines = logged("it failed", exc_info=True).splitlines()
    assert lines[0].endswith("fastpath.load: it failed")
    assert all(line.startswith("    ") for line in lines[1:])
    assert "\\x1b" in lines[-1]


def test_levels() -> None:
    stream = io.StringIO()
    log.setup("warning", stream=stream)
    for level in log.LEVELS:
        logging.getLogger("x").log(getattr(logging, level.upper()), level)
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["error", "warning"]
    with pytest.raises(ValueError, match="error, warning, info, debug"):
        log.setup("loud")


def test_setup_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    log.setup(stream=first)
    log.setup(stream=second)
    logging.getLogger("x").info("hello")
    assert (first.getvalue(), second.getvalue().count("\n")) == ("", 1)


def test_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup()
    logging.getLogger("x").info("hello")
    out, err = capsys.readouterr()
    assert (out, err.endswith("info x: hello\n")) == ("", True)


@pytest.mark.parametrize(
    ("stream", "journal"), [("{dev}:{ino}", True), ("{dev}:1{ino}", False), ("", False), ("junk", False), (None, False)]
)
def test_no_time_under_the_journal(
    stream: str | None, journal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "err").open("w+") as target:
        status = os.fstat(target.fileno())
        if stream is None:
            monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        else:
            monkeypatch.setenv("JOURNAL_STREAM", stream.format(dev=status.st_dev, ino=status.st_ino))
        log.setup("info", stream=target)
        logging.getLogger("x").error("hello")
        try:
            raise KeyError("k")
        except KeyError:
            logging.getLogger("x").warning("failed", exc_info=True)
        target.seek(0)
        lines = target.read().splitlines()
    if journal:
        assert lines[:2] == ["<3>x: hello", "<4>x: failed"]
        assert all(line.startswith("<4>    ") for line in lines[2:])
    else:
        assert re.fullmatch(r"\d{4}-.*Z error x: hello", lines[0])


def test_closed_stream_is_borne(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    log.setup(stream=stream)
    stream.close()
    logging.getLogger("x").error("hello")
    assert capsys.readouterr().err == ""
    assert sys.stderr is not None
