"""ICMP by type and code: a session is of one query and its replies, or of one message, and judged by what opened it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.packet import Packet, Raw

from fastpath.abi import Pressure, Reason, SessionFlag
from fastpath.policy.model import ICMP, ICMP6, Rule
from slowpath.core.frame import flow_key, parse_frame
from tests.bpf.harness import ICMP_L4, ICMPV6_L4, Flow, Kernel, judged, mapped, rule
from tests.bpf.test_related import too_big

pytestmark = pytest.mark.root

# Echo, and another query with an identifier: request and reply.
ECHO = {4: (8, 0), 6: (128, 129)}
OTHER = {4: (13, 14), 6: (144, 145)}
EXTENDED = {4: (42, 43), 6: (160, 161)}
ALONE = {4: 10, 6: 200}
L4 = {4: ICMP_L4, 6: ICMPV6_L4}


def of_types(name: str, action: str, version: int, *types: int, code: int | None = None, **fields: Any) -> Rule:
    """A rule on types, with one code or all."""
    low, high = (0, 255) if code is None else (code, code)
    spans = tuple((kind << 8 | low, kind << 8 | high) for kind in types)
    return rule(name, action, l4=L4[version], **{"icmp_types" if version == 4 else "icmp6_types": spans}, **fields)


def sent(kernel: Kernel, *frames: Packet) -> list[str]:
    return [kernel.send(frame).said for frame in frames]


def test_only_the_types_that_a_rule_names(kernel: Kernel, flow: Flow) -> None:
    query, reply = ECHO[flow.version]
    kernel.policy(of_types("ping", "allow", flow.version, query))
    assert sent(kernel, flow.message(query), flow.message(query, 3), flow.message(reply, back=True)) == ["pass"] * 3
    others = (*OTHER[flow.version], ALONE[flow.version], 255)
    assert sent(kernel, *map(flow.message, others)) == ["drop default"] * 4


def test_a_code(kernel: Kernel, flow: Flow) -> None:
    query, reply = ECHO[flow.version]
    kernel.policy(of_types("ping", "allow", flow.version, query, code=0))
    assert sent(kernel, flow.message(query), flow.message(query, 1)) == ["pass", "drop default"]
    assert sent(kernel, flow.message(reply, back=True), flow.message(reply, 1, back=True)) == ["pass", "drop default"]


def test_a_walk_by_type_and_code(kernel: Kernel, version: int) -> None:
    query, _ = ECHO[version]
    kernel.policy(of_types("no", "deny", version, query, code=1), of_types("ping", "allow", version, query))
    ends = (mapped(Flow(version).ip().payload.src), mapped(Flow(version).ip().payload.dst))
    found = [
        kernel.commands.walk(*ends, L4[version], number).verdict >> 16 & 0xFFFFFF
        for number in (query << 8, query << 8 | 1, (query << 8) - 1, query + 1 << 8)
    ]
    assert found == [2, 1, 0, 0]


@pytest.mark.parametrize("number", [7, 0])
def test_two_types_of_one_identifier_are_two_sessions(kernel: Kernel, flow: Flow, number: int) -> None:
    query, reply = ECHO[flow.version]
    other, other_reply = OTHER[flow.version]
    kernel.policy(of_types("ping", "allow", flow.version, query))
    assert sent(kernel, flow.message(query, 0, number), flow.message(other, 0, number)) == ["pass", "drop default"]
    assert sent(kernel, flow.message(ALONE[flow.version], 0, number)) == ["drop default"]
    assert sent(kernel, flow.message(other_reply, 0, number, back=True)) == ["drop default"]
    assert sent(kernel, flow.message(reply, 0, number, back=True)) == ["pass"]


@pytest.mark.parametrize("number", [7, 0x0800, 0x8000])
def test_the_other_end_may_not_ask_with_the_same_identifier(kernel: Kernel, flow: Flow, number: int) -> None:
    """Also where the identifier is the number of type and code."""
    query, reply = ECHO[flow.version]
    kernel.policy(of_types("ping", "allow", flow.version, query, sources=sources(flow)))
    assert sent(kernel, flow.message(query, 0, number)) == ["pass"]
    assert sent(kernel, flow.message(query, 0, number, back=True)) == ["drop default"]
    assert sent(kernel, flow.message(reply, 0, number)) == ["drop default"]
    assert sent(kernel, flow.message(reply, 0, number, back=True)) == ["pass"]


def sources(flow: Flow) -> tuple[Any, ...]:
    return (ip_network(flow.ip().payload.src),)


def test_a_reply_that_nobody_asked_for(kernel: Kernel, flow: Flow) -> None:
    query, reply = ECHO[flow.version]
    kernel.policy(of_types("ping", "allow", flow.version, query))
    assert sent(kernel, flow.message(reply, back=True)) == ["drop default"]
    # Denied as what it is, which is no verdict on the query.
    assert sent(kernel, flow.message(query), flow.message(reply, back=True)) == ["pass", "pass"]
    assert len(kernel.live()) == 2


def test_a_reply_that_a_rule_allows_opens_no_way_for_queries(kernel: Kernel, flow: Flow) -> None:
    query, reply = ECHO[flow.version]
    kernel.policy(of_types("replies", "allow", flow.version, reply))
    assert sent(kernel, *[flow.message(reply)] * 3) == ["pass"] * 3
    ((_, session),) = kernel.live()
    assert list(session.packets) == [3, 0]
    assert sent(kernel, flow.message(query, back=True), flow.message(query)) == ["drop default"] * 2
    assert sent(kernel, flow.message(reply, 0, 9, back=True)) == ["pass"]


@pytest.mark.parametrize("back", [False, True])
def test_judged_again_by_what_opened_it(kernel: Kernel, flow: Flow, back: bool) -> None:
    query, reply = ECHO[flow.version]
    packet = flow.message(reply, back=True) if back else flow.message(query)
    kernel.policy(of_types("ping", "allow", flow.version, query))
    assert sent(kernel, flow.message(query)) == ["pass"]
    kernel.policy(of_types("no", "deny", flow.version, reply), of_types("queries", "allow", flow.version, query, 1))
    outcome = kernel.send(packet)
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow policy 2")
    kernel.policy(of_types("replies", "allow", flow.version, reply), of_types("no", "deny", flow.version, query))
    outcome = kernel.send(packet)
    assert (outcome.said, judged(outcome.entry)) == ("drop policy", "deny policy 2")


def test_an_unasked_reply_is_judged_again_as_one(kernel: Kernel, flow: Flow) -> None:
    query, reply = ECHO[flow.version]
    kernel.policy(of_types("replies", "allow", flow.version, reply))
    assert sent(kernel, flow.message(reply)) == ["pass"]
    kernel.policy(of_types("queries", "allow", flow.version, query))
    assert sent(kernel, flow.message(reply)) == ["drop default"]


def test_a_reply_too_late(kernel: Kernel, flow: Flow) -> None:
    query, reply = ECHO[flow.version]
    kernel.settings(timeouts={"icmp": 0.01})
    kernel.policy(of_types("ping", "allow", flow.version, query))
    assert sent(kernel, flow.message(query)) == ["pass"]
    kernel.tick(0.02)
    assert sent(kernel, flow.message(reply, back=True)) == ["drop default"]


def test_the_result_of_an_extended_echo(kernel: Kernel, flow: Flow) -> None:
    query, reply = EXTENDED[flow.version]
    kernel.policy(of_types("probe", "allow", flow.version, query))
    assert sent(kernel, flow.message(query), flow.message(reply, 3, back=True)) == ["pass", "pass"]
    assert len(kernel.live()) == 1


@pytest.mark.parametrize("number", [7, 0x0800, 0x8000])
def test_a_full_table(kernel: Kernel, flow: Flow, number: int) -> None:
    """Any reply may answer what passed without a session; a query answers nothing."""
    query, reply = ECHO[flow.version]
    kernel.policy(of_types("ping", "allow", flow.version, query, sources=sources(flow)))
    kernel.revisions.press(Pressure.FULL)
    assert sent(kernel, flow.message(query, 0, number), flow.message(reply, 0, number, back=True)) == ["pass", "pass"]
    assert sent(kernel, flow.message(query, 0, number, back=True)) == ["drop default"]
    assert sent(kernel, flow.message(reply, 0, number)) == ["drop default"]
    assert kernel.live() == []


def test_errors_go_by_the_session_and_no_rule_on_types(kernel: Kernel, flow: Flow) -> None:
    query, _ = OTHER[flow.version]
    errors = (3, 4, 11, 12) if flow.version == 4 else (1, 2, 3, 4)
    kernel.policy(of_types("no errors", "deny", flow.version, *errors), rule("all", "allow"))
    assert sent(kernel, flow.message(query)) == ["pass"]
    assert sent(kernel, too_big(flow.message(query))) == ["pass"]
    assert sent(kernel, too_big(flow.message(query, 0, 8))) == ["drop icmp_unrelated"]
    assert sent(kernel, too_big(flow.message(ECHO[flow.version][0]))) == ["drop icmp_unrelated"]


def test_the_inspector_knows_each_by_the_same_key(kernel: Kernel, version: int) -> None:
    flow = Flow(version)
    kernel.policy(rule("all", "allow"))
    replies = {ECHO[version], OTHER[version], EXTENDED[version]}
    for query, reply in replies:
        for back, kind in ((False, query), (True, reply)):
            frame = flow.message(kind, 0, 0x0B0C, back=back)
            assert kernel.send(frame).said == "pass"
            key, a_to_b = flow_key(parse_frame(bytes(frame)))
            ((found, session),) = kernel.live()
            assert found == key
            assert bool(session.flags & SessionFlag.SERVER_IS_A) == (a_to_b == back)
        kernel.table.delete(key)
    for kind in (5, 9, 10, 30, 139, 140, 200, 255):
        frame = flow.message(kind, 7, 0x0B0C)
        assert kernel.send(frame).said == "pass"
        ((found, _),) = kernel.live()
        assert found == flow_key(parse_frame(bytes(frame)))[0]
        kernel.table.delete(found)


def test_cut_short(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("all", "allow"))
    fields = {"proto": ICMP} if flow.version == 4 else {"nh": ICMP6}
    for size in (0, 1, 2, 7):
        frame = flow.ip(**fields) / Raw(bytes(flow.message(ECHO[flow.version][0]))[-16:][:size])
        outcome = kernel.send(bytes(frame) + bytes(8))
        assert outcome.drops == {Reason.L4_SHORT.name.lower(): 1}, (size, IP in frame)
