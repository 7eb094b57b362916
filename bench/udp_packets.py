"""UDP packets a second through the gateway, eight flows, in bursts: the session hit without TCP's answers."""

from __future__ import annotations

from collections.abc import Iterator

from bench.forwarders import HIGHER, compare
from bench.results import Result
from bench.traffic import Ends


def bench() -> Iterator[Result]:
    """Packets a second that arrived; best round."""
    return compare("udp_packets", "1/s", Ends.datagrams, HIGHER, 0.97)
