"""How often chance alone decides the paper's claims, as claims.yaml combines them.

In each replicate every cell is a number without any effect, and every comparison is moved to its
margin, where nothing is right and nothing wrong: every decision is one too many.
"""

import gc
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from analysis import judging
from analysis.judging import Claim, claims, compare
from analysis.verdicts import FAILS, HOLDS, UNDECIDED, Comparison, Verdict, holm, judge

REPLICATES, SEEDS, SCALE = 1000, 3, "laptop"


def measured_here(claim: Claim) -> bool:
    scales = [effect.get("only", [SCALE]) for effect in claim.effects]
    return bool(claim.grid) and all(SCALE in only for only in scales)


CLAIMS = [claim for claim in claims() if measured_here(claim)]


@pytest.fixture
def made_up(monkeypatch) -> SimpleNamespace:
    """Results whose cells are numbers around 1, each of its own; comparisons share them."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # 40 ms at each call of multipletests
    drawn: dict[str, np.ndarray] = {}

    def value(results, cell: dict, seed: int) -> float:
        name = repr(cell)
        if name not in drawn:
            numbers = np.random.default_rng(zlib.crc32(name.encode()))
            drawn[name] = np.exp(0.05 * numbers.standard_normal(REPLICATES * SEEDS))
        return float(drawn[name][seed]) if seed >= 0 else 1.0

    monkeypatch.setattr(judging, "value", value)
    return SimpleNamespace(grid=SimpleNamespace(seeds=range(-1, REPLICATES * SEEDS)))


def at_the_margin(part: Comparison) -> np.ndarray:
    """[replicate, seed] of the effect; its true value, at seed -1, becomes the margin."""
    margin = part.high if np.isinf(part.low) else part.low
    return (part.values[1:] - part.values[0] + margin).reshape(REPLICATES, SEEDS)


def verdicts(claim: Claim, results: SimpleNamespace) -> list[Verdict]:
    """On the claim, in each replicate."""
    parts = [compare(effect, cells, results) for effect, cells in claim.repeated()]
    values = [at_the_margin(part) for part in parts]
    return [
        judge([replace(part, values=own[i]) for part, own in zip(parts, values)])
        for i in range(REPLICATES)
    ]


def most(share: float) -> int:
    """What a count of REPLICATES exceeds once in ten thousand times, at this rate."""
    return int(stats.binom.ppf(0.9999, REPLICATES, share))


def test_chance_decides_the_papers_claims_no_more_often_than_it_may(made_up):
    found = {claim.number: verdicts(claim, made_up) for claim in CLAIMS}
    assert len(found) > 40
    for number, of_claim in found.items():
        words = [verdict.word for verdict in of_claim]
        assert words.count(HOLDS) <= most(0.025), number
        assert words.count(HOLDS) + words.count(FAILS) <= most(0.05), number
    together = list(zip(*found.values()))
    alone = sum(any(verdict.decided for verdict in one) for one in together)
    corrected = sum(any(word != UNDECIDED for word in holm(list(one))) for one in together)
    # Forty claims at once need the correction, and have it.
    assert alone > REPLICATES / 2 and corrected <= most(0.05)
