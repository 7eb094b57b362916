"""Commands that Redis and Memcached share, or that others may know: only the server's answer tells whose they are, and
it answers what it has done. They go on to it unless all who may be meant refuse them.
"""

from __future__ import annotations

import pytest

from fastpath.abi import Action, Protocol
from slowpath.core.model import Exceptions, Judgement
from slowpath.rules import scan
from tests.hostile.attack import Quick, judged, ruled, through
from tests.unit.slowpath.core.wire import allow, deny

RULES = ruled(
    """
name: redis
protocol: redis
rules:
  - {id: no-flush, match: {redis.command: [flushall, del, get, auth]}, action: deny}
  - {id: rest, match: {redis.command: {regex: ".*"}}, action: allow}
""",
    """
name: memcached
protocol: memcached
rules:
  - {id: no-delete, match: {memcached.command: [delete, touch]}, action: deny}
  - {id: rest, match: {memcached.command: {regex: ".*"}}, action: allow}
""",
)
PINGS = ruled("name: redis\nprotocol: redis\nrules: [{id: r, match: {redis.command: ping}, action: allow}]\n")
DENIED = [
    ("redis", b"FLUSHALL\r\n"), ("redis", b"flushall\n"), ("redis", b"DEL a b\r\n"), ("redis", b"GET k\r\n"),
    ("redis", b"SET a b\r\nFLUSHALL\r\n"), ("redis", b"AUTH x\r\n"), ("memcached", b"delete k\r\n"),
    ("memcached", b"touch k 5\r\n"), ("memcached", b"get a\r\ndelete a\r\n"), ("redis", b"get k\r\n"),
]  # fmt: skip


@pytest.mark.parametrize("step", [1, 5, 100])
@pytest.mark.parametrize(("name", "data"), DENIED)
@pytest.mark.parametrize("unknown", [allow(), deny()], ids=["unknown allowed", "unknown denied"])
def test_what_a_rule_denies_does_not_go_to_the_server(name: str, data: bytes, step: int, unknown: Judgement) -> None:
    p = Quick(judged(name) | {Protocol.UNKNOWN: unknown}, RULES)
    for at in range(0, len(data), step):
        p.client(data[at : at + step])
        p.wait(0.03)
    assert p.records[-1]["l7_rule"].startswith("no-")
    assert (p.records[-1]["verdict"], p.records[-1]["protocol"]) == ("deny", name)
    assert not through(p).endswith(data[-1:])


@pytest.mark.parametrize("data", [b"SET a b\r\n", b"ECHO x\r\n", b"get k\r\n", b"version\r\n"])
def test_what_one_of_them_allows_goes_on_and_the_answer_tells(data: bytes) -> None:
    p = Quick(judged("redis", "memcached"), RULES)
    p.client(data)
    p.wait(0.03)
    assert through(p) == data
    p.server(b"VERSION 1.6\r\n" if data == b"version\r\n" else b"END\r\n" if data == b"get k\r\n" else b"+OK\r\n")
    assert p.records[-1]["verdict"] == "allow"
    assert p.records[-1]["protocol"] == (
        "redis" if data.isupper() or b"SET" in data or b"ECHO" in data else "memcached"
    )


@pytest.mark.parametrize(("unknown", "goes"), [(allow(), True), (deny(), False)])
def test_what_may_be_unknown_is_denied_by_no_rule_of_others(unknown: Judgement, goes: bool) -> None:
    p = Quick({Protocol.UNKNOWN: unknown}, RULES)
    p.client(b"HELLO server\r\n")
    p.wait(0.03)
    assert (through(p) != b"") == goes
    p.server(b"250 hello\r\n")
    assert p.records[-1]["verdict"] == ("allow" if goes else "deny")


def test_many_commands_without_an_answer_take_bounded_time_and_memory() -> None:
    p = Quick(judged("redis"), RULES)
    for _ in range(1100):
        p.client(b"SET a b\r\n" * 7)
        p.wait(0.0005)
        assert p.inspector.stats.kept_bytes < 512 * 1024
    assert p.records[-1]["verdict"] == "deny"


def test_new_rules_are_those_of_the_next_command() -> None:
    p = Quick(judged("redis"), RULES)
    p.client(b"SET a b\r\n")
    p.inspector.reload(PINGS)
    p.client(b"ECHO x\r\n")
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "no_rule")


SHIELDED = ruled("""
name: redis
protocol: redis
rules:
  - {id: no-attack, match: {redis.keys: {pattern: waf}}, action: deny}
  - {id: rest, match: {redis.command: {regex: ".*"}}, action: allow}
""")


@pytest.mark.parametrize(
    ("action", "verdict", "reason"),
    [(Action.DENY, "deny", "pattern_budget"), (Action.ALLOW, "allow", "rule"), (Action.INSPECT, "deny", "rule")],
)
def test_patterns_that_cost_too_much_are_the_exceptions_matter(
    action: Action, verdict: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BUDGET", 0)
    monkeypatch.setattr(scan, "BUDGET_OF_BYTE", 0)
    p = Quick(judged("redis"), SHIELDED, exceptions=Exceptions(pattern_budget=action))
    p.client(b"SET union/../select b\r\n")
    p.wait(0.03)
    assert (through(p) != b"") == (verdict == "allow")
    assert p.inspector.stats.pattern_budget == 1
    p.server(b"+OK\r\n")
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == (verdict, reason)
