"""Packet mode's inspector: packets and time in, commands out.

A flow is held, identified, parsed and judged; what no rule can refuse any more goes on
at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from fastpath.abi import Action, Protocol, Reason, Scope, Verdict
from fastpath.word import Word
from parsers.base import (
    TO_CLIENT,
    TO_SERVER,
    Event,
    ParseError,
    Parser,
    Request,
    Response,
    Switched,
    Unit,
    Upgraded,
    Value,
)
from parsers.http1 import Http1Parser
from parsers.http2 import Http2Parser
from parsers.identify import Confidence, Match, NeedMore, identify
from parsers.registry import FIELDS, make_parser
from slowpath.core.flow import Flow, Held, State, Stats
from slowpath.core.frame import ACK, FIN, RST, SYN, TCP, URG, Packet, flow_key
from slowpath.core.model import (
    NAMES,
    Command,
    Decide,
    Discard,
    Exceptions,
    Judgement,
    Kernel,
    Limits,
    Release,
    Write,
)
from slowpath.core.reassembly import Arrival, Stream
from slowpath.record.model import DEFAULT_RULE, Findings, verdict_record
from slowpath.rules.fields import Subject
from slowpath.rules.ruleset import Outcome, RuleSet

HTTP: Final = 1 << Protocol.HTTP
HTTP2_OR_GRPC: Final = 1 << Protocol.HTTP2 | 1 << Protocol.GRPC


class Inspector:
    """All flows that the kernel sent up."""

    def __init__(
        self,
        rules: RuleSet,
        kernel: Kernel,
        limits: Limits | None = None,
        exceptions: Exceptions | None = None,
    ) -> None:
        self.rules = rules
        self.kernel = kernel
        self.limits = limits or Limits()
        self.exceptions = exceptions or Exceptions()
        self.stats = Stats()
        self._flows: dict[bytes, Flow] = {}
        self._sessions: dict[int, bytes] = {}
        self._undecided: dict[bytes, Flow] = {}
        self._timers: list[tuple[float, int, bytes]] = []
        self._counter = 0
        self._out: list[Command] = []
        self._now = 0.0

    # -- entry points ---------------------------------------------------------------------------------------------

    def packet(self, packet: Packet, now: float) -> list[Command]:
        """Judge one packet; the commands are to be done in their order."""
        self._begin(now)
        self.stats.packets += 1
        if packet.fragment:
            self.stats.fragments += 1
            if self.exceptions.fragment == Action.ALLOW:
                self._release(packet)
            else:
                self._discard(packet)
        elif packet.bad_checksum:
            # The receiver drops it, so it must not speak for the flow; nothing is lost without it.
            self.stats.bad_checksum += 1
            self._discard(packet)
        elif packet.l4 == TCP:
            self._tcp(packet)
        else:
            self._datagram(packet)
        return self._end()

    def timers(self, now: float) -> list[Command]:
        """What is due."""
        self._begin(now)
        while self._timers and self._timers[0][0] <= now:
            due, _, key = heapq.heappop(self._timers)
            flow = self._flows.get(key)
            if flow is not None and flow.scheduled == due:
                flow.scheduled = 0.0
                self._expire(flow)
        return self._end()

    def next_timer(self) -> float | None:
        """When `timers` is due, at the latest."""
        return self._timers[0][0] if self._timers else None

    def reload(self, rules: RuleSet) -> None:
        """New rules, or a new policy: what is decided stays the kernel's matter, requests to come are judged anew.
        A verdict on its way under the old revision is refused by the kernel, and sent again after `Limits.unwritten`.
        """
        self.rules = rules
        for flow in self._flows.values():
            flow.judgements.clear()

    def forget(self, session_id: int) -> list[Command]:
        """The kernel's session has ended."""
        self._begin(self._now)
        key = self._sessions.get(session_id)
        if key is not None:
            self._drop(self._flows[key])
        return self._end()

    def close(self, now: float) -> list[Command]:
        """No more packets: what is undecided is judged by what was seen."""
        self._begin(now)
        for flow in list(self._flows.values()):
            self._finish(flow)
            self._drop(flow)
        return self._end()

    def _begin(self, now: float) -> None:
        self._now = now
        self._out = []

    def _end(self) -> list[Command]:
        self.stats.flows = len(self._flows)
        return self._out

    # -- flows ----------------------------------------------------------------------------------------------------

    def _lookup(self, packet: Packet, key: bytes, a_to_b: bool) -> tuple[Flow, int] | None:
        flow = self._flows.get(key)
        if flow is not None:
            # Bare SYNs pass in the kernel: only it knows whether this is still the same connection. Sequence numbers
            # don't tell: a client may choose its new one so that its bytes seem to be a body's.
            flow = self._still(flow)
        if flow is None:
            info = self.kernel.session(key)
            if info is None:
                self.stats.no_session += 1
                return None
            if len(self._flows) >= self.limits.max_flows:
                self._evict(next(iter(self._undecided.values()), None) or next(iter(self._flows.values())))
            flow = self._flow(Flow(key, info, packet), info.judgement)
        return flow, flow.direction(a_to_b)

    def _flow(self, flow: Flow, judgement: Judgement) -> Flow:
        verdict = judgement.verdict
        if verdict in {Verdict.ALLOW, Verdict.DRAIN} or (verdict == Verdict.DENY and judgement.monitor):
            flow.state = State.PASS
        elif verdict == Verdict.DENY:
            flow.state = State.REFUSE
        else:
            self._undecided[flow.key] = flow
        self._flows[flow.key] = flow
        self._sessions[flow.session_id] = flow.key
        flow.last_seen = self._now
        decided = flow.state >= State.PASS
        self._schedule(flow, self._now + (self.limits.idle_decided if decided else self.limits.idle))
        return flow

    def _still(self, flow: Flow) -> Flow | None:
        """The flow if its session lives; a verdict that the kernel did not take is sent again."""
        info = self.kernel.session(flow.key)
        if info is None or info.id != flow.session_id:
            self._finish(flow)
            self._drop(flow)
            return None
        if flow.state == State.CONFIRM:
            for stream, safe, ack in zip(flow.streams, flow.safe, reversed(info.acks), strict=True):
                if stream is not None and ack is not None:
                    stream.acknowledge(min(stream.offset(ack), stream.next, safe))
        if flow.state < State.PASS:
            return flow
        waiting = info.judgement.verdict in {Verdict.INSPECT, Verdict.UNDECIDED}
        if waiting and flow.decision[0] == Verdict.NONE:
            self._drop(flow)  # it was the kernel's decision, and the kernel has changed it
            return None
        if waiting and self._now >= flow.decided_at + self.limits.unwritten:
            self.stats.unwritten += 1
            self._again_decide(flow)
        return flow

    def _again_decide(self, flow: Flow) -> None:
        """Judge anew what was decided under a policy that is gone."""
        verdict, scope, reason = flow.decision
        judgement = self.kernel.judge(flow.key, flow.session_id, 1 << flow.protocol)
        allowed = judgement.verdict == Verdict.ALLOW
        if judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            outcome = self.rules.decide(judgement.rule_files, flow.protocol)
            if outcome is None and flow.unit is not None and flow.unit.final:
                subject = Subject.of(flow.unit, flow.said)
                subject.on_budget = self.exceptions.pattern_budget
                outcome = self.rules.evaluate(judgement.rule_files, subject)
            allowed = outcome is not None and outcome.scope == Scope.CONNECTION and outcome.action == Action.ALLOW
        if verdict == Verdict.ALLOW and not allowed:
            # Requests went by unread since it was allowed: what the new rules must see is gone.
            self._deny(flow, judgement, Scope.CONNECTION, Reason.MIDSTREAM)
            return
        flow.judgement = judgement
        self._decide(flow, verdict, scope, reason)

    def _replaced(self, flow: Flow) -> bool:
        """Whether the kernel has another session for the key by now, or none."""
        info = self.kernel.session(flow.key)
        return info is None or info.id != flow.session_id

    def _evict(self, flow: Flow) -> None:
        """Make room; what was not decided is by the exception."""
        self.stats.evicted += 1
        if flow.state <= State.PARSE:
            self._exception(flow, self.exceptions.reassembly_limit, Reason.REASSEMBLY_LIMIT)
            if flow.state <= State.PARSE:
                self._deny(flow, flow.judgement, Scope.CONNECTION, Reason.REASSEMBLY_LIMIT)
        self._finish(flow)
        self._drop(flow)

    def _weigh(self, flow: Flow) -> None:
        """Count what is kept, and make room when it is too much: the largest flows go."""
        kept = flow.kept if flow.key in self._flows else 0
        self.stats.kept_bytes += kept - flow.kept_bytes
        flow.kept_bytes = kept
        if self.stats.kept_bytes > self.limits.total:
            for large in sorted(self._flows.values(), key=lambda flow: flow.kept_bytes, reverse=True):
                if self.stats.kept_bytes <= self.limits.total * 7 // 8:
                    break
                self._evict(large)

    def _drop(self, flow: Flow) -> None:
        self._discard_held(flow)
        self.stats.kept_bytes -= flow.kept_bytes
        flow.kept_bytes = 0
        self._flows.pop(flow.key, None)
        self._undecided.pop(flow.key, None)
        self._sessions.pop(flow.session_id, None)

    def _finish(self, flow: Flow) -> None:
        """No more bytes will come."""
        if flow.state == State.IDENTIFY and (flow.buffers[0] or flow.buffers[1] or flow.held):
            self._need_more(flow, final=True)
        elif flow.state == State.PARSE and not flow.recorded:
            self._undetermined(flow)
        elif flow.state == State.CONFIRM:
            self._allow_for_good(flow)

    # -- timers ---------------------------------------------------------------------------------------------------

    def _schedule(self, flow: Flow, due: float) -> None:
        if not flow.scheduled or due < flow.scheduled:
            flow.scheduled = due
            self._counter += 1
            heapq.heappush(self._timers, (due, self._counter, flow.key))
            if len(self._timers) > 64 + 4 * len(self._flows):
                # An earlier time leaves the later one behind in the heap.
                self._timers = [(f.scheduled, n, f.key) for n, f in enumerate(self._flows.values()) if f.scheduled]
                self._counter = len(self._timers)
                heapq.heapify(self._timers)

    def _expire(self, flow: Flow) -> None:
        now = self._now
        if flow.need_until and now >= flow.need_until:
            flow.need_until = flow.hold_until = 0.0
            self._need_more(flow, final=False)
        if flow.hold_until and now >= flow.hold_until:
            flow.hold_until = 0.0
            flow.forwarding = True
            self.stats.forwarded_incomplete += 1
            self._settle(flow)
        idle = self.limits.idle if flow.state < State.PASS else self.limits.idle_decided
        ends = flow.last_seen + idle
        if now >= ends:
            # A connection may sleep for hours; forgotten, its next byte could not be judged.
            if flow.state >= State.PASS or self._replaced(flow):
                self._finish(flow)
                self._drop(flow)
                return
            ends = now + idle
        self._schedule(flow, min(due for due in (flow.need_until, flow.hold_until, ends) if due))
        self._weigh(flow)

    # -- datagrams ------------------------------------------------------------------------------------------------

    def _datagram(self, packet: Packet) -> None:
        key, a_to_b = flow_key(packet)
        found = self._lookup(packet, key, a_to_b)
        if found is None:
            self._discard(packet)
            return
        flow, direction = found
        flow.last_seen = self._now
        if flow.state == State.REFUSE:
            self._discard(packet)
            return
        if flow.state == State.IDENTIFY:
            self._hold(flow, packet, direction, 0)
            data = bytes(packet.payload)
            flow.buffers[direction].extend(data)
            answer = identify(*((data, b"") if direction == TO_SERVER else (b"", data)), packet.l4)
            if isinstance(answer, Match) and answer.malformed:
                flow.first = flow.protocol = NAMES[answer.protocol]
                self._parse_error(flow)
            else:
                self._known(flow, answer if isinstance(answer, Match) else None)
            self._flush(flow)
        elif flow.state == State.PARSE:
            self._hold(flow, packet, direction, 0)
            self._parse(flow, direction, bytes(packet.payload))
            self._flush(flow)
            self._weigh(flow)
        else:
            self._release(packet)

    # -- TCP ------------------------------------------------------------------------------------------------------

    def _tcp(self, packet: Packet) -> None:
        key, a_to_b = flow_key(packet)
        flags = packet.tcp_flags
        size = len(packet.payload)
        flow = self._flows.get(key)
        if flow is not None and flags & (SYN | ACK) == SYN:
            direction = flow.direction(a_to_b)
            stream = flow.streams[direction]
            if direction == TO_CLIENT or stream is None or stream.start != (packet.seq + 1) & 0xFFFFFFFF:
                self._finish(flow)
                self._drop(flow)  # a verdict dies with its session
                flow = None
        if flow is None and not size:
            self._release(packet)  # no byte, nothing to judge; SYN, FIN and RST are the kernel's
            return
        found = self._lookup(packet, key, a_to_b)
        if found is None:
            self._discard(packet)
            return
        flow, direction = found
        flow.last_seen = self._now
        if flow.state == State.REFUSE:
            self._discard(packet)
        elif flow.state == State.PASS:
            self._release(packet)
        else:
            self._segment(flow, packet, direction)
            self._weigh(flow)

    def _segment(self, flow: Flow, packet: Packet, direction: int) -> None:
        flags = packet.tcp_flags
        stream = flow.stream(direction, packet)
        if flow.midstream and self._adopt(flow, packet):
            return
        peer = flow.streams[1 - direction]
        if flags & ACK and not flags & SYN and peer is not None:
            acknowledged = peer.offset(packet.ack)
            if acknowledged > peer.highest + 1 and packet.payload:
                # RFC 9293 §3.10.7.4: a segment that acknowledges what was never sent is dropped.
                self.stats.bad_ack += 1
                self._discard(packet)
                return
            peer.acknowledge(min(acknowledged, peer.next, flow.safe[1 - direction]))
        at = stream.offset(packet.seq + (1 if flags & SYN else 0))
        if packet.payload:
            self._payload(flow, packet, direction, stream, at)
        elif flags & RST:
            self._release(packet)
            if at in {stream.next, stream.highest}:
                self._finish(flow)
                self._drop(flow)
            return
        elif flags & FIN and at > flow.safe[direction]:
            if any(held.direction == direction and held.packet.tcp_flags & FIN for held in flow.held):
                self.stats.duplicates += 1
                self._discard(packet)
            else:
                self._hold(flow, packet, direction, at)
        else:
            self._release(packet)
        if flow.state == State.CONFIRM:
            self._confirm(flow)
        self._ended(flow, packet, direction)

    def _ended(self, flow: Flow, packet: Packet, direction: int) -> None:
        """Both FINs in order: what comes behind belongs to nobody."""
        if packet.tcp_flags & FIN:
            stream = flow.streams[direction]
            end = stream.offset(packet.seq) + len(packet.payload) if stream else 0
            if stream is None or end == stream.next:
                flow.fin[direction] = end
        if flow.fin[0] is not None and flow.fin[1] is not None and not flow.held and flow.key in self._flows:
            self._finish(flow)
            if not flow.held:
                self._drop(flow)

    def _payload(self, flow: Flow, packet: Packet, direction: int, stream: Stream, at: int) -> None:
        data = bytes(packet.payload)
        end = at + len(data)
        if packet.tcp_flags & URG and packet.urgent:
            # In line or out of band is the receiver's choice: two readings of the same stream.
            self._conflict(flow, packet, direction, end)
            return
        arrival, fresh = stream.push(at, data)
        if arrival == Arrival.OLD:
            if end <= flow.safe[direction]:
                self._release(packet)
            else:
                self.stats.duplicates += 1  # its first copy is held
                self._discard(packet)
        elif arrival == Arrival.CONFLICT:
            self._conflict(flow, packet, direction, end)
        elif arrival == Arrival.LIMIT and flow.state == State.PARSE and direction == TO_CLIENT and at < stream.next:
            self._release(packet)  # a late copy of what a server sent: nothing depends on it
        elif arrival == Arrival.LIMIT and flow.state == State.CONFIRM and at > stream.next:
            self._discard(packet)  # it is allowed already; TCP sends it again
        elif arrival == Arrival.LIMIT or flow.held_bytes + len(packet.frame) > self.limits.flow_held:
            self._hold(flow, packet, direction, end)
            self._exception(flow, self.exceptions.reassembly_limit, Reason.REASSEMBLY_LIMIT)
        else:
            self._hold(flow, packet, direction, end)
            if arrival == Arrival.NEW:
                if flow.state == State.IDENTIFY:
                    self._identify(flow, direction, fresh)
                elif flow.state == State.PARSE:
                    self._parse(flow, direction, fresh)
                self._settle(flow)

    def _conflict(self, flow: Flow, packet: Packet, direction: int, end: int) -> None:
        if self.exceptions.overlap_conflict == Action.INSPECT:
            self.stats.overlap_conflict += 1
            self._discard(packet)  # the first reading stays the only one
            return
        self._hold(flow, packet, direction, end)
        self._exception(flow, self.exceptions.overlap_conflict, Reason.OVERLAP_CONFLICT)

    def _adopt(self, flow: Flow, packet: Packet) -> bool:
        """The start of the flow was not seen. True = done with the packet."""
        flow.midstream = False
        flow.guessed = True
        if self.exceptions.midstream == Action.INSPECT:
            self.stats.midstream += 1
            return False
        self._hold(flow, packet, TO_SERVER, 0)
        self._exception(flow, self.exceptions.midstream, Reason.MIDSTREAM)
        return True

    # -- holding --------------------------------------------------------------------------------------------------

    def _hold(self, flow: Flow, packet: Packet, direction: int, end: int) -> None:
        flow.held.append(Held(packet, direction, end, self._now))
        if flow.held_since is None:
            flow.held_since = self._now
        size = len(packet.frame)
        flow.held_bytes += size
        self.stats.held_bytes += size

    def _settle(self, flow: Flow) -> None:
        """Let go what is judged, and what may go on incomplete; arm the timers of the rest."""
        if flow.state >= State.PASS:
            return
        # What is being identified may need either side.
        waits = [flow.state == State.IDENTIFY] * 2
        blocked = False
        if flow.state == State.PARSE and flow.parser is not None:
            waits, blocked = [flow.parser.pending(TO_SERVER), flow.parser.pending(TO_CLIENT)], flow.parser.blocked
        pending = any(waits)
        if blocked:
            flow.hold_until = 0.0
        elif not pending:
            flow.forwarding = False
            flow.hold_until = 0.0
        elif not flow.forwarding and not flow.hold_until:
            flow.hold_until = self._now + self.limits.hold_incomplete
            self._schedule(flow, flow.hold_until)
        if (pending or blocked) and not flow.need_until and not (flow.state == State.IDENTIFY and flow.recorded):
            flow.need_until = self._now + self.limits.need_more
            self._schedule(flow, flow.need_until)
        elif not (pending or blocked):
            flow.need_until = 0.0
        for direction, stream in enumerate(flow.streams):
            if blocked and direction == TO_SERVER:
                continue
            if stream is not None and (flow.forwarding or not waits[direction]):
                flow.safe[direction] = stream.next
        self._flush(flow)

    def _flush(self, flow: Flow) -> None:
        """Release held packets in order, up to what is safe in their direction."""
        if not flow.held:
            return
        everything = flow.state == State.PASS or flow.l4 != TCP
        if len(flow.held) > 1:
            flow.held.sort(key=lambda held: held.end)
        keep: list[Held] = []
        for held in flow.held:
            if everything or held.end <= flow.safe[held.direction]:
                flow.held_bytes -= len(held.packet.frame)
                self.stats.held_bytes -= len(held.packet.frame)
                self._release(held.packet)
                if flow.l4 == TCP:
                    self._note_fin(flow, held)
            else:
                keep.append(held)
        flow.held = keep

    @staticmethod
    def _note_fin(flow: Flow, held: Held) -> None:
        if held.packet.tcp_flags & FIN:
            flow.fin[held.direction] = held.end

    def _discard_held(self, flow: Flow) -> None:
        for held in flow.held:
            self._discard(held.packet)
        self.stats.held_bytes -= flow.held_bytes
        flow.held, flow.held_bytes = [], 0

    def _release(self, packet: Packet) -> None:
        self.stats.released += 1
        self._out.append(Release(packet))

    def _discard(self, packet: Packet) -> None:
        self.stats.discarded += 1
        self._out.append(Discard(packet))

    # -- states: fed with bytes in order --------------------------------------------------------------------------

    def _identify(self, flow: Flow, direction: int, data: bytes) -> None:
        flow.buffers[direction].extend(data)
        flow.asked += 1
        to_server, to_client = bytes(flow.buffers[0]), bytes(flow.buffers[1])
        answer = identify(to_server, to_client)
        if flow.guessed and not isinstance(answer, Match):
            swapped = identify(to_client, to_server)
            if isinstance(swapped, Match):
                flow.swap()
                answer = swapped
            elif isinstance(swapped, NeedMore):
                answer = swapped
        if isinstance(answer, NeedMore):
            limits = self.limits
            if len(to_server) + len(to_client) >= limits.need_more_bytes or flow.asked >= limits.need_more_packets:
                self._need_more(flow, final=True)
        else:
            self._known(flow, answer if isinstance(answer, Match) else None)

    def _parse(self, flow: Flow, direction: int, data: bytes) -> None:
        assert flow.parser is not None
        try:
            events = flow.parser.feed(direction, data)
        except ParseError as error:
            self._events(flow, error.events)
            if flow.state == State.PARSE:
                self._parse_error(flow)
            return
        self._events(flow, events)

    # -- deciding -------------------------------------------------------------------------------------------------

    def _known(self, flow: Flow, match: Match | None) -> None:
        """The first bytes are identified; None = they are nothing that is known. What is not sure is named in records
        and unknown to all else: a name that others' bytes would have got as well must allow nothing.
        """
        flow.first = NAMES[match.protocol] if match else Protocol.UNKNOWN
        protocol = flow.first if match and match.confidence == Confidence.SURE else Protocol.UNKNOWN
        self._read(flow, protocol)

    def _read(self, flow: Flow, protocol: Protocol) -> None:
        """With the protocol's parser, if what it says is needed."""
        flow.protocol = protocol
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
        flow.state = State.PARSE
        if isinstance(parser, Http2Parser):
            self._judge(flow, HTTP2_OR_GRPC)
        elif not isinstance(parser, Http1Parser):
            self._judge(flow, 1 << flow.protocol)
        if request is not None and flow.state == State.PARSE:
            self._unit(flow, request)
        for direction in (TO_SERVER, TO_CLIENT):
            data = bytes(flow.buffers[direction])
            flow.buffers[direction].clear()
            if data and flow.state == State.PARSE:
                self._parse(flow, direction, data)

    def _judge(self, flow: Flow, possible: int) -> None:
        """Ask the policy; decides what can be decided for the whole connection."""
        self.stats.judged += 1
        judgement = self.kernel.judge(flow.key, flow.session_id, possible)
        flow.judgement = judgement
        self._ask(flow, judgement)
        protocols = [protocol for protocol in Protocol if possible >> protocol & 1]
        if len(protocols) == 1:
            flow.judgements[protocols[0]] = judgement
        if judgement.verdict == Verdict.ALLOW:
            self._allow(flow, judgement, Scope.CONNECTION, judgement.reason)
        elif judgement.verdict == Verdict.DENY:
            self._deny(flow, judgement, Scope.CONNECTION, judgement.reason)
        elif judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            outcomes = {self.rules.decide(judgement.rule_files, protocol) for protocol in protocols}
            outcome = outcomes.pop()
            if outcome is not None and not outcomes:
                self._apply(flow, judgement, outcome)
        elif len(protocols) == 1 and flow.parser is None:
            if judgement.verdict == Verdict.INSPECT:
                self._watch(flow, judgement)
            else:
                self._deny(flow, judgement, Scope.CONNECTION, Reason.DEFAULT)

    def _apply(self, flow: Flow, judgement: Judgement, outcome: Outcome) -> None:
        if outcome.action == Action.ALLOW:
            self._allow(flow, judgement, outcome.scope, outcome.reason, rule=outcome.rule)
        else:
            self._deny(flow, judgement, outcome.scope, outcome.reason, outcome.rule)

    def _watch(self, flow: Flow, judgement: Judgement) -> None:
        """Inspect, and nothing to inspect it with: recorded, and passed while its bytes stay unambiguous."""
        self._record(flow, Verdict.INSPECT, Scope.CONNECTION, judgement.reason, judgement)
        flow.resting = True
        if flow.parser is None:
            flow.confirm = None
            flow.state = State.CONFIRM
            self._settle(flow)

    def _events(self, flow: Flow, events: list[Event] | tuple[Event, ...]) -> None:
        for event in events:
            if flow.state != State.PARSE:
                return
            if isinstance(event, Unit):
                self._unit(flow, event)
            elif isinstance(event, Response):
                if flow.switching and event.status >= 200 and event.status != 101:
                    flow.switching = False
                    self._again(flow)
            elif isinstance(event, Upgraded):
                self._upgraded(flow, event)
            elif isinstance(event, Switched):
                self._switched(flow, event)

    def _unit(self, flow: Flow, unit: Unit) -> None:
        self.stats.requests += 1
        flow.unit = unit
        if not isinstance(unit, Request):  # which says nothing once
            flow.said |= {name: value for name, value in unit.fields.items() if FIELDS[name].once}
        protocol = NAMES[unit.protocol]
        if flow.kind == Protocol.NONE:
            flow.kind = flow.protocol = protocol
        flow.switching = isinstance(unit, Request) and bool(unit.upgrade) and not unit.stream
        judgement = flow.judgements.get(protocol)
        if judgement is None:
            self._judge_request(flow, protocol)
            judgement = flow.judgement
            if flow.state != State.PARSE:
                return
        flow.judgement = judgement
        if judgement.verdict == Verdict.DENY:
            self._deny(flow, judgement, Scope.CONNECTION, judgement.reason)
        elif judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            outcome = self.rules.decide(judgement.rule_files, protocol)
            if outcome is None:
                subject = Subject.of(unit, flow.said)
                subject.on_budget = self.exceptions.pattern_budget
                outcome = self.rules.evaluate(judgement.rule_files, subject)
                self.stats.pattern_budget += subject.over_budget
                if outcome is not None:
                    self._judged_unit(flow, judgement, outcome, final=unit.final)
            elif outcome.action != Action.ALLOW:
                self._apply(flow, judgement, outcome)
        elif judgement.verdict == Verdict.INSPECT:
            if not flow.resting:
                self._watch(flow, judgement)
        elif judgement.verdict == Verdict.UNDECIDED:
            # One protocol, and still undecided: only a broken walk says so.
            self._deny(flow, judgement, Scope.CONNECTION, Reason.DEFAULT)

    def _judge_request(self, flow: Flow, protocol: Protocol) -> None:
        if not flow.switching and protocol == flow.kind:
            self._judge(flow, 1 << protocol)
            return
        # An allow is not for good yet where an upgrade is offered, nor where the connection began as something else.
        self.stats.judged += 1
        judgement = self.kernel.judge(flow.key, flow.session_id, 1 << protocol)
        flow.judgement = flow.judgements[protocol] = judgement
        self._ask(flow, judgement)

    def _ask(self, flow: Flow, judgement: Judgement) -> None:
        """Have the parser tell what the rules go by."""
        if flow.parser is not None and judgement.rule_files:
            flow.parser.asked |= self.rules.asks(judgement.rule_files)

    def _judged_unit(self, flow: Flow, judgement: Judgement, outcome: Outcome, *, final: bool) -> None:
        if outcome.scope == Scope.CONNECTION and (final or outcome.action == Action.DENY):
            self._apply(flow, judgement, outcome)
        elif outcome.action == Action.DENY and flow.l4 == TCP:
            self._deny(flow, judgement, Scope.REQUEST, outcome.reason, outcome.rule)
        elif outcome.action == Action.DENY:
            self._deny_datagram(flow, judgement, outcome)
        elif not flow.recorded or judgement.log == "all":
            self._record(flow, Verdict.ALLOW, Scope.REQUEST, outcome.reason, judgement, rule=outcome.rule)

    def _deny_datagram(self, flow: Flow, judgement: Judgement, outcome: Outcome) -> None:
        """It does not go on; what else the flow says is judged by itself."""
        self._record(flow, Verdict.DENY, Scope.REQUEST, outcome.reason, judgement, rule=outcome.rule)
        if judgement.monitor:
            return
        self._discard_held(flow)

    def _again(self, flow: Flow) -> None:
        """The offered upgrade was declined: it stays HTTP/1, and may now be allowed for good."""
        judgement = flow.judgements.get(Protocol.HTTP)
        if judgement is None:
            return
        if judgement.verdict == Verdict.ALLOW:
            self._allow(flow, judgement, Scope.CONNECTION, judgement.reason)
        elif judgement.verdict == Verdict.INSPECT and judgement.rule_files:
            outcome = self.rules.decide(judgement.rule_files, Protocol.HTTP)
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
        if event.protocol != b"connect":
            flow.protocol = Protocol.UNKNOWN
            flow.parser = None
            self._judge(flow, 1 << flow.protocol)
            if flow.state == State.PARSE:
                self._deny(flow, flow.judgement, Scope.CONNECTION, Reason.NO_RULE)
            return
        # A tunnel that an allowed CONNECT opened: nothing more to judge.
        judgement = flow.judgements.get(Protocol.HTTP, flow.judgement)
        if flow.resting:
            flow.parser = None
            flow.state = State.CONFIRM
            self._settle(flow)
            return
        self._allow(flow, judgement, Scope.CONNECTION, judgement.reason, record=not flow.recorded)

    def _switched(self, flow: Flow, event: Switched) -> None:
        """What began as one protocol goes on in another, of which the policy is asked by itself."""
        flow.parser = None
        flow.kind = Protocol.NONE
        flow.unit = None
        flow.said = {}
        flow.recorded = flow.resting = False
        flow.buffers[TO_SERVER].extend(event.to_server)
        flow.buffers[TO_CLIENT].extend(event.to_client)
        flow.state = State.IDENTIFY
        if event.protocol:
            self._read(flow, NAMES[event.protocol])

    # -- outcomes -------------------------------------------------------------------------------------------------

    def _allow(
        self,
        flow: Flow,
        judgement: Judgement,
        scope: Scope,
        reason: Reason,
        *,
        rule: str = "",
        confirmed: bool = False,
        record: bool = True,
    ) -> None:
        flow.judgement = judgement
        flow.parser = None
        flow.hold_until = flow.need_until = 0.0
        if record:
            self._record(flow, Verdict.ALLOW, scope, reason, judgement, rule=rule)
        flow.decision = (Verdict.ALLOW, scope, reason)
        if flow.l4 == TCP and self.limits.confirm and not confirmed:
            flow.confirm = [stream.next if stream is not None else 0 for stream in flow.streams]
            if flow.protocol != Protocol.UNKNOWN:
                # Named by the server's greeting: what the client says must not have two readings either.
                flow.confirm[TO_SERVER] = max(flow.confirm[TO_SERVER], 1)
            flow.state = State.CONFIRM
            self._settle(flow)
            self._confirm(flow)
            return
        self._allow_for_good(flow)

    def _confirm(self, flow: Flow) -> None:
        """An allow becomes final once the judged bytes are acknowledged."""
        if flow.confirm is None:
            return
        for stream, end in zip(flow.streams, flow.confirm, strict=True):
            if end and (stream is None or stream.acknowledged < end):
                return
        self._allow_for_good(flow)

    def _allow_for_good(self, flow: Flow) -> None:
        flow.state = State.PASS
        self._schedule(flow, self._now + self.limits.idle_decided)
        if flow.decision[0] != Verdict.NONE:
            self._decide(flow, *flow.decision)
        self._flush(flow)

    def _deny(self, flow: Flow, judgement: Judgement, scope: Scope, reason: Reason, rule: str = "") -> None:
        flow.judgement = judgement
        flow.parser = None
        flow.hold_until = flow.need_until = 0.0
        self._record(flow, Verdict.DENY, scope, reason, judgement, rule=rule)
        self._decide(flow, Verdict.DENY, scope, reason)
        if judgement.monitor:
            flow.state = State.PASS
            self._flush(flow)
            return
        flow.state = State.REFUSE
        self._schedule(flow, self._now + self.limits.idle_decided)
        held, flow.held = flow.held, []
        self.stats.held_bytes -= flow.held_bytes
        flow.held_bytes = 0
        # The kernel turns one packet of a denied session into resets and forwards none of it. The receiver takes
        # a reset for the very byte it waits for: the lowest that is held, of the client's if it has any.
        told = None
        if judgement.reset and flow.l4 == TCP:
            told = min(held, key=lambda item: (item.direction, item.end), default=None)
        for item in held:
            if item is told:
                self._release(item.packet)
            else:
                self._discard(item.packet)

    def _decide(self, flow: Flow, verdict: Verdict, scope: Scope, reason: Reason) -> None:
        flow.decision = (verdict, scope, reason)
        flow.decided_at = self._now
        self._out.append(
            Decide(flow.key, flow.session_id, verdict, scope, reason, flow.protocol, flow.first, flow.judgement)
        )

    def _exception(self, flow: Flow, action: Action, reason: Reason) -> None:
        name = reason.name.lower()
        setattr(self.stats, name, getattr(self.stats, name) + 1)
        if flow.first == Protocol.NONE:
            flow.first = flow.protocol = Protocol.UNKNOWN
        self._except(flow, action, reason)

    def _except(self, flow: Flow, action: Action, reason: Reason) -> None:
        if action == Action.ALLOW:
            self._allow(flow, flow.judgement, Scope.CONNECTION, reason, confirmed=True)
        elif action == Action.INSPECT:
            flow.parser = None
            flow.protocol = Protocol.UNKNOWN
            self._judge(flow, 1 << Protocol.UNKNOWN)
        else:
            self._deny(flow, flow.judgement, Scope.CONNECTION, reason)

    def _need_more(self, flow: Flow, *, final: bool) -> None:
        """An incomplete beginning has had its time. Unless it is `final`, a flow allowed as unknown is not allowed
        for good: its next bytes may complete what a rule refuses.
        """
        if flow.state == State.PARSE:
            # Half a request is not unknown: allowed as that, its other half would never be judged.
            self.stats.need_more += 1
            action = Action.ALLOW if self.exceptions.need_more == Action.ALLOW else Action.DENY
            self._except(flow, action, Reason.NEED_MORE)
        elif flow.state == State.IDENTIFY and (final or self.exceptions.need_more != Action.INSPECT):
            self._exception(flow, self.exceptions.need_more, Reason.NEED_MORE)
        elif flow.state == State.IDENTIFY and not flow.recorded:
            self.stats.need_more += 1
            flow.first = flow.protocol = Protocol.UNKNOWN
            judgement = self.kernel.judge(flow.key, flow.session_id, 1 << Protocol.UNKNOWN)
            if judgement.verdict in {Verdict.ALLOW, Verdict.INSPECT} and not judgement.rule_files:
                self._record(flow, judgement.verdict, Scope.REQUEST, Reason.NEED_MORE, judgement)
                flow.forwarding = True
                self._settle(flow)
            else:
                self._deny(flow, judgement, Scope.CONNECTION, Reason.NEED_MORE)

    def _parse_error(self, flow: Flow) -> None:
        self._exception(flow, self.exceptions.parse_error, Reason.PARSE_ERROR)

    def _undetermined(self, flow: Flow) -> None:
        """The flow ends in the grammar it began with, before anything could be judged."""
        self._record(flow, Verdict.INSPECT, Scope.CONNECTION, Reason.PENDING, flow.judgement)

    def _record(
        self, flow: Flow, verdict: Verdict, scope: Scope, reason: Reason, judgement: Judgement, *, rule: str = ""
    ) -> None:
        again, flow.recorded = flow.recorded, True
        self._undecided.pop(flow.key, None)
        if judgement.log == "none" and verdict != Verdict.DENY:
            return
        waited = flow.held[0].since if flow.held and again else flow.held_since
        findings = _findings(flow, self.limits.text, rule, None if waited is None else self._now - waited)
        word = Word(verdict, scope, monitor=judgement.monitor, reason=reason, revision=judgement.revision)
        self._out.append(
            Write(
                verdict_record(
                    ts=self._now,
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

    def knows(self, key: bytes) -> bool:
        """The flow is followed."""
        return key in self._flows

    def flows(self) -> Iterator[tuple[bytes, int]]:
        """(key, session id) of what is under inspection."""
        return ((flow.key, flow.session_id) for flow in self._flows.values())


def _findings(flow: Flow, limit: int, rule: str, latency: float | None) -> Findings:
    said = flow.said | dict(flow.unit.fields) if flow.unit is not None else {}
    fields = {name: _shown(value, limit) for name, value in said.items() if not FIELDS[name].hidden}
    rule_file, _, l7_rule = rule.partition("/")
    return Findings(latency=latency, fields=fields, rule_file=rule_file or None, l7_rule=l7_rule or None)


def _shown(value: Value, limit: int) -> str | int | list[str]:
    if isinstance(value, tuple):
        return [_text(each, limit) for each in value]
    return value if isinstance(value, int) else _text(value, limit)


def _text(value: bytes, limit: int) -> str:
    r"""Bytes of the wire as text: UTF-8, what is none as \xNN."""
    return value[:limit].decode("utf-8", "backslashreplace")


__all__ = ["Inspector", "Stats"]
