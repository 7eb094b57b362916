"""The inspector with parsers that say some things once, and rules that ask for those."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from fastpath.abi import Action, Protocol, Scope, Verdict
from fastpath.document import Problems
from parsers.base import TO_SERVER
from slowpath.core.frame import ACK, FIN, flow_key, parse_frame
from slowpath.core.model import Exceptions, SessionInfo
from slowpath.rules import scan
from slowpath.rules.ruleset import RuleSet, load_rules, read_rule_file
from tests.data import recorded
from tests.unit.slowpath.core.wire import CLIENT, SERVER, Play, inspect, names, udp_frame

NAMES = """
name: names
protocol: tls
rules:
  - {id: old, match: {tls.selected_version: ["1.0", "1.1"]}, action: deny}
  - {id: ours, match: {tls.sni: [web.lab, other.lab]}, action: allow}
"""
CERTIFICATES = """
name: certificates
protocol: tls
rules:
  - {id: ours, match: {tls.certificate: {glob: ["*.lab", "**.lab"]}, tls.sni: web.lab}, action: allow}
"""


def play(text: str) -> Play:
    problems = Problems()
    rule_file = read_rule_file(text, "x.yaml", problems)
    problems.raise_if_any()
    assert rule_file is not None
    return Play({Protocol.TLS: inspect(rule_file.name)}, RuleSet({rule_file.name: rule_file}))


def said(p: Play, name: str) -> list[list[str]]:
    """What the inspector does at each part of a conversation."""
    return [p.client(data) if direction == TO_SERVER else p.server(data) for direction, data in recorded("tls")[name]]


def test_a_name_allows_for_good_only_once_the_server_has_answered() -> None:
    p = play("name: sni\nprotocol: tls\nrules: [{id: a, match: {tls.sni: web.lab}, action: allow}]\n")
    hello, answer, *_ = said(p, "openssl 1.3")
    assert [each.split()[0] for each in hello] == ["write", "release"]
    assert "allow connection" not in hello
    assert any(each.startswith("write allow") for each in answer)
    assert [(d.verdict, d.scope) for d in p.decisions] == [(Verdict.ALLOW, Scope.CONNECTION)]
    assert [record["scope"] for record in p.records] == ["request", "connection"]
    assert p.records[0]["tls"]["sni"] == "web.lab"
    # What was said before stands beside what the server chose.
    assert {"sni", "ja4", "selected_version"} <= p.records[-1]["tls"].keys()
    assert (p.records[-1]["rule_file"], p.records[-1]["l7_rule"]) == ("sni", "a")


def test_a_name_that_no_rule_has_never_gets_to_the_server() -> None:
    p = play("name: sni\nprotocol: tls\nrules: [{id: a, match: {tls.sni: other.lab}, action: allow}]\n")
    direction, hello = recorded("tls")["openssl 1.3"][0]
    assert direction == TO_SERVER
    assert p.client(hello[:100]) == []
    p.wait(1)
    assert p.released() == hello[:100], "an incomplete hello is harmless"
    commands = p.client(hello[100:])
    assert commands[:2] == ["write deny no_rule", "deny connection"]
    assert p.decisions[0].scope == Scope.CONNECTION


@pytest.mark.parametrize(("name", "verdict"), [("openssl 1.3", Verdict.ALLOW), ("openssl 1.0", Verdict.DENY)])
def test_what_the_server_will_say_is_waited_for(name: str, verdict: Verdict) -> None:
    p = play(NAMES)
    hello, *_ = said(p, name)
    assert [each.split()[0] for each in hello] == ["release"], "nothing is decided, and nothing can be refused yet"
    assert [d.verdict for d in p.decisions] == [verdict]
    assert p.records[-1]["l7_rule"] == ("ours" if verdict == Verdict.ALLOW else "old")


def test_rules_may_ask_for_both_sides() -> None:
    p = play(CERTIFICATES)
    said(p, "openssl 1.2")
    assert [d.verdict for d in p.decisions] == [Verdict.ALLOW]
    p = play(CERTIFICATES)
    said(p, "openssl 1.3")  # of which certificates are encrypted
    assert [d.verdict for d in p.decisions] == [Verdict.DENY]


def test_after_a_second_hello_the_name_is_still_the_first_ones() -> None:
    p = play("name: sni\nprotocol: tls\nrules: [{id: a, match: {tls.sni: web.lab}, action: allow}]\n")
    parts = recorded("tls")["openssl asked again"]
    assert [direction for direction, _ in parts[:4]] == [0, 1, 0, 1]
    p.client(parts[0][1])
    p.server(parts[1][1])
    assert p.decisions == []
    other = parts[2][1].replace(b"web.lab", b"own.lab")
    assert other != parts[2][1]
    assert p.client(other)[:2] == ["write deny parse_error", "deny connection"]


# -- datagrams --------------------------------------------------------------------------------------------------------

LOOKUPS = """
name: lookups
protocol: dns
rules:
  - {id: no-own, match: {dns.answer: {prefix: "10."}}, action: deny}
  - {id: ours, match: {dns.qname: {glob: "**.example"}}, action: allow}
