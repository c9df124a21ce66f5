"""Gaussian data, for which everything is known: the bound's terms, and what the samplers draw.

For x_0 ~ N(0, s^2 I) every x_t is Gaussian with variance m_t = alpha_bar_t s^2 + 1 - alpha_bar_t.
The exact noise prediction is E[eps | x_t] = sqrt(1 - alpha_bar_t) x_t / m_t, and the exact reverse
step q(x_{t-1} | x_t) is Gaussian with mean sqrt(1 - beta_t) m_{t-1}/m_t x_t and variance
beta_t m_{t-1}/m_t.
"""

import math

import numpy as np
import pytest
import torch

from core.diffusion.likelihood import bound_terms, prior_term
from core.diffusion.process import Diffusion, Prediction
from core.diffusion.samplers import ancestral, ddim
from core.diffusion.schedules import cosine, linear, paper_stride, quadratic_stride

V = 0.3
CHAINS = {
    "linear": linear(40),
    "cosine": cosine(40),
    "linear respaced": linear(200).respaced(paper_stride(200, 12)),
    "cosine respaced": cosine(100).respaced(quadratic_stride(100, 15)),
}
EVERY_CHAIN = pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS.keys())
EVERY_VARIANCE = pytest.mark.parametrize("variance", ["beta", "beta_tilde", "learned"])
EVERY_S = pytest.mark.parametrize("s", [1.0, 0.4, 2.5])


class Known:
    """What is known of the chain for data of standard deviation s; arrays [K + 1], entry 0 is x_0.

    m: variance of x_t;  gain, spread: of the exact reverse step, x_{t-1} = gain x_t + noise.
    """

    def __init__(self, schedule, s):
        self.K, self.s, self.beta = schedule.K, s, schedule.beta
        self.alpha_bar = np.cumprod(1 - self.beta)
        self.m = np.empty(self.K + 1)
        self.m[0] = s**2
        for t in range(1, self.K + 1):
            self.m[t] = (1 - self.beta[t]) * self.m[t - 1] + self.beta[t]
        before = np.append(np.nan, self.m[:-1])
        self.gain = np.sqrt(1 - self.beta) * before / self.m
        self.spread = self.beta * before / self.m

    def sigma2(self, variance):
        """Variance of p_theta(x_{t-1} | x_t), t >= 2, by Bayes' rule and eq. 15; 0 below."""
        out = np.zeros(self.K + 1)
        for t in range(2, self.K + 1):
            beta = self.beta[t]
            tilde = 1 / ((1 - beta) / beta + 1 / (1 - self.alpha_bar[t - 1]))
            share = {"beta": 1, "beta_tilde": 0, "learned": V}[variance]
            out[t] = beta**share * tilde ** (1 - share)
        return out

    def denoise(self, x, t):
        """The exact prediction, with the constant V."""
        table = np.sqrt(1 - self.alpha_bar) / self.m
        return Prediction(torch.from_numpy(table)[t].view(-1, 1, 1, 1) * x, torch.full_like(x, V))


def exact(schedule):
    return Diffusion(schedule, dtype=torch.float64)


def images(values):
    return torch.as_tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


class Recorded:
    """A denoiser that keeps the x it was shown, which are the sampler's states."""

    def __init__(self, denoise):
        self.denoise, self.states = denoise, []

    def __call__(self, x, t):
        self.states.append(x)
        return self.denoise(x, t)


def impulses(K):
    """x_K and a noise source for K images: draw number i is one in image i, zero in the others.

    A sampler that is linear in its draws turns them into its coefficients, whose squares sum to the
    variance that it gives a normal start and normal noise.
    """
    draws = iter(images(row) for row in np.eye(K))
    return next(draws), lambda: next(draws)


def normal(n, seed=0):
    """x_K and a noise source for n images."""
    g = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(n, 1, 1, 1, generator=g, dtype=torch.float64)

    return draw(), draw


# The bound.


def expected_terms(known, variance):
    """[K - 1] E[L_{t-1}] for t = 2..K in bits, without a predicted mean in it.

    By the chain rule it is the information that x_0 adds to x_t about x_{t-1}, plus the divergence
    of the exact reverse step from p_theta, whose mean it shares.
    """
    tilde, sigma2 = known.sigma2("beta_tilde")[2:], known.sigma2(variance)[2:]
    spread = known.spread[2:]
    information = np.log(spread / tilde) / 2
    mismatch = (spread / sigma2 - 1 - np.log(spread / sigma2)) / 2
    return (information + mismatch) / math.log(2)


