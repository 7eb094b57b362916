"""The policies that were applied, newest last: one file for each, so that any of them can be made current again.

A file is a line of JSON, then the policy's files byte for byte, one behind the other. It appears whole or not at
all. Revisions begin anew some day (24 bits); the files are numbered by themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fastpath.document import MAX_BYTES
from fastpath.exit import CommandError
from fastpath.policy.source import MAX_FILES, Source

# Names of MAX_FILES files and as many rule files, with room.
MAX_HEAD = 1 << 20
FORMAT = 1

_SUFFIX = ".policy"


class HistoryError(CommandError):
    """The history, or a part of it, cannot be read or written; the message names the file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One applied revision. `rule_files`: digests of those that its rules name; `at`: seconds UTC."""

    path: Path
    revision: int
    at: float
    why: str
    digest: str
    rules: int
    folder: bool
    sizes: Mapping[str, int]  # bytes by the file's name
    rule_files: Mapping[str, str]

    def source(self) -> Source:
        """The policy's files. HistoryError when they are not what was written."""
        try:
            with self.path.open("rb") as stream:
                stream.readline(MAX_HEAD)
                source = Source(self.folder, {name: stream.read(size) for name, size in self.sizes.items()})
                more = stream.read(1)
        except OSError as error:
            raise HistoryError(f"{self.path}: {error.strerror or error}") from None
        if more or source.digest != self.digest:
            raise HistoryError(f"{self.path}: damaged: the policy in it is not the one that was applied")
        return source


class History:
    """Of one gateway, the last `keep` entries, in ``state_dir/history``."""

    def __init__(self, state_dir: Path, keep: int) -> None:
        self.folder = state_dir / "history"
        self._keep = keep

    def entries(self) -> tuple[list[Entry], list[str]]:
        """Those that can be read, oldest first, and what is wrong with others. HistoryError when none can be."""
        found: list[Entry] = []
        problems: list[str] = []
        for path in self._paths():
            try:
                found.append(_head(path))
            except FileNotFoundError:  # the daemon has just removed it
                continue
            except HistoryError as error:
                problems.append(str(error))
        return found, problems

    def newest(self) -> Entry | None:
        """The last one. HistoryError."""
        paths = self._paths()
        try:
            return _head(paths[-1]) if paths else None
        except FileNotFoundError:
            raise HistoryError(f"{paths[-1]}: gone") from None

    def add(
        self, source: Source, *, revision: int, at: float, why: str, rules: int, rule_files: Mapping[str, str]
    ) -> None:
        """Keep a revision that was applied, and remove the oldest ones. HistoryError.

        The same files as in the newest entry take its place: restarts do not push out what one may want back.
        """
        digest = source.digest
        head = {
            "format": FORMAT, "revision": revision, "at": at, "why": why, "digest": digest, "rules": rules,
            "folder": source.folder, "files": {name: len(text) for name, text in source.files.items()},
            "rule_files": dict(rule_files),
        }  # fmt: skip
        try:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            paths = self._paths()
            number = _number(paths[-1]) + 1 if paths else 1
            with contextlib.suppress(HistoryError):  # a damaged one is kept as it is
                last = self.newest()
                if last is not None and (last.digest, last.rule_files) == (digest, rule_files):
                    number -= 1
            self._write(self.folder / f"{number:08d}{_SUFFIX}", head, source)
            for old in self._paths()[: -self._keep]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise HistoryError(f"{error.filename or self.folder}: {error.strerror or error}") from None

    def _write(self, path: Path, head: Mapping[str, Any], source: Source) -> None:
        fresh = self.folder / ".new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(json.dumps(head, separators=(",", ":")).encode() + b"\n")
            for text in source.files.values():
                stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
        sync_folder(self.folder)

    def _paths(self) -> list[Path]:
        """In the order in which they were written."""
        try:
            found = [path for path in self.folder.iterdir() if path.suffix == _SUFFIX and _number(path)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HistoryError(f"{self.folder}: {error.strerror or error}") from None
        return sorted(found, key=_number)


def sync_folder(folder: Path) -> None:
    """Make a rename in it last. OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _number(path: Path) -> int:
    """By which entries are ordered; 0: none of ours."""
    return int(path.stem) if path.stem.isascii() and path.stem.isdigit() and len(path.stem) <= 18 else 0


def _head(path: Path) -> Entry:
    try:
        with path.open("rb") as stream:
            return _parse(path, stream)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HistoryError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HistoryError(f"{path}: damaged: not an entry of the policy history") from None


def _parse(path: Path, stream: BinaryIO) -> Entry:
    head = json.loads(stream.readline(MAX_HEAD))
    sizes = {_file_name(name): int(size) for name, size in head["files"].items()}
    folder = bool(head["folder"])
    if (
        head["format"] != FORMAT
        or len(sizes) > MAX_FILES
        or (not folder and len(sizes) != 1)
        or min(sizes.values(), default=0) < 0
        or not 0 <= head["at"] < 1e11
        or sum(sizes.values()) > MAX_BYTES
    ):
        raise ValueError
    return Entry(
        path=path,
        revision=int(head["revision"]),
        at=float(head["at"]),
        why=str(head["why"]),
        digest=str(head["digest"]),
        rules=int(head["rules"]),
        folder=folder,
        sizes=sizes,
        rule_files={str(name): str(digest) for name, digest in head["rule_files"].items()},
    )


def _file_name(name: str) -> str:
    """A plain one: it becomes a file again."""
    if "/" in name or "\0" in name or name in {"", ".", ".."}:
        raise ValueError(name)
    return name
