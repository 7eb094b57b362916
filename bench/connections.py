"""TCP connections a second: handshake, a byte each way, close.

What a new flow costs: the policy walk over 1,000 rules, the session's creation and its end.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.forwarders import HIGHER, compare
from bench.results import Result
from bench.traffic import Ends


def bench() -> Iterator[Result]:
    """Connections a second; best round."""
    return compare("connections", "1/s", Ends.connections, HIGHER, 0.98)
