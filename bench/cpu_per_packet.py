"""CPU time of a packet on its whole way through the lab, nanoseconds: what `udp_packets` does, in CPU time.

One thread sends and receives, and every packet's way through the gateway runs in the softirq of the call that sends it.
So this thread's CPU time (system and user) is all that its packets cost, and what else runs meanwhile is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.forwarders import LOWER, compare
from bench.results import Result
from bench.traffic import Ends

PACKETS = 6400


def cpu(ends: Ends) -> float:
    """Nanoseconds a packet."""
    start = time.thread_time_ns()
    ends.datagrams(PACKETS)
    return (time.thread_time_ns() - start) / PACKETS


def bench() -> Iterator[Result]:
    """Floor of the rounds."""
    return compare("cpu_per_packet", "ns", cpu, LOWER, 1.03)
