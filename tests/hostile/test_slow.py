"""Slow headers, bodies, hellos and logins, many at once. What is begun and not completed is held 20 ms, goes on under
inspection, and is denied after two seconds; what is read needs no hurry, and keeps no bytes.
"""

from __future__ import annotations

import pytest

from parsers.base import TO_SERVER
from slowpath.core.model import Limits
from tests.contract.conversations import mysql
from tests.data import recorded
from tests.hostile.attack import Quick, judged, rule_files, through, unit_by_unit
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.wire import Connection

HEAD = b"POST /ok HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
(_, GREETING), (_, LOGIN), *_ = mysql.CONVERSATIONS[0].parts
HELLO = next(data for direction, data in recorded("tls")["openssl 1.3"] if direction == TO_SERVER)

# By protocol: what came before at once, and what then comes a byte at a time.
BEGUN: dict[str, tuple[str, list[tuple[int, bytes]], bytes]] = {
    "HTTP/1 head": ("http", [], HEAD),
    "HTTP/1 second head": ("http", [(0, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (1, OK)], HEAD),
    "HTTP/2 preface": ("http2", [], h2.START),
    "HTTP/2 headers": ("http2", [(0, h2.START), (1, h2.settings())], h2.Sender().request(1)),
    "TLS hello": ("tls", [], HELLO),
    "MySQL login": ("mysql", [(1, GREETING)], LOGIN),
    "PostgreSQL startup": ("postgres", [], b"\0\0\0\x20\0\3\0\0user\0app\0database\0app\0\0\0"),
    "SMTP line": ("smtp", [(1, b"220 mx ESMTP\r\n")], b"EHLO a.example.with.a.long.name.org\r\n"),
    "Redis command": ("redis", [], b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$9\r\nsomething\r\n"),
    "MQTT connect": ("mqtt", [], b"\x10\x20\0\4MQTT\4\2\0\x3c\0\x14an-identifier-of-20b"),
    "DNS over TCP": ("dns", [], b"\0\x1d\x12\x34\x01\0\0\1\0\0\0\0\0\0\3www\7example\0\0\1\0\1"),
}  # fmt: skip


def play(name: str) -> Quick:
    return Quick(judged(name), rule_files(unit_by_unit(name)))


@pytest.mark.parametrize("name", BEGUN)
def test_a_byte_every_ten_seconds(name: str) -> None:
    protocol, before, slow = BEGUN[name]
    p = play(protocol)
    for side, data in before:
        p.feed(p.connection.segment(side, data))
    already = len(through(p))
    for sent, byte in enumerate(slow, 1):
        p.client(bytes((byte,)))
        p.wait(1.9)
        if not [record for record in p.records if record["verdict"] == "deny"]:
            assert len(through(p)) == already + sent, "what is incomplete is not held for long"
        assert p.inspector.stats.held_bytes == 0 or p.decisions
        p.wait(8.1)
    assert [(d.verdict.name, d.reason.name) for d in p.decisions] == [("DENY", "NEED_MORE")]
    assert len(through(p)) < already + len(slow), "not all of it"
    assert p.inspector.stats.held_bytes == p.inspector.stats.kept_bytes == 0


@pytest.mark.parametrize("name", BEGUN)
def test_many_at_once_keep_little(name: str) -> None:
    protocol, before, slow = BEGUN[name]
    p = play(protocol)
    connections = [Connection(sport=10_000 + number) for number in range(200)]
    for number, c in enumerate(connections):
        p.kernel.open(c, 100 + number)
        for side, data in before:
            p.feed(c.segment(side, data))
    for byte in slow[:-1][:12]:
        for c in connections:
            p.feed(c.client(bytes((byte,))))
        p.wait(0.15)
        assert p.inspector.stats.held_bytes == 0
        assert p.inspector.stats.kept_bytes < 400 * (len(slow) + sum(len(data) for _, data in before) + 40)
    p.wait(2.0)
    assert {d.reason.name for d in p.decisions} == {"NEED_MORE"}
    assert len(p.decisions) == len(connections)
    assert p.inspector.stats.kept_bytes == 0
    # A thousand seconds later nothing is left of them.
    p.kernel.sessions.clear()
    p.wait(1000)
    assert p.inspector.stats.flows == 0
    assert len(p.inspector._timers) < 100


@pytest.mark.parametrize("size", [1, 100])
def test_slow_bodies_are_nobodys_business(size: int) -> None:
    p = play("http")
    p.client(HEAD)
    for _ in range(200):
        p.client(b"x" * size)
        p.wait(10)
        assert p.inspector.stats.held_bytes == 0
    assert [record["verdict"] for record in p.records] == ["allow"]
    assert len(through(p)) == len(HEAD) + 200 * size
    # What was sent and not acknowledged is kept to compare, and no more.
    assert p.inspector.stats.kept_bytes <= len(HEAD) + 200 * size + 1024


def test_more_slow_flows_than_are_followed() -> None:
    limits = Limits(max_flows=50)
    p = Quick(judged("http"), rule_files(unit_by_unit("http")), limits=limits)
    for number in range(300):
        c = Connection(sport=10_000 + number)
        p.kernel.open(c, 100 + number)
        p.feed(c.client(HEAD[:20]))
        p.wait(0.001)
        assert p.inspector.stats.flows <= 50
    assert {d.reason.name for d in p.decisions} == {"REASSEMBLY_LIMIT"}
    assert len(p.decisions) == 250
    for number in range(300):
        assert HEAD not in through(p, connection=Connection(sport=10_000 + number))


@pytest.mark.parametrize("window", [1, 3, 9])
def test_a_small_window_stops_nobody(window: int) -> None:
    """The receiver takes so many bytes at a time: what is held must go on before more can come."""
    p = play("http")
    data = b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"
    for at in range(0, len(data), window):
        p.client(data[at : at + window])
        p.wait(0.021)
        assert through(p) == data[: at + window]
    assert [record["verdict"] for record in p.records] == ["allow"]


def test_a_long_statement_that_keeps_coming_has_the_time_it_takes() -> None:
    """A megabyte in ten seconds, and then the same that stops half-way."""
    p = play("mysql")
    for side, data in mysql.CONVERSATIONS[0].parts[:3]:
        p.feed(p.connection.segment(side, data))
    statement = b"\3INSERT INTO t VALUES ('" + b"x" * 1_000_000 + b"')"
    whole = len(statement).to_bytes(3, "little") + b"\0" + statement
    for at in range(0, len(whole), 50_000):
        p.client(whole[at : at + 50_000])
        p.wait(0.5)
    assert not p.decisions
    assert p.records[-1]["verdict"] == "allow"
    for at in range(0, 500_000, 50_000):
        p.client(whole[at : at + 50_000])
    p.wait(2.1)
    assert not p.decisions
    p.wait(2.0)
    assert [(d.verdict.name, d.reason.name) for d in p.decisions] == [("DENY", "NEED_MORE")]
