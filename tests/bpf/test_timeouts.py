"""Every kind of timeout ends a session at its next packet, and none but its own does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.packet import Packet

from fastpath import abi
from fastpath.abi import Timeout
from fastpath.config import TIMEOUTS
from tests.bpf.harness import ISN, PEER_ISN, Flow, Kernel, rule

pytestmark = pytest.mark.root

SHORT = 0.01


def opened(flow: Flow, *more: Packet) -> list[Packet]:
    return [*flow.handshake(), *more]


def fin(flow: Flow, *, back: bool) -> Packet:
    """The server's acknowledges the client's."""
    return flow.segment("FA", PEER_ISN + 1, ISN + 2, back=True) if back else flow.segment("FA", ISN + 1, PEER_ISN + 1)


def last_ack(flow: Flow) -> Packet:
    return flow.segment("A", ISN + 2, PEER_ISN + 2)


def other(flow: Flow) -> Packet:
    return flow.ip(proto=47) if flow.version == 4 else flow.ip(nh=47)


# What leads to the state, and the packet that then finds it expired or not.
STATES: dict[str, Callable[[Flow], tuple[list[Packet], Packet]]] = {
    "syn": lambda flow: ([flow.segment("S")], flow.segment("S")),
    "established": lambda flow: (opened(flow), flow.data(b"x")),
    "closing": lambda flow: (opened(flow, flow.segment("R", ISN + 1)), flow.data(b"x")),
    "time_wait": lambda flow: (
        opened(flow, fin(flow, back=False), fin(flow, back=True), last_ack(flow)), last_ack(flow),
    ),
    "udp": lambda flow: ([flow.datagram(b"x")], flow.datagram(b"x")),
    "udp_stream": lambda flow: ([flow.datagram(b"x"), flow.datagram(b"x", back=True)], flow.datagram(b"x")),
    "icmp": lambda flow: ([flow.echo()], flow.echo()),
    "other": lambda flow: ([other(flow)], other(flow)),
}  # fmt: skip


def only(kernel: Kernel) -> abi.Session:
    ((_, session),) = kernel.live()
    return session


def test_all_of_them_are_tested() -> None:
    assert {*STATES, "fragment"} == set(TIMEOUTS)


@pytest.mark.parametrize("name", STATES)
def test_a_timeout_is_applied_to_its_own_state_and_no_other(kernel: Kernel, flow: Flow, name: str) -> None:
    kernel.policy(rule("any", "allow"))
    before, after = STATES[name](flow)
    for expires in (False, True):
        for packet in before:
            kernel.send(packet)
        old = only(kernel)
        assert Timeout(old.timeout).name.lower() == name
        kernel.settings(timeouts={each: SHORT for each in TIMEOUTS if (each == name) is expires})
        kernel.tick(2 * SHORT)
        outcome = kernel.send(after)
        # What is over makes room for another; a reply alone may not be able to begin one.
        assert (outcome.stats.get("deletes", 0) == 1) is expires
        assert (only(kernel).id == old.id) is not expires
        kernel.reset()


def test_defaults() -> None:
    assert {name: TIMEOUTS[name] for name in ("syn", "established", "closing", "time_wait", "udp_stream", "icmp")} == {
        "syn": 30, "established": 3600, "closing": 30, "time_wait": 120, "udp_stream": 120, "icmp": 10,
    }  # fmt: skip
    assert TIMEOUTS["udp"] == 30


def test_nothing_behind_a_reset_keeps_the_entry_alive(kernel: Kernel, flow: Flow) -> None:
    """Who has not got the reset goes on for a while."""
    kernel.policy(rule("any", "allow"))
    kernel.open(flow)
    kernel.send(flow.segment("R", ISN + 1))
    used = only(kernel).last_jiffies
    kernel.tick()
    for packet in (flow.segment("A", PEER_ISN + 1, ISN + 1, back=True), flow.segment("R", ISN + 1)):
        assert kernel.send(packet).said == "pass"
    assert only(kernel).last_jiffies == used
