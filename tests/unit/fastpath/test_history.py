from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastpath.history import History, HistoryError
from fastpath.policy.source import Source


def add(history: History, revision: int, text: bytes = b"", **more: Any) -> None:
    source = Source(folder=False, files={"policy.yaml": text or b"rules: []  # %d\n" % revision})
    history.add(source, **{"revision": revision, "at": 5.5, "why": "apply", "rules": 3, "rule_files": {}} | more)


def revisions(history: History) -> list[int]:
    entries, problems = history.entries()
    assert problems == []
    return [entry.revision for entry in entries]


def test_bytes_come_back(tmp_path: Path) -> None:
    history = History(tmp_path / "state", 3)
    assert history.entries() == ([], [])
    assert history.newest() is None
    files = {"a.yaml": b"\r\n\x00\xff{}", "b.yaml": b"", "c d.yaml": b"rules: []\n"}
    history.add(Source(folder=True, files=files), revision=7, at=1.5, why="watch", rules=2, rule_files={"web": "ab"})
    entry = history.newest()
    assert entry is not None
    assert (entry.revision, entry.at, entry.why, entry.rules) == (7, 1.5, "watch", 2)
    assert (entry.folder, entry.rule_files) == (True, {"web": "ab"})
    assert entry.source() == Source(folder=True, files=files)


def test_only_its_owner_may_look(tmp_path: Path) -> None:
    history = History(tmp_path / "state", 3)
    add(history, 1)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "state", history.folder)} == {0o700}
    assert [path.stat().st_mode & 0o777 for path in history.folder.iterdir()] == [0o600]


def test_the_last_few_are_kept_in_their_order_also_when_revisions_begin_anew(tmp_path: Path) -> None:
    history = History(tmp_path, 3)
    for revision in (5, 16777215, 2, 1):
        add(history, revision)
    assert revisions(history) == [16777215, 2, 1]
    add(History(tmp_path, 1), 9)
    assert revisions(history) == [9]


def test_the_same_files_take_one_place(tmp_path: Path) -> None:
    history = History(tmp_path, 5)
    add(history, 1, b"a")
    add(history, 2, b"b")
    add(history, 3, b"b", why="start")
    assert revisions(history) == [1, 3]
    add(history, 4, b"b", rule_files={"web": "other"})
    add(history, 5, b"a")
    assert revisions(history) == [1, 3, 4, 5]


def damaged(history: History, how: str) -> str:
    path = max(history.folder.iterdir())
    whole = path.read_bytes()
    head = json.loads(whole.partition(b"\n")[0])
    if how == "cut":
        path.write_bytes(whole[:30])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "not text":
        path.write_bytes(b"\xff\xfe" * 100)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        changes: dict[str, Any] = {
            "format": {"format": 2}, "name": {"files": {"../x": 1}}, "size": {"files": {"a": -1}},
            "large": {"files": {"a": 1 << 40}}, "list": {"files": []}, "two": {"files": {"a": 0, "b": 0}},
            "time": {"at": float("nan")}, "revision": {"revision": "x"},
        }[how]  # fmt: skip
        path.write_bytes(json.dumps(head | changes).encode() + b"\n")
    return str(path)


@pytest.mark.parametrize(
    "how",
    ["cut", "empty", "not text", "folder", "format", "name", "size", "large", "list", "two", "time", "revision"],
)
def test_a_damaged_entry_is_said_and_the_others_stay(tmp_path: Path, how: str) -> None:
    history = History(tmp_path, 5)
    add(history, 1)
    add(history, 2)
    path = damaged(history, how)
    entries, problems = history.entries()
    assert [entry.revision for entry in entries] == [1]
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}: ")
    with pytest.raises(HistoryError, match=path):
        history.newest()
    add(history, 3)
    assert [entry.revision for entry in history.entries()[0]] == [1, 3]


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: raw[:-1] + b"x"])
def test_a_policy_that_is_not_the_applied_one_is_not_given_out(tmp_path: Path, change: Any) -> None:
    history = History(tmp_path, 5)
    add(history, 1)
    entry = history.newest()
    assert entry is not None
    entry.path.write_bytes(change(entry.path.read_bytes()))
    with pytest.raises(HistoryError, match="damaged"):
        entry.source()


def test_what_a_killed_writer_left_is_no_entry(tmp_path: Path) -> None:
    history = History(tmp_path, 5)
    add(history, 1)
    (history.folder / ".new").write_bytes(b"half")
    (history.folder / "notes.txt").touch()
    assert revisions(history) == [1]
    add(history, 2)
    assert revisions(history) == [1, 2]
    assert not (history.folder / ".new").exists()


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "history").touch()
    history = History(tmp_path, 5)
    for ask in (history.entries, history.newest, lambda: add(history, 1)):
        with pytest.raises(HistoryError, match=f"{tmp_path}/history: "):
            ask()
