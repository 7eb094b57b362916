"""The inspector on a capture: offline, unprivileged, the capture's clock.

`replay` plays the kernel's part as far as the inspector sees it: sessions with their
initial sequence numbers, the policy's walk, and verdicts written back.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

import dpkt

from fastpath.abi import Action, Reason, RuleFlag, Verdict
from fastpath.abi import Protocol as App
from fastpath.policy.describe import rule_id
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import Policy, Rule
from fastpath.policy.where import Context
from fastpath.word import Word
from slowpath.core.flow import flow_fields
from slowpath.core.fragments import Fragments
from slowpath.core.frame import ACK, SYN, TCP, UDP, FrameError, Packet, checksum_ok, is_reply, parse_frame
from slowpath.core.inspector import Inspector
from slowpath.core.model import (
    ANY_TCP,
    ANY_UDP,
    Command,
    Decide,
    Exceptions,
    Judgement,
    Limits,
    SessionInfo,
    Write,
)
from slowpath.record import Record
from slowpath.record.model import DEFAULT_RULE, verdict_record
from slowpath.rules.ruleset import RuleSet

# The kernel's sessions time out; those of a capture after the longest of its timeouts for what is not TCP.
SESSION_IDLE: Final = 300.0
REVISION: Final = 1
_SYN_ACK: Final = SYN | ACK
# tcpdump's MAXIMUM_SNAPLEN; a larger packet is a broken file.
MAX_PACKET: Final = 256 * 1024


class PolicyWalk(Protocol):
    """What a policy is to the replay."""

    def walk(self, src: bytes, dst: bytes, l4: int, dport: int, possible: int, *, vlan: int) -> Judgement:
        """Judge a flow that is one of `possible` (1 << Protocol each); addresses are 16 bytes, client first; `vlan`
        is the outer tag, 0 without.
        """


class AllowInspect:
    """No policy: every flow is identified and recorded, none is decided."""

    _JUDGEMENT: Final = Judgement(Verdict.INSPECT, Reason.NO_POLICY, log="all")

    def walk(self, src: bytes, dst: bytes, l4: int, dport: int, possible: int, *, vlan: int) -> Judgement:
        """Inspect."""
        del src, dst, l4, dport, possible, vlan
        return self._JUDGEMENT


class InspectAll:
    """Every flow is judged by one rule file."""

    def __init__(self, rule_file: str) -> None:
        self._judgement = Judgement(Verdict.INSPECT, Reason.POLICY, "rules", REVISION, (rule_file,), log="all")

    def walk(self, src: bytes, dst: bytes, l4: int, dport: int, possible: int, *, vlan: int) -> Judgement:
        """Inspect."""
        del src, dst, l4, dport, possible, vlan
        return self._judgement


class PolicyFile:
    """A policy, by its meaning."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def walk(self, src: bytes, dst: bytes, l4: int, dport: int, possible: int, *, vlan: int) -> Judgement:
        """See `PolicyWalk`."""
        # A capture does not say by which interfaces a flow went.
        found = evaluate(self._policy, src, dst, l4, dport, possible=possible, context=Context(vlan=vlan))
        decider = self._policy.decider(found.rule)
        rule = decider if isinstance(decider, Rule) else None
        return Judgement(
            found.verdict,
            found.reason,
            rule_id(self._policy, found.rule) if found.rule else "",
            REVISION,
            tuple(use.name for use in rule.rule_files) if rule is not None else (),
            monitor=bool(found.flags & RuleFlag.MONITOR),
            reset=bool(found.flags & RuleFlag.RESET),
            log=str(decider.log),
            word=found.word(REVISION),
            fail=Action.ALLOW if rule is not None and rule.down_allow else Action.DENY,
        )


class CaptureError(Exception):
    """The file is no capture that can be read."""


