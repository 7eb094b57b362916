"""Which policy is in force: apply, rollback, history and the watch, against a running daemon."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastpath.admin_client import request_change
from fastpath.exit import ExitStatus
from tests.lab import Lab
from tests.lab.gateway import FASTPATH, Gateway
from tests.netns.peers import PATIENCE, Echo, Transfer, dial, eventually, listen, port_of, session_of
from tests.netns.probes import attempt

pytestmark = pytest.mark.root

PORT, OTHER = 7000, 7001


def allowing(*ports: int) -> str:
    rules = "".join(f"  - {{id: p{port}, proto: tcp, ports: {port}, action: allow}}\n" for port in ports)
    return f"default: {{action: deny, deny_with: reset}}\nrules:\n{rules}"


FIRST, SECOND = allowing(PORT), allowing(OTHER)
BROKEN = "rules:\n  - {id: a, action: perhaps}\n  - {id: b, action: allow, colour: red}\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        for port in (PORT, OTHER):
            stack.enter_context(listen(lab, port))
        yield stack.enter_context(Gateway(lab, FIRST, settings={"policy_history": 5}, inspector=False))


@pytest.fixture
def gateway(served: Gateway) -> Gateway:
    """FIRST is in force, SECOND was before."""
    for text in (SECOND, FIRST):
        renew(served, text)
    return served


def renew(gateway: Gateway, text: str) -> None:
    """What `policy apply` asks for, without its start."""
    gateway.write_policy(text)
    status, answer = request_change(
        Path(gateway.settings["run_dir"]) / "fastpath.sock", "/policy/apply", timeout=PATIENCE
    )
    assert status == 200, answer


def policy(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return gateway.command(FASTPATH, "policy", *arguments)


def history(gateway: Gateway) -> list[dict[str, Any]]:
    done = policy(gateway, "history", "-o", "json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def revision(gateway: Gateway) -> int:
    number: int = gateway.status()["policy"]["revision"]
    return number


def opened(gateway: Gateway) -> list[int]:
    """Which of the two ports are open."""
    return [port for port in (PORT, OTHER) if attempt(gateway.lab, port)[0] == "open"]


def identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_mode, found.st_uid, found.st_gid


def written(gateway: Gateway, text: str) -> Path:
    file = gateway.directory / "other.yaml"
    file.write_text(text)
    return file


# -- apply ---------------------------------------------------------------------------------------------------------


def test_apply_reads_the_configured_policy_anew(gateway: Gateway) -> None:
    before = revision(gateway)
    gateway.write_policy(SECOND)
    done = policy(gateway, "apply")
    assert (done.returncode, done.stderr) == (0, "")
    after = revision(gateway)
    assert after > before
    assert done.stdout.startswith(f"revision {after} (before: {before}): 1 rules, ")
    assert opened(gateway) == [OTHER]
    assert history(gateway)[0] | {"at": 0, "digest": ""} == {
        "revision": after, "current": True, "at": 0, "why": "apply", "rules": 1, "digest": "", "files": ["policy.yaml"],
        "rule_files": {},
    }  # fmt: skip


def test_apply_of_a_broken_policy_changes_nothing(gateway: Gateway) -> None:
    before, kept = revision(gateway), history(gateway)
    gateway.write_policy(BROKEN)
    done = policy(gateway, "apply")
    assert done.returncode == ExitStatus.INVALID_CONFIGURATION
    assert done.stdout == ""
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [f"{gateway.policy}:{n}" for n in (2, 3)]
    assert revision(gateway) == before
    assert f"{gateway.policy}:2: " in gateway.status()["policy"]["problem"]
    assert history(gateway) == kept
    assert opened(gateway) == [PORT]


def test_apply_file_takes_the_place_of_the_configured_policy(gateway: Gateway) -> None:
    gateway.policy.chmod(0o604)
    os.chown(gateway.policy, 12, 34)
    file = written(gateway, SECOND)
    done = policy(gateway, "apply", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert gateway.policy.read_text() == SECOND
    assert identity(gateway.policy)[2:] == (0o100604, 12, 34)
    assert opened(gateway) == [OTHER]
    assert not list(gateway.directory.glob(".policy*"))


def test_apply_of_a_broken_file_leaves_the_configured_policy_alone(gateway: Gateway) -> None:
    file = written(gateway, BROKEN)
    before = identity(gateway.policy), revision(gateway), gateway.status()["policy"]["problem"]
    done = policy(gateway, "apply", str(file))
    assert done.returncode == ExitStatus.INVALID_CONFIGURATION
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [f"{file}:{n}" for n in (2, 3)]
    assert (identity(gateway.policy), revision(gateway), gateway.status()["policy"]["problem"]) == before
    assert not list(gateway.directory.glob(".policy*"))


def test_a_setting_that_needs_a_restart_leaves_the_configured_policy_alone(gateway: Gateway) -> None:
    settings, before = dict(gateway.settings), (identity(gateway.policy), revision(gateway))
    gateway.settings |= {"prio": 12}
    gateway.write_config()
    try:
        done = policy(gateway, "apply", str(written(gateway, SECOND)))
    finally:
        gateway.settings = settings
        gateway.write_config()
    assert done.returncode == ExitStatus.FAILED
    assert "needs a restart to change prio" in done.stderr
    assert (identity(gateway.policy), revision(gateway)) == before


def test_the_same_again_takes_no_place_in_the_history(gateway: Gateway) -> None:
    kept = history(gateway)
    for _ in range(3):
        assert policy(gateway, "apply").returncode == 0
    now = history(gateway)
    assert [entry["digest"] for entry in now] == [entry["digest"] for entry in kept]
    assert now[0]["revision"] > kept[0]["revision"]
    assert now[1:] == kept[1:]


def test_edits_that_were_never_applied_are_not_lost(gateway: Gateway) -> None:
    gateway.write_policy(BROKEN)
    done = policy(gateway, "apply", str(written(gateway, SECOND)))
    kept = Path(gateway.settings["state_dir"]) / "replaced"
    assert (done.returncode, kept.read_text()) == (0, BROKEN)
    assert str(kept) in done.stderr


# -- rollback ------------------------------------------------------------------------------------------------------


def test_rollback_of_a_rollback_returns(gateway: Gateway) -> None:
    numbers = [revision(gateway)]
    for text, port in ((SECOND, OTHER), (FIRST, PORT)):
        done = policy(gateway, "rollback")
        assert (done.returncode, done.stderr) == (0, "")
        assert gateway.policy.read_text() == text
        assert opened(gateway) == [port]
        numbers.append(revision(gateway))
    assert [(entry["revision"], entry["why"]) for entry in history(gateway)[:3]] == [
        (numbers[2], "rollback"), (numbers[1], "rollback"), (numbers[0], "apply"),
    ]  # fmt: skip


def test_rollback_to_a_revision(gateway: Gateway) -> None:
    wanted = revision(gateway)
    for ports in ((OTHER,), (1, OTHER), (2, OTHER)):
        renew(gateway, allowing(*ports))
    assert policy(gateway, "rollback", "--to", str(wanted)).returncode == 0
    assert opened(gateway) == [PORT]
    assert len(history(gateway)) == 5
    done = policy(gateway, "rollback", "--to", "1")
    assert done.returncode == ExitStatus.FAILED
    assert "no revision 1 in the history" in done.stderr


# -- history -------------------------------------------------------------------------------------------------------


def test_history_survives_a_restart(gateway: Gateway) -> None:
    kept = history(gateway)
    assert gateway.stop(FASTPATH) == 0
    assert history(gateway) == kept
    gateway.start_daemon(FASTPATH)
    now = history(gateway)
    assert (now[0]["why"], now[0]["digest"]) == ("start", kept[0]["digest"])
    assert now[0]["revision"] == revision(gateway) > kept[0]["revision"]
    assert now[1:] == kept[1:]
    assert policy(gateway, "rollback").returncode == 0
    assert opened(gateway) == [OTHER]


def test_a_damaged_history_is_said_and_harms_nobody(gateway: Gateway) -> None:
    folder = Path(gateway.settings["state_dir"]) / "history"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    newest = max(folder.iterdir())
    whole = newest.read_bytes()
    newest.write_bytes(whole[:20])
    done = policy(gateway, "history")
    newest.write_bytes(whole)
    assert done.returncode == ExitStatus.FAILED
    assert f"{newest}: damaged" in done.stderr
    # Not even a folder: applied all the same, and said.
    moved = folder.rename(folder.with_name("moved"))
    folder.write_text("")
    gateway.write_policy(SECOND)
    done = policy(gateway, "apply")
    assert done.returncode == 0
    assert "is not in the history" in done.stderr
    assert opened(gateway) == [OTHER]
    assert "is not in the history" in gateway.status()["policy"]["problem"]
    folder.unlink()
    moved.rename(folder)


# -- watch ---------------------------------------------------------------------------------------------------------


def test_watch_takes_what_is_good_once_and_reports_what_is_broken_once(gateway: Gateway) -> None:
    before = revision(gateway)
    log = gateway.log(FASTPATH)
    said = len(log.read_text())
    written(gateway, BROKEN).replace(gateway.policy)
    eventually(lambda: gateway.status()["policy"]["problem"])
    written(gateway, SECOND).replace(gateway.policy)
    eventually(lambda: revision(gateway) > before)
    assert opened(gateway) == [OTHER]
    assert gateway.status()["policy"]["problem"] is None
    assert log.read_text()[said:].count("nothing was applied") == 1
    assert (history(gateway)[0]["why"], history(gateway)[0]["revision"]) == ("watch", before + 1)


def test_sighup_still_applies(gateway: Gateway) -> None:
    before = revision(gateway)
    gateway.write_policy(SECOND)
    gateway.children[FASTPATH].send_signal(signal.SIGHUP)
    eventually(lambda: revision(gateway) > before)
    assert history(gateway)[0]["why"] == "sighup"
    assert opened(gateway) == [OTHER]


# -- under traffic -------------------------------------------------------------------------------------------------


def test_a_transfer_does_not_notice_fifty_applies(gateway: Gateway) -> None:
    texts = [allowing(*range(1, count), 7090) for count in (3, 200)]
    renew(gateway, texts[0])
    dropped = gateway.stats()["drops"]
    with Echo(gateway.lab, 7090), dial(gateway.lab, 7090) as sock:
        with Transfer(sock) as transfer:
            before = transfer.rounds
            for n in range(1, 51):
                renew(gateway, texts[n % 2])
            eventually(lambda: transfer.problems or transfer.rounds > before)
        session = session_of(gateway, port_of(sock))
    assert transfer.problems == []
    assert gateway.stats()["drops"] == dropped
    assert session["rule"] == "p7090"
    assert sum(session["bytes"]) > 2 * transfer.rounds * 65536
