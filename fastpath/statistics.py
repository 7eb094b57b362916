"""Counters and sessions of the kernel half, as the daemon, the commands and the metrics show them."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fastpath import abi
from fastpath.libbpf import Map
from fastpath.loader.pins import Pins

_STATS = int(abi.Stat.MAX)
_DROPS = int(abi.Reason.MAX) + 1
_KEY = ctypes.sizeof(abi.Key)
_VALUE = ctypes.sizeof(abi.Session)
_U64 = _VALUE // 8

# Key, session id, last use in jiffies: what a delete compares in the kernel.
Doomed = tuple[bytes, int, int]


@dataclass(frozen=True, slots=True)
class Counters:
    """Sums over all CPUs: `stats` by lower-case name of `abi.Stat`, `drops` by that of `abi.Reason`."""

    stats: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    inserts: tuple[int, ...] = ()  # of each CPU

    @property
    def balance(self) -> int:
        """Inserts less deletes: the sessions there are, but for those that were evicted or are older than the
        counters (`fastpath.population`).
        """
        return self.stats["inserts"] - self.stats["deletes"]


def read_counters(stats: Map) -> Counters:
    """The `stats` map, summed."""
    raw = stats.lookup(bytes(4)) or b""
    per_cpu = _STATS + _DROPS
    values = struct.unpack(f"={len(raw) // 8}Q", raw)
    sums = [sum(values[n::per_cpu]) for n in range(per_cpu)]
    return Counters(
        {stat.name.lower(): sums[stat] for stat in abi.Stat if stat is not abi.Stat.MAX},
        {reason.name.lower(): sums[_STATS + reason] for reason in abi.Reason if reason is not abi.Reason.MAX},
        values[abi.Stat.INSERTS :: per_cpu],
    )


def sessions(table: Map) -> Iterator[tuple[bytes, abi.Session]]:
    """(key, session) of the whole table; those that come and go meanwhile may be missed or seen twice."""
    for count, keys, values in table.batches():
        for n in range(count):
            yield bytes(keys[n * _KEY : (n + 1) * _KEY]), abi.Session.from_buffer_copy(values, n * _VALUE)


def expired(
    count: int, keys: bytes | memoryview, values: bytes | memoryview, now: int, timeouts: Sequence[int]
) -> list[Doomed]:
    """The sessions of one batch that were not used for longer than their timeout, in jiffies.

    Strides over the packed values: a million sessions take a fifth of a second.
    """
    words = memoryview(values).cast("Q")
    last = words[abi.Session.last_jiffies.offset // 8 :: _U64].tolist()
    kinds = bytes(values[abi.Session.timeout.offset :: _VALUE])
    # Used before this, it is over.
    oldest = [now - timeout for timeout in timeouts]
    doomed = [n for n in range(count) if last[n] < oldest[kinds[n] & 7]]
    if not doomed:
        return []
    keys = bytes(keys)
    ids = words[abi.Session.id.offset // 8 :: _U64].tolist()
    return [(keys[n * _KEY : (n + 1) * _KEY], ids[n], last[n]) for n in doomed]


def heartbeat_age(pins: Pins, now: int, hertz: int) -> float | None:
    """Seconds since the inspector's last sign of life; None if there never was one."""
    beat = int.from_bytes(pins.map("heartbeat").lookup(bytes(4)) or b"", "little")
    return max(0, now - beat) / hertz if beat else None
