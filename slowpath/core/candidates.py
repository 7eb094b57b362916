"""What the client's first bytes may be, as long as only the server's answer will tell: Redis and Memcached share
commands, and a server answers nothing but whole ones. They go on to it unless all who may be meant would refuse them.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastpath.abi import Action, Protocol, Reason, Verdict
from parsers.base import TCP, TO_SERVER, ParseError, Parser, Unit, Value
from parsers.registry import make_parser
from slowpath.core.model import NAMES, Judgement, Kernel, Terms, under
from slowpath.core.stats import Stats
from slowpath.core.units import evaluate, remember
from slowpath.rules.ruleset import Outcome


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one of them would deny; `outcome` where rule files say so."""

    judgement: Judgement
    reason: Reason
    protocol: Protocol
    outcome: Outcome | None = None


class _Candidate:
    __slots__ = ("_stats", "_terms", "fed", "judgement", "parser", "protocol", "refusal", "said")

    def __init__(self, terms: Terms, stats: Stats, protocol: Protocol, judgement: Judgement) -> None:
        self._terms = terms
        self._stats = stats
        self.protocol = protocol
        self.judgement = judgement
        self.fed = 0
        self.said: dict[str, Value] = {}
        self.refusal: Refusal | None = None
        self.parser: Parser | None = None
        if judgement.verdict == Verdict.DENY:
            self.refusal = Refusal(judgement, judgement.reason, protocol)
        elif judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            self.parser = make_parser(protocol.name.lower(), TCP)
            if self.parser is not None:
                self.parser.asked |= terms.rules.asks(judgement.rule_files)

    def feed(self, whole: bytes) -> None:
        if self.parser is None or self.refusal is not None:
            return
        fresh, self.fed = whole[self.fed :], len(whole)
        try:
            events = tuple(self.parser.feed(TO_SERVER, fresh))
        except ParseError as error:
            events = error.events
            self.refusal = Refusal(self.judgement, Reason.PARSE_ERROR, self.protocol)
        for unit in events:
            if not isinstance(unit, Unit):
                continue
            remember(self.said, unit)
            names = self.judgement.rule_files
            outcome = self._terms.rules.decide(names, self.protocol)
            outcome = outcome or evaluate(self._terms, self._stats, names, unit, self.said)
            if outcome is not None and outcome.action == Action.DENY:
                self.refusal = Refusal(under(self.judgement, outcome), outcome.reason, self.protocol, outcome)
                return


class Candidates:
    """Those of one flow."""

    __slots__ = ("_all", "_kernel", "_stats", "_terms")

    def __init__(self, terms: Terms, stats: Stats, kernel: Kernel) -> None:
        self._terms = terms
        self._stats = stats
        self._kernel = kernel
        self._all: dict[str, _Candidate] = {}

    @property
    def buffered(self) -> int:
        """Bytes retained."""
        return sum(each.parser.buffered for each in self._all.values() if each.parser is not None)

    def refusal(self, names: tuple[str, ...], whole: bytes, ends: tuple[bytes, int]) -> Refusal | None:
        """Why none of `names` lets the client's bytes on, all that there are so far; `ends` is (flow key, session id).
        What is allowed as unknown goes on unless a rule file refuses it.
        """
        for name in names:
            if name not in self._all:
                judgement = self._kernel.judge(*ends, 1 << NAMES[name])
                self._all[name] = _Candidate(self._terms, self._stats, NAMES[name], judgement)
            self._all[name].feed(whole)
        refusals = [self._all[name].refusal for name in names]
        if None in refusals:
            return None
        by_rule = next((each for each in refusals if each is not None and each.outcome is not None), None)
        if by_rule is None and self._kernel.judge(*ends, 1 << Protocol.UNKNOWN).verdict != Verdict.DENY:
            return None
        return by_rule or refusals[0]
