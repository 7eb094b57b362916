"""Protocol switches in mid-connection, agreed on, declined, stripped, injected, or only pretended. What comes behind a
switch is read as what the server takes it for, and the policy is asked of that by itself.
"""

from __future__ import annotations

import pytest

from fastpath.abi import Protocol
from parsers.base import TO_SERVER
from slowpath.core.model import Judgement
from tests.contract.conversations import mysql
from tests.data import recorded
from tests.hostile.attack import Quick, judged, rule_files, ruled, through, unit_by_unit
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.wire import allow

HTTP = """
name: {0}
protocol: {0}
rules:
  - {{id: no-admin, match: {{http.path: {{prefix: /admin}}}}, action: deny}}
  - {{id: rest, match: {{http.method: [GET, POST, CONNECT]}}, action: allow}}
"""
SMTP = """
name: smtp
protocol: smtp
rules:
  - {id: no-evil, match: {smtp.sender: {glob: "*evil*"}}, action: deny}
  - {id: rest, match: {smtp.command: {regex: ".*"}}, action: allow}
"""
FTP = """
name: ftp
protocol: ftp
rules:
  - {id: no-deletes, match: {ftp.command: [dele, rmd]}, action: deny}
  - {id: rest, match: {ftp.command: {regex: ".*"}}, action: allow}
"""
POSTGRES = """
name: postgres
protocol: postgres
rules:
  - {id: no-root, match: {postgres.user: root}, action: deny}
  - {id: rest, match: {postgres.command: {regex: ".*"}}, action: allow}
"""
RULES = ruled(HTTP.format("http"), HTTP.format("http2"), SMTP, FTP, POSTGRES)
GET = b"GET /ok HTTP/1.1\r\nHost: a.example\r\n\r\n"
ADMIN = b"GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
WEBSOCKET = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
H2C = GET[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
CONNECT = b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"
HELLO = next(data for direction, data in recorded("tls")["openssl 1.3"] if direction == TO_SERVER)
BANNER = b"SSH-2.0-OpenSSH_9.6\r\n"
WEB = judged("http", "http2")
Parts = list[tuple[int, bytes]]


def played(policy: dict[Protocol, Judgement], parts: Parts, *, rest: float = 0.021) -> Quick:
    p = Quick(policy, RULES)
    for side, data in parts:
        p.feed(p.connection.segment(side, data))
        p.wait(rest)
    return p


def denied(p: Quick) -> str:
    """Why, in the end; nothing of the last client's bytes got through whole."""
    assert p.records[-1]["verdict"] == "deny"
    return str(p.records[-1].get("l7_rule", p.records[-1]["reason"]))


OTHERS = {
    "TLS": HELLO, "SSH": BANNER, "HTTP/2": h2.START, "PostgreSQL": b"\0\0\0\x08\x04\xd2\x16\x2f",
    "Redis": b"*1\r\n$8\r\nFLUSHALL\r\n", "DNS": b"\0\x1d\x12\x34\x01\0\0\1\0\0\0\0\0\0\3www\7example\0\0\1\0\1",
    "MQTT": b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\0", "MongoDB": b"\x3f\0\0\0\1\0\0\0\0\0\0\0\xd4\x07\0\0", "NUL": bytes(40),
    "SMTP": b"EHLO a.example\r\n", "a line": b"hello\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    "before", [[(0, GET), (1, OK)], [(0, GET)], [(0, GET), (1, OK)] * 20], ids=["1", "asked", "20"]
)
def test_behind_requests_nothing_else_is_let_through(before: Parts, name: str) -> None:
    p = played(WEB, [*before, (0, OTHERS[name])])
    p.wait(3)
    assert denied(p) in {"parse_error", "need_more"}
    assert not through(p).endswith(OTHERS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_behind_a_declined_upgrade_it_is_http_still(name: str) -> None:
    for offer in (WEBSOCKET, H2C):
        p = played(WEB, [(0, offer), (1, OK), (0, OTHERS[name])])
        p.wait(3)
        assert denied(p) in {"parse_error", "need_more"}
        assert not through(p).endswith(OTHERS[name])


@pytest.mark.parametrize("offer", [WEBSOCKET, H2C, CONNECT])
def test_behind_a_declined_upgrade_requests_are_judged(offer: bytes) -> None:
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n" if offer == CONNECT else OK
    p = played(WEB, [(0, offer), (1, refusal), (0, GET), (1, OK), (0, ADMIN)])
    assert denied(p) == "no-admin"
    early = played(WEB, [(0, offer + ADMIN), (1, refusal)])
    assert denied(early) == "no-admin"
    assert ADMIN not in through(early)


@pytest.mark.parametrize("offer", [WEBSOCKET, H2C, CONNECT])
def test_what_comes_before_the_answer_waits_for_it(offer: bytes) -> None:
    p = played(WEB, [(0, offer), (0, ADMIN)])
    assert through(p) in {offer, b""}
    p.wait(3)
    assert denied(p) == "need_more"


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "HTTP/2"])
def test_an_agreed_switch_to_http2_is_one(name: str) -> None:
    p = played(WEB, [(0, H2C), (1, SWITCHING % b"h2c"), (0, OTHERS[name])])
    p.wait(3)
    assert denied(p) in {"parse_error", "need_more"}
    assert not through(p).endswith(OTHERS[name])


