from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fastpath.abi import Action, Protocol, Reason, Scope, Verdict
from fastpath.document import Problems
from slowpath.core.flow import State
from slowpath.core.frame import ACK, FIN, RST, SYN, URG, Fragment, flow_key, parse_frame
from slowpath.core.model import Decide, Exceptions, Judgement, Limits, Release, SessionInfo
from slowpath.rules.ruleset import RuleSet, load_rules, read_rule_file
from tests.unit.slowpath.core import h2
from tests.unit.slowpath.core.wire import CLIENT, SERVER, Connection, Play, allow, deny, inspect, names, udp_frame

RULES = load_rules([Path(__file__).parents[4] / "configs" / "rules.d"])
WEB = {Protocol.HTTP: inspect("web"), Protocol.HTTP2: inspect("web")}
GRPC = {Protocol.GRPC: inspect("greeter")}
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
ADMIN = b"GET /admin HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABk\r\n\r\n"
)
WEBSOCKET = b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"


def play(policy: dict[Protocol, Judgement], **more: object) -> Play:
    return Play(policy, RULES, **more)  # type: ignore[arg-type]


# -- decided for the connection -------------------------------------------------------------------------------------


def test_allowed_by_protocol_is_handed_back_once_the_server_has_it() -> None:
    p = play({Protocol.HTTP: allow()})
    assert p.client(GET) == ["write allow protocol", f"release {len(GET)}"]
    assert p.decisions == []
    assert p.server(OK) == [f"release {len(OK)}", "allow connection"]
    assert p.decisions[0].protocol == p.decisions[0].first_protocol == Protocol.HTTP
    record = p.records[0]
    assert (record["rule"], record["path"], record["scope"], record["enforced"]) == (
        "open",
        "inspector",
        "connection",
        True,
    )
    assert record["flow"] == {"src": CLIENT, "sport": 40000, "dst": SERVER, "dport": 80, "l4": "tcp"}
    assert record["latency"] == 0


def test_bare_acknowledgments_that_passed_in_the_kernel_count() -> None:
    p = play({Protocol.HTTP: allow()})
    p.client(GET)
    assert p.client(b"body") == ["release 4"]
    c = p.connection
    info = p.kernel.sessions[c.key]
    for acknowledged, decided in ((len(GET) - 1, []), (len(GET), ["allow connection"])):
        p.kernel.sessions[c.key] = replace(info, acks=(None, (c.isn[0] + 1 + acknowledged) & 0xFFFFFFFF))
        assert p.client(b"more") == ["release 4", *decided]


def test_without_confirmation_the_allow_is_immediate() -> None:
    p = play({Protocol.HTTP: allow()}, limits=Limits(confirm=False))
    assert p.client(GET) == ["write allow protocol", "allow connection", f"release {len(GET)}"]
    assert p.client(ADMIN) == [f"release {len(ADMIN)}"]  # while the kernel drains


def test_a_decoy_does_not_speak_for_the_flow() -> None:
    """Allowed, but the server never got those bytes (low TTL): the real ones come in their place."""
    p = play({Protocol.HTTP: allow(), Protocol.SSH: deny()})
    p.client(GET)
    commands = p.client(b"SSH-2.0-evil\r\n".ljust(len(GET)), at=0)
    assert commands == ["write deny overlap_conflict", "deny connection", f"release {len(GET)}"]
    assert not [d for d in p.decisions if d.verdict == Verdict.ALLOW]


def test_denied_by_protocol() -> None:
    p = play({}, default=deny(reset=True))
    assert p.client(GET) == ["write deny default", "deny connection", f"release {len(GET)}"]
    assert p.records[0]["rule"] == "default"
    assert p.client(GET) == [f"discard {len(GET)}"]


def test_denied_without_reset_lets_no_frame_go() -> None:
    p = play({}, default=deny(reset=False))
    assert p.client(GET) == ["write deny default", "deny connection", f"discard {len(GET)}"]


def test_of_several_held_frames_the_lowest_becomes_the_reset() -> None:
    p = play({}, default=deny())
    assert p.client(GET[10:20], at=10) == []
    assert p.client(GET[20:], at=20) == []
    assert p.client(GET[:10], at=0)[:3] == ["write deny default", "deny connection", "discard 10"]
    released = [c.packet for c in p.done if isinstance(c, Release)]
    assert [bytes(packet.payload) for packet in released] == [GET[:10]]


