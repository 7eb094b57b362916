"""Builders of records: from the inspector's plain values, or from an event of the kernel."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fastpath import abi
from fastpath.word import Word
from slowpath.record import VERSION, Record

# Attacker-controlled text in a record; a longer one is cut and ends in the ellipsis.
MAX_TEXT = 4096
# Of a list.
MAX_ITEMS = 64

DEFAULT_RULE = "default"

# (revision, index in that revision's rules) to the rule's id.
RuleName = Callable[[int, int], str]

_L4 = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp6"}
_MAPPED = bytes(10) + b"\xff\xff"

# UNDECIDED lets the handshake pass (reason `pending`), DRAIN hands an allowed flow back to the
# kernel; a word never written means that nothing passed.
_VERDICTS = {
    abi.Verdict.NONE: "deny",
    abi.Verdict.ALLOW: "allow",
    abi.Verdict.DENY: "deny",
    abi.Verdict.INSPECT: "inspect",
    abi.Verdict.UNDECIDED: "allow",
    abi.Verdict.DRAIN: "allow",
}


def _names(kind: type[abi.Protocol | abi.Reason | abi.Scope | abi.End]) -> dict[int, str]:
    # A dict, since `member.name.lower()` costs three times as much for every record.
    return {int(member): member.name.lower() for member in kind}


# Decided by addresses and ports alone: nobody looked.
_PROTOCOLS = _names(abi.Protocol) | {int(abi.Protocol.NONE): "unknown"}
_REASONS = _names(abi.Reason)
_SCOPES = _names(abi.Scope)
_ENDS = _names(abi.End)


@dataclass(slots=True)
class Findings:
    """What the inspector found beside the verdict; what is empty is left out of the record."""

    latency: float | None = None  # seconds from the first held packet until the verdict
    fields: Mapping[str, str | int | Sequence[str]] = field(default_factory=dict)  # what rules call them: http.path
    rule_file: str | None = None
    l7_rule: str | None = None
    severity: str | None = None
    patterns: Sequence[str] = ()


def clock_offset() -> int:
    """Nanoseconds to add to CLOCK_MONOTONIC to get UTC. Take it anew now and then: the clock is set."""
    before = time.monotonic_ns()
    utc = time.time_ns()
    return utc - (before + time.monotonic_ns()) // 2


@lru_cache(maxsize=4096)
def address(packed: bytes) -> str:
    """Text of a key's 16 bytes; mapped IPv4 prints as IPv4."""
    if packed[:12] == _MAPPED:
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def l4_name(number: int) -> str:
    """tcp, udp, icmp, icmp6, else the number as text."""
    return _L4.get(number) or str(number)


def make_flow(  # noqa: PLR0917  # the 5-tuple has five
    src: str, sport: int, dst: str, dport: int, l4: str, vlan: Iterable[int] = ()
) -> Record:
    """The `flow` of a record; `src` is the side that sent the SYN, else the first packet."""
    flow: Record = {"src": src, "sport": sport, "dst": dst, "dport": dport, "l4": l4}
    if vlan and (tags := [tag & 0xFFF for tag in vlan if tag & 0xFFF]):
        flow["vlan"] = tags
    return flow


def session_flow(key: abi.Key, session: abi.Session) -> Record:
    """The `flow` of a session: its flags say which end of the key is the server."""
    a = address(bytes(key.addr_a)), socket.ntohs(key.port_a)
    b = address(bytes(key.addr_b)), socket.ntohs(key.port_b)
    client, server = (b, a) if session.flags & abi.SessionFlag.SERVER_IS_A else (a, b)
    return make_flow(*client, *server, l4_name(key.l4), session.vlan)


def verdict_record(
    *,
    ts: float,
    session: int,
    flow: Record,
    first: abi.Protocol | int,
    protocol: abi.Protocol | int,
    word: Word,
    rule: str,
    path: str,
    findings: Findings | None = None,
) -> Record:
    """A `verdict` record."""
    record = _common("verdict", ts, session, flow, first, protocol, word, rule, path)
    if findings is not None:
        if findings.latency is not None:
            record["latency"] = round(max(findings.latency, 0.0), 6)
        _add_findings(record, findings)
    return record


