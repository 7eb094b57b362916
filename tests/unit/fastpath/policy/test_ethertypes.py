"""Ethertypes that a policy lists."""

import pytest

from fastpath.policy.compiler.compile import Compiler, compile_policy
from fastpath.policy.model import ICMP
from tests.unit.fastpath.policy import policy_of, read


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("lldp", (0x88CC,)),
        ("[pppoe, 0x8847, 34887]", (0x8847, 0x8863, 0x8864)),
        ("[0x0600, 65535]", (0x0600, 0xFFFF)),
        (f"[{', '.join(str(0x9300 + n) for n in range(16))}]", tuple(range(0x9300, 0x9310))),
    ],
)
def test_what_they_come_to(written: str, expected: tuple[int, ...]) -> None:
    policy = policy_of(f"ethertypes: {written}\nrules: []")
    assert policy.ethertypes == expected
    words = compile_policy(policy).words[8:16].tobytes()
    assert [each for each in memoryview(words).cast("H") if each] == list(expected)


def test_another_list_is_compiled_in_part() -> None:
    compiler = Compiler()
    rules = "rules: [{id: ping, proto: icmp, types: 8, action: allow}]"
    compiler.compile(policy_of(f"ethertypes: [mpls, lldp]\n{rules}"))
    for other in ("ethertypes: ptp\n", ""):
        policy = policy_of(other + rules.replace("8", "13"))
        tables = compiler.compile(policy)
        assert tables.words[8:16] == compile_policy(policy).words[8:16]
        assert [tables.walk(bytes(16), bytes(16), ICMP, kind << 8).rule for kind in (8, 13)] == [0, 1]


def test_none_without() -> None:
    assert policy_of("rules: []").ethertypes == ()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[lldp, ipv4]", "ethertypes[1]: 'ipv4' is not one of aoe, cfm, eapol"),
        ("0x0800", "ethertypes: 0x0800 is IPv4, which rules are about"),
        ("[0x86dd]", "ethertypes[0]: 0x86dd is IPv6"),
        ("[0x0806]", "ethertypes[0]: 0x0806 is ARP"),
        ("[0x8100]", "ethertypes[0]: 0x8100 is VLAN tags"),
        ("[0x88a8]", "ethertypes[0]: 0x88a8 is VLAN tags"),
        ("[0x9100]", "ethertypes[0]: 0x9100 is VLAN tags"),
        ("[1500]", "ethertypes[0]: 1500 is not within 0x0600..0xffff"),
        ("[0x10000]", "ethertypes[0]: 0x10000 is not within 0x0600..0xffff"),
        ("[]", "ethertypes: the list is empty: leave the field out"),
        (f"[{', '.join(str(0x9300 + n) for n in range(17))}]", "ethertypes: 17 ethertypes; 16 is the most"),
    ],
)
def test_problems(written: str, expected: str) -> None:
    _, problems = read(f"mode: enforce\nethertypes: {written}\nrules: []")
    assert len(problems) == 1
    assert problems[0].startswith(f"p.yaml:2: {expected}")
