"""Every shipped rule file compiles, and every rule of it has samples that hold (fail2ban's habit)."""

from pathlib import Path

import pytest

from slowpath.rules.ruleset import Rule, RuleFile, RuleSet, load_rules

CONFIGS = Path(__file__).parents[2] / "configs" / "rules.d"
FILES = sorted(CONFIGS.glob("*.yaml"))
CASES = [(f, rule) for path in FILES for f in load_rules([path]).files.values() for rule in f.rules]


def test_there_are_rule_files() -> None:
    assert FILES
    assert load_rules([CONFIGS]).files


@pytest.mark.parametrize(("rule_file", "rule"), CASES, ids=[f"{f.name}/{r.id}" for f, r in CASES])
def test_samples(rule_file: RuleFile, rule: Rule) -> None:
    rules = RuleSet({rule_file.name: rule_file})
    assert rule.must_match, "a rule needs samples that it decides"
    assert rule.must_not_match or not rule.conditions, "a rule with conditions needs samples that it does not match"
    for sample in rule.must_match:
        outcome = rules.evaluate([rule_file.name], sample.subject)
        assert outcome.rule == f"{rule_file.name}/{rule.id}", (
            f"line {sample.line}: decided by {outcome.rule or 'no rule'}"
        )
    for sample in rule.must_not_match:
        assert not rule.matches(sample.subject), f"line {sample.line} matches"
