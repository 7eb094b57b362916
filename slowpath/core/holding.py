"""Packets that wait, and what goes out."""

from __future__ import annotations

from bisect import bisect_left, insort

from parsers.base import TO_CLIENT, TO_SERVER
from slowpath.core.flow import IDENTIFY, PARSE, PASS, Flow, Held, place
from slowpath.core.frame import FIN, TCP, Packet
from slowpath.core.model import Command, Discard, Release, Terms
from slowpath.core.stats import Stats
from slowpath.core.timers import Timers


class Holding:
    """Holds packets and lets them go. `out` has the commands of the call at hand, in the order in which they are to be
    done; `now` is its time.
    """

    def __init__(self, terms: Terms, timers: Timers) -> None:
        self.stats = Stats()
        self.now = 0.0
        self.out: list[Command] = []
        self._terms = terms
        self._timers = timers

    def begin(self, now: float) -> None:
        """Another call."""
        self.now = now
        self.out = []

    def hold(self, flow: Flow, packet: Packet, direction: int, end: int) -> None:
        """Keep a packet of the flow; `end` is the stream offset behind it."""
        held = Held(packet, direction, end, self.now)
        if flow.held:
            insort(flow.held, held, key=place)
        else:
            flow.held.append(held)
        if flow.held_since is None:
            flow.held_since = self.now
        size = len(packet.frame)
        flow.held_bytes += size
        self.stats.held_bytes += size

    def settle(self, flow: Flow) -> None:
        """Let go what is judged, and what may go on incomplete; arm the timers of the rest."""
        if flow.state >= PASS:
            return
        # What is being identified may need either side; before its first byte, nothing waits.
        identifies = flow.state == IDENTIFY and bool(flow.buffers[TO_SERVER] or flow.buffers[TO_CLIENT])
        waits = identifies, identifies
        blocked = False
        if flow.state == PARSE and flow.parser is not None:
            waits, blocked = (flow.parser.pending(TO_SERVER), flow.parser.pending(TO_CLIENT)), flow.parser.blocked
        pending = waits[0] or waits[1]
        if blocked:
            flow.hold_until = 0.0
        elif not pending:
            flow.forwarding = False
            flow.hold_until = 0.0
        elif not flow.forwarding and not flow.hold_until:
            flow.hold_until = self.now + self._terms.limits.hold_incomplete
            self._timers.schedule(flow, flow.hold_until)
        if (pending or blocked) and not flow.need_until and not (flow.state == IDENTIFY and flow.recorded):
            flow.need_until = self.now + self._terms.limits.need_more
            flow.need_from = flow.heard
            self._timers.schedule(flow, flow.need_until)
        elif not (pending or blocked):
            flow.need_until = 0.0
        for direction, stream in enumerate(flow.streams):
            if blocked and direction == TO_SERVER:
                continue
            if stream is not None and (flow.forwarding or not waits[direction]):
                flow.safe[direction] = stream.next
        self.flush(flow)

    def flush(self, flow: Flow) -> None:
        """Release held packets in order, up to what is safe in their direction."""
        if not flow.held:
            return
        if flow.state == PASS or flow.l4 != TCP:
            going, flow.held = flow.held, []
        else:
            going = _take_safe(flow)
        for held in going:
            flow.held_bytes -= len(held.packet.frame)
            self.stats.held_bytes -= len(held.packet.frame)
            self.release(held.packet)
            if held.packet.tcp_flags & FIN:
                flow.fin[held.direction] = held.end

    def refuse(self, flow: Flow, *, reset: bool) -> None:
        """Nothing of what is held goes on, but what makes a reset."""
        # The kernel turns one packet of a denied session into resets and forwards none of it. The receiver takes
        # a reset for the very byte it waits for: the lowest that is held, of the client's if it has any.
        told = flow.held[0].packet if reset and flow.held else None
        for held in flow.held:
            if held.packet is not told:
                self.discard(held.packet)
        if told is not None:
            self.release(told)
        self._forget_held(flow)

    def discard_held(self, flow: Flow) -> None:
        """Nothing of what is held goes on."""
        for held in flow.held:
            self.discard(held.packet)
        self._forget_held(flow)

    def _forget_held(self, flow: Flow) -> None:
        self.stats.held_bytes -= flow.held_bytes
        flow.held, flow.held_bytes = [], 0

    def release(self, packet: Packet) -> None:
        """It goes on."""
        self.stats.released += 1
        self.out.append(Release(packet))

    def discard(self, packet: Packet) -> None:
        """It does not."""
        self.stats.discarded += 1
        self.out.append(Discard(packet))


def _take_safe(flow: Flow) -> list[Held]:
    """What may go on; a packet that waits behind thousands costs no more than the first."""
    held = flow.held
    if len(held) == 1:
        if held[0].end > flow.safe[held[0].direction]:
            return []
        flow.held = []
        return held
    going: list[Held] = []
    begin = 0
    for direction, safe in enumerate(flow.safe):
        end = begin
        while end < len(held) and held[end].direction == direction and held[end].end <= safe:
            end += 1
        going += held[begin:end]
        del held[begin:end]
        if begin < len(held):
            begin = bisect_left(held, TO_CLIENT, begin, key=lambda each: each.direction)
    return going
