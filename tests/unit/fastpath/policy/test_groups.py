"""Groups of addresses: what they come to, exactly, and what is wrong with them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.document import Network
from fastpath.policy import groups
from fastpath.policy.model import Rule
from tests.unit.fastpath.policy import policy_of, read


def sources_of(definitions: str, members: str = "g") -> list[str]:
    """`from: [members]`, resolved."""
    policy = policy_of(f"groups: {{{definitions}}}\nrules: [{{id: r, from: [{members}], action: allow}}]")
    return [str(network) for network in policy.rules[0].sources]


@pytest.mark.parametrize(
    ("definitions", "networks"),
    [
        ("g: 10.0.0.1", ["10.0.0.1/32"]),
        ("g: [10.0.0.0/24, fd00::/64, 10.0.0.0/24]", ["10.0.0.0/24", "fd00::/64"]),
        ("g: [10.0.0.128/25, 10.0.0.0/25]", ["10.0.0.0/24"]),
        ("g: [10.0.0.0/8, 10.1.0.0/16]", ["10.0.0.0/8"]),
        ("g: {include: 10.0.0.0/30, exclude: 10.0.0.1}", ["10.0.0.0/32", "10.0.0.2/31"]),
        ("g: {include: [10.0.0.0/30, fd00::/127], exclude: fd00::1}", ["10.0.0.0/30", "fd00::/128"]),
        ("g: {include: [10.0.0.0/32, 10.0.0.2/32], exclude: 10.0.0.0/31}", ["10.0.0.2/32"]),
        ("g: {include: 10.0.0.0/24, exclude: 192.168.0.0/16, description: nothing to exclude}", ["10.0.0.0/24"]),
        # Groups may stand before what they are made of.
        ("g: [a, b], a: 10.0.0.0/25, b: [c], c: 10.0.0.128/25", ["10.0.0.0/24"]),
        # What an excluded group excludes is not excluded.
        ("g: {include: 10.0.0.0/24, exclude: a}, a: {include: 10.0.0.0/25, exclude: 10.0.0.0/26}",
         ["10.0.0.0/26", "10.0.0.128/25"]),
        ("g: {include: 0.0.0.0/0, exclude: [128.0.0.0/1, 0.0.0.0/32]}",
         [f"{ip_address(1 << n)}/{32 - n}" for n in range(31)]),
        ("g: ['::/0', 0.0.0.0/0]", ["0.0.0.0/0", "::/0"]),
        ("g: 10.0.0.1, unused: 10.0.0.2", ["10.0.0.1/32"]),
        ("G.1_a-b: 10.0.0.1, g: G.1_a-b", ["10.0.0.1/32"]),
        ("fade: 10.0.0.1, g: fade", ["10.0.0.1/32"]),
    ],
)  # fmt: skip
def test_what_a_group_comes_to(definitions: str, networks: list[str]) -> None:
    assert sources_of(definitions) == networks


def test_a_rule_mixes_addresses_and_groups() -> None:
    assert sources_of("g: 10.0.0.0/25", "10.0.0.128/25, g, 'fd00::1'") == ["10.0.0.0/24", "fd00::1/128"]
    # Without a group they stay as they are written.
    assert sources_of("g: 10.0.0.0/25", "10.0.0.128/25, 10.0.0.0/25") == ["10.0.0.128/25", "10.0.0.0/25"]


def test_no_network_holds_ipv4_mapped_addresses() -> None:
    rest = sources_of("g: {include: '::/0', exclude: '::fffe:0:0/96'}")
    assert "::ffff:0:0/96" not in rest
    assert {"::fffc:0:0/95", "::1:0:0:0/80"} < set(rest)
    _, problems = read("groups:\n g: {include: '::fffe:0:0/95', exclude: '::fffe:0:0/96'}\nrules: []")
    assert problems == ["p.yaml:2: groups.g: is empty: what it includes is excluded"]


@pytest.mark.parametrize(
    ("definitions", "expected"),
    [
        (["g: h"], ["2: groups.g: there is no group 'h', and it is no address"]),
        (["g: [10.0.0.1, h]"], ["2: groups.g[1]: there is no group 'h', and it is no address"]),
        (["g: {include: [10.0.0.1], exclude: [h]}"], ["2: groups.g.exclude[0]: there is no group 'h'"]),
        (["g: 10.0.0.1/8"], ["2: groups.g: 10.0.0.1/8 has host bits set; write 10.0.0.0/8, or 10.0.0.1 for the one"]),
        (["g: '::ffff:10.0.0.1'"], ["2: groups.g: ::ffff:10.0.0.1 is an IPv4-mapped address"]),
        (["g: [10.0.0.1-10.0.0.9]"], ["2: groups.g[0]: '10.0.0.1-10.0.0.9' is not an IPv4 or IPv6 address or prefix"]),
        (["g: []"], ["2: groups.g: a list without members"]),
        (["g: {include: []}"], ["2: groups.g.include: a list without members"]),
        (["g: "], ["2: groups.g: expected text"]),
        (["g: {exclude: 10.0.0.1}"], ["2: groups.g: missing include"]),
        (["g: {include: fd00::1, without: 10.0.0.1}"], ["2: groups.g: unknown field 'without'; known here: descri"]),
        (["g: {include: fd00::1, description: []}"], ["2: groups.g.description: expected text"]),
        (["g: {include: 10.0.0.1, exclude: 10.0.0.0/8}"], ["2: groups.g: is empty: what it includes is excluded"]),
        (["g: {include: a, exclude: a}", "a: 10.0.0.1"], ["2: groups.g: is empty: what it includes is excluded"]),
        (["g: fd00::1", "g: fd00::2"], ["3: groups: 'g' is given twice"]),
        (["1g: 10.0.0.1"], ["2: groups.1g: '1g' is no name: up to 128 letters, digits, `_`, `-` and `.`, the first"]),
        (["'g h': 10.0.0.1"], ["2: groups.g h: 'g h' is no name"]),
        (["10.0.0.1: 10.0.0.1"], ["2: groups.10.0.0.1: '10.0.0.1' is no name"]),
        (["'fd00::1': 10.0.0.1"], ["2: groups.fd00::1: 'fd00::1' is no name"]),
        (["grün: 10.0.0.1"], ["2: groups.grün: 'grün' is no name"]),
        (["g: g"], ["2: groups.g: is a member of itself: g -> g"]),
        (["g: [a]", "a: [10.0.0.1, b]", "b: {include: 10.0.0.2, exclude: g}"],
         ["2: groups.g: is a member of itself: g -> a -> b -> g"]),
        # Each cycle is told, what only leads to one is not; nor does the empty group there count.
        (["g: [a, c]", "a: b", "b: a", "c: d", "d: {include: c, exclude: c}"],
         ["3: groups.a: is a member of itself: a -> b -> a", "5: groups.c: is a member of itself: c -> d -> c"]),
        # One mistake, one message: not what follows from it.
        (["g: {include: h, exclude: a}", "a: 10.0.0.1/8"],
         ["2: groups.g.include: there is no group 'h'", "3: groups.a: 10.0.0.1/8 has host bits"]),
    ],
)  # fmt: skip
def test_problems_of_groups(definitions: list[str], expected: list[str]) -> None:
    lines = "".join(f"  {definition}\n" for definition in definitions)
    member = "g" if any(line.startswith("g:") for line in definitions) else "fd00::1"
    _, problems = read(f"groups:\n{lines}rules: [{{id: r, from: fd00::/8, to: [{member}], action: allow}}]")
    starts = [f"p.yaml:{problem}" for problem in expected]
    assert [found[: len(start)] for found, start in zip(sorted(problems), starts, strict=True)] == starts


def test_a_long_cycle_is_shortened() -> None:
    names = [f"g{n:02}" for n in range(20)]
    text = "".join(f"  {name}: {after}\n" for name, after in zip(names, [*names[1:], names[0]], strict=True))
    path = "g00 -> g01 -> g02 -> g03 -> g04 -> g05 -> g06 -> g07 -> (12 more) -> g00"
    assert read(f"groups:\n{text}rules: []")[1] == [f"p.yaml:2: groups.g00: is a member of itself: {path}"]


def test_nesting_has_no_depth_and_a_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "groups:\n  g0: 10.0.0.0\n" + "".join(f"  g{n}: [g{n - 1}, 10.0.0.{n}]\n" for n in range(1, 200))
    deep = "".join(f"  d{n}: d{n - 1}\n" for n in range(1, 5000))
    policy = policy_of(f"{text}  d0: g199\n{deep}rules: [{{id: r, to: d4999, action: allow}}]")
    assert [str(n) for n in policy.rules[0].destinations][:2] == ["10.0.0.0/25", "10.0.0.128/26"]
    monkeypatch.setattr(groups, "MAX_WORK", 100)
    _, problems = read(f"{text}  other: 10.0.0.1\nrules: []")
    assert problems[0].endswith("the groups up to here take more than 100 ranges of addresses to work out")
    assert len(problems) <= 2


def test_there_is_a_limit_of_groups_and_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MAX_GROUPS", 2)
    assert read("groups:\n  a: 10.0.0.1\n  b: 10.0.0.1\n  c: 10.0.0.1\nrules: []")[1] == [
        "p.yaml:2: groups: 3 names; 2 is the most"
    ]
    monkeypatch.setattr("fastpath.policy.read.MAX_NETWORKS", 3)
    # However many rules name it: what is the same is there once.
    rules = "\n".join(f"- {{id: s{n}, from: 10.0.0.1, to: [10.0.0.2], action: allow}}" for n in range(9))
    assert read(f"rules:\n{rules}")[1] == []
    rules = "\n".join(f"- {{id: r{n}, from: 10.0.0.{n}, to: [10.0.1.{n}], action: allow}}" for n in range(4))
    assert read(f"rules:\n{rules}")[1] == [
        "p.yaml:3: rules[1]: the rules up to here come to more than 3 prefixes in `from` and `to`"
    ]


def test_rules_that_name_the_same_share_it() -> None:
    text = """
