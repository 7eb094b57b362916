"""The policy walk of the kernel against the naive evaluator, and what a reload does to sessions."""

from __future__ import annotations

import random
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fastpath import abi
from fastpath.abi import Action, Status, Verdict
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import Policy, Rule
from tests.bpf.harness import GATEWAY, Flow, Kernel, judged, mapped, rule
from tests.unit.fastpath.policy.test_compile import ADDRESSES, EDGES, defaults, packets, random_policy, rules

pytestmark = pytest.mark.root

ELSEWHERE = {4: "10.77.3.3", 6: "fd77:3::3"}

Packet = tuple[bytes, bytes, int, int, int]


def walked(kernel: Kernel, packet: Packet) -> tuple[int, int]:
    """Verdict word and rule flags."""
    src, dst, l4, dport, possible = packet
    answer = kernel.commands.walk(src, dst, l4, dport, possible)
    assert answer.status == Status.OK
    return answer.verdict, answer.rule_flags


def check(kernel: Kernel, policy: Policy, seen: list[Packet]) -> None:
    revision = kernel.apply(policy)
    for src, dst, l4, dport, possible in seen:
        expected = evaluate(policy, src, dst, l4, dport, possible=possible)
        assert walked(kernel, (src, dst, l4, dport, possible)) == (expected.word(revision), expected.flags)


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    # Each try costs the kernel grace periods: making a failure smaller would take minutes.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(st.lists(rules(), max_size=10), defaults, st.lists(packets, min_size=40, max_size=40))
def test_the_walk_is_the_naive_evaluators(
    kernel: Kernel, members: list[Rule], default: object, seen: list[Packet]
) -> None:
    check(kernel, Policy(tuple(members), default), seen)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [64, 65, 400])
def test_over_many_words(kernel: Kernel, size: int) -> None:
    choose = random.Random(size)
    check(kernel, random_policy(choose, size), [some_packet(choose) for _ in range(500)])


def some_packet(choose: random.Random) -> Packet:
    src, dst = choose.choices(ADDRESSES, k=2)
    http, tls = (1 << abi.Protocol[name] for name in ("HTTP", "TLS"))
    return src, dst, choose.choice((6, 6, 17, 1, 58)), choose.choice(EDGES), choose.choice((0, http, tls, http | tls))


def test_as_many_rules_as_fit(kernel: Kernel) -> None:
    members = tuple(
        Rule(f"r{n}", Action.ALLOW if n % 3 else Action.DENY, protocols=(6,), ports=((n * 16, n * 16 + 15),))
        for n in range(4096)
    )
    policy = Policy(members)
    seen = [(mapped("10.0.0.1"), mapped("10.0.0.2"), 6, port, 0) for port in (0, 15, 16, 1023, 16384, 65519, 65535)]
    check(kernel, policy, [*seen, (*seen[0][:2], 17, 80, 0)])


def test_a_thousand_rules_on_addresses(kernel: Kernel) -> None:
    members = tuple(
        Rule(f"r{n}", Action.ALLOW, (ip_network(f"10.{n // 256}.{n % 256}.0/24"),), protocols=(17,))
        for n in range(1200)
    )
    seen = [(mapped(f"10.{n // 256}.{n % 256}.9"), mapped("10.99.0.1"), 17, 53, 0) for n in (0, 1, 255, 256, 1199)]
    check(kernel, Policy(members), [*seen, (mapped("10.4.176.1"), mapped("10.99.0.1"), 17, 53, 0)])


def test_where_no_rule_is_filed_under_the_destination(kernel: Kernel) -> None:
    server = ip_network("10.99.0.1/32")
    members = tuple(
        Rule(f"r{n}", Action.ALLOW, (ip_network(f"10.0.0.{n}/32"),), (server,), (6,), ((80, 80),)) for n in range(200)
    )
    seen = [(mapped(f"10.0.0.{n}"), mapped("10.99.0.1"), 6, 80, 0) for n in range(201)]
    check(kernel, Policy(members), seen)


def test_rules_on_real_packets(kernel: Kernel, version: int) -> None:
    clients = ip_network("10.77.1.0/24" if version == 4 else "fd77:1::/64")
    kernel.policy(
        rule("dns", "allow", udp=53, sources=(clients,)),
        rule("no ping", "deny", l4=1 if version == 4 else 58),
        rule("web", "allow", tcp=80, destinations=(clients,)),
    )
    assert kernel.send(Flow(version, dport=53).datagram(b"x")).said == "pass"
    assert kernel.send(Flow(version, dport=53, client=ELSEWHERE[version]).datagram(b"x")).said == "drop default"
    assert kernel.send(Flow(version).echo()).said == "drop policy"
    assert kernel.send(Flow(version).segment("S")).said == "drop default"


