"""Rules that look for patterns: what decides, how it is explained, and what happens over the budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.abi import Action, Reason, Scope
from fastpath.document import InvalidDocumentError
from parsers.base import OVERLAP, Content, Said
from slowpath.rules import scan
from slowpath.rules.explain import outline, reasons
from slowpath.rules.fields import Subject
from slowpath.rules.ruleset import Outcome, RuleSet, load_rules

PATTERNS = """
name: own
patterns:
  - {id: word, description: d, regex: secret, case: ignore}
  - {id: number, description: d, regex: '\\bid-\\d{4}\\b'}
  - {id: cut, description: d, regex: "'--", decode: url}
"""


@pytest.fixture(name="folder")
def places(tmp_path: Path) -> Path:
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "patterns.d").mkdir()
    (tmp_path / "patterns.d" / "own.yaml").write_text(PATTERNS)
    return tmp_path


def rules_of(folder: Path, *rules: str, protocol: str = "[http, redis, websocket]") -> RuleSet:
    text = f"name: w\nprotocol: {protocol}\nrules:\n" + "".join(f"  - {rule}\n" for rule in rules)
    (folder / "rules.d" / "w.yaml").write_text(text)
    return load_rules([folder / "rules.d"])


def said(protocol: str, on_budget: Action = Action.DENY, **fields: bytes | tuple[bytes, ...]) -> Subject:
    subject = Subject.of(Said(protocol, {f"{protocol}.{name}": value for name, value in fields.items()}))
    subject.on_budget = on_budget
    return subject


def ask(rules: RuleSet, subject: Subject) -> str:
    outcome = rules.evaluate(("w",), subject)
    assert outcome is not None
    return outcome.rule or outcome.reason.name


DENY = "{id: no, match: {http.path: {pattern: own}}, action: deny}"
REST = "{id: rest, action: allow}"


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (b"/", "w/rest"), (b"/SECRET", "w/no"), (b"/?a=id-1234", "w/no"), (b"/?a=id-12345", "w/rest"),
        (b"/a/..%2fx?%27--", "w/no"), (b"/%27%2d-", "w/no"), (b"/%73ecret", "w/rest"), (b"/\xffsecret", "w/no"),
    ],
)  # fmt: skip
def test_a_set_in_the_bytes_as_sent(folder: Path, path: bytes, rule: str) -> None:
    assert ask(rules_of(folder, DENY, REST), said("http", path=path)) == rule


def test_one_of_a_set_and_several(folder: Path) -> None:
    rules = rules_of(
        folder,
        "{id: one, match: {http.path: {pattern: own/word}}, action: deny}",
        "{id: two, match: {http.path: {pattern: [own/number, own/cut]}}, action: deny}",
        REST,
    )
    assert ask(rules, said("http", path=b"/secret'--")) == "w/one"
    assert ask(rules, said("http", path=b"/id-1234")) == "w/two"
    assert ask(rules, said("http", path=b"/'--")) == "w/two"


def test_within_not_all_and_any(folder: Path) -> None:
    rules = rules_of(
        folder,
        "{id: a, match: {http.method: GET, not: {http.path: {pattern: own}}}, action: allow}",
        "{id: b, match: {any: [{http.path: {prefix: /x}}, {http.path: {pattern: own/word}}]}, action: deny}",
        REST,
    )
    assert ask(rules, said("http", method=b"GET", path=b"/")) == "w/a"
    assert ask(rules, said("http", method=b"GET", path=b"/secret")) == "w/b"
    assert ask(rules, said("http", method=b"PUT", path=b"/id-1234")) == "w/rest"


def test_of_several_values_deny_refuses_any_and_allow_wants_every(folder: Path) -> None:
    mixed = said("redis", keys=(b"a", b"secret"))
    deny = rules_of(folder, "{id: no, match: {redis.keys: {pattern: own}}, action: deny}", REST)
    assert ask(deny, mixed) == "w/no"
    allow = rules_of(folder, "{id: yes, match: {redis.keys: {pattern: own}}, action: allow}")
    assert ask(allow, mixed) == "NO_RULE"
    assert ask(allow, said("redis", keys=(b"secret", b"id-1234"))) == "w/yes"
    assert ask(allow, said("redis", keys=())) == "NO_RULE"
    some = rules_of(folder, "{id: yes, match: {redis.keys: {pattern: own, values: any}}, action: allow}")
    assert ask(some, mixed) == "w/yes"


def test_what_is_not_said_contains_nothing(folder: Path) -> None:
    assert ask(rules_of(folder, DENY, REST), said("websocket", text=b"secret")) == "w/rest"


def test_a_field_is_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = rules_of(folder, *(f"{{id: n{n}, match: {{http.path: {{pattern: own}}}}, action: deny}}" for n in range(5)))
    texts: list[tuple[bytes, ...]] = []
    real = scan._Compiled.scan
    monkeypatch.setattr(scan._Compiled, "scan", lambda self, each: texts.append(tuple(each)) or real(self, each))
    assert ask(rules, said("http", path=b"/")) == "NO_RULE"
    assert texts == [(b"/",)]


@pytest.fixture(name="scarce")
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BUDGET", 0)
    monkeypatch.setattr(scan, "BUDGET_OF_BYTE", 0)


@pytest.mark.usefixtures("scarce")
@pytest.mark.parametrize(
    ("action", "denied", "allowed"),
    [
        (Action.DENY, "PATTERN_BUDGET", "PATTERN_BUDGET"),
        (Action.ALLOW, "w/rest", "NO_RULE"),
        (Action.INSPECT, "w/no", "NO_RULE"),
    ],
)
def test_over_budget(folder: Path, action: Action, denied: str, allowed: str) -> None:
    deny = rules_of(folder, DENY, REST)
    over = said("http", action, path=b"/secret")
    assert ask(deny, over) == denied
    assert over.over_budget
    none = said("http", action, path=b"/")
    assert ask(deny, none) == "w/rest"
    assert not none.over_budget
    allow = rules_of(folder, DENY.replace("deny", "allow").replace("no", "yes"))
    assert ask(allow, said("http", action, path=b"/secret")) == allowed
    within = rules_of(folder, "{id: a, match: {not: {http.path: {pattern: own}}}, action: allow}")
    expected = {Action.DENY: "PATTERN_BUDGET", Action.ALLOW: "w/a", Action.INSPECT: "NO_RULE"}[action]
    assert ask(within, said("http", action, path=b"/secret")) == expected


@pytest.mark.usefixtures("scarce")
def test_over_budget_is_a_denial_of_the_request(folder: Path) -> None:
    outcome = rules_of(folder, DENY, REST).evaluate(("w",), said("http", path=b"/secret"))
    assert outcome == Outcome(Action.DENY, Reason.PATTERN_BUDGET, Scope.REQUEST)


@pytest.mark.usefixtures("scarce")
def test_a_rule_before_decides_without_looking(folder: Path) -> None:
    rules = rules_of(folder, "{id: first, match: {http.method: GET}, action: allow}", DENY)
    subject = said("http", method=b"GET", path=b"/secret")
    assert ask(rules, subject) == "w/first"
    assert not subject.over_budget


def test_what_was_found_within_the_budget_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BUDGET", 4000)
    monkeypatch.setattr(scan, "BUDGET_OF_BYTE", 0)
    assert ask(rules_of(folder, DENY, REST), said("http", path=b"/secret?id-1234")) == "w/no"


def test_explained(folder: Path) -> None:
    (rule, _) = rules_of(folder, DENY, REST).files["w"].rules
    assert list(outline(rule.match)) == ["http.path: pattern own/word or own/number or own/cut"]
    wanted = "wanted pattern own/word or own/number or own/cut"
    assert list(reasons(rule.match, said("http", path=b"/secret'--"))) == [
        f"""http.path is "/secret'--", contains own/cut and own/word, {wanted}: yes"""
    ]
    assert list(reasons(rule.match, said("http", path=b"/"))) == [f"http.path is '/', contains none, {wanted}: no"]
    assert list(reasons(rule.match, said("websocket", text=b"/"))) == [f"http.path is not said, {wanted}: no"]


def test_the_hash_is_of_what_the_patterns_mean(folder: Path) -> None:
    before = rules_of(folder, DENY).digest("w")
    own = folder / "patterns.d" / "own.yaml"
    own.write_text(PATTERNS.replace("description: d", "description: other"))
    assert load_rules([folder / "rules.d"]).digest("w") == before
    own.write_text(PATTERNS.replace("secret", "secrets"))
    assert load_rules([folder / "rules.d"]).digest("w") != before
    own.write_text(PATTERNS.replace(", decode: url", ""))
    assert load_rules([folder / "rules.d"]).digest("w") != before


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("{http.path: {pattern: other}}", "w.yaml:4: rules[0].match.http.path.pattern: no pattern 'other': sets of"),
        ("{http.path: {pattern: own/none}}", "no pattern 'own/none'"),
        ("{http.path: {pattern: own, prefix: /x}}", "stands by itself"),
        ("{http.path: {pattern: []}}", "needs exact, prefix, glob, regex, file or pattern"),
        ("{http.path: {pattern: own, values: any}}", "has one value"),
    ],
)  # fmt: skip
def test_mistakes_have_places(folder: Path, match: str, words: str) -> None:
    with pytest.raises(InvalidDocumentError) as error:
        rules_of(folder, f"{{id: a, action: deny, match: {match}}}")
    assert words in str(error.value)


def test_mistakes_of_both_kinds_of_files_at_once(folder: Path) -> None:
    (folder / "patterns.d" / "own.yaml").write_text("name: own\npatterns:\n  - {id: a, description: d, regex: 'a('}\n")
    with pytest.raises(InvalidDocumentError) as error:
        rules_of(folder, "{id: a, action: maybe}")
    assert [Path(problem.file).name for problem in error.value.problems] == ["own.yaml", "w.yaml"]


@pytest.mark.parametrize("cut", range(1, 24))
def test_what_comes_in_pieces_is_found_where_they_meet(folder: Path, cut: int) -> None:
    rules = rules_of(folder, "{id: no, match: {websocket.text: {pattern: own}}, action: deny}", REST)
    text = b"some words, a secret, more"
    head = Said("websocket", {"websocket.kind": b"text"})
    pieces = [
        Content(head, "websocket.text", text[:cut]),
        Content(head, "websocket.text", text[cut:], text[:cut][-OVERLAP:]),
    ]
    assert "w/no" in [ask(rules, Subject.of(piece)) for piece in pieces]