def test_requests_behind_an_agreed_switch_are_judged() -> None:
    sender = h2.Sender()
    p = played(WEB, [(0, H2C), (1, SWITCHING % b"h2c" + h2.settings()), (0, h2.START + sender.request(3, "/admin"))])
    assert denied(p) == "no-admin"
    assert not through(p).endswith(h2.START)


@pytest.mark.parametrize("name", OTHERS)
def test_an_agreed_switch_to_websocket_is_one(name: str) -> None:
    policy = WEB | {Protocol.WEBSOCKET: judged("websocket")[Protocol.WEBSOCKET]}
    p = Quick(policy, rule_files(unit_by_unit("websocket"), *RULES.files.values()))
    for side, data in ((0, WEBSOCKET), (1, SWITCHING % b"websocket"), (0, OTHERS[name])):
        p.feed(p.connection.segment(side, data))
        p.wait(0.021)
    p.wait(3)
    assert denied(p) in {"parse_error", "need_more"}
    assert not through(p).endswith(OTHERS[name])


def test_a_switch_that_nobody_offered() -> None:
    p = played(WEB, [(0, GET), (1, SWITCHING % b"h2c"), (0, h2.START)])
    assert denied(p) == "parse_error"
    assert through(p) == GET


def test_a_second_offer_is_no_answer_to_the_first() -> None:
    """The 101 belongs to the first request; the second offer came too early to be one."""
    p = played(WEB, [(0, GET + WEBSOCKET), (1, SWITCHING % b"websocket"), (0, b"\x81\x80\0\0\0\0")])
    assert denied(p) == "parse_error"


@pytest.mark.parametrize("inside", [BANNER, HELLO, ADMIN])
def test_a_tunnel_is_only_opened_where_it_is_allowed(inside: bytes) -> None:
    rules = ruled(HTTP.format("http").replace(", CONNECT", ""))
    p = Quick(WEB, rules)
    p.client(CONNECT)
    assert p.records[-1]["reason"] == "no_rule"
    p.server(OK)
    p.client(inside)
    assert through(p) == b""


# -- to TLS -----------------------------------------------------------------------------------------------------------

MAIL = judged("smtp") | {Protocol.TLS: allow()}
EVIL = b"MAIL FROM:<a@evil.example>\r\n"
EHLO: Parts = [(1, b"220 mx ESMTP\r\n"), (0, b"EHLO a\r\n"), (1, b"250-mx\r\n250 STARTTLS\r\n")]
STARTTLS = b"STARTTLS\r\n"
GO = b"220 go ahead\r\n"


@pytest.mark.parametrize("injected", [EVIL, b"NOOP\r\n", b"x"])
def test_what_is_pipelined_behind_starttls_is_refused(injected: bytes) -> None:
    """CVE-2011-0411: the server takes it for said under TLS."""
    for parts in ([(0, STARTTLS + injected)], [(0, STARTTLS), (0, injected)]):
        p = played(MAIL, [*EHLO, *parts, (1, GO)])
        assert denied(p) == "parse_error"
        assert not through(p).endswith(injected)


@pytest.mark.parametrize("answer", [b"454 not now\r\n", b"502 what?\r\n", b"500 no\r\n"])
def test_stripped_starttls_leaves_everything_judged(answer: bytes) -> None:
    p = played(MAIL, [*EHLO, (0, STARTTLS), (1, answer), (0, b"NOOP\r\n"), (1, b"250 ok\r\n"), (0, EVIL)])
    assert denied(p) == "no-evil"
    assert EVIL not in through(p)


@pytest.mark.parametrize("plain", [EVIL, b"EHLO again\r\n", GET, BANNER])
def test_behind_an_agreed_starttls_nothing_but_tls_is_let_through(plain: bytes) -> None:
    p = played(MAIL, [*EHLO, (0, STARTTLS), (1, GO), (0, plain)])
    p.wait(3)
    assert p.records[-1]["verdict"] == "deny"
    assert not through(p).endswith(plain)


