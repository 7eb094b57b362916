"""Identification by ms_identify and ms_decide: the first payload of real flows, and what follows from it.

Payload outside the linear part of a frame reaches the same checks through bpf_skb_load_bytes; test runs make
linear frames, so that is for tests/netns.
"""

from __future__ import annotations

import itertools
import random

import pytest

from fastpath.abi import Protocol
from parsers.identify import Match, identify
from tests.bpf.harness import ISN, Act, Flow, Kernel, Outcome, judged, rule
from tests.captures.streams import first_payloads
from tests.contract.identify_vectors import (
    DIALOGUES,
    GET,
    INSPECTOR,
    TCP,
    TO_CLIENT,
    UDP,
    VECTORS,
    WHOLE,
    Dialogue,
    Vector,
)
from tests.data import STREAMS, recorded

pytestmark = pytest.mark.root

KNOWN = ("http", "dns", "mysql", "tls", "ssh", "redis", "postgres", "mongodb")
# One rule each, so that the session says which was hit: DNS over UDP is the last.
RULES = (*(rule(name, "allow", tcp=80, app=name) for name in KNOWN), rule("udp", "allow", udp=80, app="dns"))
HTTP_ONLY = rule("http", "allow", tcp=80, app="http")
PING = b"*1\r\n$4\r\nPING\r\n"


@pytest.fixture
def each_allowed(kernel: Kernel) -> Kernel:
    """Each protocol is allowed by a rule of its own, the inspector lives."""
    kernel.policy(*RULES)
    kernel.commands.heartbeat()
    return kernel


def first_payload(kernel: Kernel, flow: Flow, vector: Vector, data: bytes) -> Outcome:
    back = vector.direction == TO_CLIENT
    if vector.l4 == UDP:
        if back:
            assert kernel.send(flow.datagram()).said == "pass"
        return kernel.send(flow.datagram(data, back=back))
    kernel.open(flow)
    return kernel.send(flow.data(data, back=back))


def rule_of(protocol: str, l4: int) -> int:
    return len(RULES) if l4 == UDP else KNOWN.index(protocol) + 1


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_the_shared_vectors(each_allowed: Kernel, version: int, vector: Vector) -> None:
    outcome = first_payload(each_allowed, Flow(version), vector, vector.data)
    entry = outcome.entry
    if vector.kernel == INSPECTOR:
        assert outcome.said == "redirect"
        assert judged(entry).startswith("inspect pending")
        assert (entry.protocol, list(entry.held)) == (0, [vector.direction == 0, vector.direction == 1])
        return
    assert outcome.said == "pass"
    assert judged(entry) == f"allow protocol {rule_of(vector.kernel, vector.l4)}"
    assert entry.protocol == entry.first_protocol == Protocol[vector.kernel.upper()]
    assert outcome.stats["identified"] == outcome.stats["fast"] == 1


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_what_both_sides_must_tell_is_left_to_the_inspector(each_allowed: Kernel, dialogue: Dialogue) -> None:
    data = dialogue.to_client if dialogue.first == TO_CLIENT else dialogue.to_server
    vector = Vector(dialogue.name, TCP, dialogue.first, data, INSPECTOR, dialogue.parsers)
    outcome = first_payload(each_allowed, Flow(), vector, data)
    assert (outcome.said, outcome.entry.protocol) == ("redirect", 0)


@pytest.mark.parametrize("vector", WHOLE, ids=lambda vector: vector.name)
def test_no_prefix_is_taken_for_something_else(each_allowed: Kernel, vector: Vector) -> None:
    for length in range(1, len(vector.data)):
        outcome = first_payload(each_allowed, Flow(4, sport=1000 + length), vector, vector.data[:length])
        assert outcome.entry.protocol in {0, Protocol[vector.kernel.upper()]}, length
        if not outcome.entry.protocol:
            assert outcome.act is Act.REDIRECT, length


def kernel_names(kernel: Kernel, vector: Vector, data: bytes, sport: int) -> str:
    """What it says of a first payload; no name where it leaves it to the inspector."""
    entry = first_payload(kernel, Flow(4, sport=sport), vector, data).entry
    return Protocol(entry.protocol).name.lower() if entry.protocol else ""


def parsers_name(vector: Vector, data: bytes) -> str:
    sides = (data, b"") if vector.direction != TO_CLIENT else (b"", data)
    answer = identify(*sides, vector.l4)
    return answer.protocol if isinstance(answer, Match) else ""


