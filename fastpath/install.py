"""Other content for the policy source, in one step, and back again if it does not take.

It is staged beside the source and exchanged for it (renameat2(2), RENAME_EXCHANGE): nobody sees a part of it, and
undone, the source is the very file that it was.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from fastpath.exit import CommandError
from fastpath.history import sync_folder
from fastpath.policy.source import Source, read_source, source_files

# Of a source that is not there yet.
NEW_FILE = 0o640
NEW_FOLDER = 0o750

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Installation:
    """`source` for what stands at `path`; mode and owner stay. Within `with`, `staged` holds the one that is out.

    OSError when we may not, CommandError for what is not supported.
    """

    def __init__(self, path: Path, source: Source) -> None:
        # A link stays one.
        self.path = path.resolve()
        self.staged = self.path.with_name(f".{self.path.name}.new")
        self._source = source
        self._there = os.path.lexists(self.path)

    def __enter__(self) -> Self:
        self._refuse()
        # What a killed one left. Callers see to it that there is one at a time.
        _remove(self.staged)
        try:
            self._stage()
        except BaseException:
            _remove(self.staged)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _remove(self.staged)

    def swap(self) -> None:
        """The new one in its place. All or nothing."""
        if self._there:
            _exchange(self.staged, self.path)
        else:
            self.staged.rename(self.path)
        sync_folder(self.path.parent)

    def undo(self) -> None:
        """What was there before in its place again."""
        if self._there:
            _exchange(self.staged, self.path)
        else:
            self.path.rename(self.staged)
        sync_folder(self.path.parent)

    def replaced(self) -> Source | None:
        """After `swap`: what was there before, None if nothing was."""
        return read_source(self.staged) if self._there else None

    def keep_replaced(self, to: Path) -> None:
        """After `swap`: what was there before goes to `to` instead of away."""
        _remove(to)
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(self.staged, to)

    def _refuse(self) -> None:
        if not self._there:
            return
        is_folder = self.path.is_dir()
        if is_folder != self._source.folder:
            kinds = ("a file", "a folder")
            raise CommandError(f"{self.path}: is {kinds[is_folder]}, and what is to be applied {kinds[not is_folder]}")
        if not is_folder:
            if not self.path.is_file():
                raise CommandError(f"{self.path}: is no regular file")
            return
        # The folder is replaced whole: what is no policy would go with it.
        others = sorted({*self.path.iterdir()} - {path for path in source_files(self.path) if _is_plain(path)})
        if others:
            raise CommandError(f"{others[0]}: a folder with anything but policy files in it is not replaced")

    def _stage(self) -> None:
        before = self.path.stat() if self._there else None
        if not self._source.folder:
            (text,) = self._source.files.values()
            _write(self.staged, text, before, NEW_FILE)
            return
        self.staged.mkdir(mode=0o700)
        for name, text in self._source.files.items():
            old = self.path / name
            _write(self.staged / name, text, old.stat() if old.exists() else None, NEW_FILE)
        sync_folder(self.staged)
        if before is not None:
            os.chown(self.staged, before.st_uid, before.st_gid)
        self.staged.chmod(NEW_FOLDER if before is None else stat.S_IMODE(before.st_mode))


def _is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _write(path: Path, text: bytes, like: os.stat_result | None, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(text)
        stream.flush()
        if like is not None:
            os.fchown(descriptor, like.st_uid, like.st_gid)
            mode = stat.S_IMODE(like.st_mode)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        if number == errno.EINVAL:
            raise CommandError(f"{other}: its file system cannot exchange two files; replace it by hand and apply")
        raise OSError(number, os.strerror(number), str(other))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
