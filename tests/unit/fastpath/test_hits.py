"""Figures of rules: added up, by id, in the file."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import pytest

from fastpath import abi
from fastpath.abi import Action, HitsNumber, SessionFlag, Verdict
from fastpath.hits import MAX_FORMER, Figures, Hits, HitsError, Ids, Ledger, Slots, live_hits
from fastpath.libbpf import Map
from fastpath.loader.pins import Pins
from fastpath.policy.model import Policy, Rule
from fastpath.policy.names import write_names
from fastpath.selection import Batch, RuleNames
from fastpath.word import Word

WEB = Rule("web", Action.ALLOW)
DNS = Rule("dns", Action.ALLOW)


class FakeMap:
    """The session table, and the slots: without a kernel there are no counters."""

    def __init__(self, sessions: list[abi.Session]) -> None:
        self.sessions = sessions

    def lookup(self, key: bytes) -> None:
        return None

    def batches(self) -> list[tuple[int, bytes, bytes]]:
        keys = bytes(len(self.sessions) * ctypes.sizeof(abi.Key))
        return [(len(self.sessions), keys, b"".join(map(bytes, self.sessions)))]


class FakePins:
    def __init__(self, *sessions: abi.Session) -> None:
        self.sessions = list(sessions)

    def map(self, _: str) -> FakeMap:
        return FakeMap(self.sessions)


def ledger(folder: Path, *sessions: abi.Session) -> Ledger:
    pins: Pins = FakePins(*sessions)  # type: ignore[assignment]
    return Ledger(pins, folder / "run", folder / "state")


def session(revision: int, rule: int, packets: int = 1, flags: int = 0) -> abi.Session:
    made = abi.Session(verdict=Word(Verdict.ALLOW, rule=rule, revision=revision).pack(), flags=flags)
    made.packets[:] = [packets, 1]
    made.bytes[:] = [100 * packets, 40]
    return made


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    write_names(tmp_path / "run", 7, Policy((WEB, DNS)))
    write_names(tmp_path / "run", 8, Policy((DNS, WEB)))
    return tmp_path / "run"


# --- by id ------------------------------------------------------------------------------------------------------------


def test_counters_belong_to_ids(run_dir: Path) -> None:
    ids, hits = Ids(run_dir), Hits()
    for revision, number in ((7, 1), (8, 2), (8, 1), (8, 0)):
        ids.add(hits, revision, HitsNumber.RULES + number, [[1], [2], [3]])
    assert hits.rules == {"web": Figures(2, 4, 6), "dns": Figures(1, 2, 3), "default": Figures(1, 2, 3)}
    ids.add(hits, 7, 0, [[1, 5, 0, 0, 8], [2, 6, 0, 1, 9], [3, 7, 0, 1, 9]])
    assert (hits.host, hits.lost) == (Figures(1, 2, 3), Figures(5, 6, 7))
    assert hits.rules == {"web": Figures(2, 5, 7), "dns": Figures(9, 11, 12), "default": Figures(1, 2, 3)}


@pytest.mark.parametrize(("revision", "number"), [(7, HitsNumber.LOST), (9, 2), (7, HitsNumber.RULES + 3)])
def test_what_nobody_knows_is_lost(run_dir: Path, revision: int, number: int) -> None:
    hits = Hits()
    Ids(run_dir).add(hits, revision, number, [[1], [2], [3]])
    assert hits == Hits(lost=Figures(1, 2, 3))


def test_damaged_names_are_no_names(run_dir: Path) -> None:
    (run_dir / "policy" / "7.json").write_text("{")
    hits = Hits()
    Ids(run_dir).add(hits, 7, HitsNumber.RULES + 1, [[1], [2], [3]])
    assert hits == Hits(lost=Figures(1, 2, 3))


def test_live_sessions(run_dir: Path) -> None:
    found = [session(7, 1, 5), session(8, 2, 6), session(8, 0), session(8, 0, flags=SessionFlag.HOST), session(9, 1)]
    values = b"".join(map(bytes, found))
    batch = Batch(len(found), bytes(len(found) * ctypes.sizeof(abi.Key)), values, RuleNames(run_dir))
    hits = live_hits([batch, batch], Ids(run_dir))
    assert hits.rules == {"web": Figures(4, 26, 2360), "default": Figures(2, 4, 280)}
    assert (hits.host, hits.lost) == (Figures(2, 4, 280), Figures(2, 4, 280))


def test_less() -> None:
    hits = Hits({"web": Figures(3, 3, 3)}, Figures(1, 1, 1))
    hits.add(Hits({"web": Figures(1, 1, 1), "dns": Figures(1, 2, 3)}, lost=Figures(1, 0, 0)), -1)
    assert hits == Hits({"web": Figures(2, 2, 2), "dns": Figures(-1, -2, -3)}, Figures(1, 1, 1), Figures(-1, 0, 0))


def test_too_many_former_rules_are_lost() -> None:
    hits = Hits({str(n): Figures(1, 2, 3) for n in range(MAX_FORMER + 1)})
    hits.forget(["0"])
    assert (len(hits.rules), hits.lost) == (MAX_FORMER + 1, Figures())
    hits.rule("another").add(1, 2, 3)
    hits.forget(["0"])
    assert (hits.rules, hits.lost.sessions) == ({"0": Figures(1, 2, 3)}, MAX_FORMER + 1)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_without_a_file(tmp_path: Path, run_dir: Path) -> None:
    total = ledger(tmp_path, session(7, 1)).total()
    assert (total.hits, total.live) == (Hits({"web": Figures(1, 2, 140)}), Hits({"web": Figures(1, 2, 140)}))
    assert ledger(tmp_path).total().since == total.since


def test_what_was_seen_is_where_counting_goes_on_without_counters(tmp_path: Path, run_dir: Path) -> None:
    ledger(tmp_path, session(7, 1)).save()
    after = ledger(tmp_path)
    assert after.total().hits.rules == {}
    after.begin()
    after.begin()
    assert after.total().hits.rules == {"web": Figures(1, 2, 140)}
    assert after.path.stat().st_mode & 0o777 == 0o600


def test_reset(tmp_path: Path, run_dir: Path) -> None:
    counted = ledger(tmp_path, session(7, 1))
    counted.save()
    since = counted.total().since
    counted.reset()
    assert not any(any(each.values) for each in counted.total().hits.rules.values())
    assert counted.total().since > since
    assert ledger(tmp_path, session(7, 1), session(8, 2, 5)).total().hits.rules == {"web": Figures(1, 6, 540)}


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "\x00", '{"format": 2}', '{"format": 1, "since": 1, "base": {}, "seen": {}}',
        '{"format": 1, "since": 1, "base": {"rules": {"a": [1, 2]}, "host": [0,0,0], "lost": [0,0,0]}, "seen": {}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    counted = ledger(tmp_path)
    counted.path.parent.mkdir()
    counted.path.write_text(text)
    for act in (counted.total, counted.save, counted.reset):
        with pytest.raises(HitsError, match=r"hits\.json: damaged: remove it, and counting begins anew"):
            act()
    assert counted.path.read_text() == text


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(HitsError, match="state: "):
        ledger(tmp_path).save()


def test_ids_are_any_text(tmp_path: Path) -> None:
    name = 'a "b" \\ é (host)'
    write_names(tmp_path / "run", 7, Policy((Rule(name, Action.ALLOW),)))
    counted = ledger(tmp_path, session(7, 1))
    counted.save()
    assert json.loads(counted.path.read_text())["seen"]["rules"] == {name: [1, 2, 140]}


def test_slots_that_are_empty() -> None:
    table: Map = FakeMap([])  # type: ignore[assignment]
    assert list(Slots(table).all()) == []


def test_what_was_reset_does_not_come_back(tmp_path: Path, run_dir: Path) -> None:
    ledger(tmp_path, session(7, 1)).save()
    ledger(tmp_path, session(7, 1)).reset()
    after = ledger(tmp_path)
    after.begin()
    assert after.total().hits.rules == {}