def test_answers_injected_behind_the_agreement() -> None:
    """CVE-2021-38371 and its kin: a client takes them for said under TLS."""
    p = played(MAIL, [*EHLO, (0, STARTTLS), (1, GO + b"250-mx\r\n250 AUTH PLAIN\r\n"), (0, HELLO)])
    assert denied(p) == "parse_error"
    assert not through(p, 1).endswith(b"AUTH PLAIN\r\n")


def test_what_goes_over_to_tls_is_judged_as_tls() -> None:
    allowed = played(MAIL, [*EHLO, (0, STARTTLS), (1, GO), (0, HELLO)])
    assert (allowed.records[-1]["verdict"], allowed.records[-1]["protocol"]) == ("allow", "tls")
    assert through(allowed).endswith(HELLO)
    p = played(judged("smtp"), [*EHLO, (0, STARTTLS), (1, GO), (0, HELLO)])
    assert denied(p) == "default"
    assert HELLO not in through(p)


FILES = judged("ftp") | {Protocol.TLS: allow()}
WELCOME: Parts = [(1, b"220 FTP server ready\r\n"), (0, b"USER anonymous\r\n"), (1, b"331 password\r\n")]


@pytest.mark.parametrize("injected", [b"DELE x\r\n", b"NOOP\r\n"])
def test_what_is_pipelined_behind_auth_tls_is_refused(injected: bytes) -> None:
    p = played(FILES, [*WELCOME, (0, b"AUTH TLS\r\n" + injected), (1, b"234 ok\r\n")])
    assert denied(p) == "parse_error"
    assert not through(p).endswith(injected)


def test_stripped_auth_tls_leaves_everything_judged() -> None:
    p = played(FILES, [*WELCOME, (0, b"AUTH TLS\r\n"), (1, b"502 no\r\n"), (0, b"DELE x\r\n")])
    assert denied(p) == "no-deletes"
    plain = played(FILES, [*WELCOME, (0, b"AUTH TLS\r\n"), (1, b"234 ok\r\n"), (0, b"DELE x\r\n")])
    plain.wait(3)
    assert plain.records[-1]["verdict"] == "deny"
    assert not through(plain).endswith(b"DELE x\r\n")


DATABASE = judged("postgres") | {Protocol.TLS: allow()}
SSL = b"\0\0\0\x08\x04\xd2\x16\x2f"
ROOT = b"\0\0\0\x13\0\3\0\0user\0root\0\0"


def test_postgres_start_behind_its_request_for_tls() -> None:
    """CVE-2021-23214: said in clear, taken for said under TLS."""
    for parts in ([(0, SSL + ROOT)], [(0, SSL), (0, ROOT)]):
        p = played(DATABASE, [*parts, (1, b"S")])
        assert p.records[-1]["verdict"] == "deny"
        assert ROOT not in through(p)


def test_postgres_in_clear_where_tls_was_agreed_or_declined() -> None:
    p = played(DATABASE, [(0, SSL), (1, b"S"), (0, ROOT)])
    p.wait(3)
    assert p.records[-1]["verdict"] == "deny"
    assert ROOT not in through(p)
    assert denied(played(DATABASE, [(0, SSL), (1, b"N"), (0, ROOT)])) == "no-root"
    assert played(DATABASE, [(0, SSL), (1, b"S"), (0, HELLO)]).records[-1]["protocol"] == "tls"


def test_mysql_in_clear_where_it_asked_for_tls() -> None:
    (_, greeting), (_, login), *_ = mysql.CONVERSATIONS[0].parts
    asks = b"\x20\0\0\1" + (int.from_bytes(login[4:8], "little") | 0x800).to_bytes(4, "little") + login[8:36]
    greeting = _with_tls(greeting)
    policy = judged("mysql") | {Protocol.TLS: allow()}
    rules = rule_files(unit_by_unit("mysql"))
    for rest in (login, b"\x07\0\0\2\3SELECT", GET):
        for parts in ([(0, asks + rest)], [(0, asks), (0, rest)]):
            p = Quick(policy, rules)
            p.server(greeting)
            for side, data in parts:
                p.feed(p.connection.segment(side, data))
                p.wait(0.021)
            p.wait(3)
            assert p.records[-1]["verdict"] == "deny"
            assert not through(p).endswith(rest)
    p = Quick(policy, rules)
    p.server(greeting)
    p.client(asks)
    p.client(HELLO)
    assert (p.records[-1]["verdict"], p.records[-1]["protocol"]) == ("allow", "tls")


def _with_tls(greeting: bytes) -> bytes:
    """The server offers it: CLIENT_SSL in the lower half of its capabilities."""
    at = greeting.index(b"\0", 5) + 1 + 4 + 9
    return greeting[: at + 1] + bytes((greeting[at + 1] | 0x08,)) + greeting[at + 2 :]
