from dataclasses import replace
from ipaddress import ip_network

import pytest

from fastpath.abi import Action, Protocol, RuleFlag
from fastpath.policy.model import (
    ANY_APP,
    ICMP,
    ICMP6,
    TCP,
    UDP,
    Default,
    Log,
    Policy,
    Rule,
    RuleFileUse,
    all_protocols,
    merged,
)

RULE = Rule(
    "web",
    Action.INSPECT,
    sources=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
    destinations=(ip_network("10.2.0.0/16"),),
    protocols=(TCP, UDP),
    ports=((80, 80), (443, 443)),
    apps=1 << Protocol.HTTP,
    rule_files=(RuleFileUse("a", "1"), RuleFileUse("b", "2")),
)


def test_rules_stand_in_priority_order_and_ties_keep_theirs() -> None:
    rules = [Rule(f"r{n}", Action.ALLOW, priority=priority) for n, priority in enumerate((5, 1000, 5, 0, 1000))]
    assert [rule.id for rule in Policy(tuple(rules)).rules] == ["r3", "r0", "r2", "r1", "r4"]


@pytest.mark.parametrize(
    "other",
    [
        replace(RULE, id="other"),
        replace(RULE, priority=1),
        replace(RULE, description="text", line=17, file="other.yaml"),
        replace(RULE, sources=RULE.sources[::-1], protocols=(UDP, TCP, UDP)),
        replace(RULE, ports=((443, 443), (80, 80), (80, 80))),
    ],
)
def test_hash_is_of_the_meaning_alone(other: Rule) -> None:
    assert other.hash == RULE.hash


@pytest.mark.parametrize(
    "other",
    [
        replace(RULE, action=Action.ALLOW),
        replace(RULE, sources=RULE.sources[:1]),
        replace(RULE, sources=RULE.destinations, destinations=RULE.sources),
        replace(RULE, protocols=(TCP,)),
        replace(RULE, ports=((80, 443),)),
        replace(RULE, udp_ports=((53, 53),)),
        replace(RULE, udp_ports=()),
        replace(RULE, apps=ANY_APP),
        replace(RULE, rule_files=RULE.rule_files[:1]),
        replace(RULE, rule_files=RULE.rule_files[::-1]),
        replace(RULE, rule_files=(RuleFileUse("a", "1"), RuleFileUse("b", "changed"))),
        replace(RULE, reset=True),
        replace(RULE, log=Log.ALL),
        replace(RULE, log=Log.NONE),
        replace(RULE, monitor=True),
        replace(RULE, down_allow=True),
    ],
)
def test_hash_changes_with_the_meaning(other: Rule) -> None:
    assert other.hash != RULE.hash


def test_hash_is_a_stable_u32() -> None:
    assert 0 < RULE.hash < 1 << 32
    # Sessions carry it across restarts and versions of Python.
    assert Rule("any", Action.ALLOW).hash == 0x2A3BA2F7


def test_flags() -> None:
    assert Rule("r", Action.ALLOW, log=Log.NONE).flags == 0
    assert Rule("r", Action.ALLOW).flags == RuleFlag.LOG_DENY
    assert Rule("r", Action.INSPECT, log=Log.NONE).flags == RuleFlag.IDENTIFY
    full = replace(RULE, reset=True, monitor=True, down_allow=True, log=Log.ALL)
    assert full.flags == sum(RuleFlag) - RuleFlag.IDENTIFY
    assert Default(reset=True, monitor=True).flags == RuleFlag.RESET | RuleFlag.MONITOR | RuleFlag.LOG_DENY


def test_candidates_are_the_rules_a_walk_may_pass() -> None:
    assert Rule("r", Action.INSPECT).candidate
    assert Rule("r", Action.ALLOW, apps=1 << Protocol.HTTP).candidate
    assert not Rule("r", Action.DENY).candidate
    assert not Rule("r", Action.INSPECT, rule_files=RULE.rule_files).candidate


def test_what_an_ip_protocol_can_carry() -> None:
    assert all_protocols(ICMP) == all_protocols(ICMP6) == 1 << Protocol.ICMP
    assert all_protocols(47) == 1 << Protocol.UNKNOWN
    assert all_protocols(UDP) == sum(
        1 << p for p in (Protocol.UNKNOWN, Protocol.DNS, Protocol.QUIC, Protocol.MEMCACHED)
    )
    never = {Protocol.NONE, Protocol.MAX, Protocol.ICMP, Protocol.QUIC}
    assert all_protocols(TCP) == sum(1 << p for p in Protocol if p not in never)


def test_merged() -> None:
    assert merged([(5, 9), (1, 3), (4, 4), (20, 30), (25, 26), (32, 32)]) == [(1, 9), (20, 30), (32, 32)]
    assert merged([]) == []


def test_ports_of_a_protocol() -> None:
    everywhere = ((0, 65535),)
    assert (RULE.ports_of(TCP), RULE.ports_of(UDP)) == (RULE.ports, RULE.ports)
    dns = replace(RULE, udp_ports=((53, 53),))
    assert (dns.ports_of(TCP), dns.ports_of(UDP)) == (RULE.ports, ((53, 53),))
    assert replace(RULE, udp_ports=()).ports_of(UDP) == everywhere
    assert Rule("any", Action.ALLOW).ports_of(TCP) == everywhere