def test_of_real_flows_the_kernel_says_nothing_that_the_parsers_do_not(each_allowed: Kernel) -> None:
    named = 0
    own = [(direction, TCP, data) for protocol in STREAMS for (direction, data), *_ in recorded(protocol).values()]
    for number, (direction, l4, data) in enumerate([*first_payloads(), *own]):
        vector = Vector("captured", l4, direction, data, INSPECTOR, "")
        said = kernel_names(each_allowed, vector, data, 1000 + number)
        assert said in {"", parsers_name(vector, data)}, data[:64]
        named += bool(said)
    assert named > 100


def test_of_damaged_payloads_the_kernel_says_nothing_that_the_parsers_do_not(each_allowed: Kernel) -> None:
    choose, wrong = random.Random(4), {}
    for number in range(3000):
        vector = choose.choice(VECTORS)
        data = bytearray(vector.data)
        for _ in range(choose.choice((1, 1, 2, 4))):
            data[choose.randrange(min(len(data), 48))] = choose.choice((0, 1, 0x7F, 0xFF, choose.randrange(256)))
        payload = bytes(data[: choose.choice((len(data), len(data), choose.randrange(1, len(data) + 1)))])
        said = kernel_names(each_allowed, vector, payload, 1000 + number)
        if said not in {"", parsers_name(vector, payload)}:
            wrong[vector.name] = payload
    assert wrong == {}


def test_every_pair_of_vectors_glued_together_is_no_third_protocol(each_allowed: Kernel) -> None:
    starts = [vector for vector in WHOLE if vector.l4 != UDP and vector.direction != TO_CLIENT]
    for number, (first, second) in enumerate(itertools.product(starts, starts)):
        outcome = first_payload(each_allowed, Flow(4, sport=1000 + number), first, first.data + second.data)
        assert outcome.entry.protocol in {0, Protocol[first.kernel.upper()]}, (first.name, second.name)


@pytest.mark.parametrize("size", [900, 1000, 1023, 1024, 1025, 1400])
def test_a_head_beyond_what_the_kernel_looks_at_goes_to_the_inspector(each_allowed: Kernel, size: int) -> None:
    head = GET[:-2] + b"X: " + b"a" * (size - len(GET) - 5) + b"\r\n\r\n"
    assert len(head) == size
    outcome = first_payload(each_allowed, Flow(), WHOLE[0], head)
    assert outcome.said == ("pass" if size <= 1024 else "redirect")


def test_an_upgrade_at_the_edge_of_what_the_kernel_looks_at(each_allowed: Kernel) -> None:
    for fill in range(960, 1010):
        head = GET[:-2] + b"X: " + b"a" * (fill - len(GET) - 5) + b"\r\nUpgrade: h2c\r\n\r\n"
        outcome = first_payload(each_allowed, Flow(sport=fill), WHOLE[0], head)
        assert outcome.said == "redirect", len(head)


@pytest.mark.parametrize(("name", "offset"), [("the second segment first", 10), ("a byte that was sent before", -1)])
def test_only_the_first_byte_of_the_stream_can_tell(each_allowed: Kernel, flow: Flow, name: str, offset: int) -> None:
    each_allowed.open(flow)
    outcome = each_allowed.send(flow.data(GET, offset))
    assert (outcome.said, judged(outcome.entry)[:7]) == ("redirect", "inspect")


def test_payload_on_the_syn_is_not_identified(each_allowed: Kernel, flow: Flow) -> None:
    # TCP Fast Open (RFC 7413): whether the server takes these bytes nobody in the middle knows.
    outcome = each_allowed.send(flow.segment("S", payload=GET))
    assert (outcome.said, outcome.entry.protocol) == ("redirect", 0)


def test_first_payload_decides_again(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("no ssh", "deny", tcp=80, app="ssh"), rule("rest", "allow", tcp=80))
    kernel.commands.heartbeat()
    assert judged(kernel.open(flow)) == "undecided pending 1"
    outcome = kernel.send(flow.data(b"SSH-2.0-OpenSSH_9.2p1\r\n"))
    assert (outcome.said, judged(outcome.entry)) == ("drop protocol", "deny protocol 1")
    # Nor does anything behind it.
    assert kernel.send(flow.data(b"more", 23)).said == "drop protocol"

    other = Flow(flow.version, sport=40001)
    kernel.open(other)
    assert judged(kernel.send(other.data(GET)).entry) == "allow protocol 2"


def test_identified_for_a_rule_file_is_held(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("web", "inspect", tcp=80, app="http", files=True))
    kernel.commands.heartbeat()
    kernel.open(flow)
    outcome = kernel.send(flow.data(GET))
    assert (outcome.said, judged(outcome.entry)) == ("redirect", "inspect protocol 1")
    assert outcome.stats == {"packets": 1, "bytes": outcome.stats["bytes"], "held": 1, "identified": 1}
    assert outcome.entry.ifindex[0] == kernel.namespace.ifindex["seg0"]


