"""Compiled tables: their layout, their limits, and their meaning against the naive evaluator."""

import itertools
import random
from collections.abc import Iterator
from ctypes import Structure, sizeof
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fastpath import abi
from fastpath.abi import Action, Protocol, Verdict
from fastpath.document import Network
from fastpath.policy.compiler import bound, compile  # noqa: A004
from fastpath.policy.compiler.bound import MAX_CANDIDATES
from fastpath.policy.compiler.compile import Compiler, compile_policy
from fastpath.policy.compiler.pages import Pages
from fastpath.policy.compiler.tables import PolicyTooLargeError, Tables
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import (
    ANY_APP,
    ICMP,
    TCP,
    UDP,
    Default,
    Networks,
    PairDefault,
    Policy,
    Rule,
    RuleFileUse,
    all_protocols,
)
from fastpath.policy.where import MAX_ZONES, Context, Where

HTTP, TLS = 1 << Protocol.HTTP, 1 << Protocol.TLS
FILES = (RuleFileUse("web", "abc"),)


def mapped(text: str) -> bytes:
    address = ip_address(text)
    return (bytes(10) + b"\xff\xff" if address.version == 4 else b"") + address.packed


# --- meaning ---------------------------------------------------------------------------------------------------------

# Nested, adjacent and overlapping on purpose: every edge of one lies within or beside another. The IPv6
# ones around ::ffff:0:0/96 would take IPv4's addresses, were the families not kept apart.
NETWORKS: list[Network] = [
    ip_network(text)
    for text in (
        *("0.0.0.0/0", "0.0.0.0/1", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.0/25", "10.1.1.128/25"),
        *("10.1.1.127/32", "10.1.1.128/32", "10.1.1.255/32", "10.1.2.0/23", "255.255.255.255/32"),
        *("::/0", "::/64", "::/80", "::fffe:0:0/96", "::/1", "fd00::/8", "fd00::/64", "fd00::/127", "fd00::1/128"),
        *("fd00:0:0:1::/64", "fc00::/7", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
    )
]
EDGES = [0, 1, 52, 53, 54, 79, 80, 81, 443, 1023, 1024, 8080, 8090, 8091, 65534, 65535]
APPS = [Protocol.UNKNOWN, Protocol.HTTP, Protocol.TLS, Protocol.DNS, Protocol.SSH]


def edges_of(network: Network) -> Iterator[bytes]:
    """First and last address, and those just outside."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if isinstance(network, IPv4Network):
        top, packed = (1 << 32) - 1, lambda n: bytes(10) + b"\xff\xff" + n.to_bytes(4, "big")
    else:
        top, packed = (1 << 128) - 1, lambda n: n.to_bytes(16, "big")
    for number in {first, last, max(first - 1, 0), min(last + 1, top)}:
        yield packed(number)


ADDRESSES = sorted({packed for network in NETWORKS for packed in edges_of(network)})

networks = st.lists(st.sampled_from(NETWORKS), max_size=3).map(tuple)
ranges = st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)).map(lambda pair: (min(pair), max(pair)))
masks = st.lists(st.sampled_from(APPS), min_size=1, max_size=3, unique=True).map(lambda apps: sum(1 << a for a in apps))


ZONES = ("lan", "dmz")
some_zones = st.sampled_from([(), ("lan",), ("host", "dmz")])
wheres = st.none() | st.builds(Where, some_zones, some_zones, vlans=st.sampled_from([(), ((0, 0),), ((1, 2),)]))
zones = st.sampled_from([None, "host", *ZONES])
contexts = st.builds(Context, zones, zones, st.integers(0, 3))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    over_ports = draw(st.booleans())
    # With ports for some of its protocols only: what a list of services comes to.
    carriers = st.sampled_from([(TCP,), (UDP,), (TCP, UDP), (ICMP, TCP), (UDP, 47, TCP)])
    protocols = draw(carriers if over_ports else st.sampled_from([(), (TCP,), (ICMP,), (47, UDP), (0, 255)]))
    return Rule(
        "r",
        draw(st.sampled_from(Action)),
        sources=draw(networks),
        destinations=draw(networks),
        protocols=protocols,
        ports=draw(st.lists(ranges, max_size=3).map(tuple)) if over_ports else (),
        icmp_types=draw(st.lists(ranges, max_size=3).map(tuple)) if ICMP in protocols else (),
        udp_ports=draw(st.none() | st.lists(ranges, max_size=3).map(tuple)) if over_ports else None,
        apps=draw(masks) if over_ports and draw(st.booleans()) else ANY_APP,
        rule_files=FILES if draw(st.booleans()) else (),
        reset=draw(st.booleans()),
        monitor=draw(st.booleans()),
        priority=draw(st.integers(0, 3)),
        where=draw(wheres),
    )


packets = st.tuples(
    st.sampled_from(ADDRESSES),
    st.sampled_from(ADDRESSES),
    st.sampled_from([TCP, TCP, UDP, ICMP, 47, 0, 255]),
    st.sampled_from(EDGES),
    st.one_of(st.just(0), st.sampled_from(APPS).map(lambda app: 1 << app), masks),
)
defaults = st.builds(Default, action=st.sampled_from([Action.ALLOW, Action.DENY]), monitor=st.booleans())


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(rules(), max_size=10), defaults, st.lists(packets, min_size=5, max_size=25))
def test_same_as_the_naive_evaluator(
    members: list[Rule], default: Default, seen: list[tuple[bytes, bytes, int, int, int]]
) -> None:
    policy = Policy(tuple(members), default)
    tables = compile_policy(policy)
    for src, dst, l4, dport, possible in seen:
        expected = evaluate(policy, src, dst, l4, dport, possible=possible)
        assert tables.walk(src, dst, l4, dport, possible=possible) == expected
        event(f"{expected.verdict.name} {expected.reason.name}")


def random_policy(choose: random.Random, size: int) -> Policy:
    """More rules than a word of a set has bits, most of which match only a part of the packets."""

    def some_networks() -> tuple[Network, ...]:
        return tuple(choose.sample(NETWORKS, choose.choice((0, 1, 1, 2, 4))))

    def one(index: int) -> Rule:
        low, high = sorted(choose.choices(EDGES, k=2))
        with_ports = choose.random() < 0.8
        return Rule(
            f"r{index}",
            choose.choice(list(Action)),
            sources=some_networks(),
            destinations=some_networks(),
            protocols=choose.choice(((TCP,), (UDP,), (TCP, UDP))) if with_ports else (),
            ports=((low, high), (choose.choice(EDGES),) * 2) if with_ports else (),
            apps=choose.choice((HTTP, TLS, HTTP | TLS)) if with_ports and choose.random() < 0.6 else ANY_APP,
            rule_files=choose.choice((FILES, ())),
            priority=choose.randrange(5),
        )

    return Policy(tuple(one(index) for index in range(size)))


@pytest.mark.parametrize("size", [64, 65, 128, 300, 400])
def test_same_as_the_naive_evaluator_over_many_words(size: int) -> None:
    choose = random.Random(size)
    policy = random_policy(choose, size)
    tables = compile_policy(policy)
    deepest = matched_twice = 0
    for _ in range(1000):
        src, dst = choose.choices(ADDRESSES, k=2)
        l4, port = choose.choice((TCP, TCP, UDP, ICMP)), choose.choice(EDGES)
        possible = choose.choice((0, HTTP, TLS, HTTP | TLS, all_protocols(l4)))
        expected = evaluate(policy, src, dst, l4, port, possible=possible)
        assert tables.walk(src, dst, l4, port, possible=possible) == expected
        deepest = max(deepest, expected.rule)
        matched_twice += expected.rule > 0
    # The sample says something: packets matched, also by rules far behind.
    assert matched_twice > 300
    assert deepest > size // 4


def test_as_many_ports_as_a_tree_has() -> None:
    members = tuple(Rule(f"r{n}", Action.ALLOW, protocols=(TCP,), ports=((n * 16, n * 16 + 15),)) for n in range(4096))
    tables = compile_policy(Policy(members))
    for number in (0, 63, 64, 2047, 4095):
        for port in (number * 16, number * 16 + 15):
            assert tables.walk(bytes(16), bytes(16), TCP, port).rule == number + 1
    assert tables.walk(bytes(16), bytes(16), UDP, 80).verdict == Verdict.DENY
    assert str(tables.sizes) == "4096 rules, 2 prefixes of 1 classes, 1 trees, 1 candidates at most, 512 KiB"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(rules(), min_size=1, max_size=10),
    st.lists(st.tuples(st.integers(0, 9), st.one_of(rules(), st.integers(0, 9)), defaults), min_size=1, max_size=5),
    st.lists(st.tuples(packets, contexts), min_size=5, max_size=15),
)
def test_compiled_again_it_is_as_compiled_anew(
    members: list[Rule],
    changes: list[tuple[int, Rule | int, Default]],
    seen: list[tuple[tuple[bytes, bytes, int, int, int], Context]],
) -> None:
    members = [replace(rule, priority=0) for rule in members]
    compiler = Compiler()
    between = PairDefault(Action.ALLOW, from_zone="lan", to_zone="dmz")
    compiler.compile(Policy(tuple(members), defaults=(between,), zones=ZONES))
    for place, new, default in changes:
        # Another rule, or one that names what others name.
        rule = new if isinstance(new, Rule) else replace(
            members[new % len(members)], action=Action.DENY, destinations=members[place % len(members)].destinations
        )  # fmt: skip
        members[place % len(members)] = replace(rule, priority=0)
        policy = Policy(tuple(members), default, "", (replace(between, action=default.action),), ZONES)
        before = compiler._last
        tables = compiler.compile(policy)
        event("anew" if compiler._last.sets is not before.sets else "changed")
        for (src, dst, l4, dport, possible), context in seen:
            expected = evaluate(policy, src, dst, l4, dport, possible=possible, context=context)
            assert tables.walk(src, dst, l4, dport, possible=possible, context=context) == expected
            root = record(tables, abi.Policy, 0)
            assert root.asks_for_zones == policy.asks_for_zones


def test_what_is_compiled_again() -> None:
    web, app, other = (Networks([ip_network(f"10.{n}.0.0/16")]) for n in (1, 2, 3))
    rules = (
        Rule("web", Action.ALLOW, web, app, (TCP,), ((80, 80),)),
        Rule("app", Action.ALLOW, app, web, (TCP,), ((443, 443),)),
        Rule("other", Action.ALLOW, other, app, (TCP,), ((22, 22),)),
    )
    compiler = Compiler()
    first = compiler.compile(Policy(rules))
    builds = [compiler._last]

    def again(*changed: Rule) -> bool:
        """Some of it was still good."""
        tables = compiler.compile(Policy(changed))
        builds.append(compiler._last)
        flows = itertools.product(("10.1.0.1", "10.2.0.1", "10.3.0.1", "10.4.0.1"), repeat=2)
        for (source, destination), port in itertools.product(flows, (22, 80, 443)):
            flow = (mapped(source), mapped(destination), TCP, port)
            assert tables.walk(*flow) == evaluate(Policy(changed), *flow)
        return builds[-1].sets is builds[-2].sets

    assert again(*rules)
    assert compiler._last.words == first.words
    assert again(replace(rules[0], action=Action.DENY), *rules[1:])
    assert again(replace(rules[0], sources=other), *rules[1:])
    assert again(rules[0], rules[1], replace(rules[2], destinations=web, ports=((80, 81),)))
    assert again(rules[0], rules[1], replace(rules[2], where=Where(vlans=((0, 0),))))
    # A set that nobody named, or named as a destination, and another number of rules.
    assert not again(replace(rules[0], sources=Networks([ip_network("10.4.0.0/16")])), *rules[1:])
    assert not again(replace(rules[0], destinations=other), *rules[1:])
    assert not again(*rules, rules[0])
    # What was left behind is cleared away at some time.
    assert sum(not again(rules[0], replace(rules[1], ports=((n, n),)), rules[2]) for n in range(100)) in range(2, 50)


def test_a_policy_that_does_not_fit_changes_nothing() -> None:
    compiler = Compiler()
    members = [Rule(f"r{n}", Action.ALLOW, protocols=(TCP,), ports=((n, n),), apps=HTTP) for n in range(600)]
    compiler.compile(Policy(tuple(members)))
    build = compiler._last
    wide = [replace(rule, ports=((0, 9),)) for rule in members[:80]]
    for end in range(80, 601, 80):
        wide = [replace(rule, ports=((0, 9),)) for rule in members[:end]]
        policy = Policy((*wide, *members[end:]))
        if end <= MAX_CANDIDATES:
            compiler.compile(policy)
            build = compiler._last
            continue
        with pytest.raises(PolicyTooLargeError):
            compiler.compile(policy)
        assert compiler._last is build


# --- layout ----------------------------------------------------------------------------------------------------------


def record(tables: Tables, kind: type[Structure], location: int) -> Any:
    return kind.from_buffer_copy(tables.words[location : location + sizeof(kind) // 4].tobytes())


def class_of(tables: Tables, address: str) -> Any:
    return record(tables, abi.Class, tables._class_of_address(mapped(address)))


def sets_of(tables: Tables, address: str) -> set[int]:
    return tables._sets_of(tables._class_of_address(mapped(address)))


def test_classes_of_addresses() -> None:
    inner, outer = ip_network("10.1.0.0/16"), ip_network("10.0.0.0/8")
    rules = Rule("a", Action.ALLOW, (inner,), (ip_network("fd00::/8"),)), Rule("b", Action.DENY, (), (outer,))
    tables = compile_policy(Policy(rules))
    expected = {
        **dict.fromkeys(("0.0.0.0", "9.255.255.255", "11.0.0.0", "255.255.255.255"), (set[int](), 0)),
        **dict.fromkeys(("::", "fcff:ffff::", "fe00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), (set[int](), 0)),
        **dict.fromkeys(("fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ({1}, 1)),
        **dict.fromkeys(("10.0.0.0", "10.0.255.255", "10.2.0.0", "10.255.255.255"), ({3}, 1)),
        **dict.fromkeys(("10.1.0.0", "10.1.255.255"), ({2, 3}, 1)),
    }
    for address, (sets, by_destination) in expected.items():
        assert sets_of(tables, address) == sets
        # Rules are filed under what they go to.
        assert (class_of(tables, address).by_destination, class_of(tables, address).by_source) == (by_destination, 0)
    # Equal ones are stored once.
    assert tables._class_of_address(mapped("::")) == tables._class_of_address(mapped("0.0.0.0"))


@pytest.mark.parametrize("count", [1, 8, 9, 128, 129, 2049, 40_000])
def test_an_index_of_any_size(count: int) -> None:
    pages = Pages()
    pages.put(range(16))
    choose = random.Random(count)
    keys = [0, *sorted(choose.sample(range(1, 1 << 32), count - 1))] if count < 40_000 else [0, *range(3, 3 * count, 3)]
    if count > 1:
        keys[-1] = 0xFFFFFFFF
    root = pages.put_index(keys, [(n + 1) * 16 for n in range(count)])
    tables = Tables(Policy(), pages.words, (), compile_policy(Policy()).sizes)
    tried = choose.sample(range(count), min(count, 500))
    for n in {0, count - 1, *tried}:
        assert tables._value_of(root, keys[n]) == (n + 1) * 16
        assert tables._value_of(root, min(keys[n] + 1, 0xFFFFFFFF)) >> 4 in {n + 1, n + 2}
        if n:
            assert tables._value_of(root, keys[n] - 1) >> 4 in {n, n + 1}


def test_prefixes_that_end_within_words_of_an_address() -> None:
    # IPv6 addresses are looked up 32 bits at a time.
    lengths = (1, 8, 31, 32, 33, 48, 63, 64, 65, 95, 96, 97, 127, 128)
    top = int(ip_address("fd12:3456:789a:bcde:f012:3456:789a:bcdf"))
    nested = [ip_network((top >> (128 - n) << (128 - n), n)) for n in lengths]
    tables = compile_policy(Policy(tuple(Rule(str(n), Action.ALLOW, (net,)) for n, net in enumerate(nested))))
    for depth, network in enumerate(nested, 1):
        for packed in edges_of(network):
            inside = sum(ip_address(packed) in each for each in nested)
            assert len(tables._sets_of(tables._class_of_address(packed))) == inside
        assert len(sets_of(tables, str(network.network_address))) >= depth


def test_a_tree() -> None:
    web = Rule("web", Action.ALLOW, (ip_network("10.0.0.0/8"),), protocols=(TCP,), ports=((80, 81), (82, 83)))
    dns = Rule("dns", Action.ALLOW, protocols=(TCP, UDP), ports=((53, 53),))
    ping = Rule("ping", Action.DENY, (ip_network("10.0.0.0/8"),), protocols=(ICMP,))
    every = Rule("every", Action.DENY)
    behind = Rule("behind", Action.ALLOW)
    tables = compile_policy(Policy((web, dns, ping, every, behind)))
    assert class_of(tables, "::").by_destination == 1
    tree = tables.words[tables._class_of_address(mapped("::")) + sizeof(abi.Class) // 4]
    # Nine intervals: a leaf of eight, one more, and a node above them.
    assert tree & abi.Index.DEPTH == 2

    def candidates_at(key: int) -> list[tuple[int, int]]:
        return list(tables._candidates(tables._value_of(tree, key)))

    udp, icmp, other = (int(abi.PolicyKey[name]) for name in ("UDP", "ICMP", "OTHER"))
    only, dns_first, web_first, ping_first = [(4, 0)], [(2, 0)], [(1, 1), (4, 0)], [(3, 1), (4, 0)]
    assert [candidates_at(key) for key in (0, 52, 53, 54, 79)] == [only, only, dns_first, only, only]
    assert [candidates_at(key) for key in (80, 83, 84, 65535)] == [web_first, web_first, only, only]
    assert [candidates_at(udp + port) for port in (0, 53, 80, 65535)] == [only, dns_first, only, only]
    assert [candidates_at(icmp + number) for number in (0, 0x0800, 65535)] == [ping_first] * 3
    assert [candidates_at(other + l4) for l4 in (0, 2, 255)] == [only, only, only]


def test_rules_stand_at_their_numbers() -> None:
    rule = Rule("r", Action.INSPECT, apps=HTTP, protocols=(TCP,), rule_files=FILES, reset=True)
    tables = compile_policy(Policy((rule,), Default(Action.ALLOW)))
    first = sizeof(abi.Policy) // 4
    value = record(tables, abi.Rule, first + 8)
    assert (value.apps, value.hash, value.action, value.flags) == (HTTP, rule.hash, Action.INSPECT, rule.flags)
    value = record(tables, abi.Rule, first)
    assert (value.apps, value.hash, value.action, value.flags) == (ANY_APP, 0, Action.ALLOW, Default().flags)


def test_what_says_where_rules_hold_stands_once() -> None:
    where = Where(("lan",), ("host",), (), ((1, 2),))
    members = (Rule("a", Action.ALLOW, where=where), Rule("b", Action.DENY, where=where), Rule("c", Action.DENY))
    tables = compile_policy(Policy(members, zones=("dmz", "lan")))
    locations = [record(tables, abi.Rule, 16 + 8 * number).where for number in (1, 2, 3)]
    assert locations[0] == locations[1] != 0
    assert locations[2] == 0
    said = record(tables, abi.Where, locations[0])
    assert (list(said.from_zones), list(said.to_zones)) == ([1 << 4, *[0] * 7], [1 << abi.Zone.HOST, *[0] * 7])
    assert tables.words[locations[0] + said.vlans] == 0b110


def test_defaults_of_as_many_zones_as_there_may_be() -> None:
    zones = tuple(f"z{n}" for n in range(MAX_ZONES))
    pair = PairDefault(Action.ALLOW, from_zone=zones[-1], to_zone=zones[0])
    tables = compile_policy(Policy((), zones=zones, defaults=(pair,)))
    contexts = [Context(zones[-1], zones[0]), Context(zones[0], zones[-1]), Context()]
    assert [tables.walk(bytes(16), bytes(16), TCP, context=context).rule for context in contexts] == [1, 0, 0]
    with pytest.raises(PolicyTooLargeError, match="251 zones; 250 is the most"):
        compile_policy(Policy((), zones=(*zones, "more")))


def test_pages_are_whole_and_nothing_lies_across_two() -> None:
    # A tree of some 25,000 words at each of five addresses.
    ports = tuple((n, n) for n in range(0, 8192, 2))
    members = tuple(
        Rule(f"r{n}", Action.ALLOW, (), (ip_network((0x0A000000 + n, 32)),), (TCP,), ports) for n in range(5)
    )
    tables = compile_policy(Policy(members))
    pages = list(tables.page_values())
    assert {len(page) for page in pages} == {4 * abi.Limit.POLICY_PAGE}
    assert len(pages) > 1
    for n in range(5):
        for port, rule in ((0, n + 1), (1, 0), (8190, n + 1), (8192, 0)):
            assert tables.walk(mapped("10.9.9.9"), mapped(f"10.0.0.{n}"), TCP, port).rule == rule


@pytest.mark.parametrize("count", [1, 4, 5, 40, 300])
def test_members_of_many_sets(count: int) -> None:
    # Each set is a prefix around the address, or beside it.
    host = 0x0A000000
    around = [ip_network((host, 32 - n % 24)) if n < 24 else ip_network((host, 32)) for n in range(count)]
    members = [
        Rule(f"r{n}", Action.ALLOW, (network, ip_network((0x0B000000 + n, 32))), (), (TCP,), ((n, n),))
        for n, network in enumerate(around)
    ]
    tables = compile_policy(Policy(tuple(members)))
    for n in range(count):
        assert tables.walk(mapped("10.0.0.0"), mapped("10.9.9.9"), TCP, n).rule == n + 1
        assert tables.walk(mapped("12.0.0.0"), mapped("10.9.9.9"), TCP, n).rule == 0


def test_a_rule_is_filed_under_what_it_names_by_parts() -> None:
    web, app = Networks([ip_network("10.1.0.0/16")]), Networks([ip_network("10.2.0.0/16")])
    both = Networks.union((web, app))
    many = Networks.union(Networks([ip_network(f"10.3.{n}.0/24")]) for n in range(10))
    tables = compile_policy(
        Policy(
            (
                Rule("web", Action.ALLOW, web, both),
                Rule("both", Action.ALLOW, both, web),
                Rule("many", Action.ALLOW, many, app),
            )
        )
    )
    assert tables.sizes.trees == 2
    assert len(sets_of(tables, "10.1.0.0")) == 1
    for source, destination, rule in (
        ("10.1.0.1", "10.1.0.2", 1),
        ("10.1.0.1", "10.2.0.2", 1),
        ("10.2.0.1", "10.1.0.2", 2),
        ("10.2.0.1", "10.2.0.2", 0),
        ("10.3.9.1", "10.2.0.2", 3),
        ("10.3.10.1", "10.2.0.2", 0),
    ):
        assert tables.walk(mapped(source), mapped(destination), TCP, 80).rule == rule


def test_a_mapped_network_is_no_ipv6_network() -> None:
    with pytest.raises(ValueError, match="IPv4-mapped"):
        compile_policy(Policy((Rule("r", Action.ALLOW, (IPv6Network("::ffff:a00:0/104"),)),)))


# --- limits ----------------------------------------------------------------------------------------------------------


def crowd(count: int, **fields: object) -> list[Rule]:
    return [
        Rule(f"c{n}", Action.ALLOW, protocols=(TCP,), apps=HTTP, line=n + 1, **fields)  # type: ignore[arg-type]
        for n in range(count)
    ]


def hosts(count: int, base: int = 0x0A020000) -> list[tuple[Network, ...]]:
    return [(ip_network((base + n, 32)),) for n in range(count)]


def test_too_many_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile, "MAX_RULES", 10)
    with pytest.raises(PolicyTooLargeError, match="11 rules; the kernel's tables hold 10"):
        compile_policy(Policy(tuple(Rule(f"r{n}", Action.DENY) for n in range(11))))


def test_the_longest_walk() -> None:
    policy = Policy((*crowd(MAX_CANDIDATES - 1), Rule("last", Action.ALLOW)))
    tables = compile_policy(policy)
    assert tables.sizes.longest == MAX_CANDIDATES
    assert tables.walk(mapped("10.0.0.1"), mapped("10.0.0.2"), TCP, 80, possible=TLS).rule == MAX_CANDIDATES


def test_one_candidate_more_is_refused_with_the_numbers() -> None:
    policy = Policy((*crowd(MAX_CANDIDATES), Rule("last", Action.ALLOW, line=999)), file="p.yaml")
    with pytest.raises(PolicyTooLargeError) as caught:
        compile_policy(policy)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("p.yaml", 999)
    assert problem.message == (
        "for one source and one destination, 513 rules have to be looked at over tcp/0; the kernel's walk holds 512, "
        "and 'last' is the next"
    )


def test_rules_behind_one_that_decides_do_not_count() -> None:
    members = (Rule("first", Action.ALLOW), *crowd(1000), *(Rule(f"r{n}", Action.DENY) for n in range(1000)))
    assert compile_policy(Policy(members)).sizes.longest == 1


def test_rules_of_many_sources_to_one_place() -> None:
    # Under their destination there would be 1,000 for each packet.
    server = (ip_network("10.9.9.9/32"),)
    members = [
        Rule(f"r{n}", Action.ALLOW, source, server, (TCP,), ((443, 443),)) for n, source in enumerate(hosts(1000))
    ]
    tables = compile_policy(Policy(tuple(members)))
    assert tables.sizes.longest < 10
    assert tables.walk(mapped("10.2.1.0"), mapped("10.9.9.9"), TCP, 443).rule == 257
    assert tables.walk(mapped("10.2.1.0"), mapped("10.9.9.8"), TCP, 443).rule == 0


def test_rules_that_never_meet_do_not_count() -> None:
    web = {"protocols": (TCP,), "ports": ((80, 80),), "apps": HTTP}
    by_source = [Rule(f"r{n}", Action.ALLOW, sources=host, **web) for n, host in enumerate(hosts(1000))]
    by_destination = [Rule(f"r{n}", Action.ALLOW, destinations=host, **web) for n, host in enumerate(hosts(1000))]
    by_port = [Rule(f"r{n}", Action.ALLOW, protocols=(TCP,), ports=((n, n),), apps=HTTP) for n in range(1000)]
    for members in (by_source, by_destination, by_port):
        assert compile_policy(Policy(tuple(members))).sizes.longest <= 33


def test_crowds_of_two_families_do_not_add_up() -> None:
    members = [
        *crowd(400, sources=(ip_network("0.0.0.0/0"),)),
        *crowd(400, destinations=(ip_network("::/0"),)),
    ]
    assert compile_policy(Policy(tuple(members))).sizes.longest == 400


def test_crowds_at_different_ports_do_not_add_up() -> None:
    def of_side(side: str, port: int) -> list[Rule]:
        host = (ip_network("10.0.0.0/8"),)
        return crowd(400, **{side: host, "ports": ((port, port),)})

    assert compile_policy(Policy((*of_side("sources", 80), *of_side("destinations", 81)))).sizes.longest == 400
    with pytest.raises(PolicyTooLargeError, match="800 rules have to be looked at over tcp/80"):
        compile_policy(Policy((*of_side("sources", 80), *of_side("destinations", 80))))


def test_crowds_at_more_ports_than_are_looked_at_together() -> None:
    # Of each of a thousand ports 400 by source and 400 by destination, but never of the same one, then once.
    def of_side(side: str, ports: tuple[int, ...]) -> list[Rule]:
        host = (ip_network("10.0.0.0/8"),)
        return crowd(400, **{side: host, "ports": tuple((port, port) for port in ports)})

    even, odd = tuple(range(0, 2000, 2)), tuple(range(1, 2000, 2))
    policy = Policy((*of_side("sources", even), *of_side("destinations", odd)))
    assert compile_policy(policy).sizes.longest == 400
    with pytest.raises(PolicyTooLargeError, match="800 rules have to be looked at over tcp/776"):
        compile_policy(Policy((*of_side("sources", even), *of_side("destinations", (*odd, 776)))))


@pytest.mark.parametrize("outer", ["10.0.0.0/8", "0.0.0.0/0", ""])
def test_rules_that_meet_inside_nested_prefixes_count(outer: str) -> None:
    # Half of them hold for a network, half for one host in it: only at the host do they all meet.
    around = (ip_network(outer),) if outer else ()
    host = (ip_network("10.1.1.1/32"),)
    for side in ("sources", "destinations"):
        members = [*crowd(257, **{side: around}), *crowd(256, **{side: host})]
        with pytest.raises(PolicyTooLargeError, match="513 rules"):
            compile_policy(Policy(tuple(members)))
        elsewhere = [*crowd(257, **{side: around}), *crowd(256, **{side: (ip_network("fd00::1/128"),)})]
        if outer:
            compile_policy(Policy(tuple(elsewhere)))


def test_a_class_of_many_trees_has_one_of_them_all() -> None:
    # A hundred sets hold the host, all of different addresses.
    members = tuple(
        Rule(f"r{n}", Action.ALLOW, (), (ip_network("10.0.0.1/32"), *hosts(1, 0x0B000000 + n)[0]), (TCP,), ((n, n),))
        for n in range(100)
    )
    tables = compile_policy(Policy(members))
    assert class_of(tables, "10.0.0.1").by_destination == 1
    for n in range(100):
        assert tables.walk(mapped("10.9.9.9"), mapped("10.0.0.1"), TCP, n).rule == n + 1
        assert tables.walk(mapped("10.9.9.9"), mapped("11.0.0.7"), TCP, n).rule == (n + 1 if n == 7 else 0)


def test_what_cannot_be_told_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [*crowd(400, sources=hosts(1)[0]), *crowd(400, destinations=hosts(1)[0], ports=((80, 80),))]
    monkeypatch.setattr(bound, "MAX_WORK", 1)
    with pytest.raises(PolicyTooLargeError, match="cannot be told whether no more than 512 of them meet"):
        compile_policy(Policy(tuple(members)))
