"""Logging of both daemons: lines on stderr that can be neither forged nor lost in colour codes."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from typing import TextIO

from fastpath.text import escape

LEVELS = ("error", "warning", "info", "debug")

# What journald calls them (sd-daemon(3)); the prefix is taken off again when it stores the line.
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}

MAX_MESSAGE = 4096


def setup(level: str = "info", *, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (stderr), replacing what was set up before."""
    if level not in LEVELS:
        raise ValueError(f"{level!r} is not one of {', '.join(LEVELS)}")
    target = stream if stream is not None else sys.stderr
    output = logging.StreamHandler(target)
    output.setFormatter(LineFormatter(journal=_is_journal(target)))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(output)
    root.setLevel(level.upper())
    # A closed stderr is no reason to write more to it.
    logging.raiseExceptions = False


def _is_journal(stream: TextIO) -> bool:
    """JOURNAL_STREAM is inherited, so it counts only if it names this very stream (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
        return (status.st_dev, status.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


class LineFormatter(logging.Formatter):
    """``2025-11-24T12:01:02.345Z warning fastpath.load: text``; under the journal its priority
    prefix stands for time and level.
    """

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a log record; those of a traceback are indented, so that none passes for a message."""
        if self._journal:
            priority = _PRIORITIES.get(record.levelno, 6)
            head = more = f"<{priority}>"
        else:
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            head = f"{moment}.{int(record.msecs):03d}Z {record.levelname.lower()} "
            more = ""
        lines = [f"{head}{record.name}: {escape(record.getMessage(), MAX_MESSAGE)}"]
        if record.exc_info and record.exc_info[1] is not None:
            for text in traceback.format_exception(record.exc_info[1]):
                lines += [f"{more}    {escape(line, MAX_MESSAGE)}" for line in text.rstrip("\n").split("\n")]
        return "\n".join(lines)
