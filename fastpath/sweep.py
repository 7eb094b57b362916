"""Ending sessions that are over: what nobody used for its timeout, and in need what is as good as over.

A sweep looks at copies, in batches, and what it deletes is compared in the kernel: a session that was used
since stays. It takes a small share of a core, except when the table is nearly full.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from fastpath import abi
from fastpath.commands import Commands
from fastpath.libbpf import Map
from fastpath.population import Population
from fastpath.statistics import expired, read_counters

# Of a core, on average.
SHARE = 0.1

# Seconds without a packet after which a session is given up in need: half-open and one-sided ones, which
# an answer may still be on its way to. Closed ones at once; others not before their time.
HALF_OPEN_AGE = 0.5
_NEED = {
    abi.Timeout.SYN: HALF_OPEN_AGE,
    abi.Timeout.UDP: HALF_OPEN_AGE,
    abi.Timeout.CLOSING: 0.0,
    abi.Timeout.TIME_WAIT: 0.0,
}


class Sweep:
    """Sweeps of one gateway's table; both kinds may run side by side."""

    def __init__(self, table: Map, stats: Map, commands: Commands, population: Population, hertz: int) -> None:
        self._table = table
        self._stats = stats
        self._commands = commands
        self._population = population
        self._hertz = hertz
        self.swept = 0
        self.emergencies = 0

    async def full(self, timeouts: Sequence[int], share: float = SHARE) -> None:
        """End what was not used for its timeout (jiffies by `abi.Timeout`); at most `share` of a core."""
        await self._pass(timeouts, share)

    async def emergency(self, timeouts: Sequence[int]) -> float:
        """End closed and half-open sessions too, as fast as it goes; seconds of CPU it took."""
        self.emergencies += 1
        limits = list(timeouts)
        for kind, seconds in _NEED.items():
            limits[kind] = min(limits[kind], round(seconds * self._hertz))
        return await self._pass(limits, 1.0)

    async def _pass(self, limits: Sequence[int], share: float) -> float:
        seen = gone = 0
        balances = cost = 0.0
        begin = time.thread_time()
        now = self._commands.clocks().jiffies
        for count, keys, values in self._table.batches():
            # Batches cover equally many buckets, but for the last, so each moment counts by what it saw.
            balances += count * (read_counters(self._stats).balance + gone)
            seen += count
            ended = self._commands.delete(expired(count, keys, values, now, limits), abi.End.TIMEOUT)
            gone += ended
            self.swept += ended
            spent = time.thread_time() - begin
            cost += spent
            await asyncio.sleep(spent / share - spent)
            begin = time.thread_time()
        self._population.walked(seen, balances / seen if seen else read_counters(self._stats).balance)
        return cost
