"""What a flow is and what rules say of it: from bytes in order to a verdict."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Final

from fastpath.abi import Action, Protocol, Reason, Scope, Verdict
from parsers.base import (
    TO_CLIENT,
    TO_SERVER,
    Content,
    Event,
    ParseError,
    Parser,
    Request,
    Response,
    Switched,
    Unit,
    Upgraded,
)
from parsers.http1 import Http1Parser
from parsers.http2 import Http2Parser
from parsers.identify import Confidence, Match, NeedMore, identify
from parsers.identify.answers import NO, YES
from parsers.identify.encrypted import tls_client, tls_server
from parsers.registry import make_parser
from slowpath.core.candidates import Candidates
from slowpath.core.flow import CONFIRM, IDENTIFY, PARSE, Flow
from slowpath.core.frame import TCP
from slowpath.core.holding import Holding
from slowpath.core.model import NAMES, Judgement, Kernel, Terms, under
from slowpath.core.units import evaluate, remember
from slowpath.core.verdicts import Verdicts
from slowpath.rules.ruleset import Outcome

HTTP2_OR_GRPC: Final = 1 << Protocol.HTTP2 | 1 << Protocol.GRPC


class Deciding:
    """Identifies, parses and judges."""

    def __init__(self, terms: Terms, kernel: Kernel, holding: Holding, verdicts: Verdicts) -> None:
        self._terms = terms
        self._kernel = kernel
        self._holding = holding
        self._verdicts = verdicts
        self._stats = holding.stats

    # -- bytes in order -------------------------------------------------------------------------------------------

    def identify(self, flow: Flow, direction: int, data: bytes) -> None:
        """More of the first bytes."""
        flow.buffers[direction].extend(data)
        flow.asked += 1
        to_server, to_client = bytes(flow.buffers[0]), bytes(flow.buffers[1])
        if flow.agreed:
            self._begins_tls(flow, to_server, to_client)
            return
        answer = identify(to_server, to_client)
        if flow.guessed and not isinstance(answer, Match):
            swapped = identify(to_client, to_server)
            if isinstance(swapped, Match):
                flow.swap()
                answer = swapped
            elif isinstance(swapped, NeedMore):
                answer = swapped
        if isinstance(answer, NeedMore):
            limits = self._terms.limits
            if answer.asked and not to_client and self._refused(flow, answer.asked, to_server):
                return
            if len(to_server) + len(to_client) >= limits.need_more_bytes or flow.asked >= limits.need_more_packets:
                self.need_more(flow, final=True)
        else:
            self._known(flow, answer if isinstance(answer, Match) else None)

    def _refused(self, flow: Flow, names: tuple[str, ...], whole: bytes) -> bool:
        """Commands that a server will answer, whoever's they are: denied where all who may be meant refuse them."""
        if flow.candidates is None:
            flow.candidates = Candidates(self._terms, self._stats, self._kernel)
        ends = flow.key, flow.session_id
        refusal = flow.candidates.refusal(names, whole, ends)
        if refusal is None:
            return False
        flow.first = flow.protocol = refusal.protocol
        self._verdicts.deny(flow, refusal.judgement, Scope.CONNECTION, refusal.reason, outcome=refusal.outcome)
        return True

    def _begins_tls(self, flow: Flow, to_server: bytes, to_client: bytes) -> None:
        """What both sides agreed on: text in clear would be allowed by a name that is not its own."""
        client = tls_client(to_server)
        if NO in {client, tls_server(to_client)}:
            self._parse_error(flow)
        elif client == YES:
            flow.agreed = False
            self._read(flow, Protocol.TLS)

    def identify_datagram(self, flow: Flow, direction: int, data: bytes) -> None:
        """The flow's first datagram says what it is."""
        flow.buffers[direction].extend(data)
        answer = identify(*((data, b"") if direction == TO_SERVER else (b"", data)), flow.l4)
        if isinstance(answer, Match) and answer.malformed:
            flow.first = flow.protocol = NAMES[answer.protocol]
            self._parse_error(flow)
        else:
            self._known(flow, answer if isinstance(answer, Match) else None)

    def parse(self, flow: Flow, direction: int, data: bytes) -> None:
        """More for the flow's parser."""
        assert flow.parser is not None
        try:
            events = flow.parser.feed(direction, data)
        except ParseError as error:
            self._damaged(flow, error)
            return
        self._events(flow, events)

    def eof(self, flow: Flow, direction: int) -> None:
        """The direction has ended, in order."""
        if flow.state != PARSE or flow.parser is None:
            return
        try:
            events = flow.parser.eof(direction)
        except ParseError as error:
            self._damaged(flow, error)
            return
        self._events(flow, events)

    def _damaged(self, flow: Flow, error: ParseError) -> None:
        self._events(flow, error.events)
        if flow.state == PARSE:
            self._parse_error(flow)

    # -- deciding -------------------------------------------------------------------------------------------------

    def _known(self, flow: Flow, match: Match | None) -> None:
        """The first bytes are identified; None = they are nothing that is known. What is not sure is named in records
        and unknown to all else: a name that others' bytes would have got as well must allow nothing.
        """
        named = NAMES[match.protocol] if match else Protocol.UNKNOWN
        if flow.first in {Protocol.NONE, Protocol.UNKNOWN}:
            flow.first = named
        self._read(flow, named if match and match.confidence == Confidence.SURE else Protocol.UNKNOWN)

    def _read(self, flow: Flow, protocol: Protocol) -> None:
        """With the protocol's parser, if what it says is needed."""
        flow.protocol = protocol
        flow.candidates = None
        flow.forwarding = False
        flow.hold_until = flow.need_until = 0.0
        if protocol == Protocol.HTTP:
            self._start(flow, Http1Parser())
        elif protocol == Protocol.HTTP2:
            self._start(flow, Http2Parser())
        elif (parser := make_parser(protocol.name.lower(), flow.l4)) is not None:
            self._start(flow, parser)
        else:
            self._judge(flow, 1 << protocol)

    def _start(self, flow: Flow, parser: Parser, request: Request | None = None) -> None:
        flow.parser = parser
        flow.state = PARSE
        if self._terms.rules.on_demand and isinstance(parser, Http1Parser | Http2Parser):
            # Its first request is to be told whole, and is judged only then.
            for protocol in (Protocol.HTTP,) if isinstance(parser, Http1Parser) else (Protocol.HTTP2, Protocol.GRPC):
                self._ask(flow, self._kernel.judge(flow.key, flow.session_id, 1 << protocol))
        if isinstance(parser, Http2Parser):
            self._judge(flow, HTTP2_OR_GRPC)
        elif not isinstance(parser, Http1Parser):
            self._judge(flow, 1 << flow.protocol)
        if request is not None and flow.state == PARSE:
            self._unit(flow, request)
        for direction in (TO_SERVER, TO_CLIENT):
            data = bytes(flow.buffers[direction])
            flow.buffers[direction].clear()
            if data and flow.state == PARSE:
                self.parse(flow, direction, data)

    def _judge(self, flow: Flow, possible: int) -> None:
        """Ask the policy; decides what can be decided for the whole connection."""
        judgement = self._walk(flow, possible)
        flow.judgement = judgement
        self._ask(flow, judgement)
        protocols = _protocols(possible)
        if len(protocols) == 1:
            flow.judgements[protocols[0]] = judgement
        if judgement.verdict == Verdict.ALLOW:
            self._verdicts.allow(flow, judgement, Scope.CONNECTION, judgement.reason)
        elif judgement.verdict == Verdict.DENY:
            self._verdicts.deny(flow, judgement, Scope.CONNECTION, judgement.reason)
        elif judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            decide, files = self._terms.rules.decide, judgement.rule_files
            outcome = decide(files, protocols[0])
            if outcome is not None and all(decide(files, other) == outcome for other in protocols[1:]):
                self._apply(flow, judgement, outcome)
        elif len(protocols) == 1 and flow.parser is None:
            if judgement.verdict == Verdict.INSPECT:
                self._watch(flow, judgement)
            else:
                self._verdicts.deny(flow, judgement, Scope.CONNECTION, Reason.DEFAULT)

    def _walk(self, flow: Flow, possible: int) -> Judgement:
        """What the policy says. The kernel notes in its session what it was asked for last, so nothing is asked ahead
        that is not asked again.
        """
        self._stats.judged += 1
        return self._kernel.judge(flow.key, flow.session_id, possible)

    def _apply(self, flow: Flow, judgement: Judgement, outcome: Outcome) -> None:
        judgement = under(judgement, outcome)
        if outcome.action == Action.ALLOW:
            self._verdicts.allow(flow, judgement, outcome.scope, outcome.reason, outcome=outcome)
        else:
            self._verdicts.deny(flow, judgement, outcome.scope, outcome.reason, outcome=outcome)

    def _watch(self, flow: Flow, judgement: Judgement) -> None:
        """Inspect, and nothing to inspect it with: recorded, and passed while its bytes stay unambiguous."""
        self._verdicts.record(flow, Verdict.INSPECT, Scope.CONNECTION, judgement.reason, judgement)
        flow.resting = True
        if flow.parser is None:
            flow.confirm = None
            flow.state = CONFIRM
            self._holding.settle(flow)

    def _events(self, flow: Flow, events: list[Event] | tuple[Event, ...]) -> None:
        for event in events:
            if flow.state != PARSE:
                return
            if isinstance(event, Unit):
                self._unit(flow, event)
            elif isinstance(event, Response):
                if flow.switching and event.status >= 200 and not event.tunnel:
                    flow.switching = False
                    self._again(flow)
            elif isinstance(event, Upgraded):
                self._upgraded(flow, event)
            elif isinstance(event, Switched):
                self._switched(flow, event)

    def _unit(self, flow: Flow, unit: Unit) -> None:
        self._stats.requests += 1
        flow.unit = unit
        remember(flow.said, unit)
        protocol = NAMES[unit.protocol]
        if flow.kind == Protocol.NONE:
            flow.kind = flow.protocol = protocol
        if isinstance(unit, Request):
            flow.switching = bool(unit.upgrade) and not unit.stream
        judgement = flow.judgements.get(protocol)
        if judgement is None:
            self._judge_request(flow, protocol)
            judgement = flow.judgement
            if flow.state != PARSE:
                return
        flow.judgement = judgement
        if judgement.verdict == Verdict.DENY:
            self._verdicts.deny(flow, judgement, Scope.CONNECTION, judgement.reason)
        elif judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            outcome = self._terms.rules.decide(judgement.rule_files, protocol)
            if outcome is None:
                outcome = evaluate(self._terms, self._stats, judgement.rule_files, unit, flow.said)
                if outcome is not None:
                    self._judged_unit(flow, judgement, outcome, final=unit.final)
            elif outcome.action != Action.ALLOW:
                self._apply(flow, judgement, outcome)
        elif judgement.verdict == Verdict.INSPECT:
            if not flow.resting:
                self._watch(flow, judgement)
        elif judgement.verdict == Verdict.UNDECIDED:
            # One protocol, and still undecided: only a broken walk says so.
            self._verdicts.deny(flow, judgement, Scope.CONNECTION, Reason.DEFAULT)

    def _judge_request(self, flow: Flow, protocol: Protocol) -> None:
        if not flow.switching and protocol == flow.kind:
            self._judge(flow, 1 << protocol)
            return
        # An allow is not for good yet where an upgrade is offered, nor where the connection began as something else.
        judgement = self._walk(flow, 1 << protocol)
        flow.judgement = flow.judgements[protocol] = judgement
        self._ask(flow, judgement)

    def _ask(self, flow: Flow, judgement: Judgement) -> None:
        """Have the parser tell what the rules go by."""
        if flow.parser is not None and judgement.rule_files:
            flow.parser.asked |= self._terms.rules.asks(judgement.rule_files)

    def _judged_unit(self, flow: Flow, judgement: Judgement, outcome: Outcome, *, final: bool) -> None:
        for noted in outcome.noted:
            self._verdicts.note(flow, judgement, noted)
        if outcome.scope == Scope.CONNECTION and (final or outcome.action == Action.DENY):
            self._apply(flow, judgement, outcome)
            return
        judgement = under(judgement, outcome)
        if outcome.action == Action.DENY and flow.l4 == TCP:
            self._verdicts.deny(flow, judgement, Scope.REQUEST, outcome.reason, outcome=outcome)
        elif outcome.action == Action.DENY:
            self._deny_datagram(flow, judgement, outcome)
        elif not flow.recorded or (judgement.log == "all" and not isinstance(flow.unit, Content)):
            self._verdicts.record(flow, Verdict.ALLOW, Scope.REQUEST, outcome.reason, judgement, outcome=outcome)

    def _deny_datagram(self, flow: Flow, judgement: Judgement, outcome: Outcome) -> None:
        """It does not go on; what else the flow says is judged by itself."""
        self._verdicts.record(flow, Verdict.DENY, Scope.REQUEST, outcome.reason, judgement, outcome=outcome)
        if judgement.monitor:
            return
        self._holding.discard_held(flow)

    def _again(self, flow: Flow) -> None:
        """The offered upgrade was declined: it stays HTTP/1, and may now be allowed for good."""
        judgement = flow.judgements.get(Protocol.HTTP)
        if judgement is None:
            return
        if judgement.verdict == Verdict.ALLOW:
            self._verdicts.allow(flow, judgement, Scope.CONNECTION, judgement.reason)
        elif judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            outcome = self._terms.rules.decide(judgement.rule_files, Protocol.HTTP)
            if outcome is not None:
                self._apply(flow, judgement, outcome)

    def _upgraded(self, flow: Flow, event: Upgraded) -> None:
        flow.switching = False
        if event.protocol == b"h2c":
            flow.protocol = Protocol.HTTP2
            flow.kind = Protocol.NONE
            flow.recorded = False
            flow.resting = False
            flow.buffers[TO_SERVER].extend(event.to_server)
            flow.buffers[TO_CLIENT].extend(event.to_client)
            flow.parser = None
            try:
                parser = Http2Parser(upgraded=event.request, settings=event.settings)
            except ParseError:
                self._parse_error(flow)
                return
            # The server answers it as stream 1: what rules say of HTTP/2 holds for it too.
            self._start(flow, parser, replace(event.request, stream=1))
            return
        if event.protocol == b"websocket":
            self._switched(flow, Switched("websocket", event.to_server, event.to_client))
            return
        flow.protocol = Protocol.UNKNOWN
        flow.parser = None
        self._judge(flow, 1 << flow.protocol)
        if flow.state == PARSE:
            self._verdicts.deny(flow, flow.judgement, Scope.CONNECTION, Reason.NO_RULE)

    def _switched(self, flow: Flow, event: Switched) -> None:
        """What began as one protocol goes on in another, of which the policy is asked by itself."""
        if not event.protocol and not flow.recorded:
            # A tunnel: who asked for it, and where to, is a record of its own.
            judgement = flow.judgements.get(flow.kind, flow.judgement)
            self._verdicts.record(flow, Verdict.ALLOW, Scope.REQUEST, judgement.reason, judgement)
        flow.parser = None
        flow.switching = False
        flow.kind = Protocol.NONE
        flow.unit = None
        flow.said = {}
        flow.recorded = flow.resting = False
        flow.buffers[TO_SERVER].extend(event.to_server)
        flow.buffers[TO_CLIENT].extend(event.to_client)
        flow.state = IDENTIFY
        if event.protocol and event.protocol != "tls":
            self._read(flow, NAMES[event.protocol])
            return
        flow.agreed = event.protocol == "tls"
        flow.protocol = Protocol.UNKNOWN
        flow.asked = 0
        flow.guessed = False
        for direction, stream in enumerate(flow.streams):
            if stream is not None:
                # All up to here is judged.
                flow.safe[direction] = max(flow.safe[direction], stream.next - len(flow.buffers[direction]))
        if flow.buffers[TO_SERVER] or flow.buffers[TO_CLIENT]:
            self.identify(flow, TO_SERVER, b"")

    # -- ends, and a new policy -----------------------------------------------------------------------------------

    def finish(self, flow: Flow) -> None:
        """No more bytes will come."""
        if flow.state == IDENTIFY and (flow.buffers[0] or flow.buffers[1] or flow.held):
            self.need_more(flow, final=True)
        elif flow.state == PARSE and not flow.recorded:
            self._undetermined(flow)
        elif flow.state == CONFIRM:
            self._verdicts.allow_for_good(flow)

    def renew(self, flow: Flow) -> None:
        """Judge anew what was decided under a policy that is gone."""
        verdict, scope, reason = flow.decision
        judgement = self._kernel.judge(flow.key, flow.session_id, 1 << flow.protocol)
        allowed = judgement.verdict == Verdict.ALLOW
        if judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            outcome = self._terms.rules.decide(judgement.rule_files, flow.protocol)
            if outcome is None and flow.unit is not None and flow.unit.final:
                outcome = evaluate(self._terms, self._stats, judgement.rule_files, flow.unit, flow.said)
            allowed = outcome is not None and outcome.scope == Scope.CONNECTION and outcome.action == Action.ALLOW
        if verdict == Verdict.ALLOW and not allowed:
            # Requests went by unread since it was allowed: what the new rules must see is gone.
            self._verdicts.deny(flow, judgement, Scope.CONNECTION, Reason.MIDSTREAM)
            return
        flow.judgement = judgement
        self._verdicts.decide(flow, verdict, scope, reason)

    # -- exceptions -----------------------------------------------------------------------------------------------

    def exception(self, flow: Flow, action: Action, reason: Reason) -> None:
        """It can't be judged as it should be: the operator's `action` counts."""
        name = reason.name.lower()
        setattr(self._stats, name, getattr(self._stats, name) + 1)
        if flow.first == Protocol.NONE:
            flow.first = flow.protocol = Protocol.UNKNOWN
        self._except(flow, action, reason)

    def _except(self, flow: Flow, action: Action, reason: Reason) -> None:
        if action == Action.ALLOW:
            self._verdicts.allow(flow, flow.judgement, Scope.CONNECTION, reason, confirmed=True)
        elif action == Action.INSPECT:
            flow.parser = None
            flow.protocol = Protocol.UNKNOWN
            self._judge(flow, 1 << Protocol.UNKNOWN)
        else:
            self._verdicts.deny(flow, flow.judgement, Scope.CONNECTION, reason)

    def need_more(self, flow: Flow, *, final: bool) -> None:
        """An incomplete beginning has had its time. Unless it is `final`, a flow allowed as unknown is not allowed
        for good: its next bytes may complete what a rule refuses.
        """
        if flow.state == PARSE or flow.agreed:
            # Half a request is not unknown: allowed as that, its other half would never be judged.
            self._stats.need_more += 1
            action = Action.ALLOW if self._terms.exceptions.need_more == Action.ALLOW else Action.DENY
            self._except(flow, action, Reason.NEED_MORE)
        elif flow.state == IDENTIFY and (final or self._terms.exceptions.need_more != Action.INSPECT):
            self.exception(flow, self._terms.exceptions.need_more, Reason.NEED_MORE)
        elif flow.state == IDENTIFY and not flow.recorded:
            self._stats.need_more += 1
            flow.protocol = Protocol.UNKNOWN
            if flow.first == Protocol.NONE:
                flow.first = Protocol.UNKNOWN
            judgement = self._kernel.judge(flow.key, flow.session_id, 1 << Protocol.UNKNOWN)
            if judgement.verdict in {Verdict.ALLOW, Verdict.INSPECT} and not judgement.rule_files:
                self._verdicts.record(flow, judgement.verdict, Scope.REQUEST, Reason.NEED_MORE, judgement)
                flow.forwarding = True
                self._holding.settle(flow)
            else:
                self._verdicts.deny(flow, judgement, Scope.CONNECTION, Reason.NEED_MORE)

    def _parse_error(self, flow: Flow) -> None:
        self.exception(flow, self._terms.exceptions.parse_error, Reason.PARSE_ERROR)

    def _undetermined(self, flow: Flow) -> None:
        """The flow ends in the grammar it began with, before anything could be judged."""
        self._verdicts.record(flow, Verdict.INSPECT, Scope.CONNECTION, Reason.PENDING, flow.judgement)


@functools.cache
def _protocols(possible: int) -> tuple[Protocol, ...]:
    return tuple(protocol for protocol in Protocol if possible >> protocol & 1)
