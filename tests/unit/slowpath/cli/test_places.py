from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.document import InvalidDocumentError
from slowpath.cli import places


def test_defaults_without_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CONFIG", tmp_path / "none.yaml")
    assert places.records_path(None) == Path("/var/log/microseg/records.jsonl")
    assert places.run_dir(None) == Path("/run/microseg")


def test_settings_and_defaults_of_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("run_dir: /x\nrecords: {path: /y/z.jsonl}\nother: [1]\n")
    assert (places.run_dir(config), places.records_path(config)) == (Path("/x"), Path("/y/z.jsonl"))
    monkeypatch.setattr(places, "CONFIG", config)
    assert places.run_dir(None) == Path("/x")
    config.write_text("other: 1\n")
    assert (places.run_dir(config), places.records_path(config)) == (places.RUN_DIR, places.RECORDS)


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocumentError, match="No such file"):
        places.run_dir(tmp_path / "none.yaml")
