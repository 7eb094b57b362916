"""What the commands say when they end: one status for each kind of failure."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit codes of all commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INVALID_CONFIGURATION = 3
    UNREACHABLE = 4
    UNAVAILABLE = 5  # privilege or kernel feature missing
    INTERRUPTED = 130


class CommandError(Exception):
    """An expected failure: its text is for the operator, its status for the shell."""

    def __init__(self, message: str, status: ExitStatus = ExitStatus.FAILED) -> None:
        super().__init__(message)
        self.status = status


def run_command(program: str, command: Callable[[], int | None]) -> int:
    """Run `command` and turn whatever it raises into an exit status and at most a few lines on
    stderr. A traceback is left for what nobody expected.
    """
    try:
        result = int(command() or 0)
        # Here, not at interpreter exit, where a closed pipe cannot be caught any more.
        sys.stdout.flush()
        return result
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return ExitStatus.OK
    except SystemExit as error:  # argparse has said what is wrong
        if isinstance(error.code, str):
            _say(program, error.code)
            return ExitStatus.FAILED
        return int(error.code or 0)
    except Exception as error:  # noqa: BLE001  # the one place where all of them end
        return _report(program, error)


def _report(program: str, error: Exception) -> ExitStatus:
    if isinstance(error, CommandError):
        _say(program, str(error))
        return error.status
    if isinstance(error, PermissionError):
        _say(program, f"{_os_text(error)} (are you root?)")
        return ExitStatus.UNAVAILABLE
    if isinstance(error, OSError):
        _say(program, _os_text(error))
        return ExitStatus.FAILED
    # Imported only now: PyYAML costs 20 ms, and `inspect` rarely needs it.
    from fastpath.document import InvalidDocumentError  # noqa: PLC0415

    if isinstance(error, InvalidDocumentError):
        for line in str(error).splitlines():
            _say("", line)
        return ExitStatus.INVALID_CONFIGURATION
    traceback.print_exception(error)
    return ExitStatus.FAILED


def _os_text(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename is not None else what


def _say(program: str, message: str) -> None:
    from fastpath.text import escape  # noqa: PLC0415  # the messages quote files and options

    lines = [escape(line) for line in message.split("\n")]
    if program:
        lines[0] = f"{program}: {lines[0]}"
    with contextlib.suppress(OSError):
        sys.stderr.write("\n".join(lines) + "\n")


def _discard_stdout() -> None:
    """Point stdout elsewhere, so that the interpreter's last flush does not complain."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
