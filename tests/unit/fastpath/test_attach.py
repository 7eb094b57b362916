from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fastpath import attach
from fastpath.attach import Attachment, State, detach
from fastpath.config import Config


def test_state_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "attached.json"
    state = State(prio=7, tap="t0", filtered=["seg0", "seg1"], clsact=["seg1"])
    state.write(path)
    assert State.read(path) == state
    assert [file.name for file in path.parent.iterdir()] == ["attached.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"', '{"unknown": 1}'])
def test_a_damaged_state_counts_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "attached.json"
    path.write_text(text)
    assert State.read(path) == State()


def test_no_state(tmp_path: Path) -> None:
    assert State.read(tmp_path / "attached.json") == State()
    # Nothing was added, so nothing is asked of the kernel.
    assert asyncio.run(detach(tmp_path)) is False


class Pins:
    """Stands for pins of which none is opened."""

    def map(self, name: str) -> str:
        return name


def attachment(folder: Path, **settings: Any) -> Attachment:
    config = Config(folder, ("none-such0", "none-such1"), folder, folder, run_dir=folder, tap="t0", **settings)
    pins: Any = Pins()
    return Attachment(config, pins)


def test_interfaces_that_are_not_there(tmp_path: Path) -> None:
    assert attachment(tmp_path).missing() == ["none-such0", "none-such1"]


@pytest.mark.parametrize(
    ("cpus", "last"), [(1, "1"), (8, "80"), (32, "80000000"), (33, "1,00000000"), (66, "2,00000000,00000000")]
)
def test_each_queue_of_the_tap_runs_on_its_cpu(
    tmp_path: Path, cpus: int, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, str] = {}
    monkeypatch.setattr(attach, "possible_cpus", lambda: cpus)
    monkeypatch.setattr(attach, "_write", lambda path, text: written.update({str(path): text}))
    attachment(tmp_path)._steer()
    assert len(written) == cpus
    assert written[f"/sys/class/net/t0/queues/rx-{cpus - 1}/rps_cpus"] == last
    assert sum(int(text.replace(",", ""), 16) for text in written.values()) == (1 << cpus) - 1
