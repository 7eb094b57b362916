"""Zones, directions and VLAN tags: how they are read, what they mean, and what must not be read."""

from __future__ import annotations

import pytest

from fastpath.abi import Action, Course
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import TCP, PairDefault
from fastpath.policy.where import Context, Where, read_vlan, zone_numbers
from tests.unit.fastpath.policy import policy_of, read

ZONES = ("lan", "dmz", "wan")
RULE = "rules: [{id: r, action: allow, %s}]"


def where_of(fields: str) -> Where | None:
    return policy_of(RULE % fields, ZONES).rules[0].where


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ("proto: tcp", None),
        ("from_zone: lan", Where(("lan",))),
        ("from_zone: [wan, host], to_zone: [lan, dmz]", Where(("wan", "host"), ("lan", "dmz"))),
        ("direction: to-host", Where(courses=(Course.TO_HOST,))),
        ("direction: [through, from-host]", Where(courses=(Course.THROUGH, Course.FROM_HOST))),
        ("vlan: 7", Where(vlans=((7, 7),))),
        ("vlan: [100-199, none, 4094, '0005', 150-201]", Where(vlans=((0, 0), (5, 5), (100, 201), (4094, 4094)))),
        ("vlan: [1, none]", Where(vlans=((0, 0), (1, 1)))),
    ],
)
def test_what_is_read(fields: str, where: Where | None) -> None:
    assert where_of(fields) == where


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("from_zone: guests", "rules[0].from_zone: gateway.yaml has no zone 'guests'"),
        ("to_zone: [lan, LAN]", "rules[0].to_zone[1]: gateway.yaml has no zone 'LAN'"),
        ("to_zone: 7up", "rules[0].to_zone: '7up' is no name of a zone"),
        ("to_zone: []", "rules[0].to_zone: the list is empty: leave the field out"),
        ("direction: in", "rules[0].direction: 'in' is not one of to-host, from-host, through"),
        ("vlan: 0", "rules[0].vlan: VLAN 0 is not within 1..4094"),
        ("vlan: 4095", "rules[0].vlan: VLAN 4095 is not within 1..4094"),
        ("vlan: 20-10", "rules[0].vlan: the range is upside down; write 10-20"),
        ("vlan: any", "rules[0].vlan: 'any' is not a VLAN id, a range like 100-199, or none"),
        ("from_zone: host, to_zone: host", "rules[0].to_zone: never matches: no flow has such a direction"),
        ("from_zone: lan, direction: from-host", "rules[0].direction: never matches: no flow has such a direction"),
        ("to_zone: host, direction: through", "rules[0].direction: never matches: no flow has such a direction"),
    ],
)
def test_what_is_wrong(fields: str, message: str) -> None:
    _, [problem] = read(RULE % fields, ZONES)
    assert problem.startswith(f"p.yaml:1: {message}")


def test_without_a_gateway_any_name_will_do() -> None:
    policy = policy_of(RULE % "from_zone: guests, to_zone: lan")
    assert policy.zone_numbers == {None: 1, "host": 2, "guests": 3, "lan": 4}


def test_numbers_are_those_of_gateway_yaml() -> None:
    assert policy_of(RULE % "from_zone: wan", ZONES).zone_numbers == zone_numbers(ZONES)
    assert zone_numbers(ZONES) == {None: 1, "host": 2, "lan": 3, "dmz": 4, "wan": 5}


def test_the_hash_is_over_what_is_said() -> None:
    rules = policy_of(
        """
rules:
  - {id: a, action: allow}
  - {id: b, action: allow, from_zone: [lan, dmz], vlan: [1, 2-3]}
  - {id: c, action: allow, from_zone: [dmz, lan, lan], vlan: 1-3}
  - {id: d, action: allow, to_zone: [dmz, lan], vlan: 1-3}
  - {id: e, action: allow, direction: through}
"""
    ).rules
    hashes = [rule.hash for rule in rules]
    assert hashes[1] == hashes[2]
    assert len(set(hashes)) == 4