@EVERY_S
@EVERY_VARIANCE
@EVERY_CHAIN
def test_every_term_of_the_bound_has_its_closed_form(schedule, variance, s):
    """Exactly: the terms are quadratic in (x_0, eps), so three quadrature nodes integrate them."""
    known = Known(schedule, s)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = np.outer(weights, weights).ravel() / (2 * math.pi)
    x0, eps = (z.ravel() for z in np.meshgrid(s * nodes, nodes))
    t = torch.arange(2, schedule.K + 1).repeat_interleave(9)
    terms = bound_terms(
        known.denoise,
        exact(schedule),
        images(np.tile(x0, schedule.K - 1)),
        t,
        images(np.tile(eps, schedule.K - 1)),
        variance,
        clip=False,
    )
    ours = terms.view(-1, 9).numpy() @ weights
    np.testing.assert_allclose(ours, expected_terms(known, variance), rtol=1e-7, atol=1e-13)


@EVERY_VARIANCE
@EVERY_CHAIN
def test_random_draws_average_to_the_closed_form_of_every_term(schedule, variance):
    n, s = 4000, 0.6
    known, (eps, draw) = Known(schedule, s), normal(4000, seed=1)
    expected = expected_terms(known, variance)
    for t in range(2, schedule.K + 1):
        at, x0 = torch.full((n,), t), s * draw()
        terms = bound_terms(known.denoise, exact(schedule), x0, at, eps, variance, clip=False)
        error = terms.std().item() / n**0.5
        assert abs(terms.mean().item() - expected[t - 2]) < 4.5 * error
        eps = draw()


@EVERY_S
@EVERY_CHAIN
def test_the_prior_term_has_its_closed_form(schedule, s):
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    ours = prior_term(exact(schedule), images(s * nodes)).numpy() @ weights / math.sqrt(2 * math.pi)
    signal = Known(schedule, s).alpha_bar[-1]
    nats = (signal * s**2 - signal - math.log1p(-signal)) / 2
    assert ours == pytest.approx(nats / math.log(2), rel=1e-9, abs=1e-14)


# The samplers.


@EVERY_CHAIN
def test_ancestral_sampling_with_beta_keeps_white_noise_white_at_every_step(schedule):
    denoise = Recorded(Known(schedule, 1.0).denoise)
    x, noise = impulses(schedule.K)
    x0 = ancestral(denoise, exact(schedule), x, noise, "beta", clip=False)
    variances = [(state**2).sum().item() for state in denoise.states]
    assert variances == pytest.approx([1.0] * schedule.K)
    # The last step adds no noise.
    assert (x0**2).sum().item() == pytest.approx(1 - schedule.beta[1])


@EVERY_S
@EVERY_VARIANCE
@EVERY_CHAIN
def test_ancestral_samples_have_the_variance_of_the_linear_recursion(schedule, variance, s):
    known = Known(schedule, s)
    denoise, (x, noise) = Recorded(known.denoise), impulses(schedule.K)
    x0 = ancestral(denoise, exact(schedule), x, noise, variance, clip=False)
    expected, sigma2 = [1.0], known.sigma2(variance)
    for t in range(schedule.K, 0, -1):
        expected.append(known.gain[t] ** 2 * expected[-1] + sigma2[t])
    ours = [(state**2).sum().item() for state in (*denoise.states, x0)]
    assert ours == pytest.approx(expected, rel=1e-9)


@EVERY_VARIANCE
def test_many_ancestral_samples_have_the_variance_of_the_linear_recursion(variance):
    schedule, s, n = CHAINS["cosine"], 0.5, 20_000
    known, variance_now = Known(schedule, s), 1.0
    for t in range(schedule.K, 0, -1):
        variance_now = known.gain[t] ** 2 * variance_now + known.sigma2(variance)[t]
    x, noise = normal(n)
    x0 = ancestral(known.denoise, exact(schedule), x, noise, variance, clip=False)
    assert x0.var().item() == pytest.approx(variance_now, rel=4.5 * math.sqrt(2 / n))
    assert abs(x0.mean().item()) < 4.5 * math.sqrt(variance_now / n)


