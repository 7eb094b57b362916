from pathlib import Path

import pytest

from fastpath.abi import Action, Protocol, Reason, Scope
from fastpath.document import InvalidDocumentError, Problems
from fastpath.policy.model import Log
from parsers.base import Request
from slowpath.rules.fields import Subject
from slowpath.rules.patterns import Severity
from slowpath.rules.ruleset import Attributes, Outcome, RuleSet, load_rules, read_rule_file


def compiled(text: str) -> RuleSet:
    problems = Problems()
    rule_file = read_rule_file(text, "x.yaml", problems)
    problems.raise_if_any()
    assert rule_file is not None
    return RuleSet({rule_file.name: rule_file})


def problems_of(text: str) -> list[str]:
    problems = Problems()
    read_rule_file(text, "x.yaml", problems)
    return [str(problem) for problem in problems.found]


WEB = """
name: web
protocol: [http, http2, grpc]
rules:
  - {id: closed, match: {http.path: {prefix: /closed}}, action: deny}
  - {id: calls, match: {grpc.service: a.B, grpc.method: [C, D]}, action: allow}
  - {id: read, match: {http.method: [GET, HEAD], http.path: {glob: /open/*}, http.host: x.example}, action: allow}
  - {id: head, match: {http.method: HEAD}, action: allow}
"""


def ask(rules: RuleSet, path: bytes, method: bytes = b"GET", host: bytes = b"x.example", kind: bytes = b"") -> str:
    stream = 1 if kind else 0
    request = Request(method, path, host, kind, stream)
    outcome = rules.evaluate(("web",), Subject.of(request))
    assert outcome is not None
    return outcome.rule if outcome.action == Action.ALLOW else f"!{outcome.rule or outcome.reason.name}"


def test_first_match_and_default() -> None:
    rules = compiled(WEB)
    assert ask(rules, b"/open/a") == "web/read"
    assert ask(rules, b"/open/a", host=b"X.example:80") == "web/read"
    assert ask(rules, b"/open/a", host=b"y.example") == "!NO_RULE"
    assert ask(rules, b"/open/a", b"POST") == "!NO_RULE"
    assert ask(rules, b"/closed/a", b"HEAD") == "!web/closed"
    assert ask(rules, b"/a.B/C", b"POST", kind=b"application/grpc+proto") == "web/calls"
    assert ask(rules, b"/a.B/E", b"POST", kind=b"application/grpc") == "!NO_RULE"
    assert ask(rules, b"/a.B/C", b"POST") == "!NO_RULE"


@pytest.mark.parametrize("path", [b"/open/%2e%2e", b"/open//a", b"/open/a%2fb", b"/open/..%2fclosed"])
def test_ambiguous_path_never_profits(path: bytes) -> None:
    rules = compiled(WEB)
    assert ask(rules, path) == "!web/closed"
    assert ask(rules, path, b"HEAD") == "!web/closed"


def test_scope_is_derived() -> None:
    rules = compiled(WEB)
    assert rules.decide(("web",), Protocol.HTTP) is None
    assert rules.decide(("web",), Protocol.DNS) == Outcome(Action.DENY, Reason.NO_RULE, Scope.CONNECTION)
    assert rules.decide(("missing",), Protocol.HTTP) == Outcome(Action.DENY, Reason.NO_RULE, Scope.CONNECTION)
    whole = compiled("{name: w, protocol: grpc, rules: [{id: all, action: allow}]}")
    assert whole.decide(("w",), Protocol.GRPC) == Outcome(Action.ALLOW, Reason.RULE, Scope.CONNECTION, "w/all")


def test_rules_on_what_a_protocol_has_not_do_not_make_it_request_scoped() -> None:
    rules = compiled(
        "name: w\nprotocol: [http, grpc, dns]\n"
        "rules: [{id: a, match: {grpc.service: x.Y}, action: deny}, {id: b, action: allow}]"
    )
    assert rules.decide(("w",), Protocol.GRPC) is None
    assert rules.decide(("w",), Protocol.HTTP) is None, "it may be gRPC-Web"
    outcome = rules.decide(("w",), Protocol.DNS)
    assert outcome is not None
    assert outcome.action == Action.ALLOW


