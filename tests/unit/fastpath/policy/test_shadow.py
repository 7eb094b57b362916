"""Lint: what it finds, what it must not say, and its work."""

import random
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fastpath.abi import Action, Course, Protocol
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import (
    ANY_APP,
    ICMP,
    TCP,
    UDP,
    Default,
    Log,
    PairDefault,
    Policy,
    Rule,
    RuleFileUse,
    all_protocols,
)
from fastpath.policy.shadow import Finding, Kind, lint
from fastpath.policy.where import Context, Where

A, D, INSPECT = Action.ALLOW, Action.DENY, Action.INSPECT
HTTP, TLS, SSH = (1 << app for app in (Protocol.HTTP, Protocol.TLS, Protocol.SSH))
FILES = (RuleFileUse("web", "abc"),)


def rule(
    action: Action, sources: str = "", destinations: str = "", *, ports: str = "", apps: int = ANY_APP, **fields: object
) -> Rule:
    spans = [tuple(map(int, (text.split("-") * 2)[:2])) for text in ports.split()]
    return Rule(
        "r", action, tuple(map(ip_network, sources.split())), tuple(map(ip_network, destinations.split())),
        **{"protocols": (TCP,), "ports": tuple(spans), "apps": apps, **fields},  # type: ignore[arg-type]
    )  # fmt: skip


def found(*rules: Rule, default: Default = Default()) -> list[str]:  # noqa: B008
    return [f"{f.rule} {f.kind} by {','.join(map(str, f.by))}" for f in lint(Policy(rules, default))]


# --- shadowed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "behind", "by"),
    [
        ([rule(A)], rule(D, ports="80"), "1"),
        ([rule(A, "10.0.0.0/8")], rule(D, "10.1.0.0/16", ports="80"), "1"),
        ([rule(A, "10.0.0.0/9"), rule(D, "10.128.0.0/9")], rule(A, "10.0.0.0/8"), "1,2"),
        ([rule(A, "0.0.0.0/0"), rule(D, "::/0")], rule(A, "10.0.0.0/8"), "1"),
        ([rule(A, "0.0.0.0/0"), rule(D, "::/0")], rule(A), "1,2"),
        ([rule(A, ports="0-99"), rule(D, ports="100-65535")], rule(A, ports="80-443"), "1,2"),
        ([rule(A, protocols=(TCP, UDP))], rule(D, protocols=(UDP,), ports="53"), "1"),
        ([rule(A, protocols=(UDP,), ports="80", udp_ports=((53, 53),))], rule(D, protocols=(UDP,), ports="53"), "1"),
        ([rule(A, protocols=())], rule(D, protocols=(ICMP, 47)), "1"),
        # Three of an L, and the corner.
        ([rule(A, "10.0.0.0/9"), rule(A, "", "10.0.0.0/9"), rule(D, "10.128.0.0/9", "10.128.0.0/9")],
         rule(A, "10.0.0.0/8", "10.0.0.0/8"), "1,2,3"),
        ([rule(A, apps=HTTP | TLS)], rule(D, apps=HTTP), "1"),
        ([rule(A, apps=HTTP), rule(A, apps=TLS)], rule(A, apps=HTTP | TLS), "1,2"),
        ([rule(D, apps=HTTP)], rule(INSPECT, apps=HTTP), "1"),
        ([rule(INSPECT, rule_files=FILES)], rule(A, ports="80"), "1"),
    ],
)  # fmt: skip
def test_shadowed(before: list[Rule], behind: Rule, by: str) -> None:
    findings = found(*before, behind, default=Default(A, reset=True, monitor=True))
    assert f"{len(before) + 1} shadowed by {by}" in findings


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ([rule(A, ports="80")], rule(D)),
        ([rule(A, "10.0.0.0/9"), rule(D, "10.128.0.0/10")], rule(A, "10.0.0.0/8")),
        ([rule(A, "0.0.0.0/0")], rule(D)),  # IPv6 is left
        ([rule(A, ports="0-99"), rule(D, ports="101-65535")], rule(A, ports="80-443")),
        ([rule(A, protocols=(TCP, UDP))], rule(D, protocols=())),
        ([rule(A, "10.0.0.0/9"), rule(A, "", "10.0.0.0/9")], rule(A, "10.0.0.0/8", "10.0.0.0/8")),
        # Open: whether it ends the walk depends on the protocol.
        ([rule(A, apps=HTTP)], rule(D)),
        ([rule(A, apps=HTTP)], rule(D, apps=HTTP | TLS)),
        # Whichever of the two it is, the last one denies it before that is known.
        ([rule(D, apps=HTTP), rule(D, apps=TLS)], rule(D, apps=HTTP | TLS)),
        # Asks for the protocol, and is passed over once that is known.
        ([rule(INSPECT)], rule(D)),
    ],
)
def test_not_shadowed(before: list[Rule], behind: Rule) -> None:
    assert not [each for each in found(*before, behind) if "shadowed" in each]


