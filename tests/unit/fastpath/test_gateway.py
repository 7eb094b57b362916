from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.config import Config
from fastpath.document import Problems
from fastpath.gateway import _newest_revision, compile_source
from fastpath.history import History
from fastpath.policy import source as source_module
from fastpath.policy.source import Source

TEXT = b"rules: []\n"


def test_after_a_boot_revisions_go_on_where_the_history_ends(tmp_path: Path) -> None:
    history = History(tmp_path, 5)
    assert _newest_revision(history) == 0
    history.add(Source(folder=False, files={"p": TEXT}), revision=9, at=1, why="start", rules=0, rule_files={})
    assert _newest_revision(history) == 9
    # Damage does not keep a policy from being applied.
    next(history.folder.iterdir()).write_bytes(b"")
    assert _newest_revision(history) == 0


def test_bytes_and_tables_are_of_the_same_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_bytes(TEXT)
    config = Config(tmp_path / "gateway.yaml", ("a", "b"), policy, tmp_path)
    real = source_module.read_bytes
    reads: list[Path] = []

    def writing(path: Path, problems: Problems) -> bytes | None:
        raw = real(path, problems)
        reads.append(path)
        policy.write_text("rules: [{id: a, action: allow}]\n")
        return raw

    monkeypatch.setattr(source_module, "read_bytes", writing)
    compiled = compile_source(config)
    assert compiled.source.files == {"policy.yaml": TEXT}
    assert compiled.tables.policy.rules == ()
    assert reads == [policy]
    assert len(compile_source(config).tables.policy.rules) == 1
