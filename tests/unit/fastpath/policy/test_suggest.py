"""Suggested rules: read back, compiled and walked, they allow what was seen and nothing else."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from ipaddress import ip_address
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.abi import Protocol, Verdict
from fastpath.policy.compiler.compile import compile_policy
from fastpath.policy.compiler.tables import Tables
from fastpath.policy.defined import Defined, addresses
from fastpath.policy.draft import Account, Draft
from fastpath.policy.model import ICMP, ICMP6, TCP, UDP
from fastpath.policy.observed import Amount, Observed
from fastpath.policy.suggest import EPHEMERAL, Widening, suggest
from tests.unit.fastpath.policy import policy_of
from tests.unit.fastpath.policy.test_schema import in_schema

EXACT = Widening()


class Seen(NamedTuple):
    src: str
    dst: str
    l4: int
    port: int = 0
    app: Protocol = Protocol.NONE


def packed(text: str) -> bytes:
    address = ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def draft_of(flows: list[Seen], widening: Widening = EXACT, defined: Defined | None = None) -> Draft:
    observed = Observed()
    for flow in flows:
        observed.add(
            packed(flow.src), packed(flow.dst), flow.l4, flow.port, app=flow.app, packets=3, octets=100, inspected=False
        )
    account = Account(None, 0, Amount(len(flows), 3 * len(flows), 100 * len(flows)), {})
    return Draft(suggest(observed, widening), defined or Defined(), account)


def rules_of(draft: Draft) -> list[dict[str, object]]:
    """Without what is said of them."""
    rules = draft.as_json()["policy"]["rules"]
    return [{name: value for name, value in rule.items() if name != "description"} for rule in rules]


def tables_of(draft: Draft) -> Tables:
    return compile_policy(policy_of("\n".join(draft.lines())))


def allows(tables: Tables, flow: Seen) -> bool:
    possible = 1 << flow.app if flow.app else 0
    walk = tables.walk(packed(flow.src), packed(flow.dst), flow.l4, flow.port, possible=possible)
    return walk.verdict == Verdict.ALLOW


# -- as a whole --------------------------------------------------------------------------------------------------------

V4 = ["10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1", "10.0.1.3"]
V6 = ["fd00::1:0", "fd00::1:1", "fd00::1:2", "fd00::2:0"]
PORTS = (0, 80, 81, EPHEMERAL - 1, EPHEMERAL, 40000, 65535)
TRAFFIC = [(l4, port) for l4 in (TCP, UDP) for port in PORTS] + [(ICMP, 0), (47, 0), (ICMP6, 0)]
APPS = {TCP: (Protocol.NONE, Protocol.UNKNOWN, Protocol.HTTP, Protocol.TLS), UDP: (Protocol.NONE, Protocol.DNS)}


@st.composite
def flow(draw: st.DrawFn) -> Seen:
    hosts = draw(st.sampled_from((V4, V6)))
    l4, port = draw(st.sampled_from(TRAFFIC))
    # Few clients and servers are alike if each flow is drawn by itself.
    return Seen(
        draw(st.sampled_from(hosts)), draw(st.sampled_from(hosts)), l4, port,
        draw(st.sampled_from(APPS.get(l4, (Protocol.NONE,)))),
    )  # fmt: skip


@st.composite
def crowd(draw: st.DrawFn) -> list[Seen]:
    """A product, as in life: some clients of some ports of some servers."""
    hosts = draw(st.sampled_from((V4, V6)))
    some = st.lists(st.sampled_from(hosts), min_size=1, max_size=5, unique=True)
    over = draw(st.lists(st.sampled_from(TRAFFIC), min_size=1, max_size=4, unique=True))
    return [Seen(src, dst, *each) for src in draw(some) for dst in draw(some) for each in over]


traffic = st.tuples(st.lists(flow(), max_size=15), st.lists(crowd(), max_size=3)).map(
    lambda drawn: [*drawn[0], *itertools.chain(*drawn[1])]
)


@settings(deadline=None)
@given(traffic)
def test_exactly_what_was_seen_is_allowed(flows: list[Seen]) -> None:
    tables = tables_of(draft_of(flows))
    told = defaultdict(set)
    for flow in flows:
        told[flow.dst, flow.l4, flow.port].add(flow.app)
    seen = {flow[:4] for flow in flows}
    for hosts in (V4, V6):
        for src, dst, (l4, port) in itertools.product(hosts, hosts, TRAFFIC):
            for app in APPS.get(l4, (Protocol.NONE,)):
                apps = told[dst, l4, port]
                only = len(apps) == 1 and not apps & {Protocol.NONE, Protocol.UNKNOWN}
                expected = (src, dst, l4, port) in seen and (not only or app in apps)
                assert allows(tables, Seen(src, dst, l4, port, app)) == expected


@settings(deadline=None)
@given(traffic, st.integers(23, 32), st.integers(100, 128), st.integers(1, 4), st.none() | st.integers(1, 3))
def test_widening_is_what_it_says(flows: list[Seen], length4: int, length6: int, count: int, span: int | None) -> None:
    widening = Widening({4: (length4, count), 6: (length6, count)}, span)
    tables = tables_of(draft_of([flow._replace(app=Protocol.NONE) for flow in flows], widening))
    ports = defaultdict(set)
    for flow in flows:
        ports[flow.dst, flow.l4].add(flow.port)
    clients = defaultdict(set)
    for flow in flows:
        clients[flow.dst, flow.l4, flow.port].add(flow.src)
    for hosts, length, bits in ((V4, length4, 32), (V6, length6, 128)):
        for src, dst, (l4, port) in itertools.product(hosts, hosts, TRAFFIC):
            high = {each for each in ports[dst, l4] if each >= EPHEMERAL}
            asked = {port}
            if span is not None and len(high) >= span and min(high) <= port <= max(high):
                asked = high
            sources = {source for each in asked for source in clients.get((dst, l4, each), ())}
            around = [
                s for s in sources if int(ip_address(s)) >> bits - length == int(ip_address(src)) >> bits - length
            ]
            expected = src in sources or len(around) >= count
            assert allows(tables, Seen(src, dst, l4, port)) == expected


@given(traffic, st.randoms())
def test_the_order_of_flows_is_of_no_account(flows: list[Seen], random: object) -> None:
    shuffled = list(flows)
    random.shuffle(shuffled)
    assert list(draft_of(shuffled).lines()) == list(draft_of(flows).lines())


@given(traffic)
def test_every_session_is_explained_by_one_rule(flows: list[Seen]) -> None:
    rules = draft_of(flows).as_json()["rules"]
    assert sum(rule["sessions"] for rule in rules) == len(flows)
    assert sum(rule["bytes"] for rule in rules) == 100 * len(flows)
    assert [rule["sessions"] for rule in rules] == sorted((rule["sessions"] for rule in rules), reverse=True)
    assert len({rule["id"] for rule in rules}) == len(rules)


# -- what becomes of what ----------------------------------------------------------------------------------------------


def test_many_clients_of_one_port_are_one_rule() -> None:
    draft = draft_of([Seen(f"10.0.0.{n}", "10.1.0.1", TCP, 443) for n in (1, 5, 9)])
    assert rules_of(draft) == [
        {"id": "tcp-443-10.1.0.1", "from": "hosts-1", "to": "10.1.0.1", "proto": "tcp", "ports": "443",
         "action": "allow"},
    ]  # fmt: skip
    assert draft.as_json()["policy"]["groups"] == {"hosts-1": ["10.0.0.1", "10.0.0.5", "10.0.0.9"]}


def test_addresses_become_a_prefix_only_if_all_were_seen() -> None:
    hosts = [f"10.0.0.{n}" for n in range(4, 8)]
    whole = draft_of([Seen(host, "10.1.0.1", TCP, 443) for host in hosts])
    assert [rule["from"] for rule in rules_of(whole)] == ["10.0.0.4/30"]
    part = draft_of([Seen(host, "10.1.0.1", TCP, 443) for host in hosts[1:]])
    assert part.as_json()["policy"]["groups"] == {"hosts-1": ["10.0.0.5", "10.0.0.6/31"]}


def test_servers_with_the_same_clients_and_ports_are_one_rule() -> None:
    draft = draft_of([Seen("fd00::1", f"fd00::{n}", TCP, port) for n in (5, 7) for port in (80, 443, 444)])
    rule = {"id": "tcp-80-fd00::5", "from": "fd00::1", "to": "hosts-1", "proto": "tcp", "ports": ["80", "443-444"]}
    assert rules_of(draft) == [{**rule, "action": "allow"}]


def test_the_fewer_of_by_server_and_by_port() -> None:
    # By server these would be four rules: each has other ports.
    by_port = [Seen("10.0.0.1", f"10.1.0.{n}", TCP, 22) for n in range(4)]
    by_port += [Seen("10.0.0.1", f"10.1.0.{n}", TCP, 80) for n in (1, 3)]
    by_port += [Seen("10.0.0.1", f"10.1.0.{n}", TCP, 443) for n in (2, 3)]
    assert len(rules_of(draft_of(by_port))) == 3
    # By port these would be four.
    by_server = [Seen("10.0.0.1", "10.1.0.1", TCP, 1 + 2 * n) for n in range(4)]
    by_server += [Seen("10.0.0.1", "10.1.0.2", TCP, 1 + 2 * n) for n in (1, 3)]
    by_server += [Seen("10.0.0.1", "10.1.0.3", TCP, 1 + 2 * n) for n in (2, 3)]
    assert len(rules_of(draft_of(by_server))) == 3


def test_protocols_come_together() -> None:
    flows = [Seen("10.0.0.1", "10.1.0.1", l4, 53, Protocol.DNS) for l4 in (UDP, TCP)]
    flows += [Seen("10.0.0.1", "10.1.0.2", l4) for l4 in (ICMP, 50)]
    assert [(rule["proto"], rule.get("ports"), rule.get("app")) for rule in rules_of(draft_of(flows))] == [
        (["tcp", "udp"], "53", "dns"),
        (["icmp", "esp"], None, None),
    ]


@pytest.mark.parametrize(
    ("apps", "named"),
    [
        ((Protocol.TLS, Protocol.TLS), "tls"),
        ((Protocol.TLS, Protocol.HTTP), None),
        ((Protocol.TLS, Protocol.NONE), None),
        ((Protocol.UNKNOWN,), None),
        # A rule goes by what a connection begins with.
        ((Protocol.WEBSOCKET,), None),
        ((Protocol.KAFKA,), "kafka"),
    ],
)
def test_app_is_named_where_there_is_one(apps: tuple[Protocol, ...], named: str | None) -> None:
    draft = draft_of([Seen(f"10.0.0.{n}", "10.1.0.1", TCP, 443, app) for n, app in enumerate(apps)])
    assert [rule.get("app") for rule in rules_of(draft)] == [named]


def test_names_are_used_where_they_fit_exactly() -> None:
    defined = Defined(
        {addresses_of("10.0.0.1", "10.0.0.2"): "on", addresses_of("10.1.0.0/24"): "servers"},
        {((TCP, ((443, 443),)), (UDP, ((443, 443),))): "quic-too", ((TCP, ((443, 443),)),): "https"},
    )
    flows = [Seen(f"10.0.0.{n}", "10.1.0.1", TCP, 443) for n in (1, 2)] + [Seen("10.0.0.9", "10.1.0.7", TCP, 80)]
    draft = draft_of(flows, defined=defined)
    assert [(rule["from"], rule["to"], rule.get("service")) for rule in rules_of(draft)] == [
        ("on", "10.1.0.1", "https"),
        ("10.0.0.9", "10.1.0.7", None),
    ]
    policy = draft.as_json()["policy"]
    assert policy["groups"] == {"on": ["10.0.0.1", "10.0.0.2"]}
    assert policy["services"] == {"https": {"proto": "tcp", "ports": "443"}}
    assert allows(tables_of(draft), flows[0])


def addresses_of(*texts: str) -> tuple[tuple[int, int], ...]:
    policy = policy_of(f"rules: [{{id: a, from: {json.dumps(texts)}, action: allow}}]")
    return addresses(policy.rules[0].sources)


def test_new_names_are_not_those_of_others() -> None:
    defined = Defined({addresses_of("192.0.2.1"): "hosts-1"})
    draft = draft_of([Seen(f"10.0.0.{n}", "10.1.0.1", TCP, 443) for n in (1, 3)], defined=defined)
    assert [rule["from"] for rule in rules_of(draft)] == ["hosts-2"]


# -- what is said of it ------------------------------------------------------------------------------------------------


def test_shares() -> None:
    draft = draft_of([Seen("10.0.0.1", "10.1.0.1", TCP, 80)] * 3 + [Seen("10.0.0.1", "10.1.0.2", UDP, 80)])
    assert [rule["description"] for rule in draft.as_json()["policy"]["rules"]] == [
        "3 sessions (75.0 %), 9 packets, 300 bytes (75.0 %)",
        "1 session (25.0 %), 3 packets, 100 bytes (25.0 %)",
    ]


def test_what_goes_beyond_the_seen_is_said() -> None:
    flows = [Seen(f"10.0.0.{n}", "10.1.0.1", TCP, port) for n in (1, 2, 9) for port in (40000, 40009)]
    draft = draft_of(flows, Widening({4: (28, 3)}, 2))
    (rule,) = draft.as_json()["rules"]
    assert rule["clients"] == {"allowed": 16, "seen": 3}
    assert rule["ports"] == {"allowed": 10, "seen": 2}
    (text,) = [rule["description"] for rule in draft.as_json()["policy"]["rules"]]
    assert text.endswith("; widened: 3 of 16 client addresses were seen; widened: 2 of 10 ports were seen")


def test_more_rules_than_a_policy_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpath.policy.draft.MAX_RULES", most := 300)
    # Each client uses a server of its own, the last one twice.
    flows = [Seen(f"10.0.{n >> 8}.{n & 255}", f"10.1.{n >> 8}.{n & 255}", TCP, 80) for n in range(most + 2)]
    draft = draft_of([*flows, flows[-1]])
    assert draft.unexplained.sessions == 2
    assert "Left out: 2 sessions, 200 bytes: the least used" in " ".join(line.lstrip("# ") for line in draft.lines())
    assert len(rules_of(draft)) == most
    tables = compile_policy(policy_of("\n".join(draft.lines())))
    assert allows(tables, flows[-1])


def test_long_lists_are_wrapped_and_editors_take_it() -> None:
    flows = [Seen(f"{net}{2 * n:x}", f"{net}1", TCP, 2 * n) for net in ("fd00::", "fd00:1::") for n in range(1, 150)]
    flows += [Seen(f"10.0.0.{n}", "10.1.0.1", UDP, 53) for n in range(1, 250, 2)]
    draft = draft_of(flows, Widening({6: (112, 100)}))
    assert max(map(len, draft.lines())) <= 120
    assert in_schema("\n".join(draft.lines()))
    assert in_schema(json.dumps(draft.as_json()["policy"]))
    assert all(allows(tables_of(draft), flow) for flow in flows[::50])


def test_more_ports_than_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpath.policy.observed.MAX_ENDPOINTS", 2)
    used = [Seen("10.0.0.1", "10.1.0.1", TCP, port) for port in (1, 2, 2, 3, 3, 3)]
    draft = draft_of(used)
    assert [rule["ports"] for rule in rules_of(draft)] == ["2-3"]
    assert draft.as_json()["unexplained"]["sessions"] == 1


def test_nothing_seen_allows_nothing() -> None:
    assert not allows(tables_of(draft_of([])), Seen("10.0.0.1", "10.1.0.1", TCP, 80))
