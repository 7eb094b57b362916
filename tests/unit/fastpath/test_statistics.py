from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import Any

from fastpath import abi
from fastpath.statistics import Counters, expired, heartbeat_age, read_counters, sessions

PER_CPU = int(abi.Stat.MAX) + int(abi.Reason.MAX) + 1


class PinnedMap:
    """Stands for a map: one value, or batches of a table."""

    def __init__(self, value: bytes = b"", batches: tuple[tuple[int, bytes, bytes], ...] = ()) -> None:
        self._value = value
        self._batches = batches

    def lookup(self, key: bytes) -> bytes:
        assert key == bytes(4)
        return self._value

    def batches(self) -> Iterator[tuple[int, bytes, bytes]]:
        return iter(self._batches)


class PinnedMaps:
    def __init__(self, **maps: PinnedMap) -> None:
        self._maps = maps

    def map(self, name: str) -> PinnedMap:
        return self._maps[name]


def counters(*cpus: dict[int, int]) -> Counters:
    """Of values by position on each CPU."""
    packed = b"".join(struct.pack(f"={PER_CPU}Q", *(cpu.get(n, 0) for n in range(PER_CPU))) for cpu in cpus)
    stats: Any = PinnedMap(packed)
    return read_counters(stats)


def test_counters_are_summed_over_the_cpus() -> None:
    drop = int(abi.Stat.MAX) + int(abi.Reason.FRAGMENT)
    found = counters({abi.Stat.PACKETS: 3, drop: 1}, {abi.Stat.PACKETS: 4, drop: 10}, {abi.Stat.DRAINS: 1})
    assert (found.stats["packets"], found.stats["drains"], found.stats["bytes"]) == (7, 1, 0)
    assert found.drops["fragment"] == 11
    assert set(found.stats) == {stat.name.lower() for stat in abi.Stat} - {"max"}
    assert set(found.drops) == {reason.name.lower() for reason in abi.Reason} - {"max"}


def test_balance_and_the_inserts_of_each_cpu() -> None:
    found = counters({abi.Stat.INSERTS: 5}, {abi.Stat.INSERTS: 2, abi.Stat.DELETES: 4})
    assert (found.balance, found.inserts) == (3, (5, 2))
    # Entries that were there before the counters began.
    assert counters({abi.Stat.DELETES: 2}).balance == -2


def table(*entries: abi.Session) -> tuple[int, bytes, bytes]:
    """A batch of sessions under numbered keys."""
    keys = b"".join(bytes(abi.Key(port_a=n)) for n in range(len(entries)))
    return len(entries), keys, b"".join(map(bytes, entries))


def test_sessions_of_all_batches() -> None:
    sessions_map: Any = PinnedMap(batches=(table(abi.Session(id=1), abi.Session(id=2)), table(abi.Session(id=3))))
    found = [(abi.Key.from_buffer_copy(key).port_a, session.id) for key, session in sessions(sessions_map)]
    assert found == [(0, 1), (1, 2), (0, 3)]


def test_expired_are_those_idle_longer_than_their_timeout() -> None:
    timeouts = [10, 20, 30, 40, 50, 60, 70, 80]
    idle = [
        (abi.Timeout.SYN, 10, False),
        (abi.Timeout.SYN, 11, True),
        (abi.Timeout.ESTABLISHED, 11, False),
        (abi.Timeout.OTHER, 80, False),
        (abi.Timeout.OTHER, 81, True),
        # Used on another CPU since the clock was read.
        (abi.Timeout.SYN, -5, False),
    ]
    now = 1000
    batch = table(
        *(abi.Session(id=100 + n, timeout=kind, last_jiffies=now - age) for n, (kind, age, _) in enumerate(idle))
    )
    doomed = expired(*batch, now, timeouts)
    assert [(session, last) for _, session, last in doomed] == [(101, now - 11), (104, now - 81)]
    assert [abi.Key.from_buffer_copy(key).port_a for key, *_ in doomed] == [1, 4]
    assert all(len(key) == ctypes.sizeof(abi.Key) for key, *_ in doomed)


def test_heartbeat_age() -> None:
    def age(beat: bytes, now: int) -> float | None:
        pins: Any = PinnedMaps(heartbeat=PinnedMap(beat))
        return heartbeat_age(pins, now, 250)

    assert age((1000).to_bytes(8, "little"), 1500) == 2.0
    # The clock of the beat may be a little ahead.
    assert age((1000).to_bytes(8, "little"), 999) == 0.0
    assert age(bytes(8), 1500) is None