def curved(x, t):
    """A denoiser that is not linear, so that clipping and time matter."""
    return Prediction(torch.tanh(1.5 * x) + 0.2 * torch.cos(t.double()).view(-1, 1, 1, 1))


@pytest.mark.parametrize("clip", [True, False])
@EVERY_CHAIN
def test_ddim_with_eta_1_is_ancestral_sampling_with_beta_tilde(schedule, clip):
    (x, noise), (y, same_noise) = normal(50), normal(50)
    by_ddim = ddim(curved, exact(schedule), x, noise, eta=1.0, clip=clip)
    by_ancestral = ancestral(curved, exact(schedule), y, same_noise, "beta_tilde", clip=clip)
    torch.testing.assert_close(by_ddim, by_ancestral, rtol=1e-7, atol=1e-7)
    assert noise().equal(same_noise())  # as many draws


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_clipped_samples_stay_in_the_range_of_images(sampler):
    def wild(x, t):
        return Prediction(-x)

    x, noise = normal(50)
    if sampler == "ddim":
        x0 = ddim(wild, exact(cosine(40)), x, noise, eta=0.5)
    else:
        x0 = ancestral(wild, exact(cosine(40)), x, noise, "beta")
    assert x0.abs().max() == 1 and x0.min() < 0 < x0.max()


@EVERY_S
@EVERY_CHAIN
def test_ddim_with_eta_0_is_the_closed_form_map_and_draws_no_noise(schedule, s):
    known = Known(schedule, s)
    x, noise = normal(20)
    factor = 1.0
    for t in range(schedule.K, 0, -1):
        signal, before = known.alpha_bar[t], known.alpha_bar[t - 1]
        x0_part, eps_part = math.sqrt(signal) * s**2, math.sqrt(1 - signal)
        factor *= (math.sqrt(before) * x0_part + math.sqrt(1 - before) * eps_part) / known.m[t]
    after = ddim(known.denoise, exact(schedule), x, noise, eta=0.0, clip=False)
    torch.testing.assert_close(after, factor * x, rtol=1e-7, atol=1e-9)
    _, untouched = normal(20)
    assert noise().equal(untouched())


@pytest.mark.parametrize("s", [0.4, 2.5])
def test_ddim_with_many_steps_gives_the_datas_own_variance(s):
    """Its continuous limit transports N(0, 1) to the data exactly."""
    schedule = cosine(1000)
    x = images([1.0])
    x0 = ddim(Known(schedule, s).denoise, exact(schedule), x, lambda: None, clip=False)
    assert x0.item() == pytest.approx(s, rel=0.02)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@EVERY_CHAIN
def test_ddim_has_the_variance_of_its_own_recursion_at_every_eta(schedule, eta):
    """DDIM, eq. 12 and 16, for x_0 and eps that are multiples of x_t."""
    s = 0.7
    known = Known(schedule, s)
    x, noise = impulses(schedule.K)
    x0 = ddim(known.denoise, exact(schedule), x, noise, eta, clip=False)
    variance = 1.0
    for t in range(schedule.K, 0, -1):
        now, before = known.alpha_bar[t], known.alpha_bar[t - 1]
        added = eta**2 * (1 - before) / (1 - now) * (1 - now / before)
        kept = math.sqrt(before * now) * s**2 + math.sqrt(1 - before - added) * math.sqrt(1 - now)
        variance = (kept / known.m[t]) ** 2 * variance + added
    assert (x0**2).sum().item() == pytest.approx(variance, rel=1e-7)


def test_samplers_report_each_step_and_ask_the_network_for_every_kept_one():
    schedule, asked, steps = cosine(100).respaced([3, 50, 100]), [], []

    def denoise(x, t):
        asked.append(t.tolist())
        return Prediction(x)

    for sampler, last in ((ancestral, ("beta",)), (ddim, ())):
        x, noise = normal(2)
        sampler(denoise, exact(schedule), x, noise, *last, on_step=lambda: steps.append(1))
    assert asked == [[3, 3], [2, 2], [1, 1]] * 2 and len(steps) == 6
