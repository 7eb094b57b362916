from ipaddress import ip_network
from pathlib import Path

import pytest

from fastpath.abi import Action, Protocol
from fastpath.document import InvalidDocumentError
from fastpath.policy.model import ANY_APP, TCP, UDP, Default, Log, Rule, RuleFileUse
from fastpath.policy.read import load_policy
from tests.unit.fastpath.policy import DIGESTS, policy_of, read


def rule_of(fields: str) -> Rule:
    return policy_of(f"rules:\n  - {{id: r, {fields}}}").rules[0]


def problem_of(fields: str) -> str:
    _, problems = read(f"rules:\n  - {{id: r, {fields}}}")
    assert len(problems) == 1, problems
    assert problems[0].startswith("p.yaml:2: rules[0]")
    return problems[0].removeprefix("p.yaml:2: rules[0]").lstrip(".")


def test_everything_at_once() -> None:
    policy = policy_of("""
default: {action: allow, log: all, deny_with: reset, mode: monitor}
rules:
  - id: second
    action: deny
  - id: first
    description: two families
    priority: 5
    from: [10.77.1.0/24, fd77:1::/64, 192.0.2.1]
    to: ::/0
    proto: [tcp, 17]
    ports: [80, 8080-8090]
    app: [dns, unknown]
    action: inspect
    rules: [web, greeter]
    deny_with: drop
    log: all
    mode: monitor
    on_inspector_down: allow
""")
    assert policy.default == Default(Action.ALLOW, reset=True, log=Log.ALL, monitor=True)
    assert policy.file == "p.yaml"
    assert policy.rules == (
        Rule(
            id="first",
            action=Action.INSPECT,
            sources=(ip_network("10.77.1.0/24"), ip_network("fd77:1::/64"), ip_network("192.0.2.1/32")),
            destinations=(ip_network("::/0"),),
            protocols=(TCP, UDP),
            ports=((80, 80), (8080, 8090)),
            apps=1 << Protocol.DNS | 1 << Protocol.UNKNOWN,
            rule_files=(RuleFileUse("web", "abc"), RuleFileUse("greeter", "def")),
            reset=False,
            log=Log.ALL,
            monitor=True,
            down_allow=True,
            priority=5,
            description="two families",
            line=6,
            file="p.yaml",
        ),
        Rule(id="second", action=Action.DENY, reset=True, line=4, file="p.yaml"),
    )


def test_defaults() -> None:
    policy = policy_of("rules: [{id: r, action: allow}]")
    assert policy.default == Default(Action.DENY, reset=False, log=Log.DENY, monitor=False)
    assert policy.rules == (Rule("r", Action.ALLOW, reset=True, line=1, file="p.yaml"),)
    assert policy.rules[0].apps == ANY_APP
    assert policy.rules[0].priority == 1000
    assert policy_of("{default: allow, rules: []}").default.action == Action.ALLOW


def test_mode_of_the_document_is_the_default_of_each_mode() -> None:
    policy = policy_of("{mode: monitor, rules: [{id: a, action: deny}, {id: b, action: deny, mode: enforce}]}")
    assert [rule.monitor for rule in policy.rules] == [True, False]
    assert policy.default.monitor
    assert policy_of("{mode: monitor, default: deny, rules: []}").default.monitor
    assert policy_of("{mode: monitor, default: {log: all}, rules: []}").default.monitor
    assert not policy_of("{mode: monitor, default: {mode: enforce}, rules: []}").default.monitor


