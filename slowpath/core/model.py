"""What the inspector is told, what it asks for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from fastpath.abi import Action, Reason, Scope, Verdict
from fastpath.abi import Protocol as App
from slowpath.core.frame import Packet
from slowpath.rules.ruleset import Outcome, RuleSet

NAMES: Final = {app.name.lower(): app for app in App}

# What TCP bytes may turn out to be before any was seen.
ANY_TCP: Final = sum(1 << app for app in App if app not in {App.NONE, App.MAX, App.ICMP, App.QUIC})
ANY_UDP: Final = 1 << App.DNS | 1 << App.UNKNOWN | 1 << App.QUIC | 1 << App.MEMCACHED


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the policy says about a flow that may be one of some protocols."""

    verdict: Verdict
    reason: Reason = Reason.POLICY
    rule: str = ""
    revision: int = 0
    rule_files: tuple[str, ...] = ()
    monitor: bool = False
    reset: bool = True
    log: str = "deny"
    word: int = 0
    fail: Action = Action.DENY  # the rule's on_inspector_down: what becomes of a flow that the inspector gives up


def under(judgement: Judgement, outcome: Outcome) -> Judgement:
    """The policy rule's attributes, but for what the rule in the file says otherwise."""
    own = outcome.attributes
    if own.reset is None and own.log is None:
        return judgement
    return replace(
        judgement,
        reset=judgement.reset if own.reset is None else own.reset,
        log=judgement.log if own.log is None else own.log.value,
    )


@dataclass(slots=True)
class SessionInfo:
    """The kernel's session of a packet. `isn` by direction, None where the SYN was not seen. `midstream`: the
    inspector can't see the flow's start, be it that its SYN was not seen or that held packets of it were
    released before (by an inspector that is gone). `acks`: the highest acknowledgment number that each
    direction's sender sent; bare acknowledgments pass in the kernel.
    """

    id: int
    server_is_a: bool
    isn: tuple[int | None, int | None] = (None, None)
    midstream: bool = False
    rule_hash: int = 0
    judgement: Judgement = field(default_factory=lambda: Judgement(Verdict.UNDECIDED, Reason.PENDING))
    acks: tuple[int | None, int | None] = (None, None)


class Kernel(Protocol):
    """Injected; synchronous."""

    def session(self, key: bytes) -> SessionInfo | None:
        """The session of a flow key, or None."""

    def judge(self, key: bytes, session_id: int, possible: int) -> Judgement:
        """Walk the policy again: the flow is one of `possible` (1 << Protocol each)."""


@dataclass(frozen=True, slots=True)
class Exceptions:
    """Design section 4. INSPECT means: go on as well as it goes (need_more and parse_error: as unknown;
    midstream: identify what comes; pattern_budget: the pattern may be there or not, which is the denial's side).
    """

    midstream: Action = Action.DENY
    need_more: Action = Action.INSPECT
    parse_error: Action = Action.DENY
    reassembly_limit: Action = Action.DENY
    overlap_conflict: Action = Action.DENY
    fragment: Action = Action.DENY
    pattern_budget: Action = Action.DENY


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the inspector."""

    hold_incomplete: float = 0.020
    need_more: float = 2.0
    # A unit of which so many bytes came meanwhile has that time again.
    need_more_progress: int = 16 * 1024
    # Identification gives up behind so many bytes of both sides, or packets with payload.
    need_more_bytes: int = 64 * 1024
    need_more_packets: int = 1024
    # An allow for good waits for the receiver's acknowledgement of the bytes that were judged: a decoy that never
    # arrives (low TTL, bad checksum) must not speak for the flow. Nothing is held meanwhile.
    confirm: bool = True
    # A hole that nobody fills; the seventh copy of a lost segment comes after 25 s.
    gap: float = 30.0
    # A connection without packets this long is forgotten if the kernel has no session of it any more.
    idle: float = 300.0
    # A decided one: the kernel's hand-over takes 100 ms at most.
    idle_decided: float = 1.0
    # A verdict that the kernel has not taken by then (the policy changed meanwhile) is asked for and sent again.
    unwritten: float = 0.050
    # Where there are more, the one that waits longest for a verdict goes.
    max_flows: int = 65_536
    # Both directions' queues with the headers of their frames.
    flow_held: int = 640 * 1024
    # All that is kept of all flows: frames, queues, histories, parsers. 100 flows at their bounds. Beyond it flows go
    # until an eighth is free, as with `max_flows`.
    total: int = 128 * 1024 * 1024
    text: int = 2048


@dataclass(slots=True)
class Terms:
    """What the inspector goes by; may be replaced while flows live."""

    rules: RuleSet
    limits: Limits
    exceptions: Exceptions


@dataclass(slots=True)
class Command:
    """Base of what the shell is to do, in order. None is frozen: that makes each three times as dear."""


@dataclass(slots=True)
class Release(Command):
    """The packet goes on."""

    packet: Packet


@dataclass(slots=True)
class Discard(Command):
    """The packet does not go on; the kernel must hear of it where it counts held packets."""

    packet: Packet


@dataclass(slots=True)
class Decide(Command):
    """Write a verdict to the session. ALLOW becomes a drain in the kernel."""

    key: bytes
    session_id: int
    verdict: Verdict
    scope: Scope
    reason: Reason
    protocol: App
    first_protocol: App
    judgement: Judgement


@dataclass(slots=True)
class Write(Command):
    """One record of the inspection log. `ts` is the inspector's `now`: the shell turns it into UTC."""

    record: dict[str, Any]
