"""Every shipped rule file compiles, and every rule of it has samples that hold (fail2ban's habit)."""

from pathlib import Path

import pytest

from fastpath.abi import Action, Protocol, Scope
from slowpath.rules.ruleset import Rule, RuleFile, RuleSet, load_rules

CONFIGS = Path(__file__).parents[2] / "configs" / "rules.d"
FILES = sorted(CONFIGS.glob("*.yaml"))
CASES = [(f, rule) for path in FILES for f in load_rules([path]).files.values() for rule in f.rules]


def test_the_shipped_files() -> None:
    assert set(load_rules([CONFIGS]).files) >= {"web", "greeter", "grpc-only"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_named_as_its_rules(path: Path) -> None:
    assert list(load_rules([path]).files) == [path.stem]


@pytest.mark.parametrize(("rule_file", "rule"), CASES, ids=[f"{f.name}/{r.id}" for f, r in CASES])
def test_samples(rule_file: RuleFile, rule: Rule) -> None:
    rules = RuleSet({rule_file.name: rule_file})
    assert rule.must_match, "a rule needs samples that it decides"
    assert rule.must_not_match, "a rule needs samples that it does not decide"
    for sample in rule.must_match:
        outcome = rules.evaluate([rule_file.name], sample.subject)
        assert outcome is not None
        assert outcome.rule == f"{rule_file.name}/{rule.id}", (
            f"line {sample.line}: decided by {outcome.rule or 'no rule'}"
        )
    for sample in rule.must_not_match:
        outcome = rules.evaluate([rule_file.name], sample.subject)
        assert outcome is None or outcome.rule != f"{rule_file.name}/{rule.id}", f"line {sample.line} matches"


def test_scopes() -> None:
    rules = load_rules([CONFIGS])
    assert rules.decide(["web"], Protocol.HTTP) is None
    assert rules.decide(["greeter"], Protocol.GRPC) is None
    whole = rules.decide(["grpc-only"], Protocol.GRPC)
    assert whole is not None
    assert (whole.action, whole.scope) == (Action.ALLOW, Scope.CONNECTION)