@pytest.mark.parametrize(
    ("fields", "reset"),
    [
        ("action: deny", True),
        ("action: deny, proto: [udp, tcp]", True),
        ("action: inspect, rules: web", True),
        ("action: deny, deny_with: drop", False),
        ("action: deny, proto: udp", False),
        ("action: allow", True),
        ("action: allow, deny_with: drop", False),
        ("action: allow, deny_with: reset", True),
    ],
)
def test_tcp_is_reset_unless_told_otherwise(fields: str, reset: bool) -> None:
    assert rule_of(fields).reset is reset


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("action: permit", "action: 'permit' is not one of allow, deny, inspect"),
        ("action: allow, form: 10.0.0.0/8", ": unknown field 'form'"),
        ("action: allow, from: 10.0.0.1/8", "from: 10.0.0.1/8 has host bits set; write 10.0.0.0/8, or 10.0.0.1 for"),
        ("action: allow, to: [fd00::1/64]", "to[0]: fd00::1/64 has host bits set; write fd00::/64, or fd00::1 for"),
        (
            "action: allow, to: '::ffff:10.0.0.1'",
            "to: ::ffff:10.0.0.1 is an IPv4-mapped address; write the IPv4 address",
        ),
        ("action: allow, to: '::ffff:10.0.0.1/104'", "write the IPv4 address: 10.0.0.0/8"),
        ("action: allow, to: '::ffff:0:0/96'", "write the IPv4 address: 0.0.0.0/0"),
        ("action: allow, to: 10.0.0.0/255.0.0.0", "to: '10.0.0.0/255.0.0.0' is not an IPv4 or IPv6 address or prefix"),
        ("action: allow, to: fe80::%eth0/64", "to: 'fe80::%eth0/64' is not an IPv4 or IPv6 address or prefix"),
        ("action: allow, to: 10.0.0.0/33", "to: '10.0.0.0/33' is not"),
        ("action: allow, to: server", "to: there is no group 'server', and it is no address"),
        ("action: allow, to: 10", "to: '10' is not"),
        ("action: allow, to: {cidr: 10.0.0.0/8}", "to: expected text"),
        ("action: allow, to: ", "to: expected text"),
        ("action: allow, to: []", "to: the list is empty: leave the field out"),
        ("action: allow, from: 10.0.0.0/8, to: fd00::/8", "to: never matches: `from` and `to` have no address family"),
        (
            "action: allow, proto: dccp",
            "proto: 'dccp' is not one of icmp, tcp, udp, icmp6, gre, esp, ah, sctp or a number within 0..255",
        ),
        ("action: allow, proto: sctp, ports: 80", "ports: needs `proto: tcp`, `udp` or both, and no other"),
        ("action: inspect, proto: [esp, ah]", "proto: only tcp and udp can be inspected"),
        ("action: allow, proto: [tcp, 256]", "proto[1]: '256' is not one of"),
        ("action: allow, ports: 80", "ports: needs `proto: tcp`, `udp` or both"),
        ("action: allow, proto: [tcp, icmp], ports: 80", "ports: needs `proto: tcp`, `udp` or both"),
        ("action: allow, proto: tcp, ports: 65536", "ports: port 65536 is not within 0..65535"),
        ("action: allow, proto: tcp, ports: [1-65536]", "ports[0]: port 65536 is not within"),
        ("action: allow, proto: tcp, ports: 90-80", "ports: the range is upside down; write 80-90"),
        ("action: allow, proto: tcp, ports: http", "ports: 'http' is not a port or a range of ports"),
        ("action: allow, proto: tcp, ports: -80", "ports: '-80' is not a port or a range of ports"),
        ("action: allow, app: http", "app: needs `proto: tcp`, `udp` or both"),
        ("action: allow, proto: [icmp], app: http", "app: needs `proto: tcp`, `udp` or both"),
        ("action: allow, proto: udp, app: http", "app: never matches over udp"),
        ("action: allow, proto: [tcp, udp], app: http", "app: never matches over udp"),
        ("action: allow, proto: udp, app: [http, dns]", "app: http never runs over udp"),
        ("action: allow, proto: tcp, app: icmp", "app: 'icmp' is not one of unknown, http,"),
        ("action: allow, proto: tcp, app: none", "app: 'none' is not one of unknown, http,"),
        ("action: allow, proto: udp, app: [quic, kafka]", "app: kafka never runs over udp"),
        ("action: allow, proto: tcp, app: quic", "app: never matches over tcp"),
        ("action: inspect, proto: [icmp, 47]", "proto: only tcp and udp can be inspected"),
        ("action: inspect, rules: [web, wbe]", "rules[1]: there is no rule file 'wbe'"),
        ("action: inspect, rules: []", "rules: the list is empty: leave the field out"),
        ("action: allow, rules: web", "rules: rule files belong to `action: inspect`"),
        ("action: deny, proto: udp, deny_with: reset", "deny_with: only tcp can be reset"),
        ("action: deny, deny_with: silence", "deny_with: 'silence' is not one of reset, drop"),
        ("action: deny, log: some", "log: 'some' is not one of none, deny, all"),
        ("action: deny, mode: trial", "mode: 'trial' is not one of enforce, monitor"),
        ("action: deny, on_inspector_down: inspect", "on_inspector_down: 'inspect' is not one of allow, deny"),
        ("action: deny, priority: 65536", "priority: 65536 is not within 0..65535"),
        ("action: deny, priority: high", "priority: expected a whole number"),
        ("from: 10.0.0.0/8", ": missing action"),
    ],
)
def test_problems_of_a_rule(fields: str, expected: str) -> None:
    assert expected in f"{problem_of(fields)}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default: deny", ["p.yaml:1: missing rules"]),
        ("rules: {}", ["p.yaml:1: rules: expected a list"]),
        ("{rules: [], zones: {}}", ["p.yaml:1: unknown field 'zones'; known here: default, defaults, ethertypes"]),
        ("{rules: [], default: inspect}", ["p.yaml:1: default: 'inspect' is not one of allow, deny"]),
        ("{rules: [], default: {on_inspector_down: deny}}", ["p.yaml:1: default: unknown field 'on_inspector_down'"]),
        ("{rules: [], mode: off}", ["p.yaml:1: mode: 'off' is not one of enforce, monitor"]),
        ("rules: [{id: default, action: deny}]", ["p.yaml:1: rules[0].id: 'default' is what records call"]),
        ('rules: [{id: "a\\e[2J", action: deny}]', ["p.yaml:1: rules[0].id: an id is printable text"]),
        ("rules:\n- {id: a, action: deny}\n- {id: a, action: deny}", ["p.yaml:3: rules[1]: id 'a' is used in line 2"]),
        ("rules: [deny]", ["p.yaml:1: rules[0]: expected a mapping"]),
    ],
)
def test_problems_of_a_document(text: str, expected: list[str]) -> None:
    _, problems = read(text)
    assert [found.startswith(start) for found, start in zip(problems, expected, strict=True)] == [True], problems


