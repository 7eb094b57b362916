"""Zones, direction and VLAN tags: what a flow's first packet is taken for, and what its session remembers of that."""

from __future__ import annotations

import subprocess

import pytest
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from fastpath.abi import Action, Course, Status, Verdict, Zone
from fastpath.policy.model import Default, Log, PairDefault, Policy, Rule
from fastpath.policy.where import Where
from fastpath.revisions import Revisions
from fastpath.word import Word
from tests.bpf.harness import CLIENT, GATEWAY, SERVER, Flow, Kernel, Outcome, judged, rule

pytestmark = pytest.mark.root

LAN, DMZ = int(Zone.FIRST), int(Zone.FIRST) + 1
NAMES = ("lan", "dmz")
FROM_LAN = rule("from-lan", "allow", where=Where(from_zones=("lan",)))
TO_DMZ = rule("to-dmz", "allow", where=Where(to_zones=("dmz",)))
TO_HOST = rule("to-host", "deny", where=Where(courses=(Course.TO_HOST,)))


@pytest.fixture
def zoned(kernel: Kernel) -> Kernel:
    """Clients are in the lan at seg0, servers in the dmz at seg1."""
    kernel.manage(*(kernel.namespace.ifindex[name] for name in ("seg0", "seg1")), zones=[LAN, DMZ])
    return kernel


def apply(kernel: Kernel, *rules: Rule, defaults: tuple[PairDefault, ...] = ()) -> None:
    kernel.apply(Policy(rules, Default(Action.DENY, log=Log.NONE), defaults=defaults, zones=NAMES))


def at_seg1(kernel: Kernel, packet: Packet) -> Outcome:
    return kernel.send(Ether(src=packet.src, dst="02:00:00:00:00:02") / packet.payload, interface="seg1")


def tagged(packet: Packet, *vlans: int) -> Packet:
    link, rest = Ether(src=packet.src, dst=packet.dst), packet.payload
    for vlan in vlans:
        link /= Dot1Q(vlan=vlan)
    return link / rest


def test_through_the_gateway(zoned: Kernel, flow: Flow) -> None:
    apply(zoned, TO_HOST, rule("other-way", "deny", where=Where(("dmz",), ("lan",))), FROM_LAN)
    outcome = zoned.send(flow.segment("S"))
    assert judged(outcome.session) == "allow policy 3"
    assert list(outcome.entry.zones) == [DMZ, LAN]
    back = Flow(flow.version, client=SERVER[flow.version], server=CLIENT[flow.version], dport=81)
    outcome = at_seg1(zoned, back.segment("S"))
    assert judged(outcome.session) == "deny policy 2"
    assert list(outcome.entry.zones) == [LAN, DMZ]


def test_to_the_gateway_itself(zoned: Kernel, version: int) -> None:
    apply(zoned, TO_DMZ, TO_HOST)
    outcome = zoned.send(Flow(version, server=GATEWAY[version]).segment("S"))
    assert judged(outcome.session) == "deny policy 2"
    assert list(outcome.entry.zones) == [Zone.HOST, LAN]


def test_from_the_gateway_itself(zoned: Kernel, version: int) -> None:
    own = Flow(version, client=GATEWAY[version])
    apply(zoned, TO_HOST, rule("own", "deny", tcp=80, where=Where(("host",), ("dmz",), (Course.FROM_HOST,))))
    outcome = zoned.send(own.segment("S"), "ms_egress", interface="seg1")
    assert judged(outcome.session) == "deny policy 2"
    assert list(outcome.entry.zones) == [DMZ, Zone.HOST]
    # To another zone, and from an interface that nobody manages.
    for number, sent in enumerate(({"interface": "seg0"}, {"interface": "seg1", "came_from": 4711})):
        outcome = zoned.send(Flow(version, 50000 + number, client=GATEWAY[version]).segment("S"), "ms_egress", **sent)
        assert judged(outcome.session) == ("allow host 0", "deny default 0")[number]
    assert list(outcome.entry.zones) == [DMZ, Zone.NONE]


def test_no_route_leads_to_no_zone(zoned: Kernel) -> None:
    with zoned.namespace.inside():
        subprocess.run(["ip", "route", "add", "prohibit", "192.0.2.0/24"], check=True)
    try:
        apply(zoned, TO_DMZ, TO_HOST)
        outcome = zoned.send(Flow(server="192.0.2.1").segment("S"))
        assert judged(outcome.session) == "deny default 0"
        assert list(outcome.entry.zones) == [Zone.NONE, LAN]
    finally:
        with zoned.namespace.inside():
            subprocess.run(["ip", "route", "del", "prohibit", "192.0.2.0/24"], check=True)


@pytest.mark.parametrize(
    ("vlans", "number"),
    [((7,), 1), ((7, 9), 1), ((9, 7), 0), ((100,), 1), ((199,), 1), ((200,), 0), ((), 2), ((0,), 2)],
)
def test_vlan_tags(kernel: Kernel, flow: Flow, vlans: tuple[int, ...], number: int) -> None:
    some, none = (Where(vlans=vlans) for vlans in (((7, 7), (100, 199)), ((0, 0),)))
    apply(kernel, rule("some", "allow", where=some), rule("none", "allow", where=none))
    outcome = kernel.send(tagged(flow.segment("S"), *vlans))
    assert Word.unpack(outcome.entry.verdict).rule == number
    # Nobody asked where it goes.
    assert list(outcome.entry.zones) == [Zone.UNKNOWN, Zone.UNKNOWN]