def test_nothing_to_shadow() -> None:
    # It matches nothing, for which no other rule is to blame.
    assert found(rule(A), rule(A, apps=1 << Protocol.QUIC)) == []


# --- redundant --------------------------------------------------------------------------------------------------------


def test_redundant_by_rules_and_the_default() -> None:
    narrow = rule(A, "10.0.0.0/8", ports="80-90")
    assert found(narrow, rule(A, ports="70-100")) == ["1 redundant by 2"]
    assert found(narrow, rule(A, ports="70-85"), rule(A, ports="86-90")) == ["1 redundant by 2,3"]
    assert found(narrow, rule(A, ports="70-85")) == []
    assert found(narrow, rule(D, ports="82"), rule(A)) == []
    # A rule on what is not its own business stands in nobody's way.
    assert found(narrow, rule(D, ports="91"), rule(A)) == ["1 redundant by 3"]
    assert found(narrow, default=Default(A)) == ["1 redundant by 0"]
    assert found(narrow, default=Default(D)) == []


def test_attributes_count() -> None:
    reset = Default(D, reset=True)
    assert found(rule(D, reset=True), default=reset) == ["1 redundant by 0"]
    assert found(rule(D), default=reset) == []
    assert found(rule(D, reset=True, log=Log.ALL), default=reset) == []
    assert found(rule(D, reset=True, monitor=True), default=reset) == []
    other = (RuleFileUse("api", "abc"),)
    assert found(rule(INSPECT, ports="80", rule_files=FILES), rule(INSPECT, rule_files=other)) == []
    assert found(rule(INSPECT, ports="80", rule_files=FILES), rule(INSPECT, rule_files=FILES)) == ["1 redundant by 2"]


def test_waiting_for_the_protocol_is_a_difference() -> None:
    # Without it a handshake need not wait.
    assert found(rule(A, apps=HTTP), default=Default(A)) == []
    assert found(rule(A, apps=HTTP), rule(A, apps=HTTP | TLS)) == []
    assert found(rule(A, ports="80", apps=HTTP), rule(A, apps=HTTP)) == ["1 redundant by 2"]
    assert found(rule(D, apps=SSH), rule(D, apps=HTTP | SSH), default=Default(A)) == ["1 redundant by 2"]
    assert found(rule(D, apps=SSH)) == ["1 redundant by 0"]
    assert found(rule(INSPECT), default=Default(A)) == []


def test_a_twin_is_reported_once() -> None:
    assert found(rule(A), rule(A)) == ["2 shadowed by 1"]


# --- never a false one ------------------------------------------------------------------------------------------------

NETWORKS = [
    ip_network(text)
    for text in (
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.128.0.0/9",
        "10.1.0.0/16",
        "::/0",
        "fd00::/8",
        "fd00::/64",
    )
]
ADDRESSES = {
    4: ["0.0.0.0", "10.0.0.0", "10.1.2.3", "10.127.255.255", "10.128.0.0", "10.255.255.255", "11.0.0.0"],
    6: ["::", "fd00::1", "fd00:0:0:1::", "fe80::1"],
}
EDGES = [0, 1, 79, 80, 81, 443, 65535]
APPS = [Protocol.UNKNOWN, Protocol.HTTP, Protocol.DNS, Protocol.SSH]
masks = st.lists(st.sampled_from(APPS), min_size=1, max_size=4, unique=True).map(lambda apps: sum(1 << a for a in apps))
networks = st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple)
spans = st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)).map(lambda pair: (min(pair), max(pair)))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    with_ports = draw(st.booleans())
    return Rule(
        "r",
        draw(st.sampled_from([A, A, D, D, INSPECT])),
        sources=draw(networks),
        destinations=draw(networks) if draw(st.booleans()) else (),
        protocols=draw(st.sampled_from([(TCP,), (TCP, UDP)] if with_ports else [(), (), (ICMP,), (47, TCP)])),
        ports=draw(st.lists(spans, max_size=2).map(tuple)) if with_ports else (),
        apps=draw(masks) if with_ports and draw(st.booleans()) else ANY_APP,
        rule_files=FILES if draw(st.booleans()) else (),
        reset=draw(st.sampled_from([False, False, False, True])),
        where=draw(wheres),
    )