def test_what_no_parser_names_is_unknown() -> None:
    p = play({Protocol.UNKNOWN: allow()})
    assert p.client(b"\x07hello\xff\xff") == ["write allow protocol", "release 8"]
    assert p.records[0]["first"] == p.records[0]["protocol"] == "unknown"


def test_rule_on_the_protocol_alone_hands_back() -> None:
    p = play({Protocol.GRPC: inspect("grpc-only")})
    client, server = h2.Sender(), h2.Sender()
    assert p.client(h2.START) == [f"release {len(h2.START)}"]
    p.server(h2.settings())
    call = client.call(1, "/any.Service/Any")
    assert p.client(h2.SETTINGS_ACK + call) == ["write allow rule", f"release {9 + len(call)}"]
    assert not p.decisions
    p.server(h2.SETTINGS_ACK + server.response(1))
    assert [(d.verdict, d.scope, d.protocol, d.first_protocol) for d in p.decisions] == [
        (Verdict.ALLOW, Scope.CONNECTION, Protocol.GRPC, Protocol.HTTP2)
    ]
    record = p.records[0]
    assert (record["rule_file"], record["l7_rule"]) == ("grpc-only", "any-call")
    assert record["grpc"] == {"service": "any.Service", "method": "Any"}


# -- request by request ---------------------------------------------------------------------------------------------


def test_first_request_allowed_second_denied_is_denied() -> None:
    p = play(WEB)
    assert p.client(GET) == ["write allow rule", f"release {len(GET)}"]
    assert p.server(OK) == [f"release {len(OK)}"]
    assert p.client(ADMIN) == ["write deny rule", "deny request", f"release {len(ADMIN)}"]
    assert [(d.verdict, d.reason) for d in p.decisions] == [(Verdict.DENY, Reason.RULE)]
    assert [record["http"]["path"] for record in p.records] == ["/", "/admin"]
    assert p.records[1]["l7_rule"] == "no-admin"
    assert p.records[1]["scope"] == "request"


def test_pipelined_request_in_one_segment() -> None:
    p = play(WEB)
    commands = p.client(GET + ADMIN)
    assert commands[:3] == ["write allow rule", "write deny rule", "deny request"]
    deny_at = next(n for n, c in enumerate(p.done) if isinstance(c, Decide))
    assert not [c for c in p.done[:deny_at] if isinstance(c, Release)]


def test_request_scoped_flows_never_go_back() -> None:
    p = play(WEB)
    for _ in range(20):
        p.client(GET)
        p.server(OK)
    assert p.decisions == []
    assert len(p.records) == 1, "the first request, as log is not `all`"


def test_log_all_records_each_request() -> None:
    p = play({Protocol.HTTP: inspect("web", log="all")})
    p.client(GET)
    p.server(OK)
    p.client(GET)
    assert len(p.records) == 2


def test_no_rule_denies() -> None:
    p = play(WEB)
    assert p.client(GET.replace(b"GET", b"PUT"))[:2] == ["write deny no_rule", "deny request"]
    assert "l7_rule" not in p.records[0]


def test_bodies_are_no_requests() -> None:
    p = play(WEB)
    post = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % len(ADMIN)
    p.client(post)
    assert p.client(ADMIN) == [f"release {len(ADMIN)}"]
    assert p.client(ADMIN)[:2] == ["write deny rule", "deny request"]


def test_grpc_calls_are_judged_one_by_one() -> None:
    p = play(GRPC)
    client = h2.Sender()
    p.client(h2.START)
    p.server(h2.settings())
    assert p.client(client.call(1, "/lab.Echo/Say"))[0] == "write allow rule"
    denied = client.call(3, "/lab.Admin/Wipe")
    assert p.client(denied)[:2] == ["write deny no_rule", "deny request"]
    assert p.records[-1]["grpc"] == {"service": "lab.Admin", "method": "Wipe"}
    assert (p.records[-1]["first"], p.records[-1]["protocol"]) == ("http2", "grpc")


