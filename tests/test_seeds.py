"""What a seed stands for: a training, and the noise of all that is measured on it."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.verdicts import Comparison
from core.config import METRICS
from experiments.asked import Asked, of_seed
from experiments.grid import expand
from experiments.overrides import parse
from experiments.runs import digest

ASKED = tuple(Asked(m, {}, kind(seed=5), digest(kind(seed=5), m)) for m, kind in METRICS.items())


def settings(*words: str) -> dict[tuple, object]:
    """What is measured, by row, seed and name."""
    return {
        (cell.words, cell.seed, item.words): item.settings
        for cell in expand(parse(list(words))).cells
        for item in cell.measurements
    }


@pytest.mark.parametrize("seed", [1, 7])
def test_measurements_of_a_seed_have_its_noise_and_nothing_else_of_their_own(seed):
    for before, after in zip(ASKED, of_seed(ASKED, seed), strict=True):
        assert after.settings == replace(before.settings, seed=5 + seed)
        assert after.id == digest(after.settings, before.name) != before.id
        assert (after.name, after.axes) == (before.name, before.axes)


def test_those_of_seed_0_are_as_they_were_asked_for():
    assert of_seed(ASKED, 0) == ASKED


@pytest.mark.parametrize("grid", ["sampling_steps", "gan_comparison", "two_stage", "model_mix"])
def test_rows_of_one_seed_share_noise_and_seeds_do_not(grid):
    found = settings(f"grid={grid}", "scale=smoke", "seeds=[0,3,4]")
    assert {(seed, s.seed) for (_, seed, _), s in found.items()} == {(0, 0), (3, 3), (4, 4)}


def test_a_seed_of_the_command_line_is_counted_from():
    found = settings("grid=schedule_ablation", "scale=smoke", "seeds=[0,2]", "measure.fd.seed=10")
    seeds = {(seed, name): s.seed for (_, seed, name), s in found.items()}
    assert seeds == {(0, "nll"): 0, (0, "fd"): 10, (2, "nll"): 2, (2, "fd"): 12}


def test_noise_that_all_seeds_share_would_decide_claims_that_are_not_true():
    """Why: networks that do not differ, measured with an error as large as their spread."""
    generator = np.random.default_rng(0)
    trainings = generator.standard_normal((2000, 3))
    own, shared = generator.standard_normal((2000, 3)), generator.standard_normal((2000, 1))

    def decided(effects: np.ndarray) -> float:
        parts = [Comparison(values, low=0.0) for values in effects]
        return np.mean([min(part.p_holds(), part.p_fails()) <= 0.05 for part in parts])

    assert decided(trainings + own) == pytest.approx(0.05, abs=0.015)
    assert decided(trainings + shared) > 0.12