def end_record(
    *,
    ts: float,
    session: int,
    flow: Record,
    first: abi.Protocol | int,
    protocol: abi.Protocol | int,
    word: Word,
    rule: str,
    path: str,
    packets: tuple[int, int],
    octets: tuple[int, int],
    held: tuple[int, int],
    duration: float,
    end: abi.End | int,
    findings: Findings | None = None,
) -> Record:
    """An `end` record. Pairs are (to_server, to_client), as in `abi.Direction`; the packets that
    never left the kernel are `packets` less `held`.
    """
    record = _common("end", ts, session, flow, first, protocol, word, rule, path)
    record["packets"] = _directions(packets)
    record["bytes"] = _directions(octets)
    record["held"] = _directions(held)
    record["duration"] = round(max(duration, 0.0), 6)
    record["end"] = _ENDS[end]
    if findings is not None:
        _add_findings(record, findings)
    return record


def event_record(
    event: abi.Event,
    rule_name: RuleName,
    offset: int,
    *,
    path: str | None = None,
    findings: Findings | None = None,
) -> Record:
    """The record of a kernel event. `offset` comes from `clock_offset`; `path` is derived from the
    session unless given. A dropped packet that has no session becomes a `verdict` with session 0.
    ValueError if the event holds a value this side has no name for.
    """
    state = event.session
    word = Word.unpack(state.verdict)
    if event.kind == abi.EventKind.DROP:
        word = Word(
            verdict=abi.Verdict.DENY,
            monitor=word.monitor,
            reason=abi.Reason(event.reason),
            rule=word.rule,
            revision=word.revision,
        )
    if path is None:
        # The decision to redirect is the kernel's; whatever follows on held packets is not.
        redirect = event.kind == abi.EventKind.VERDICT and word.verdict == abi.Verdict.INSPECT
        path = "inspector" if any(state.held) and not redirect else "kernel"
    rule = rule_name(word.revision, word.rule - 1) if word.rule else DEFAULT_RULE
    # Whole microseconds: a float cannot hold today's nanoseconds, and the digits cost space.
    ts = (event.ns + offset) // 1000 / 1e6
    flow = session_flow(event.key, state)
    if event.kind != abi.EventKind.END:
        return verdict_record(
            ts=ts,
            session=state.id,
            flow=flow,
            first=state.first_protocol,
            protocol=state.protocol,
            word=word,
            rule=rule,
            path=path,
            findings=findings,
        )
    if event.end not in _ENDS:
        raise ValueError(f"{event.end} is no way to end a session")
    return end_record(
        ts=ts,
        session=state.id,
        flow=flow,
        first=state.first_protocol,
        protocol=state.protocol,
        word=word,
        rule=rule,
        path=path,
        packets=(state.packets[0], state.packets[1]),
        octets=(state.bytes[0], state.bytes[1]),
        held=(state.held[0], state.held[1]),
        duration=(event.ns - state.first_ns) / 1e9,
        end=event.end,
        findings=findings,
    )


def _common(  # noqa: PLR0917
    event: str, ts: float, session: int, flow: Record, first: int, protocol: int, word: Word, rule: str, path: str
) -> Record:
    if first not in _PROTOCOLS or protocol not in _PROTOCOLS:
        raise ValueError(f"{first}, {protocol}: no such protocol")
    return {
        "v": VERSION,
        "ts": ts,
        "event": event,
        "session": session,
        "flow": flow,
        "first": _PROTOCOLS[first],
        "protocol": _PROTOCOLS[protocol],
        "verdict": _VERDICTS[word.verdict],
        "enforced": not word.monitor,
        "scope": _SCOPES[word.scope],
        "reason": _REASONS[word.reason],
        "rule": _text(rule),
        "revision": word.revision,
        "path": path,
    }


def _add_findings(record: Record, findings: Findings) -> None:
    for name, value in findings.fields.items():
        protocol, _, own = name.partition(".")
        shown: Any = value
        if isinstance(value, str):
            shown = value if len(value) <= MAX_TEXT else _text(value)
        elif not isinstance(value, int):
            shown = [_text(each) for each in value[:MAX_ITEMS]]
        if protocol not in record:
            record[protocol] = {}
        record[protocol][own] = shown
    if findings.rule_file:
        record["rule_file"] = _text(findings.rule_file)
    if findings.l7_rule:
        record["l7_rule"] = _text(findings.l7_rule)
    if findings.severity:
        record["severity"] = findings.severity
    if findings.patterns:
        record["patterns"] = [_text(each) for each in findings.patterns[:MAX_ITEMS]]


def _directions(pair: tuple[int, int]) -> Record:
    return {"to_server": pair[abi.Direction.SERVER], "to_client": pair[abi.Direction.CLIENT]}


def _text(value: str) -> str:
    return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "\N{HORIZONTAL ELLIPSIS}"
