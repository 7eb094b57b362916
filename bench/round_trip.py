"""TCP round trip through the gateway, one byte each way on an established connection.

The cost of a session hit where it counts, in both directions: four passages through the gateway's two hooks.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.forwarders import LOWER, compare
from bench.results import Result
from bench.traffic import Ends


def bench() -> Iterator[Result]:
    """Microseconds; floor of the rounds' medians."""
    return compare("round_trip", "us", Ends.round_trip, LOWER, 1.04)
