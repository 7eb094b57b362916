"""Services: exactly the protocols and ports that they name, one by one and together."""

from __future__ import annotations

import pytest

from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import ICMP, TCP, UDP, Rule
from tests.unit.fastpath.policy import policy_of, read

SERVICES = """services:
  web: {proto: tcp, ports: [80, 443]}
  alt: {proto: tcp, ports: 8000-8080}
  dns: [{proto: udp, ports: 53}, {proto: tcp, ports: 53}]
  doh: [{proto: [udp, tcp], ports: 443}]
  ntp: {proto: udp, ports: 123}
  any-tcp: {proto: tcp}
  any-udp: {proto: udp, ports: 0-65535}
  tunnel: {proto: [gre, 4]}
  ping: {proto: [icmp, icmp6]}
  mixed: [{proto: tcp, ports: 80}, {proto: icmp}]
  echo: {proto: [icmp, icmp6], types: echo-request}
  probe: [{proto: icmp, types: [timestamp-request, 8/1]}, {proto: tcp}]
"""


def rule_of(service: str, more: str = "") -> Rule:
    return policy_of(f"{SERVICES}rules: [{{id: r, service: {service}, action: allow{more}}}]").rules[0]


@pytest.mark.parametrize(
    ("service", "protocols", "ports", "udp_ports"),
    [
        ("web", (TCP,), ((80, 80), (443, 443)), None),
        ("[web, alt]", (TCP,), ((80, 80), (443, 443), (8000, 8080)), None),
        ("dns", (TCP, UDP), ((53, 53),), None),
        ("ntp", (UDP,), ((123, 123),), None),
        ("[ntp, any-udp]", (UDP,), (), None),
        ("[web, ntp]", (TCP, UDP), ((80, 80), (443, 443)), ((123, 123),)),
        ("[dns, web, doh]", (TCP, UDP), ((53, 53), (80, 80), (443, 443)), ((53, 53), (443, 443))),
        ("[any-tcp, dns]", (TCP, UDP), (), ((53, 53),)),
        ("[any-udp, web]", (TCP, UDP), ((80, 80), (443, 443)), ()),
        ("[any-udp, any-tcp]", (TCP, UDP), (), None),
        ("tunnel", (4, 47), (), None),
        ("mixed", (ICMP, TCP), ((80, 80),), None),
    ],
)
def test_what_services_come_to(
    service: str, protocols: tuple[int, ...], ports: tuple[object, ...], udp_ports: tuple[object, ...] | None
) -> None:
    rule = rule_of(service)
    assert (rule.protocols, rule.ports, rule.udp_ports) == (protocols, ports, udp_ports)


@pytest.mark.parametrize(
    ("service", "icmp", "icmp6"),
    [
        ("echo", ((0x0800, 0x08FF),), ((0x8000, 0x80FF),)),
        ("[echo, probe]", ((0x0800, 0x08FF), (0x0D00, 0x0DFF)), ((0x8000, 0x80FF),)),
        ("probe", ((0x0801, 0x0801), (0x0D00, 0x0DFF)), ()),
        ("[echo, ping]", (), ()),
        ("[echo, mixed]", (), ((0x8000, 0x80FF),)),
    ],
)
def test_types_that_services_come_to(service: str, icmp: tuple[object, ...], icmp6: tuple[object, ...]) -> None:
    rule = rule_of(service)
    assert (rule.icmp_types, rule.icmp6_types) == (icmp, icmp6)


def test_the_kernel_tables_and_the_evaluator_take_no_more_than_that() -> None:
    policy = policy_of(f"{SERVICES}rules: [{{id: r, service: [mixed, ntp], action: allow}}]")
    tables = compile_policy(policy)
    address = bytes(15) + b"\1"
    for l4, ports in ((TCP, {80}), (UDP, {123}), (ICMP, {0, 80, 123}), (58, set()), (47, set())):
        for port in (0, 79, 80, 81, 122, 123, 124):
            hit = evaluate(policy, address, address, l4, port).rule == 1
            assert hit == (port in ports or l4 == ICMP), (l4, port)
            assert (tables.walk(address, address, l4, port).rule == 1) == hit


