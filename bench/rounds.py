"""Side by side on a noisy machine: interleaved rounds on one CPU, and floors.

Disturbances only ever add time, so the best of many rounds is what a subject
costs, and the subjects take turns so that a slow minute hits all of them alike.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "24"))

T = TypeVar("T")


@contextlib.contextmanager
def one_cpu() -> Iterator[None]:
    """This thread and the threads and processes it starts meanwhile stay on one CPU: waking
    another one costs 100 us on a virtual machine, five times what is measured.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def interleaved(subjects: Mapping[str, Callable[[], T]], rounds: int = ROUNDS) -> dict[str, list[T]]:
    """Figures of every subject, one a round; a first round warms up and does not count. Each
    round begins with another subject, so none always runs behind the same one.
    """
    figures: dict[str, list[T]] = {name: [] for name in subjects}
    names = list(subjects)
    with one_cpu():
        for number in range(rounds + 1):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                figure = subjects[name]()
                if number:
                    figures[name].append(figure)
    return figures


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