def test_a_grpc_call_does_not_open_a_connection_of_http2() -> None:
    """The connection began as HTTP/2, ruled by request: an allow of gRPC as such must not end that."""
    p = play({Protocol.HTTP2: inspect("web"), Protocol.GRPC: allow()})
    client = h2.Sender()
    p.client(h2.START)
    p.client(client.request(1, "/"))
    p.client(client.call(3, "/any.Service/Any"))
    p.server(h2.settings() + h2.SETTINGS_ACK)
    assert p.client(client.request(5, "/admin"))[:2] == ["write deny rule", "deny request"]
    assert [d.verdict for d in p.decisions] == [Verdict.DENY]


# -- forward under inspection ---------------------------------------------------------------------------------------


def test_preface_and_settings_go_on_at_once() -> None:
    p = play(GRPC)
    assert p.client(h2.START) == [f"release {len(h2.START)}"]
    assert p.server(h2.settings()) == ["release 9"]
    assert p.client(h2.SETTINGS_ACK) == ["release 9"]
    assert p.records == []


def test_server_that_speaks_first() -> None:
    p = play(GRPC)
    assert p.server(h2.settings()) == []
    assert p.wait(0.021) == ["release 9"]
    assert p.client(h2.START) == [f"release {len(h2.START)}"]


@pytest.mark.parametrize("cut", [1, 3, 10, len(ADMIN) - 1])
def test_incomplete_request_waits_20_ms_and_its_last_byte_for_judgement(cut: int) -> None:
    p = play(WEB)
    assert p.client(ADMIN[:cut]) == []
    assert p.wait(0.019) == []
    assert p.wait(0.002) == [f"release {cut}"]
    commands = p.client(ADMIN[cut:])
    assert commands[:2] == ["write deny rule", "deny request"]
    assert p.records[0]["latency"] == pytest.approx(0.021)


def test_incomplete_header_block_waits() -> None:
    p = play(GRPC)
    client = h2.Sender()
    p.client(h2.START)
    call = client.call(1, "/lab.Admin/Wipe")
    assert p.client(call[:30]) == []
    assert p.wait(0.021) == ["release 30"]
    assert p.client(call[30:])[:2] == ["write deny no_rule", "deny request"]


def test_the_next_incomplete_request_is_held_again() -> None:
    p = play(WEB)
    p.client(GET[:5])
    p.wait(0.03)
    p.client(GET[5:])
    assert p.client(ADMIN[:5]) == []
    assert p.wait(0.021) == ["release 5"]


# -- upgrades -------------------------------------------------------------------------------------------------------


def test_h2c_upgrade_is_judged_on_both_sides_of_the_switch() -> None:
    p = play(WEB)
    client = h2.Sender()
    assert p.client(UPGRADE) == ["write allow rule", f"release {len(UPGRADE)}"]
    p.server(SWITCH + h2.settings())
    assert p.records[-1]["protocol"] == "http2"
    assert p.client(h2.START)[-1] == f"release {len(h2.START)}"
    assert p.client(client.request(3, "/admin"))[:2] == ["write deny rule", "deny request"]
    assert (p.records[-1]["first"], p.records[-1]["protocol"]) == ("http", "http2")


def test_the_upgraded_request_is_judged_as_http2_too() -> None:
    p = play({Protocol.HTTP: allow(), Protocol.HTTP2: inspect("greeter")})
    assert p.client(UPGRADE) == [f"release {len(UPGRADE)}"]
    assert p.server(SWITCH)[:2] == ["write deny no_rule", "deny connection"]


def test_bytes_behind_an_offer_wait_for_the_answer() -> None:
    p = play(WEB)
    assert p.client(WEBSOCKET + ADMIN) == ["write allow rule"]
    assert p.wait(0.1) == []
    # declined: what came behind is the next request
    assert "deny request" in p.server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_declined_upgrade_allows_for_good_what_is_allowed() -> None:
    p = play({Protocol.HTTP: allow(), Protocol.WEBSOCKET: deny()})
    assert p.client(WEBSOCKET) == [f"release {len(WEBSOCKET)}"]
    assert p.server(OK) == ["write allow protocol", f"release {len(OK)}"]


def test_websocket_is_a_protocol_of_its_own() -> None:
    p = play({Protocol.HTTP: inspect("web"), Protocol.WEBSOCKET: allow()})
    p.client(WEBSOCKET)
    assert p.server(SWITCH)[0] == "write allow protocol"
    assert (p.records[-1]["first"], p.records[-1]["protocol"]) == ("http", "websocket")
    denied = play(WEB)
    denied.client(WEBSOCKET)
    assert denied.server(SWITCH)[:2] == ["write deny default", "deny connection"]