@dataclass(slots=True)
class _Session:
    id: int
    server_is_a: bool
    last: float = 0.0
    isn: list[int | None] = field(default_factory=lambda: [None, None])
    on_syn: int = 0  # bytes that came with the client's SYN
    midstream: bool = False
    vlan: int = 0
    fresh: bool = True
    over: bool = False
    decided: Decide | None = None
    info: SessionInfo | None = None  # as last told
    ends: tuple[bytes, bytes, int] | None = None  # client, server and its port, once they were asked for
    # By direction a to b, b to a: whether checksums mean anything. Captures with rewritten addresses have none that do.
    checksums: list[bool | None] = field(default_factory=lambda: [None, None])

    def answered_by(self, ack: int) -> bool:
        """RFC 9293 §3.10.7.3: what acknowledges more or less than the SYN and its bytes is not the server's."""
        return self.isn[0] is None or 0 < (ack - self.isn[0]) & 0xFFFFFFFF <= 1 + self.on_syn


class _Kernel:
    """Sessions and the policy, in place of the kernel's."""

    def __init__(self, policy: PolicyWalk) -> None:
        self._policy = policy
        self._sessions: dict[bytes, _Session] = {}
        self._next = 1
        self.now = 0.0

    def track(self, packet: Packet, key: bytes, a_to_b: bool) -> tuple[_Session, int | None]:
        """The packet's session, made when it is the first; and the id of one it replaces."""
        session = self._sessions.get(key)
        flags = packet.tcp_flags & _SYN_ACK
        if session is not None and self.now <= session.last + SESSION_IDLE:
            isn = session.isn
            if flags != SYN or isn[0] == packet.seq:
                session.last = self.now
                if flags == _SYN_ACK and isn[1] is None and session.answered_by(packet.ack):
                    isn[1] = packet.seq
                    session.info = None
                return session, None
        replaced = session.id if session is not None else None
        # Of a reply the query was sent before the capture began.
        session = _Session(self._next, server_is_a=a_to_b == is_reply(packet), last=self.now, vlan=(*packet.vlan, 0)[0])
        self._next += 1
        if flags == SYN:
            session.isn[0] = packet.seq
            session.on_syn = len(packet.payload)
        elif flags == _SYN_ACK:
            session.server_is_a = a_to_b
            session.isn = [(packet.ack - 1) & 0xFFFFFFFF, packet.seq]
        else:
            session.midstream = packet.l4 == TCP
        self._sessions[key] = session
        return session, replaced

    def session(self, key: bytes) -> SessionInfo | None:
        """See `slowpath.core.model.Kernel`."""
        session = self._sessions.get(key)
        if session is None or self.now > session.last + SESSION_IDLE:
            return None
        if session.info is None:
            session.info = self._info(key, session)
        return session.info

    def _info(self, key: bytes, session: _Session) -> SessionInfo:
        if session.decided is not None:
            decided = session.decided
            judgement = Judgement(decided.verdict, decided.reason, monitor=decided.judgement.monitor)
        else:
            judgement = self.judge(key, session.id, ANY_TCP if key[36] == TCP else ANY_UDP)
        return SessionInfo(
            session.id, session.server_is_a, (session.isn[0], session.isn[1]), session.midstream, 0, judgement
        )

    def judge(self, key: bytes, session_id: int, possible: int) -> Judgement:
        """See `slowpath.core.model.Kernel`."""
        del session_id
        session = self._sessions[key]
        if session.ends is None:
            a, b = (key[:16], key[32:34]), (key[16:32], key[34:36])
            client, server = (b, a) if session.server_is_a else (a, b)
            session.ends = client[0], server[0], int.from_bytes(server[1], "big")
        src, dst, dport = session.ends
        return self._policy.walk(src, dst, key[36], dport, possible, vlan=session.vlan)

    def decide(self, command: Decide) -> None:
        """A verdict is written back."""
        session = self._sessions.get(command.key)
        if session is not None and session.id == command.session_id:
            session.decided = command
            session.info = None


