"""Compiled programs on disk: a start after a boot need not compile them again.

One file for each key, which is a digest of all that goes into a compile but the compiler; an entry names the compiler's
files as they were, and is of use as long as they are still so. What stands here becomes kernel code, so folder and
files must be root's alone. What is wrong with an entry is logged and costs a compile, nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import operator
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastpath import abi
from fastpath.libbpf import MapShape, MapTypes
from fastpath.loader.compile import CHILD, SHIM
from fastpath.loader.objects import MapObject, Objects, ProgramObject

FORMAT = 1
# So many entries are kept, those that were used last. One is half a megabyte.
MOST = 16
MAX_BYTES = 8 << 20
# What a killed one left half written is removed after so many seconds.
STALE = 3600.0

_SUFFIX = ".programs"
_PART = ".part"

log = logging.getLogger(__name__)


def compile_key(*parts: str) -> str | None:
    """Names what a compile of these `parts` (text, options, what is made of them) gives on this machine. None where
    that is not known: without the shim, bcc looks for kernel headers by itself.
    """
    headers = sorted(path for path in SHIM.rglob("*") if path.is_file())
    if not headers:
        return None
    digest = hashlib.sha256()
    uname = os.uname()  # bcc asks the kernel what it can, and compiles for that
    contents = (path.read_bytes() for path in (CHILD, *headers))
    names = (str(path.relative_to(SHIM)) for path in headers)
    words = (str(FORMAT), abi.ABI_HASH, uname.release, uname.version, uname.machine, *parts, *names)
    for part in (*(word.encode() for word in words), *contents):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


class CacheError(Exception):
    """The cache, or an entry, must not or cannot be used; the message says why."""


class Cache:
    """Entries in one folder; several processes may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Objects | None:
        """What was kept under this key; None if nothing was, or nothing that may be used."""
        path = self._path(key)
        try:
            with self._open_folder(make=False) as folder:
                objects = _unpack(_read(path, folder))
                os.utime(path.name, dir_fd=folder)  # the least recently used one goes first
        except FileNotFoundError:
            return None
        except (CacheError, OSError) as error:
            log.warning("compiled programs: %s", error)
            return None
        return objects

    def keep(self, key: str, objects: Objects, compiler: Iterable[Path]) -> None:
        """Keep what `compiler`, these files, made. A failure is logged."""
        path = self._path(key)
        try:
            content = _pack(objects, compiler)
            with self._open_folder(make=True) as folder:
                _write(path.name, content, folder)
                self._prune(folder)
        except (CacheError, OSError) as error:
            log.warning("compiled programs are not kept: %s", error)

    def drop(self, key: str) -> None:
        """Forget an entry."""
        with contextlib.suppress(CacheError, OSError), self._open_folder(make=False) as folder:
            os.unlink(self._path(key).name, dir_fd=folder)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    @contextlib.contextmanager
    def _open_folder(self, *, make: bool) -> Iterator[int]:
        """A descriptor of it, so that what is checked is what is used. CacheError, OSError."""
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
                if name.endswith(_SUFFIX):
                    ages.append((at, name))
                elif name.endswith(_PART) and time.time() - at > STALE:
                    os.unlink(name, dir_fd=folder)
        for _, name in sorted(ages)[:-MOST]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def _refuse_others(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise CacheError(f"{path}: others than root can write there, so it is not used")


def _read(path: Path, folder: int) -> bytes:
    descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        _refuse_others(path, status)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            raise CacheError(f"{path}: is none of ours")
        content = stream.read(MAX_BYTES)
    # One line, the digest of what follows.
    said, _, rest = content.partition(b"\n")
    if said != hashlib.sha256(rest).hexdigest().encode():
        raise CacheError(f"{path}: damaged")
    return rest


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


def _state(path: Path) -> list[int]:
    """By which a file of the compiler is known again."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _pack(objects: Objects, compiler: Iterable[Path]) -> bytes:
    content = {
        "compiler": {str(path): _state(path) for path in compiler},
        "btf": base64.b64encode(objects.btf).decode(),
        "maps": [
            [
                each.name, each.template, each.types.key, each.types.value, each.shape.type, each.shape.key_size,
                each.shape.value_size, each.shape.max_entries, each.shape.flags,
            ]
            for each in objects.maps
        ],
        "programs": [[each.name, each.function, base64.b64encode(each.code).decode()] for each in objects.programs],
    }  # fmt: skip
    return json.dumps(content, separators=(",", ":")).encode()


def _whole(value: int) -> int:
    """A u32 of the kernel's."""
    if not 0 <= operator.index(value) < 1 << 32:
        raise ValueError(value)
    return value


def _unpack(content: bytes) -> Objects:
    """CacheError; FileNotFoundError when the compiler is no longer the one that made it."""
    try:
        found: dict[str, Any] = json.loads(content)
        compiler: dict[str, list[int]] = found["compiler"]
        objects = Objects(
            base64.b64decode(found["btf"]),
            tuple(
                MapObject(
                    str(name), MapShape(*map(_whole, shape)), MapTypes(0, _whole(key), _whole(value)), str(template)
                )
                for name, template, key, value, *shape in found["maps"]
            ),
            tuple(
                ProgramObject(str(name), base64.b64decode(code), _whole(function))
                for name, function, code in found["programs"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(f"an entry is none of ours: {error}") from None
    if not compiler or any(_state(Path(path)) != state for path, state in compiler.items()):
        raise FileNotFoundError
    return objects
