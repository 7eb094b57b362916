"""The documents of a policy: one file, or all files of a folder."""

from __future__ import annotations

from pathlib import Path

from fastpath import document
from fastpath.document import MAX_READS, Node, Problem, Problems, compose, read_text, stamp

MAX_FILES = 1000


def read_documents(path: Path, problems: Problems) -> list[Node | None]:
    """Roots of a file, or of a folder's files in the order of their names; None for each that has none."""
    files = _files(path, problems) if path.is_dir() else {path: read_text(path, problems)}
    return [None if text is None else compose(text, str(file), problems) for file, text in files.items()]


def _files(folder: Path, problems: Problems) -> dict[Path, str | None]:
    """Texts of a folder's files, all as they were at one time; None for each that cannot be read."""

    def report(message: str, path: Path = folder) -> None:
        problems.found.append(Problem(str(path), 0, "", message))

    texts: dict[Path, str | None] = {}
    for _ in range(MAX_READS):
        found = Problems()
        try:
            before = _look(folder)
            texts = _read(before, found)
            after = _look(folder)
        except OSError as error:
            report(error.strerror or str(error))
            return {folder: None}
        if before == after:
            break
    else:
        report(f"changed each of {MAX_READS} times while it was read")
        return {folder: None}
    problems.found += found.found
    if not texts:
        report("the folder has no *.yaml files: that is no policy")
    return texts


def _look(folder: Path) -> dict[Path, tuple[int, ...]]:
    """Stamps of a folder's entries, by name, but of those whose name begins with a dot."""
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return {path: stamp(path.stat()) if path.exists() else () for path in sorted(paths)}


def _read(stamps: dict[Path, tuple[int, ...]], problems: Problems) -> dict[Path, str | None]:
    """Texts by path; None for what is not read, with a problem."""
    texts: dict[Path, str | None] = {}
    size = 0
    for count, (path, seen) in enumerate(stamps.items(), 1):
        size += seen[2] if seen else 0
        texts[path] = None
        message = ""
        if count > MAX_FILES:
            message = f"is file {count}; a policy has {MAX_FILES} at most"
        elif size > document.MAX_BYTES:
            message = f"with this file the policy is larger than {document.MAX_BYTES} bytes"
        elif path.suffix != ".yaml":
            message = "is no *.yaml file; only names that begin with a dot are left alone"
        elif not seen:
            message = "is not a file"
        if message:
            problems.found.append(Problem(str(path), 0, "", message))
            if count > MAX_FILES or size > document.MAX_BYTES:
                break
        else:
            texts[path] = read_text(path, problems)
    return texts
