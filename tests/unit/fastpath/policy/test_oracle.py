"""Tables and evaluator mean what the oracle says, over policies and packets that are made to tell them apart.

The same policies are tried each time; `make oracle` tries others, as many as MICROSEG_ORACLE says.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.evaluate import evaluate
from tests.oracle import Answer, Packet, draw_document, draw_packets, judge, matching
from tests.oracle.meaning import CARRIED, Document
from tests.oracle.product import answer, context, flow, load

TRIED = int(os.environ.get("MICROSEG_ORACLE", "0"))
# At least; more are drawn, as some come twice.
POLICIES, PACKETS, MATCHED_TWICE = 2_000, 50_000, 0.3


@dataclass(slots=True)
class Tally:
    """What was tried. `matched`: packets by how many rules match them in all but the application, 2 = two or more."""

    policies: set[str] = field(default_factory=set)
    matched: Counter[int] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, document: Document, judged: Mapping[Packet, Answer]) -> None:
        """One policy, unless it was here before."""
        text = json.dumps(document)
        if text in self.policies:
            return
        self.policies.add(text)
        for packet, said in judged.items():
            self.matched[len(list(islice(matching(document, packet), 2)))] += 1
            self.answers[f"{said.verdict} {said.reason}"] += 1

    @property
    def packets(self) -> int:
        return self.matched.total()

    @property
    def twice(self) -> float:
        """Share of the packets."""
        return self.matched[2] / self.packets

    def __str__(self) -> str:
        answers = ", ".join(f"{count} {said}" for said, count in self.answers.most_common())
        return f"{len(self.policies)} policies, {self.packets} packets, {self.twice:.0%} matched twice: {answers}"


@pytest.mark.timeout(0 if TRIED else 300)
def test_tables_and_evaluator_say_what_the_oracle_says(tmp_path: Path) -> None:
    tally = Tally()

    @settings(
        max_examples=TRIED or POLICIES * 11 // 10,
        derandomize=not TRIED,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.randoms(use_true_random=False))
    def agree(choose: random.Random) -> None:
        document = draw_document(choose)
        packets = draw_packets(choose, document, 30)
        note(json.dumps(document))
        policy = load(document, tmp_path)
        tables = compile_policy(policy)
        judged = {packet: judge(document, packet) for packet in packets}
        for packet, expected in judged.items():
            note(str(packet))
            src, dst, l4, dport, possible = flow(packet)
            where = context(packet)
            walk = tables.walk(src, dst, l4, dport, possible=possible, context=where)
            assert answer(policy, walk.word(1), walk.flags) == expected
            assert evaluate(policy, src, dst, l4, dport, possible=possible, context=where) == walk
        tally.add(document, judged)

    agree()
    print(tally)
    if not TRIED:
        assert len(tally.policies) >= POLICIES
        assert tally.packets >= PACKETS
        assert tally.twice >= MATCHED_TWICE


@given(st.randoms(use_true_random=False))
@settings(max_examples=200, derandomize=True, database=None, deadline=None)
def test_what_is_decided_early_stays_decided(choose: random.Random) -> None:
    document = draw_document(choose)
    for packet in draw_packets(choose, document, 10):
        early = judge(document, packet)
        for app in packet.apps or CARRIED.get(packet.proto, frozenset()):
            late = judge(document, replace(packet, apps=frozenset({app})))
            assert late.verdict != "undecided"
            # Of denials that wait, another may be the one in the end.
            assert early.verdict in {"undecided", late.verdict}
            if early.verdict in {"allow", "inspect"}:
                assert early.rule == late.rule


THREE_TIERS = yaml.safe_load("""
default: {action: deny, log: none}
mode: monitor
groups:
  web: [10.10.1.0/24, "fd10:1::/64"]
  app: 10.10.2.0/24
  database: {include: [10.10.3.0/24, "fd10:3::/64"], exclude: 10.10.3.128/25}
  tiers: [web, app, database]
  outside: {include: [0.0.0.0/0, "::/0"], exclude: [tiers, 10.10.9.0/24]}
services:
  web: {proto: tcp, ports: [80, 443]}
  names-and-ping: [{proto: [udp, tcp], ports: 53}, {proto: [icmp, icmp6]}]
rules:
  - {id: users, from: outside, to: web, service: web, app: [http, tls], action: allow, mode: enforce}
  - {id: api, from: web, to: app, proto: tcp, ports: 8080-8089, action: inspect, rules: web, on_inspector_down: allow}
  - {id: what-is-it, from: [web, app], to: database, action: inspect, log: all}
  - {id: database, from: app, to: database, proto: tcp, ports: [1-1023, 5432], app: postgres, action: allow}
  - {id: inside, from: tiers, to: tiers, service: names-and-ping, action: allow}
  - {id: no-ssh, to: tiers, proto: 6, app: ssh, action: deny}
  - {id: first, priority: 1, from: 10.10.9.66, action: deny, deny_with: drop}
""")


@pytest.mark.parametrize(
    ("packet", "verdict", "rule", "flags"),
    [
        ("192.0.2.1 10.10.1.255 6 443", "undecided pending", "users", "log_deny reset"),
        ("192.0.2.1 10.10.1.255 6 443 tls", "allow protocol", "users", "log_deny reset"),
        ("192.0.2.1 10.10.1.255 6 443 tls http", "allow policy", "users", "log_deny reset"),
        ("192.0.2.1 10.10.1.255 6 443 ssh", "deny protocol", "no-ssh", "log_deny reset monitor"),
        ("192.0.2.1 10.10.1.255 6 443 ssh rdp", "deny default", "default", "monitor"),
        ("192.0.2.1 10.10.2.0 6 443", "deny default", "default", "monitor"),
        ("10.10.3.128 10.10.1.0 6 80 http", "allow protocol", "users", "log_deny reset"),
        ("10.10.3.127 10.10.1.0 6 80 http", "deny default", "default", "monitor"),
        ("fd10:3:: fd10:1::1 17 53", "allow policy", "inside", "log_deny reset monitor"),
        ("fd10:3:: fd10:1::1 17 54", "deny default", "default", "monitor"),
        ("fd10:3:: fd10:1::1 58", "allow policy", "inside", "log_deny reset monitor"),
        ("fd10:2:: fd10:1::1 58", "deny default", "default", "monitor"),
        ("10.10.1.1 10.10.2.1 6 8089", "inspect policy", "api", "log_deny reset monitor down_allow files"),
        ("10.10.1.1 10.10.2.1 6 8090", "deny default", "default", "monitor"),
        ("10.10.2.1 10.10.3.1 6 5432", "undecided pending", "what-is-it", "log_deny log_all reset monitor identify"),
        ("10.10.2.1 10.10.3.1 6 5432 postgres", "allow protocol", "database", "log_deny reset monitor"),
        ("10.10.2.1 10.10.3.1 6 1024 postgres", "deny default", "default", "monitor"),
        ("10.10.2.1 10.10.3.1 1", "allow policy", "inside", "log_deny reset monitor"),
        ("10.10.9.66 10.10.3.1 1", "deny policy", "first", "log_deny monitor"),
    ],
)
def test_the_oracle_itself(packet: str, verdict: str, rule: str, flags: str) -> None:
    src, dst, proto, *rest = packet.split()
    dport, apps = (int(rest[0]) if rest else None), frozenset(rest[1:])
    said = judge(THREE_TIERS, Packet(src, dst, int(proto), dport, apps))
    assert (f"{said.verdict} {said.reason}", said.rule, said.flags) == (verdict, rule, frozenset(flags.split()))