def test_upgrade_to_something_else_is_unknown() -> None:
    p = play(WEB)
    p.client(WEBSOCKET.replace(b"websocket", b"tftp"))
    assert p.server(SWITCH)[:2] == ["write deny default", "deny connection"]
    assert p.records[-1]["protocol"] == "unknown"


def test_switch_that_nobody_offered() -> None:
    p = play(WEB)
    p.client(GET)
    assert p.server(SWITCH)[:2] == ["write deny parse_error", "deny connection"]


def test_body_behind_an_offer_is_refused() -> None:
    """It could be read as requests, and a real one behind it as a body."""
    p = play(WEB)
    post = WEBSOCKET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 90\r\n\r\n")
    assert p.client(post)[:2] == ["write deny parse_error", "deny connection"]


def test_connect_opens_a_tunnel_only_where_allowed() -> None:
    connect = b"CONNECT db.example:3306 HTTP/1.1\r\nHost: db.example:3306\r\n\r\n"
    assert play(WEB).client(connect)[:2] == ["write deny no_rule", "deny request"]
    p = play({Protocol.HTTP: allow()})
    assert p.client(connect) == [f"release {len(connect)}"]
    assert p.server(b"HTTP/1.1 200 OK\r\n\r\n")[0] == "write allow protocol"


KEYED = (
    "name: keyed\nprotocol: [http, http2, grpc]\nrules:\n"
    "- {id: key, action: allow, match: {http.header.x-key: sesame, http.version: ['1.1', '2']}}\n"
)


def test_what_is_told_on_demand_is_told_from_the_first_request_on() -> None:
    problems = Problems()
    rule_file = read_rule_file(KEYED, "keyed.yaml", problems)
    assert rule_file is not None, problems.found
    policy = dict.fromkeys((Protocol.HTTP, Protocol.HTTP2), inspect("keyed"))
    first = GET[:-2] + b"X-Key: sesame\r\n\r\n"
    p = Play(policy, RuleSet({"keyed": rule_file}))
    assert p.client(first) == ["write allow rule", f"release {len(first)}"]
    assert p.records[-1]["http"] == {
        "method": "GET", "path": "/", "host": "a.example", "version": "1.1",
    }, "a header may be a secret"  # fmt: skip
    assert p.client(GET)[:2] == ["write deny no_rule", "deny request"]
    p = Play(policy, RuleSet({"keyed": rule_file}))
    sender = h2.Sender()
    assert p.client(h2.START + sender.request(1, "/", "GET", ("x-key", "sesame")))[0] == "write allow rule"
    assert p.client(sender.request(3))[:2] == ["write deny no_rule", "deny request"]


# -- named by both sides' bytes -------------------------------------------------------------------------------------

GREETING = b"220 mx ESMTP\r\n"
EHLO = b"EHLO a\r\n"
WELCOME = b"220 welcome\r\n"


def test_named_by_the_greeting_it_is_handed_back_once_the_client_has_spoken() -> None:
    p = play({Protocol.SMTP: allow()})
    assert p.server(GREETING) == ["write allow protocol", f"release {len(GREETING)}"]
    p.wait(1.0)
    assert p.client(b"", flags=ACK) == ["release 0"]
    assert p.client(EHLO) == [f"release {len(EHLO)}"]
    assert p.decisions == []
    assert p.server(b"250 mx\r\n") == ["release 8", "allow connection"]
    assert p.decisions[0].protocol == Protocol.SMTP


@pytest.mark.parametrize("urgent", [False, True])
def test_behind_a_greeting_the_client_must_not_have_two_readings(urgent: bool) -> None:
    p = play({Protocol.SSH: allow()})
    p.server(b"SSH-2.0-OpenSSH_9.6\r\n")
    if urgent:
        found = p.client(b"SSH-2!.0-x\r\n", flags=ACK | URG, urgent=6)
    else:
        p.client(b"XyZ0", at=1)
        found = p.client(b"SSH-2.0-x\r\n", at=0)
    assert found[:2] == ["write deny overlap_conflict", "deny connection"]