class Replay:
    """One capture through one inspector; counters stay readable."""

    def __init__(
        self,
        rules: RuleSet | None = None,
        policy: PolicyWalk | None = None,
        exceptions: Exceptions | None = None,
        limits: Limits | None = None,
    ) -> None:
        # Without a policy one record a flow: the last, which knows most.
        self._merge = policy is None
        self.kernel = _Kernel(policy or AllowInspect())
        if exceptions is None:
            # What began before the capture did is worth naming where nothing is decided.
            exceptions = Exceptions(midstream=Action.INSPECT) if policy is None else Exceptions()
        self.inspector = Inspector(rules or RuleSet(), self.kernel, limits, exceptions)
        self._fragments = Fragments()
        self._last: dict[int, Record] = {}
        self._ready: list[Record] = []
        self.frames = 0
        self.not_judged: dict[str, int] = {}

    def run(self, packets: Iterable[tuple[float, bytes]]) -> Iterator[Record]:
        """Records of (time, Ethernet frame); CaptureError of `packets` comes behind those of what was read before."""
        try:
            yield from self._packets(packets)
        except CaptureError:
            yield from self._end()
            raise
        yield from self._end()

    def _packets(self, packets: Iterable[tuple[float, bytes]]) -> Iterator[Record]:
        now = 0.0
        for stamp, frame in packets:
            self.kernel.now = now = max(now, stamp)
            self.frames += 1
            due = self.inspector.next_timer()
            while due is not None and due <= now:
                self._do(self.inspector.timers(due))
                due = self.inspector.next_timer()
            try:
                self._frame(frame, now)
            except FrameError as error:
                name = error.reason.name.lower()
                self.not_judged[name] = self.not_judged.get(name, 0) + 1
            if self._ready:
                ready, self._ready = self._ready, []
                yield from ready

    def _end(self) -> Iterator[Record]:
        self._do(self.inspector.close(self.kernel.now))
        yield from self._ready
        yield from self._last.values()

    def _frame(self, frame: bytes, now: float) -> None:
        packet = parse_frame(frame)
        if packet.place is not None:
            whole = self._fragments.push(packet, now)
            if whole is None:
                return
            packet = whole
        if packet.l4 != TCP and (packet.l4 != UDP or not packet.payload):
            return
        key, a_to_b = packet.flow
        session, replaced = self.kernel.track(packet, key, a_to_b)
        good, trusted = checksum_ok(packet), session.checksums[a_to_b]
        if trusted is None:
            session.checksums[a_to_b] = good
        elif trusted:
            packet.bad_checksum = not good
        if replaced is not None:
            self._do(self.inspector.forget(replaced))
        if session.fresh:
            session.fresh = False
            self._first(packet, key, session, now)
        if session.over:
            return
        stats = self.inspector.stats
        flows = stats.flows
        self._do(self.inspector.packet(packet, now))
        if stats.flows < flows:
            session.over = not self.inspector.knows(key)

    def _first(self, packet: Packet, key: bytes, session: _Session, now: float) -> None:
        """What the kernel decides without a look at the payload, where its rule asks for a record."""
        info = self.kernel.session(key)
        assert info is not None
        judgement = info.judgement
        logged = judgement.log == "all" or (judgement.log == "deny" and judgement.verdict == Verdict.DENY)
        if judgement.verdict in {Verdict.ALLOW, Verdict.DENY} and logged:
            self._ready.append(
                verdict_record(
                    ts=now,
                    session=session.id,
                    flow=flow_fields(key, session.server_is_a, packet.vlan),
                    first=App.NONE,
                    protocol=App.NONE,
                    word=Word.unpack(judgement.word),
                    rule=judgement.rule or DEFAULT_RULE,
                    path="kernel",
                )
            )

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Decide):
                self.kernel.decide(command)
            elif isinstance(command, Write):
                if self._merge:
                    self._last[command.record["session"]] = command.record
                else:
                    self._ready.append(command.record)


def replay(path: Path, rules: RuleSet | None = None, policy: Policy | None = None) -> Iterator[Record]:
    """Records of a pcap or pcapng file, also gzipped. Without a policy nothing is decided: one record a flow says
    what it is. CaptureError where it is no capture, or damaged, behind the records of what stands before the damage;
    OSError where it can't be read.
    """
    judged = Replay(rules, PolicyFile(policy) if policy is not None else None)
    with open_capture(path) as stream:
        yield from judged.run(read_capture(stream))


