"""configs/policy.schema.json and the reader: what the one refuses the other does, as far as a schema can tell."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path

import jsonschema
import pytest
import yaml

from fastpath.abi import Protocol
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import ICMP6, TCP, UDP
from tests.unit.fastpath.policy import policy_of, read

ROOT = Path(__file__).parents[4]
SCHEMA = json.loads((ROOT / "configs/policy.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
POLICIES = [
    (ROOT / "configs/policy.yaml").read_text(),
    *(text for text in EXAMPLES if "\nrules:\n" in text and "\nprotocol:" not in text),
]


def in_schema(text: str) -> bool:
    return VALIDATOR.is_valid(yaml.safe_load(text))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", POLICIES)
def test_examples(text: str) -> None:
    VALIDATOR.validate(yaml.safe_load(text))
    policy_of(text)


def test_the_example_of_configs_shows_every_field() -> None:
    text = POLICIES[0]
    rule = SCHEMA["$defs"]["rule"]["properties"]
    group = SCHEMA["properties"]["groups"]["additionalProperties"]["anyOf"][1]["properties"]
    for name in (*SCHEMA["properties"], *rule, *group):
        assert re.search(rf"\b{name}\b", text), name


def test_the_schema_knows_the_fields_of_the_reader() -> None:
    def known(text: str) -> set[str]:
        [problem] = [problem for problem in read(text)[1] if "unknown field" in problem]
        return set(problem.split("known here: ")[1].split(", "))

    rule = SCHEMA["$defs"]["rule"]["properties"]
    assert known("{zzz: 1, rules: []}") == set(SCHEMA["properties"])
    assert known("rules: [{zzz: 1}]") == set(rule)
    assert known("{default: {zzz: 1}, rules: []}") == set(SCHEMA["properties"]["default"]["anyOf"][1]["properties"])
    pair = SCHEMA["properties"]["defaults"]["items"]["properties"]
    assert known("{defaults: [{zzz: 1}], rules: []}") == set(pair)
    assert known("{services: {s: {zzz: 1}}, rules: []}") == set(SCHEMA["$defs"]["product"]["properties"])


RULE = "{rules: [{id: r, action: allow, %s}]}"
GOOD = [
    "rules: []",
    "{mode: monitor, default: {}, groups: {}, services: {}, rules: []}",
    "{default: {action: allow, log: none, deny_with: reset, mode: enforce}, rules: [{id: 7, action: deny}]}",
    "{groups: {a: 10.0.0.1, B.c_d-1: [a, fd00::/8], c: {include: a, exclude: 10.0.0.2, description: 3}}, rules: []}",
    "{services: {a: {proto: 4}, b: [{proto: [tcp, 17], ports: [0-65535, 80]}]}, rules: []}",
    *(
        RULE % fields
        for fields in (
            *("from: 255.255.255.255/32", "from: 1.0.0.0/08", "from: 0.0.0.0/0", "from: 10.0.0.0/010"),
            *("to: '::'", "to: ['::/0', '::1', '1::', 'fd00::/8', '1:2:3:4:5:6:7:8', '::2:3:4:5:6:7:8/128']"),
            *("to: '64:ff9b::192.0.2.1'", "to: 1:2:3:4:5:6:7::/112", "to: '::/000'", "to: FD00::A"),
            *("proto: 255", "proto: '007'", "proto: [icmp6, 0]", "proto: 6, ports: 0", "proto: '17', ports: '53'"),
            *("proto: tcp, app: [http, unknown]", "proto: [tcp, udp], ports: 53, app: dns", "priority: 0"),
            *(
                "proto: icmp, types: 8",
                "proto: [icmp, 58], types: [echo-request, 255/255, '3/4']",
                "proto: 1, types: '0'",
            ),
            "description: 12, log: all, mode: enforce, on_inspector_down: allow, deny_with: drop",
            "proto: [udp, tcp], deny_with: reset",
            *("from_zone: lan", "to_zone: [lan, host, a.b-1]", "direction: through", "direction: [to-host, from-host]"),
            *("vlan: 1", "vlan: [none, 100-199, 4094, '0007']", "from_zone: lan, to_zone: host, direction: to-host"),
        )
    ),
    "{defaults: [], rules: []}",
    "{defaults: [{from_zone: lan, to_zone: wan, action: allow}, {to_zone: host, action: deny, log: all}], rules: []}",
    "{defaults: [{from_zone: host, action: deny, deny_with: reset, mode: monitor}], rules: []}",
    "rules: [{id: r, action: inspect, rules: web, proto: [icmp, tcp]}, {id: s, action: inspect, rules: [greeter]}]",
    "{services: {s: {proto: tcp}}, rules: [{id: r, action: allow, service: [s], app: tls}]}",
    "{services: {s: [{proto: icmp6, types: packet-too-big}]}, rules: []}",
    "{ethertypes: mpls, rules: []}",
    "{ethertypes: [lldp, 0x8847, 34916, '0x88CC'], rules: []}",
]
BAD = [
    "[]",
    "{rules: {}}",
    "{zones: {}, rules: []}",
    "{mode: off, rules: []}",
    "{mode: trial, rules: []}",
    "{default: inspect, rules: []}",
    "{default: {rules: web}, rules: []}",
    "{rules: [deny]}",
    "{rules: [{id: r}]}",
    "{rules: [{action: deny}]}",
    "{rules: [{id: default, action: deny}]}",
    "{rules: [{id: 'default:lan>dmz', action: deny}]}",
    "{rules: [{id: '', action: deny}]}",
    "{defaults: {from_zone: lan, action: deny}, rules: []}",
    "{defaults: [{from_zone: lan}], rules: []}",
    "{defaults: [{action: deny}], rules: []}",
    "{defaults: [{from_zone: lan, action: inspect}], rules: []}",
    "{defaults: [{from_zone: [lan], action: deny}], rules: []}",
    "{defaults: [{from_zone: host, to_zone: host, action: deny}], rules: []}",
    "{defaults: [{from_zone: lan, vlan: 1, action: deny}], rules: []}",
    '{rules: [{id: "a\\e[2J", action: deny}]}',
    f"{{rules: [{{id: {'r' * 129}, action: deny}}]}}",
    "{rules: [{id: r, action: deny, rules: web}]}",
    "{rules: [{id: r, action: inspect, proto: [icmp, gre]}]}",
    *(
        RULE % fields
        for fields in (
            *(
                "from: []",
                "from: ",
                "from: 10",
                "from: 10.0.0",
                "from: 10.0.0.256",
                "from: 10.0.0.0/33",
                "from: 01.0.0.0",
            ),
            *("from: 10.0.0.0/255.0.0.0", "from: [10.0.0.1, 1a]", "from: 'a b'", "from: {include: 10.0.0.1}"),
            *("to: 'fd00::/129'", "to: 'fe80::%eth0'", "to: 'fd00:g::'", "to: '12345::'", "to: a/8", "to: ':'"),
            *("proto: dccp", "proto: 256", "proto: -1", "proto: []", "proto: 6.5", "proto: true"),
            *("ports: 80", "proto: icmp, ports: 80", "proto: [tcp, 47], ports: 80", "proto: tcp, ports: 65536"),
            *("proto: tcp, ports: http", "proto: tcp, ports: []", "proto: tcp, ports: 1-2-3", "proto: tcp, ports: -1"),
            *("types: 8", "proto: tcp, types: 8", "proto: [icmp, tcp], types: 8", "proto: icmp, types: []"),
            *(
                "proto: icmp, types: 256",
                "proto: icmp, types: 3-4",
                "proto: icmp, types: 3/4/5",
                "proto: icmp, types: '*'",
            ),
            *("app: http", "proto: gre, app: http", "proto: tcp, app: icmp", "proto: tcp, app: []"),
            *("service: []", "service: 80", "priority: -1", "priority: 65536", "priority: high", "colour: red"),
            *("log: some", "mode: off", "deny_with: no", "on_inspector_down: inspect", "description: []"),
            "proto: udp, deny_with: reset",
            *(
                "from_zone: []",
                "from_zone: 1st",
                "to_zone: 'a b'",
                "to_zone: {lan: 1}",
                "direction: in",
                "direction: []",
            ),
            *("vlan: 0", "vlan: 4095", "vlan: -1", "vlan: []", "vlan: any", "vlan: 1-2-3"),
        )
    ),
    "{services: {s: {proto: tcp}}, rules: [{id: r, action: allow, service: s, proto: tcp}]}",
    "{groups: [], rules: []}",
    "{groups: {1a: 10.0.0.1}, rules: []}",
    "{groups: {10.0.0.1: 10.0.0.1}, rules: []}",
    "{groups: {'a b': 10.0.0.1}, rules: []}",
    "{groups: {a: []}, rules: []}",
    "{groups: {a: }, rules: []}",
    "{groups: {a: {exclude: 10.0.0.1}}, rules: []}",
    "{groups: {a: {include: []}}, rules: []}",
    "{groups: {a: {include: 10.0.0.1, exclude: []}}, rules: []}",
    "{groups: {a: {include: 10.0.0.1, but: 10.0.0.1}}, rules: []}",
    "{ethertypes: [], rules: []}",
    "{ethertypes: [0x0800], rules: []}",
    "{ethertypes: 1535, rules: []}",
    "{ethertypes: token-ring, rules: []}",
    "{ethertypes: {mpls: true}, rules: []}",
    "{services: {s: tcp}, rules: []}",
    "{services: {s: []}, rules: []}",
    "{services: {s: {ports: 80}}, rules: []}",
    "{services: {s: {proto: icmp, ports: 80}}, rules: []}",
    "{services: {s: {proto: tcp, app: http}}, rules: []}",
]
# A schema sees one place at a time and cannot calculate; the reader alone refuses these.
BEYOND = [
    "{groups: {a: {include: 10.0.0.1}}}",  # in a folder, another file may have the rules
    "{groups: {a: a}, rules: []}",
    "{groups: {a: {include: 10.0.0.1, exclude: 10.0.0.1}}, rules: []}",
    *(RULE % fields for fields in ("to: nowhere", "service: s", "to: 10.0.0.1/8", "to: '::ffff:10.0.0.1'")),
    *(RULE % fields for fields in ("proto: tcp, ports: 90-80", "proto: tcp, ports: '1-65536'", "to: '1::2::3'")),
    *(RULE % fields for fields in ("proto: udp, app: http", "from: 10.0.0.1, to: fd00::1")),
    *(RULE % fields for fields in ("proto: icmp, types: packet-too-big", "proto: icmp, types: 300/1")),
    "{ethertypes: '0x0800', rules: []}",
    *(RULE % fields for fields in ("from_zone: host, to_zone: host", "to_zone: lan, direction: to-host", "vlan: 9-1")),
    "{defaults: [{from_zone: lan, action: deny}, {from_zone: lan, action: allow}], rules: []}",
    "rules: [{id: r, action: deny}, {id: r, action: deny}]",
    "rules: [{id: r, action: inspect, rules: nowhere}]",
    "{rules: [], rules: []}",
]


@pytest.mark.parametrize("text", GOOD)
def test_both_accept(text: str) -> None:
    assert read(text)[1] == []
    VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize("text", BAD)
def test_both_refuse(text: str) -> None:
    assert read(text)[1]
    assert not in_schema(text)


@pytest.mark.parametrize("text", BEYOND)
def test_only_the_reader_refuses(text: str) -> None:
    assert read(text)[1]
    assert in_schema(text)


def mapped(text: str) -> bytes:
    address = ip_address(text)
    return (bytes(10) + b"\xff\xff" if address.version == 4 else b"") + address.packed


@pytest.mark.parametrize(
    ("src", "dst", "l4", "dport", "app", "expected"),
    [
        ("198.51.100.1", "10.10.1.5", TCP, 443, Protocol.TLS, "users"),
        ("2001:db8::1", "fd10:1::5", TCP, 80, Protocol.HTTP, "users"),
        ("198.51.100.1", "10.10.1.5", TCP, 443, Protocol.SSH, None),
        ("198.51.100.1", "10.10.1.5", TCP, 22, Protocol.SSH, None),
        ("198.51.100.1", "10.10.2.5", TCP, 8080, Protocol.HTTP, None),
        ("10.10.8.1", "10.10.1.5", TCP, 443, Protocol.TLS, None),  # inside is not outside
        ("fd10:8::1", "fd10:1::5", TCP, 443, Protocol.TLS, None),
        ("10.10.1.5", "10.10.2.5", TCP, 8089, Protocol.HTTP, "web-to-app"),
        ("10.10.1.5", "10.10.2.5", TCP, 8090, Protocol.HTTP, None),
        ("10.10.1.5", "10.10.3.5", TCP, 5432, Protocol.POSTGRES, None),  # no tier is skipped
        ("10.10.2.5", "10.10.1.5", TCP, 8080, Protocol.HTTP, None),  # nor taken backwards
        ("fd10:2::5", "fd10:3::5", TCP, 5432, Protocol.POSTGRES, "app-to-database"),
        ("10.10.2.5", "10.10.3.127", TCP, 5432, Protocol.POSTGRES, "app-to-database"),
        ("10.10.2.5", "10.10.3.128", TCP, 5432, Protocol.POSTGRES, None),
        ("10.10.2.5", "10.10.3.5", TCP, 5432, Protocol.SSH, None),
        ("10.10.9.10", "10.10.3.5", TCP, 22, Protocol.SSH, "admin"),
        ("10.10.9.11", "10.10.3.5", TCP, 22, Protocol.SSH, None),
        ("10.10.9.20", "10.10.2.5", TCP, 9100, Protocol.HTTP, "monitoring"),
        ("fd10:9::20", "fd10:2::5", ICMP6, 0, Protocol.ICMP, "monitoring"),
        ("10.10.9.20", "10.10.2.5", UDP, 9100, Protocol.UNKNOWN, None),
        ("10.10.9.20", "10.10.2.5", TCP, 22, Protocol.SSH, None),
        ("10.10.1.5", "10.10.9.53", UDP, 53, Protocol.DNS, "names-and-time"),
        ("10.10.1.5", "10.10.9.53", TCP, 53, Protocol.DNS, "names-and-time"),
        ("10.10.1.5", "10.10.9.53", UDP, 123, Protocol.UNKNOWN, "names-and-time"),
        ("10.10.1.5", "10.10.9.53", TCP, 123, Protocol.UNKNOWN, None),  # not every port over every protocol
    ],
)
def test_the_three_tiers_of_the_readme(
    src: str, dst: str, l4: int, dport: int, app: Protocol, expected: str | None
) -> None:
    policy = policy_of(POLICIES[1])
    walk = evaluate(policy, mapped(src), mapped(dst), l4, dport, possible=1 << app)
    assert (policy.rules[walk.rule - 1].id if walk.rule else None) == expected
    assert walk.verdict.name == ("ALLOW" if expected else "DENY")
    assert compile_policy(policy).walk(mapped(src), mapped(dst), l4, dport, possible=1 << app) == walk
