"""Frames by hand, a kernel to play against, and a play: packets in, commands out, records held against the schema."""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import jsonschema

from fastpath.abi import Protocol, Reason, Verdict
from slowpath.core.frame import ACK, FIN, SYN, TCP, UDP, Packet, flow_key, parse_frame
from slowpath.core.inspector import Inspector
from slowpath.core.model import Command, Decide, Discard, Exceptions, Judgement, Limits, Release, SessionInfo, Write
from slowpath.record import Record, schema
from slowpath.record.write import encode
from slowpath.rules.ruleset import RuleSet

PSH = 0x08
VALIDATOR = jsonschema.Draft202012Validator(schema(), format_checker=jsonschema.FormatChecker(("ipv4", "ipv6")))
CLIENT, SERVER = "10.0.0.1", "10.0.1.2"
CLIENT6, SERVER6 = "fd00::1", "fd01::2"


def valid(record: Record) -> Record:
    """The record as a reader sees it, after the schema had its say."""
    written: Record = json.loads(encode(record))
    VALIDATOR.validate(written)
    return written


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(src: str, dst: str, l4: int, body: bytes, *, vlan: Sequence[int] = (), fragment: int = 0) -> bytes:
    """An Ethernet frame around an IP payload."""
    a, b = ipaddress.ip_address(src), ipaddress.ip_address(dst)
    tags = b"".join(struct.pack("!HH", 0x8100, tag) for tag in vlan)
    if a.version == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 7, fragment, 64, l4, 0) + a.packed + b.packed
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        return bytes(12) + tags + b"\x08\x00" + header + body
    return (
        bytes(12) + tags + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), l4, 64) + a.packed + b.packed + body
    )


def _summed(src: str, dst: str, l4: int, segment: bytes, at: int) -> bytes:
    pseudo = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + struct.pack("!II", len(segment), l4)
    return segment[:at] + struct.pack("!H", checksum(pseudo + segment) or 0xFFFF) + segment[at + 2 :]


def tcp_frame(
    src: str, dst: str, sport: int, dport: int, seq: int, ack: int, flags: int, payload: bytes = b"",
    *, vlan: Sequence[int] = (), urgent: int = 0,
) -> bytes:  # fmt: skip
    seq, ack = seq & 0xFFFFFFFF, ack & 0xFFFFFFFF
    segment = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 64240, 0, urgent) + payload
    return ip(src, dst, TCP, _summed(src, dst, TCP, segment, 16), vlan=vlan)


def udp_frame(src: str, dst: str, sport: int, dport: int, payload: bytes) -> bytes:
    segment = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    return ip(src, dst, UDP, _summed(src, dst, UDP, segment, 6))


@dataclass
class Connection:
    """Makes the packets of one TCP connection; sequence numbers follow what was made."""

    src: str = CLIENT
    dst: str = SERVER
    sport: int = 40000
    dport: int = 80
    isn: tuple[int, int] = (0xFFFFFF00, 5000)  # the client's wraps soon
    sent: list[int] = field(default_factory=lambda: [0, 0])

    def client(self, data: bytes = b"", at: int | None = None, flags: int = ACK | PSH, urgent: int = 0) -> Packet:
        return self.segment(0, data, at, flags, urgent)

    def server(self, data: bytes = b"", at: int | None = None, flags: int = ACK | PSH) -> Packet:
        return self.segment(1, data, at, flags)

    def segment(
        self, side: int, data: bytes = b"", at: int | None = None, flags: int = ACK | PSH, urgent: int = 0
    ) -> Packet:
        if at is None:
            at = self.sent[side]
            self.sent[side] += len(data) + bool(flags & FIN)
        seq = self.isn[side] + 1 + at - bool(flags & SYN)
        ack = self.isn[1 - side] + 1 + self.sent[1 - side]
        ends = (self.src, self.dst, self.sport, self.dport)
        if side:
            ends = (self.dst, self.src, self.dport, self.sport)
        return parse_frame(tcp_frame(*ends, seq, ack, flags, data, urgent=urgent))

    @property
    def key(self) -> bytes:
        return flow_key(self.client(at=0))[0]

    @property
    def server_is_a(self) -> bool:
        return not flow_key(self.client(at=0))[1]


def allow(**changes: object) -> Judgement:
    return replace(Judgement(Verdict.ALLOW, Reason.PROTOCOL, "open", 7), **changes)  # type: ignore[arg-type]


def deny(**changes: object) -> Judgement:
    return replace(Judgement(Verdict.DENY, Reason.DEFAULT, "", 7), **changes)  # type: ignore[arg-type]


