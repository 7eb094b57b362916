"""What the inspector adds to a new gRPC connection until the verdict.

Time from connect() to the end of the first call, through the gateway with a rule on the gRPC service,
less the median of plain forwarding in the same run. The client waits for the server's SETTINGS before
its HEADERS, as gRPC clients do, so the inspector is asked twice. Beside it the latency that
the records state: from the first held packet to the verdict.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench.gateway import Gateway, allow_all
from bench.http2 import Connection
from bench.results import Result
from bench.rounds import interleaved, quantile
from bench.traffic import Ends
from tests.lab.namespaces import Lab

CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "500"))
INSPECT = "proto: tcp, action: inspect, rules: by-service, log: all"


def first_call(ends: Ends) -> float:
    """Milliseconds."""
    client = ends.client()
    start = time.perf_counter()
    connection = Connection(client, ends.connect(client))
    with contextlib.closing(connection):
        connection.open()
        connection.call()
        return (time.perf_counter() - start) * 1000


def bench() -> Iterator[Result]:
    """Milliseconds."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        # Ends opens its own connections: before the gateway is there, which would wait for gRPC on them.
        plain = stack.enter_context(Ends(lab))
        lab = stack.enter_context(Lab())
        ends = stack.enter_context(Ends(lab))
        gateway = stack.enter_context(Gateway(lab, allow_all(INSPECT)))
        figures = interleaved({"plain": lambda: first_call(plain), "ours": lambda: first_call(ends)}, CONNECTIONS)
        latencies = [record["latency"] * 1000 for record in gateway.read_records() if "latency" in record]
    base = quantile(figures["plain"], 0.5)
    for share, target in ((0.5, 1.0), (0.99, None)):
        added = quantile(figures["ours"], share) - base
        yield Result(f"new_grpc_connection.added_p{share * 100:.0f}", "ms", added, target=target)
    for share in (0.5, 0.99):
        yield Result(f"new_grpc_connection.latency_p{share * 100:.0f}", "ms", quantile(latencies, share))