def test_the_hash_is_of_the_ports_not_of_the_names() -> None:
    plain = policy_of("rules: [{id: r, proto: tcp, ports: [443, 80], action: allow}]").rules[0]
    assert rule_of("web").hash == rule_of("[web, web]").hash == plain.hash
    assert len({rule_of(name).hash for name in ("web", "[web, ntp]", "[web, any-udp]", "[web, doh]")}) == 4


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("s: {proto: tcp, ports: 70000}", "services.s.ports: port 70000 is not within 0..65535"),
        ("s: {proto: tcp, ports: 90-80}", "services.s.ports: the range is upside down; write 80-90"),
        ("s: {proto: dccp}", "services.s.proto: 'dccp' is not one of"),
        ("s: {proto: tpc, ports: 80}", "services.s.proto: 'tpc' is not one of"),
        ("s: {proto: icmp, ports: 80}", "services.s.ports: needs `proto: tcp`, `udp` or both, and no other"),
        ("s: {proto: tcp, types: 8}", "services.s.types: needs `proto: icmp`, `icmp6` or both, and no other"),
        ("s: {proto: icmp, types: ping}", "services.s.types: icmp has no type 'ping'; it has echo-reply, dest"),
        ("s: {proto: [], ports: 80}", "services.s.proto: the list is empty"),
        ("s: {ports: 80}", "services.s: missing proto"),
        ("s: {proto: tcp, app: http}", "services.s: unknown field 'app'; known here: ports, proto, types"),
        ("s: [{proto: tcp}, {proto: sctp, ports: 1}]", "services.s[1].ports: needs `proto: tcp`"),
        ("s: []", "services.s: a service without protocols"),
        ("s: tcp/80", "services.s: expected a mapping"),
        ("s: ", "services.s: expected a mapping"),
        ("80: {proto: tcp}", "services.80: '80' is no name"),
    ],
)
def test_problems_of_services(service: str, expected: str) -> None:
    member = "service: s" if service.startswith("s:") else "proto: tcp"
    _, problems = read(f"services:\n  {service}\nrules: [{{id: r, {member}, action: allow}}]")
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"p.yaml:2: {expected}")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("service: wbe", "service: there is no service 'wbe'"),
        ("service: [web, wbe]", "service[1]: there is no service 'wbe'"),
        ("service: []", "service: the list is empty: leave the field out"),
        ("service: web, proto: tcp", "service: stands in place of `proto`, `ports` and `types`: write it or them"),
        (
            "service: web, proto: tcp, ports: 80",
            "service: stands in place of `proto`, `ports` and `types`: write it or them",
        ),
        ("service: echo, types: 8", "service: stands in place of `proto`, `ports` and `types`: write it or them"),
        ("service: tunnel, app: http", "app: needs `proto: tcp`, `udp` or both, and no other"),
        ("service: ntp, app: http", "app: never matches over udp"),
        ("service: ntp, deny_with: reset", "deny_with: only tcp can be reset"),
        ("service: wbe, app: http", "service: there is no service 'wbe'"),
    ],
)
def test_problems_of_rules_with_services(fields: str, expected: str) -> None:
    _, problems = read(f"{SERVICES}rules: [{{id: r, {fields}, action: deny}}]")
    assert [problem.split("rules[0].")[1] for problem in problems] == [expected]


def test_only_what_has_connections_is_inspected() -> None:
    _, problems = read(f"{SERVICES}rules: [{{id: r, service: tunnel, action: inspect}}]")
    assert problems[0].endswith("rules[0].service: only tcp and udp can be inspected")
    assert rule_of("web", ", app: [http, tls]").apps
