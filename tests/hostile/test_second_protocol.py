"""A second protocol behind a valid first request, in one segment and later: what rides along is read as the first is,
or not let through, whether its reader is a server that skips what it does not understand, or one behind it.
"""

from __future__ import annotations

import pytest

from fastpath.abi import Protocol
from parsers.base import TO_SERVER
from slowpath.core.model import Judgement
from tests.contract.conversations import conversations
from tests.contract.conversations.smb import CLOSE, REQUEST, session
from tests.data import recorded
from tests.hostile.attack import Quick, judged, rule_files, ruled, through, unit_by_unit
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.h2 import frame
from tests.unit.slowpath.core.wire import allow, deny, inspect

GET = b"GET /ok HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BANNER = b"SSH-2.0-OpenSSH_9.6\r\n"
HELLO = next(data for direction, data in recorded("tls")["openssl 1.3"] if direction == TO_SERVER)
QUERY = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\3www\7example\0\0\1\0\1"
DNS = len(QUERY).to_bytes(2, "big") + QUERY
FLUSH = b"*1\r\n$8\r\nFLUSHALL\r\n"
SET = b"set k 0 0 1\r\nx\r\n"
MQTT = b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\0"
STARTUP = b"\0\0\0\x12\0\3\0\0user\0app\0\0"
SECOND = {
    "HTTP": GET, "HTTP/2": h2.START, "SSH": BANNER, "TLS": HELLO, "DNS": DNS, "Redis": FLUSH, "Memcached": SET,
    "MQTT": MQTT, "PostgreSQL": STARTUP, "SMTP": b"EHLO a\r\nMAIL FROM:<a@b>\r\n", "NUL": bytes(64),
    "any bytes": bytes(range(128, 256)),
}  # fmt: skip
# By protocol: what comes first, and which of the others are well-formed in its grammar.
FIRST: dict[str, tuple[list[tuple[int, bytes]], set[str]]] = {
    "http": ([(0, GET)], {"HTTP"}),
    "http2": ([(0, h2.START + h2.Sender().request(1, "/ok")), (1, h2.settings())], {"DNS"}),
    "dns": ([(0, DNS)], {"DNS"}),
    "redis": ([(0, b"*1\r\n$4\r\nPING\r\n")], {"Redis", "SMTP", "Memcached", "HTTP", "SSH"}),
    "memcached": ([(0, b"set a 0 0 1\r\nx\r\n"), (1, b"STORED\r\n")], {"Memcached", "Redis", "SMTP", "HTTP", "SSH"}),
    "mqtt": ([(0, MQTT), (1, b"\x20\2\0\0")], {"MQTT", "HTTP/2"}),
    "postgres": ([(0, STARTUP), (1, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\5I")], {"PostgreSQL"}),
    "mongodb": ([(0, next(c.parts[0][1] for c in conversations() if str(c) == "mongodb-PyMongo"))], set()),
    "kafka": ([(0, next(c.parts[0][1] for c in conversations() if str(c) == "kafka-librdkafka"))], {"DNS"}),
    "amqp": ([(0, b"AMQP\0\0\x09\1")], set()),
}  # fmt: skip


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("together", [True, False])
def test_behind_a_first_request_there_is_no_other_protocol(first: str, second: str, together: bool) -> None:
    parts, taken = FIRST[first]
    if second in taken:
        return  # test_what_servers_skip
    p = Quick(judged(first), rule_files(unit_by_unit(first)))
    for n, (side, data) in enumerate(parts):
        rides = together and n == max(k for k, (to, _) in enumerate(parts) if to == 0)
        p.feed(p.connection.segment(side, data + SECOND[second] if rides else data))
        p.wait(0.001)
    if not together:
        p.client(SECOND[second])
    p.wait(3)
    assert {record["protocol"] for record in p.records} == {first}
    assert p.records[-1]["verdict"] == "deny"
    # Half a message, by the length that is read into it: let go on, and waited for in vain.
    assert p.records[-1]["reason"] in {"parse_error", "need_more"}
    if p.records[-1]["reason"] == "parse_error":
        assert not through(p).endswith(SECOND[second])


REDIS = """
name: redis
protocol: redis
rules:
  - {id: no-flush, match: {redis.command: [flushall, config, eval]}, action: deny}
  - {id: rest, match: {redis.command: {regex: ".*"}}, action: allow}
"""
MEMCACHED = """
name: memcached
protocol: memcached
rules:
  - {id: no-flush, match: {memcached.command: flush_all}, action: deny}
  - {id: rest, match: {memcached.command: {regex: ".*"}}, action: allow}
"""
HTTP = """
name: http
protocol: http
rules:
  - {id: no-admin, match: {http.path: {prefix: /admin}}, action: deny}
  - {id: rest, match: {http.method: [GET, POST]}, action: allow}
"""


def posted(body: bytes) -> bytes:
    return b"POST /ok HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("body", [b"FLUSHALL\r\n", FLUSH, b"CONFIG SET dir /tmp\r\n", b"flush_all\r\n", SET])
def test_commands_in_a_body_of_http(body: bytes) -> None:
    """Cross-protocol scripting: a browser posts to a Redis or Memcached, which skips the lines of the head. To both the
    connection is HTTP, that no rule of theirs allows.
    """
    for name in ("redis", "memcached"):
        p = Quick(judged(name), ruled(REDIS, MEMCACHED))
        p.client(posted(body))
        p.wait(3)
        assert (p.records[-1]["verdict"], p.records[-1]["protocol"]) == ("deny", "http")
        assert through(p) == b""


@pytest.mark.parametrize(("body", "rule"), [(b"FLUSHALL\r\n", "no-flush"), (FLUSH, "no-flush")])
def test_what_servers_skip_is_read_on(body: bytes, rule: str) -> None:
    """Behind a first command of its own HTTP is commands to Redis, which ends the connection at POST or Host:."""
    p = Quick(judged("redis"), ruled(REDIS))
    p.client(b"*1\r\n$4\r\nPING\r\n")
    p.server(b"+PONG\r\n")
    p.client(posted(body))
    p.wait(3)
    assert p.records[-1]["verdict"] == "deny"
    assert body not in through(p)
    plain = Quick(judged("redis"), ruled(REDIS))
    plain.client(b"*1\r\n$4\r\nPING\r\n" + body)
    assert plain.records[-1]["l7_rule"] == rule
    assert through(plain) == b""


def test_memcached_reads_http_as_commands_that_it_does_not_know() -> None:
    p = Quick(judged("memcached"), ruled(MEMCACHED))
    p.client(SET)
    p.server(b"STORED\r\n")
    p.client(posted(b"flush_all\r\n"))
    p.wait(3)
    assert p.records[-1]["verdict"] == "deny"
    assert not through(p).endswith(b"flush_all\r\n")


@pytest.mark.parametrize("inside", [BANNER, HELLO, FLUSH, DNS, b"GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n"])
def test_what_is_a_body_is_none(inside: bytes) -> None:
    """The other way round: bytes of another protocol within a body are bytes of a body, and what follows is judged."""
    p = Quick(judged("http"), ruled(HTTP))
    p.client(posted(inside))
    p.server(OK)
    assert [record["verdict"] for record in p.records] == ["allow"]
    p.client(b"GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert p.records[-1]["l7_rule"] == "no-admin"


@pytest.mark.parametrize("policy", [judged("http"), judged("http") | {Protocol.UNKNOWN: inspect("http")}])
@pytest.mark.parametrize("second", SECOND)
def test_nothing_makes_another_of_what_begins_with_neither(policy: dict[Protocol, Judgement], second: str) -> None:
    p = Quick(policy, ruled(HTTP))
    p.client(b"\x07" + SECOND[second] + GET)
    p.wait(3)
    assert [record["verdict"] for record in p.records] == ["deny"]
    assert through(p) == b""


def test_plain_text_behind_a_hello_of_tls() -> None:
    """What follows a hello is a record; the flow is not handed back before the server has answered."""
    for plain in (GET, BANNER, bytes(30)):
        p = Quick(judged("tls"), rule_files(unit_by_unit("tls")))
        p.client(HELLO + plain)
        p.wait(3)
        assert p.records[-1]["verdict"] == "deny"
        assert not through(p).endswith(plain)


def test_http2_behind_a_body_of_http2() -> None:
    """A second preface within the stream of frames is one long frame's header, and refused as that."""
    p = Quick(judged("http2"), rule_files(unit_by_unit("http2")))
    p.client(h2.START)
    p.server(h2.settings())
    p.client(h2.Sender().request(1, "/ok") + frame(0, 1, 1, b"x") + h2.PREFACE)
    assert (p.records[-1]["verdict"], p.records[-1]["reason"]) == ("deny", "parse_error")


@pytest.mark.parametrize("step", [1, 7, 100])
@pytest.mark.parametrize(
    ("message", "verdict"),
    [(session(CLOSE), "allow"), (session(b"\xff" + bytes(63)), "deny"), (GET, "deny"), (REQUEST, "deny")],
)
def test_a_netbios_session_is_smb_by_its_first_message(message: bytes, verdict: str, step: int) -> None:
    p = Quick({Protocol.SMB: allow(), Protocol.UNKNOWN: deny()})
    for at in range(0, len(REQUEST), step):
        p.client(REQUEST[at : at + step])
    p.wait(0.03)
    assert through(p) == REQUEST, "the server has to grant it"
    p.server(session(b"", 0x82))
    assert p.decisions == []
    for at in range(0, len(message), step):
        p.client(message[at : at + step])
    # What the server has said could go on as MySQL's greeting.
    p.wait(2.1 if verdict == "deny" else 0)
    assert [(record["verdict"], record["protocol"]) for record in p.records] == [
        (verdict, "smb" if verdict == "allow" else "unknown")
    ]


def test_a_netbios_session_that_says_nothing_is_unknown() -> None:
    p = Quick({Protocol.SMB: allow(), Protocol.UNKNOWN: deny()})
    p.client(REQUEST)
    p.server(session(b"", 0x82))
    p.wait(2.1)
    assert [(record["verdict"], record["protocol"]) for record in p.records] == [("deny", "unknown")]