def test_what_a_greeting_leaves_open_the_client_tells() -> None:
    p = play({Protocol.SMTP: allow(), Protocol.FTP: deny(rule="no-ftp")})
    assert p.server(WELCOME) == []
    assert p.wait(0.021) == [f"release {len(WELCOME)}"], "it waits for the client, who waits for it"
    assert p.client(b"USER a\r\n")[:2] == ["write deny default", "deny connection"]
    assert (p.records[0]["first"], p.records[0]["rule"]) == ("ftp", "no-ftp")


LIKELY = b"\xc0\0\x40\2\0\x09\x40\2\0\x0a", b"\xd0\0\x32\x0c\0\x03a/b\0\x09hello"


@pytest.mark.parametrize("unknown", [allow(), deny()])
def test_what_is_only_likely_is_named_and_unknown_to_policy(unknown: Judgement) -> None:
    p = play({Protocol.MQTT: allow(rule="mqtt"), Protocol.UNKNOWN: unknown})
    p.client(LIKELY[0])
    p.server(LIKELY[1])
    p.client(b"", flags=ACK)
    p.server(b"", flags=ACK)
    record = p.records[0]
    assert (record["first"], record["protocol"]) == ("mqtt", "unknown")
    assert (record["verdict"], record["rule"]) == (unknown.verdict.name.lower(), unknown.rule or "default")
    assert p.kernel.asked == [1 << Protocol.UNKNOWN]
    # The kernel, too, must not judge by that name when the policy changes.
    assert [(d.protocol, d.first_protocol) for d in p.decisions] == [(Protocol.UNKNOWN, Protocol.MQTT)]


def test_memcached_by_datagram() -> None:
    p = play({Protocol.MEMCACHED: allow()})
    packet = parse_frame(udp_frame(CLIENT, SERVER, 40000, 80, b"\0\1\0\0\0\1\0\0stats\r\n"))
    p.kernel.sessions = {flow_key(packet)[0]: SessionInfo(1, not flow_key(packet)[1])}
    assert names(p.feed(packet)) == ["write allow protocol", "allow connection", "release 15"]
    assert p.decisions[0].protocol == Protocol.MEMCACHED


# -- exceptions -----------------------------------------------------------------------------------------------------


def test_need_more_after_two_seconds_is_unknown() -> None:
    p = play({Protocol.UNKNOWN: deny()})
    p.client(b"SSH")
    assert p.wait(1.9) == ["release 3"]
    assert p.wait(0.2) == ["write deny need_more", "deny connection"]


def test_need_more_allowed_as_unknown_stays_under_inspection() -> None:
    p = play({Protocol.UNKNOWN: allow(), Protocol.SSH: deny(rule="no-ssh")})
    p.client(b"SSH")
    p.wait(2.1)
    assert (p.records[-1]["verdict"], p.records[-1]["scope"]) == ("allow", "request")
    assert p.decisions == []
    assert p.client(b"-2.0-evil\r\n")[:2] == ["write deny default", "deny connection"]


def test_half_a_request_after_two_seconds_is_denied() -> None:
    p = play(WEB)
    p.client(GET[:20])
    assert p.wait(2.1) == ["release 20", "write deny need_more", "deny connection"]


def test_need_more_at_64_kib() -> None:
    p = play({Protocol.UNKNOWN: deny()})
    for _ in range(43):
        p.client(b"GET /" + bytes(b"a" * 1495) if not p.connection.sent[0] else b"a" * 1500)
        p.wait(0.021)
    assert p.decisions == []
    p.client(b"a" * 1500)
    assert [d.verdict for d in p.decisions] == [Verdict.DENY]
    assert p.records[0]["first"] == "unknown"


def test_need_more_after_so_many_packets() -> None:
    limits = Limits()
    p = play({Protocol.UNKNOWN: deny()}, limits=limits)
    p.client(b"GET /")
    for _ in range(limits.need_more_packets - 2):
        p.client(b"a")
    assert p.decisions == []
    p.client(b"a")
    assert [d.verdict for d in p.decisions] == [Verdict.DENY]
    assert (p.records[0]["first"], p.records[0]["reason"]) == ("unknown", "default")


def test_parse_error_denies() -> None:
    p = play(WEB)
    assert p.client(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")[:2] == [
        "write deny parse_error",
        "deny connection",
    ]
    assert p.inspector.stats.parse_error == 1