def inspect(*files: str, **changes: object) -> Judgement:
    return replace(Judgement(Verdict.INSPECT, Reason.PROTOCOL, "looked-at", 7, files), **changes)  # type: ignore[arg-type]


class Kernel:
    """Sessions, and a policy that is a judgement for each protocol: one for all of `possible`, or undecided."""

    def __init__(self, policy: Mapping[Protocol, Judgement], default: Judgement | None = None) -> None:
        self.policy = dict(policy)
        self.default = default or deny()
        self.sessions: dict[bytes, SessionInfo] = {}
        self.asked: list[int] = []

    def session(self, key: bytes) -> SessionInfo | None:
        return self.sessions.get(key)

    def judge(self, key: bytes, session_id: int, possible: int) -> Judgement:
        assert self.sessions[key].id == session_id
        self.asked.append(possible)
        found = {self.policy.get(app, self.default) for app in Protocol if possible >> app & 1}
        return found.pop() if len(found) == 1 else Judgement(Verdict.UNDECIDED, Reason.PENDING, "looked-at", 7)

    def decide(self, command: Decide) -> None:
        info = self.sessions.get(command.key)
        if info is not None and info.id == command.session_id:
            verdict = Verdict.DRAIN if command.verdict == Verdict.ALLOW else command.verdict
            self.sessions[command.key] = replace(info, judgement=replace(command.judgement, verdict=verdict))

    def open(self, connection: Connection, number: int = 1, *, midstream: bool = False) -> None:
        isn = (None, None) if midstream else connection.isn
        self.sessions[connection.key] = SessionInfo(number, connection.server_is_a, isn, midstream)


class Play:
    """An inspector, its kernel and a connection. Time is `now`; what came out is kept."""

    def __init__(
        self,
        policy: Mapping[Protocol, Judgement],
        rules: RuleSet | None = None,
        *,
        default: Judgement | None = None,
        limits: Limits | None = None,
        exceptions: Exceptions | None = None,
        connection: Connection | None = None,
    ) -> None:
        self.kernel = Kernel(policy, default)
        self.inspector = Inspector(rules or RuleSet(), self.kernel, limits, exceptions)
        self.now = 1000.0
        self.connection = connection or Connection()
        self.kernel.open(self.connection)
        self.done: list[Command] = []
        self.records: list[Record] = []

    def feed(self, packet: Packet) -> list[Command]:
        return self._did(self.inspector.packet(packet, self.now))

    def client(self, data: bytes, **more: object) -> list[str]:
        return names(self.feed(self.connection.client(data, **more)))  # type: ignore[arg-type]

    def server(self, data: bytes, **more: object) -> list[str]:
        return names(self.feed(self.connection.server(data, **more)))  # type: ignore[arg-type]

    def wait(self, seconds: float) -> list[str]:
        """Time passes; timers are served when they are due."""
        found: list[Command] = []
        until = self.now + seconds
        while (due := self.inspector.next_timer()) is not None and due <= until:
            self.now = max(self.now, due)
            found += self._did(self.inspector.timers(self.now))
        self.now = until
        return names(found)

    def forget(self, number: int = 1) -> list[str]:
        return names(self._did(self.inspector.forget(number)))

    def _did(self, commands: list[Command]) -> list[Command]:
        for command in commands:
            if isinstance(command, Decide):
                self.kernel.decide(command)
            elif isinstance(command, Write):
                self.records.append(valid(command.record))
        self.done += commands
        return commands

    @property
    def decisions(self) -> list[Decide]:
        return [command for command in self.done if isinstance(command, Decide)]

    def released(self, direction: str = "client") -> bytes:
        """Payload that went on, from one side, put in order."""
        port = self.connection.sport if direction == "client" else self.connection.dport
        parts = [
            (command.packet.seq, bytes(command.packet.payload))
            for command in self.done
            if isinstance(command, Release) and command.packet.sport == port
        ]
        return b"".join(data for _, data in parts)


def names(commands: list[Command]) -> list[str]:
    """Short forms: release 5 (bytes), discard 5, allow connection, deny request, write deny."""
    found = []
    for command in commands:
        if isinstance(command, Release):
            found.append(f"release {len(command.packet.payload)}")
        elif isinstance(command, Discard):
            found.append(f"discard {len(command.packet.payload)}")
        elif isinstance(command, Decide):
            found.append(f"{command.verdict.name.lower()} {command.scope.name.lower()}")
        elif isinstance(command, Write):
            found.append(f"write {command.record['verdict']} {command.record['reason']}")
    return found
