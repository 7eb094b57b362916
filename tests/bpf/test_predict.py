"""Header prediction decides nothing otherwise than the long way: the programs with and without it, over the same
frames.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from scapy.layers.inet import TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from bench.testrun import checksum
from fastpath import abi
from fastpath.loader.source import flatten
from tests.bpf.harness import ISN, PEER_ISN, Flow, Kernel, Outcome, rule

pytestmark = pytest.mark.root

CALL = "else if ((reason = predicted(skb, cfg, hook, now)) != MS_LONG_WAY)\n\t\treturn reason;\n"

OPEN, DROPPED, RESET, WEB = 80, 81, 82, 83
POLICY = (
    rule("open", "allow", tcp=OPEN),
    rule("drop", "deny", tcp=DROPPED),
    rule("reset", "deny", tcp=RESET, reset=True),
    rule("web", "allow", tcp=WEB, app="http"),
    rule("queries", "allow", udp=OPEN),
    rule("silent", "deny", udp=DROPPED),
)
FRAMES = 1500
# A connection is opened anew after as many: some frames close it.
BATCH = 50


def variant(name: str, instead: str) -> Iterator[Kernel]:
    text = flatten()
    assert text.count(CALL) == 1
    with closing(Kernel(text.replace(CALL, instead), name)) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def long() -> Iterator[Kernel]:
    """Everything goes the long way."""
    yield from variant("long", "")


@pytest.fixture(scope="module")
def short() -> Iterator[Kernel]:
    """What is not predicted is dropped."""
    yield from variant("short", f"{CALL}\telse\n\t\treturn MS_DROP;\n")


def flows(version: int) -> list[Flow]:
    # A datagram whose source wants no answer has port 0.
    return [*(Flow(version, 40000 + port, port) for port in (OPEN, DROPPED, RESET, WEB)), Flow(version, 0, OPEN)]


def begin(kernel: Kernel, version: int) -> None:
    """No session but those of the flows."""
    kernel.reset()
    kernel.policy(*POLICY)
    for flow in flows(version):
        for packet in (*flow.handshake(), flow.datagram(b"question")):
            kernel.send(packet)


def frame(draw: random.Random, version: int) -> bytes:
    """A packet in the midst of one of the flows, intact or with a few bits of its headers, or its length, changed."""
    flow = draw.choice(flows(version))
    back = draw.random() < 0.5
    payload = draw.randbytes(draw.choice((0, 1, 13, 64)))
    mine, theirs = (PEER_ISN, ISN) if back else (ISN, PEER_ISN)
    packet: Packet
    options: list[tuple[str, object]] = []
    if draw.random() < 0.3:
        packet = flow.datagram(payload, back=back)
    else:
        near = draw.choice((1, 1, 1, 2, 70_000, -70_000, 1 << 31))
        acked = draw.choice((1, 1, 1, 0, 2, -70_000))
        if draw.random() < 0.5:
            options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
        packet = flow.segment(
            draw.choice(("A", "A", "PA", "PA", "FA", "R", "RA", "S", "SA", "UA", "AEC", "")),
            mine + near, theirs + acked, payload, back=back,
        )  # fmt: skip
        packet[TCP].options = options
    if draw.random() < 0.1:
        link, network = packet[Ether], packet[Ether].payload
        packet = Ether(src=link.src, dst=link.dst) / Dot1Q(vlan=5) / network
    raw = bytearray(bytes(packet))
    if TCP in packet and draw.random() < 0.1:
        raw[-20 - len(payload) - (12 if options else 0) + 12] = draw.randrange(16) << 4
    if draw.random() < 0.5:
        for _ in range(draw.choice((1, 1, 2, 3))):
            raw[draw.randrange(12, min(len(raw), 74))] ^= 1 << draw.randrange(8)
        if draw.random() < 0.7 and raw[12:14] == b"\x08\x00":
            size = (raw[14] & 15) * 4
            raw[24:26] = bytes(2)
            raw[24:26] = checksum(bytes(raw[14 : 14 + size]))
    if draw.random() < 0.1:
        # A test run takes no frame without a network header.
        raw = raw[: draw.randrange(34 if version == 4 else 54, len(raw) + 1)] + bytes(draw.choice((0, 6)))
    return bytes(raw)


def whole(kernel: Kernel) -> dict[bytes, bytes]:
    """All sessions less what is never the same twice."""
    found = {}
    for key, session in kernel.live():
        session.first_ns = session.id = session.last_jiffies = session.stamp = 0
        session.verdict &= (1 << abi.Word.REVISION) - 1
        found[key] = bytes(session)
    return found


def told(outcome: Outcome) -> tuple[object, ...]:
    return outcome.said, outcome.frame, outcome.mark, dict(outcome.stats), dict(outcome.drops)


def test_prediction_changes_nothing(kernel: Kernel, long: Kernel, version: int) -> None:
    """Return code, frame, counters and every byte of every session."""
    draw = random.Random(version)
    for number in range(FRAMES):
        if number % BATCH == 0:
            for each in (kernel, long):
                begin(each, version)
        data = frame(draw, version)
        program = draw.choice(("ms_ingress", "ms_ingress", "ms_egress"))
        segments = draw.choice((0, 0, 0, 3))
        one, other = (each.send(data, program, gso_segs=segments) for each in (kernel, long))
        assert told(one) == told(other), (number, data.hex())
        assert whole(kernel) == whole(long), (number, data.hex())


def test_the_common_case_is_predicted(kernel: Kernel, short: Kernel, version: int) -> None:
    """Data and acknowledgments, with and without options, both ways; datagrams; what a denied flow sends."""
    begin(kernel, version)
    short.reset()
    short.policy(*POLICY)
    for key, session in kernel.live():
        # As if the same revision had judged it.
        session.verdict &= (1 << abi.Word.REVISION) - 1
        session.verdict |= short.revisions.revision << abi.Word.REVISION
        short.table.update(key, bytes(session))
    flow = flows(version)[0]
    for back in (False, True):
        for payload in (b"", b"x" * 100):
            segment = flow.data(payload, back=back)
            assert short.send(segment).said == "pass"
            segment[TCP].options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
            assert short.send(segment).said == "pass"
            assert short.send(flow.datagram(payload, back=back)).said == "pass"
    denied = flows(version)[1]
    assert short.send(denied.data(b"x")).drops == {"policy": 1}
    assert short.send(denied.datagram(b"x")).drops == {"policy": 1}
    # And to be sure that the others are not.
    assert short.send(flow.segment("FA", ISN + 1, PEER_ISN + 1)).drops == {}


def test_a_mapped_address_is_none_of_ipv4s(kernel: Kernel) -> None:
    """RFC 4291 2.5.5.2: on the wire it would have the key of the other family's session."""
    kernel.policy(*POLICY)
    flow = Flow(4, 40080, OPEN)
    kernel.open(flow)
    inner = flow.data(b"x")[TCP]
    link = Ether(bytes(flow.data(b"x"))[:12] + b"\x86\xdd")
    mapped = IPv6(src="::ffff:10.77.1.2", dst="::ffff:10.77.2.2")
    assert kernel.send(bytes(link / mapped / inner)).said == "drop spoofed"
