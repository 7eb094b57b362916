from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fastpath import document
from fastpath.document import InvalidDocumentError
from fastpath.policy import source
from fastpath.policy.source import Source, read_source, stamp


def test_a_file_has_the_digest_of_its_bytes_whatever_its_name(tmp_path: Path) -> None:
    for name in ("a.yaml", "b"):
        (tmp_path / name).write_bytes(b"rules: []\r\n\xff")
    read = read_source(tmp_path / "a.yaml")
    assert read == Source(folder=False, files={"a.yaml": b"rules: []\r\n\xff"})
    assert read.digest == read_source(tmp_path / "b").digest == hashlib.sha256(b"rules: []\r\n\xff").hexdigest()


def test_a_folder_is_its_files_but_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", ".c.yaml"):
        (tmp_path / name).write_text(name)
    read = read_source(tmp_path)
    assert read == Source(folder=True, files={"a.yaml": b"a.yaml", "b.yaml": b"b.yaml"})
    assert list(read.files) == ["a.yaml", "b.yaml"]
    (tmp_path / "b.yaml").rename(tmp_path / "c.yaml")
    assert read_source(tmp_path).digest != read.digest


@pytest.mark.parametrize(("name", "message"), [("none", "No such file"), ("large", "larger than 8 bytes")])
def test_what_cannot_be_read(tmp_path: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", 8)
    (tmp_path / "large").write_text("123456789")
    with pytest.raises(InvalidDocumentError, match=f"{tmp_path}/{name}: {message}"):
        read_source(tmp_path / name)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_FILES", 2)
    for name in "abc":
        (tmp_path / f"{name}.yaml").touch()
    with pytest.raises(InvalidDocumentError, match=r"c\.yaml: is file 3; a policy has 2 at most"):
        read_source(tmp_path)


def test_stamp_tells_a_write_a_replacement_and_a_removal(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    assert stamp(file) == ()
    file.write_text("one")
    stamps = [stamp(file)]
    assert stamp(file) == stamps[0]
    os.utime(file, ns=(1, 1))
    stamps.append(stamp(file))
    (tmp_path / "new").write_text("two")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").replace(file)
    stamps += [stamp(file), stamp(tmp_path)[:0]]
    assert len(set(stamps)) == 4
    assert stamp(tmp_path) == stamp(file)
    (tmp_path / ".b.yaml").touch()
    assert stamp(tmp_path) == stamp(file)
    (tmp_path / "b.yaml").touch()
    assert len(stamp(tmp_path)) == 2
