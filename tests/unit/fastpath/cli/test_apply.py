"""`policy apply`, `rollback` and `history` against a daemon that says what it is told to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fastpath import gateway
from fastpath.admin import AdminServer, Answer
from fastpath.cli.main import main
from fastpath.history import History
from fastpath.policy.source import Source, read_source

OLD, NEW = "rules: []  # old\n", "rules: []  # new\n"
PROBLEM = {"line": 2, "path": "rules[0]", "message": "wrong"}


class Daemon:
    """Answers as told; `asked` holds what it was asked for and what the source held then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = folder / "policy.yaml"
        self.config = folder / "gateway.yaml"
        self.config.write_text(
            f"interfaces: [seg0, seg1]\npolicy: policy.yaml\nrun_dir: {folder}/run\nstate_dir: {folder}/state\n"
        )
        self.policy.write_text(OLD)
        self.asked: list[tuple[str, ...]] = []
        self.check: Answer = (200, {"sizes": "3 rules", "revision": 7})
        self.apply: Answer = (
            200,
            {"revision": 8, "before": 7, "digest": "", "sizes": "3 rules", "seconds": 0.25, "warning": None},
        )
        self.in_force: dict[str, Any] = {"revision": 7, "digest": read_source(self.policy).digest}

    def run(self, *argv: str) -> int:
        async def serve() -> int:
            server = AdminServer(
                self.folder / "run" / "fastpath.sock",
                status=lambda: {"policy": self.in_force},
                changes={"/policy/check": self._check, "/policy/apply": self._apply},
            )
            await server.start()
            try:
                return await asyncio.to_thread(main, ["policy", *argv, "--config", str(self.config)])
            finally:
                await server.stop()

        return asyncio.run(serve())

    async def _check(self, query: Mapping[str, str]) -> Answer:
        path = Path(query["policy"])
        self.asked.append(("check", "".join(text.decode() for text in read_source(path).files.values())))
        return _named(self.check, path)

    async def _apply(self, query: Mapping[str, str]) -> Answer:
        self.asked.append(("apply", self.policy.read_text(), query["why"]))
        return _named(self.apply, self.policy)

    def keep(self, *texts: str) -> None:
        """A history of these policies, from revision 1 on."""
        for number, text in enumerate(texts, 1):
            source = Source(folder=False, files={"policy.yaml": text.encode()})
            History(self.folder / "state", 10).add(
                source, revision=number, at=1e9, why="apply", rules=number, rule_files={}
            )


