"""The inspector on a capture: offline, unprivileged, the capture's clock.

`replay` plays the kernel's part as far as the inspector sees it: sessions with their
initial sequence numbers, the policy's walk, and verdicts written back.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import dpkt

from fastpath.abi import Action, Reason, Verdict
from slowpath.core.fragments import Fragments
from slowpath.core.frame import ACK, SYN, TCP, UDP, FrameError, Packet, checksum_ok, flow_key, parse_frame
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
from slowpath.rules.ruleset import RuleSet


class PolicyWalk(Protocol):
    """What a policy is to the replay: fastpath's naive evaluator fits."""

    def walk(self, src: bytes, dst: bytes, l4: int, sport: int, dport: int, possible: int) -> Judgement:
        """Judge a flow that is one of `possible`; addresses are 16 bytes, client first."""


class AllowInspect:
    """No policy: every flow is identified and recorded, none is decided."""

    def walk(self, src: bytes, dst: bytes, l4: int, sport: int, dport: int, possible: int) -> Judgement:  # noqa: PLR0917
        """Inspect."""
        del src, dst, l4, sport, dport, possible
        return Judgement(Verdict.INSPECT, Reason.NO_POLICY, log="all")


class CaptureError(Exception):
    """The file is no capture that can be read."""


@dataclass(slots=True)
class _Session:
    id: int
    server_is_a: bool
    isn: list[int | None] = field(default_factory=lambda: [None, None])
    midstream: bool = False
    over: bool = False
    decided: Decide | None = None
    # By direction a to b, b to a: whether checksums mean anything. Captures with rewritten addresses have none that do.
    checksums: list[bool | None] = field(default_factory=lambda: [None, None])


class _Kernel:
    """Sessions and the policy, in place of the kernel's."""

    def __init__(self, policy: PolicyWalk) -> None:
        self._policy = policy
        self._sessions: dict[bytes, _Session] = {}
        self._next = 1

    def track(self, packet: Packet, key: bytes, a_to_b: bool) -> tuple[_Session, int | None]:
        """The packet's session, made when it is the first; and the id of one it replaces."""
        session = self._sessions.get(key)
        flags = packet.tcp_flags & (SYN | ACK) if packet.l4 == TCP else 0
        if session is not None and not (flags == SYN and session.isn[0] != packet.seq):
            if flags == SYN | ACK and session.isn[1] is None:
                session.isn[1] = packet.seq
            return session, None
        replaced = session.id if session is not None else None
        session = _Session(self._next, server_is_a=not a_to_b)
        self._next += 1
        if flags == SYN:
            session.isn[0] = packet.seq
        elif flags == SYN | ACK:
            session.server_is_a = a_to_b
            session.isn = [(packet.ack - 1) & 0xFFFFFFFF, packet.seq]
        else:
            session.midstream = packet.l4 == TCP
        self._sessions[key] = session
        return session, replaced

    def session(self, key: bytes) -> SessionInfo | None:
        """See `slowpath.core.model.Kernel`."""
        session = self._sessions.get(key)
        if session is None:
            return None
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
        a, b = (key[:16], int.from_bytes(key[32:34], "big")), (key[16:32], int.from_bytes(key[34:36], "big"))
        client, server = (b, a) if self._sessions[key].server_is_a else (a, b)
        return self._policy.walk(client[0], server[0], key[36], client[1], server[1], possible)

    def decide(self, command: Decide) -> None:
        """A verdict is written back."""
        session = self._sessions.get(command.key)
        if session is not None and session.id == command.session_id:
            session.decided = command


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
            exceptions = Exceptions(midstream=Action.INSPECT) if policy is None else Exceptions()
        self.inspector = Inspector(rules or RuleSet(), self.kernel, limits, exceptions)
        self._fragments = Fragments()
        self._last: dict[int, dict[str, Any]] = {}
        self.frames = 0
        self.not_judged: dict[str, int] = {}

    def run(self, packets: Iterable[tuple[float, bytes]]) -> Iterator[dict[str, Any]]:
        """Records of (time, Ethernet frame)."""
        now = 0.0
        for stamp, frame in packets:
            now = max(now, stamp)
            self.frames += 1
            due = self.inspector.next_timer()
            while due is not None and due <= now:
                yield from self._do(self.inspector.timers(due))
                due = self.inspector.next_timer()
            try:
                yield from self._frame(frame, now)
            except FrameError as error:
                name = error.reason.name.lower()
                self.not_judged[name] = self.not_judged.get(name, 0) + 1
        yield from self._do(self.inspector.close(now))
        yield from self._last.values()

    def _frame(self, frame: bytes, now: float) -> Iterator[dict[str, Any]]:
        packet: Packet | None = parse_frame(frame)
        if packet is not None and packet.fragment:
            packet = self._fragments.push(packet, now)
        if packet is None or packet.l4 not in {TCP, UDP} or (packet.l4 == UDP and not packet.payload):
            return
        key, a_to_b = flow_key(packet)
        session, replaced = self.kernel.track(packet, key, a_to_b)
        good = checksum_ok(packet)
        trusted = session.checksums[a_to_b]
        session.checksums[a_to_b] = good if trusted is None else trusted
        packet.bad_checksum = bool(trusted) and not good
        if replaced is not None:
            yield from self._do(self.inspector.forget(replaced))
        if session.over:
            return
        known = self.inspector.knows(key)
        yield from self._do(self.inspector.packet(packet, now))
        session.over = known and not self.inspector.knows(key)

    def _do(self, commands: list[Command]) -> Iterator[dict[str, Any]]:
        for command in commands:
            if isinstance(command, Decide):
                self.kernel.decide(command)
            elif isinstance(command, Write):
                if self._merge:
                    self._last[command.record["session"]] = command.record
                else:
                    yield command.record


def replay(path: Path, rules: RuleSet | None = None, policy: PolicyWalk | None = None) -> Iterator[dict[str, Any]]:
    """Records of a pcap or pcapng file; CaptureError when it is none."""
    with path.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as stream:
        yield from Replay(rules, policy).run(read_capture(cast("BinaryIO", stream)))


def read_capture(stream: BinaryIO) -> Iterator[tuple[float, bytes]]:
    """(time, Ethernet frame) of each packet; other link types get an Ethernet header."""
    try:
        reader = dpkt.pcap.UniversalReader(stream)
        link = _LINKS.get(reader.datalink())
        if link is None:
            raise CaptureError(f"link type {reader.datalink()} is not supported")
        for stamp, data in reader:
            frame = link(bytes(data))
            if frame is not None:
                yield float(stamp), frame
    except (dpkt.Error, EOFError, OSError, OverflowError, ValueError) as error:
        raise CaptureError(str(error) or type(error).__name__) from None


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

__all__ = ["AllowInspect", "CaptureError", "PolicyWalk", "Replay", "read_capture", "replay"]
