"""What another policy would make of live sessions: `rejudge` of bpf/lib/judge.h, touching nothing.

Sessions of which all that it looks at is the same are judged together.
"""

from __future__ import annotations

import ctypes
import heapq
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fastpath import abi
from fastpath.abi import Action, Reason, SessionFlag, Verdict, Zone
from fastpath.document import Network
from fastpath.policy.compiler.tables import Tables
from fastpath.policy.describe import rule_id
from fastpath.policy.evaluate import Walk
from fastpath.policy.model import ICMP, ICMP6, TCP, UDP
from fastpath.policy.where import Context
from fastpath.selection import Batch, RuleNames
from fastpath.word import Word

EXAMPLES = 3
_UNPLACED = (int(Zone.UNKNOWN), int(Zone.UNKNOWN))

_KEY = ctypes.sizeof(abi.Key)
_PORT_A, _PORT_B = abi.Key.port_a.offset, abi.Key.port_b.offset
# Behind the key's two addresses: server's port, protocol of IP, flags, application protocol, verdict word, rule's hash,
# zones of server and client, VLAN tag.
_REST = struct.Struct("!2sBBBQIBBH")


@dataclass(frozen=True, slots=True)
class Effect:
    """A verdict; one that monitor mode does not enforce lets everything pass."""

    verdict: Verdict
    enforced: bool


class Alike(NamedTuple):
    """Sessions that are judged alike. Addresses are 16 bytes, IPv4 mapped; zones are numbers of `abi.Zone`; `bytes` of
    both directions.
    """

    client: bytes
    server: bytes
    dport: int
    l4: int
    flags: int
    protocol: int
    word: int
    rule_hash: int
    to_zone: int
    from_zone: int
    vlan: int
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
    """`other_rule`: those of the unchanged that another rule decides. `unplaced`: those of all for which no policy has
    asked for zones so far, and this one does; they are judged as if they were in none.
    """

    unchanged: Sum = field(default_factory=Sum)
    other_rule: Sum = field(default_factory=Sum)
    unplaced: Sum = field(default_factory=Sum)
    changes: dict[tuple[Effect, Effect], Change] = field(default_factory=dict)


def tally(batches: Iterable[Batch], zoned_since: int = 0) -> Iterator[Alike]:
    """All sessions, those that are alike together. What sessions of revisions before `zoned_since` say of zones means
    nothing any more.
    """
    rows: dict[bytes, int] = {}
    sessions, octets = array("Q"), array("Q")
    for batch in batches:
        keys = batch.keys
        columns = zip(
            range(0, batch.count * _KEY, _KEY), batch.l4, batch.flags, batch.protocols, batch.words, batch.rule_hashes,
            batch.zones, batch.vlans, batch.both(abi.Session.bytes), strict=True,
        )  # fmt: skip
        for at, l4, flags, protocol, word, rule_hash, placed, vlan, size in columns:
            port = at + (_PORT_A if flags & SessionFlag.SERVER_IS_A else _PORT_B)
            zones = placed if word >> abi.Word.REVISION >= zoned_since else _UNPLACED
            known = flags & ~SessionFlag.LOGGED
            rest = _REST.pack(keys[port : port + 2], l4, known, protocol, word, rule_hash, *zones, vlan)
            row = rows.setdefault(keys[at : at + 32] + rest, len(rows))
            if row == len(sessions):
                sessions.append(0)
                octets.append(0)
            sessions[row] += 1
            octets[row] += size
    for key, row in rows.items():
        port, l4, flags, *said = _REST.unpack_from(key, 32)
        ends = (key[16:32], key[:16]) if flags & SessionFlag.SERVER_IS_A else (key[:16], key[16:32])
        dport = int.from_bytes(port, "big")
        yield Alike._make((*ends, dport, l4, flags, *said, sessions[row], octets[row]))


