"""The bench's peers are given the same policy: nftables and iptables let through what it allows, and nothing else."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address

import pytest

from bench.first_packet_lab import PEERS
from bench.flows import draw
from bench.openings import Openings
from bench.policies import Shape, Sizes, generate, load
from bench.testrun import TCP_BYTES
from fastpath.abi import Verdict
from fastpath.policy.evaluate import evaluate
from fastpath.policy.model import TCP
from tests.bpf.harness import mapped
from tests.lab import Lab, Namespace

pytestmark = pytest.mark.root

ETH_P_ALL = 3
# Few groups, prefixes and services for so many rules: many flows meet several, which decide otherwise.
SERVICES = ("tcp-443", "tcp-1024-65535", "tcp-30000-32767", "udp-22", "ping")
SIZES = Sizes(rules=150, prefixes=60, groups=12)
FLOWS = 150


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_decides_as_the_policy_says(peer: str) -> None:
    dice = random.Random(1)
    generated = generate(SIZES, Shape.NESTED, seed=7)
    text = re.sub(r"app: \[.*?\], ", "", generated.text)  # which only we can tell
    text = re.sub("service: .*?,", lambda _: f"service: {dice.choice(SERVICES)},", text)
    text = re.sub("action: .*?}", lambda _: f"action: {dice.choice(('allow', 'deny'))}}}", text)
    generated, policy = replace(generated, text=text), load(text)
    flows = draw(generated, policy, FLOWS)
    expected = {
        flow: evaluate(
            policy, *(mapped(str(ip_address(end))) for end in (flow.source, flow.destination)), TCP, flow.dport
        ).verdict
        == Verdict.ALLOW
        for flow in flows
    }
    assert {flow.version for flow in flows} == {4, 6}
    assert FLOWS // 5 < sum(expected.values()) < FLOWS * 4 // 5
    with Lab() as lab:
        PEERS[peer](lab, policy)
        with closing(Openings(lab, flows)) as openings, lab.call(Namespace.SERVER, listener) as listening:
            assert {flow: openings.send(flow) in arrived(listening) for flow in flows} == expected


def listener() -> socket.socket:
    """Of all frames that arrive."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    made.bind(("eth0", ETH_P_ALL))
    made.setblocking(False)  # a packet's whole way runs in the call that sends it
    return made


def arrived(listening: socket.socket) -> list[bytes]:
    """TCP segments that wait, without options."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listening.recv(256)[-TCP_BYTES:])
    return found
