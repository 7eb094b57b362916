"""Cost of a packet in the kernel, nanoseconds, with BPF_PROG_TEST_RUN.

A session hit with one hot flow and with 100,000 random ones, a first packet, an identification and a
drop, against the minimal program; gross, and net of the empty program. Floors of interleaved rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench import testrun
from bench.programs import Peers, peers
from bench.results import Result
from bench.rounds import interleaved
from bench.testrun import ACK, FLOWS, PSH, STEP, Frame
from fastpath.libbpf import Program

# Client addresses of the many flows; fresh flows come from beyond.
MANY = testrun.address("11.0.0.0")
FRESH = testrun.address("12.0.0.0")
DATA = testrun.tcp(ACK | PSH, seq=101, ack=1, payload=bytes(64))


def spread_runs(bed: Peers, program: Program, frame: Frame) -> Callable[[], float]:
    """One pass over the many flows, in a random order."""

    def run() -> float:
        bed.spread(MANY, FLOWS, STEP)
        return testrun.scattered(bed, program, frame, FLOWS)

    return run


def bench() -> Iterator[Result]:
    """See above."""
    with peers() as bed:
        subjects = {
            "empty": lambda: testrun.hot(bed.empty, DATA),
            "minimal": lambda: testrun.hot(bed.minimal, DATA),
            "scatter": spread_runs(bed, bed.empty, DATA),
            "minimal_random": spread_runs(bed, bed.minimal, DATA),
        }
        floors = {name: min(values) for name, values in interleaved(subjects).items()}
    yield Result("packet_cost.empty", "ns", floors["empty"])
    yield Result("packet_cost.minimal", "ns", floors["minimal"])
    yield Result("packet_cost.minimal_random", "ns", floors["empty"] + floors["minimal_random"] - floors["scatter"])
