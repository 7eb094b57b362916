"""Two TCP endpoints after RFC 9293 and the network around a middle, for random walks.

An endpoint keeps the variables of 3.3.1 and does what 3.10 says a stack does, with the challenge ACKs of RFC 5961.
Numbers are unbounded here and wrap on the wire only. A walk decides what an application, a timer or the network does
next; packets come out in the order in which the middle sees them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from bench.testrun import checksum
from tests.bpf.harness import CLIENT, GATEWAY_MAC, SENDER_MAC, SERVER

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MASK = 0xFFFFFFFF
# What one frame carries at most: a test run's frame is one page.
SEGMENT = 3000
# How many later packets may overtake one.
OVERTAKEN = 3

CLOSING = {"FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT"}
SYNCHRONIZED = {"SYN_RECEIVED", "ESTABLISHED", *CLOSING}


@dataclass
class Segment:
    """One segment of a side; `window` as it stands in the header, `scale` if the option is there."""

    back: bool
    flags: int
    seq: int
    ack: int
    window: int
    size: int = 0
    scale: int | None = None
    overtaken: int = 0

    @property
    def end(self) -> int:
        """Behind its last number."""
        return self.seq + self.size + bool(self.flags & SYN) + bool(self.flags & FIN)

    def __str__(self) -> str:
        names = [name for bit, name in ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (ACK, "ACK")) if self.flags & bit]
        scale = "" if self.scale is None else f" ws={self.scale}"
        arrow = "<" if self.back else ">"
        return f"{arrow} {','.join(names)} seq={self.seq} ack={self.ack} len={self.size} win={self.window}{scale}"

    def frame(self, version: int, ports: tuple[int, int]) -> bytes:
        """On the wire."""
        options = b"" if self.scale is None else bytes([3, 3, self.scale, 0])
        source, target = (SERVER, CLIENT) if self.back else (CLIENT, SERVER)
        sport, dport = reversed(ports) if self.back else ports
        offset = (20 + len(options)) << 2
        fields = (sport, dport, self.seq & MASK, self.ack & MASK, offset, self.flags, self.window, 0, 0)
        tcp = struct.pack(">HHIIBBHHH", *fields) + options + bytes(self.size)
        ends = ip_address(source[version]).packed + ip_address(target[version]).packed
        tcp = tcp[:16] + checksum(ends + struct.pack(">II", len(tcp), 6) + tcp) + tcp[18:]
        macs = bytes.fromhex((GATEWAY_MAC + SENDER_MAC).replace(":", ""))
        if version == 4:
            head = struct.pack(">BBHHHBB2x", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6) + ends
            return macs + b"\x08\x00" + head[:10] + checksum(head) + head[12:] + tcp
        return macs + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64) + ends + tcp


@dataclass
class Endpoint:
    """One side. `offered` is the window scale in its SYN; `buffer` what it has room for, in bytes."""

    back: bool
    iss: int
    state: str
    buffer: int
    offered: int | None
    out: list[Segment] = field(default_factory=list)
    una: int = 0
    nxt: int = 0
    edge: int = 0
    updated: tuple[int, int] = (0, 0)
    peer_scale: int | None = None
    irs: int = 0
    rcv: int = 0
    unread: int = 0
    early: list[tuple[int, int]] = field(default_factory=list)
    fin: int | None = None
    peer_fin: int | None = None
    reset: bool = False
    # Its SYN has passed the middle, which cannot place what comes before that.
    introduced: bool = False

    # --- what it says ---

    @property
    def room(self) -> int:
        """Its receive window in bytes."""
        return max(0, self.buffer - self.unread)

    def emit(self, flags: int, seq: int, size: int = 0) -> None:
        """Send one segment from the connection's state."""
        ack = self.rcv if flags & ACK else 0
        if flags & SYN:
            scale = self.offered if not flags & ACK or self.peer_scale is not None else None
            self.out.append(Segment(self.back, flags, seq, ack, min(self.room, 65535), size, scale))
            return
        shift = self.offered if self.offered is not None and self.peer_scale is not None else 0
        self.out.append(Segment(self.back, flags, seq, ack, min(self.room >> shift, 65535), size))

    def open(self) -> None:
        """Active OPEN (3.10.1)."""
        self.state, self.una, self.nxt = "SYN_SENT", self.iss, self.iss + 1
        self.emit(SYN, self.iss)

    def write(self, wanted: int) -> None:
        """SEND, as much as the window takes. Of more than a segment only the last one gets to the middle."""
        if self.state not in {"ESTABLISHED", "CLOSE_WAIT"}:
            return
        size = min(wanted, self.edge - self.nxt)
        if size > 0:
            last = min(size, SEGMENT)
            self.nxt += size
            self.emit(ACK | PSH, self.nxt - last, last)

    def probe(self) -> None:
        """A byte into a closed window (3.8.6.1), or a keep-alive (3.8.4) with a byte or without."""
        if self.state not in {"ESTABLISHED", "CLOSE_WAIT"} or self.una != self.nxt:
            return
        if self.edge == self.nxt:
            self.nxt += 1
            self.emit(ACK, self.nxt - 1, 1)
        else:
            self.emit(ACK, self.nxt - 1, (self.nxt ^ self.edge) & 1)

    def acknowledge(self) -> None:
        """An ACK by itself, asked for or not."""
        if self.state in SYNCHRONIZED - {"SYN_RECEIVED", "TIME_WAIT"}:
            self.emit(ACK, self.nxt)

    def close(self) -> None:
        """CLOSE (3.10.4)."""
        following = {"SYN_RECEIVED": "FIN_WAIT_1", "ESTABLISHED": "FIN_WAIT_1", "CLOSE_WAIT": "LAST_ACK"}
        if self.state in following and self.introduced and self.nxt <= self.edge:
            self.state = following[self.state]
            self.fin, self.nxt = self.nxt, self.nxt + 1
            self.emit(ACK | FIN, self.fin)

    def abort(self, *, bare: bool) -> None:
        """ABORT (3.10.5)."""
        if self.state in {"SYN_RECEIVED", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT"} and self.introduced:
            # Behind a byte sent into a closed window it would be ignored (RFC 5961 3.2): at most at its edge.
            self.emit(RST if bare else RST | ACK, min(self.nxt, max(self.edge, self.una)))
            self.end()

    def end(self) -> None:
        """The connection was reset."""
        self.state, self.reset = "CLOSED", True

    def retransmit(self) -> None:
        """The retransmission timer went off (3.8.1)."""
        if self.state == "SYN_SENT":
            self.emit(SYN, self.iss)
        elif self.state in SYNCHRONIZED and self.una == self.iss:
            # An unacknowledged SYN goes first, also when the FIN is out.
            self.emit(SYN | ACK, self.iss)
        elif self.state in SYNCHRONIZED and self.una < self.nxt:
            behind = self.nxt if self.fin is None else self.fin
            size = min(behind - self.una, SEGMENT)
            whole = self.fin is not None and self.una + size == self.fin
            self.emit(ACK | FIN if whole else ACK, self.una, size)

    # --- what it hears (3.10.7) ---

    def receive(self, segment: Segment) -> None:
        """A segment arrives."""
        if self.state == "CLOSED":
            self.refuse(segment)
        elif self.state == "LISTEN":
            self.listen(segment)
        elif self.state == "SYN_SENT":
            self.opening(segment)
        else:
            self.synchronized(segment)

    def refuse(self, segment: Segment) -> None:
        """3.10.7.1."""
        if segment.flags & RST:
            return
        if segment.flags & ACK:
            self.out.append(Segment(self.back, RST, segment.ack, 0, 0))
        else:
            self.out.append(Segment(self.back, RST | ACK, 0, segment.end, 0))

    def listen(self, segment: Segment) -> None:
        """3.10.7.2."""
        if segment.flags & RST:
            return
        if segment.flags & ACK:
            self.refuse(segment)
        elif segment.flags & SYN:
            self.meet(segment)
            self.state, self.una, self.nxt = "SYN_RECEIVED", self.iss, self.iss + 1
            self.emit(SYN | ACK, self.iss)

    def meet(self, segment: Segment) -> None:
        """Take over what the peer's SYN says."""
        self.irs, self.rcv = segment.seq, segment.seq + 1
        self.peer_scale = segment.scale if self.offered is not None else None
        if self.peer_scale is None:
            self.offered = None
        self.edge = self.iss + 1 + segment.window
        self.updated = (segment.seq, segment.ack)

    def opening(self, segment: Segment) -> None:
        """3.10.7.3."""
        acceptable = segment.flags & ACK and segment.ack == self.nxt
        if segment.flags & ACK and not acceptable:
            if not segment.flags & RST:
                self.out.append(Segment(self.back, RST, segment.ack, 0, 0))
            return
        if segment.flags & RST:
            if acceptable:
                self.end()
        elif segment.flags & SYN:
            self.meet(segment)
            if acceptable:
                self.una, self.state = segment.ack, "ESTABLISHED"
                self.emit(ACK, self.nxt)
            else:
                self.state = "SYN_RECEIVED"
                self.emit(SYN | ACK, self.iss)

    def synchronized(self, segment: Segment) -> None:
        """3.10.7.4."""
        room = self.room
        crossing = segment.flags & SYN and segment.seq == self.irs and self.una == self.iss
        if crossing and not segment.flags & ACK:
            # The peer has not got our SYN and ACK.
            self.emit(SYN | ACK, self.iss)
            return
        if segment.flags & RST:
            if segment.seq == self.rcv:
                self.end()
            elif self.rcv < segment.seq < self.rcv + room:
                self.emit(ACK, self.nxt)
            return
        inside = (
            self.rcv <= segment.seq < self.rcv + max(room, 1) or self.rcv < segment.end <= self.rcv + room
        ) or segment.seq <= self.rcv <= segment.end
        if not crossing and (not inside or segment.flags & SYN):
            self.emit(ACK, self.nxt)
            return
        if not segment.flags & ACK:
            return
        if segment.ack > self.nxt:
            self.emit(ACK, self.nxt)
            return
        self.acknowledged(segment)
        if self.state in {"CLOSED", "SYN_RECEIVED"}:
            return
        self.take(segment, room)

    def acknowledged(self, segment: Segment) -> None:
        """The acknowledgment and the window of a segment."""
        if segment.ack < self.una:
            return
        self.una = segment.ack
        if (segment.seq, segment.ack) >= self.updated:
            shift = 0 if segment.flags & SYN or self.peer_scale is None else min(self.peer_scale, 14)
            self.edge, self.updated = segment.ack + (segment.window << shift), (segment.seq, segment.ack)
        if self.state == "SYN_RECEIVED" and self.una > self.iss:
            self.state = "ESTABLISHED"
        if self.fin is not None and self.una > self.fin:
            following = {"FIN_WAIT_1": "FIN_WAIT_2", "CLOSING": "TIME_WAIT", "LAST_ACK": "CLOSED"}
            self.state = following.get(self.state, self.state)

    def take(self, segment: Segment, room: int) -> None:
        """The payload and the FIN of a segment."""
        first, behind = max(segment.seq, self.rcv), min(segment.seq + segment.size, self.rcv + room)
        if segment.flags & SYN:
            return
        if segment.flags & FIN and segment.seq + segment.size <= self.rcv + room:
            self.peer_fin = segment.seq + segment.size
        if behind > first and self.peer_fin != self.rcv - 1:
            self.early = sorted([*self.early, (first, behind)])
        before = self.rcv
        while self.early and self.early[0][0] <= self.rcv:
            self.rcv = max(self.rcv, self.early.pop(0)[1])
        self.unread += self.rcv - before
        if self.peer_fin == self.rcv:
            self.rcv += 1
            following = {"ESTABLISHED": "CLOSE_WAIT", "FIN_WAIT_1": "CLOSING", "FIN_WAIT_2": "TIME_WAIT"}
            self.state = following.get(self.state, self.state)
            self.emit(ACK, self.nxt)
        elif segment.flags & FIN or (segment.size and self.early):
            self.emit(ACK, self.nxt)


class Network:
    """Both endpoints and what is under way: `before` the middle, and `behind` it."""

    def __init__(self, ends: tuple[Endpoint, Endpoint], middle: Callable[[Segment], bool]) -> None:
        self.ends = ends
        self.middle = middle
        self.before: tuple[list[Segment], list[Segment]] = ([], [])
        self.behind: tuple[list[Segment], list[Segment]] = ([], [])
        self.seen: list[Segment] = []

    def collect(self) -> None:
        """What the endpoints said is under way."""
        for side, end in enumerate(self.ends):
            self.before[side].extend(end.out)
            end.out.clear()

    def pick(self, queue: list[Segment], index: int) -> Segment | None:
        """The next packet, or one behind it that overtakes."""
        if not queue:
            return None
        index %= min(len(queue), OVERTAKEN)
        if any(one.overtaken >= OVERTAKEN for one in queue[:index]):
            index = 0
        for one in queue[:index]:
            one.overtaken += 1
        return queue.pop(index)

    def enter(self, side: int, index: int = 0) -> None:
        """One packet reaches the middle, and goes on if that lets it."""
        segment = self.pick(self.before[side], index)
        if segment:
            self.seen.append(segment)
            self.ends[side].introduced |= bool(segment.flags & SYN)
            if self.middle(segment):
                segment.overtaken = 0
                self.behind[side].append(segment)

    def arrive(self, side: int, index: int = 0) -> None:
        """One packet of `side` reaches the other endpoint."""
        segment = self.pick(self.behind[side], index)
        if segment:
            self.ends[1 - side].receive(segment)
            self.collect()

    def settle(self) -> None:
        """Nothing is lost any more and all timers go off, until nothing changes."""
        for _ in range(100):
            for end in self.ends:
                end.unread, end.buffer = 0, 1 << 20
                end.retransmit()
                end.acknowledge()
            self.collect()
            before = [(end.state, end.una, end.nxt, end.rcv) for end in self.ends]
            for _ in range(100):
                for side in (0, 1):
                    self.enter(side)
                    self.arrive(side)
                if not any((*self.before, *self.behind)):
                    break
            else:
                raise AssertionError("the endpoints go on answering each other")
            if before == [(end.state, end.una, end.nxt, end.rcv) for end in self.ends]:
                return
        raise AssertionError("the endpoints do not come to rest")
