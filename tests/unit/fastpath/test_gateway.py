from __future__ import annotations

from pathlib import Path

import pytest

from fastpath import gateway
from fastpath.config import Config
from fastpath.exit import CommandError
from fastpath.gateway import _newest_revision, compile_source
from fastpath.history import History
from fastpath.policy.compile import Tables
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


@pytest.mark.parametrize(("changes", "fits"), [(0, True), (2, True), (3, False)])
def test_bytes_and_tables_are_of_the_same_policy(
    tmp_path: Path, changes: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_bytes(TEXT)
    config = Config(tmp_path / "gateway.yaml", ("a", "b"), policy, tmp_path)
    compiled_policy = gateway.compiled_policy
    left = changes

    def writing(config: Config) -> Tables:
        nonlocal left
        tables = compiled_policy(config)
        if left:
            left -= 1
            policy.write_text(f"rules: [{{id: r{left}, action: allow}}]\n")
        return tables

    monkeypatch.setattr(gateway, "compiled_policy", writing)
    if not fits:
        with pytest.raises(CommandError, match="was written to while it was read"):
            compile_source(config)
        return
    compiled = compile_source(config)
    assert compiled.source.files == {"policy.yaml": policy.read_bytes()}
    assert len(compiled.tables.policy.rules) == (1 if changes else 0)
