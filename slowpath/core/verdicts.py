"""Verdicts: how they come into force, and what is written about them."""

from __future__ import annotations

from collections.abc import Mapping

from fastpath.abi import Protocol, Reason, Scope, Verdict
from fastpath.policy.model import Log
from fastpath.word import Word
from parsers.base import TO_SERVER, Value
from parsers.registry import FIELDS, field_of
from slowpath.core.flow import CONFIRM, PASS, REFUSE, Flow
from slowpath.core.frame import TCP
from slowpath.core.holding import Holding
from slowpath.core.model import Decide, Judgement, Terms, Write
from slowpath.core.timers import Timers
from slowpath.record.model import DEFAULT_RULE, Findings, verdict_record
from slowpath.rules.ruleset import Noted, Outcome


class Verdicts:
    """Brings a flow into the state that a verdict means, and tells the kernel and the log."""

    def __init__(self, terms: Terms, holding: Holding, timers: Timers) -> None:
        self._terms = terms
        self._holding = holding
        self._timers = timers
        self._stats = holding.stats

    def allow(
        self,
        flow: Flow,
        judgement: Judgement,
        scope: Scope,
        reason: Reason,
        *,
        outcome: Outcome | None = None,
        confirmed: bool = False,
    ) -> None:
        """Nothing more is asked of the flow; `confirmed`: whatever its receiver has."""
        flow.judgement = judgement
        flow.parser = None
        flow.hold_until = flow.need_until = 0.0
        self.record(flow, Verdict.ALLOW, scope, reason, judgement, outcome=outcome)
        flow.decision = (Verdict.ALLOW, scope, reason)
        if flow.l4 == TCP and self._terms.limits.confirm and not confirmed:
            flow.confirm = [stream.next if stream is not None else 0 for stream in flow.streams]
            if flow.protocol != Protocol.UNKNOWN:
                # Named by the server's greeting: what the client says must not have two readings either.
                flow.confirm[TO_SERVER] = max(flow.confirm[TO_SERVER], 1)
            flow.state = CONFIRM
            self._holding.settle(flow)
            self.confirm(flow)
            return
        self.allow_for_good(flow)

    def confirm(self, flow: Flow) -> None:
        """An allow becomes final once the judged bytes are acknowledged."""
        if flow.confirm is None:
            return
        for stream, end in zip(flow.streams, flow.confirm, strict=True):
            if end and (stream is None or stream.acknowledged < end):
                return
        self.allow_for_good(flow)

    def allow_for_good(self, flow: Flow) -> None:
        """What is held and what is to come goes on unread."""
        flow.state = PASS
        self._timers.schedule(flow, self._holding.now + self._terms.limits.idle_decided)
        if flow.decision[0] != Verdict.NONE:
            self.decide(flow, *flow.decision)
        self._holding.flush(flow)

    def deny(
        self, flow: Flow, judgement: Judgement, scope: Scope, reason: Reason, *, outcome: Outcome | None = None
    ) -> None:
        """Nothing more goes on, unless it is only watched."""
        flow.judgement = judgement
        flow.parser = None
        flow.hold_until = flow.need_until = 0.0
        self.record(flow, Verdict.DENY, scope, reason, judgement, outcome=outcome)
        self.decide(flow, Verdict.DENY, scope, reason)
        if judgement.monitor:
            flow.state = PASS
            self._holding.flush(flow)
            return
        flow.state = REFUSE
        self._timers.schedule(flow, self._holding.now + self._terms.limits.idle_decided)
        self._holding.refuse(flow, reset=judgement.reset and flow.l4 == TCP)

    def decide(self, flow: Flow, verdict: Verdict, scope: Scope, reason: Reason) -> None:
        """Tell the kernel."""
        flow.decision = (verdict, scope, reason)
        flow.decided_at = self._holding.now
        self._holding.out.append(
            Decide(flow.key, flow.session_id, verdict, scope, reason, flow.protocol, flow.first, flow.judgement)
        )

    def record(
        self,
        flow: Flow,
        verdict: Verdict,
        scope: Scope,
        reason: Reason,
        judgement: Judgement,
        *,
        outcome: Outcome | None = None,
    ) -> None:
        """Tell the log; `outcome`: what rule files said, if it was theirs to say."""
        again, flow.recorded = flow.recorded, True
        if judgement.log == "none" and verdict != Verdict.DENY:
            return
        told = Noted("") if outcome is None else Noted(outcome.rule, outcome.attributes, outcome.patterns)
        if told.attributes.log == Log.NONE:
            return
        word = Word(verdict, scope, monitor=judgement.monitor, reason=reason, revision=judgement.revision)
        self._write(flow, judgement, word, told, again=again)

    def note(self, flow: Flow, judgement: Judgement, noted: Noted) -> None:
        """Tell the log what a rule in monitor mode would have denied."""
        if noted.attributes.log != Log.NONE:
            word = Word(
                Verdict.DENY, Scope.REQUEST, monitor=True, reason=Reason.RULE, revision=judgement.revision
            )  # fmt: skip
            self._write(flow, judgement, word, noted, again=flow.recorded)

    def _write(self, flow: Flow, judgement: Judgement, word: Word, told: Noted, *, again: bool) -> None:
        waited = flow.held[0].since if flow.held and again else flow.held_since
        latency = None if waited is None else self._holding.now - waited
        findings = _findings(flow, self._terms.limits.text, told, latency)
        self._holding.out.append(
            Write(
                verdict_record(
                    ts=self._holding.now,
                    session=flow.session_id,
                    flow=flow.fields,
                    first=flow.first,
                    protocol=flow.protocol,
                    word=word,
                    rule=judgement.rule or DEFAULT_RULE,
                    path="inspector",
                    findings=findings,
                )
            )
        )


def _findings(flow: Flow, limit: int, told: Noted, latency: float | None) -> Findings:
    said: Mapping[str, Value] = flow.unit.fields if flow.unit is not None else {}
    if flow.said:
        said = {**flow.said, **said}
    fields: dict[str, str | int | list[str]] = {}
    for name, value in said.items():
        if (FIELDS.get(name) or field_of(name)).hidden:
            continue
        if isinstance(value, bytes):
            fields[name] = _text(value, limit)
        else:
            fields[name] = value if isinstance(value, int) else [_text(each, limit) for each in value]
    rule_file, _, l7_rule = told.rule.partition("/")
    severity = told.attributes.severity
    return Findings(
        latency, fields, rule_file or None, l7_rule or None, None if severity is None else severity.name.lower(),
        told.patterns,
    )  # fmt: skip


def _text(value: bytes, limit: int) -> str:
    r"""Bytes of the wire as text: UTF-8, what is none as \xNN."""
    return value[:limit].decode("utf-8", "backslashreplace")
