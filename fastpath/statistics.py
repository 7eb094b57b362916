"""Counters and sessions of the kernel half, as the daemon, the commands and the metrics show them."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastpath import abi
from fastpath.libbpf import Map
from fastpath.loader.pins import Pins

_STATS = int(abi.Stat.MAX)
_DROPS = int(abi.Reason.MAX) + 1
_KEY = ctypes.sizeof(abi.Key)
_VALUE = ctypes.sizeof(abi.Session)
_U64 = _VALUE // 8


@dataclass(frozen=True, slots=True)
class Counters:
    """Sums over all CPUs: `stats` by lower-case name of `abi.Stat`, `drops` by that of `abi.Reason`."""

    stats: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)

    @property
    def live(self) -> int:
        """Sessions by the counters: exact while the table never was full."""
        return max(0, self.stats["inserts"] - self.stats["deletes"])


def read_counters(stats: Map) -> Counters:
    """The `stats` map, summed."""
    raw = stats.lookup(bytes(4)) or b""
    per_cpu = _STATS + _DROPS
    values = struct.unpack(f"={len(raw) // 8}Q", raw)
    sums = [sum(values[n::per_cpu]) for n in range(per_cpu)]
    return Counters(
        {stat.name.lower(): sums[stat] for stat in abi.Stat if stat is not abi.Stat.MAX},
        {reason.name.lower(): sums[_STATS + reason] for reason in abi.Reason if reason is not abi.Reason.MAX},
    )


def sessions(table: Map) -> Iterator[tuple[bytes, abi.Session]]:
    """(key, session) of the whole table; those that come and go meanwhile may be missed or seen twice."""
    for count, keys, values in table.batches():
        for n in range(count):
            yield keys[n * _KEY : (n + 1) * _KEY], abi.Session.from_buffer_copy(values, n * _VALUE)


def expired(count: int, keys: bytes, values: bytes, now: int, timeouts: list[int]) -> list[tuple[bytes, int, int]]:
    """(key, id, last use) of the sessions of one batch that were not used for their timeout, in jiffies.

    Strides over the packed values: a million sessions take a tenth of a second.
    """
    words = memoryview(values).cast("Q")
    last = words[abi.Session.last_jiffies.offset // 8 :: _U64].tolist()
    kinds = values[abi.Session.timeout.offset :: _VALUE]
    doomed = [n for n in range(count) if now - last[n] > timeouts[kinds[n] & 7]]
    first = abi.Session.id.offset // 8
    return [(keys[n * _KEY : (n + 1) * _KEY], words[n * _U64 + first], last[n]) for n in doomed]


def heartbeat_age(pins: Pins, now: int, hertz: int) -> float | None:
    """Seconds since the inspector's last sign of life; None if there never was one."""
    beat = int.from_bytes(pins.map("heartbeat").lookup(bytes(4)) or b"", "little")
    return max(0, now - beat) / hertz if beat else None
