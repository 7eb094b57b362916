"""Conditions: what holds of what is said, not said, said later, and said in more than one way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastpath.abi import Action, Protocol, Scope
from fastpath.document import Problems
from parsers import registry
from parsers.base import Field, Kind
from slowpath.rules.explain import outline, reasons
from slowpath.rules.fields import Subject
from slowpath.rules.match import All, Answer, AnyOf, Not
from slowpath.rules.ruleset import RuleSet, read_rule_file

EXTRA = {
    "http.words": Field("http.words", "some words", Kind.LIST, folded=True),
    "http.size": Field("http.size", "a number", Kind.NUMBER),
    "http.once": Field("http.once", "said once", once=True),
}


@pytest.fixture(autouse=True)
def more_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list, a number, and one that is said once."""
    known = {**registry.FIELDS, **EXTRA}
    monkeypatch.setattr(registry, "FIELDS", known)


def compiled(match: str, action: str = "allow", *, folder: Path = Path()) -> RuleSet:
    problems = Problems()
    text = f"name: w\nprotocol: http\nrules:\n  - id: a\n    action: {action}\n    match: {match}\n"
    rule_file = read_rule_file(text, str(folder / "w.yaml"), problems)
    problems.raise_if_any()
    assert rule_file is not None
    return RuleSet({"w": rule_file})


def problems_of(match: str) -> list[str]:
    problems = Problems()
    read_rule_file(f"name: w\nprotocol: http\nrules:\n- {{id: a, action: allow, match: {match}}}\n", "w.yaml", problems)
    return [str(problem) for problem in problems.found]


def decides(match: str, action: str = "allow", *, later: frozenset[str] = frozenset(), **said: object) -> bool | None:
    """Whether the rule decides; None: not yet."""
    subject = Subject(Protocol.HTTP, {name.replace("_", ".", 1): value for name, value in said.items()}, later)  # type: ignore[misc]
    outcome = compiled(match, action).evaluate(("w",), subject)
    return None if outcome is None else outcome.rule == "w/a"


@pytest.mark.parametrize(
    ("match", "said", "expected"),
    [
        ("{http.method: GET}", {"http_method": b"GET"}, True),
        ("{http.method: GET}", {"http_method": b"get"}, False),
        ("{http.method: GET}", {}, False),
        ("{not: {http.method: GET}}", {}, True),
        ("{not: {http.method: GET}}", {"http_method": b"GET"}, False),
        ("{any: [{http.method: GET}, {http.host: a}]}", {"http_method": b"PUT", "http_host": b"A:80"}, True),
        ("{any: [{http.method: GET}, {http.host: a}]}", {"http_method": b"PUT", "http_host": b"b"}, False),
        ("{all: [{http.method: GET}, {not: {http.host: a}}]}", {"http_method": b"GET", "http_host": b"b"}, True),
        ("{http.method: {regex: 'P(U|OS)T'}}", {"http_method": b"POST"}, True),
        ("{http.method: {regex: 'P(U|OS)T'}}", {"http_method": b"POSTS"}, False),
        ("{http.method: {regex: '(a*)*b'}}", {"http_method": b"a" * 5000}, False),
        ("{http.size: [5, 10-20]}", {"http_size": 15}, True),
        ("{http.size: [5, 10-20]}", {"http_size": 6}, False),
        ("{http.once: é}", {"http_once": "é".encode()}, True),
        ("{http.once: é}", {"http_once": b"\xe9"}, False),
    ],
)
def test_what_holds(match: str, said: dict[str, object], expected: bool) -> None:
    assert decides(match, **said) is expected


WORDS = "{http.words: [select, from]}"


@pytest.mark.parametrize(
    ("action", "words", "expected"),
    [
        ("allow", (b"SELECT", b"from"), True),
        ("allow", (b"select", b"drop"), False),
        ("allow", (), False),
        ("deny", (b"drop", b"Select"), True),
        ("deny", (b"drop",), False),
        ("deny", (), False),
    ],
)
def test_an_allow_rule_wants_every_value_to_fit_and_a_deny_rule_any(
    action: str, words: tuple[bytes, ...], expected: bool
) -> None:
    assert decides(WORDS, action, http_words=words) is expected