def test_all_problems_at_once_in_order(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("""
mode: trial
default: {action: drop, log: sometimes}
rules:
  - id: a
    from: [10.0.0.1/8, 10.0.0.0/8, ten]
    proto: tcp
    ports: [70000, 9-1]
    action: allow
    log: maybe
  - id: b
  - id: a
    action: inspect
    rules: nowhere
    colour: red
""")
    with pytest.raises(InvalidDocumentError) as caught:
        load_policy(path, DIGESTS.get)
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (2, "mode"),
        (3, "default.action"),
        (3, "default.log"),
        (6, "rules[0].from[0]"),
        (6, "rules[0].from[2]"),
        (8, "rules[0].ports[0]"),
        (8, "rules[0].ports[1]"),
        (10, "rules[0].log"),
        (11, "rules[1]"),
        (12, "rules[2]"),
        (14, "rules[2].rules"),
        (15, "rules[2]"),
    ]
    assert all(problem.file == str(path) for problem in caught.value.problems)


def test_a_broken_proto_is_reported_once() -> None:
    assert problem_of("action: allow, proto: tpc, ports: 80, app: http").startswith("proto: 'tpc'")


def test_too_many_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpath.policy.read.MAX_RULES", 2)
    text = "rules:\n" + "".join(f"- {{id: r{n}, action: deny}}\n" for n in range(3))
    assert read(text)[1] == ["p.yaml:2: rules: 3 rules; 2 is the most"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocumentError, match="No such file"):
        load_policy(tmp_path / "policy.yaml", DIGESTS.get)


def test_the_example_of_configs() -> None:
    policy = load_policy(Path(__file__).parents[4] / "configs/policy.yaml", DIGESTS.get)
    rules = {rule.id: rule for rule in policy.rules}
    assert [rule.id for rule in policy.rules][:3] == ["ping", "no-ssh-on-web-ports", "http"]
    assert policy.default == Default()
    assert all(rule.log is Log.ALL for rule in policy.rules)
    assert rules["web"].ports == ((8080, 8081),)
    assert [use.name for use in rules["web"].rule_files + rules["grpc"].rule_files] == ["web", "greeter"]
    assert rules["no-ssh-on-web-ports"].reset
