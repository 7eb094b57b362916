"""New flows a second that the whole inspector takes on one core: from captured frames to a verdict for each.

A flow is a handshake, a request with its answer, and FINs; of HTTP under rules on paths, of TLS under rules on names
(a recorded hello of OpenSSL and its server's answer), of DNS under rules on names (two datagrams, each flow its name).

Beside it, in the same run: the HTTP flows as scapy's TCPSession reads them, which judges nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scapy.layers.http import HTTPRequest
from scapy.layers.l2 import Ether
from scapy.sessions import TCPSession

from bench.results import Result
from bench.rounds import interleaved
from slowpath.replay import InspectAll, Replay
from slowpath.rules.ruleset import RuleSet, load_rules
from slowpath.service import collect_seldom
from tests.data import recorded
from tests.unit.slowpath.core.wire import ACK, FIN, SYN, Connection, udp_frame

RULES = Path(__file__).parents[1] / "configs" / "rules.d"
FLOWS = 2000
# Of these scapy reads as many as take it a second or two.
SCAPY_FLOWS = 200
TARGET = 10_000

_GET = b"GET /items/42?page=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_QUERY = bytes.fromhex("1234010000010000000000000377777706616d617a6f6e03636f6d0000010001")
_ANSWER = bytes.fromhex(
    "1234818000010001000000000377777706616d617a6f6e03636f6d0000010001c00c000100010000003c0004c0000201"
)


def bench() -> Iterator[Result]:
    """Flows a second."""
    collect_seldom()  # as the daemon does
    hello = recorded("tls")["openssl 1.3"][:2]
    http = [list(_tcp(n, [(0, _GET), (1, _OK)])) for n in range(FLOWS)]
    subjects: dict[str, Callable[[], float]] = {
        "http": _rate("web", [frame for flow in http for frame in flow]),
        "tls": _rate("names", [frame for n in range(FLOWS) for frame in _tcp(n, hello)]),
        "dns": _rate("resolver", [frame for n in range(FLOWS) for frame in _udp(n)]),
        "scapy.http": _scapy_rate([frame for flow in http[:SCAPY_FLOWS] for frame in flow]),
    }
    for name, rates in interleaved(subjects).items():
        target = None if name.startswith("scapy") else TARGET
        yield Result(f"inspector.{name}", "flows/s", max(rates), target=target, better="higher")


def _rate(rule_file: str, frames: Sequence[bytes]) -> Callable[[], float]:
    rules = RuleSet({rule_file: load_rules([RULES / f"{rule_file}.yaml"]).files[rule_file]})

    def once() -> float:
        replay = Replay(rules, InspectAll(rule_file))
        start = time.process_time()
        verdicts = sum(
            1 for record in replay.run((n / 1e4, frame) for n, frame in enumerate(frames)) if record["verdict"]
        )
        taken = time.process_time() - start
        if verdicts < FLOWS:
            raise RuntimeError(f"{rule_file}: {verdicts} verdicts on {FLOWS} flows")
        return FLOWS / taken

    return once


def _scapy_rate(frames: Sequence[bytes]) -> Callable[[], float]:
    def once() -> float:
        session = TCPSession()
        start = time.process_time()
        read = (session.process(Ether(frame)) for frame in frames)
        requests = sum(1 for packet in read if packet is not None and HTTPRequest in packet)
        taken = time.process_time() - start
        if requests != SCAPY_FLOWS:
            raise RuntimeError(f"scapy: {requests} requests in {SCAPY_FLOWS} flows")
        return SCAPY_FLOWS / taken

    return once


def _tcp(number: int, turns: Sequence[tuple[int, bytes]]) -> Iterator[bytes]:
    """Frames of a connection, acknowledged to the end."""
    c = Connection(src=f"10.{1 + number // 250}.0.{1 + number % 250}", dst="10.250.0.1")
    yield bytes(c.segment(0, at=0, flags=SYN).frame)
    yield bytes(c.segment(1, at=0, flags=SYN | ACK).frame)
    yield bytes(c.client(flags=ACK).frame)
    for side, data in turns:
        yield bytes(c.segment(side, data).frame)
        yield bytes(c.segment(1 - side, flags=ACK).frame)
    yield bytes(c.segment(0, flags=ACK | FIN).frame)
    yield bytes(c.segment(1, flags=ACK | FIN).frame)


def _udp(number: int) -> Iterator[bytes]:
    client, server = f"10.{1 + number // 250}.0.{1 + number % 250}", "10.250.0.1"
    name = b"%06d" % number
    yield udp_frame(client, server, 40000, 53, _QUERY.replace(b"amazon", name))
    yield udp_frame(server, client, 53, 40000, _ANSWER.replace(b"amazon", name))
