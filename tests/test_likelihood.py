"""The estimators of the bound: what they cover, that they are unbiased, and their own error."""

import numpy as np
import pytest
import torch

from core.diffusion.likelihood import STRATA, Bound, bound_terms, every_step, prior_term, widening
from core.diffusion.process import Diffusion, Prediction
from core.diffusion.schedules import cosine

LENGTHS = [*range(1, 51), 100, 185, 1000, 4000]


def term(t, u):
    """A made-up term of the bound that falls steeply with t, as in Figure 2, and random in u."""
    return 3.0 * t**-1.3 * (0.5 + u) + 1e-4


def made_up(strata, images, rng, images_differ=0.0):
    """A Bound for so many images, with made-up terms and priors."""
    t = strata.draw(rng.random((images, strata.evaluations)))
    terms = term(t, rng.random(t.shape)) * (1 + images_differ * np.arange(images) / images)[:, None]
    return Bound(np.full(images, 0.25), t, terms, strata)


@pytest.mark.parametrize("plan", STRATA.values(), ids=STRATA.keys())
@pytest.mark.parametrize("K", LENGTHS)
def test_strata_cover_1_to_K_exactly_once(plan, K):
    strata = plan(K)
    covered = [
        first + step for first, width in zip(strata.first, strata.widths) for step in range(width)
    ]
    assert covered == list(range(1, K + 1))
    assert (strata.widths > 0).all()
    assert strata.weights.sum() == pytest.approx(K)
    assert strata.evaluations == len(strata.weights) == len(strata.first) * strata.draws


@pytest.mark.parametrize("K", LENGTHS)
def test_draws_stay_within_their_strata_and_reach_both_ends(K):
    strata = widening(K)
    last = strata.first + strata.widths - 1
    for u, expected in ((0.0, strata.first), (1 - 2**-53, last)):
        drawn = strata.draw(np.full((1, strata.evaluations), u))
        np.testing.assert_array_equal(drawn[0], np.repeat(expected, strata.draws))


def test_the_full_bound_visits_each_step_once_with_weight_one():
    strata = every_step(30)
    u = np.random.default_rng(0).random((2, 30))
    np.testing.assert_array_equal(strata.draw(u), [np.arange(1, 31)] * 2)
    np.testing.assert_array_equal(strata.weights, np.ones(30))


def test_the_first_steps_are_always_evaluated_and_strata_widen():
    strata = widening(4000)
    np.testing.assert_array_equal(strata.first[:6], [1, 2, 3, 4, 5, 6])
    assert (np.diff(strata.widths) >= 0).all() and strata.widths[-1] > 1000


def test_the_stratified_bound_needs_40_evaluations_of_the_4000():
    assert every_step(4000).evaluations == 4000
    assert widening(4000).evaluations == 40
    assert widening(4000).evaluations <= every_step(4000).evaluations / 20


@pytest.mark.parametrize("K", [3, 6, 40, 1000, 4000])
def test_the_stratified_estimator_is_unbiased(K):
    truth = 0.25 + term(np.arange(1, K + 1), 0.5).sum()
    bound = made_up(widening(K), 20_000, np.random.default_rng(K))
    assert abs(bound.mean - truth) < 4 * bound.standard_error
    assert bound.standard_error < 0.01 * truth  # or the line above would say little


@pytest.mark.parametrize("K", [60, 4000])
def test_weights_count_every_step_as_often_as_any_other(K):
    """Over a fine grid of u in every stratum, each t is counted once: no statistics needed."""
    strata, n = widening(K), 20_000
    t = strata.draw(np.repeat((np.arange(n) + 0.5)[:, None] / n, strata.evaluations, axis=1))
    counted = np.bincount(t.ravel(), np.tile(strata.weights / n, n), K + 1)
    np.testing.assert_allclose(counted[1:], 1, atol=0.1)


@pytest.mark.parametrize("K", [60, 4000])
def test_the_estimators_error_is_its_spread_over_repeats_for_the_same_images(K):
    rng = np.random.default_rng(0)
    repeats = [made_up(widening(K), 20, rng, images_differ=3.0) for _ in range(1000)]
    spread = np.std([bound.mean for bound in repeats], ddof=1)
    claimed = np.sqrt(np.mean([bound.estimator_error**2 for bound in repeats]))
    assert claimed == pytest.approx(spread, rel=0.1)
    # The error for the population of images is larger, as the images differ.
    assert np.mean([bound.standard_error for bound in repeats]) > 1.5 * claimed


def test_the_full_bound_claims_no_error_of_its_estimator():
    bound = made_up(every_step(5), 3, np.random.default_rng(0))
    assert np.isnan(bound.estimator_error)
    np.testing.assert_allclose(bound.per_image, 0.25 + bound.terms.sum(1))
    assert bound.mean == pytest.approx(bound.per_image.mean())
    assert bound.standard_error == pytest.approx(np.std(bound.per_image, ddof=1) / 3**0.5)


def test_terms_are_gathered_by_step():
    bound = made_up(widening(50), 4, np.random.default_rng(0))
    sums, counts = bound.by_step()
    assert len(sums) == len(counts) == 51
    for t in range(51):
        assert counts[t] == (bound.t == t).sum()
        assert sums[t] == pytest.approx(bound.terms[bound.t == t].sum())


def test_the_two_estimators_agree_on_a_network():
    """Noise and all: the same imperfect network, images and chain, both estimators."""
    K, n = 60, 400
    diffusion, g = Diffusion(cosine(K)), torch.Generator().manual_seed(0)
    x0 = (torch.randint(0, 256, (n, 1, 2, 2), generator=g) / 127.5 - 1).float()

    def denoise(x, t):
        scale = torch.from_numpy(diffusion.schedule.one_minus_alpha_bar).float()[t].sqrt()
        return Prediction(scale.view(-1, 1, 1, 1) * x, torch.full_like(x, 0.5))

    def bound(strata, u):
        t = strata.draw(u)
        terms = []
        for e in range(strata.evaluations):
            eps, at = torch.randn(x0.shape, generator=g), torch.from_numpy(t[:, e])
            terms.append(bound_terms(denoise, diffusion, x0, at, eps, "learned").double().numpy())
        return Bound(prior_term(diffusion, x0).double().numpy(), t, np.stack(terms, 1), strata)

    rng = np.random.default_rng(0)
    full = bound(every_step(K), rng.random((n, K)))
    stratified = bound(widening(K), rng.random((n, widening(K).evaluations)))
    # Same images, so only the estimators' own noise separates the two.
    error = stratified.estimator_error
    assert abs(full.mean - stratified.mean) < 5 * error and error < 0.02 * full.mean
