"""v along the chain, from networks whose v is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from core.config import DiffusionConfig, Housekeeping, LearnedVariance, ObjectiveConfig, TrainConfig
from core.data.sources import load
from core.measurements.learned_v import measure_learned_v
from core.parts import Work
from core.trained import Trained

CONFIG = TrainConfig(diffusion=DiffusionConfig(T=50), objective=ObjectiveConfig("hybrid"))


class Known(nn.Module):
    """Says v = slope * (t - 1) / T + a tenth on the left half of the image, in its own [-1, 1]."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = slope

    def forward(self, x, time, label=None):
        v = self.slope * (time / 1000).view(-1, 1, 1, 1) + torch.zeros_like(x)
        v[..., : x.shape[-1] // 2] += 0.1
        return torch.cat([x, 2 * v - 1], 1)


def measured(tmp_path, slope, **settings):
    trained = Trained(CONFIG, Known(slope), torch.device("cpu"), (1, 16, 16), 10)
    work = Work(Housekeeping(eval_batch=3), tmp_path / "scratch", tmp_path / "cache")
    wanted = LearnedVariance(images=5, timesteps=6, **settings)
    return measure_learned_v(trained, wanted, load("fashion16", "test"), work)


def test_v_is_read_off_at_each_step(tmp_path):
    result = measured(tmp_path, 0.5)
    assert list(result.arrays["t"]) == [1, 11, 21, 30, 40, 50]
    right = 0.5 * (result.arrays["t"] - 1) / 50 + 0.05
    assert result.arrays["mean"] == pytest.approx(right, abs=1e-6)
    assert result.numbers["learned_v"] == pytest.approx(right.mean(), abs=1e-6)
    assert result.numbers["outside"] == 0
    assert result.numbers["low"] == pytest.approx(0, abs=1e-6)
    assert result.numbers["high"] == pytest.approx(0.5 * 49 / 50 + 0.1, abs=1e-6)
    assert (result.arrays["histogram"].sum(1) == 5 * 256).all()


def test_the_share_outside_counts_pixels_and_steps(tmp_path):
    result = measured(tmp_path, 1.5)
    v = 1.5 * (result.arrays["t"] - 1) / 50
    right = ((v > 1).mean() + (v + 0.1 > 1).mean()) / 2
    assert result.numbers["above"] == pytest.approx(right) and result.numbers["below"] == 0
    assert result.arrays["outside"] == pytest.approx(((v > 1) * 1.0 + (v + 0.1 > 1)) / 2)


def test_another_seed_is_other_noise_but_not_another_v(tmp_path):
    a, b = measured(tmp_path / "a", 0.5), measured(tmp_path / "b", 0.5, seed=1)
    assert np.array_equal(a.arrays["mean"], b.arrays["mean"])
    assert replace(LearnedVariance(), seed=1) != LearnedVariance()