@pytest.mark.parametrize("action", ["allow", "deny"])
def test_unless_it_says_how_many(action: str) -> None:
    some, every = (f"{{http.words: {{exact: [select, from], values: {values}}}}}" for values in ("any", "every"))
    words = (b"drop", b"select")
    assert decides(some, action, http_words=words) is True
    assert decides(every, action, http_words=words) is False
    assert decides(f"{{not: {some}}}", action, http_words=words) is False
    assert decides(f"{{not: {every}}}", action, http_words=words) is True
    assert any("has one value" in each for each in problems_of("{http.method: {exact: GET, values: any}}"))


def test_turned_round_it_is_the_other_way() -> None:
    assert decides(f"{{not: {WORDS}}}", "allow", http_words=(b"drop", b"select")) is False
    assert decides(f"{{not: {WORDS}}}", "allow", http_words=(b"drop",)) is True
    assert decides(f"{{not: {WORDS}}}", "deny", http_words=(b"drop", b"select")) is True
    assert decides(f"{{not: {{not: {WORDS}}}}}", "allow", http_words=(b"drop", b"select")) is False


def test_what_is_said_later_is_waited_for() -> None:
    later = frozenset({"http.once"})
    assert decides("{http.once: x}", later=later) is None
    assert decides("{http.once: x}") is False
    assert decides("{not: {http.once: x}}", later=later) is None
    # What is known already may be enough.
    assert decides("{http.once: x, http.method: PUT}", http_method=b"GET", later=later) is False
    assert decides("{any: [{http.once: x}, {http.method: GET}]}", http_method=b"GET", later=later) is True


@pytest.mark.parametrize("match", ["{http.path: /a}", "{not: {http.path: /a}}", "{any: [{http.path: /a}]}"])
def test_a_doubt_never_allows_and_always_denies(match: str) -> None:
    assert decides(match, "allow", http_path=b"/a/../a") is False
    assert decides(match, "deny", http_path=b"/a/../a") is True


def test_answers_put_together() -> None:
    parts = {answer: _Fixed(answer) for answer in Answer}
    for one, other in itertools.product(Answer, Answer):
        both, either = All((parts[one], parts[other])), AnyOf((parts[one], parts[other]))
        subject = Subject(Protocol.HTTP, {})
        assert both.answer(subject) == min((one, other), key=[Answer.NO, Answer.LATER, Answer.DOUBT, Answer.YES].index)
        order = [Answer.YES, Answer.LATER, Answer.DOUBT, Answer.NO]
        assert either.answer(subject) == min((one, other), key=order.index)
        assert Not(Not(both)).answer(subject) == both.answer(subject)


class _Fixed:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def answer(self, subject: Subject) -> Answer:
        del subject
        return self._answer

    def fields(self) -> Iterator[str]:
        return iter(())

    def canonical(self) -> object:
        return self._answer.name


def test_scope_is_what_rules_up_to_the_one_that_decides_depend_on() -> None:
    problems = Problems()
    rule_file = read_rule_file(
        "name: w\nprotocol: http\nrules:\n"
        "  - {id: a, match: {http.once: x}, action: allow}\n"
        "  - {id: b, match: {http.method: GET}, action: deny}\n"
        "  - {id: c, action: allow}\n",
        "w.yaml",
        problems,
    )
    assert rule_file is not None
    rules = RuleSet({"w": rule_file})

    def outcome(**said: bytes) -> tuple[Action, Scope, str]:
        found = rules.evaluate(("w",), Subject(Protocol.HTTP, {f"http.{name}": value for name, value in said.items()}))
        assert found is not None
        return found.action, found.scope, found.rule

    assert outcome(once=b"x", method=b"GET") == (Action.ALLOW, Scope.CONNECTION, "w/a")
    assert outcome(once=b"y", method=b"GET") == (Action.DENY, Scope.REQUEST, "w/b")
    assert outcome(once=b"y", method=b"PUT") == (Action.ALLOW, Scope.REQUEST, "w/c")
    assert [rule.scope for rule in rule_file.rules] == [Scope.CONNECTION, Scope.REQUEST, Scope.NONE]


