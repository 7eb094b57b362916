"""Round trip of a gRPC call on an established connection.

`inspected`: a rule on the service, every call is judged in userspace. `after_verdict`: a rule on the
protocol alone, the flow has gone back to the kernel; its reference is a flow that never left
it, and should be equal. `kernel_again` is such a flow a second time: the spread.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from bench.gateway import Gateway, allow_all
from bench.http2 import Connection
from bench.new_grpc_connection import INSPECT
from bench.results import Result
from bench.rounds import interleaved
from bench.traffic import Ends
from tests.lab.namespaces import Lab

CONNECTIONS = 8
CALLS = 40
WARM_UP = 20
SUBJECTS = {
    "kernel": "action: allow",
    "kernel_again": "action: allow",
    "after_verdict": "proto: tcp, action: inspect, rules: by-protocol",
    "inspected": INSPECT,
}


def calls(connections: list[Connection]) -> float:
    """Microseconds a call: mean of the connections' medians."""
    medians = []
    for connection in connections:
        times = []
        for _ in range(CALLS):
            start = time.perf_counter_ns()
            connection.call()
            times.append(time.perf_counter_ns() - start)
        medians.append(statistics.median(times))
    return statistics.mean(medians) / 1000


def bench() -> Iterator[Result]:
    """Microseconds; floor of the rounds' medians."""
    with ExitStack() as stack:
        subjects: dict[str, Callable[[], float]] = {}
        for name, action in SUBJECTS.items():
            lab = stack.enter_context(Lab())
            ends = stack.enter_context(Ends(lab))
            stack.enter_context(Gateway(lab, allow_all(action)))
            connections = [Connection(*ends.stream()) for _ in range(CONNECTIONS)]
            for connection in connections:
                connection.open()
                for _ in range(WARM_UP):
                    connection.call()
            subjects[name] = functools.partial(calls, connections)
        floors = {name: min(figures) for name, figures in interleaved(subjects).items()}
    for name, target in (("kernel_again", None), ("after_verdict", 1.0), ("inspected", None)):
        yield Result(f"grpc_round_trip.{name}", "us", floors[name], floors["kernel"], target)