"""


def message(name: bytes, number: int = 1, answer: bytes = b"") -> bytes:
    labels = b"".join(bytes((len(label),)) + label for label in name.split(b".")) + b"\0"
    head = struct.pack("!6H", number, 0x8180 if answer else 0x0100, 1, int(bool(answer)), 0, 0)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + answer if answer else b""
    return head + labels + b"\0\1\0\1" + record


def datagrams(
    text: str = LOOKUPS, protocol: Protocol = Protocol.DNS, name: str = "lookups"
) -> tuple[Play, Callable[..., list[str]]]:
    p = play(text)
    p.kernel.policy = {protocol: inspect(name)}
    packet = parse_frame(udp_frame(CLIENT, SERVER, 40001, 53, message(b"a.example")))
    key, a_to_b = flow_key(packet)
    p.kernel.sessions[key] = SessionInfo(7, server_is_a=not a_to_b)

    def send(data: bytes, *, back: bool = False) -> list[str]:
        ends = (SERVER, CLIENT, 53, 40001) if back else (CLIENT, SERVER, 40001, 53)
        return names(p.feed(parse_frame(udp_frame(*ends, data))))

    return p, send


def test_each_question_and_answer_is_judged_and_a_denied_one_loses_its_datagram() -> None:
    p, send = datagrams()
    assert send(message(b"a.example")) == ["write allow rule", f"release {len(message(b'a.example'))}"]
    good = message(b"a.example", answer=bytes((192, 0, 2, 1)))
    assert send(good, back=True) == [f"release {len(good)}"]
    evil = message(b"evil.test", 2)
    assert send(evil) == ["write deny no_rule", f"discard {len(evil)}"]
    again = message(b"b.example", 3)
    assert send(again) == [f"release {len(again)}"], "the flow goes on"
    own = message(b"b.example", 3, bytes((10, 0, 0, 5)))
    assert send(own, back=True) == ["write deny rule", f"discard {len(own)}"]
    assert p.decisions == [], "the kernel keeps sending it up"
    assert [record["verdict"] for record in p.records] == ["allow", "deny", "deny"]
    assert p.records[-1]["dns"]["answer"] == ["10.0.0.5"]
    assert p.records[-1]["l7_rule"] == "no-own"


SITES = """
name: sites
protocol: quic
rules:
  - {id: ours, match: {tls.sni: other.lab, quic.version: "1"}, action: allow}
"""


def test_a_quic_hello_that_is_denied_is_denied_again_when_it_comes_again() -> None:
    p, send = datagrams(SITES, Protocol.QUIC, "sites")
    first, second = (data for _, data in recorded("quic")["aioquic hello of two datagrams"][:2])
    assert send(first) == [f"release {len(first)}"], "it says nothing yet"
    # Clients send either part again, for they hear of none.
    for data in (second, second, first, second):
        assert send(data) == ["write deny no_rule", f"discard {len(data)}"]
    assert {record["tls"]["sni"] for record in p.records} == {"web.lab"}


def test_a_datagram_that_is_damaged_ends_the_flow() -> None:
    p, send = datagrams()
    send(message(b"a.example"))
    assert send(message(b"a.example", 2)[:-3])[:2] == ["write deny parse_error", "deny connection"]
    assert [d.verdict for d in p.decisions] == [Verdict.DENY]


WATCHED = """
name: watched
protocol: http
rules:
  - {id: probe, match: {http.path: {prefix: /x}}, action: deny, mode: monitor, severity: high}
  - {id: quiet, match: {http.path: /health}, action: allow, log: none}
  - {id: all, match: {http.path: /audit}, action: allow, log: all, severity: info}
  - {id: gone, match: {http.path: /gone}, action: deny, deny_with: drop, severity: low}
  - {id: mute, match: {http.path: /mute}, action: deny, deny_with: drop, log: none}
  - {id: get, match: {http.method: GET}, action: allow}
