"""The optimal variance on Gaussian data, where it is known; the best steps against all choices."""

import itertools
import math

import numpy as np
import pytest
import torch
from test_gaussian_data import CHAINS, EVERY_CHAIN, EVERY_S, Known

from core.diffusion.likelihood import bound_terms
from core.diffusion.optimal import (
    Errors,
    analytic_log_variance,
    candidates,
    dynamic_count,
    dynamic_steps,
)
from core.diffusion.process import Diffusion
from core.diffusion.schedules import cosine, linear


def exact_errors(schedule, s) -> Errors:
    """Of the exact network for x_0 ~ N(0, s^2), at every kept step, by Gaussian conditioning."""
    m = schedule.alpha_bar * s**2 + 1 - schedule.alpha_bar
    power = (1 - schedule.alpha_bar) / m  # of E[eps | x_t] = sqrt(1 - alpha_bar) x_t / m
    x0 = s**2 * (1 - schedule.alpha_bar) / m  # Var(x_0 | x_t)
    return Errors(schedule.t[1:], power[1:], x0[1:])


@EVERY_CHAIN
@EVERY_S
def test_on_gaussian_data_it_is_the_exact_reverse_variance(schedule, s):
    table = analytic_log_variance(schedule, exact_errors(schedule, s))
    spread = Known(schedule, s).spread
    # Data of a larger variance than one need more than beta; the table stays within its bounds.
    within = np.clip(spread, schedule.beta_tilde, schedule.beta)[2:]
    assert np.exp(table[2:]) == pytest.approx(within, rel=1e-9)
    if s <= 1:
        assert np.exp(table[2:]) == pytest.approx(spread[2:], rel=1e-9)


def test_no_other_number_per_step_has_a_smaller_term_of_the_bound():
    schedule, s = CHAINS["cosine"], 0.4
    known = Known(schedule, s)
    best = analytic_log_variance(schedule, exact_errors(schedule, s))
    generator = torch.Generator().manual_seed(0)
    x0 = s * torch.randn(4000, 1, 1, 1, generator=generator, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    for step in (2, 10, 30):
        t = torch.full((len(x0),), step)
        terms = []
        for shift in (-0.1, 0.0, 0.1):
            diffusion = Diffusion(schedule, dtype=torch.float64, analytic=best + shift)
            how = known.denoise, diffusion, x0, t, eps, "analytic"
            terms.append(float(bound_terms(*how, clip=False).mean()))
        assert terms[1] < min(terms[0], terms[2])


def test_an_overconfident_network_still_gets_a_variance_within_the_bounds():
    schedule = linear(50)
    errors = Errors(np.arange(1, 51), np.full(50, 1.3), np.full(50, 0.1))
    table = analytic_log_variance(schedule, errors)
    lower = np.minimum(schedule.log_beta_tilde[1:], np.log(schedule.beta[1:]))
    assert table[1:] == pytest.approx(lower)


def bound(schedule, errors: Errors, steps: tuple[int, ...]) -> float:
    """Of the chain that keeps these steps, written out from the Gaussians that it is made of."""
    total, kept = 0.0, schedule.respaced(steps)
    for k in range(2, len(steps) + 1):
        x0_error = errors.x0[list(errors.t).index(steps[k - 1])]
        noise = 1 - kept.alpha_bar
        weight = math.sqrt(kept.alpha_bar[k - 1]) * kept.beta[k] / noise[k]
        variance = kept.beta_tilde[k] + weight**2 * x0_error
        ratio = kept.beta_tilde[k] / variance
        total += 0.5 * (-math.log(ratio) + ratio - 1 + weight**2 * x0_error / variance)
    first = errors.x0[list(errors.t).index(steps[0])]
    return total + 0.5 * math.log(2 * math.pi * math.e * first) - math.log(2 / 255)


@pytest.mark.parametrize("schedule", [linear(60), cosine(60)], ids=["linear", "cosine"])
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_no_other_choice_of_steps_has_a_smaller_bound(schedule, K):
    t = np.array([1, 3, 7, 12, 20, 31, 44, 60])
    errors = Errors(t, np.full(8, 0.5), np.array([1, 2, 5, 20, 60, 130, 200, 260]) / 1000)
    chosen = dynamic_steps(schedule, errors, K)
    others = [(*steps, 60) for steps in itertools.combinations(t[:-1].tolist(), K - 1)]
    best = min(others, key=lambda steps: bound(schedule, errors, steps))
    assert tuple(chosen) == best
    assert len(chosen) == K and chosen[-1] == 60


def test_more_steps_never_have_a_larger_bound():
    schedule, t = cosine(200), candidates(200)
    errors = Errors(t, np.full(len(t), 0.5), 1e-3 + t / 300)
    bounds = [
        bound(schedule, errors, tuple(dynamic_steps(schedule, errors, K))) for K in (2, 5, 20)
    ]
    assert bounds == sorted(bounds, reverse=True)


def test_as_many_steps_as_there_are_candidates_and_no_more():
    n = len(candidates(1000))
    assert candidates(1000)[[0, -1]].tolist() == [1, 1000] and n <= 256
    assert len(dynamic_count(1000, n)) == n
    for wrong in (0, n + 1):
        with pytest.raises(ValueError, match=f"1 to {n}"):
            dynamic_count(1000, wrong)
    errors = Errors(candidates(1000), np.ones(n), np.ones(n))
    with pytest.raises(ValueError, match="cannot be chosen"):
        dynamic_steps(cosine(1000), errors, n + 1)
