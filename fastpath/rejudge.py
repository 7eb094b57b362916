"""What another policy would make of live sessions: `rejudge` of bpf/lib/judge.h, touching nothing.

Sessions of which all that it looks at is the same are judged together.
"""

from __future__ import annotations

import ctypes
import heapq
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fastpath import abi
from fastpath.abi import Action, Reason, SessionFlag, Verdict
from fastpath.policy.compile import Tables
from fastpath.policy.describe import rule_id
from fastpath.policy.evaluate import Walk
from fastpath.policy.model import TCP
from fastpath.selection import Batch, RuleNames
from fastpath.word import Word

EXAMPLES = 3

_KEY = ctypes.sizeof(abi.Key)
_PORT_A, _PORT_B = abi.Key.port_a.offset, abi.Key.port_b.offset
# Behind the key's two addresses: server's port, protocol of IP, flags, application protocol, verdict word, rule's hash.
_REST = struct.Struct("!2sBBBQI")


@dataclass(frozen=True, slots=True)
class Effect:
    """A verdict; one that monitor mode does not enforce lets everything pass."""

    verdict: Verdict
    enforced: bool


@dataclass(frozen=True, slots=True)
class Alike:
    """Sessions that are judged alike. Addresses are 16 bytes, IPv4 mapped; `bytes` of both directions."""

    client: bytes
    server: bytes
    l4: int
    dport: int
    flags: int
    protocol: int
    word: int
    rule_hash: int
    sessions: int
    bytes: int


@dataclass(slots=True)
class Sum:
    """Of sessions."""

    sessions: int = 0
    bytes: int = 0

    def add(self, alike: Alike) -> None:
        """Count some more."""
        self.sessions += alike.sessions
        self.bytes += alike.bytes


@dataclass(slots=True)
class Change:
    """Sessions whose verdict changes from one to the other. `rules`: ids of the old and the new one; `examples` are the
    largest, with these ids.
    """

    sum: Sum = field(default_factory=Sum)
    rules: dict[tuple[str, str], Sum] = field(default_factory=dict)
    examples: list[tuple[Alike, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Rejudged:
    """`other_rule`: those of the unchanged that another rule decides."""

    unchanged: Sum = field(default_factory=Sum)
    other_rule: Sum = field(default_factory=Sum)
    changes: dict[tuple[Effect, Effect], Change] = field(default_factory=dict)


def tally(batches: Iterable[Batch]) -> Iterator[Alike]:
    """All sessions, those that are alike together."""
    rows: dict[bytes, int] = {}
    sessions, octets = array("Q"), array("Q")
    for batch in batches:
        keys = batch.keys
        columns = zip(
            range(0, batch.count * _KEY, _KEY), batch.l4, batch.flags, batch.protocols, batch.words, batch.rule_hashes,
            batch.both(abi.Session.bytes), strict=True,
        )  # fmt: skip
        for at, l4, flags, protocol, word, rule_hash, size in columns:
            port = at + (_PORT_A if flags & SessionFlag.SERVER_IS_A else _PORT_B)
            rest = _REST.pack(keys[port : port + 2], l4, flags, protocol, word, rule_hash)
            row = rows.setdefault(keys[at : at + 32] + rest, len(rows))
            if row == len(sessions):
                sessions.append(0)
                octets.append(0)
            sessions[row] += 1
            octets[row] += size
    for key, row in rows.items():
        port, l4, flags, protocol, word, rule_hash = _REST.unpack_from(key, 32)
        ends = (key[16:32], key[:16]) if flags & SessionFlag.SERVER_IS_A else (key[:16], key[16:32])
        dport = int.from_bytes(port, "big")
        yield Alike(*ends, l4, dport, flags, protocol, word, rule_hash, sessions[row], octets[row])


def rejudge(found: Iterable[Alike], tables: Tables, names: RuleNames, midstream: Action) -> Rejudged:
    """Of all of them; `midstream` is what the exception of that name is set to."""
    result = Rejudged()
    for alike in found:
        old = Word.unpack(alike.word)
        new = _judged(alike, old, tables, midstream)
        old_rule = names.of(alike.word >> abi.Word.RULE)
        new_rule = old_rule if new.rule is None else rule_id(tables.policy, new.rule)
        effects = (_effect(old.verdict, old.monitor), new.effect)
        if effects[0] == effects[1]:
            result.unchanged.add(alike)
            if old_rule != new_rule:
                result.other_rule.add(alike)
            continue
        change = result.changes.setdefault(effects, Change())
        change.sum.add(alike)
        change.rules.setdefault((old_rule, new_rule), Sum()).add(alike)
        change.examples.append((alike, old_rule, new_rule))
        if len(change.examples) > 100 * EXAMPLES:
            change.examples = _largest(change.examples)
    for change in result.changes.values():
        change.examples = _largest(change.examples)
    return result


@dataclass(frozen=True, slots=True)
class _Judged:
    effect: Effect
    rule: int | None  # None: the one before


def _judged(alike: Alike, old: Word, tables: Tables, midstream: Action) -> _Judged:
    kept = _effect(old.verdict, old.monitor)
    if old.reason == Reason.CLOSED:
        return _Judged(kept, None)
    # What the inspector follows may still turn into something else.
    told = alike.protocol and old.verdict != Verdict.INSPECT
    possible = 1 << alike.protocol if told else 0
    walk = tables.walk(alike.client, alike.server, alike.l4, alike.dport, possible=possible)
    if alike.flags & SessionFlag.HOST and (not walk.rule or old.reason == Reason.FAILSAFE):
        return _Judged(kept, None)
    same = walk.hash and walk.hash == alike.rule_hash
    waits = walk.verdict in {Verdict.INSPECT, Verdict.UNDECIDED}
    if same or (waits and old.verdict in {Verdict.INSPECT, Verdict.UNDECIDED}):
        return _Judged(kept, walk.rule)
    verdict = walk.verdict
    # The rule must see the beginning, which is long over.
    if waits and alike.l4 == TCP:
        verdict = Verdict.ALLOW if midstream == Action.ALLOW else Verdict.DENY
    return _Judged(_effect(verdict, _monitor(walk)), walk.rule)


def _monitor(walk: Walk) -> bool:
    return bool(walk.flags & abi.RuleFlag.MONITOR)


def _effect(verdict: Verdict, monitor: bool) -> Effect:
    return Effect(verdict, enforced=not (monitor and verdict == Verdict.DENY))


def _largest(examples: list[tuple[Alike, str, str]]) -> list[tuple[Alike, str, str]]:
    return heapq.nlargest(
        EXAMPLES, examples, key=lambda each: (each[0].bytes, each[0].sessions, each[0].client, each[0].server)
    )
