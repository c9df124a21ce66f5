"""Times of several pieces of work, taken so that their ratios mean something.

Other work on the machine slows everything for seconds at a time. The contestants therefore take
turns, in rounds of a second or so, and a ratio is formed within each round; the median over rounds
and the quartiles beside it are what is reported.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Median over the rounds, and the quartiles."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Ratio":
        return Ratio(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True)
class Times:
    """Seconds per call of each contestant in each round."""

    seconds: dict[str, np.ndarray]

    def best(self, name: str) -> float:
        """The fastest round: the machine at its quietest."""
        return float(self.seconds[name].min())

    def ratio(self, name: str, reference: str) -> Ratio:
        """How many times as long as the reference it takes."""
        low, median, high = np.quantile(
            self.seconds[name] / self.seconds[reference], [0.25, 0.5, 0.75]
        )
        return Ratio(float(median), float(low), float(high))


def race(contestants: dict[str, Work], rounds: int, slice_seconds: float = 0.3) -> Times:
    """Each contestant is called for about `slice_seconds` in each round, after warming up."""
    calls, taken = {}, {name: [] for name in contestants}
    for name, work in contestants.items():
        work()
        begun = time.perf_counter()
        work()
        calls[name] = max(1, round(slice_seconds / (time.perf_counter() - begun)))
    names = list(contestants)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            work = contestants[name]
            begun = time.perf_counter()
            for _ in range(calls[name]):
                work()
            taken[name].append((time.perf_counter() - begun) / calls[name])
    return Times({name: np.array(seconds) for name, seconds in taken.items()})
