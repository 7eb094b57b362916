from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from fastpath import install
from fastpath.exit import CommandError
from fastpath.install import Installation
from fastpath.policy.source import Source, read_source

NEW = Source(folder=False, files={"other.yaml": b"new"})


def tree(path: Path) -> Mapping[str, tuple[int, int, bytes]]:
    """Everything there: mode, inode, bytes."""
    return {
        str(each.relative_to(path)): (each.stat().st_mode & 0o7777, each.stat().st_ino,
                                      each.read_bytes() if each.is_file() else b"")
        for each in path.rglob("*")
    }  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"old")
    path.chmod(0o604)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "policy.d"
    path.mkdir()
    for name in ("a.yaml", "b.yaml"):
        (path / name).write_text(name)
    (path / "a.yaml").chmod(0o604)
    path.chmod(0o711)
    return path


def test_a_file(file: Path) -> None:
    with Installation(file, NEW) as new:
        assert (new.staged.read_bytes(), file.read_bytes()) == (b"new", b"old")
        new.swap()
        assert new.replaced() == Source(folder=False, files={new.staged.name: b"old"})
    assert {name: (mode, text) for name, (mode, _, text) in tree(file.parent).items()} == {
        "policy.yaml": (0o604, b"new")
    }


@pytest.mark.parametrize("swapped", [True, False])
def test_undone_it_is_the_very_file_that_it_was(file: Path, folder: Path, swapped: bool) -> None:
    before = tree(file.parent)
    for path, source in ((file, NEW), (folder, Source(folder=True, files={"c.yaml": b"new"}))):
        with Installation(path, source) as new:
            if swapped:
                new.swap()
                assert tree(file.parent) != before
                new.undo()
    assert tree(file.parent) == before


def test_a_folder(folder: Path) -> None:
    files = {"a.yaml": b"new a", "c.yaml": b"new c"}
    with Installation(folder, Source(folder=True, files=files)) as new:
        new.swap()
    assert read_source(folder).files == files
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "a.yaml", folder / "c.yaml")] == [
        0o711, 0o604, 0o640,
    ]  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == ["policy.d"]


@pytest.mark.parametrize("undone", [True, False])
def test_one_that_is_not_there_yet(tmp_path: Path, undone: bool) -> None:
    with Installation(tmp_path / "policy.yaml", NEW) as new:
        new.swap()
        assert new.replaced() is None
        if undone:
            new.undo()
    assert [path.name for path in tmp_path.iterdir()] == ([] if undone else ["policy.yaml"])


def test_a_link_stays_one(file: Path) -> None:
    link = file.parent / "link"
    link.symlink_to("policy.yaml")
    with Installation(link, NEW) as new:
        new.swap()
    assert link.is_symlink()
    assert file.read_bytes() == b"new"


def test_what_is_not_supported(file: Path, folder: Path) -> None:
    fifo = file.with_name("fifo")
    os.mkfifo(fifo)
    for path, source, message in (
        (file, Source(folder=True, files={}), "is a file, and what is to be applied a folder"),
        (folder, NEW, "is a folder, and what is to be applied a file"),
        (fifo, NEW, "is no regular file"),
    ):
        with pytest.raises(CommandError, match=message), Installation(path, source):
            pass
    for name in (".git", ".hidden", "sub.yaml"):
        other = folder / name
        other.mkdir() if name == "sub.yaml" else other.touch()
        with (
            pytest.raises(CommandError, match=f"{other}: a folder with anything but"),
            Installation(folder, Source(folder=True, files={})),
        ):
            pass
        other.rmdir() if name == "sub.yaml" else other.unlink()


def test_a_file_system_that_cannot_exchange(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(file.parent)
    monkeypatch.setattr(install, "_RENAME_EXCHANGE", 1 << 10)  # a flag that nobody knows
    with pytest.raises(CommandError, match="cannot exchange"), Installation(file, NEW) as new:
        new.swap()
    assert tree(file.parent) == before


def test_what_a_killed_one_left_goes(file: Path) -> None:
    left = file.with_name(f".{file.name}.new")
    left.mkdir()
    (left / "x").touch()
    with Installation(file, NEW) as new:
        new.swap()
    assert not left.exists()


def test_an_error_of_the_system_names_the_file(file: Path) -> None:
    with Installation(file, NEW) as new:
        new.staged.unlink()
        with pytest.raises(OSError, match=str(file)) as caught:
            new.swap()
    assert caught.value.errno == errno.ENOENT
    assert file.read_bytes() == b"old"


def test_replaced_can_be_kept(file: Path, tmp_path: Path) -> None:
    for kept in (b"old", b"new"):
        with Installation(file, NEW) as new:
            new.swap()
            new.keep_replaced(tmp_path / "state" / "replaced")
        assert (tmp_path / "state" / "replaced").read_bytes() == kept
