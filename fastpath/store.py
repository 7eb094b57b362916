"""What was costly to make, on disk: a folder of entries, each under a key that says all it was made from.

What stands here becomes code (the kernel's, or of a matcher), so folder and files must be root's alone. What is wrong
with an entry is logged and costs making it anew, nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

# What a killed process left half written is removed after so many seconds.
STALE = 3600.0

_PART = ".part"
# The line that an entry begins with.
_DIGEST = 65

log = logging.getLogger(__name__)


class StoreError(Exception):
    """The folder, or an entry, must not or cannot be used; the message says why."""


class Store:
    """Entries of one kind, which their `suffix` tells, at most `most`: the least recently used one goes first. Several
    kinds may share a folder, and several processes use it. `what` is for the log.
    """

    def __init__(self, folder: Path, suffix: str, what: str, *, most: int, max_bytes: int) -> None:
        self.folder = folder
        self._suffix = suffix
        self._what = what
        self._most = most
        self._max_bytes = max_bytes

    def find(self, key: str) -> bytes | None:
        """What was kept under this key; None if nothing was, or nothing that may be used."""
        path = self._path(key)
        try:
            with self._open_folder(make=False) as folder:
                content = self._read(path, folder)
                os.utime(path.name, dir_fd=folder)
        except FileNotFoundError:
            return None
        except (StoreError, OSError) as error:
            log.warning("%s: %s", self._what, error)
            return None
        return content

    def keep(self, key: str, content: bytes) -> None:
        """Keep it. A failure is logged."""
        try:
            if len(content) > self._max_bytes - _DIGEST:
                raise StoreError(f"{len(content)} bytes are too many")
            with self._open_folder(make=True) as folder:
                _write(self._path(key).name, content, folder)
                self._prune(folder)
        except (StoreError, OSError) as error:
            log.warning("%s are not kept: %s", self._what, error)

    def drop(self, key: str) -> None:
        """Forget an entry."""
        with contextlib.suppress(StoreError, OSError), self._open_folder(make=False) as folder:
            os.unlink(self._path(key).name, dir_fd=folder)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{self._suffix}"

    @contextlib.contextmanager
    def _open_folder(self, *, make: bool) -> Iterator[int]:
        """A descriptor of it, so that what is checked is what is used. StoreError, OSError."""
        if make:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _refuse_others(self.folder, os.fstat(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)

    def _prune(self, folder: int) -> None:
        ages: list[tuple[float, str]] = []
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # another one prunes too
                at = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                if name.endswith(self._suffix):
                    ages.append((at, name))
                elif name.endswith(_PART) and time.time() - at > STALE:
                    os.unlink(name, dir_fd=folder)
        for _, name in sorted(ages)[: -self._most]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    def _read(self, path: Path, folder: int) -> bytes:
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            _refuse_others(path, status)
            if not stat.S_ISREG(status.st_mode) or status.st_size > self._max_bytes:
                raise StoreError(f"{path}: is none of ours")
            content = stream.read(self._max_bytes)
        # One line, the digest of what follows.
        said, _, rest = content.partition(b"\n")
        if said != hashlib.sha256(rest).hexdigest().encode():
            raise StoreError(f"{path}: damaged")
        return rest


def _refuse_others(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise StoreError(f"{path}: others than root can write there, so it is not used")


def _write(name: str, content: bytes, folder: int) -> None:
    part = f"{secrets.token_hex(8)}{_PART}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            stream.flush()
            os.fsync(descriptor)
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise
