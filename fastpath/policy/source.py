"""The policy source as bytes: one file, or all of a folder but names that begin with a dot. What may stand there and in
them is `read`'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fastpath import document
from fastpath.document import MAX_READS, Problem, Problems, read_bytes

MAX_FILES = 1000

# Name and `document.stamp` of every file; () while there is nothing. Cheap enough to ask every second.
Stamp = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Source:
    """Bytes by the file's name, in order; of a policy that is one file, just one."""

    folder: bool
    files: Mapping[str, bytes]

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex: of a file what `sha256sum` says, of a folder that of its lines ``<digest>  <name>``."""
        if not self.folder:
            return hashlib.sha256(*self.files.values()).hexdigest()
        lines = (f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in self.files.items())
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def source_files(path: Path) -> list[Path]:
    """The files that `path` stands for. OSError."""
    return sorted(file for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else [path]


def read_source(path: Path) -> Source:
    """All of it, as it was at one time. InvalidDocumentError when a part cannot be read or it is too large."""
    source = read_what_can_be(path, problems := Problems())
    problems.raise_if_any()
    return source


def read_what_can_be(path: Path, problems: Problems) -> Source:
    """The same, without what cannot be read, which is reported."""
    if not path.is_dir():
        text = read_bytes(path, problems)
        return Source(folder=False, files={} if text is None else {path.name: text})
    found = Problems()
    try:
        for _ in range(MAX_READS):
            found = Problems()
            before = _look(path)
            files = _read(before, found)
            if before == _look(path):
                problems.found += found.found
                return Source(folder=True, files=files)
        message = f"changed each of {MAX_READS} times while it was read"
    except OSError as error:
        message = error.strerror or str(error)
    problems.found.append(Problem(str(path), 0, "", message))
    return Source(folder=True, files={})


def stamp(path: Path) -> Stamp:
    """Differs when a file was written or replaced."""
    try:
        names = source_files(path)
        return tuple((name.name, document.stamp(name.stat())) for name in names[: MAX_FILES + 1])
    except OSError:
        return ()


def _look(folder: Path) -> dict[Path, tuple[int, ...]]:
    """Stamps of a folder's files, in the order of their names."""
    return {path: document.stamp(path.stat()) if path.exists() else () for path in source_files(folder)}


def _read(stamps: Mapping[Path, tuple[int, ...]], problems: Problems) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    size = 0
    for count, (path, seen) in enumerate(stamps.items(), 1):
        size += seen[2] if seen else 0
        if count > MAX_FILES or size > document.MAX_BYTES:
            message = (
                f"is file {count}; a policy has {MAX_FILES} at most"
                if count > MAX_FILES
                else f"with this file the policy is larger than {document.MAX_BYTES} bytes"
            )
            problems.found.append(Problem(str(path), 0, "", message))
            break
        if not seen:
            problems.found.append(Problem(str(path), 0, "", "is not a file"))
        elif (text := read_bytes(path, problems)) is not None:
            files[path.name] = text
    return files
