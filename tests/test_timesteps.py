"""Which t are drawn, with what weights, and that neither biases the loss."""

import io
from itertools import product

import numpy as np
import pytest
import torch

from core.diffusion.timesteps import LossSecondMoment, UniformTimesteps

ALMOST_ONE = 1 - 2**-53  # the largest number that a generator returns
GRID = (np.arange(200_000) + 0.5) / 200_000


def warmed(losses, **settings):
    """A sampler that has seen losses[t - 1], a row of losses, at every t."""
    sampler = LossSecondMoment(len(losses), **settings)
    for t, row in enumerate(losses, 1):
        sampler.update(np.full(len(row), t), torch.tensor(row))
    return sampler


@pytest.mark.parametrize("T", [1, 2, 7, 1000, 4000])
def test_uniform_timesteps_map_u_evenly_onto_1_to_T(T):
    sampler = UniformTimesteps(T)
    t, weights = sampler.sample(np.array([0, 0.5 / T, ALMOST_ONE]))
    assert t.tolist() == [1, 1, T]
    t, weights = sampler.sample((np.arange(10 * T) + 0.5) / (10 * T))
    assert np.bincount(t).tolist() == [0] + [10] * T
    assert (weights == 1).all() and len(weights) == 10 * T


def test_uniform_timesteps_have_no_memory():
    sampler = UniformTimesteps(5)
    sampler.update(np.array([1, 1]), torch.tensor([9.0, 9.0]))
    sampler.load_state_dict(sampler.state_dict())
    assert sampler.state_dict() == {}
    assert np.bincount(sampler.sample(GRID)[0]).tolist() == [0] + [40_000] * 5


def test_timesteps_are_uniform_and_unweighted_until_every_t_has_ten_losses():
    sampler = LossSecondMoment(3)
    for t, n in ((1, 50), (2, 10), (3, 9)):
        sampler.update(np.full(n, t), torch.full((n,), float(t)))
    assert not sampler.warm
    assert sampler.probabilities().tolist() == [1 / 3] * 3
    t, weights = sampler.sample(np.array([0.1, 0.9]))
    assert (weights == 1).all() and set(t) <= {1, 2, 3}
    sampler.update(np.array([3]), torch.tensor([3.0]))
    assert sampler.warm
    assert sampler.probabilities()[2] > sampler.probabilities()[0]


def test_every_draw_of_the_uniform_beginning_is_uniform():
    """Over all u of a grid, every series of three draws is as frequent as it must be."""
    seen = np.zeros((3, 4))
    for u in product((np.arange(12) + 0.5) / 12, repeat=3):
        for draw, t in enumerate(LossSecondMoment(3).sample(np.array(u))[0]):
            seen[draw, t] += 1
    assert seen.tolist() == [[0, 12**3 / 3, 12**3 / 3, 12**3 / 3]] * 3


@pytest.mark.parametrize("T, batch", [(7, 7), (7, 4), (5, 13)])
def test_the_uniform_beginning_visits_every_t_once_per_round_and_ends_after_ten(T, batch):
    sampler, rng, drawn = LossSecondMoment(T), np.random.default_rng(0), []
    while not sampler.warm:
        t, weights = sampler.sample(rng.random(batch))
        assert (weights == 1).all()
        sampler.update(t, torch.ones(batch))
        drawn += t.tolist()
    assert 10 * T <= len(drawn) < 10 * T + batch
    for first in range(0, 10 * T, T):
        assert sorted(drawn[first : first + T]) == list(range(1, T + 1))
    assert drawn[:T] != drawn[T : 2 * T]


def test_probabilities_follow_the_root_mean_square_of_the_losses_and_one_in_a_thousand_is_uniform():
    rows = np.random.default_rng(0).exponential(size=(6, 10)) * 10.0 ** np.arange(-3, 3)[:, None]
    rms = np.sqrt([np.mean(np.square(row)) for row in rows])
    expected = 0.999 * rms / rms.sum() + 0.001 / 6
    np.testing.assert_allclose(warmed(rows).probabilities(), expected, rtol=1e-6)
    half = warmed(rows, uniform=0.5).probabilities()
    np.testing.assert_allclose(half, 0.5 * rms / rms.sum() + 0.5 / 6, rtol=1e-6)