def test_a_default_that_allows(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(default="allow")
    assert judged(kernel.send(flow.segment("S")).entry) == "allow default 0"


def test_without_a_policy_nothing_passes(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(default="allow")
    revision = kernel.revisions.settings.revision
    try:
        kernel.revisions.settings.revision = 0
        kernel.revisions.press(abi.Pressure.WARN)  # writes the settings
        assert kernel.send(flow.segment("S")).said == "drop no_policy"
        assert kernel.commands.walk(bytes(16), bytes(16), 6, 80).status == Status.NO_POLICY
    finally:
        kernel.revisions.settings.revision = revision


# --- reload ----------------------------------------------------------------------------------------------------------

WEB = rule("web", "allow", tcp=80)
NO = rule("no", "deny", tcp=80)
OTHER = rule("other", "allow", tcp=81)


def test_revisions_take_turns_between_the_slots(kernel: Kernel) -> None:
    found = [kernel.apply(Policy((OTHER,) * n)) for n in range(4)]
    assert [revision & 1 for revision in found] in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert sorted(set(found)) == found
    assert kernel.commands.clocks().revision == found[-1]
    flow = Flow(dport=81)
    assert judged(kernel.send(flow.segment("S")).entry) == "allow policy 1"


def test_an_allowed_session_stays(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(WEB)
    old = kernel.open(flow)
    revision = kernel.policy(OTHER, rule("wider", "allow", l4=6))
    outcome = kernel.send(flow.data(b"x"))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow policy 2")
    assert (outcome.entry.id, outcome.entry.verdict >> abi.Word.REVISION) == (old.id, revision)
    assert outcome.stats["rejudged"] == 1
    assert "rejudged" not in kernel.send(flow.data(b"x")).stats


@pytest.mark.parametrize("back", [False, True])
def test_a_session_that_is_denied_now_stops_on_its_next_packet(kernel: Kernel, flow: Flow, back: bool) -> None:
    kernel.policy(WEB)
    kernel.open(flow)
    kernel.policy(OTHER, NO)
    outcome = kernel.send(flow.data(b"x", back=back))
    assert (outcome.said, judged(outcome.entry)) == ("drop policy", "deny policy 2")
    # The rule is looked up as the client's, whoever sends.
    kernel.policy(OTHER)
    assert kernel.send(flow.data(b"x", back=not back)).said == "drop default"


def test_a_denied_session_that_is_allowed_now_goes_on(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(NO)
    assert kernel.send(flow.segment("S")).said == "drop policy"
    kernel.policy(WEB)
    assert kernel.send(flow.segment("S")).said == "pass"
    kernel.policy()
    assert kernel.send(flow.segment("S")).said == "drop default"
    kernel.policy(default="allow")
    assert judged(kernel.send(flow.segment("S")).entry) == "allow default 0"


FILES = rule("files", "inspect", tcp=80, app="http", files=True)
GET = b"GET / HTTP/1.1\r\n\r\n"


def decided(kernel: Kernel, flow: Flow) -> abi.Session:
    """Judged by a rule file: allowed."""
    kernel.policy(FILES)
    kernel.commands.heartbeat()
    kernel.open(flow)
    session = kernel.send(flow.data(GET)).entry
    answer = kernel.command(
        abi.Op.VERDICT,
        flow.key(6),
        id=session.id,
        revision=session.verdict >> abi.Word.REVISION,
        verdict=session.verdict & ~0xFF0F | Verdict.ALLOW | abi.Reason.RULE << abi.Word.REASON,
    )
    assert answer.status == Status.OK
    kernel.command(abi.Op.DISCARD, flow.key(6), id=session.id, count=1)
    outcome = kernel.send(flow.data(b"body", len(GET)))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow rule 1")
    return outcome.entry


def test_the_same_rule_keeps_its_verdict(kernel: Kernel, flow: Flow) -> None:
    old = decided(kernel, flow)
    # Another name, another place, and the same meaning.
    revision = kernel.policy(OTHER, rule("renamed", "inspect", tcp=80, app="http", files=True))
    outcome = kernel.send(flow.data(b"body", 50))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow rule 2")
    assert (outcome.entry.verdict >> abi.Word.REVISION, outcome.entry.rule_hash) == (revision, old.rule_hash)


def test_another_rule_that_must_see_the_start_denies(kernel: Kernel, flow: Flow) -> None:
    decided(kernel, flow)
    kernel.policy(rule("files", "inspect", tcp=80, app="http", files=True, down_allow=True))
    outcome = kernel.send(flow.data(b"body", 50))
    assert (outcome.said, judged(outcome.entry)) == ("drop midstream", "deny midstream 1")


def test_what_waits_for_its_protocol_still_waits(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("http", "allow", tcp=80, app="http"))
    kernel.open(flow)
    kernel.policy(OTHER, rule("web", "allow", tcp=80, app=("http", "tls")))
    assert judged(kernel.send(flow.data(b"", flags="A")).entry) == "undecided pending 2"
    assert judged(kernel.send(flow.data(GET)).entry) == "allow protocol 2"


def test_what_is_known_of_a_session_is_used(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("http", "allow", tcp=80, app="http"))
    kernel.open(flow)
    kernel.send(flow.data(GET))
    kernel.policy(rule("tls", "deny", tcp=80, app="tls"), rule("http again", "allow", tcp=80, app=("http", "ssh")))
    assert judged(kernel.send(flow.data(b"body", 30)).entry) == "allow protocol 2"
    kernel.policy(rule("tls", "allow", tcp=80, app="tls"))
    assert kernel.send(flow.data(b"body", 30)).said == "drop default"


def test_the_gateways_own_flow_is_allowed_again_when_its_rule_is_gone(kernel: Kernel, version: int) -> None:
    own = Flow(version, client=GATEWAY[version])
    kernel.policy(rule("own", "deny", tcp=80))
    assert judged(kernel.send(own.segment("S"), "ms_egress", interface="seg1").entry) == "deny policy 1"
    kernel.policy(rule("other", "deny", tcp=81))
    outcome = kernel.send(own.segment("S"), "ms_egress", interface="seg1")
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow host 0")