def rejudge(found: Iterable[Alike], tables: Tables, names: RuleNames, midstream: Action) -> Rejudged:
    """Of all of them; `midstream` is what the exception of that name is set to."""
    result = Rejudged()
    outcome_of = _Outcomes(tables, names, midstream)
    for alike in found:
        outcome = outcome_of(alike)
        if tables.policy.asks_for_zones and alike.to_zone == Zone.UNKNOWN:
            result.unplaced.add(alike)
        if outcome.old == outcome.new:
            result.unchanged.add(alike)
            if outcome.old_rule != outcome.new_rule:
                result.other_rule.add(alike)
            continue
        change = result.changes.setdefault((outcome.old, outcome.new), Change())
        change.sum.add(alike)
        change.rules.setdefault((outcome.old_rule, outcome.new_rule), Sum()).add(alike)
        change.examples.append((alike, outcome.old_rule, outcome.new_rule))
        if len(change.examples) > 100 * EXAMPLES:
            change.examples = _largest(change.examples)
    for change in result.changes.values():
        change.examples = _largest(change.examples)
    return result


@dataclass(frozen=True, slots=True)
class _Outcome:
    old: Effect
    new: Effect
    old_rule: str
    new_rule: str


class _Outcomes:
    """What becomes of sessions. The policy is walked once for all whose addresses and ports lie between the same edges
    of its prefixes and ranges: a million sessions may have a million clients, and few that differ to the policy.
    """

    def __init__(self, tables: Tables, names: RuleNames, midstream: Action) -> None:
        rules = tables.policy.rules
        self._tables = tables
        self._names = names
        self._midstream = midstream
        self._sources = _edges(network for rule in rules for network in rule.sources)
        self._destinations = _edges(network for rule in rules for network in rule.destinations)
        spans = (span for rule in rules for l4 in (TCP, UDP, ICMP, ICMP6) for span in rule.ports_of(l4))
        self._ports = sorted({edge for low, high in spans for edge in (low, high + 1)})
        self._known: dict[tuple[int, ...], _Outcome] = {}
        self._zones = {number: name for name, number in tables.policy.zone_numbers.items()}

    def __call__(self, alike: Alike) -> _Outcome:
        key = (
            bisect_right(self._sources, alike.client),
            bisect_right(self._destinations, alike.server),
            bisect_right(self._ports, alike.dport),
            alike.l4,
            alike.flags,
            alike.protocol,
            alike.word,
            alike.rule_hash,
            alike.to_zone,
            alike.from_zone,
            alike.vlan,
        )
        outcome = self._known.get(key)
        if outcome is None:
            outcome = self._known[key] = self._outcome(alike)
        return outcome

    def _outcome(self, alike: Alike) -> _Outcome:
        old = Word.unpack(alike.word)
        from_zone, to_zone = self._zones.get(alike.from_zone), self._zones.get(alike.to_zone)
        context = Context(from_zone, to_zone, alike.vlan)
        new = _judged(alike, context, old, self._tables, self._midstream)
        old_rule = self._names.of(alike.word >> abi.Word.RULE)
        new_rule = old_rule if new.rule is None else rule_id(self._tables.policy, new.rule)
        return _Outcome(_effect(old.verdict, old.monitor), new.effect, old_rule, new_rule)


def _edges(networks: Iterable[Network]) -> list[bytes]:
    """First addresses in and behind each network, 16 bytes, IPv4 mapped; no IPv6 network holds one of IPv4."""
    edges = {0xFFFF << 32, 0x10000 << 32}
    for network in networks:
        base = 0xFFFF << 32 if network.version == 4 else 0
        edges |= {base + int(network.network_address), base + int(network.broadcast_address) + 1}
    return [edge.to_bytes(16, "big") for edge in sorted(edges) if edge < 1 << 128]


@dataclass(frozen=True, slots=True)
class _Judged:
    effect: Effect
    rule: int | None  # None: the one before


def _judged(alike: Alike, context: Context, old: Word, tables: Tables, midstream: Action) -> _Judged:
    kept = _effect(old.verdict, old.monitor)
    if old.reason == Reason.CLOSED:
        return _Judged(kept, None)
    # What the inspector follows may still turn into something else.
    told = alike.protocol and old.verdict != Verdict.INSPECT
    possible = 1 << alike.protocol if told else 0
    walk = tables.walk(alike.client, alike.server, alike.l4, alike.dport, possible=possible, context=context)
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