def test_timesteps_are_drawn_with_their_probabilities_and_weighted_to_keep_every_mean():
    sampler = warmed(np.outer([1.0, 5, 0.2, 30, 2, 0, 7], np.ones(10)))
    p = sampler.probabilities()
    t, weights = sampler.sample(GRID)
    np.testing.assert_allclose(np.bincount(t, minlength=8)[1:] / len(GRID), p, atol=1e-5)
    weight = np.array([weights[t == s][0] for s in range(1, 8)])
    assert all((weights[t == s] == weight[s - 1]).all() for s in range(1, 8))
    f = np.random.default_rng(1).normal(size=7)
    assert p.sum() == pytest.approx(1) and (p * weight) @ f == pytest.approx(f.mean())
    np.testing.assert_allclose(p * weight, 1 / 7)


def test_the_ends_of_u_are_the_ends_of_the_chain():
    sampler = warmed(np.outer(np.linspace(1, 2, 4000), np.ones(2)), length=2)
    assert sampler.sample(np.array([0.0, ALMOST_ONE]))[0].tolist() == [1, 4000]


def test_without_a_uniform_share_a_t_of_no_loss_is_never_drawn():
    sampler = warmed([[0.0], [1.0], [0.0], [1.0], [0.0]], length=1, uniform=0.0)
    t, weights = sampler.sample(np.array([0.0, 0.5, ALMOST_ONE]))
    assert t.tolist() == [2, 4, 4] and weights.tolist() == [0.4] * 3


def test_losses_that_are_all_zero_leave_the_timesteps_uniform():
    sampler = warmed(np.zeros((4, 10)))
    t, weights = sampler.sample((np.arange(8) + 0.5) / 8)
    assert t.tolist() == [1, 1, 2, 2, 3, 3, 4, 4] and weights.tolist() == [1] * 8


def test_only_the_last_ten_losses_count():
    new = [[1.0] * 10, [4.0] * 10, list(range(10))]
    old = [[1e6] * n + row for n, row in zip((3, 25, 10), new)]
    np.testing.assert_array_equal(warmed(old).probabilities(), warmed(new).probabilities())
    with_one_old = warmed([[1e6, *new[0][1:]], *new[1:]])
    assert with_one_old.probabilities()[0] > 0.99


def test_losses_enter_in_the_order_of_the_batch_when_a_t_comes_several_times():
    t = np.array([2, 1, 2, 2, 1, 2, 1])
    losses = torch.tensor([9.0, 1, 8, 3, 2, 4, 6])
    together = LossSecondMoment(2, length=2)
    together.update(t, losses)
    # The last two: 2 and 6 at t = 1, 3 and 4 at t = 2.
    rms = np.sqrt([(4 + 36) / 2, (9 + 16) / 2])
    expected = 0.999 * rms / rms.sum() + 0.0005
    np.testing.assert_allclose(together.probabilities(), expected)


@pytest.mark.parametrize("seen", [3, 14, 40])  # in the beginning, in its last round, after it
def test_a_saved_sampler_goes_on_as_the_original(seen):
    rng = np.random.default_rng(0)

    def advance(sampler, u):
        t, weights = sampler.sample(u)
        sampler.update(t, torch.from_numpy(t * u))
        return t.tolist(), weights.tolist()

    original, resumed = LossSecondMoment(6, length=10), LossSecondMoment(6, length=10)
    for _ in range(seen):
        advance(original, rng.random(4))
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(30):
        u = rng.random(4)
        assert advance(original, u) == advance(resumed, u)
    assert original.warm and resumed.warm


def test_a_saved_state_is_not_changed_by_later_losses():
    sampler = warmed([[1.0] * 10, [1.0] * 10])
    state = sampler.state_dict()
    sampler.update(np.array([1]), torch.tensor([100.0]))
    resumed = LossSecondMoment(2)
    resumed.load_state_dict(state)
    assert resumed.probabilities().tolist() == [0.5, 0.5]