groups: {a: [10.0.0.0/25, fd00::1], b: 10.0.0.128/25}
rules:
- {id: one, from: a, to: [192.0.2.1, a, b], action: allow}
- {id: two, from: [a], to: [192.0.2.1, a, b], action: deny}
- {id: three, from: 192.0.2.1, to: b, action: deny}
"""
    one, two, three = policy_of(text).rules
    assert one.sources is two.sources
    assert one.destinations is two.destinations
    a, b, prefixes = one.destinations.parts
    assert (a, b, prefixes) == (one.sources, three.destinations, three.sources)
    assert a is one.sources
    assert b is three.destinations
    assert prefixes is three.sources
    assert [str(n) for n in one.destinations] == ["10.0.0.0/24", "192.0.2.1/32", "fd00::1/128"]


def test_a_changed_group_changes_the_hashes_of_its_rules_alone() -> None:
    def rules(web: str) -> dict[str, Rule]:
        text = f"""
groups: {{web: {web}, app: {{include: 10.1.0.0/16, exclude: 10.1.0.1}}, all: [web, app]}}
rules:
- {{id: direct, from: web, action: allow}}
- {{id: nested, to: [all, 192.0.2.1], action: allow}}
- {{id: other, from: app, action: allow}}
- {{id: plain, from: 10.0.0.0/24, action: allow}}
"""
        return {rule.id: rule for rule in policy_of(text).rules}

    before = rules("[10.0.0.0/24]")
    changed = {name for name, rule in rules("[10.0.0.0/25]").items() if rule.hash != before[name].hash}
    assert changed == {"direct", "nested"}
    # The same addresses, said otherwise; a group is what it comes to.
    same = rules("{include: [10.0.0.128/25, 10.0.0.0/25, 10.2.0.0/16], exclude: 10.2.0.0/16}")
    assert {name: rule.hash for name, rule in same.items()} == {name: rule.hash for name, rule in before.items()}
    assert before["direct"].hash == before["plain"].hash


# Few and close, so that they overlap and touch: both families' ends, the IPv4-mapped block's neighbours.
NETWORKS = [
    *("0.0.0.0/0", "0.0.0.0/1", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.1/32", "10.0.0.2/31", "255.255.255.255/32"),
    *("::/0", "::/1", "fd00::/8", "fd00::/126", "fd00::1/128", "ffff::/16", "::fffe:0:0/96", "::fffe:0:0/95"),
]  # fmt: skip
NAMES = [f"g{n}" for n in range(6)]


def edges() -> set[IPv4Address | IPv6Address]:
    found = {address for text in NETWORKS for address in (ip_network(text)[0], ip_network(text)[-1])}
    near = {type(a)(int(a) + step) for a in found for step in (-1, 1) if 0 <= int(a) + step < 1 << a.max_prefixlen}
    return {a for a in found | near if a.version == 4 or a.ipv4_mapped is None}


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, tuple[list[str], list[str]]]:
    """Includes and excludes by name; a group is made of earlier ones."""
    made: dict[str, tuple[list[str], list[str]]] = {}
    for name in NAMES:
        members = st.sampled_from([*NETWORKS, *made, *made])
        made[name] = (draw(st.lists(members, min_size=1, max_size=4)), draw(st.lists(members, max_size=3)))
    return made


@settings(max_examples=150, deadline=None)
@given(definitions())
def test_same_as_asking_every_member(made: dict[str, tuple[list[str], list[str]]]) -> None:
    def holds(member: str, address: IPv4Address | IPv6Address) -> bool:
        if member not in made:
            return address in ip_network(member)
        include, exclude = made[member]
        return any(holds(m, address) for m in include) and not any(holds(m, address) for m in exclude)

    lines = [
        f"  {name}: {{include: {include}{f', exclude: {exclude}' if exclude else ''}}}"
        for name, (include, exclude) in made.items()
    ]
    rules = [f"- {{id: {name}, from: {name}, action: allow}}" for name in made]
    policy, problems = read("\n".join(["groups:", *lines, "rules:", *rules]))
    resolved: dict[str, tuple[Network, ...]] = {rule.id: rule.sources for rule in policy.rules} if policy else {}
    empty = {problem.split(": ")[1].removeprefix("groups.") for problem in problems}
    for address in edges():
        for name in made:
            if not resolved[name]:
                continue  # empty, or made of one that is: the policy is refused
            assert any(address in network for network in resolved[name]) == holds(name, address), (name, address)
    for name in empty:
        assert not any(holds(name, address) for address in edges())
