"""What the daemon makes of changed policy files; the kernel half is played."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastpath.config import Config
from fastpath.exit import CommandError
from fastpath.gateway import compile_source
from fastpath.policy.compiler.tables import Sizes
from fastpath.service import Service

OLD, NEW = "rules: []\n", "rules: [{id: a, action: allow}]\n"


class Watched:
    """A daemon and its policy file. `applied`: why, as often as something was."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.policy = folder / "policy.yaml"
        self.policy.write_text(OLD)
        (folder / "gateway.yaml").write_text(f"interfaces: [seg0, seg1]\npolicy: policy.yaml\n{more}")
        self.service = Service(folder / "gateway.yaml")
        self.applied: list[str] = []
        gateway: Any = self.service.gateway
        gateway.reload = self._reload
        gateway.revisions = SimpleNamespace(revision=1, retire=lambda: None)
        gateway.digest = compile_source(self.service.config).source.digest
        self.look()

    async def _reload(self, config: Config, why: str) -> Sizes:
        compiled = await asyncio.to_thread(compile_source, config)
        self.service.gateway.digest = compiled.source.digest
        self.applied.append(why)
        return compiled.tables.sizes

    def look(self, times: int = 1) -> None:
        async def look() -> None:
            for _ in range(times):
                await self.service._watch()

        asyncio.run(look())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_change_is_taken_once_when_it_rests(watched: Watched) -> None:
    watched.look(3)
    assert watched.applied == []
    watched.policy.write_text("rules: []  # half of")
    watched.look()
    watched.policy.write_text(NEW)
    watched.look()
    assert watched.applied == []
    watched.look(3)
    assert watched.applied == ["watch"]


def remove(file: Path) -> None:
    file.unlink()


def break_(file: Path) -> None:
    file.write_text("rules: [{id: a, action: perhaps}, {id: b}]\n")


@pytest.mark.parametrize("spoil", [remove, break_])
def test_what_is_broken_is_said_once(
    watched: Watched, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(watched.policy)
    watched.look(5)
    assert watched.applied == []
    assert caplog.text.count("nothing was applied; revision 1 stays") == 1
    assert str(watched.policy) in (watched.service.policy_problem or "")
    assert (watched.service.policy_problem or "").endswith("(and 1 more)") == (spoil is break_)
    # What is in force, put back: no problem any more, and nothing to apply.
    watched.policy.write_text(OLD)
    watched.look(3)
    assert (watched.applied, watched.service.policy_problem) == ([], None)


def test_a_touched_file_is_no_change(watched: Watched) -> None:
    os.utime(watched.policy)
    watched.look(3)
    assert watched.applied == []


def test_watch_false(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "watch: false\n")
    watched.policy.write_text(NEW)
    watched.look(5)
    assert watched.applied == []


def test_what_was_asked_for_is_not_done_again_by_the_watch(watched: Watched) -> None:
    async def ask(query: dict[str, str]) -> tuple[int, Any]:
        return await watched.service._apply(query)

    watched.policy.write_text(NEW)
    status, answer = asyncio.run(ask({"why": "rollback"}))
    assert (status, answer["digest"]) == (200, watched.service.gateway.digest)
    break_(watched.policy)
    status, answer = asyncio.run(ask({}))
    assert status == 422
    assert [problem["line"] for problem in answer["problems"]] == [1, 1]
    watched.look(5)
    assert watched.applied == ["rollback"]
    assert asyncio.run(ask({"why": "whim"}))[0] == 400


def test_a_check_changes_nothing(watched: Watched, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(NEW)
    assert asyncio.run(watched.service._check({"policy": str(other)})) == (
        200,
        {"sizes": str(compile_source(Config(other, (), other, other)).tables.sizes), "revision": 1},
    )
    break_(other)
    status, answer = asyncio.run(watched.service._check({"policy": str(other)}))
    assert (status, {problem["file"] for problem in answer["problems"]}) == (422, {str(other)})
    assert (watched.applied, watched.service.policy_problem) == ([], None)


def test_any_other_failure_is_an_answer_too(watched: Watched) -> None:
    async def fail(*_: Any) -> Sizes:
        raise CommandError("no room")

    watched.service.gateway.reload = fail  # type: ignore[method-assign]
    assert asyncio.run(watched.service._apply({})) == (409, {"error": "no room"})
    assert watched.service.policy_problem == "no room"


def test_reloads_wait_for_each_other_and_nobody_else_waits(watched: Watched) -> None:
    begun, ended = [], []

    async def slow(config: Config, why: str) -> Sizes:
        begun.append(why)
        assert len(begun) == len(ended) + 1
        await asyncio.to_thread(time.sleep, 0.2)
        ended.append(why)
        return compile_source(config).tables.sizes

    async def ask() -> int:
        watched.service.gateway.reload = slow  # type: ignore[method-assign]
        asked = [
            asyncio.ensure_future(watched.service._apply({})),
            asyncio.ensure_future(watched.service._check({"policy": str(watched.policy)})),
            asyncio.ensure_future(watched.service._apply({"why": "rollback"})),
        ]
        turns = 0
        while not all(each.done() for each in asked):
            await asyncio.sleep(0.01)
            turns += 1
        assert [(await each)[0] for each in asked] == [200, 200, 200]
        return turns

    assert asyncio.run(ask()) > 10
    assert ended == ["apply", "rollback"]
