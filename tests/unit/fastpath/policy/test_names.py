from dataclasses import replace
from pathlib import Path

import pytest

from fastpath.abi import Action
from fastpath.policy import names as names_module
from fastpath.policy.model import Default, Log, PairDefault, Policy, Rule, RuleFileUse
from fastpath.policy.names import KEPT, NamedRule, Names, Naming, read_ids, read_names, write_names

POLICY = Policy(
    (
        Rule("ssh", Action.DENY, reset=True, log=Log.NONE, priority=2000),
        Rule(
            "web",
            Action.INSPECT,
            rule_files=(RuleFileUse("web", "abc"), RuleFileUse("more", "def")),
            monitor=True,
            log=Log.ALL,
            down_allow=True,
        ),
    ),
    Default(Action.ALLOW, log=Log.ALL, monitor=True),
)
WEB = NamedRule("web", "inspect", ("web", "more"), monitor=True, reset=False, log="all", down="allow")
SSH = NamedRule("ssh", "deny", (), monitor=False, reset=True, log="none", down="deny")
DEFAULT = NamedRule("default", "allow", (), monitor=True, reset=False, log="all", down="deny")


def test_round_trip(tmp_path: Path) -> None:
    path = write_names(tmp_path, 7, POLICY)
    assert path == tmp_path / "policy/7.json"
    assert read_names(tmp_path, 7) == Names(7, DEFAULT, (WEB, SSH))
    assert read_ids(tmp_path, 7) == ["default", "web", "ssh"]
    assert read_ids(tmp_path, 8) is None


def test_defaults_of_pairs_stand_behind_the_rules(tmp_path: Path) -> None:
    pair = PairDefault(Action.ALLOW, log=Log.ALL, from_zone="lan", to_zone="dmz")
    write_names(tmp_path, 7, replace(POLICY, defaults=(pair,)))
    names = read_names(tmp_path, 7)
    assert names is not None
    named = NamedRule("default:lan>dmz", "allow", (), monitor=False, reset=False, log="all", down="deny")
    assert [names.rule(number) for number in (0, 2, 3)] == [DEFAULT, SSH, named]


@pytest.mark.parametrize("most", [1000, 1])
def test_one_policy_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(names_module, "MAX_KINDS", most)
    web, ssh = POLICY.rules
    pair = PairDefault(Action.ALLOW, from_zone="lan", to_zone="dmz")
    naming = Naming()
    policies = [
        POLICY,
        replace(POLICY, rules=(replace(web, id="www", log=Log.NONE), ssh)),
        replace(POLICY, rules=(web, replace(ssh, id="sh")), defaults=(pair,)),
        replace(POLICY, rules=(web,)),
        Policy(),
        POLICY,
    ]
    for revision, policy in enumerate(policies, 1):
        write_names(tmp_path, revision, policy, naming)
        found = read_names(tmp_path, revision)
        write_names(tmp_path / "anew", revision, policy)
        assert found == read_names(tmp_path / "anew", revision)
        assert found is not None
        assert [found.rule(number).id for number in range(1, policy.last + 1)] == policy.ids


def test_by_the_number_of_a_verdict_word() -> None:
    names = Names(7, DEFAULT, (WEB, SSH))
    assert [names.rule(number) for number in (0, 1, 2)] == [DEFAULT, WEB, SSH]
    for number in (3, -1):
        with pytest.raises(IndexError):
            names.rule(number)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for revision in range(1, KEPT + 5):
        write_names(tmp_path, revision, Policy())
    (tmp_path / "policy/notes.json").write_text("")
    write_names(tmp_path, 100, Policy())
    kept = sorted(int(file.stem) for file in (tmp_path / "policy").glob("*.json") if file.stem != "notes")
    assert kept == [*range(6, KEPT + 5), 100]
    assert len(kept) == KEPT
    assert read_names(tmp_path, 5) is None
    # Nothing half-written lies about.
    assert len(list((tmp_path / "policy").iterdir())) == KEPT + 1


def test_what_was_just_written_stays(tmp_path: Path) -> None:
    # Revisions begin again after 24 bits.
    for revision in (*range(1000, 1000 + KEPT), 1):
        write_names(tmp_path, revision, Policy())
    assert read_names(tmp_path, 1) is not None
    assert len(list((tmp_path / "policy").iterdir())) == KEPT


def test_a_revision_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_names(tmp_path, 7, POLICY)
    write_names(tmp_path, 7, Policy())
    assert read_names(tmp_path, 7) == Names(7, NamedRule("default", "deny"), ())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"revision":1,"default":{},"rules":[]}', "\u00e4"])
def test_a_foreign_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/1.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"policy/1\.json: not the names of a revision"):
        read_names(tmp_path, 1)
    with pytest.raises(ValueError, match=r"policy/1\.json: not the names of a revision"):
        read_ids(tmp_path, 1)