def open_capture(path: Path) -> BinaryIO:
    """The file, unpacked if it is gzipped."""
    with path.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path)) if packed else path.open("rb")


def read_capture(stream: BinaryIO) -> Iterator[tuple[float, bytes]]:
    """(time, Ethernet frame) of each packet; other link types get an Ethernet header. CaptureError."""
    try:
        magic = stream.read(4)
        stream.seek(0)
        link_type, packets = _pcap(stream) if magic in _PCAP else _pcapng(stream)
        link = _LINKS.get(link_type)
        if link is None:
            raise CaptureError(f"link type {link_type} is not supported")
        for stamp, data in packets:
            frame = link(data)
            if frame is not None:
                yield stamp, frame
    except EOFError:
        raise CaptureError("ends in the middle of a packet") from None
    except (dpkt.Error, OSError, OverflowError, ValueError, struct.error, zlib.error, IndexError) as error:
        raise CaptureError(f"damaged: {error or type(error).__name__}") from None


# First four bytes: (byte order, ticks a second); https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-05.html
_PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e6),
    b"\xa1\xb2\xc3\xd4": (">", 1e6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e9),
    b"\xa1\xb2\x3c\x4d": (">", 1e9),
}

_Packets = Iterator[tuple[float, bytes]]


class _Whole:
    """A stream whose reads are whole or end it; dpkt takes what it gets."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.name = ""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if data and len(data) < size:
            raise EOFError
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)


def _pcap(stream: BinaryIO) -> tuple[int, _Packets]:
    header = stream.read(24)
    if len(header) < 24:
        raise CaptureError("ends in the file's header")
    order, ticks = _PCAP[header[:4]]
    # The upper bits of the link type say how long a frame check sequence is.
    link_type: int = struct.unpack_from(order + "I", header, 20)[0] & 0xFFFF
    return link_type, _pcap_packets(stream, struct.Struct(order + "4I"), ticks)


def _pcap_packets(stream: BinaryIO, layout: struct.Struct, ticks: float) -> _Packets:
    number = 0
    while header := stream.read(layout.size):
        number += 1
        if len(header) < layout.size:
            raise EOFError
        seconds, fraction, size, _ = layout.unpack(header)
        if size > MAX_PACKET:
            raise CaptureError(f"damaged: packet {number} claims {size} bytes")
        data = stream.read(size)
        if len(data) < size:
            raise EOFError
        yield seconds + fraction / ticks, data


def _pcapng(stream: BinaryIO) -> tuple[int, _Packets]:
    whole = _Whole(stream)
    try:
        reader = dpkt.pcapng.Reader(whole)
    except (dpkt.Error, ValueError, EOFError, struct.error):
        raise CaptureError("not a capture (pcap or pcapng)") from None
    return reader.datalink(), ((float(stamp), bytes(data)) for stamp, data in reader)


_NO_ADDRESSES = bytes(12)


def _raw(data: bytes) -> bytes | None:
    kind = {4: b"\x08\x00", 6: b"\x86\xdd"}.get(data[0] >> 4) if data else None
    return _NO_ADDRESSES + kind + data if kind else None


def _ethernet(data: bytes) -> bytes | None:
    return data


def _null(data: bytes) -> bytes | None:
    return _raw(data[4:])


def _cooked(data: bytes) -> bytes | None:
    return _NO_ADDRESSES + data[14:16] + data[16:]


def _cooked2(data: bytes) -> bytes | None:
    return _NO_ADDRESSES + data[:2] + data[20:]


# https://www.tcpdump.org/linktypes.html
_LINKS: dict[int, Callable[[bytes], bytes | None]] = {
    0: _null,
    1: _ethernet,
    12: _raw,
    14: _raw,
    101: _raw,
    108: _null,
    113: _cooked,
    228: _raw,
    229: _raw,
    276: _cooked2,
}

__all__ = ["AllowInspect", "CaptureError", "PolicyFile", "PolicyWalk", "Replay", "read_capture", "replay"]
