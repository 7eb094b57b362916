"""Policy on real traffic: what rules match, what a denial looks like, what is logged, monitor mode, reloads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import Lab, Namespace
from tests.lab.capture import Capture, packets
from tests.lab.clients import V4, V6
from tests.lab.gateway import FASTPATH, Gateway
from tests.netns.peers import (
    Echo,
    Transfer,
    datagrams,
    dial,
    eventually,
    listen,
    mapped,
    pair,
    port_of,
    receive,
    record_of,
    remains,
    session_of,
    silent,
)
from tests.netns.probes import attempt, ping, use

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [V4, V6], ids=["v4", "v6"])
ALLOW_ALL = "default: allow\nrules: []\n"

CONDITIONS = """
default: {action: deny, deny_with: reset}
rules:
  - {id: net4, from: 10.77.1.0/24, to: 10.77.2.2, proto: tcp, ports: 7000, action: allow}
  - {id: other-source4, from: 10.77.1.128/25, proto: tcp, ports: 7001, action: allow}
  - {id: other-target4, to: 10.77.2.3, proto: tcp, ports: 7001, action: allow}
  - {id: net6, from: "fd77:1::/64", to: "fd77:2::2", proto: tcp, ports: 7002, action: allow}
  - {id: other-source6, from: "fd77:1::1:0/112", proto: tcp, ports: 7003, action: allow}
  - {id: ranges, proto: tcp, ports: [7010-7012, 7020], action: allow}
  - {id: all4, from: 0.0.0.0/0, proto: tcp, ports: 7030, action: allow}
  - {id: all6, from: "::/0", proto: tcp, ports: 7031, action: allow}
  - {id: datagrams, proto: udp, ports: 7040, action: allow}
  - {id: late, priority: 30, proto: tcp, ports: 7050-7051, action: deny, deny_with: reset}
  - {id: early, priority: 20, proto: tcp, ports: 7050, action: allow}
  - {id: first-of-equals, proto: tcp, ports: 7060, action: allow}
  - {id: second-of-equals, proto: tcp, ports: 7060, action: deny, deny_with: reset}
  - {id: narrow, priority: 5, from: 10.77.1.2, proto: tcp, ports: 7070, action: deny, deny_with: reset}
  - {id: wide, priority: 6, proto: tcp, ports: 7070, action: allow}
  - {id: echoes, proto: icmp, to: 10.77.2.0/24, action: allow}