@pytest.mark.parametrize("known", [True, False])
def test_after_a_reload_the_servers_packet_is_judged_as_the_clients(zoned: Kernel, flow: Flow, known: bool) -> None:
    apply(zoned, FROM_LAN if known else rule("all", "allow"))
    zoned.open(flow)
    assert list(zoned.send(flow.data(b"x")).entry.zones) == ([DMZ, LAN] if known else [0, 0])
    apply(
        zoned, rule("other-way", "deny", where=Where(("dmz",), ("lan",))), rule("anew", "allow", where=Where(("lan",)))
    )
    outcome = at_seg1(zoned, flow.data(b"y", got=1, back=True))
    assert (outcome.said, judged(outcome.session)) == ("pass", "allow policy 2")
    assert list(outcome.entry.zones) == [DMZ, LAN]
    apply(zoned, rule("lan", "deny", where=Where(("lan",), ("dmz",))))
    assert judged(at_seg1(zoned, flow.data(b"z", at=1, got=1, back=True)).session) == "deny policy 1"


def test_a_flow_whose_start_was_not_seen(zoned: Kernel, flow: Flow) -> None:
    apply(zoned, FROM_LAN)
    outcome = at_seg1(zoned, flow.data(b"x", back=True))
    assert (outcome.said, judged(outcome.session)) == ("pass", "allow policy 1")
    assert list(outcome.entry.zones) == [DMZ, LAN]


def test_defaults_of_pairs(zoned: Kernel, version: int) -> None:
    defaults = (
        PairDefault(Action.ALLOW, log=Log.ALL, from_zone="lan", to_zone="dmz"),
        PairDefault(Action.DENY, reset=True, to_zone="host"),
        PairDefault(Action.DENY, from_zone="host", to_zone="dmz"),
    )
    apply(zoned, rule("dns", "allow", udp=53), defaults=defaults)
    zoned.events()
    outcome = zoned.send(Flow(version).segment("S"))
    assert (outcome.said, judged(outcome.session), outcome.entry.rule_hash) == ("pass", "allow default 2", 0)
    assert len(zoned.events()) == 1
    outcome = zoned.send(Flow(version, server=GATEWAY[version]).segment("S"))
    assert (outcome.said, judged(outcome.session)) == ("redirect default", "deny default 3")
    back = Flow(version, client=SERVER[version], server=CLIENT[version], dport=81)
    assert judged(at_seg1(zoned, back.segment("S")).session) == "deny default 0"
    own = [zoned.send(Flow(version, client=GATEWAY[version], dport=port).segment("S"), "ms_egress", interface=interface)
           for port, interface in ((1, "seg1"), (2, "seg0"))]  # fmt: skip
    assert [judged(each.session) for each in own] == ["deny default 4", "allow host 0"]


def test_a_rule_that_may_still_allow_makes_even_a_pairs_denial_wait(zoned: Kernel, flow: Flow) -> None:
    tls = rule("tls", "allow", tcp=80, app="tls", where=Where(("lan",)))
    apply(zoned, tls, defaults=(PairDefault(Action.DENY, from_zone="lan", to_zone="dmz"),))
    assert judged(zoned.send(flow.segment("S")).session) == "undecided pending 1"
    zoned.open(Flow(flow.version, 40001))
    outcome = zoned.send(Flow(flow.version, 40001).data(b"SSH-2.0-x\r\n"))
    assert judged(outcome.session) == "deny default 2"


@pytest.mark.parametrize("known", [True, False])
def test_the_inspectors_walk_goes_by_the_sessions_zones(zoned: Kernel, flow: Flow, known: bool) -> None:
    zoned.commands.heartbeat()
    inspected = Where(("lan",)) if known else None
    apply(zoned, rule("look", "inspect", tcp=80, files=True, where=inspected))
    zoned.open(flow)
    assert zoned.send(flow.data(b"GET")).said == "redirect"
    apply(zoned, TO_HOST, rule("other-way", "deny", where=Where(("dmz",))), FROM_LAN)
    session = zoned.session(flow.key(6))
    assert session is not None
    with zoned.namespace.inside():
        answer = zoned.commands.judge(flow.key(6), session.id, 0)
    word = Word.unpack(answer.verdict)
    assert (answer.status, word.verdict, word.rule) == (Status.OK, Verdict.ALLOW, 3)
    session = zoned.session(flow.key(6))
    assert session is not None
    assert list(session.zones) == [DMZ, LAN]


def test_a_walk_for_nobody(zoned: Kernel) -> None:
    apply(zoned, FROM_LAN, rule("tagged", "allow", where=Where(vlans=((5, 5),))))
    flow = (bytes(16), bytes(16), 6, 80)
    answers = [
        zoned.commands.walk(*flow, from_zone=from_zone, vlan=vlan).verdict
        for from_zone, vlan in ((LAN, 0), (DMZ, 5), (DMZ, 6), (Zone.NONE, 0))
    ]
    assert [Word.unpack(answer).rule for answer in answers] == [1, 2, 0, 0]


def test_what_a_session_remembers_ends_with_the_daemon(zoned: Kernel, flow: Flow) -> None:
    apply(zoned, FROM_LAN)
    zoned.open(flow)
    # Started anew with the zones the other way round.
    zoned.manage(*(zoned.namespace.ifindex[name] for name in ("seg1", "seg0")), zones=[LAN, DMZ])
    zoned.revisions = Revisions(zoned.pins, zoned.hertz)
    apply(zoned, FROM_LAN, rule("from-dmz", "deny", where=Where(("dmz",))))
    outcome = zoned.send(flow.data(b"x"))
    assert judged(outcome.session) == "deny policy 2"
    assert list(outcome.entry.zones) == [LAN, DMZ]
