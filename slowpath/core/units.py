"""What rule files say of one unit of a flow."""

from __future__ import annotations

from typing import Final

from parsers.base import Unit, Value
from parsers.registry import PARSERS
from slowpath.core.model import Terms
from slowpath.core.stats import Stats
from slowpath.rules.fields import Subject
from slowpath.rules.ruleset import Outcome

# By protocol, what its units say once.
_ONCE: Final = {name: tuple(field.name for field in parser.fields if field.once) for name, parser in PARSERS.items()}


def remember(said: dict[str, Value], unit: Unit) -> None:
    """Keep in `said` what the connection says once."""
    if once := _ONCE.get(unit.protocol):
        fields = unit.fields
        said |= {name: fields[name] for name in once if name in fields}


def evaluate(terms: Terms, stats: Stats, names: tuple[str, ...], unit: Unit, said: dict[str, Value]) -> Outcome | None:
    """See `RuleSet.evaluate`; what exceeds the patterns' budget is counted, and the exception's matter."""
    subject = Subject.of(unit, said)
    subject.on_budget = terms.exceptions.pattern_budget
    outcome = terms.rules.evaluate(names, subject)
    stats.pattern_budget += subject.over_budget
    return outcome
