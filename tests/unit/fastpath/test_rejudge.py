"""Live sessions under another policy, as `rejudge` of bpf/lib/judge.h has it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fastpath import abi
from fastpath.abi import Action, Protocol, Reason, SessionFlag, Verdict, Zone
from fastpath.cli.rejudged import as_json, lines
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.compiler.tables import Tables
from fastpath.policy.model import TCP, UDP, Default, Policy, Rule
from fastpath.policy.names import write_names
from fastpath.rejudge import EXAMPLES, Effect, Rejudged, rejudge, tally
from fastpath.selection import Batch, RuleNames
from fastpath.word import Word
from tests.unit.fastpath.policy import policy_of
from tests.unit.fastpath.test_selection import entry

NEW = compile_policy(
    policy_of(
        """
default: {action: deny, mode: monitor}
rules:
  - {id: web, proto: tcp, ports: 80, action: allow}
  - {id: shut, proto: [tcp, udp], ports: 81, action: deny}
  - {id: tls, proto: tcp, ports: 443, app: tls, action: allow}
  - {id: files, proto: tcp, ports: 8080, action: inspect, rules: [web]}
  - {id: dns, proto: udp, ports: 53, app: dns, action: allow}
"""
    )
)
OLD = Policy((Rule("one", Action.ALLOW), Rule("two", Action.DENY)), Default(Action.DENY))

ALLOWED = Effect(Verdict.ALLOW, enforced=True)
DENIED = Effect(Verdict.DENY, enforced=True)
MONITORED = Effect(Verdict.DENY, enforced=False)
INSPECTED = Effect(Verdict.INSPECT, enforced=True)
UNDECIDED = Effect(Verdict.UNDECIDED, enforced=True)


@pytest.fixture
def names(tmp_path: Path) -> RuleNames:
    write_names(tmp_path, 3, OLD)
    return RuleNames(tmp_path)


def session(
    dport: int, verdict: Verdict = Verdict.ALLOW, *, reason: Reason = Reason.POLICY, rule: int = 1,
    monitor: bool = False, flags: int = 0, src: str = "10.0.0.1", sport: int = 40000,
    dst: str = "10.1.0.1", **rest: Any,
) -> tuple[bytes, Any]:  # fmt: skip
    key, made = entry(src, sport, dst, dport, **{"bytes": (60, 40)} | rest)
    made.flags |= flags
    made.verdict = Word(verdict, reason=reason, rule=rule, revision=3, monitor=monitor).pack()
    return key, made


def judged(
    names: RuleNames, *sessions: tuple[bytes, Any], tables: Tables = NEW, midstream: Action = Action.INSPECT
) -> Rejudged:
    keys, values = (b"".join(map(bytes, column)) for column in zip(*sessions, strict=True))
    return rejudge(tally([Batch(len(sessions), keys, values, names)]), tables, names, midstream)


def hash_of(rule_id: str) -> int:
    return next(rule.hash for rule in NEW.policy.rules if rule.id == rule_id)


@pytest.mark.parametrize(
    ("one", "old", "new", "rule"),
    [
        (session(81), ALLOWED, DENIED, "shut"),
        (session(81, server_is_a=True), ALLOWED, DENIED, "shut"),
        (session(81, l4=UDP), ALLOWED, DENIED, "shut"),
        (session(9), ALLOWED, MONITORED, "default"),
        (session(80, Verdict.DENY, rule=2), DENIED, ALLOWED, "web"),
        (session(80, Verdict.DENY, rule=2, monitor=True), MONITORED, ALLOWED, "web"),
        (session(81, Verdict.DENY, rule=2, monitor=True), MONITORED, DENIED, "shut"),
        (session(80, Verdict.UNDECIDED), UNDECIDED, ALLOWED, "web"),
        (session(80, Verdict.INSPECT, protocol=Protocol.HTTP), INSPECTED, ALLOWED, "web"),
        (session(443, protocol=Protocol.HTTP), ALLOWED, MONITORED, "default"),
        # The rule would have to see the beginning.
        (session(443), ALLOWED, DENIED, "tls"),
        (session(8080), ALLOWED, DENIED, "files"),
        # Datagrams are told one by one.
        (session(53, l4=UDP), ALLOWED, UNDECIDED, "dns"),
        # The gateway's own: what a rule says of it counts.
        (session(81, reason=Reason.HOST, rule=0, flags=SessionFlag.HOST), ALLOWED, DENIED, "shut"),
    ],
)
def test_changes(names: RuleNames, one: tuple[bytes, Any], old: Effect, new: Effect, rule: str) -> None:
    result = judged(names, one)
    assert list(result.changes) == [(old, new)]
    change = result.changes[old, new]
    old_rule = names.of(one[1].verdict >> abi.Word.RULE)
    assert {pair: (amount.sessions, amount.bytes) for pair, amount in change.rules.items()} == {
        (old_rule, rule): (1, 100)
    }
    assert result.unchanged.sessions == 0


@pytest.mark.parametrize(
    ("one", "other_rule"),
    [
        (session(80), True),
        (session(81, Verdict.DENY, rule=2), True),
        (session(443, protocol=Protocol.TLS), True),
        # Judged by a rule that says the same: whatever became of it stays.
        (session(8080, rule_hash=hash_of("files")), True),
        (session(8080, Verdict.DENY, reason=Reason.NO_RULE, rule_hash=hash_of("files")), True),
        # Those that wait go on waiting.
        (session(8080, Verdict.UNDECIDED), True),
        (session(443, Verdict.INSPECT), True),
        # What the inspector follows is not told for good.
        (session(443, Verdict.INSPECT, protocol=Protocol.HTTP), True),
        # Closed by the operator, the gateway's own, a failsafe port.
        (session(80, Verdict.DENY, reason=Reason.CLOSED), False),
        (session(9, reason=Reason.HOST, rule=0, flags=SessionFlag.HOST), False),
        (session(81, reason=Reason.FAILSAFE, rule=0, flags=SessionFlag.HOST), False),
        (session(9, Verdict.DENY, reason=Reason.DEFAULT, rule=0, monitor=True), False),
    ],
)
def test_what_stays(names: RuleNames, one: tuple[bytes, Any], other_rule: bool) -> None:
    result = judged(names, one)
    assert result.changes == {}
    assert (result.unchanged.sessions, result.other_rule.sessions) == (1, other_rule)


def test_midstream_may_be_allowed(names: RuleNames) -> None:
    assert judged(names, session(443), midstream=Action.ALLOW).changes == {}


def test_sessions_that_are_alike_are_judged_together(names: RuleNames) -> None:
    sessions = [session(81, sport=port) for port in range(1000, 1010)]
    sessions += [session(81, src=f"10.0.1.{n}", l4=UDP, bytes=(n, 0)) for n in range(EXAMPLES + 2)]
    sessions.append(session(80))
    result = judged(names, *sessions)
    told = as_json(result)
    assert told["live"] == len(sessions)
    (change,) = told["changes"]
    assert (change["sessions"], change["rules"]) == (
        10 + EXAMPLES + 2,
        [{"old": "one", "new": "shut", "sessions": 10 + EXAMPLES + 2, "bytes": 1010}],
    )
    assert change["examples"][0] == {
        "from": "10.0.0.1", "to": "10.1.0.1", "proto": "tcp", "port": 81, "type": None, "app": None, "sessions": 10,
        "bytes": 1000,
        "old": "one", "new": "shut",
    }  # fmt: skip
    assert [each["from"] for each in change["examples"][1:]] == ["10.0.1.4", "10.0.1.3"]


def test_examples_are_the_largest_of_many(names: RuleNames) -> None:
    many = [session(81, src=f"10.0.{n >> 8}.{n & 255}", bytes=((n * 7919) % 1000, 0)) for n in range(1000)]
    (change,) = as_json(judged(names, *many))["changes"]
    assert [each["bytes"] for each in change["examples"]] == [999, 998, 997]


def test_for_people(names: RuleNames) -> None:
    result = judged(names, session(81, sport=1), session(81, sport=2), session(9, l4=UDP), session(80))
    assert list(lines(as_json(result))) == [
        "sessions: 4 live, 1 keep their verdict (1 of them by another rule)",
        "  allow -> deny: 2 sessions, 200 bytes",
        "    by one -> shut: 2 sessions, 200 bytes",
        "    such as 10.0.0.1 > 10.1.0.1 tcp port 81: 2 sessions, 200 bytes",
        "  allow -> deny (monitor: not enforced): 1 session, 100 bytes",
        "    by one -> default: 1 session, 100 bytes",
        "    such as 10.0.0.1 > 10.1.0.1 udp port 9: 1 session, 100 bytes",
    ]


EDGES = """
default: deny
rules:
  - {id: a, from: 10.0.0.0/30, to: [10.1.0.0/31, 10.1.0.4], proto: tcp, ports: [80-82, 443], action: allow}
  - {id: b, from: [10.0.0.2/31, 10.0.0.8], proto: [tcp, udp], ports: 81, action: deny, mode: monitor}
  - {id: c, from: "::/0", to: "fd00::/127", action: allow}
  - {id: d, to: 10.1.0.1, proto: udp, action: allow}
  - {id: e, from: 0.0.0.0/0, proto: icmp, action: allow}
  - {id: f, from: "fd00::/127", to: "fd00::2", proto: tcp, ports: 0-79, action: allow}
