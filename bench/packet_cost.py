"""Cost of a packet in the kernel, nanoseconds, with BPF_PROG_TEST_RUN.

A session hit with one hot flow and with 100,000 random ones, a first packet, an identification and a
drop, against the minimal program; gross, and net of the empty program. Floors of interleaved rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from bench import testrun
from bench.gateway import Gateway
from bench.programs import Peers, peers
from bench.results import Result
from bench.rounds import ROUNDS, interleaved
from bench.testrun import ACK, FLOWS, PSH, STEP, SYN, Frame
from fastpath.libbpf import Program
from tests.lab.namespaces import Lab

# TC_ACT_UNSPEC, TC_ACT_SHOT
PASSED, DROPPED = -1, 2

NAMES = ("hit", "random", "hit6", "random6", "first", "identification", "drop")
TARGETS = {"hit": 1.3, "random": 1.3, "hit6": 1.3, "random6": 1.3, "first": 1.3}

# Client addresses of the many flows; each round of a bench that needs new ones goes on behind.
MANY = testrun.address("11.0.0.0")
FRESH = testrun.address("12.0.0.0")
NEW_FLOWS = 4000
# Two thirds full in the end at most: no eviction, no pressure.
CAPACITY = 524_288

OPEN, WEB, CLOSED = 9000, 80, 81
POLICY = f"""\
rules:
- {{id: open, proto: tcp, ports: {OPEN}, action: allow}}
- {{id: web, proto: tcp, ports: {WEB}, app: http, action: allow}}
- {{id: closed, proto: tcp, ports: {CLOSED}, action: deny, deny_with: drop, log: none}}
"""
DATA = bytes(64)
REQUEST = b"GET / HTTP/1.1\r\nHost: web.lab.test\r\n\r\n"


def handshake(port: int, version: int = 4) -> tuple[Frame, Frame, Frame]:
    """SYN, SYN and ACK, ACK."""
    return (
        testrun.tcp(SYN, seq=100, port=port, version=version),
        testrun.tcp(SYN | ACK, seq=0, ack=101, port=port, to_client=True, version=version),
        testrun.tcp(ACK, seq=101, ack=1, port=port, version=version),
    )


def segment(port: int, payload: bytes = DATA, version: int = 4) -> Frame:
    """The client's first segment behind the handshake."""
    return testrun.tcp(ACK | PSH, seq=101, ack=1, payload=payload, port=port, version=version)


class Costs:
    """Nanoseconds of one program."""

    def __init__(self, bed: Peers, program: Program) -> None:
        self._bed = bed
        self._program = program
        self._fresh = FRESH

    def _pass(self, frame: Frame, base: int, count: int, step: int = 1) -> float:
        self._bed.spread(base, count, step)
        return testrun.scattered(self._bed, self._program, frame, count)

    def establish(self) -> None:
        """The hot flow, the denied one and the many."""
        for frame in (*handshake(OPEN), *handshake(OPEN, 6), *handshake(CLOSED)[:1]):
            self._program.run(frame.data)
        for frame in (*handshake(OPEN), *handshake(OPEN, 6)):
            self._pass(frame, MANY, FLOWS)

    def hit(self) -> float:
        """One hot flow."""
        return testrun.hot(self._program, segment(OPEN))

    def random(self) -> float:
        """The many flows, each once; `scatter` included."""
        return self._pass(segment(OPEN), MANY, FLOWS, STEP)

    def hit6(self) -> float:
        """One hot flow over IPv6."""
        return testrun.hot(self._program, segment(OPEN, version=6))

    def random6(self) -> float:
        """The many flows over IPv6."""
        return self._pass(segment(OPEN, version=6), MANY, FLOWS, STEP)

    def first(self) -> float:
        """Flows never seen; `scatter` included."""
        self._fresh += NEW_FLOWS
        return self._pass(handshake(OPEN)[0], self._fresh, NEW_FLOWS)

    def identification(self) -> float:
        """First payload of established flows; `scatter` included."""
        self._fresh += NEW_FLOWS
        for frame in handshake(WEB):
            self._pass(frame, self._fresh, NEW_FLOWS)
        return self._pass(segment(WEB, REQUEST), self._fresh, NEW_FLOWS)

    def drop(self) -> float:
        """A segment of a denied session."""
        return testrun.hot(self._program, segment(CLOSED))


def check(before: Mapping[str, int], gateway: Gateway) -> None:
    """The programs did what the figures say they did."""
    after = gateway.packets()
    rounds = ROUNDS + 1
    for name, least in (("inserts", 2 * NEW_FLOWS * rounds), ("identified", NEW_FLOWS * rounds)):
        if after[name] - before[name] != least:
            raise RuntimeError(f"{name}: {after[name] - before[name]} instead of {least}")
    if after["held"] != before["held"]:
        raise RuntimeError("packets went to the inspector")
    for port, value in ((OPEN, PASSED), (CLOSED, DROPPED)):
        if (got := gateway.program("ms_ingress").run(segment(port).data).value) != value:
            raise RuntimeError(f"a segment to port {port} gets {got} instead of {value}")


def bench() -> Iterator[Result]:
    """The reference of an identification is the minimal program on the same new flows, which it hits."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        gateway = stack.enter_context(Gateway(lab, POLICY, {"sessions": {"capacity": CAPACITY}}, inspector=False))
        bed = stack.enter_context(peers(gateway.session_table().shape))
        subjects: dict[str, Callable[[], float]] = {}
        for who, program in (
            ("ours", gateway.program("ms_ingress")),
            ("minimal", bed.minimal),
            ("empty", bed.empty),
        ):
            costs = Costs(bed, program)
            costs.establish()
            for name in NAMES:
                subjects[f"{who}.{name}"] = getattr(costs, name)
        before = gateway.packets()
        floors = {name: min(values) for name, values in interleaved(subjects).items()}
        check(before, gateway)
    for name in NAMES:
        ours, minimal, empty = (floors[f"{who}.{name}"] for who in ("ours", "minimal", "empty"))
        # Gross as a program by itself would cost, net of what an empty one does.
        alone = floors["empty.hit"]
        target = TARGETS.get(name)
        yield Result(f"packet_cost.{name}", "ns", ours - empty + alone, minimal - empty + alone, target)
        yield Result(f"packet_cost.{name}.net", "ns", ours - empty, minimal - empty)
