"""Append records to a file of bounded size that is rotated, and never stop the daemon over it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MAX_BYTES = 100 * 1024 * 1024
KEEP = 9
INTERVAL = 0.1

# A burst between two flushes goes out early rather than into memory.
MAX_PENDING = 64 * 1024

# ASCII only: no byte in the file can drive a terminal that somebody `cat`s it to, and text that
# was no UTF-8 on the wire survives as lone surrogates.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False, allow_nan=False).encode

log = logging.getLogger(__name__)


def encode(record: Mapping[str, Any]) -> bytes:
    """One line of the log."""
    return (_encode(record) + "\n").encode("ascii")


class Writer:
    """Appends lines to `path`; full files become ``path.1`` (newest) to ``path.keep``.

    Every line goes out in a single write() with others, so a crash tears at most
    the last one, and the next start ends that with a newline. What the disk
    refuses is counted in `lost`, reported when it begins and when it is over.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_BYTES,
        keep: int = KEEP,
        interval: float = INTERVAL,
        report: Callable[[str], None] = log.warning,
    ) -> None:
        self.path = path
        self.lost = 0
        self.written = 0
        self._max_bytes = max_bytes
        self._keep = keep
        self._interval = interval
        self._report = report
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._rest = b""  # of a line that the disk took only half of
        self._failing = 0  # lost since the last success
        self._flushed = float("-inf")
        self._limit = max_bytes
        self._size = 0
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._fd = self._open()

    def write(self, record: Mapping[str, Any]) -> None:
        """Queue a record; never raises over the disk."""
        line = encode(record)
        if self._size + self._pending_bytes + len(line) > self._limit and self._size + self._pending_bytes:
            self._drain()
            if self._size + len(line) > self._limit:
                self._rotate()
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes >= MAX_PENDING:
            self._drain()

    def flush(self, now: float | None = None) -> None:
        """Write what is queued if the last time was an interval ago (`now`: any steady clock,
        seconds), or at once without `now`.
        """
        if now is not None:
            if now - self._flushed < self._interval:
                return
            self._flushed = now
        self._drain()

    def reopen(self) -> None:
        """Open `path` anew, for an outside log rotation. The old file stays if that fails."""
        self._drain()
        self._replace_file()

    def close(self) -> None:
        """Flush and close."""
        if self._fd >= 0:
            self._drain()
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        # O_NOFOLLOW: the daemon is root, and the last component may be somebody's link.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path, flags, 0o640)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(None, "is not a regular file", str(self.path))
            self._size = status.st_size
            if self._size and os.pread(fd, 1, self._size - 1) != b"\n":
                with contextlib.suppress(OSError):  # a full disk does not stop the start
                    self._size += os.write(fd, b"\n")
        except BaseException:
            os.close(fd)
            raise
        self._limit = max(self._max_bytes, 1)
        self._rest = b""
        return fd

    def _replace_file(self) -> bool:
        old, size = self._fd, self._size
        try:
            self._fd = self._open()
        except OSError as error:
            self._fd, self._size = old, size
            self._report(f"{self.path}: cannot open it anew: {error.strerror}")
            return False
        os.close(old)
        return True

    def _rotate(self) -> None:
        try:
            for number in range(self._keep - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._numbered(number).rename(self._numbered(number + 1))
            with contextlib.suppress(FileNotFoundError):  # removed by somebody: begin it anew
                if self._keep:
                    self.path.rename(self._numbered(1))
                else:
                    self.path.unlink()
        except OSError as error:
            self._report(f"{self.path}: cannot rotate it: {error.strerror}")
            self._limit = self._size + self._max_bytes  # not again with every record
            return
        if not self._replace_file():
            self._limit = self._size + self._max_bytes

    def _numbered(self, number: int) -> Path:
        return Path(f"{self.path}.{number}")

    def _drain(self) -> None:
        lines, self._pending, self._pending_bytes = self._pending, [], 0
        if not lines and not self._rest:
            return
        batch = self._rest + b"".join(lines)
        error = "short write"
        try:
            taken = os.write(self._fd, batch)
        except OSError as failure:
            taken, error = 0, failure.strerror or str(failure)
        self._size += taken
        if taken == len(batch):
            self._rest = b""
            self.written += len(lines)
            if self._failing:
                self._report(f"{self.path}: writing again, {self._failing} records were lost")
                self._failing = 0
            return
        self._settle(lines, taken, error)

    def _settle(self, lines: list[bytes], taken: int, error: str) -> None:
        """Keep the rest of the line that was cut, for the next write; the others are lost."""
        if taken < len(self._rest):
            self._rest = self._rest[taken:]
            lost = len(lines)
        else:
            taken -= len(self._rest)
            self._rest = b""
            lost = 0
            for line in lines:
                if taken >= len(line):
                    taken -= len(line)
                    self.written += 1
                elif taken:
                    self._rest = line[taken:]
                    self.written += 1
                    taken = 0
                else:
                    lost += 1
        self.lost += lost
        if lost and not self._failing:
            self._report(f"{self.path}: {error}; records are being lost")
        self._failing += lost
