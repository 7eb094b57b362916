"""Explanations against the naive evaluator, and what is not a flow."""

import pytest

from fastpath.abi import Action, Protocol, Verdict
from fastpath.document import Problems, compose
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.compiler.tables import Tables
from fastpath.policy.explain import NEAR, Explanation, as_json, explain, read_flow
from fastpath.policy.model import Policy, Rule
from fastpath.policy.read import read_policy

POLICY = """\
default: {action: deny}
rules:
  - {id: web, from: 10.1.0.0/16, to: 10.2.0.0/16, proto: tcp, ports: [80, 8000-8100], action: allow}
  - {id: no-ssh, to: 10.2.0.0/16, proto: tcp, ports: 443, app: ssh, action: deny, log: all}
  - {id: tls, from: [10.1.0.0/16, "fd00::/8"], proto: tcp, ports: 443, app: tls, action: allow, mode: monitor}
  - {id: find-out, proto: tcp, ports: 9000, action: inspect}
  - {id: dns, proto: udp, ports: 53, action: allow}
"""


def compiled(text: str = POLICY) -> Tables:
    root = compose(text, "p.yaml", problems := Problems())
    assert root is not None
    policy = read_policy(root, lambda _: None)
    problems.raise_if_any()
    return compile_policy(policy)


def ask(proto: str = "tcp", port: int | None = 80, *, app: str | None = None, source: str = "10.1.0.1") -> Explanation:
    text = None if port is None else str(port)
    return explain(compiled(), read_flow(source=source, destination="10.2.0.1", proto=proto, port=text, app=app))


def near(explanation: Explanation) -> list[tuple[int, str]]:
    return [(each.rule, each.failed.name) for each in explanation.near]


def test_the_rule_that_decides_and_how_it_matches() -> None:
    told = ask(port=8080)
    assert (told.walk.verdict, told.walk.rule) == (Verdict.ALLOW, 1)
    assert [(each.name, each.flow, each.met) for each in told.conditions] == [
        ("from", "10.1.0.1", "10.1.0.0/16"),
        ("to", "10.2.0.1", "10.2.0.0/16"),
        ("proto", "tcp", "tcp"),
        ("ports", "8080", "8000-8100"),
        ("types", "none", "any"),
        ("app", "not known yet", "any"),
    ]
    assert told.later == []


ZONED = """
defaults: [{from_zone: lan, to_zone: dmz, action: allow}]
rules:
  - {id: here, proto: tcp, direction: to-host, action: deny}
  - {id: tagged, proto: tcp, from_zone: [lan, dmz], vlan: [none, 100-199], action: allow}
"""


def place(from_zone: str | None = None, to_zone: str | None = None, vlan: str | None = None) -> Explanation:
    where = {"from_zone": from_zone, "to_zone": to_zone, "vlan": vlan}
    flow = read_flow(source="10.1.0.1", destination="10.2.0.1", proto="tcp", port="80", zones=("lan", "dmz"), **where)
    return explain(compiled(ZONED), flow)


def test_where_a_flow_comes_from_and_goes_to() -> None:
    told = place("lan", "dmz", "150")
    assert told.walk.rule == 2
    assert [(each.name, each.wanted, each.flow, each.met) for each in told.conditions[6:]] == [
        ("from_zone", ["lan", "dmz"], "lan", "lan"),
        ("vlan", ["none", "100-199"], "150", "100-199"),
    ]
    assert near(told) == [(1, "direction")]
    assert place("lan", "host").walk.rule == 1
    told = place("lan", "dmz", "7")
    assert (told.walk.rule, told.conditions) == (3, [])
    assert near(told) == [(1, "direction"), (2, "vlan")]
    assert near(place()) == [(1, "direction"), (2, "from_zone")]
    shown = as_json(compiled(ZONED).policy, told)
    assert shown["rule"] == {"number": 3, "id": "default:lan>dmz", "place": "p.yaml:2"}
    assert (shown["flow"]["from_zone"], shown["flow"]["to_zone"], shown["flow"]["vlan"]) == ("lan", "dmz", 7)


