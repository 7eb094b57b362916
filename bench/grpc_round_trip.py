"""Round trip of a gRPC call on an established connection.

`inspected`: a rule on the service, every call is judged in userspace. `after_verdict`: a rule on the
protocol alone, the flow has gone back to the kernel; its reference is a flow that never left
it, and should be equal. `kernel_again` is such a flow a second time: the spread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

from bench.gateway import Gateway, allow_all
from bench.http2 import Connection
from bench.new_grpc_connection import BY_SERVICE, INSPECT
from bench.results import Result
from bench.rounds import interleaved
from bench.traffic import Ends
from tests.lab.namespaces import Lab

CALLS = 200
WARM_UP = 50
BY_PROTOCOL = """\
name: by-protocol
protocol: grpc
rules:
  - id: any-call
    action: allow
    samples:
      must_match: [{grpc.service: any.Service, grpc.method: Any}]
"""
SUBJECTS = {
    "kernel": "action: allow",
    "kernel_again": "action: allow",
    "after_verdict": "proto: tcp, action: inspect, rules: by-protocol",
    "inspected": INSPECT,
}


def calls(connection: Connection) -> Callable[[], float]:
    """Median microseconds of a number of calls."""

    def run() -> float:
        times = []
        for _ in range(CALLS):
            start = time.perf_counter_ns()
            connection.call()
            times.append(time.perf_counter_ns() - start)
        return statistics.median(times) / 1000

    return run


def bench() -> Iterator[Result]:
    """Microseconds; floor of the rounds' medians."""
    with ExitStack() as stack:
        subjects: dict[str, Callable[[], float]] = {}
        for name, action in SUBJECTS.items():
            lab = stack.enter_context(Lab())
            ends = stack.enter_context(Ends(lab))
            rule_files = {"by-service": BY_SERVICE, "by-protocol": BY_PROTOCOL}
            stack.enter_context(Gateway(lab, allow_all(action), rule_files))
            client = ends.client()
            connection = stack.enter_context(closing(Connection(client, ends.connect(client))))
            connection.open()
            for _ in range(WARM_UP):
                connection.call()
            subjects[name] = calls(connection)
        floors = {name: min(figures) for name, figures in interleaved(subjects).items()}
    for name, target in (("kernel_again", None), ("after_verdict", 1.0), ("inspected", None)):
        yield Result(f"grpc_round_trip.{name}", "us", floors[name], floors["kernel"], target)
