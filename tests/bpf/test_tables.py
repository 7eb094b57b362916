"""Session tables that fill up, of each kind, and what sweeps of a million sessions take out of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from bench.filled import Filled, filled
from bench.programs import Peers, peers
from bench.testrun import ACK, RST, SYN, tcp
from fastpath import abi
from fastpath.abi import Timeout
from fastpath.statistics import sessions
from fastpath.sweep import _NEED, Sweep

pytestmark = pytest.mark.root

MILLION = 1_000_000
SMALL = 100_000
NEVER = [1 << 40] * Timeout.MAX

OPENING = tcp(SYN, seq=100)
HANDSHAKE = (OPENING, tcp(SYN | ACK, seq=0, ack=101, to_client=True), tcp(ACK, seq=101, ack=1))


@pytest.fixture(scope="module")
def bed() -> Iterator[Peers]:
    with peers() as one:
        yield one


@pytest.fixture(scope="module")
def million(bed: Peers) -> Iterator[Filled]:
    with filled("lru", MILLION, bed) as one:
        yield one


def sweep_of(table: Filled) -> Sweep:
    return Sweep(table.table, table.stats, table.commands, table.population, table.hertz)


def kinds(table: Filled) -> Counter[str]:
    """Sessions by the timeout that runs."""
    where = abi.Session.timeout.offset
    size = table.table.shape.value_size
    counted: Counter[int] = Counter()
    for _, _, values in table.table.batches():
        counted.update(bytes(values[where::size]))
    return Counter({Timeout(kind).name.lower(): number for kind, number in counted.items()})


def assert_exact(table: Filled, live: int) -> None:
    """Within 1 %, from the counters alone."""
    said = table.population.live(table.counters)
    assert abs(said - live) <= live / 100
    stats = table.counters.stats
    evicted = table.population.evictions(table.counters)
    assert abs(stats["inserts"] - stats["deletes"] - evicted - live) <= live / 100


def test_a_million_sessions_stay(million: Filled) -> None:
    # Some of them established, so that the tests below find them.
    for frame in HANDSHAKE:
        million.send(frame, 1000)
    million.send(OPENING, MILLION - 1000, first=1000)
    stats = million.counters.stats
    assert (stats["inserts"], stats["insert_failures"]) == (MILLION, 0)
    live = million.live
    assert live >= 990_000
    assert_exact(million, live)


def test_a_sweep_ends_only_what_is_over(million: Filled) -> None:
    sweep = sweep_of(million)
    before, established = million.live, kinds(million)["established"]
    assert established >= 900  # a few were the oldest when the table was full
    asyncio.run(sweep.full(NEVER, share=1))
    assert (sweep.swept, million.live) == (0, before)
    aged(million, 1.5)
    mark = million.commands.clocks().jiffies
    # These are used once more.
    million.send(OPENING, SMALL, first=MILLION - SMALL)
    ages = [*NEVER]
    ages[Timeout.SYN] = million.commands.clocks().jiffies - mark + million.hertz
    asyncio.run(sweep.full(ages, share=1))
    left = kinds(million)
    assert left["established"] == established
    assert 0.99 * SMALL <= left["syn"] <= SMALL
    assert sweep.swept == before - million.live
    assert_exact(million, million.live)


def test_an_emergency_sweep_takes_half_open_and_closed_sessions(
    million: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    million.send(OPENING, MILLION - 150_000, first=2_000_000)
    million.send(tcp(SYN, seq=100, port=81), 1000)
    # Refused: closed at once.
    million.send(tcp(RST | ACK, seq=0, ack=101, port=81, to_client=True), 1000)
    before = kinds(million)
    assert (before["closing"], before["syn"] >= 900_000) == (1000, True)
    sweep = sweep_of(million)
    # However slow the machine, what is sent just before the sweep is too young for it.
    monkeypatch.setitem(_NEED, Timeout.SYN, 2.0)
    aged(million, 2)
    million.send(OPENING, 100, first=5_000_000)
    asyncio.run(sweep.emergency(million.revisions.settings.timeouts))
    left = kinds(million)
    assert (left["closing"], left["syn"], left["established"]) == (0, 100, before["established"])
    assert sweep.emergencies == 1
    assert_exact(million, million.live)


def aged(table: Filled, seconds: float) -> None:
    """Wait on the kernel's clock."""
    until = table.commands.clocks().jiffies + round(seconds * table.hertz) + 2
    while table.commands.clocks().jiffies < until:
        pass


def flood(table: Filled) -> tuple[list[int], int]:
    """Ids of sessions that were there before twice the table's capacity came; what is live after."""
    table.send(OPENING, 10)
    first = sorted(session.id for _, session in sessions(table.table))
    for n in range(4):
        table.send(OPENING, table.capacity // 2, first=10 + n * table.capacity // 2)
        table.population.live(table.counters)
    return first, table.live


def test_lists_of_each_cpu_evict_at_their_share(bed: Peers) -> None:
    with filled("lru_percpu", SMALL, bed) as table:
        asyncio.run(sweep_of(table).full(NEVER, share=1))
        flood(table)
        live = table.live
        share = SMALL // len(table.counters.inserts)
        assert 0.98 * share <= live <= share + 200
        assert table.counters.stats["insert_failures"] == 0
        assert_exact(table, live)
        ages = [*NEVER]
        ages[Timeout.SYN] = 0
        aged(table, 0.01)
        asyncio.run(sweep_of(table).full(ages, share=1))
        assert table.live == 0
        table.send(OPENING, 1000)
        assert_exact(table, 1000)


def test_the_common_list_evicts_when_full(bed: Peers) -> None:
    with filled("lru", SMALL, bed) as table:
        asyncio.run(sweep_of(table).full(NEVER, share=1))
        first, live = flood(table)
        assert live >= 0.99 * SMALL
        assert not {session.id for _, session in sessions(table.table)} & set(first)
        assert_exact(table, live)
        assert table.population.evictions(table.counters) >= SMALL


def test_a_hash_refuses_when_full_and_keeps_the_living(bed: Peers) -> None:
    with filled("hash", SMALL, bed) as table:
        first, live = flood(table)
        assert live == SMALL
        stats = table.counters.stats
        assert (stats["inserts"], stats["insert_failures"]) == (SMALL, SMALL + 10)
        assert set(first) <= {session.id for _, session in sessions(table.table)}
        assert (table.population.live(table.counters), table.population.evictions(table.counters)) == (SMALL, 0)