"""
V4 = [f"10.{net}.0.{host}" for net in (0, 1) for host in range(10)]
V6 = ["::", "fd00::", "fd00::1", "fd00::2", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]


@pytest.mark.parametrize("hosts", [V4, V6], ids=["v4", "v6"])
def test_sessions_between_the_same_edges_are_judged_alike(names: RuleNames, hosts: list[str]) -> None:
    tables = compile_policy(policy_of(EDGES))
    sessions = [
        session(port, src=src, dst=dst, l4=l4)
        for src in hosts
        for dst in hosts
        for l4, ports in ((TCP, (79, 80, 81, 82, 83, 443, 444)), (UDP, (80, 81, 82)), (1, (0,)))
        for port in ports
    ]
    alone: Counter[tuple[Any, ...]] = Counter()
    for one in sessions:
        for effects, change in judged(names, one, tables=tables).changes.items():
            (pair,) = change.rules
            alone[*effects, *pair] += 1
    together = judged(names, *sessions, tables=tables)
    assert alone
    assert alone == {
        (*effects, *pair): amount.sessions
        for effects, change in together.changes.items()
        for pair, amount in change.rules.items()
    }


ZONED = """
defaults: [{from_zone: dmz, to_zone: lan, action: allow}]
rules:
  - {id: guests, from_zone: lan, to_zone: host, action: deny}
  - {id: tagged, proto: tcp, ports: 81, vlan: 100-199, action: deny}
  - {id: lan, proto: tcp, from_zone: lan, action: allow}