def test_parse_error_may_be_inspected_as_unknown() -> None:
    p = play({**WEB, Protocol.UNKNOWN: allow()}, exceptions=Exceptions(parse_error=Action.INSPECT))
    assert p.client(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")[0] == "write allow protocol"


def test_overlap_conflict_in_the_queue() -> None:
    p = play(WEB)
    p.client(GET[5:20], at=5)
    assert p.client(b"X" * 15, at=5)[:2] == ["write deny overlap_conflict", "deny connection"]


def test_urgent_byte_is_a_conflict() -> None:
    p = play(WEB)
    assert p.client(GET, flags=ACK | URG, urgent=3)[:2] == ["write deny overlap_conflict", "deny connection"]


def test_reassembly_limit() -> None:
    p = play(WEB)
    assert p.client(b"x" * 1000, at=300_000)[:2] == ["write deny reassembly_limit", "deny connection"]


def test_held_frames_of_a_flow_are_bounded() -> None:
    limits = Limits(flow_held=10_000)
    p = play(WEB, limits=limits)
    for number in range(1, 40):
        p.client(b"x" * 1000, at=number * 1000)
        assert p.inspector.stats.held_bytes <= limits.flow_held + 1100
    assert p.records[-1]["reason"] == "reassembly_limit"


def test_midstream() -> None:
    p = play(WEB)
    p.kernel.open(p.connection, midstream=True)
    assert p.client(GET, at=5000)[:2] == ["write deny midstream", "deny connection"]


def test_midstream_may_be_inspected() -> None:
    p = play(WEB, exceptions=Exceptions(midstream=Action.INSPECT))
    p.kernel.open(p.connection, midstream=True)
    assert p.client(ADMIN, at=5000)[:2] == ["write deny rule", "deny request"]


def test_exceptions_may_allow() -> None:
    p = play(WEB, exceptions=Exceptions(parse_error=Action.ALLOW))
    bad = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    assert p.client(bad) == ["write allow parse_error", "allow connection", f"release {len(bad)}"]


def test_bad_checksum_does_not_speak() -> None:
    p = play(WEB)
    packet = p.connection.client(ADMIN, at=0)
    packet.bad_checksum = True
    assert names(p.feed(packet)) == [f"discard {len(ADMIN)}"]
    assert p.client(GET)[0] == "write allow rule"


def test_acknowledgement_of_the_future_is_discarded() -> None:
    p = play(WEB)
    packet = p.connection.client(ADMIN, at=0)
    packet.ack += 1000
    p.server(b"x")
    assert names(p.feed(packet)) == [f"discard {len(ADMIN)}"]


# -- order, copies --------------------------------------------------------------------------------------------------


def test_out_of_order_is_put_in_order() -> None:
    p = play(WEB)
    assert p.client(GET[20:], at=20) == []
    assert p.client(GET[10:20], at=10) == []
    assert p.client(GET[:10], at=0) == ["write allow rule", "release 10", "release 10", f"release {len(GET) - 20}"]
    assert p.released() == GET


def test_copies_of_held_bytes_are_discarded() -> None:
    p = play(WEB)
    p.client(GET[:10], at=0)
    assert p.client(GET[:10], at=0) == ["discard 10"]
    p.client(GET[20:25], at=20)
    assert p.client(GET[20:25], at=20) == ["discard 5"]
    assert p.inspector.stats.duplicates == 2
    p.wait(0.03)
    assert p.client(GET[:10], at=0) == ["release 10"], "it went on, the copy may too"


def test_forgotten_bytes_do_not_come_again() -> None:
    """256 KiB later nobody can compare: the copy of what was never acknowledged is refused."""
    p = play(WEB)
    size = 400_000
    head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % size
    p.client(head)
    for _ in range(size // 10_000):
        p.client(b"b" * 10_000)
    assert p.client(ADMIN, at=0)[:2] == ["write deny reassembly_limit", "deny connection"]


# -- ends -----------------------------------------------------------------------------------------------------------


def test_both_fins_end_the_flow() -> None:
    p = play(WEB)
    p.client(GET)
    p.server(OK)
    assert p.client(b"", flags=ACK | FIN) == ["release 0"]
    assert p.inspector.stats.flows == 1
    assert p.server(b"", flags=ACK | FIN) == ["release 0"]
    assert p.inspector.stats.flows == 0


def test_a_fin_behind_held_bytes_waits_for_them() -> None:
    p = play(WEB)
    p.client(GET[:10])
    assert p.client(b"", flags=ACK | FIN) == []
    for _ in range(100):
        assert p.client(b"", at=10, flags=ACK | FIN) == ["discard 0"], "one is enough"
    assert p.wait(0.021) == ["release 10", "release 0"]


def test_reset_ends_the_flow() -> None:
    p = play(WEB)
    p.client(GET[:10])
    assert "release 0" in p.client(b"", flags=RST | ACK)
    assert p.inspector.stats.flows == 0


def test_reset_elsewhere_does_not() -> None:
    p = play(WEB)
    p.client(GET)
    assert p.client(b"", at=5000, flags=RST) == ["release 0"]
    assert p.inspector.stats.flows == 1


@pytest.mark.parametrize("in_order", [True, False])
def test_new_connection_on_the_same_ports(in_order: bool) -> None:
    """Its SYN passes in the kernel: only the session's id tells."""
    p = play({**WEB, Protocol.SSH: deny()})
    p.client(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n")
    p.client(b"x" * (60_000 - p.connection.sent[0]))
    isn = (p.connection.isn[0] + 60_000) & 0xFFFFFFFF if in_order else 777
    p.connection = Connection(isn=(isn, 888))
    p.kernel.open(p.connection, 2)
    assert p.client(b"SSH-2.0-evil\r\n")[:2] == ["write deny default", "deny connection"]
    assert p.records[-1]["session"] == 2


def test_new_connection_behind_a_decided_one() -> None:
    p = play({Protocol.HTTP: allow(), Protocol.SSH: deny()}, limits=Limits(confirm=False))
    p.client(GET)
    assert p.decisions[0].verdict == Verdict.ALLOW
    p.kernel.open(p.connection, 2)
    p.connection.sent = [0, 0]
    assert p.client(b"SSH-2.0-evil\r\n")[:2] == ["write deny default", "deny connection"]


def test_syn_with_data_is_judged() -> None:
    p = play(WEB)
    assert p.client(ADMIN, at=0, flags=SYN)[:2] == ["write deny rule", "deny request"]


def test_forget_discards_what_is_held() -> None:
    p = play(WEB)
    p.client(GET[:10])
    assert p.forget() == ["discard 10"]
    assert p.inspector.stats.flows == p.inspector.stats.held_bytes == p.inspector.stats.kept_bytes == 0
    assert p.forget(99) == []


def test_close_judges_what_was_seen() -> None:
    p = play({Protocol.UNKNOWN: deny()})
    p.client(b"SSH")
    assert "deny connection" in names(p.inspector.close(p.now))


def test_no_session_is_discarded() -> None:
    p = play(WEB)
    p.kernel.sessions.clear()
    assert p.client(GET) == [f"discard {len(GET)}"]
    assert p.inspector.stats.no_session == 1


def test_a_sleeping_connection_is_not_forgotten_while_its_session_lives() -> None:
    p = play(WEB)
    p.client(GET)
    p.server(OK)
    p.wait(3600)
    assert p.client(ADMIN)[:2] == ["write deny rule", "deny request"]
    p.kernel.sessions.clear()
    p.wait(700)
    assert p.inspector.stats.flows == 0


# -- monitor, reload ------------------------------------------------------------------------------------------------


def test_monitor_records_what_enforce_would_do_and_drops_nothing() -> None:
    p = play({Protocol.HTTP: inspect("web", monitor=True)}, default=deny(monitor=True))
    assert p.client(ADMIN) == ["write deny rule", "deny request", f"release {len(ADMIN)}"]
    assert p.records[0]["enforced"] is False
    assert p.decisions[0].judgement.monitor
    assert p.client(ADMIN) == [f"release {len(ADMIN)}"]
    assert p.inspector.stats.discarded == 0


def test_monitor_covers_exceptions() -> None:
    p = play({Protocol.HTTP: inspect("web", monitor=True)}, default=deny(monitor=True))
    bad = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    assert p.client(bad) == ["write deny parse_error", "deny connection", f"release {len(bad)}"]


def test_reload_judges_requests_to_come() -> None:
    p = play(WEB)
    p.client(GET)
    p.server(OK)
    p.kernel.policy[Protocol.HTTP] = deny(rule="closed", revision=8)
    assert p.client(GET) == [f"release {len(GET)}"]
    p.inspector.reload(RULES)
    assert p.client(GET)[:2] == ["write deny default", "deny connection"]
    assert p.records[-1]["revision"] == 8


def test_reload_takes_new_rules() -> None:
    p = play(WEB)
    p.client(GET)
    p.inspector.reload(RuleSet())
    assert p.client(GET)[:2] == ["write deny no_rule", "deny connection"]


def test_a_verdict_the_kernel_refused_is_sent_again() -> None:
    p = play({Protocol.HTTP: allow()}, limits=Limits(confirm=False))
    info = p.kernel.sessions[p.connection.key]
    p.client(GET)
    p.kernel.sessions[p.connection.key] = replace(info, judgement=Judgement(Verdict.INSPECT, revision=8))
    p.kernel.policy[Protocol.HTTP] = allow(revision=8)
    assert p.client(GET) == [f"release {len(GET)}"], "maybe it is only on its way"
    p.wait(0.06)
    assert p.client(GET) == ["allow connection", f"release {len(GET)}"]
    assert p.decisions[-1].judgement.revision == 8


def test_an_allow_that_the_new_policy_does_not_give_is_denied() -> None:
    p = play({Protocol.HTTP: allow()}, limits=Limits(confirm=False))
    info = p.kernel.sessions[p.connection.key]
    p.client(GET)
    p.kernel.sessions[p.connection.key] = replace(info, judgement=Judgement(Verdict.INSPECT, revision=8))
    p.kernel.policy[Protocol.HTTP] = inspect("web", revision=8)
    p.wait(0.06)
    assert p.client(GET)[:2] == ["write deny midstream", "deny connection"]


# -- datagrams ------------------------------------------------------------------------------------------------------

QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x03lab\x04test\x00\x00\x01\x00\x01"


def datagram(p: Play, payload: bytes, *, back: bool = False) -> list[str]:
    ends = (SERVER, CLIENT, 53, 40000) if back else (CLIENT, SERVER, 40000, 53)
    packet = parse_frame(udp_frame(*ends, payload))
    key = p.connection.key[:36] + b"\x11" + p.connection.key[37:]
    p.connection.dport = 53
    key = key[:32] + (40000).to_bytes(2, "big") + (53).to_bytes(2, "big") + key[36:]
    p.kernel.sessions.setdefault(key, SessionInfo(9, server_is_a=False))
    return names(p.feed(packet))


def test_dns_datagram_allowed() -> None:
    p = play({Protocol.DNS: allow()})
    assert datagram(p, QUERY) == ["write allow protocol", "allow connection", f"release {len(QUERY)}"]
    assert datagram(p, QUERY, back=True) == [f"release {len(QUERY)}"]
    assert p.records[0]["flow"]["l4"] == "udp"


def test_datagrams_denied_are_discarded_all() -> None:
    p = play({})
    assert datagram(p, QUERY) == ["write deny default", "deny connection", f"discard {len(QUERY)}"]
    assert datagram(p, QUERY) == [f"discard {len(QUERY)}"]


def test_malformed_dns_is_a_parse_error_and_the_rest_unknown() -> None:
    p = play({Protocol.UNKNOWN: allow(), Protocol.DNS: allow()})
    assert datagram(p, QUERY[:12] + b"\x7f" + QUERY[13:])[0] == "write deny parse_error"
    other = play({Protocol.UNKNOWN: allow()})
    assert datagram(other, b"\x80hello")[0] == "write allow protocol"


def test_fragments() -> None:
    p = play(WEB)
    packet = p.connection.client(GET)
    packet.place = Fragment(1, 0, more=True)
    assert names(p.feed(packet)) == [f"discard {len(GET)}"]
    p.inspector.reload(RULES, exceptions=Exceptions(fragment=Action.ALLOW))
    assert names(p.feed(packet)) == [f"release {len(GET)}"]


# -- bounds ---------------------------------------------------------------------------------------------------------


def test_timers_do_not_pile_up() -> None:
    p = play(WEB)
    for _ in range(300):
        p.client(GET[:10])
        p.wait(0.021)
        p.client(GET[10:])
        p.server(OK)
    assert len(p.inspector._timers) < 100


def test_counts_come_back_to_zero() -> None:
    p = play(WEB)
    p.client(GET[:10])
    p.client(GET[20:], at=20)
    p.forget()
    assert (p.inspector.stats.held_bytes, p.inspector.stats.kept_bytes) == (0, 0)
    assert State.IDENTIFY == 0
