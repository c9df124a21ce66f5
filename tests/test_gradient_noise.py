"""The noise scale against gradients whose mean and covariance are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core import build
from core.config import (
    DiffusionConfig,
    GradientNoise,
    Housekeeping,
    ObjectiveConfig,
    TrainConfig,
    UNetConfig,
)
from core.data.images import Images
from core.errors import Refused
from core.measurements.gradient_noise import GROUPS, NoiseScale, measure_gradient_noise
from core.parts import Work
from core.trained import Trained


def estimates(batch: int, batches: int, repeats: int, mean: float) -> np.ndarray:
    """Scale, error, noise and gradient of each of many made-up problems: [repeats, 4].

    One image's gradient has this mean in each of 50 dimensions and the variances 0.02, ..., 1.
    """
    numbers, sd = np.random.default_rng(0), np.sqrt(np.arange(1, 51) / 50)
    found = []
    for _ in range(repeats):
        scale = NoiseScale(batch)
        for _ in range(batches):
            each = mean + sd * numbers.normal(size=(batch, 50))
            scale.add(torch.from_numpy(each.mean(0)))
        found.append(scale.estimate())
    return np.array(found)


@pytest.mark.parametrize("batch, batches", [(1, 24), (4, 30), (2, 64)])
def test_noise_and_gradient_are_unbiased_and_so_is_their_ratio_nearly(batch, batches):
    noise, gradient = 25.5, 50 * 0.5**2
    found = estimates(batch, batches, 400, 0.5)
    means, errors = found.mean(0), found.std(0, ddof=1) / 20
    assert abs(means[2] - noise) < 4 * errors[2]
    assert abs(means[3] - gradient) < 4 * errors[3]
    assert abs(means[0] - noise / gradient) < 4 * errors[0] + 0.02 * noise / gradient
    # The jackknife's error is that of the estimates.
    assert 0.7 < found[:, 1].mean() / found[:, 0].std(ddof=1) < 1.4


def test_the_plain_ratio_would_be_biased():
    """With a weak gradient, what the jackknife removes is more than what it leaves."""
    found = estimates(1, 24, 2000, 0.35)
    right = 25.5 / (50 * 0.35**2)
    plain = (found[:, 2] / found[:, 3]).mean() - right
    assert abs(found[:, 0].mean() - right) < 0.5 * abs(plain)


def test_without_noise_the_scale_is_zero():
    scale = NoiseScale(8)
    for _ in range(3 * GROUPS):
        scale.add(torch.ones(5))
    value, error, noise, gradient = scale.estimate()
    assert value == pytest.approx(0, abs=1e-9) and error == pytest.approx(0, abs=1e-9)
    assert noise == pytest.approx(0, abs=1e-9) and gradient == pytest.approx(5)


def test_weights_that_came_without_their_importance_sampler_are_refused(tmp_path):
    """As imported ones: drawn from uniform timesteps, the noise would be another objective's."""
    config = TrainConfig(
        diffusion=DiffusionConfig(T=30),
        objective=ObjectiveConfig("vlb", timesteps="loss_second_moment"),
        unet=UNetConfig(channels=8, channel_mult=(1,), res_blocks=1, attention=(), heads=1),
    )
    network, device = build.network(config, 1, 8, 0), torch.device("cpu")
    images = Images("made up", torch.zeros(4, 1, 8, 8, dtype=torch.uint8), None, 0)
    work = Work(Housekeeping("cpu"), tmp_path, tmp_path)
    settings = GradientNoise(images=3 * GROUPS, batch=1, ema=0)
    sampler = build.timestep_sampler(config.objective, 30).state_dict()
    known = Trained(config, network, device, (1, 8, 8), 0, sampler)
    assert measure_gradient_noise(known, settings, images, work).numbers["images"] == 24
    with pytest.raises(Refused, match="importance sampler"):
        measure_gradient_noise(replace(known, timesteps={}), settings, images, work)