"""


def test_a_session_is_judged_by_where_its_packets_were_seen_to_go(names: RuleNames) -> None:
    lan, dmz = Zone.FIRST, Zone.FIRST + 1
    tables = compile_policy(policy_of(ZONED, zones=("lan", "dmz")))

    def rule_for(dport: int, *, to_zone: int, from_zone: int, vlan: int = 0) -> str:
        found = session(dport, Verdict.INSPECT, zones=(to_zone, from_zone), vlan=(vlan, 0))
        result = judged(names, found, tables=tables)
        assert not result.unplaced.sessions
        [change] = result.changes.values()
        [(_, rule)] = change.rules
        return rule

    assert rule_for(80, to_zone=Zone.HOST, from_zone=lan) == "guests"
    assert rule_for(80, to_zone=dmz, from_zone=lan) == "lan"
    assert rule_for(80, to_zone=lan, from_zone=dmz) == "default:dmz>lan"
    assert rule_for(80, to_zone=dmz, from_zone=Zone.NONE) == "default"
    assert rule_for(81, to_zone=dmz, from_zone=lan, vlan=199) == "tagged"
    assert rule_for(81, to_zone=dmz, from_zone=lan, vlan=200) == "lan"


def test_where_nobody_looked_up_the_zones_it_says_so(names: RuleNames) -> None:
    tables = compile_policy(policy_of(ZONED, zones=("lan", "dmz")))
    result = judged(names, session(80, zones=(0, 0)), session(80, zones=(4, 3), sport=40001), tables=tables)
    assert result.unplaced.sessions == 1
    assert not judged(names, session(80, zones=(0, 0))).unplaced.sessions
    keys, values = map(bytes, session(80, zones=(4, 3)))
    [alike] = tally([Batch(1, keys, values, names)], zoned_since=4)
    assert (alike.to_zone, alike.from_zone) == (Zone.UNKNOWN, Zone.UNKNOWN)
