"""KL divergence against torch.distributions; the decoder against scipy and as a distribution."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from core.diffusion.gaussians import (
    BITS_PER_NAT,
    Gaussian,
    discretized_log_likelihood,
    kl,
    mean_flat,
)

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
MEANS = torch.tensor([-40, -1.5, -1, -0.999, -0.37, 0, 1 / 255, 0.5, 0.998, 1, 1.2, 7.0]).double()
SIGMAS = torch.tensor([1e-4, 1e-3, 3e-3, 0.01, 0.1, 1.0, 20.0, 1e4]).double()


def log_mass(dtype):
    """Log masses [mean, sigma, level] of the 256 levels."""
    mean, log_variance = MEANS[:, None, None], 2 * SIGMAS.log()[:, None]
    shape = (len(MEANS), len(SIGMAS), 256)
    p = Gaussian(mean.to(dtype).expand(shape), log_variance.to(dtype).expand(shape))
    return discretized_log_likelihood(LEVELS.to(dtype).expand(shape), p)


def test_kl_agrees_with_torch_distributions():
    g = torch.Generator().manual_seed(0)
    m, n, a, b = torch.randn(4, 5, 3, generator=g, dtype=torch.float64) * 2
    expected = kl_divergence(Normal(m, (a / 2).exp()), Normal(n, (b / 2).exp()))
    torch.testing.assert_close(kl(Gaussian(m, a), Gaussian(n, b)), expected)


def test_kl_of_nearly_equal_variances_is_a_quarter_of_the_squared_log_ratio():
    zero = torch.zeros(4)
    ratio = torch.tensor([3e-2, -1e-2, 1e-3, -1e-4])
    torch.testing.assert_close(
        kl(Gaussian(zero, ratio), Gaussian(zero, zero)), ratio**2 / 4, rtol=0.02, atol=0
    )
    assert (kl(Gaussian(zero, zero), Gaussian(zero, zero)) == 0).all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_the_masses_of_the_256_levels_sum_to_one(dtype, tolerance):
    total = log_mass(dtype).double().exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=tolerance)
    assert (log_mass(dtype) <= 0).all()


def test_the_mass_of_a_level_is_the_difference_of_scipys_distribution_function():
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 127.5 - 1, [np.inf]])
    mean, sigma = MEANS.numpy()[:, None, None], SIGMAS.numpy()[:, None]
    # From the nearer tail, whose differences do not cancel.
    upper_half = LEVELS.numpy() > mean
    tail = -np.diff(norm.sf(edges, mean, sigma)), np.diff(norm.cdf(edges, mean, sigma))
    expected = np.where(upper_half, *tail)
    held = expected > 1e-290
    assert held.mean() > 0.4
    np.testing.assert_allclose(log_mass(torch.float64).exp().numpy()[held], expected[held], 1e-6)


def test_masses_far_in_the_tail_follow_scipys_log_density():
    sigma = 0.002  # 50 to 450 sigma away, where the distribution function itself is zero
    x, mean = LEVELS[100].expand(5), LEVELS[100] + torch.tensor([-0.9, -0.3, -0.1, 0.1, 0.9])
    p = Gaussian(mean, torch.full((5,), 2 * np.log(sigma), dtype=torch.float64))
    near_edge = (x - mean).abs().numpy() - 1 / 255
    expected = norm.logsf(near_edge, scale=sigma)
    ours = discretized_log_likelihood(x, p)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype, furthest", [(torch.float32, 300), (torch.float64, 1e5)])
def test_gradients_in_the_far_tails_are_finite_and_pull_the_mean_to_the_pixel(dtype, furthest):
    sigma = 0.003
    distance = torch.logspace(1, np.log10(furthest), 20, dtype=dtype) * sigma
    distance = torch.cat([distance, -distance])
    x = LEVELS[[90]].to(dtype).expand(40)
    mean = (x - distance).requires_grad_()
    log_variance = torch.full((40,), 2 * np.log(sigma), dtype=dtype, requires_grad=True)
    discretized_log_likelihood(x, Gaussian(mean, log_variance)).sum().backward()
    # log mass -> log density at the bin's near edge, z sigma away: -z^2/2 - log z.
    z = (distance.abs() - 1 / 255).double() / sigma
    expected = torch.sign(distance).double() * (z + 1 / z) / sigma
    torch.testing.assert_close(mean.grad.double(), expected, rtol=0.01, atol=0)
    torch.testing.assert_close(log_variance.grad.double(), (z**2 + 1) / 2, rtol=0.01, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_every_level(dtype):
    # From the narrowest sigma of a first step of 4000 to bins of no width at all.
    sigmas = torch.tensor([2e-3, 0.01, 1.0, 1e4, 1e8])
    shape = (len(MEANS), len(sigmas), 256)
    mean = MEANS.to(dtype)[:, None, None].expand(shape).clone().requires_grad_()
    log_variance = (2 * sigmas.log()).to(dtype)[:, None].expand(shape).clone().requires_grad_()
    p = Gaussian(mean, log_variance)
    discretized_log_likelihood(LEVELS.to(dtype).expand(shape), p).sum().backward()
    assert mean.grad.isfinite().all() and log_variance.grad.isfinite().all()


def test_the_decoder_of_a_sharp_gaussian_at_the_pixel_is_certain():
    p = Gaussian(LEVELS, torch.full_like(LEVELS, -20.0))
    assert (discretized_log_likelihood(LEVELS, p) > -1e-9).all()


def test_a_bit_is_log_2_nats_and_images_are_averaged_over_their_dimensions():
    assert BITS_PER_NAT * np.log(2) == pytest.approx(1)
    x = torch.arange(24.0).view(2, 3, 2, 2)
    assert mean_flat(x).tolist() == [5.5, 17.5]