@pytest.mark.parametrize(
    ("context", "rule"),
    [
        (Context("lan", "wan"), 3),
        (Context("lan", "wan", 7), 1),
        (Context("lan", "host"), 2),
        (Context("host", "wan"), 0),
        (Context(None, "wan", 7), 4),
        (Context("dmz", "wan"), 4),
        (Context("dmz", "lan"), 5),
        (Context("lan", "dmz"), 3),
        (Context("host", "dmz"), 6),
    ],
)
def test_the_first_that_fits(context: Context, rule: int) -> None:
    policy = policy_of(
        """
defaults:
  - {to_zone: wan, action: deny, deny_with: reset}
  - {from_zone: dmz, action: allow, log: all}
  - {from_zone: host, to_zone: dmz, action: deny, mode: monitor}
rules:
  - {id: tagged, from_zone: lan, vlan: 1-100, action: allow}
  - {id: here, direction: to-host, action: deny}
  - {id: lan, from_zone: lan, to_zone: [wan, dmz], action: allow}
""",
        ZONES,
    )
    walk = evaluate(policy, bytes(16), bytes(16), TCP, 80, context=context)
    assert walk.rule == rule
    assert walk.reason.name == ("POLICY" if 0 < rule <= 3 else "DEFAULT")


def test_defaults_are_read() -> None:
    policy = policy_of(
        "mode: monitor\ndefaults:\n- {from_zone: lan, to_zone: dmz, action: allow, log: all}\n"
        "- {to_zone: host, action: deny, deny_with: reset, mode: enforce}\nrules: []",
        ZONES,
    )
    first, second = policy.defaults
    assert first == PairDefault(
        Action.ALLOW, log=first.log, monitor=True, from_zone="lan", to_zone="dmz", line=3, file="p.yaml"
    )
    assert [each.id for each in policy.defaults] == ["default:lan>dmz", "default:*>host"]
    assert (second.reset, second.monitor, second.line) == (True, False, 4)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{action: allow}", "defaults[0]: names no zone: that is `default`"),
        ("{from_zone: lan}", "defaults[0]: missing action"),
        ("{from_zone: lan, action: inspect}", "defaults[0].action: 'inspect' is not one of allow, deny"),
        ("{from_zone: [lan], action: allow}", "defaults[0].from_zone: expected text"),
        ("{from_zone: lan, direction: through, action: allow}", "defaults[0]: unknown field 'direction'"),
        ("{from_zone: host, to_zone: host, action: allow}", "defaults[0]: never matches"),
        (
            "{to_zone: lan, action: allow}, {to_zone: lan, action: deny}",
            "defaults[1]: this pair of zones has its default",
        ),
    ],
)
def test_defaults_that_are_wrong(entry: str, message: str) -> None:
    _, [problem] = read(f"defaults: [{entry}]\nrules: []", ZONES)
    assert problem.startswith(f"p.yaml:1: {message}")


def test_ids_of_defaults_are_taken() -> None:
    _, [problem] = read("rules: [{id: 'default:lan>dmz', action: allow}]")
    assert problem == "p.yaml:1: rules[0].id: 'default:lan>dmz' is what records call a default"


@pytest.mark.parametrize(
    ("one", "other", "covers", "meets"),
    [
        (Where(), None, True, True),
        (Where(("lan",)), None, False, True),
        (Where(("lan", "dmz")), Where(("lan",), ("wan",)), True, True),
        (Where(("lan",)), Where(("dmz",)), False, False),
        (Where(vlans=((1, 9),)), Where(vlans=((3, 3), (9, 9))), True, True),
        (Where(vlans=((1, 9),)), Where(vlans=((9, 10),)), False, True),
        (Where(courses=(Course.THROUGH,)), Where(courses=(Course.TO_HOST,)), False, False),
    ],
)
def test_one_beside_the_other(one: Where, other: Where | None, covers: bool, meets: bool) -> None:
    assert (one.covers(other), one.may_meet(other)) == (covers, meets)


@pytest.mark.parametrize("text", ["0", "4095", "1-2", "", "x", "\u0667"])
def test_no_vlan_of_a_flow(text: str) -> None:
    with pytest.raises(ValueError, match="is not a VLAN id"):
        read_vlan(text)


def test_vlans_of_a_flow() -> None:
    assert [read_vlan(text) for text in ("none", "1", "4094")] == [0, 1, 4094]
