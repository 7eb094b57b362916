"""What the counters and walks say, and what is concluded from it."""

from __future__ import annotations

import pytest

from fastpath.loader.pins import Table
from fastpath.population import Population
from fastpath.statistics import Counters


def counters(*inserts: int, deletes: int = 0) -> Counters:
    return Counters({"inserts": sum(inserts), "deletes": deletes}, {}, inserts)


def found(population: Population, now: Counters) -> tuple[int, int]:
    return population.live(now), population.evictions(now)


@pytest.mark.parametrize("kind", ["lru", "lru_percpu", "hash"])
def test_below_full_the_counters_are_exact(kind: str) -> None:
    population = Population(Table(1000, kind))
    assert found(population, counters(100, 50, deletes=30)) == (120, 0)
    # What came and went during a walk is no eviction.
    population.walked(120, 120)
    population.walked(110, 121.5)
    assert found(population, counters(100, 60, deletes=30)) == (130, 0)


@pytest.mark.parametrize("kind", ["lru", "lru_percpu", "hash"])
def test_a_table_older_than_its_counters(kind: str) -> None:
    population = Population(Table(1000, kind))
    population.walked(400, 10)
    assert found(population, counters(10, 0)) == (400, 0)
    assert found(population, counters(20, 5, deletes=300)) == (115, 0)


def test_an_lru_that_took_more_than_it_holds() -> None:
    population = Population(Table(1000))
    population.walked(0, 0)
    assert found(population, counters(900, 700)) == (1000, 600)
    # No walk since: what was evicted stays known.
    assert found(population, counters(900, 700, deletes=500)) == (500, 600)
    # Entries that each CPU keeps at hand: a little less is in the table than there is room.
    population.walked(480, 1100)
    assert found(population, counters(900, 700, deletes=500)) == (480, 620)


def test_lists_of_each_cpu_evict_by_themselves() -> None:
    population = Population(Table(1000, "lru_percpu"))
    population.walked(0, 0)
    assert found(population, counters(900, 0)) == (500, 400)
    assert found(population, counters(900, 300)) == (800, 400)
    assert found(population, counters(900, 300, deletes=700)) == (100, 400)


def test_a_walk_finds_evictions_that_nothing_else_shows() -> None:
    population = Population(Table(1000, "lru_percpu"))
    population.walked(0, 0)
    # The deletes were of the idle CPU's sessions.
    assert found(population, counters(800, 300, deletes=300))[0] == 800
    population.walked(500, 800)
    assert found(population, counters(800, 300, deletes=300)) == (500, 300)
    assert found(population, counters(800, 310, deletes=300)) == (510, 300)


@pytest.mark.parametrize(("kind", "full"), [("lru", 744), ("lru_percpu", 1000), ("hash", 1000)])
def test_full_is_where_sessions_are_refused_or_forgotten(kind: str, full: int) -> None:
    population = Population(Table(1000, kind))
    assert population.fullness(counters(full // 2, 0)) == pytest.approx(0.5, abs=0.01)
    assert population.fullness(counters(full // 2, full // 2)) == pytest.approx(1, abs=0.01)


def test_half_of_a_tiny_table_counts_as_full() -> None:
    assert Population(Table(256, "lru")).fullness(counters(128, 0, 0, 0)) == 1