PLACES = [None, "host", "lan", "dmz"]
zones = st.sampled_from([(), (), ("lan",), ("host",), ("lan", "dmz")])
wheres = st.one_of(
    st.none(),
    st.none(),
    st.builds(
        Where,
        zones,
        zones,
        st.sampled_from([(), (), (Course.THROUGH,), (Course.TO_HOST, Course.THROUGH), (Course.FROM_HOST,)]),
        st.sampled_from([(), (), ((0, 0),), ((1, 2),), ((2, 2),)]),
    ),
)


@st.composite
def flows(draw: st.DrawFn) -> tuple[bytes, bytes, int, int, int, Context]:
    version = draw(st.sampled_from([4, 4, 6]))
    ends = [ip_address(draw(st.sampled_from(ADDRESSES[version]))) for _ in range(2)]
    src, dst = ((bytes(10) + b"\xff\xff" if version == 4 else b"") + end.packed for end in ends)
    l4 = draw(st.sampled_from([TCP, TCP, TCP, UDP, ICMP, 47]))
    # What a flow may be, its IP protocol can carry.
    possible = draw(st.one_of(st.just(0), masks)) & all_protocols(l4)
    context = Context(draw(st.sampled_from(PLACES)), draw(st.sampled_from(PLACES)), draw(st.sampled_from([0, 1, 2, 3])))
    return src, dst, l4, draw(st.sampled_from(EDGES)), possible, context


pairs = st.builds(
    PairDefault,
    action=st.sampled_from([A, D]),
    from_zone=st.sampled_from(["", "lan", "host"]),
    to_zone=st.sampled_from(["dmz", "lan", ""]),
)
defaults = st.builds(Default, action=st.sampled_from([A, D]))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(rules(), min_size=1, max_size=6),
    defaults,
    st.lists(pairs, max_size=2),
    st.lists(flows(), min_size=30, max_size=60),
)
def test_what_is_said_holds_for_every_flow(
    members: list[Rule],
    default: Default,
    between: list[PairDefault],
    seen: list[tuple[bytes, bytes, int, int, int, Context]],
) -> None:
    policy = Policy(tuple(members), default, defaults=tuple(between))
    for finding in lint(policy):
        event(finding.kind)
        at = finding.rule - 1
        without = replace(policy, rules=(*policy.rules[:at], *policy.rules[at + 1 :]))
        for src, dst, l4, dport, possible, context in seen:
            walk = evaluate(policy, src, dst, l4, dport, possible=possible, context=context)
            if finding.kind == Kind.SHADOWED:
                assert walk.rule != finding.rule
            else:
                other = evaluate(without, src, dst, l4, dport, possible=possible, context=context)
                assert (walk.verdict, walk.flags) == (other.verdict, other.flags)


def test_the_other_way_round() -> None:
    """Rules on single flows: those of which no walk ever names are exactly what is called shadowed."""
    choose = random.Random(7)
    hosts = [ip_network(f"10.0.0.{n}/32") for n in range(4)]
    called = 0
    for _ in range(200):
        members = tuple(
            Rule("r", choose.choice([A, D]), tuple(choose.sample(hosts, choose.randint(1, 4))), protocols=(TCP,))
            for _ in range(5)
        )
        policy = Policy(members)
        hit = set()
        for host in hosts:
            assert isinstance(host, IPv4Network)
            packed = bytes(10) + b"\xff\xff" + host.network_address.packed
            hit.add(evaluate(policy, packed, packed, TCP, 80).rule)
        shadowed = {finding.rule for finding in lint(policy) if finding.kind == Kind.SHADOWED}
        assert shadowed == set(range(1, 6)) - hit
        called += len(shadowed)
    assert called > 100


# --- zones and the like -----------------------------------------------------------------------------------------------


LAN, LAN_OR_DMZ, TO_HOST = Where(("lan",)), Where(("lan", "dmz")), Where((), (), (Course.TO_HOST,))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([rule(A, where=LAN_OR_DMZ), rule(D, where=LAN)], ["2 shadowed by 1"]),
        ([rule(A), rule(D, where=LAN)], ["2 shadowed by 1"]),
        ([rule(A, where=LAN), rule(A, where=LAN_OR_DMZ)], ["1 redundant by 2"]),
        ([rule(A, where=LAN), rule(D, where=LAN_OR_DMZ), rule(A)], []),
        ([rule(A, where=LAN), rule(D, where=Where(("dmz",))), rule(A)], ["1 redundant by 3"]),
        ([rule(A, where=LAN), rule(A, where=Where(("dmz",))), rule(D)], ["3 redundant by 0"]),
        ([rule(A, where=TO_HOST), rule(A, where=TO_HOST, ports="80")], ["2 shadowed by 1"]),
        ([rule(D, reset=False, where=Where(("dmz",)))], ["1 redundant by 0"]),
        # Without it the gateway's own traffic is allowed.
        ([rule(D, reset=False, where=Where(("host",)))], []),
        ([rule(A, where=Where(vlans=((1, 100),))), rule(D, where=Where(vlans=((5, 7),)))], ["2 shadowed by 1"]),
    ],
)
def test_where_rules_hold(rules: list[Rule], said: list[str]) -> None:
    assert found(*rules) == said