def _named(answer: Answer, path: Path) -> Answer:
    status, content = answer
    if status == 422:
        return status, {"problems": [problem | {"file": str(path)} for problem in content["problems"]]}
    return answer


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setattr(gateway, "LOCKS", tmp_path / "locks")
    return Daemon(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "other.yaml"
    path.write_text(NEW)
    return path


def test_apply_says_what_the_daemon_did(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert daemon.run("apply") == 0
    assert daemon.asked == [("apply", OLD, "apply")]
    assert capsys.readouterr().out == "revision 8 (before: 7): 3 rules, 0.250 s\n"
    # The configured one by its name is no other.
    assert daemon.run("apply", str(daemon.policy)) == 0
    assert daemon.asked[1:] == [("apply", OLD, "apply")]


def test_a_warning_is_no_failure(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.apply = 200, {**daemon.apply[1], "warning": "not kept: \x1b[31m"}
    assert daemon.run("apply") == 0
    assert capsys.readouterr().err == "not kept: \\x1b[31m\n"


def test_a_file_is_checked_then_put_in_place_then_applied(daemon: Daemon, file: Path) -> None:
    daemon.keep(OLD)
    assert daemon.run("apply", str(file)) == 0
    assert daemon.asked == [("check", NEW), ("apply", NEW, "apply")]
    assert daemon.policy.read_text() == NEW
    assert not list(daemon.folder.glob(".policy*"))
    assert not (daemon.folder / "state" / "replaced").exists()


@pytest.mark.parametrize("step", ["check", "apply"])
@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        ((422, {"problems": [PROBLEM, PROBLEM | {"line": 3}]}), 3, "{0}:2: rules[0]: wrong\n{0}:3: rules[0]: wrong\n"),
        ((409, {"error": "no room"}), 1, "microseg-fastpath: no room\n"),
    ],
)
def test_what_fails_leaves_the_source_as_it_was(
    daemon: Daemon, file: Path, step: str, answer: Answer, status: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = daemon.policy.stat()
    setattr(daemon, step, answer)
    assert daemon.run("apply", str(file)) == status
    assert capsys.readouterr() == ("", message.format(file))
    assert daemon.policy.read_text() == OLD
    assert (daemon.policy.stat().st_ino, daemon.policy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not list(daemon.folder.glob(".policy*"))


def test_an_answer_that_is_lost_after_the_change_keeps_the_new_source(daemon: Daemon, file: Path) -> None:
    daemon.apply = 500, {}
    daemon.in_force = {"revision": 8, "digest": read_source(file).digest}
    assert daemon.run("apply", str(file)) == 1
    assert daemon.policy.read_text() == NEW


def test_what_is_not_in_the_history_is_kept_aside(
    daemon: Daemon, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert daemon.run("apply", str(file)) == 0
    kept = daemon.folder / "state" / "replaced"
    assert kept.read_text() == OLD
    assert str(kept) in capsys.readouterr().err


def test_one_at_a_time(daemon: Daemon, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with gateway.only_instance(Path("/sys/fs/bpf/microseg"), "microseg-fastpath policy"):
        assert daemon.run("apply", str(file)) == 1
    assert "another microseg-fastpath policy is running" in capsys.readouterr().err
    assert daemon.asked == []


def test_no_such_file(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert daemon.run("apply", str(daemon.folder / "none")) == 3
    assert capsys.readouterr().err == f"{daemon.folder}/none: No such file or directory\n"


@pytest.mark.parametrize("argv", [["apply"], ["apply", "FILE"], ["rollback"]])
def test_without_a_daemon_nothing_changes(
    daemon: Daemon, file: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.keep(NEW, OLD)
    argv = [str(file) if word == "FILE" else word for word in argv]
    assert main(["policy", *argv, "--config", str(daemon.config)]) == 4
    assert "no daemon answers" in capsys.readouterr().err
    assert daemon.policy.read_text() == OLD
    assert not list(daemon.folder.glob(".policy*"))


def test_rollback_goes_to_the_policy_before_or_to_the_one_named(daemon: Daemon) -> None:
    daemon.keep("rules: []  # first\n", NEW, OLD)
    assert daemon.run("rollback") == 0
    assert daemon.asked == [("check", NEW), ("apply", NEW, "rollback")]
    assert daemon.run("rollback", "--to", "1") == 0
    assert daemon.policy.read_text() == "rules: []  # first\n"


def test_rollback_names_the_revision_whose_policy_is_invalid_now(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.keep(NEW, OLD)
    daemon.check = 422, {"problems": [PROBLEM]}
    assert daemon.run("rollback") == 3
    assert capsys.readouterr().err == f"revision 1, {daemon.policy}:2: rules[0]: wrong\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["rollback"], "no policy before the one in force in the history; there: 1"),
        (["rollback", "--to", "9"], "no revision 9 in the history; there: 1"),
    ],
)
def test_nothing_to_roll_back_to(
    daemon: Daemon, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.keep(OLD)
    assert daemon.run(*argv) == 1
    assert capsys.readouterr().err == f"microseg-fastpath: {message}\n"


def test_rollback_says_that_a_rule_file_is_another_now(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    (daemon.folder / "rules.d").mkdir()
    (daemon.folder / "rules.d" / "web.yaml").write_text("x")
    History(daemon.folder / "state", 10).add(
        Source(folder=False, files={"policy.yaml": NEW.encode()}),
        revision=1, at=1e9, why="start", rules=1, rule_files={"web": "another"},
    )  # fmt: skip
    assert daemon.run("rollback") == 0
    assert "rule file web was another when revision 1 was applied" in capsys.readouterr().err


def test_history(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.keep(NEW, OLD)
    daemon.in_force["revision"] = 1
    assert daemon.run("history", "-o", "json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["revision"], row["current"]) for row in rows] == [(2, False), (1, True)]
    assert rows[0] == {
        "revision": 2, "current": False, "at": 1e9, "why": "apply", "rules": 2, "files": ["policy.yaml"],
        "digest": read_source(daemon.policy).digest, "rule_files": {},
    }  # fmt: skip
    # Without a daemon the last one is what the kernel goes on with.
    assert main(["policy", "history", "--config", str(daemon.config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["2", "current", "2001-09-09T01:46:40Z", "apply", "2"]
    assert "current" not in lines[2]


def test_a_damaged_entry_is_an_error_behind_the_others(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.keep(NEW, OLD)
    path = min((daemon.folder / "state" / "history").iterdir())
    path.write_bytes(b"")
    assert daemon.run("history", "-o", "json") == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["revision"] for line in out.splitlines()] == [2]
    assert err == f"microseg-fastpath: {path}: damaged: not an entry of the policy history\n"
