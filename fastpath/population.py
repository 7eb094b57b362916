"""How many sessions the table holds, and how many it has evicted.

The kernel counts inserts and deletes. What an LRU evicts nobody counts, and the table may be older than
the counters (an upgrade of the programs): both show when the table is walked, and the first also where
more went in than there is room for.
"""

from __future__ import annotations

from fastpath.loader.pins import Table
from fastpath.statistics import Counters

# The common LRU evicts before it is full: each CPU keeps so many free entries at hand (LOCAL_FREE_TARGET in
# kernel/bpf/bpf_lru_list.c; newer kernels keep fewer in small tables).
_AT_HAND = 128
# Where evictions are to be reckoned with.
_NEARLY = 0.9


class Population:
    """Of one table. Every method takes the counters as they are now; call `live` often, it sees the table fill up."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._inherited: int | None = None  # sessions that the counters do not know of; None until the first walk
        self._lost = 0  # inserts - deletes - live
        self._evicted = 0
        self._may_evict = False  # since the last walk

    def live(self, counters: Counters) -> int:
        """Sessions in the table."""
        self._lost = max(self._lost, self._overflow(counters))
        live = min(self._table.capacity, max(0, counters.balance - self._lost))
        self._may_evict |= self._table.kind != "hash" and live >= _NEARLY * self._room(counters)
        return live

    def fullness(self, counters: Counters) -> float:
        """Share of what fits before sessions are refused or, by the common LRU, forgotten; 1 and more is full."""
        room = self._table.capacity if self._table.kind == "lru_percpu" else self._room(counters)
        return self.live(counters) / room

    def evictions(self, counters: Counters) -> int:
        """Sessions that the table forgot: inserts - deletes - live."""
        self.live(counters)
        self._evicted = max(self._evicted, self._lost + (self._inherited or 0))
        return self._evicted

    def walked(self, seen: int, balance: float) -> None:
        """A walk saw so many sessions while the counters' balance was, on average, this."""
        lost = round(balance) - seen
        if self._inherited is None:
            self._inherited = max(0, -lost)
        elif not self._may_evict:
            return  # nothing was evicted; the difference is what came and went meanwhile
        self._lost = lost
        self._may_evict = False

    def _room(self, counters: Counters) -> int:
        """Entries of a list before it evicts."""
        capacity, cpus = self._table.capacity, len(counters.inserts)
        if self._table.kind == "lru_percpu":
            return capacity // cpus
        return max(capacity // 2, capacity - _AT_HAND * cpus) if self._table.kind == "lru" else capacity

    def _overflow(self, counters: Counters) -> int:
        """At least so many went: what took more than it has room for gave up the rest."""
        least = counters.balance - self._table.capacity
        if self._table.kind == "lru_percpu":
            room = self._room(counters)
            over = sum(max(0, inserts - room) for inserts in counters.inserts)
            least = max(least, over - counters.stats["deletes"] - (self._inherited or 0))
        return least
