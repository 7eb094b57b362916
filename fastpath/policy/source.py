"""The policy source as bytes: one file, or all of a folder but names that begin with a dot. What may stand there and in
them is `read`'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastpath import document
from fastpath.document import MAX_BYTES, InvalidDocumentError, Problem
from fastpath.policy.folder import MAX_FILES

# Name and `document.stamp` of every file; () while there is nothing. Cheap enough to ask every second.
Stamp = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes by the file's name, in order; of a policy that is one file, just one."""

    folder: bool
    files: Mapping[str, bytes]

    @property
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
    """All of it. InvalidDocumentError when it cannot be read or is too large."""
    try:
        folder = path.is_dir()
        names = source_files(path)
        if len(names) > MAX_FILES:
            raise _problem(path, f"more than {MAX_FILES} files")
        files: dict[str, bytes] = {}
        left = MAX_BYTES
        for name in names:
            with name.open("rb") as stream:
                files[name.name] = stream.read(left + 1)
            left -= len(files[name.name])
            if left < 0:
                raise _problem(path, f"larger than {MAX_BYTES} bytes")
    except OSError as error:
        raise _problem(Path(error.filename or path), error.strerror or str(error)) from None
    return Source(folder, files)


def stamp(path: Path) -> Stamp:
    """Differs when a file was written or replaced."""
    try:
        names = source_files(path)
        return tuple((name.name, document.stamp(name.stat())) for name in names[: MAX_FILES + 1])
    except OSError:
        return ()


def _problem(path: Path, message: str) -> InvalidDocumentError:
    return InvalidDocumentError([Problem(str(path), 0, "", message)])
