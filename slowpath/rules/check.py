"""Whether rules hold what their samples promise (fail2ban's habit: a rule without samples is unfinished)."""

from __future__ import annotations

from collections.abc import Iterator

from slowpath.rules.ruleset import Outcome, Rule, RuleFile, RuleSet
from slowpath.rules.samples import Sample


def unsound(rule_file: RuleFile) -> Iterator[str]:
    """Samples that do not hold, and rules without them."""
    rules = RuleSet({rule_file.name: rule_file})
    for rule in rule_file.rules:
        where = f"{rule_file.file}:{rule.line}: {rule.id}"
        if not rule.must_match or not rule.must_not_match:
            yield f"{where}: needs samples that it must match, and that it must not match"
        for sample, must in samples(rule):
            outcome = rules.evaluate((rule_file.name,), sample.subject)
            if _decided(outcome, rule_file, rule) != must:
                by = f"decided by {outcome.rule or 'no rule'}" if outcome is not None else "not decided yet"
                yield f"{rule_file.file}:{sample.line}: {rule.id}: {'must' if must else 'must not'} match, is {by}"


def samples(rule: Rule) -> Iterator[tuple[Sample, bool]]:
    """All of a rule, and whether it must match."""
    for sample in rule.must_match:
        yield sample, True
    for sample in rule.must_not_match:
        yield sample, False


def _decided(outcome: Outcome | None, rule_file: RuleFile, rule: Rule) -> bool:
    return outcome is not None and outcome.matched(f"{rule_file.name}/{rule.id}")
