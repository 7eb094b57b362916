"""When flows are to be looked at again."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from slowpath.core.flow import Flow


class Timers:
    """One time a flow, `Flow.scheduled`: the earliest that was asked for."""

    def __init__(self, flows: Mapping[bytes, Flow]) -> None:
        self._flows = flows
        self._heap: list[tuple[float, int, bytes]] = []
        self._counter = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float | None:
        """When the first is due, at the latest."""
        return self._heap[0][0] if self._heap else None

    def schedule(self, flow: Flow, due: float) -> None:
        """Look at the flow by then."""
        if flow.scheduled and due >= flow.scheduled:
            return
        flow.scheduled = due
        self._counter += 1
        heapq.heappush(self._heap, (due, self._counter, flow.key))
        if len(self._heap) > 64 + 4 * len(self._flows):
            # An earlier time leaves the later one behind in the heap.
            self._heap = [(f.scheduled, n, f.key) for n, f in enumerate(self._flows.values()) if f.scheduled]
            self._counter = len(self._heap)
            heapq.heapify(self._heap)

    def due(self, now: float) -> Iterator[Flow]:
        """Flows whose time has come; they may be scheduled anew meanwhile."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            flow = self._flows.get(key)
            if flow is not None and flow.scheduled == due:
                flow.scheduled = 0.0
                yield flow