def test_the_default_of_a_pair_stands_in_for_a_rule() -> None:
    between = PairDefault(D, from_zone="lan", to_zone="dmz")
    one = rule(D, where=Where(("lan",), ("dmz",)))
    for default in (Default(D), Default(A)):
        assert lint(Policy((one,), default, defaults=(between,))) == [Finding(Kind.REDUNDANT, 1, (2,))]
    wider = replace(between, from_zone="")
    assert lint(Policy((one,), Default(D), defaults=(wider,))) == [Finding(Kind.REDUNDANT, 1, (2, 0))]
    assert not lint(Policy((one,), Default(A), defaults=(wider,)))
    assert not lint(Policy((rule(D),), Default(D), defaults=(replace(between, action=A),)))


# --- work -------------------------------------------------------------------------------------------------------------


def test_it_gives_up_and_says_so() -> None:
    checks = [rule(D, f"10.0.{n}.0/24", f"10.{n}.0.0/16") for n in range(64)]
    policy = Policy((*checks, rule(A, "10.0.0.0/18", "10.0.0.0/10")), Default(A))
    whole = [rule(D, f"10.0.{n}.0/24") for n in range(64)]
    assert lint(Policy((*whole, rule(A, "10.0.0.0/18"))), rule_work=50)[-1] == Finding(Kind.UNKNOWN, 65)
    assert lint(Policy((*whole, rule(A, "10.0.0.0/18"))))[-1].kind == Kind.SHADOWED
    assert lint(policy)[-1] == Finding(Kind.REDUNDANT, 65, (0,))
    assert all(f.kind == Kind.UNKNOWN for f in lint(policy, all_work=0))


def test_many_prefixes_beneath_one() -> None:
    parts = [rule(A, f"10.0.{n}.0/24") for n in range(256)]
    assert found(*parts, rule(D, "10.0.0.0/16"))[-1].startswith("257 shadowed by 1,2,3,")
    assert "shadowed" not in "".join(found(*parts[:100], *parts[101:], rule(D, "10.0.0.0/16")))


def test_many_rules_within_a_wide_one_are_work_too() -> None:
    crowd = [rule(D, f"10.{n >> 7}.{2 * n & 255}.0/24", ports="1") for n in range(1000)]
    for ports, kind in (("1-2", Kind.UNKNOWN), ("2", Kind.REDUNDANT)):
        policy = Policy((rule(D, "0.0.0.0/0", ports=ports), *crowd))
        assert lint(policy, rule_work=500)[0].kind == kind
    # Its denial is the default's, and that of the others.
    assert lint(policy)[0].kind == Kind.REDUNDANT


def test_what_wide_rules_do_not_have_in_common_costs_nothing() -> None:
    allowed = [rule(A, f"10.{n >> 8}.{n & 255}.0/24", "10.0.0.0/8", ports="1") for n in range(3000)]
    assert lint(Policy((rule(D, "10.0.0.0/8", ports="1"), *allowed)), rule_work=5000)[-1].kind == Kind.SHADOWED
    assert lint(Policy((*allowed, rule(D, "192.168.0.0/16", ports="1"))), rule_work=200) == [
        Finding(Kind.REDUNDANT, 3001, (0,))
    ]


def test_types_and_codes_shadow() -> None:
    ping, code, clocks = ((1,), (0x0800, 0x08FF)), ((1,), (0x0801, 0x0801)), ((1,), (0x0D00, 0x0DFF))
    rules = tuple(
        Rule(f"r{n}", Action.ALLOW if n % 2 else Action.DENY, protocols=protocols, icmp_types=(span,))
        for n, (protocols, span) in enumerate((ping, code, clocks))
    )
    assert lint(Policy((*rules, Rule("tcp", Action.ALLOW, protocols=(TCP,)))))[:1] == [Finding(Kind.SHADOWED, 2, (1,))]


def test_a_service_shadows_with_the_ports_of_each_protocol() -> None:
    names = rule(A, protocols=(TCP, UDP), ports="80", udp_ports=((53, 53),))
    assert found(names, rule(D, protocols=(UDP,), ports="80", log=Log.ALL)) == []
    assert found(names, rule(D, ports="53", log=Log.ALL)) == []
