"""Compiled tables: their layout, their limits, and their meaning against the naive evaluator."""

import random
from collections.abc import Iterator
from ctypes import sizeof
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fastpath import abi
from fastpath.abi import Action, Protocol, Verdict
from fastpath.document import Network
from fastpath.policy import compile  # noqa: A004
from fastpath.policy.compile import (
    LIMIT,
    MAX_CANDIDATES,
    PORT_BASE,
    PORT_ENTRIES,
    PORT_OTHER,
    PolicyTooLargeError,
    compile_policy,
    set_value,
)
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import (
    ANY_APP,
    ICMP,
    TCP,
    UDP,
    Default,
    Policy,
    Rule,
    RuleFileUse,
    all_protocols,
)

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


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    over_ports = draw(st.booleans())
    # With ports for some of its protocols only: what a list of services comes to.
    carriers = st.sampled_from([(TCP,), (UDP,), (TCP, UDP), (ICMP, TCP), (UDP, 47, TCP)])
    return Rule(
        "r",
        draw(st.sampled_from(Action)),
        sources=draw(networks),
        destinations=draw(networks),
        protocols=draw(carriers if over_ports else st.sampled_from([(), (TCP,), (ICMP,), (47, UDP), (0, 255)])),
        ports=draw(st.lists(ranges, max_size=3).map(tuple)) if over_ports else (),
        udp_ports=draw(st.none() | st.lists(ranges, max_size=3).map(tuple)) if over_ports else None,
        apps=draw(masks) if over_ports and draw(st.booleans()) else ANY_APP,
        rule_files=FILES if draw(st.booleans()) else (),
        reset=draw(st.booleans()),
        monitor=draw(st.booleans()),
        priority=draw(st.integers(0, 3)),
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


def test_full_tables() -> None:
    # One rule for each port, so that the walk has to find it in the last word too.
    policy = Policy(
        tuple(Rule(f"r{n}", Action.ALLOW, protocols=(TCP,), ports=((n * 16, n * 16 + 15),)) for n in range(LIMIT))
    )
    tables = compile_policy(policy)
    for number in (0, 63, 64, 2047, 4095):
        for port in (number * 16, number * 16 + 15):
            assert tables.walk(bytes(16), bytes(16), TCP, port).rule == number + 1
    assert tables.walk(bytes(16), bytes(16), UDP, 80).verdict == Verdict.DENY
    assert tables.sizes.rules == 4096
    assert tables.sizes.sets == 4098  # a port each, the empty one, all of them
    assert "4096 rules, 4 prefixes, 4098 sets" in str(tables.sizes)


# --- layout ----------------------------------------------------------------------------------------------------------


def test_prefix_keys() -> None:
    rule = Rule("r", Action.ALLOW, (ip_network("10.1.0.0/16"),), (ip_network("fd00::/8"),))
    tables = compile_policy(Policy((rule,)))
    keys = {
        (key.side, key.prefixlen - 32, bytes(key.addr)): tables.sets[prefix.number]
        for prefix, key in ((prefix, abi.Prefix.from_buffer_copy(prefix.key)) for prefix in tables.prefixes)
    }
    assert keys == {
        (0, 0, mapped("::")): 0,
        (0, 96, mapped("0.0.0.0")): 0,
        (0, 112, mapped("10.1.0.0")): 1,
        (1, 0, mapped("::")): 0,
        (1, 96, mapped("0.0.0.0")): 0,
        (1, 8, mapped("fd00::")): 1,
    }


def test_port_table() -> None:
    tables = compile_policy(
        Policy(
            (
                Rule("any", Action.DENY, log=Default().log),
                Rule("web", Action.ALLOW, protocols=(TCP,), ports=((80, 81), (82, 83), (65535, 65535))),
                Rule("dns", Action.ALLOW, protocols=(TCP, UDP), ports=((53, 53),)),
                Rule("ping", Action.ALLOW, protocols=(ICMP,)),
                Rule("udp", Action.ALLOW, protocols=(UDP,)),
            )
        )
    )
    assert len(tables.ports) == PORT_ENTRIES == 131072 + 256
    assert tables.port_values()[4 * 80 : 4 * 80 + 4] == bytes(abi.c_uint32(tables.ports[80]))

    def at(base: int, port: int) -> int:
        return tables.sets[tables.ports[base + port]]

    tcp, udp = PORT_BASE[TCP], PORT_BASE[UDP]
    assert [at(tcp, port) for port in (0, 53, 79, 80, 83, 84, 65535)] == [0b1, 0b101, 0b1, 0b11, 0b11, 0b1, 0b11]
    assert [at(udp, port) for port in (0, 53, 80, 65535)] == [0b10001, 0b10101, 0b10001, 0b10001]
    assert [at(PORT_OTHER, l4) for l4 in (0, ICMP, 2, 255)] == [0b1, 0b1001, 0b1, 0b1]


def test_set_values() -> None:
    bits = 1 << 0 | 1 << 63 | 1 << 64 | 1 << 4095
    value = abi.RuleSet.from_buffer_copy(set_value(bits))
    assert len(set_value(bits)) == sizeof(abi.RuleSet)
    assert value.summary == 1 << 0 | 1 << 1 | 1 << 63
    assert list(value.words) == [1 | 1 << 63, 1] + [0] * 61 + [1 << 63]
    assert set_value(0) == bytes(sizeof(abi.RuleSet))


def test_rule_values() -> None:
    rule = Rule("r", Action.INSPECT, apps=HTTP, protocols=(TCP,), rule_files=FILES, reset=True)
    (packed,) = compile_policy(Policy((rule,))).rule_values()
    value = abi.Rule.from_buffer_copy(packed)
    assert (value.apps, value.hash, value.action, value.flags) == (HTTP, rule.hash, Action.INSPECT, rule.flags)


def test_equal_sets_are_stored_once_and_class_0_is_empty() -> None:
    tables = compile_policy(Policy((Rule("r", Action.ALLOW),)))
    assert tables.sets == (0, 1)
    assert tables.set_values()[0] == bytes(sizeof(abi.RuleSet))
    assert compile_policy(Policy()).sets == (0,)
    assert compile_policy(Policy()).rule_values() == []


def test_a_mapped_network_is_no_ipv6_network() -> None:
    with pytest.raises(ValueError, match="IPv4-mapped"):
        compile_policy(Policy((Rule("r", Action.ALLOW, (IPv6Network("::ffff:a00:0/104"),)),)))


# --- limits ----------------------------------------------------------------------------------------------------------


def candidates(count: int, **fields: object) -> list[Rule]:
    return [
        Rule(f"c{n}", Action.ALLOW, protocols=(TCP,), apps=HTTP, line=n + 1, **fields)  # type: ignore[arg-type]
        for n in range(count)
    ]


def test_too_many_rules() -> None:
    with pytest.raises(PolicyTooLargeError, match="4097 rules; the kernel's tables hold 4096"):
        compile_policy(Policy(tuple(Rule(f"r{n}", Action.DENY) for n in range(LIMIT + 1))))


def test_the_longest_walk_the_kernel_can_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    # Fillers keep every word of the three sets from being empty, though none of them matches.
    elsewhere = (ip_network("fd00::/8"),)
    fillers = [
        Rule(f"f{n}", Action.DENY, **{"sources" if n % 2 else "destinations": elsewhere})  # type: ignore[arg-type]
        for n in range(LIMIT - MAX_CANDIDATES - 1)
    ]
    policy = Policy((*candidates(MAX_CANDIDATES), *fillers, Rule("last", Action.ALLOW)))
    tables = compile_policy(policy)
    flow = (mapped("10.0.0.1"), mapped("10.0.0.2"), TCP, 80)
    assert tables.walk(*flow, possible=TLS).rule == LIMIT
    assert compile.STEPS == abi.Limit.POLICY_WORDS + abi.Limit.POLICY_CANDIDATES == 320
    monkeypatch.setattr(compile, "STEPS", 319)
    assert tables.walk(*flow, possible=TLS).rule == 0


def test_one_candidate_more_is_refused_with_the_numbers() -> None:
    policy = Policy((*candidates(MAX_CANDIDATES + 1), Rule("last", Action.ALLOW)), file="p.yaml")
    with pytest.raises(PolicyTooLargeError) as caught:
        compile_policy(policy)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("p.yaml", 256)
    assert "256 rules that depend on the application protocol" in problem.message
    assert "over tcp; the kernel's walk holds 255, and 'c255' is the next" in problem.message


def test_inspect_without_rule_files_counts() -> None:
    identify = tuple(Rule(f"r{n}", Action.INSPECT) for n in range(MAX_CANDIDATES + 1))
    with pytest.raises(PolicyTooLargeError, match="over any protocol"):
        compile_policy(Policy(identify))
    compile_policy(Policy(tuple(Rule(f"r{n}", Action.INSPECT, rule_files=FILES) for n in range(LIMIT))))


def test_candidates_that_never_meet_do_not_count() -> None:
    hosts = [(ip_network((0x0A000000 + n, 32)),) for n in range(1000)]
    web = {"protocols": (TCP,), "ports": ((80, 80),), "apps": HTTP}
    by_source = [Rule(f"r{n}", Action.ALLOW, sources=host, **web) for n, host in enumerate(hosts)]
    by_destination = [Rule(f"r{n}", Action.ALLOW, destinations=host, **web) for n, host in enumerate(hosts)]
    by_port = [Rule(f"r{n}", Action.ALLOW, protocols=(TCP,), ports=((n, n),), apps=HTTP) for n in range(1000)]
    for members in (by_source, by_destination, by_port):
        assert len(compile_policy(Policy(tuple(members))).policy.rules) == 1000


def test_crowds_of_one_kind_that_never_meet_do_not_count() -> None:
    # Enough share a source, enough a destination, enough a port: but never the same ones.
    hosts = [(ip_network((0x0A020000 + n, 32)),) for n in range(300)]
    senders = [(ip_network((0x0A090000 + n, 32)),) for n in range(300)]
    here, there = (ip_network("10.1.0.0/16"),), (ip_network("10.2.0.0/16"),)
    web = {"protocols": (TCP,), "ports": ((80, 80),), "apps": HTTP}
    members = [
        *(Rule(f"s{n}", Action.ALLOW, here, host, **web) for n, host in enumerate(hosts)),
        *(Rule(f"d{n}", Action.ALLOW, sender, there, **web) for n, sender in enumerate(senders)),
        *(Rule(f"p{n}", Action.ALLOW, here, there, (TCP,), ((n, n),), HTTP) for n in range(1000, 1300)),
    ]
    assert compile_policy(Policy(tuple(members))).sizes.rules == 900
    with pytest.raises(PolicyTooLargeError):
        compile_policy(Policy((*members, *candidates(MAX_CANDIDATES, sources=here))))


def test_what_cannot_be_told_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        Rule(f"r{n}", Action.ALLOW, protocols=(TCP,), ports=((n, n + 100),), apps=HTTP, sources=source)
        for n, source in ((n, (ip_network((0x0A000000 + n, 32)),) if n % 2 else ()) for n in range(1000))
    ]
    members += [Rule("i", Action.INSPECT) for _ in range(100)]
    members += candidates(100, destinations=(ip_network("10.0.0.0/8"),))
    compile_policy(Policy(tuple(members)))
    monkeypatch.setattr(compile, "MAX_WORK", 10_000)
    with pytest.raises(PolicyTooLargeError, match=r"1200 rules depend .* cannot be told whether no more than 255 meet"):
        compile_policy(Policy(tuple(members)))


@pytest.mark.parametrize("outer", ["10.0.0.0/8", "0.0.0.0/0", ""])
def test_candidates_that_meet_inside_nested_prefixes_count(outer: str) -> None:
    # Half of them hold for a network, half for one host in it: only at the host do they all meet.
    around = (ip_network(outer),) if outer else ()
    host = (ip_network("10.1.1.1/32"),)
    for side in ("sources", "destinations"):
        members = [*candidates(128, **{side: around}), *candidates(128, **{side: host})]
        with pytest.raises(PolicyTooLargeError, match="256 rules"):
            compile_policy(Policy(tuple(members)))
        elsewhere = [*candidates(128, **{side: around}), *candidates(128, **{side: (ip_network("fd00::1/128"),)})]
        if outer:
            compile_policy(Policy(tuple(elsewhere)))