def test_values_out_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# known\n\na.example\n  b.example \n")
    rules = compiled("{http.host: {file: names.txt, prefix: 'c.'}}", folder=tmp_path)
    for host, expected in (
        (b"a.example", "w/a"),
        (b"B.example:80", "w/a"),
        (b"c.d", "w/a"),
        (b"d", ""),
        (b"# known", ""),
    ):
        outcome = rules.evaluate(("w",), Subject(Protocol.HTTP, {"http.host": host}))
        assert outcome is not None
        assert outcome.rule == expected
    (tmp_path / "names.txt").write_text("a.example\n")
    assert compiled("{http.host: {file: names.txt, prefix: 'c.'}}", folder=tmp_path).hash(["w"]) != rules.hash(["w"])


def test_mistakes_have_their_place(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a.example\nB.example\n")
    problems = Problems()
    match = "{http.host: {file: [names.txt, none.txt]}}"
    text = f"name: w\nprotocol: http\nrules:\n  - id: a\n    action: allow\n    match: {match}\n"
    read_rule_file(text, str(tmp_path / "w.yaml"), problems)
    found = [str(problem) for problem in problems.found]
    assert any(f"w.yaml:6: rules[0].match.http.host.file[0]: {tmp_path}/names.txt:2:" in each for each in found), found
    assert any("none.txt" in each for each in found)
    for match, words in (
        ("{http.method: {regex: '('}}", "no pattern of RE2"),
        ("{http.size: 5-1}", "the range is empty"),
        ("{http.size: many}", "needs a number"),
        ("{any: []}", "needs a condition"),
        ("{http.nothing: x}", "unknown field 'http.nothing'"),
        ("{http.words: {}}", "needs exact, prefix, glob, regex, file or pattern"),
        ("{http.words: Big}", "compared in lower case"),
    ):
        assert any(words in each for each in problems_of(match)), (match, problems_of(match))
    deep = "{not: " * 20 + "{http.method: GET}" + "}" * 20
    assert any("nested" in each for each in problems_of(deep))


def test_in_words() -> None:
    (rule,) = (
        compiled("{any: [{http.method: [GET, PUT]}, {not: {http.size: 1-5}}], http.host: {glob: '*.x'}}")
        .files["w"]
        .rules
    )
    assert list(outline(rule.match)) == [
        "any of", "  http.method: GET or PUT", "  not", "    http.size: 1-5", "http.host: *.x",
    ]  # fmt: skip
    subject = Subject(Protocol.HTTP, {"http.method": b"GET", "http.host": b"a\x1b.x"}, frozenset({"http.size"}))
    assert list(reasons(rule.match, subject)) == [
        "any of: yes",
        "  http.method is 'GET', wanted GET or PUT: yes",
        "  not: not known yet",
        "    http.size is not known yet, wanted 1-5: not known yet",
        r"http.host is 'a\x1b.x', wanted *.x: yes",
    ]


@pytest.mark.parametrize(
    ("match", "action", "values", "expected"),
    [
        ("{http.header.x-key: {exact: a}}", "allow", (b"a",), True),
        ("{http.header.x-key: {exact: a}}", "allow", (b"a", b"b"), False),
        ("{http.header.x-key: {exact: a}}", "allow", None, False),
        ("{http.header.x-key: {exact: a}}", "deny", (b"b", b"a"), True),
        ("{http.header.x-key: A}", "allow", (b"a",), False),
        ("{not: {http.header.x-key: {regex: '.*'}}}", "deny", None, True),
    ],
)  # fmt: skip
def test_headers(match: str, action: str, values: tuple[bytes, ...] | None, expected: bool) -> None:
    """Each value of the name has to fit in an allow rule, one will do in a deny rule."""
    said = {} if values is None else {"http_header.x-key": values}
    assert decides(match, action, **said) is expected
    rules = compiled(match, action)
    assert rules.on_demand
    assert rules.asks(("w",)) == {"http.header.x-key"}
    assert not compiled("{http.method: GET}").on_demand
