from __future__ import annotations

import asyncio
import threading
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import slowpath.service
from fastpath.abi import Action, Protocol
from fastpath.config import EXCEPTIONS, Config, Inspection, load_config
from fastpath.document import InvalidDocumentError
from slowpath.core.model import Exceptions, Limits
from slowpath.rules.ruleset import RuleSet
from slowpath.service import Service, databases_of, exceptions_of, limits_of, read_rules
from tests.unit.slowpath.core.wire import Play, inspect


def config(folder: Path, text: str = "") -> Config:
    file = folder / "gateway.yaml"
    file.write_text(f"interfaces: [a0, a1]\npolicy: policy.yaml\nrules: rules\nprogram_cache: cache\n{text}")
    return load_config(file)


def test_defaults_agree_with_those_of_the_inspector(tmp_path: Path) -> None:
    plain = config(tmp_path)
    assert limits_of(plain) == Limits()
    assert exceptions_of(plain) == Exceptions()


def test_each_bound_reaches_the_inspector(tmp_path: Path) -> None:
    chosen = {"hold_incomplete": 0.5, "need_more": 7, "need_more_bytes": 2048, "need_more_packets": 77}
    chosen |= {"need_more_progress": 4096, "gap": 8, "max_flows": 99, "total": 5_000_000}
    limits = limits_of(config(tmp_path, f"inspector: {chosen}"))
    assert {name: getattr(limits, name) for name in chosen} == chosen
    # The other two are the kernel's.
    assert {field.name for field in fields(Inspection)} - set(chosen) == {"timeout", "drain"}


@pytest.mark.parametrize("name", sorted(set(EXCEPTIONS) - {"midstream", "inspector_down"}))
@pytest.mark.parametrize("action", [Action.ALLOW, Action.DENY, Action.INSPECT])
def test_each_exception_reaches_the_inspector(tmp_path: Path, name: str, action: Action) -> None:
    text = f"exceptions: {{{name}: {action.name.lower()}}}"
    if action not in EXCEPTIONS[name]:
        with pytest.raises(InvalidDocumentError, match=name):
            config(tmp_path, text)
        return
    assert getattr(exceptions_of(config(tmp_path, text)), name) == action


def test_rule_files_of_the_configured_folder(tmp_path: Path) -> None:
    plain = config(tmp_path)
    assert not read_rules(plain).files
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "web.yaml").write_text("name: web\nprotocol: http\nrules: [{id: all, action: allow}]\n")
    assert list(read_rules(plain).files) == ["web"]


@pytest.mark.parametrize(
    ("asked", "there", "used"), [("auto", True, True), ("auto", False, False), ("re2", True, False)]
)
def test_what_looks_for_patterns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, there: bool, used: bool
) -> None:
    monkeypatch.setattr(slowpath.service, "unusable", lambda: "" if there else "it is not there")
    assert (databases_of(config(tmp_path, f"pattern_engine: {asked}")) is not None) == used


def test_an_engine_that_is_missing_is_a_mistake_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowpath.service, "unusable", lambda: "it is not there")
    (tmp_path / "rules").mkdir()
    asked = config(tmp_path, "pattern_engine: hyperscan")
    with pytest.raises(InvalidDocumentError, match=r"gateway.yaml: pattern_engine: it is not there"):
        read_rules(asked)


def test_databases_are_kept_where_programs_are(running: tuple[Service, Play], tmp_path: Path) -> None:
    kept = list((tmp_path / "cache").glob("*.patterns"))
    assert len(kept) == 1
    asyncio.run(running[0]._read_anew())
    assert list((tmp_path / "cache").iterdir()) == kept


WEB = """
name: web
protocol: http
rules:
  - {id: no, match: {http.path: {pattern: own}}, action: deny}
  - {id: all, action: allow}
"""


@pytest.fixture(name="running")
def with_a_connection(tmp_path: Path) -> tuple[Service, Play]:
    """An inspector behind its service, whose kernel half is played."""
    for folder in ("rules", "patterns.d"):
        (tmp_path / folder).mkdir()
    (tmp_path / "rules" / "web.yaml").write_text(WEB)
    (tmp_path / "patterns.d" / "own.yaml").write_text(patterns("one"))
    config(tmp_path)
    service = Service(tmp_path / "gateway.yaml")
    play = Play({Protocol.HTTP: inspect("web")}, service.rules)
    whole: Any = service
    whole.inspector = play.inspector
    whole.writer = SimpleNamespace(reopen=lambda: None)
    return service, play


def patterns(word: str) -> str:
    return "name: own\npatterns:\n" + "".join(
        f"- {{id: n{n}, description: d, regex: '{word}{n}x[0-9]{{4}}'}}\n" for n in range(1000)
    )


def get(path: str) -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def test_packets_are_judged_while_rules_are_read(
    running: tuple[Service, Play], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, play = running
    reading, go_on = threading.Event(), threading.Event()
    real = slowpath.service.read_all

    def slowly(path: Path) -> tuple[Config, RuleSet]:
        reading.set()
        assert go_on.wait(60)
        return real(path)

    monkeypatch.setattr(slowpath.service, "read_all", slowly)
    (tmp_path / "patterns.d" / "own.yaml").write_text(patterns("two"))

    async def reload() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(service._read_anew())
            assert await asyncio.to_thread(reading.wait, 60)
            assert play.client(get("two7x1234"))[-1].startswith("release"), "by the rules in force"
            go_on.set()

    asyncio.run(reload())
    assert play.client(get("two7x1234"))[0] == "write deny rule"


def test_bounds_are_read_anew(running: tuple[Service, Play], tmp_path: Path) -> None:
    service, play = running
    config(tmp_path, "inspector: {need_more_progress: 1024, gap: 3}")
    asyncio.run(service._read_anew())
    play.client(b"GET / HTTP/1.1\r\nHost: a\r\n")
    for _ in range(4):
        play.client(b"X: " + b"x" * 600 + b"\r\n")
        play.wait(1)
    assert play.client(b"\r\n")[0] == "write allow rule", "two in two seconds are progress enough"
    at = play.connection.sent[0]
    play.client(get("two")[5:], at=at + 5)
    assert play.wait(2.9) == []
    assert play.wait(0.2)[:2] == ["write deny reassembly_limit", "deny connection"]


def test_broken_patterns_change_nothing(running: tuple[Service, Play], tmp_path: Path) -> None:
    service, play = running
    before = service.rules
    (tmp_path / "patterns.d" / "own.yaml").write_text("name: own\npatterns: [{id: a, description: d, regex: 'a('}]\n")
    asyncio.run(service._read_anew())
    assert service.rules is before
    assert play.client(get("one7x1234"))[0] == "write deny rule"