def test_hash_is_of_the_meaning() -> None:
    one = compiled("{name: w, protocol: http, rules: [{id: a, match: {http.method: [GET, HEAD]}, action: allow}]}")
    two = compiled(
        "name: w\ndescription: other\nprotocol: [http]\nrules:\n"
        "- {id: a, action: allow, match: {http.method: {exact: [HEAD, GET]}}}\n"
    )
    other = compiled("{name: w, protocol: http, rules: [{id: a, match: {http.method: GET}, action: allow}]}")
    assert one.hash(["w"]) == two.hash(["w"]) != other.hash(["w"])
    assert one.hash(["w"]) != one.hash(["v"])
    assert len(one.files["w"].hash) == 64


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: w\nprotocol: http\nrules: []\nlimits: 3\n", 4, "unknown field 'limits'"),
        ("name: w\nprotocol: icmp\nrules: []\n", 2, "'icmp' is not one of"),
        ("name: w\nprotocol: http\nrules:\n- id: a\n", 4, "missing action"),
        ("name: w\nprotocol: http\nrules:\n- id: a\n  action: maybe\n", 5, "'maybe' is not one of allow, deny"),
        ("name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.colour: x}\n", 6, "unknown field"),
        (
            "name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.header: x}\n",
            6,
            "http.header.NAME",
        ),
        (
            "name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.header.: x}\n",
            6,
            "http.header.NAME",
        ),
        (
            "name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.header.A: x}\n",
            6,
            "write http.header.a",
        ),
        (
            "name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {'http.header.a b': x}\n",
            6,
            "'a b' is no name of a header",
        ),
        ("name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {dns.header.a: x}\n", 6, "unknown field"),
        (
            "name: w\nprotocol: http\nrules:\n- {id: a, action: allow, samples: {must_match: [{http.header.A: x}]}}\n",
            4,
            "write http.header.a",
        ),
        (
            "name: w\nprotocol: dns\nrules:\n- id: a\n  action: allow\n  match: {grpc.service: x}\n",
            6,
            "protocol: grpc or http or http2",
        ),
        ("name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.path: x}\n", 6, "begins with /"),
        (
            "name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.path: /a/../b}\n",
            6,
            "more than one",
        ),
        ("name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.path: /%61}\n", 6, "write /a"),
        ("name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.host: A}\n", 6, "lower case"),
        ("name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.path: {}}\n", 6, "needs exact"),
        ("name: w\nprotocol: http\nrules:\n- id: a\n  action: allow\n  match: {http.path: []}\n", 6, "needs a value"),
        ("name: w\nprotocol: http\nrules:\n- {id: a, action: deny}\n- {id: b, action: allow}\n", 5, "never reached"),
        (
            (
                "name: w\nprotocol: http\nrules:\n"
                "- {id: a, match: {http.method: A}, action: deny}\n- {id: a, action: deny}\n"
            ),
            5,
            "used in line 4",
        ),
    ],
)
def test_problems_have_places(text: str, line: int, words: str) -> None:
    found = problems_of(text)
    assert any(problem.startswith(f"x.yaml:{line}:") and words in problem for problem in found), found


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: w\nprotocol: http\nrules: [{id: 1, action: x}, {id: 2, action: y}]\n")
    (tmp_path / "b.yaml").write_text("nonsense")
    (tmp_path / "c.yaml").write_text("{name: v, protocol: http, rules: []}")
    (tmp_path / "d.yaml").write_text("{name: v, protocol: http, rules: []}")
    with pytest.raises(InvalidDocumentError) as error:
        load_rules([tmp_path])
    assert [problem.file.rpartition("/")[2] for problem in error.value.problems] == [
        "a.yaml",
        "a.yaml",
        "b.yaml",
        "d.yaml",
    ]


WATCHED = """
name: w
protocol: http
rules:
  - {id: probe, match: {http.path: {prefix: /x}}, action: deny, mode: monitor, severity: high}
  - {id: other, match: {http.method: GET}, action: deny, mode: monitor}
  - {id: hidden, match: {http.path: /x/y}, action: deny, deny_with: drop, log: none, severity: low}
  - {id: read, match: {http.method: GET}, action: allow, log: all}
"""


def test_rules_in_monitor_mode_are_noted_and_the_next_decides() -> None:
    rules = compiled(WATCHED)
    outcome = rules.evaluate(("w",), Subject.of(Request(b"GET", b"/x/y", b"")))
    assert outcome is not None
    assert (outcome.rule, outcome.action) == ("w/hidden", Action.DENY)
    assert [(each.rule, each.attributes.severity) for each in outcome.noted] == [
        ("w/probe", Severity.HIGH),
        ("w/other", None),
    ]
    assert outcome.attributes == Attributes(reset=False, log=Log.NONE, severity=Severity.LOW)
    assert outcome.matched("w/probe")
    assert not outcome.matched("w/read")
    outcome = rules.evaluate(("w",), Subject.of(Request(b"PUT", b"/x", b"")))
    assert outcome is not None
    assert (outcome.reason, [each.rule for each in outcome.noted]) == (Reason.NO_RULE, ["w/probe"])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{id: a, action: allow, match: {http.path: /}, mode: monitor}", "of rules that deny"),
        ("{id: a, action: allow, deny_with: drop}", "of rules that deny"),
        ("{id: a, action: deny, mode: monitor}", "nothing to look for"),
        ("{id: a, action: deny, severity: huge}", "'huge' is not one of info, low, medium, high, critical"),
        ("{id: a, action: deny, log: some}", "'some' is not one of"),
        ("{id: a, action: deny, on_inspector_down: allow}", "on_inspector_down"),
    ],
)
def test_attributes_that_mean_nothing_are_errors(rule: str, words: str) -> None:
    (problem,) = problems_of(f"name: w\nprotocol: http\nrules: [{rule}]\n")
    assert words in problem


def test_attributes_are_part_of_the_meaning() -> None:
    hashes = [
        compiled(f"name: w\nprotocol: http\nrules: [{{id: a, match: {{http.path: /}}, action: deny{more}}}]").hash(
            ["w"]
        )
        for more in ("", ", mode: monitor", ", deny_with: drop", ", deny_with: reset", ", log: none")
    ]
    assert len(set(hashes)) == len(hashes)


def test_names_have_no_slash() -> None:
    assert any("no slash" in problem for problem in problems_of("name: a/b\nprotocol: http\nrules: []\n"))


def test_digest_is_what_a_policy_remembers() -> None:
    rules = compiled(WEB)
    assert rules.digest("web") == rules.files["web"].hash
    assert rules.digest("other") is None
