"""Entries of several kinds in one folder; what else a store does tests/unit/fastpath/loader/test_cache.py shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.store import Store


def test_kinds_share_a_folder_and_each_has_its_own_bounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "kept"
    few = Store(folder, ".few", "few things", most=1, max_bytes=100)
    many = Store(folder, ".many", "many things", most=9, max_bytes=1 << 20)
    for name in ("one", "two"):
        few.keep(name, b"f" + name.encode())
        many.keep(name, b"m" + name.encode())
    assert [few.find("one"), few.find("two"), many.find("one"), many.find("two")] == [None, b"ftwo", b"mone", b"mtwo"]
    few.drop("two")
    assert [few.find("two"), many.find("two")] == [None, b"mtwo"]
    assert caplog.messages == []
    few.keep("large", bytes(36))
    assert few.find("large") is None
    assert caplog.messages == ["few things are not kept: 36 bytes are too many"]
    few.keep("whole", bytes(35))
    assert few.find("whole") == bytes(35)
