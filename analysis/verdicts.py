"""What a set of numbers, one per seed, says of a comparison: holds, fails or undecided.

An effect is compared with a margin, the smallest that counts, by Student's t over seeds. A verdict
needs the whole interval of LEVEL on one side of the margin; where it contains it the comparison is
undecided. With one seed nothing says how much another training would differ, so it is undecided.

A claim of several comparisons holds when all of them do (an intersection-union test, which needs no
correction), and fails when one of them does, at a level shared among them (Bonferroni).
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

LEVEL = 0.95
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
NOT_MEASURED, ELSEWHERE = "not measured", "needs the paper's scale"
WORDS = (HOLDS, FAILS, UNDECIDED, NOT_MEASURED, ELSEWHERE)
MOST_SEEDS = 100  # beyond so many, more seeds are no way to decide anything
SAME = 1e-9  # numbers nearer to each other than this, in any unit, differ by rounding at most


@dataclass(frozen=True)
class Comparison:
    """An effect and what is claimed of it.

    values: [n] the effect of each seed, in the unit in which it is compared (the logarithm of a
    ratio). It is claimed to be above `low`, below `high`, or both. exact: from a formula, not from
    a sample. name and unit are for people; ratio: show exp(effect); lacking: seeds without a value.
    """

    values: np.ndarray
    low: float = -np.inf
    high: float = np.inf
    exact: bool = False
    name: str = ""
    unit: str = ""
    ratio: bool = False
    lacking: tuple[int, ...] = ()

    @cached_property
    def effect(self) -> float:
        return float(np.mean(self.values))

    @cached_property
    def spread(self) -> float:
        """Standard deviation over seeds; NaN for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Of LEVEL, Student's t; NaN where the seeds show no spread."""
        if self.exact:
            return self.effect, self.effect
        if len(self.values) < 2 or self.same:
            return float("nan"), float("nan")
        found = stats.ttest_1samp(self.values, 0.0).confidence_interval(LEVEL)
        return float(found.low), float(found.high)

    @cached_property
    def same(self) -> bool:
        """Whether the seeds agree, such as on a place on a coarse axis: no spread to judge by."""
        return bool(np.ptp(self.values) <= SAME)

    @property
    def tested(self) -> bool:
        """Whether there is anything to test: no formula, and more than one seed."""
        return not self.exact and len(self.values) > 1

    def p_holds(self) -> float:
        """Twice the one-sided p of the effect being outside of what is claimed: small, it holds.

        Both bounds have to be kept (two one-sided tests), so that the larger p counts.
        """
        return max(self._p(self.low, "greater"), self._p(self.high, "less"))

    def p_fails(self) -> float:
        """Twice the one-sided p of the effect being as claimed: small, it fails."""
        return min(self._p(self.low, "less"), self._p(self.high, "greater"))

    def _p(self, bound: float, side: str) -> float:
        """Of H0: the effect is not on this side of the bound. At most 1."""
        beyond = self.effect > bound if side == "greater" else self.effect < bound
        if np.isinf(bound) or self.exact:
            return 0.0 if beyond else 1.0
        n = len(self.values)
        if n < 2:
            return 1.0
        if self.same:  # no spread: the sign test
            return 2 * 0.5**n if beyond else 1.0
        t = (self.effect - bound) / (self.spread / n**0.5)
        return min(1.0, 2 * float(special.stdtr(n - 1, -t if side == "greater" else t)))

    def seeds_needed(self, shared: int = 1) -> int | None:
        """How many seeds clear the margin if effect and spread stay just as they are.

        shared: the comparisons that share the level at which one of them fails. With as many seeds
        the odds are about even, for neither will stay.
        """
        away = min(abs(self.effect - bound) for bound in (self.low, self.high))
        if not np.isfinite(self.spread) or away == 0:
            return None
        alpha = (1 - LEVEL) / (1 if self.low < self.effect < self.high else shared)
        n = np.arange(2, MOST_SEEDS + 1)
        if self.same:
            return int(n[2 * 0.5**n <= alpha][0])
        enough = n[special.stdtrit(n - 1, 1 - alpha / 2) * self.spread / n**0.5 < away]
        return int(enough[0]) if len(enough) else None


@dataclass(frozen=True)
class Verdict:
    """word: one of WORDS. p: of the verdict, or the smaller of both where it is undecided; None
    where nothing was tested. reason: why it is not decided. parts: what it rests on, if anything;
    `main` the one that decides, or comes nearest to."""

    word: str
    p: float | None = None
    reason: str = ""
    parts: list[Comparison] = field(default_factory=list)
    main: Comparison | None = None

    @property
    def decided(self) -> bool:
        return self.word in (HOLDS, FAILS)

    @property
    def exact(self) -> bool:
        return bool(self.parts) and all(part.exact for part in self.parts)


def judge(parts: list[Comparison]) -> Verdict:
    """The verdict on a claim that consists of these comparisons, all with a value at least."""
    alpha = 1 - LEVEL
    weakest = max(parts, key=lambda part: (part.p_holds(), -_clear(part)))
    worst = min(parts, key=lambda part: (part.p_fails(), _clear(part)))
    p_holds, p_fails = weakest.p_holds(), min(1.0, len(parts) * worst.p_fails())
    tested = any(part.tested for part in parts)
    if p_holds <= alpha:
        return Verdict(HOLDS, p_holds, "", parts, weakest)
    if p_fails <= alpha:
        return Verdict(FAILS, p_fails, "", parts, worst)
    p = min(p_holds, p_fails) if tested else None
    return Verdict(UNDECIDED, p, _undecided(weakest, len(parts)), parts, weakest)


def _clear(part: Comparison) -> float:
    """How far the effect lies within what is claimed, in its spreads; negative outside."""
    inside = min(part.effect - part.low, part.high - part.effect)
    return inside / part.spread if part.spread > 0 else inside


def _undecided(part: Comparison, shared: int) -> str:
    if part.exact:
        return "exactly at the margin"
    if len(part.values) < 2:
        return "one seed: nothing says how much another training would differ"
    if not np.isfinite(part.effect):
        return "the effect of a seed is not finite"
    needed = part.seeds_needed(shared)
    if part.same and needed:
        return f"the seeds give the same number; {needed} that do decide it, by their signs alone"
    if needed is None:
        return f"the interval contains the margin, and {MOST_SEEDS} seeds would not change that"
    return (
        "the interval contains the margin; if effect and spread of this comparison stay as they "
        f"are, {needed} seeds decide it"
    )


def holm(verdicts: list[Verdict]) -> list[str]:
    """Each verdict's word after Holm's correction for all that were tested together.

    Formulas are not tested and keep theirs. A decision that does not survive becomes undecided.
    """
    tested = [i for i, v in enumerate(verdicts) if v.p is not None and not v.exact]
    words = [verdict.word for verdict in verdicts]
    if tested:
        kept = multipletests([verdicts[i].p for i in tested], 1 - LEVEL, method="holm")[0]
        for i, keep in zip(tested, kept):
            if verdicts[i].decided and not keep:
                words[i] = UNDECIDED
    return words
