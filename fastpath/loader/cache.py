"""Compiled programs on disk: a start after a boot need not compile them again.

The key of an entry (`fastpath.store`) is a digest of all that goes into a compile but the compiler; it names the
compiler's files as they were, and is of use as long as they are still so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastpath import abi
from fastpath.libbpf import MapShape, MapTypes
from fastpath.loader.compile import CHILD, SHIM
from fastpath.loader.objects import MapObject, Objects, ProgramObject
from fastpath.store import Store

FORMAT = 1
# So many entries are kept, those that were used last. One is half a megabyte.
MOST = 16
MAX_BYTES = 8 << 20

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
    """An entry is none of ours; the message says why."""


class Cache:
    """Entries in one folder; several processes may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = Store(folder, ".programs", "compiled programs", most=MOST, max_bytes=MAX_BYTES)

    def find(self, key: str) -> Objects | None:
        """What was kept under this key; None if nothing was, or nothing that may be used."""
        content = self._store.find(key)
        try:
            return None if content is None else _unpack(content)
        except FileNotFoundError:
            return None
        except (CacheError, OSError) as error:
            log.warning("compiled programs: %s", error)
            return None

    def keep(self, key: str, objects: Objects, compiler: Iterable[Path]) -> None:
        """Keep what `compiler`, these files, made. A failure is logged."""
        try:
            content = _pack(objects, compiler)
        except OSError as error:
            log.warning("compiled programs are not kept: %s", error)
            return
        self._store.keep(key, content)

    def drop(self, key: str) -> None:
        """Forget an entry."""
        self._store.drop(key)


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