def test_inspect_without_rule_files_identifies_and_goes_on(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(rule("what", "inspect", tcp=80), rule("http", "allow", tcp=80, app="http"))
    kernel.commands.heartbeat()
    kernel.open(flow)
    assert judged(kernel.send(flow.data(GET)).entry) == "allow protocol 2"


# --- provisional -----------------------------------------------------------------------------------------------------

OTHER = b"SSH-2.0-" + b"x" * (len(GET) - 10) + b"\r\n"


def identified(kernel: Kernel, flow: Flow) -> None:
    kernel.policy(HTTP_ONLY)
    kernel.commands.heartbeat()
    kernel.open(flow)
    outcome = kernel.send(flow.data(GET))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow protocol 1")
    assert outcome.entry.ident_end == ISN + 1 + len(GET)


@pytest.mark.parametrize(("at", "data"), [(0, OTHER), (0, GET), (len(GET) - 1, b"x"), (5, b"abc"), (-1, b"\0")])
def test_bytes_over_the_identified_ones_go_to_the_inspector(kernel: Kernel, flow: Flow, at: int, data: bytes) -> None:
    identified(kernel, flow)
    outcome = kernel.send(flow.data(data, at))
    assert outcome.said == "redirect"
    assert judged(outcome.entry) == "inspect pending 1"
    assert (outcome.entry.protocol, outcome.entry.provisional) == (0, 0)


def test_bytes_behind_the_identified_ones_pass(kernel: Kernel, flow: Flow) -> None:
    identified(kernel, flow)
    assert kernel.send(flow.data(b"body", len(GET))).said == "pass"
    # Still provisional: the server has acknowledged neither.
    assert kernel.send(flow.data(OTHER)).said == "redirect"


def test_a_partial_acknowledgment_leaves_the_verdict_provisional(kernel: Kernel, flow: Flow) -> None:
    identified(kernel, flow)
    assert kernel.send(flow.data(b"", got=len(GET) - 1, back=True, flags="A")).said == "pass"
    assert kernel.send(flow.data(OTHER)).said == "redirect"


def test_the_clients_own_acknowledgment_settles_nothing(kernel: Kernel, flow: Flow) -> None:
    identified(kernel, flow)
    kernel.send(flow.segment("A", ISN + 1 + len(GET), ISN + 1 + len(GET)))
    assert kernel.send(flow.data(OTHER)).said == "redirect"


def test_the_peers_acknowledgment_makes_it_final(kernel: Kernel, flow: Flow) -> None:
    identified(kernel, flow)
    answer = kernel.send(flow.data(b"", got=len(GET), back=True, flags="A"))
    assert (answer.said, answer.entry.provisional) == ("pass", 0)
    outcome = kernel.send(flow.data(GET))
    assert (outcome.said, judged(outcome.entry)) == ("pass", "allow protocol 1")


def test_sequence_numbers_wrap(kernel: Kernel, version: int) -> None:
    kernel.policy(HTTP_ONLY)
    kernel.commands.heartbeat()
    flow = Flow(version)
    isn = 0xFFFFFFFF - 5
    kernel.send(flow.segment("S", isn))
    kernel.send(flow.segment("SA", 7, isn + 1, back=True))
    kernel.send(flow.segment("A", isn + 1, 8))
    assert judged(kernel.send(flow.segment("PA", isn + 1, 8, GET)).entry) == "allow protocol 1"
    assert kernel.send(flow.segment("PA", isn + 1 + len(GET), 8, b"body")).said == "pass"
    assert kernel.send(flow.segment("A", 8, isn + 1 + len(GET), back=True)).entry.provisional == 0
    assert kernel.send(flow.segment("PA", isn + 1, 8, PING)).said == "pass"


def test_datagrams_are_final_at_once(each_allowed: Kernel, version: int) -> None:
    flow = Flow(version)
    query = next(vector.data for vector in WHOLE if vector.name == "dns query")
    assert each_allowed.send(flow.datagram(query)).entry.provisional == 0
    assert each_allowed.send(flow.datagram(b"\xde\xad\xbe\xef")).said == "pass"


def test_a_datagram_shorter_than_its_packet_is_judged_by_its_own_length(each_allowed: Kernel, version: int) -> None:
    """RFC 768: the receiver takes what UDP's length says; what IP carries behind it tells nothing."""
    query = next(vector.data for vector in WHOLE if vector.name == "dns query")
    frame = bytearray(bytes(Flow(version).datagram(query)))
    length = frame.index(query) - 4
    frame[length : length + 2] = (8 + 12).to_bytes(2, "big")
    outcome = each_allowed.send(bytes(frame))
    ((_, entry),) = each_allowed.live()
    assert (outcome.said, entry.protocol) == ("redirect", 0)
