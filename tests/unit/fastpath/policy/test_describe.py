"""What differs between two policies."""

import random
from dataclasses import replace

from fastpath.abi import Action
from fastpath.policy.describe import difference, icmp_texts, place, port_texts
from fastpath.policy.model import Default, PairDefault, Policy, Rule
from fastpath.policy.where import Where

A, D = Action.ALLOW, Action.DENY


def order(*ids: str, file: str = "") -> Policy:
    return Policy(tuple(Rule(each, A) for each in ids), file=file)


def test_nothing() -> None:
    told = difference(order("a", "b", file="old"), order("a", "b", file="new"))
    assert told == {
        "old": "old", "new": "new", "added": [], "removed": [], "changed": [], "moved": [], "default": {},
        "ethertypes": {},
        "defaults": {},
    }  # fmt: skip


def test_zones_and_defaults_of_pairs() -> None:
    between = PairDefault(D, from_zone="lan", to_zone="dmz")
    old = Policy((Rule("a", A),), defaults=(between,))
    new = Policy((Rule("a", A, where=Where(("lan",), vlans=((0, 0), (5, 9)))),), defaults=(replace(between, action=A),))
    told = difference(old, new)
    assert told["changed"][0]["fields"] == {
        "from_zone": {"old": None, "new": ["lan"]}, "vlan": {"old": None, "new": ["none", "5-9"]},
    }  # fmt: skip
    assert told["defaults"] == {
        "defaults": {
            "old": ["default:lan>dmz deny drop deny enforce"], "new": ["default:lan>dmz allow drop deny enforce"],
        }
    }  # fmt: skip


def test_added_removed_changed() -> None:
    old = Policy((Rule("a", A), Rule("b", A, protocols=(6,), ports=((80, 80),), line=7)), Default(D), "old")
    new = Policy((Rule("b", D, protocols=(6,), ports=((80, 81),), line=9), Rule("c", D)), Default(A), "new")
    told = difference(old, new)
    assert [(each["id"], each["number"], each["action"]) for each in told["removed"]] == [("a", 1, "allow")]
    assert [(each["id"], each["number"], each["action"]) for each in told["added"]] == [("c", 2, "deny")]
    assert told["changed"] == [
        {
            "number": 1, "id": "b", "place": "new:9",
            "fields": {"ports": {"old": ["80"], "new": ["80-81"]}, "action": {"old": "allow", "new": "deny"}},
        }
    ]  # fmt: skip
    assert told["default"] == {"action": {"old": "deny", "new": "allow"}}
    # It has another number only because one before it is gone.
    assert told["moved"] == []


def test_moved_are_the_fewest() -> None:
    assert difference(order(*"abcde"), order(*"bcdea"))["moved"] == [{"id": "a", "old": 1, "new": 5}]
    assert difference(order(*"abcde"), order(*"eabcd"))["moved"] == [{"id": "e", "old": 5, "new": 1}]
    assert [each["id"] for each in difference(order(*"abc"), order(*"xcyba"))["moved"]] != ["c", "b", "a"]


def test_without_the_moved_ones_the_order_is_the_same() -> None:
    choose = random.Random(3)
    ids = [f"r{n}" for n in range(30)]
    for _ in range(50):
        shuffled = ids[:]
        for _ in range(choose.randint(0, 5)):
            shuffled.insert(choose.randrange(30), shuffled.pop(choose.randrange(30)))
        moved = {each["id"] for each in difference(order(*ids), order(*shuffled))["moved"]}
        assert len(moved) <= 5
        assert [each for each in ids if each not in moved] == [each for each in shuffled if each not in moved]


def test_types_and_ethertypes() -> None:
    ping = Rule("a", A, protocols=(1, 58), icmp_types=((0x0800, 0x08FF), (0x0304, 0x0305)))
    assert icmp_texts(ping) == [
        "icmp/destination-unreachable/4", "icmp/destination-unreachable/5", "icmp/echo-request", "icmp6/any",
    ]  # fmt: skip
    assert icmp_texts(Rule("a", A, protocols=(1, 58))) == []
    old = Policy((Rule("a", A, protocols=(1,)),))
    new = Policy((Rule("a", A, protocols=(1,), icmp_types=((0x0D00, 0x0DFF),)),), ethertypes=(0x88CC,))
    told = difference(old, new)
    assert told["changed"][0]["fields"] == {"types": {"old": None, "new": ["icmp/timestamp-request"]}}
    assert told["ethertypes"] == {"ethertypes": {"old": None, "new": ["0x88cc"]}}


def test_ports_of_two_protocols_and_the_rules_own_file() -> None:
    rule = Rule("a", A, protocols=(6, 17), ports=((80, 80), (443, 443)), udp_ports=((53, 53),), line=3, file="d/b.yaml")
    assert port_texts(rule) == ["tcp/80", "tcp/443", "udp/53"]
    assert place(Policy((rule,), file="d"), 1) == "d/b.yaml:3"
    assert place(Policy((rule,), file="d"), 0) == "d"
