"""Times things in turns, so that a drift of the machine's speed affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Work = Callable[[], object]

# Threads that wait for work by spinning (OpenMP's, and ONNX Runtime's unless told not to) go on for some
# milliseconds after a run, on cores that the next one needs.
REST = 0.02  # seconds


def interleaved(
    works: Mapping[str, Sequence[Work]], rounds: int, statistic: Callable[[np.ndarray], float] = np.median
) -> dict[str, float]:
    """Seconds of a run of each: the mean over its works, of which the median over the rounds.

    Args:
        works: for each name as many works, the first of all names doing the same thing, and so on. Each
            should have run once before.
        rounds: how often each work is timed; every second time in reverse order.
        statistic: what to take instead of the median.
    """
    names, count = list(works), len(next(iter(works.values())))
    seconds = {name: np.zeros((rounds, count)) for name in names}
    for turn in range(rounds):
        for number in range(count):
            for name in names if turn % 2 == 0 else reversed(names):
                seconds[name][turn, number] = seconds_of(works[name][number])
    return {name: float(statistic(spent.mean(axis=1))) for name, spent in seconds.items()}


def seconds_of(work: Work) -> float:
    """Return the seconds of one run, after a rest."""
    time.sleep(REST)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
