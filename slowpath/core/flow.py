"""What the inspector remembers of a flow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from fastpath.abi import Protocol, Reason, Scope, Verdict
from parsers.base import TO_CLIENT, TO_SERVER, Parser, Unit, Value
from slowpath.core.candidates import Candidates
from slowpath.core.frame import SYN, Packet
from slowpath.core.model import Judgement, SessionInfo
from slowpath.core.reassembly import Stream
from slowpath.record import Record
from slowpath.record.model import address, l4_name, make_flow


class State(IntEnum):
    """Life of a flow under inspection."""

    IDENTIFY = 0  # the protocol is not known
    PARSE = 1  # it is, and the decision depends on what is asked for
    CONFIRM = 2  # allowed; followed until the receiver has what was judged
    PASS = 3  # allowed for good, or denied in monitor mode
    REFUSE = 4  # denied


# Reading a member of an enumeration costs more than comparing it, and each packet asks.
IDENTIFY, PARSE, CONFIRM, PASS, REFUSE = State


@dataclass(slots=True, eq=False)
class Held:
    """A packet that waits."""

    packet: Packet
    direction: int
    end: int  # stream offset behind it
    since: float


def place(held: Held) -> tuple[int, int]:
    """Its order among others."""
    return held.direction, held.end


class Flow:
    """One flow under inspection."""

    __slots__ = (
        "agreed", "asked", "buffers", "candidates", "confirm", "decided_at", "decision", "fields", "fin", "first",
        "forwarding", "gap_until", "guessed", "held", "held_bytes", "held_since", "hold_until", "judgement",
        "judgements", "kept_bytes", "key", "kind", "l4", "last_seen", "midstream", "need_from", "need_until", "parser",
        "protocol", "recorded", "resting", "safe", "said", "scheduled", "server_is_a", "session_id", "state",
        "streams", "switching", "unit",
    )  # fmt: skip

    def __init__(self, key: bytes, info: SessionInfo, packet: Packet) -> None:
        self.key = key
        self.session_id = info.id
        self.server_is_a = info.server_is_a
        self.l4 = packet.l4
        self.fields = flow_fields(key, info.server_is_a, packet.vlan)
        self.judgement = info.judgement
        self.judgements: dict[Protocol, Judgement] = {}
        self.midstream = info.midstream
        self.guessed = False  # which side is the server is a guess: no SYN was seen
        self.streams: list[Stream | None] = [None if isn is None else Stream(isn + 1) for isn in info.isn]
        self.buffers = (bytearray(), bytearray())
        self.safe = [0, 0]  # every byte below is judged, or harmless and let go
        self.held: list[Held] = []  # by `place`
        self.held_bytes = 0
        self.kept_bytes = 0  # as last counted
        self.held_since: float | None = None  # when its first packet was held
        self.hold_until = 0.0
        self.need_until = 0.0
        self.need_from = 0  # bytes that both sides had said when that was set
        self.gap_until = 0.0  # until then bytes may come that are missing in front of held ones
        self.forwarding = False  # the incomplete unit has waited long enough
        self.confirm: list[int] | None = None
        self.fin: list[int | None] = [None, None]
        self.asked = 0  # how often it was to be identified
        self.first = Protocol.NONE
        self.candidates: Candidates | None = None
        self.agreed = False  # both sides went over to TLS: the next bytes must be that
        self.protocol = Protocol.NONE
        self.kind = Protocol.NONE  # of the first request: what the connection is to connection-scoped rules
        self.parser: Parser | None = None
        self.switching = False  # an upgrade is offered: allow for good only when it is declined
        self.unit: Unit | None = None  # the last one
        self.said: dict[str, Value] = {}  # what the connection says once, in any of its units
        self.recorded = False
        self.resting = False  # nothing more to be learnt or decided: watched for conflicts only
        self.decision = (Verdict.NONE, Scope.NONE, Reason.NONE)  # the last one, sent or waiting for confirmation
        self.decided_at = 0.0
        self.last_seen = 0.0
        self.scheduled = 0.0
        self.state = IDENTIFY

    @property
    def kept(self) -> int:
        """Bytes kept for the flow."""
        to_server, to_client = self.streams
        kept = self.held_bytes + len(self.buffers[0]) + len(self.buffers[1])
        if to_server is not None:
            kept += to_server.retained
        if to_client is not None:
            kept += to_client.retained
        if self.candidates is not None:
            kept += self.candidates.buffered
        return kept + self.parser.buffered if self.parser is not None else kept

    @property
    def heard(self) -> int:
        """Bytes in order that both sides have said."""
        return sum(stream.next for stream in self.streams if stream is not None)

    def direction(self, a_to_b: bool) -> int:
        """Where a packet of the flow goes."""
        return TO_SERVER if a_to_b != self.server_is_a else TO_CLIENT

    def swap(self) -> None:
        """The guess was wrong."""
        self.guessed = False
        self.server_is_a = not self.server_is_a
        self.streams.reverse()
        self.safe.reverse()
        self.fin.reverse()
        self.buffers = (self.buffers[1], self.buffers[0])
        for held in self.held:
            held.direction = 1 - held.direction
        self.held.sort(key=place)

    def stream(self, direction: int, packet: Packet) -> Stream:
        """The direction's stream; a midstream flow's begins with the first segment seen."""
        stream = self.streams[direction]
        if stream is None:
            stream = Stream(packet.seq + (1 if packet.tcp_flags & SYN else 0))
            self.streams[direction] = stream
        return stream


def flow_fields(key: bytes, server_is_a: bool, vlan: tuple[int, ...]) -> Record:
    """`flow` of the records: client first."""
    a = address(key[:16]), int.from_bytes(key[32:34], "big")
    b = address(key[16:32]), int.from_bytes(key[34:36], "big")
    client, server = (b, a) if server_is_a else (a, b)
    return make_flow(*client, *server, l4_name(key[36]), vlan)