def test_what_an_undecided_flow_becomes() -> None:
    told = ask(port=443)
    assert (told.walk.verdict, told.walk.rule) == (Verdict.UNDECIDED, 2)
    outcomes = {app: (each.walk.verdict, each.walk.rule) for each in told.later for app in each.apps}
    assert outcomes.pop("ssh") == (Verdict.DENY, 2)
    assert outcomes.pop("tls") == (Verdict.ALLOW, 3)
    assert set(outcomes.values()) == {(Verdict.DENY, 0)}
    assert {"unknown", "http"} <= outcomes.keys()
    # Whoever asks for the protocol is passed over then.
    assert [(each.walk.verdict, each.walk.rule) for each in ask(port=9000).later] == [(Verdict.DENY, 0)]


def test_a_denial_that_another_rule_may_make_is_told_too() -> None:
    # Nothing could allow it, so the first packet is denied; that it was SSH is known later, if ever.
    told = ask(port=443, source="10.9.0.1")
    assert (told.walk.verdict, told.walk.rule) == (Verdict.DENY, 0)
    assert [(each.apps, each.walk.rule) for each in told.later] == [(["ssh"], 2)]


def test_a_known_protocol() -> None:
    told = ask(port=443, app="tls")
    assert (told.walk.verdict, told.walk.rule, told.later) == (Verdict.ALLOW, 3, [])
    assert told.conditions[-1].met == "tls"
    assert near(told) == [(1, "ports"), (2, "app"), (4, "ports")]


def test_nearly_matched_is_one_condition_and_no_more() -> None:
    assert near(ask("tcp", 53)) == [(n, "ports") for n in range(1, 5)] + [(5, "proto")]
    # Two conditions fail of the first.
    assert near(ask("tcp", 81, source="10.9.0.1")) == [(2, "ports"), (4, "ports")]
    # Ports that a protocol has not are a condition of their own.
    assert near(ask("icmp", None)) == []
    failed = ask("tcp", 53).near[0].failed
    assert (failed.flow, failed.wanted, failed.met) == ("53", ["80", "8000-8100"], None)


def test_at_most_so_many_near_ones() -> None:
    rules = tuple(Rule(f"r{n}", Action.ALLOW, protocols=(6,), ports=((n, n),)) for n in range(1, 101))
    flow = read_flow(source="10.0.0.1", destination="10.0.0.2", proto="6", port="200")
    told = explain(compile_policy(Policy(rules)), flow)
    assert (len(told.near), told.more) == (NEAR, 90)
    assert [each.rule for each in told.near] == list(range(1, NEAR + 1))


def test_for_programs() -> None:
    tables = compiled()
    flow = read_flow(source="fd00::1", destination="fd00::2", proto="tcp", sport="9", port="443", app="tls")
    told = as_json(tables.policy, explain(tables, flow))
    assert told["flow"] == {
        "from": "fd00::1", "to": "fd00::2", "proto": "tcp", "sport": 9, "port": 443, "type": None, "app": "tls",
        "from_zone": None, "to_zone": None, "vlan": None,
    }  # fmt: skip
    assert (told["verdict"], told["enforced"], told["reason"]) == ("allow", False, "protocol")
    assert told["rule"] == {"number": 3, "id": "tls", "place": "p.yaml:5"}
    assert told["conditions"][0] == {
        "condition": "from", "wanted": ["10.1.0.0/16", "fd00::/8"], "flow": "fd00::1", "met": "fd00::/8",
    }  # fmt: skip
    assert told["near"][0]["rule"]["id"] == "find-out"
    assert told["near_more"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"destination": "fd00::1"}, "two address families"),
        ({"from_zone": "lan"}, "from_zone: gateway.yaml has no zone 'lan'"),
        ({"from_zone": "host", "to_zone": "host"}, "to_zone: the gateway's own traffic to itself goes nowhere"),
        ({"vlan": "4095"}, "vlan: '4095' is not a VLAN id"),
        ({"source": "10.0.0.0/8"}, "from: '10.0.0.0/8' is not an IPv4 or IPv6 address"),
        ({"source": "fe80::1%eth0"}, "is not an IPv4 or IPv6 address"),
        ({"destination": "::ffff:10.0.0.1"}, "IPv4-mapped address; write 10.0.0.1"),
        ({"proto": "tcpp"}, "proto: 'tcpp' is not one of icmp, tcp"),
        ({"proto": "256"}, "0..255"),
        ({"proto": "-1"}, "0..255"),
        ({"port": None}, "port is missing: tcp has ports"),
        ({"port": "65536"}, "port: '65536' is not a port, 0..65535"),
        ({"sport": "http"}, "sport: 'http' is not a port"),
        ({"port": "٨٠"}, "is not a port"),
        ({"proto": "icmp"}, "port: icmp has no ports"),
        ({"proto": "47", "port": None, "sport": "1"}, "sport: gre has no ports"),
        ({"kind": "8"}, "type: tcp has no types; only icmp and icmp6 do"),
        ({"proto": "icmp", "port": None, "kind": "ping"}, "type: icmp has no type 'ping'; it has echo-reply, dest"),
        ({"proto": "icmp", "port": None, "kind": "8/256"}, "type: '8/256': types and codes are within 0..255"),
        ({"app": "gopher"}, "app: 'gopher' is not one of unknown, http"),
        ({"app": "icmp"}, "app: 'icmp' is not one of"),
        ({"app": "http", "proto": "udp"}, "http never runs over udp"),
        ({"app": "unknown", "proto": "esp", "port": None}, "esp carries no application protocol"),
    ],
)
def test_what_is_no_flow(given: dict[str, str | None], message: str) -> None:
    flow = {"source": "10.0.0.1", "destination": "10.0.0.2", "proto": "tcp", "port": "80"} | given
    with pytest.raises(ValueError) as caught:
        read_flow(**flow)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_known_protocol_of_a_flow() -> None:
    flow = read_flow(source="10.0.0.1", destination="10.0.0.2", proto="tcp", port="0", app="ssh")
    assert (flow.app, flow.possible, flow.dport) == (Protocol.SSH, 1 << Protocol.SSH, 0)