"""
PORTS = (*range(7000, 7080), 7101, 7102, 7103, 7104, 7105, 7106)

# Port, host, and the rule that lets it through; None where it is refused.
MATCHES: tuple[tuple[int, str, str | None], ...] = (
    (7000, V4, "net4"),
    (7000, V6, None),
    (7001, V4, None),
    (7001, V6, None),
    (7002, V6, "net6"),
    (7002, V4, None),
    (7003, V6, None),
    (7009, V4, None),
    (7010, V4, "ranges"),
    (7012, V6, "ranges"),
    (7013, V4, None),
    (7020, V4, "ranges"),
    (7021, V6, None),
    (7030, V4, "all4"),
    (7030, V6, None),
    (7031, V4, None),
    (7031, V6, "all6"),
    (7040, V4, None),
    (7050, V4, "early"),
    (7051, V4, None),
    (7060, V6, "first-of-equals"),
    (7070, V4, None),
    (7070, V6, "wide"),
)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        for port in PORTS:
            stack.enter_context(listen(lab, port))
        yield stack.enter_context(Gateway(lab, CONDITIONS))


def drops(gateway: Gateway) -> int:
    """Packets that the kernel half dropped so far."""
    return sum(gateway.stats()["drops"].values())


# -- conditions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "host", "rule"), MATCHES, ids=[f"{port}-{'v6' if ':' in host else 'v4'}" for port, host, _ in MATCHES]
)
def test_first_matching_rule_decides(gateway: Gateway, port: int, host: str, rule: str | None) -> None:
    use(gateway, CONDITIONS)
    outcome, sport = attempt(gateway.lab, port, host)
    assert outcome == ("open" if rule else "refused")
    session = session_of(gateway, sport)
    assert session["verdict"] == ("allow" if rule else "deny")
    if rule:
        assert (session["rule"], session["reason"]) == (rule, "policy")


@HOSTS
@pytest.mark.parametrize(("port", "arrives"), [(7040, True), (7041, False)])
def test_udp_has_rules_of_its_own(gateway: Gateway, host: str, port: int, arrives: bool) -> None:
    use(gateway, CONDITIONS)
    with datagrams(gateway.lab, port) as server, datagrams(gateway.lab, namespace=Namespace.CLIENT) as client:
        client.sendto(b"question", (mapped(host), port))
        if not arrives:
            assert silent(server)
            return
        content, source = server.recvfrom(100)
        assert content == b"question"
        # The answer belongs to the session, whatever rules say of the server.
        server.sendto(b"answer", source)
        assert client.recv(100) == b"answer"


def test_icmp_has_rules_of_its_own(gateway: Gateway) -> None:
    use(gateway, CONDITIONS)
    assert [ping(gateway.lab, host) for host in (V4, V6)] == [True, False]


@HOSTS
def test_icmp_by_type(gateway: Gateway, host: str) -> None:
    for types, answered in (("echo-request", True), ("[echo-reply, 13, redirect]", False), ("[8/0, 128/0]", True)):
        use(gateway, f"rules: [{{id: r, proto: [icmp, icmp6], types: {types}, action: allow}}]\n")
        assert ping(gateway.lab, host) == answered, types


def test_default_allow(gateway: Gateway) -> None:
    use(gateway, "default: allow\nrules: [{id: shut, proto: tcp, ports: 7000, action: deny}]\n")
    assert [attempt(gateway.lab, port)[0] for port in (7000, 7001)] == ["refused", "open"]
    _, sport = attempt(gateway.lab, 7002, V6)
    session = session_of(gateway, sport)
    assert (session["rule"], session["reason"]) == ("default", "default")


def test_more_than_a_thousand_rules(gateway: Gateway) -> None:
    rules = [
        f"  - {{id: r{n}, from: 10.{n >> 8}.{n & 255}.0/24, proto: tcp, ports: {1 + n}, action: deny}}"
        for n in range(1500)
    ]
    rules.append("  - {id: last, from: 10.77.1.2, proto: tcp, ports: 7000, action: allow}")
    use(gateway, "default: {action: deny, deny_with: reset}\nrules:\n" + "\n".join(rules) + "\n")
    assert gateway.status()["policy"]["rules"] == 1501
    outcome, sport = attempt(gateway.lab, 7000)
    assert (outcome, session_of(gateway, sport)["rule"]) == ("open", "last")
    assert attempt(gateway.lab, 7001)[0] == "refused"


# -- denials -------------------------------------------------------------------------------------------------------


@HOSTS
@pytest.mark.parametrize(("deny_with", "outcome"), [("reset", "refused"), ("drop", "silent")])
@pytest.mark.parametrize("by", ["rule", "default"])
def test_what_a_denied_client_sees(gateway: Gateway, by: str, deny_with: str, outcome: str, host: str) -> None:
    rule = f"{{id: shut, proto: tcp, ports: 7000, action: deny, deny_with: {deny_with}}}"
    use(
        gateway,
        f"default: allow\nrules: [{rule}]\n"
        if by == "rule"
        else f"default: {{action: deny, deny_with: {deny_with}}}\nrules: []\n",
    )
    with Capture(gateway.lab, Namespace.SERVER) as capture:
        assert attempt(gateway.lab, 7000, host)[0] == outcome
    assert not list(packets(capture.file, dport=7000))


# -- records -------------------------------------------------------------------------------------------------------


def test_log_decides_about_records(gateway: Gateway) -> None:
    logs = ("none", "deny", "all")
    rules = [
        f"  - {{id: allow-{log}, proto: tcp, ports: {7101 + n}, action: allow, log: {log}}}\n"
        f"  - {{id: deny-{log}, proto: tcp, ports: {7104 + n}, action: deny, log: {log}}}\n"
        for n, log in enumerate(logs)
    ]
    rules.append("  - {id: unsaid, proto: tcp, ports: 7000, action: deny}\n")
    use(gateway, "default: {action: deny, deny_with: reset, log: none}\nrules:\n" + "".join(rules))
    before = gateway.stats()["drops"]
    ports = {attempt(gateway.lab, 7101 + n)[1]: f"allow-{log}" for n, log in enumerate(logs)}
    ports |= {attempt(gateway.lab, 7104 + n)[1]: f"deny-{log}" for n, log in enumerate(logs)}
    ports[attempt(gateway.lab, 7001)[1]] = "default"
    unsaid = attempt(gateway.lab, 7000)[1]
    record = record_of(gateway, unsaid, event="verdict")
    assert (record["rule"], record["verdict"], record["path"]) == ("unsaid", "deny", "kernel")
    written = {
        ports[record["flow"]["sport"]]
        for record in gateway.read_records()
        if record["event"] == "verdict" and record["flow"]["sport"] in ports
    }
    assert written == {"allow-all", "deny-deny", "deny-all"}
    # Counters are never suppressed.
    after = gateway.stats()["drops"]
    assert after["policy"] - before["policy"] == 4
    assert after["default"] - before["default"] == 1


def test_monitor_records_the_verdict_and_drops_nothing(gateway: Gateway) -> None:
    use(
        gateway,
        "mode: monitor\ndefault: {action: deny, deny_with: reset}\n"
        "rules:\n"
        "  - {id: shut, proto: tcp, ports: 7090, action: deny, deny_with: reset}\n"
        "  - {id: really, proto: tcp, ports: 7001, action: deny, mode: enforce}\n",
    )
    before = gateway.stats()["packets"]["monitored"]
    for port, rule in ((7090, "shut"), (7091, "default")):
        with pair(gateway.lab, port) as (client, server):
            client.sendall(b"passes")
            assert receive(server, 6) == b"passes"
            record = record_of(gateway, port_of(client), event="verdict")
            assert (record["verdict"], record["enforced"], record["rule"]) == ("deny", False, rule)
    assert gateway.stats()["packets"]["monitored"] > before
    outcome, sport = attempt(gateway.lab, 7001)
    assert outcome == "refused"
    assert record_of(gateway, sport, event="verdict")["enforced"] is True


# -- reloads -------------------------------------------------------------------------------------------------------


def shut(port: int, deny_with: str) -> str:
    return f"default: allow\nrules: [{{id: shut, proto: tcp, ports: {port}, action: deny, deny_with: {deny_with}}}]\n"


@HOSTS
def test_a_flow_that_is_denied_now_ends_with_its_next_packet(gateway: Gateway, host: str) -> None:
    use(gateway, ALLOW_ALL)
    with pair(gateway.lab, 7090, host) as (client, server):
        client.sendall(b"before")
        assert receive(server, 6) == b"before"
        use(gateway, shut(7090, "reset"))
        client.sendall(b"after")
        assert remains(client) == (b"", "reset")
        assert remains(server) == (b"", "reset")
        record = record_of(gateway, port_of(client), event="verdict")
        assert (record["verdict"], record["rule"]) == ("deny", "shut")


def test_a_denied_flow_is_silent_and_goes_on_when_it_is_allowed_again(gateway: Gateway) -> None:
    use(gateway, ALLOW_ALL)
    with pair(gateway.lab, 7090) as (client, server):
        client.sendall(b"before")
        assert receive(server, 6) == b"before"
        use(gateway, shut(7090, "drop"))
        server.sendall(b"answer")
        assert silent(client)
        assert session_of(gateway, port_of(client))["verdict"] == "deny"
        use(gateway, ALLOW_ALL)
        # The retransmission is judged anew.
        assert receive(client, 6) == b"answer"


def test_a_flow_that_is_allowed_still_keeps_its_session(gateway: Gateway) -> None:
    rule = "  - {id: kept, proto: tcp, ports: 7090, action: allow}\n"
    use(gateway, "rules:\n" + rule)
    with pair(gateway.lab, 7090) as (client, server):
        client.sendall(b"one")
        assert receive(server, 3) == b"one"
        before = session_of(gateway, port_of(client))
        # Another number, and another name: the same rule.
        renamed = rule.replace("kept", "renamed")
        use(gateway, "rules:\n  - {id: in-front, proto: tcp, ports: 1, action: deny}\n" + renamed)
        client.sendall(b"two")
        assert receive(server, 3) == b"two"
        after = session_of(gateway, port_of(client))
    assert after["session"] == before["session"]
    assert after["packets"][0] > before["packets"][0]
    assert (before["rule"], after["rule"]) == ("kept", "renamed")
    assert after["revision"] > before["revision"]


def test_a_transfer_does_not_notice_reloads(gateway: Gateway) -> None:
    policies = [
        "rules:\n" + "".join(f"  - {{id: r{n}, from: 10.9.{n}.0/24, action: deny}}\n" for n in range(count))
        + f"  - {{id: transfer-{count}, proto: tcp, ports: 7090, action: allow, log: {log}}}\n"
        for count, log in ((3, "none"), (200, "all"))
    ]  # fmt: skip
    use(gateway, policies[0])
    dropped = drops(gateway)
    with Echo(gateway.lab, 7090), dial(gateway.lab, 7090) as sock:
        with Transfer(sock) as transfer:
            for n in range(1, 51):
                passed = transfer.rounds
                use(gateway, policies[n % 2])
                eventually(lambda passed=passed: transfer.problems or transfer.rounds > passed)
        assert transfer.problems == []
        session = session_of(gateway, port_of(sock))
    assert drops(gateway) == dropped
    # One session for all of it, the last reload's included.
    assert sum(session["bytes"]) > 2 * transfer.rounds * 65536
    assert session["rule"] == "transfer-3"


def test_a_broken_policy_changes_nothing_and_all_of_it_is_reported(gateway: Gateway) -> None:
    good = "default: {action: deny, deny_with: reset}\nrules:\n  - {id: kept, proto: tcp, ports: 7000, action: allow}\n"
    use(gateway, good)
    before: dict[str, Any] = gateway.status()["policy"]
    said = len(gateway.log(FASTPATH).read_text())
    broken = (
        "rules:\n"
        "  - {id: a, proto: tcp, ports: 99999, action: allow}\n"
        "  - {id: b, from: 10.77.1.1/24, action: allow}\n"
        "  - {id: b, action: perhaps}\n"
        "  - {id: d, action: allow, colour: red}\n"
    )
    try:
        gateway.write_policy(broken)
        gateway.children[FASTPATH].send_signal(1)
        log = eventually(
            lambda: text if "nothing was applied" in (text := gateway.log(FASTPATH).read_text()[said:]) else ""
        )
        for line, what in ((2, "99999"), (3, "host bits"), (4, "'perhaps'"), (5, "'colour'")):
            assert any(f"{gateway.policy}:{line}: " in each and what in each for each in log.splitlines()), (line, log)
        assert gateway.status()["policy"] | {"problem": None} == before
        assert [attempt(gateway.lab, port)[0] for port in (7000, 7001)] == ["open", "refused"]
    finally:
        gateway.write_policy(good)


def test_a_setting_that_needs_a_restart_is_refused(gateway: Gateway) -> None:
    use(gateway, CONDITIONS)
    before = gateway.status()["policy"]["revision"]
    said = len(gateway.log(FASTPATH).read_text())
    settings = dict(gateway.settings)
    try:
        gateway.settings |= {"prio": 12, "hook": "clsact"}
        gateway.write_config()
        gateway.children[FASTPATH].send_signal(1)
        eventually(lambda: "needs a restart to change hook, prio" in gateway.log(FASTPATH).read_text()[said:])
        assert gateway.status()["policy"]["revision"] == before
    finally:
        gateway.settings = settings
        gateway.write_config()
