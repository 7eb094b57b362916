from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from fastpath import attach, libbpf
from fastpath.attach import Attachment, State, detach, hook_of
from fastpath.config import Config
from fastpath.exit import CommandError, ExitStatus


def test_state_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "attached.json"
    state = State(7, "t0", filtered=["seg0", "seg1"], clsact=["seg1"], tcx=["seg2"], programs=[3, 4], boot="b")
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


def test_a_state_from_before_tcx(tmp_path: Path) -> None:
    path = tmp_path / "attached.json"
    path.write_text('{"prio": 7, "tap": "t0", "filtered": ["seg0"], "clsact": []}')
    assert State.read(path) == State(7, "t0", ["seg0"])


def test_ids_of_another_boot_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "tcx_programs", lambda *_: [3, 4, 5])
    state = State(programs=[5, 4], boot=attach.boot())
    assert state.at(1, 46) == ([3, 4, 5], [4, 5])
    state.boot = "another"
    assert state.at(1, 46) == ([3, 4, 5], [])


@pytest.mark.parametrize(
    ("asked", "supported", "hook"),
    [("auto", True, "tcx"), ("auto", False, "clsact"), ("tcx", True, "tcx"), ("clsact", True, "clsact")],
)
def test_which_hook(asked: str, supported: bool, hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "tcx_supported", lambda: supported)
    assert hook_of(Config(Path("gateway.yaml"), (), Path(), Path(), hook=asked)) == hook


def test_a_hook_that_the_kernel_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "tcx_supported", lambda: False)
    with pytest.raises(CommandError) as caught:
        hook_of(Config(Path("gateway.yaml"), (), Path(), Path(), hook="tcx"))
    assert str(caught.value).startswith("gateway.yaml: hook: tcx needs Linux 6.6 or later, and this is ")
    assert caught.value.status is ExitStatus.UNAVAILABLE


@pytest.mark.parametrize(("number", "there"), [(0, True), (errno.EINVAL, False), (errno.EPERM, None)])
def test_the_kernel_says_whether_it_has_tcx(number: int, there: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def query(*_: int) -> list[int]:
        if number:
            raise OSError(number, "no")
        return []

    monkeypatch.setattr(libbpf, "tcx_programs", query)
    ask = libbpf.tcx_supported.__wrapped__
    if there is None:
        with pytest.raises(PermissionError):
            ask()
    else:
        assert ask() is there


class Pins:
    """Stands for pins of which none is opened."""

    def map(self, name: str) -> str:
        return name


def attachment(folder: Path, **settings: Any) -> Attachment:
    settings.setdefault("hook", "clsact")
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