TYPES = """\
rules:
  - {id: ping, proto: [icmp, icmp6], types: echo-request, action: allow}
  - {id: clocks, proto: icmp, types: [13/0, redirect], action: allow}
"""


@pytest.mark.parametrize(
    ("proto", "kind", "rule", "met"),
    [
        ("icmp", None, 1, "echo-request"),
        ("icmp6", None, 1, "echo-request"),
        ("icmp", "8/1", 1, "echo-request/1"),
        ("icmp", "timestamp-request", 2, "timestamp-request"),
        ("icmp6", "redirect", 0, None),
        ("icmp", "13/1", 0, None),
    ],
)
def test_types_of_a_flow(proto: str, kind: str | None, rule: int, met: str | None) -> None:
    ends = ("10.1.0.1", "10.2.0.1") if proto == "icmp" else ("fd00::1", "fd00::2")
    told = explain(compiled(TYPES), read_flow(source=ends[0], destination=ends[1], proto=proto, kind=kind))
    assert told.walk.rule == rule
    of = (
        {each.name: each for each in told.conditions} if rule else {each.failed.name: each.failed for each in told.near}
    )
    assert of["types"].met == met


def test_types_for_programs() -> None:
    flow = read_flow(source="10.1.0.1", destination="10.2.0.1", proto="icmp", kind="3/4")
    told = as_json((tables := compiled(TYPES)).policy, explain(tables, flow))
    assert told["flow"]["type"] == "destination-unreachable/4"
    assert told["near"][0] == {
        "rule": {"number": 1, "id": "ping", "place": "p.yaml:2"}, "condition": "types",
        "wanted": ["icmp/echo-request", "icmp6/echo-request"], "flow": "destination-unreachable/4", "met": None,
    }  # fmt: skip


SERVICES = """\
services:
  names: [{proto: [tcp, udp], ports: 53}, {proto: udp, ports: 5353}, {proto: icmp}]
rules:
  - {id: names, service: names, action: allow}
"""


@pytest.mark.parametrize(
    ("proto", "port", "verdict", "met"),
    [
        ("udp", "53", Verdict.ALLOW, "53"),
        ("udp", "5353", Verdict.ALLOW, "5353"),
        ("tcp", "53", Verdict.ALLOW, "53"),
        ("tcp", "5353", Verdict.DENY, None),
        ("icmp", None, Verdict.ALLOW, "any"),
    ],
)
def test_each_protocol_of_a_service_has_its_ports(
    proto: str, port: str | None, verdict: Verdict, met: str | None
) -> None:
    flow = read_flow(source="10.1.0.1", destination="10.2.0.1", proto=proto, port=port)
    told = explain(compiled(SERVICES), flow)
    assert told.walk.verdict == verdict
    (names,) = told.conditions[3:4] if told.walk.rule else [each.failed for each in told.near]
    assert (names.name, names.met) == ("ports", met)
