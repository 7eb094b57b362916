"""Packet mode's inspector: packets and time in, commands out.

A flow is held, identified, parsed and judged; what no rule can refuse any more goes on
at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from fastpath.abi import Action, Reason, Scope, Verdict
from parsers.base import TO_CLIENT, TO_SERVER
from slowpath.core.deciding import Deciding
from slowpath.core.flow import CONFIRM, IDENTIFY, PARSE, PASS, REFUSE, Flow
from slowpath.core.frame import ACK, FIN, RST, SYN, TCP, URG, Packet
from slowpath.core.holding import Holding
from slowpath.core.model import Command, Exceptions, Judgement, Kernel, Limits, SessionInfo, Terms
from slowpath.core.reassembly import AHEAD, CONFLICT, LIMIT, NEW, OLD, Arrival, Stream
from slowpath.core.stats import Stats
from slowpath.core.timers import Timers
from slowpath.core.verdicts import Verdicts
from slowpath.rules.ruleset import RuleSet

_ALLOWED: Final = frozenset((Verdict.ALLOW, Verdict.DRAIN))
_WAITING: Final = frozenset((Verdict.INSPECT, Verdict.UNDECIDED))
_SYN_ACK: Final = SYN | ACK


class Inspector:
    """All flows that the kernel sent up, and what each of their packets means to them."""

    def __init__(
        self,
        rules: RuleSet,
        kernel: Kernel,
        limits: Limits | None = None,
        exceptions: Exceptions | None = None,
    ) -> None:
        self._kernel = kernel
        self._terms = Terms(rules, limits or Limits(), exceptions or Exceptions())
        self._flows: dict[bytes, Flow] = {}
        self._sessions: dict[int, bytes] = {}
        # The oldest first; some are recorded by now. A dict would look for its first through all that were deleted.
        self._undecided: OrderedDict[bytes, Flow] = OrderedDict()
        self._timers = Timers(self._flows)
        self._holding = Holding(self._terms, self._timers)
        self._verdicts = Verdicts(self._terms, self._holding, self._timers)
        self._deciding = Deciding(self._terms, kernel, self._holding, self._verdicts)
        self.stats = self._holding.stats

    # -- entry points ---------------------------------------------------------------------------------------------

    def packet(self, packet: Packet, now: float) -> list[Command]:
        """Judge one packet; the commands are to be done in their order."""
        self._holding.begin(now)
        self.stats.packets += 1
        if packet.place is not None:
            self.stats.fragments += 1
            if self._terms.exceptions.fragment == Action.ALLOW:
                self._holding.release(packet)
            else:
                self._holding.discard(packet)
        elif packet.bad_checksum:
            # The receiver drops it, so it must not speak for the flow; nothing is lost without it.
            self.stats.bad_checksum += 1
            self._holding.discard(packet)
        elif packet.l4 == TCP:
            self._tcp(packet)
        else:
            self._datagram(packet)
        return self._holding.out

    def timers(self, now: float) -> list[Command]:
        """What is due."""
        self._holding.begin(now)
        for flow in self._timers.due(now):
            self._expire(flow)
        return self._holding.out

    def next_timer(self) -> float | None:
        """When `timers` is due, at the latest."""
        return self._timers.next

    def reload(self, rules: RuleSet, limits: Limits | None = None, exceptions: Exceptions | None = None) -> None:
        """New rules, bounds or choices, or a new policy: what is decided stays the kernel's matter, requests to come
        are judged anew. A verdict on its way under the old revision is refused by the kernel, and sent again after
        `Limits.unwritten`.
        """
        self._terms.rules = rules
        self._terms.limits = limits or self._terms.limits
        self._terms.exceptions = exceptions or self._terms.exceptions
        for flow in self._flows.values():
            flow.judgements.clear()
            flow.candidates = None

    def forget(self, session_id: int) -> list[Command]:
        """The kernel's session has ended."""
        self._holding.begin(self._holding.now)
        key = self._sessions.get(session_id)
        if key is not None:
            self._drop(self._flows[key])
        return self._holding.out

    def close(self, now: float) -> list[Command]:
        """No more packets: what is undecided is judged by what was seen."""
        self._holding.begin(now)
        for flow in list(self._flows.values()):
            self._deciding.finish(flow)
            self._drop(flow)
        return self._holding.out

    def knows(self, key: bytes) -> bool:
        """The flow is followed."""
        return key in self._flows

    def flows(self) -> Iterator[tuple[bytes, int]]:
        """(key, session id) of what is under inspection."""
        return ((flow.key, flow.session_id) for flow in self._flows.values())

    # -- flows ----------------------------------------------------------------------------------------------------

    def _lookup(self, packet: Packet, key: bytes, flow: Flow | None) -> Flow | None:
        """The packet's flow, a new one where it is not `flow`; None if the kernel has no session."""
        # Bare SYNs pass in the kernel: only it knows whether this is still the same connection. Sequence numbers
        # don't tell: a client may choose its new one so that its bytes seem to be a body's.
        info = self._kernel.session(key)
        if flow is not None and not self._still(flow, info):
            flow = None
        if flow is None:
            if info is None:
                self.stats.no_session += 1
                return None
            if len(self._flows) >= self._terms.limits.max_flows:
                self._evict(self._waiting_longest() or next(iter(self._flows.values())))
            flow = self._flow(Flow(key, info, packet), info.judgement)
        flow.last_seen = self._holding.now
        return flow

    def _flow(self, flow: Flow, judgement: Judgement) -> Flow:
        verdict = judgement.verdict
        if verdict in _ALLOWED or (verdict == Verdict.DENY and judgement.monitor):
            flow.state = PASS
        elif verdict == Verdict.DENY:
            flow.state = REFUSE
        else:
            self._undecided[flow.key] = flow
        self._flows[flow.key] = flow
        self.stats.flows = len(self._flows)
        self._sessions[flow.session_id] = flow.key
        flow.last_seen = self._holding.now
        self._timers.schedule(flow, flow.last_seen + self._idle(flow))
        return flow

    def _idle(self, flow: Flow) -> float:
        limits = self._terms.limits
        return limits.idle if flow.state < PASS else limits.idle_decided

    def _still(self, flow: Flow, info: SessionInfo | None) -> bool:
        """Its session lives. If not, it is dropped; a verdict that the kernel did not take is sent again."""
        if info is None or info.id != flow.session_id:
            self._deciding.finish(flow)
            self._drop(flow)
            return False
        if flow.state < CONFIRM:
            return True
        if flow.state == CONFIRM:
            self._heard(flow, info)
            return True
        waiting = info.judgement.verdict in _WAITING
        if waiting and flow.decision[0] == Verdict.NONE:
            self._drop(flow)  # it was the kernel's decision, and the kernel has changed it
            return False
        if waiting and self._holding.now >= flow.decided_at + self._terms.limits.unwritten:
            self.stats.unwritten += 1
            self._deciding.renew(flow)
        return True

    @staticmethod
    def _heard(flow: Flow, info: SessionInfo) -> None:
        """What receivers acknowledged, by segments that passed in the kernel too."""
        acks = reversed(info.acks) if flow.server_is_a == info.server_is_a else info.acks
        for stream, safe, ack in zip(flow.streams, flow.safe, acks, strict=True):
            if stream is not None and ack is not None:
                stream.acknowledge(min(stream.offset(ack), stream.next, safe))

    def _replaced(self, flow: Flow) -> bool:
        """Whether the kernel has another session for the key by now, or none."""
        info = self._kernel.session(flow.key)
        return info is None or info.id != flow.session_id

    def _waiting_longest(self) -> Flow | None:
        """The oldest flow of which nothing was judged yet."""
        while self._undecided:
            flow = next(iter(self._undecided.values()))
            if not flow.recorded:
                return flow
            del self._undecided[flow.key]
        return None

    def _evict(self, flow: Flow) -> None:
        """Make room; what was not decided is by its rule's fail action, or by the exception."""
        self.stats.evicted += 1
        if flow.state <= PARSE:
            failed = flow.judgement.fail == Action.ALLOW
            action = Action.ALLOW if failed else self._terms.exceptions.reassembly_limit
            self._deciding.exception(flow, action, Reason.REASSEMBLY_LIMIT)
            if flow.state <= PARSE:
                self._verdicts.deny(flow, flow.judgement, Scope.CONNECTION, Reason.REASSEMBLY_LIMIT)
        self._deciding.finish(flow)
        self._drop(flow)

    def _weigh(self, flow: Flow) -> None:
        """Count what is kept, and make room when it is too much."""
        kept = flow.kept if flow.key in self._flows else 0
        self.stats.kept_bytes += kept - flow.kept_bytes
        flow.kept_bytes = kept
        if self.stats.kept_bytes > self._terms.limits.total:
            self._make_room(self._terms.limits.total * 7 // 8)

    def _make_room(self, total: int) -> None:
        """The oldest go: first of those that wait for a verdict, then of all that keep something."""
        while self.stats.kept_bytes > total and (waiting := self._waiting_longest()) is not None:
            self._evict(waiting)
        if self.stats.kept_bytes > total:
            for flow in [flow for flow in self._flows.values() if flow.kept_bytes]:
                self._evict(flow)
                if self.stats.kept_bytes <= total:
                    break

    def _drop(self, flow: Flow) -> None:
        self._holding.discard_held(flow)
        self.stats.kept_bytes -= flow.kept_bytes
        flow.kept_bytes = 0
        self._flows.pop(flow.key, None)
        self.stats.flows = len(self._flows)
        self._undecided.pop(flow.key, None)
        self._sessions.pop(flow.session_id, None)

    # -- timers ---------------------------------------------------------------------------------------------------

    def _expire(self, flow: Flow) -> None:
        now = self._holding.now
        if flow.need_until and now >= flow.need_until:
            heard, limits = flow.heard, self._terms.limits
            if flow.state == PARSE and heard - flow.need_from >= limits.need_more_progress:
                # A long statement or message on its way.
                flow.need_until, flow.need_from = now + limits.need_more, heard
            else:
                flow.need_until = flow.hold_until = 0.0
                self._deciding.need_more(flow, final=False)
        if flow.hold_until and now >= flow.hold_until:
            flow.hold_until = 0.0
            flow.forwarding = True
            self.stats.forwarded_incomplete += 1
            self._holding.settle(flow)
        if flow.gap_until and now >= flow.gap_until:
            self._give_up(flow)
        idle = self._idle(flow)
        ends = flow.last_seen + idle
        if now >= ends:
            # A connection may sleep for hours; forgotten, its next byte could not be judged.
            if flow.state >= PASS or self._replaced(flow):
                self._deciding.finish(flow)
                self._drop(flow)
                return
            ends = now + idle
        self._timers.schedule(flow, min(due for due in (flow.need_until, flow.hold_until, flow.gap_until, ends) if due))
        self._weigh(flow)

    def _give_up(self, flow: Flow) -> None:
        """Nobody fills the hole."""
        flow.gap_until = 0.0
        if not flow.held:
            return
        if flow.state <= PARSE:
            self._deciding.exception(flow, self._terms.exceptions.reassembly_limit, Reason.REASSEMBLY_LIMIT)
        elif flow.state == CONFIRM:
            # It is allowed already; TCP sends again what stands behind the hole.
            for stream in flow.streams:
                if stream is not None:
                    stream.forget_queue()
            self._holding.discard_held(flow)

    def _watch_gaps(self, flow: Flow) -> None:
        """Wait for what is missing in front of held packets; whatever comes begins the wait anew."""
        if flow.held:
            flow.gap_until = self._holding.now + self._terms.limits.gap
            self._timers.schedule(flow, flow.gap_until)
        else:
            flow.gap_until = 0.0

    # -- datagrams ------------------------------------------------------------------------------------------------

    def _datagram(self, packet: Packet) -> None:
        key, a_to_b = packet.flow
        flow = self._lookup(packet, key, self._flows.get(key))
        if flow is None or flow.state == REFUSE:
            self._holding.discard(packet)
            return
        direction = flow.direction(a_to_b)
        if flow.state == IDENTIFY:
            self._holding.hold(flow, packet, direction, 0)
            self._deciding.identify_datagram(flow, direction, packet.payload)
            self._holding.flush(flow)
        elif flow.state == PARSE:
            self._holding.hold(flow, packet, direction, 0)
            self._deciding.parse(flow, direction, packet.payload)
            self._holding.flush(flow)
            self._weigh(flow)
        else:
            self._holding.release(packet)

    # -- TCP ------------------------------------------------------------------------------------------------------

    def _tcp(self, packet: Packet) -> None:
        key, a_to_b = packet.flow
        flow = self._flows.get(key)
        if flow is not None and packet.tcp_flags & _SYN_ACK == SYN:
            direction = flow.direction(a_to_b)
            stream = flow.streams[direction]
            if direction == TO_CLIENT or stream is None or stream.start != (packet.seq + 1) & 0xFFFFFFFF:
                self._deciding.finish(flow)
                self._drop(flow)  # a verdict dies with its session
                flow = None
        if flow is None and not packet.payload:
            self._holding.release(packet)  # no byte, nothing to judge; SYN, FIN and RST are the kernel's
            return
        flow = self._lookup(packet, key, flow)
        if flow is None or flow.state == REFUSE:
            self._holding.discard(packet)
        elif flow.state == PASS:
            self._holding.release(packet)
        else:
            self._segment(flow, packet, flow.direction(a_to_b))
            if packet.payload or flow.held or flow.kept_bytes:
                self._weigh(flow)

    def _segment(self, flow: Flow, packet: Packet, direction: int) -> None:
        flags = packet.tcp_flags
        stream = flow.streams[direction] or flow.stream(direction, packet)
        if flow.midstream and self._adopt(flow, packet):
            return
        peer = flow.streams[1 - direction]
        if flags & ACK and not flags & SYN and peer is not None:
            acknowledged = peer.offset(packet.ack)
            if packet.payload and acknowledged > peer.highest + 1:
                # RFC 9293 §3.10.7.4: a segment that acknowledges what was never sent is dropped.
                self.stats.bad_ack += 1
                self._holding.discard(packet)
                return
            if acknowledged > peer.acknowledged:
                peer.acknowledge(min(acknowledged, peer.next, flow.safe[1 - direction]))
        at = stream.offset(packet.seq + (1 if flags & SYN else 0))
        if packet.payload:
            self._payload(flow, packet, direction, stream, at)
        elif flags & RST:
            self._holding.release(packet)
            if at in {stream.next, stream.highest}:
                self._deciding.finish(flow)
                self._drop(flow)
            return
        elif flags & FIN and at > flow.safe[direction]:
            if any(held.direction == direction and held.packet.tcp_flags & FIN for held in flow.held):
                self.stats.duplicates += 1
                self._holding.discard(packet)
            else:
                self._holding.hold(flow, packet, direction, at)
                if at > stream.next:
                    self._watch_gaps(flow)
        else:
            self._holding.release(packet)
        if flow.state == CONFIRM:
            self._verdicts.confirm(flow)
        self._ended(flow, packet, direction)

    def _ended(self, flow: Flow, packet: Packet, direction: int) -> None:
        """Both FINs in order: what comes behind belongs to nobody."""
        if packet.tcp_flags & FIN:
            stream = flow.streams[direction]
            end = stream.offset(packet.seq) + len(packet.payload) if stream else 0
            if stream is None or end == stream.next:
                if flow.fin[direction] is None:
                    self._deciding.eof(flow, direction)
                flow.fin[direction] = end
        if flow.fin[0] is None or flow.fin[1] is None:
            return
        if not flow.held and flow.key in self._flows:
            self._deciding.finish(flow)
            if not flow.held:
                self._drop(flow)

    def _payload(self, flow: Flow, packet: Packet, direction: int, stream: Stream, at: int) -> None:
        data = packet.payload
        end = at + len(data)
        if packet.tcp_flags & URG and packet.urgent:
            # In line or out of band is the receiver's choice: two readings of the same stream.
            self._conflict(flow, packet, direction, end)
            return
        arrival, fresh = stream.push(at, data)
        if arrival >= CONFLICT and (info := self._kernel.session(flow.key)) is not None:
            # Of what its receiver has no other reading matters: the byte of a keep-alive may be any (RFC 9293 §3.8.4).
            self._heard(flow, info)
            arrival, fresh = stream.push(at, data)
        if arrival <= AHEAD and not self._overfull(flow, packet, arrival):
            self._holding.hold(flow, packet, direction, end)
            if arrival == NEW:
                if flow.state == IDENTIFY:
                    self._deciding.identify(flow, direction, fresh)
                elif flow.state == PARSE:
                    self._deciding.parse(flow, direction, fresh)
                self._holding.settle(flow)
            if stream.queued or flow.gap_until:
                self._watch_gaps(flow)
        elif arrival == OLD:
            if end <= flow.safe[direction]:
                self._holding.release(packet)
            else:
                self.stats.duplicates += 1  # its first copy is held
                self._holding.discard(packet)
        elif arrival == CONFLICT:
            self._conflict(flow, packet, direction, end)
        elif arrival == LIMIT and flow.state == PARSE and direction == TO_CLIENT and at < stream.next:
            self._holding.release(packet)  # a late copy of what a server sent: nothing depends on it
        elif arrival == LIMIT and flow.state == CONFIRM and at > stream.next:
            self._holding.discard(packet)  # it is allowed already; TCP sends it again
        else:
            self._holding.hold(flow, packet, direction, end)
            self._deciding.exception(flow, self._terms.exceptions.reassembly_limit, Reason.REASSEMBLY_LIMIT)

    def _overfull(self, flow: Flow, packet: Packet, arrival: Arrival) -> bool:
        """Too much would be held. What is in order of a long unit need not be: its last byte is read before it goes."""
        if flow.held_bytes + len(packet.frame) <= self._terms.limits.flow_held:
            return False
        if arrival != NEW or flow.state != PARSE or flow.parser is None or flow.parser.blocked:
            return True
        flow.forwarding = True
        return False

    def _conflict(self, flow: Flow, packet: Packet, direction: int, end: int) -> None:
        if self._terms.exceptions.overlap_conflict == Action.INSPECT:
            self.stats.overlap_conflict += 1
            self._holding.discard(packet)  # the first reading stays the only one
            return
        self._holding.hold(flow, packet, direction, end)
        self._deciding.exception(flow, self._terms.exceptions.overlap_conflict, Reason.OVERLAP_CONFLICT)

    def _adopt(self, flow: Flow, packet: Packet) -> bool:
        """The start of the flow was not seen. True = done with the packet."""
        flow.midstream = False
        flow.guessed = True
        if self._terms.exceptions.midstream == Action.INSPECT:
            self.stats.midstream += 1
            return False
        self._holding.hold(flow, packet, TO_SERVER, 0)
        self._deciding.exception(flow, self._terms.exceptions.midstream, Reason.MIDSTREAM)
        return True


__all__ = ["Inspector", "Stats"]