"""


def watched() -> Play:
    p = play(WATCHED)
    p.kernel.policy = {Protocol.HTTP: inspect("watched")}
    return p


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_rule_in_monitor_mode_is_recorded_and_the_next_one_decides() -> None:
    p = watched()
    assert p.client(get(b"/x")) == ["write deny rule", "write allow rule", f"release {len(get(b'/x'))}"]
    noted, allowed = p.records
    assert (noted["enforced"], noted["l7_rule"], noted["severity"], noted["scope"]) == (
        False,
        "probe",
        "high",
        "request",
    )
    assert (allowed["l7_rule"], "severity" in allowed) == ("get", False)
    assert p.client(get(b"/x/2"))[0] == "write deny rule", "each time"


def test_a_rule_says_which_of_its_units_are_recorded() -> None:
    p = watched()
    assert p.client(get(b"/health")) == [f"release {len(get(b'/health'))}"]
    for _ in range(2):
        assert p.client(get(b"/audit"))[0] == "write allow rule"
    assert [record["severity"] for record in p.records] == ["info"] * 2


@pytest.mark.parametrize(("path", "written"), [(b"/gone", True), (b"/mute", False)])
def test_a_rule_says_what_the_ends_of_a_denied_connection_hear(path: bytes, written: bool) -> None:
    p = watched()
    found = p.client(get(path))
    assert found == ["write deny rule"] * written + ["deny request", f"discard {len(get(path))}"]
    assert not p.decisions[-1].judgement.reset
    assert [record["severity"] for record in p.records] == ["low"] * written


CALLS = """
name: calls
protocol: http
rules:
  - {id: unknown, match: {grpc.status: 2}, action: deny, mode: monitor}
  - {id: rest, match: {http.method: POST}, action: allow}
"""


def test_what_ends_with_the_connection_is_told_at_its_end() -> None:
    p = play(CALLS)
    p.kernel.policy = {Protocol.HTTP: inspect("calls")}
    kind = b"Content-Type: application/grpc-web\r\n"
    p.client(b"POST /a.B/C HTTP/1.1\r\nHost: a\r\n" + kind + b"Content-Length: 0\r\n\r\n")
    assert p.server(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n") == [f"release {len(kind) + 19}"]
    assert p.server(b"", flags=ACK | FIN) == ["release 0", "write deny rule"], (
        "a call without status is one that failed"
    )
    assert (p.records[-1]["l7_rule"], p.records[-1]["enforced"]) == ("unknown", False)


# -- content patterns -------------------------------------------------------------------------------------------------

SHIELD = load_rules([Path(__file__).parents[4] / "configs" / "rules.d" / "shield.yaml"])


def shielded(action: Action = Action.DENY) -> Play:
    return Play({Protocol.HTTP: inspect("shield")}, SHIELD, exceptions=Exceptions(pattern_budget=action))


def test_an_attack_is_denied_behind_good_requests() -> None:
    p = shielded()
    good = get(b"/items?id=1&sort=union")
    assert p.client(good) == ["write allow rule", f"release {len(good)}"]
    bad = p.client(get(b"/items?id=1%20union%20select%201,2"))
    assert bad[:2] == ["write deny rule", "deny request"]
    assert p.records[-1]["l7_rule"] == "attack-in-path"
    assert "waf/sql-union" in p.records[-1]["patterns"]
    assert p.records[-1]["severity"] == "critical", "that of the worst pattern, where the rule does not say"
    assert p.inspector.stats.pattern_budget == 0


@pytest.mark.parametrize(
    ("action", "first", "reason"),
    [
        (Action.DENY, "write deny pattern_budget", "pattern_budget"),
        (Action.ALLOW, "write allow rule", "rule"),
        (Action.INSPECT, "write deny rule", "rule"),
    ],
)
def test_over_the_budget(action: Action, first: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BUDGET", 0)
    monkeypatch.setattr(scan, "BUDGET_OF_BYTE", 0)
    p = shielded(action)
    assert p.client(get(b"/items"))[0] == first
    assert p.records[-1]["reason"] == reason
    assert p.inspector.stats.pattern_budget == 1
