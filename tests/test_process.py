"""The forward chain and the reverse chain against Bayes' rule and the paper's closed forms."""

import numpy as np
import pytest
import torch

from core.diffusion.process import Diffusion, Prediction
from core.diffusion.schedules import cosine, linear, paper_stride

CHAINS = {
    "linear": linear(50),
    "cosine": cosine(50),
    "respaced": cosine(400).respaced(paper_stride(400, 9)),
}
EVERY_CHAIN = pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS.keys())


def exact(schedule):
    return Diffusion(schedule, dtype=torch.float64)


def images(*values):
    """One-pixel images [N, 1, 1, 1] in float64."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def draws(n, *shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *(shape or (1, 1, 1)), generator=g, dtype=torch.float64)


@EVERY_CHAIN
def test_q_posterior_is_bayes_rule_on_a_grid(schedule):
    x0, x_t = 0.6, -0.4
    alpha_bar = np.append(1, np.cumprod(1 - schedule.beta[1:]))
    for t in range(2, schedule.K + 1):
        q = exact(schedule).q_posterior(images(x0), images(x_t), torch.tensor([t]))
        sigma = q.log_variance.exp().sqrt().item()
        grid = q.mean.item() + np.linspace(-30, 30, 20_001) * sigma
        # p(x_{t-1} | x_0) p(x_t | x_{t-1}), on either side of its peak.
        before = -((grid - np.sqrt(alpha_bar[t - 1]) * x0) ** 2) / (1 - alpha_bar[t - 1]) / 2
        step = -((x_t - np.sqrt(1 - schedule.beta[t]) * grid) ** 2) / schedule.beta[t] / 2
        weight = np.exp(before + step - (before + step).max())
        weight /= weight.sum()
        mean = weight @ grid
        assert q.mean.item() == pytest.approx(mean, rel=1e-8, abs=1e-10)
        assert sigma**2 == pytest.approx(weight @ (grid - mean) ** 2, rel=1e-6)


@EVERY_CHAIN
def test_the_posterior_of_the_first_step_is_x0_itself(schedule):
    t = torch.tensor([1])
    assert exact(schedule).posterior_mean(images(0.3), images(9.0), t).item() == pytest.approx(0.3)


@EVERY_CHAIN
def test_q_sample_has_the_moments_of_the_chain_of_single_steps(schedule):
    diffusion, mean, variance = exact(schedule), 0.7, 0.0
    for t in range(1, schedule.K + 1):
        beta = schedule.beta[t]
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        at = torch.tensor([t])
        middle = diffusion.q_sample(images(0.7), at, images(0.0)).item()
        above = diffusion.q_sample(images(0.7), at, images(1.0)).item()
        assert middle == pytest.approx(mean, rel=1e-9)
        assert (above - middle) ** 2 == pytest.approx(variance, rel=1e-9)
    prior = diffusion.q_prior(images(0.7))
    assert prior.mean.item() == pytest.approx(mean, rel=1e-9)
    assert prior.log_variance.exp().item() == pytest.approx(variance, rel=1e-9)


@EVERY_CHAIN
def test_eps_and_x0_follow_from_each_other(schedule):
    diffusion, t = exact(schedule), torch.arange(1, schedule.K + 1)
    x0, eps = draws(schedule.K, 2, 3, 3), draws(schedule.K, 2, 3, 3, seed=1)
    x_t = diffusion.q_sample(x0, t, eps)
    torch.testing.assert_close(diffusion.x0_from_eps(x_t, t, eps), x0)
    torch.testing.assert_close(diffusion.eps_from_x0(x_t, t, x0), eps)
    again = diffusion.x0_from_eps(x_t, t, diffusion.eps_from_x0(x_t, t, eps))
    torch.testing.assert_close(again, eps)


@EVERY_CHAIN
def test_the_mean_of_p_is_eq_13(schedule):
    t = torch.arange(1, schedule.K + 1)
    x_t, eps = draws(schedule.K), draws(schedule.K, seed=1)
    mean = exact(schedule).p_mean_variance(Prediction(eps), x_t, t, "beta", clip=False).mean
    beta = torch.tensor(schedule.beta[1:]).view(-1, 1, 1, 1)
    noise = 1 - torch.cumprod(1 - beta, 0)
    torch.testing.assert_close(mean, (x_t - beta / noise.sqrt() * eps) / (1 - beta).sqrt())


def test_float32_is_as_good_as_float64_over_4000_steps():
    schedule, t = cosine(4000), torch.arange(1, 4001)
    x0, eps = draws(4000).clamp(-1, 1), draws(4000, seed=1)
    means = []
    for dtype in (torch.float64, torch.float32):
        diffusion = Diffusion(schedule, dtype=dtype)
        x_t = diffusion.q_sample(x0.to(dtype), t, eps.to(dtype))
        p = diffusion.p_mean_variance(Prediction(eps.to(dtype)), x_t, t, "beta_tilde", clip=False)
        means.append(p.mean)
        assert p.mean.dtype == p.log_variance.dtype == dtype
    sigma = torch.exp(p.log_variance / 2)
    assert ((means[0] - means[1]).abs() / sigma).max() < 1e-3


def test_the_predicted_x0_is_clipped_only_when_asked():
    diffusion, t = exact(cosine(50)), torch.tensor([20, 20, 20])
    x0, eps = images(-3.0, 0.5, 1.5), draws(3)
    x_t = diffusion.q_sample(x0, t, eps)
    prediction = Prediction(eps)
    torch.testing.assert_close(diffusion.predicted_x0(prediction, x_t, t, clip=False), x0)
    clipped = diffusion.predicted_x0(prediction, x_t, t, clip=True)
    torch.testing.assert_close(clipped, images(-1.0, 0.5, 1.0))
    p = diffusion.p_mean_variance(prediction, x_t, t, "beta", clip=True)
    torch.testing.assert_close(p.mean, diffusion.q_posterior(clipped, x_t, t).mean)


@EVERY_CHAIN
def test_v_of_zero_is_beta_tilde_and_of_one_is_beta_and_a_half_is_their_geometric_mean(schedule):
    t = torch.arange(1, schedule.K + 1)
    beta = torch.tensor(schedule.beta[1:]).view(-1, 1, 1, 1)
    noise = 1 - torch.cumprod(1 - beta, 0)
    tilde = beta.clone()
    tilde[1:] *= noise[:-1] / noise[1:]
    tilde[0] = tilde[1]  # beta_tilde_1 = 0 has no logarithm: that of step 2

    def variance(v):
        prediction = Prediction(torch.zeros(schedule.K, 1, 1, 1), torch.full_like(beta, v))
        return exact(schedule).p_log_variance(prediction, t, "learned").exp()

    torch.testing.assert_close(variance(0.0), tilde, rtol=1e-9, atol=0)
    torch.testing.assert_close(variance(1.0), beta, rtol=1e-14, atol=0)
    torch.testing.assert_close(variance(0.5), (beta * tilde).sqrt(), rtol=1e-9, atol=0)
    lower, upper = torch.minimum(beta, tilde), torch.maximum(beta, tilde)
    assert ((lower < variance(0.3)) & (variance(0.3) < upper)).all()
    # Between them the variance moves towards beta; v is not held to [0, 1].
    assert (((variance(1.5) > beta) == (beta > tilde)) & (variance(1.5) != beta)).all()


@EVERY_CHAIN
def test_fixed_variances_are_beta_and_beta_tilde_and_beta_tilde_2_at_the_first_step(schedule):
    diffusion, t = exact(schedule), torch.arange(1, schedule.K + 1)
    nothing = Prediction(torch.zeros(schedule.K, 1, 1, 1))
    large = diffusion.p_log_variance(nothing, t, "beta").exp().flatten().numpy()
    small = diffusion.p_log_variance(nothing, t, "beta_tilde").exp().flatten().numpy()
    np.testing.assert_allclose(large[1:], schedule.beta[2:], rtol=1e-12)
    noise = 1 - np.cumprod(1 - schedule.beta[1:])
    expected = schedule.beta[2:] * noise[:-1] / noise[1:]
    np.testing.assert_allclose(small[1:], expected, rtol=1e-9)
    assert large[0] == small[0] == small[1]


def test_a_network_without_v_has_no_learned_variance():
    with pytest.raises(ValueError, match="L_simple"):
        exact(cosine(10)).p_log_variance(Prediction(images(0.0)), torch.tensor([3]), "learned")


@pytest.mark.parametrize("T", [50, 1000, 4000])
def test_the_network_is_told_the_original_time_on_a_scale_of_1000(T):
    full, kept = cosine(T), [1, 2, 26, T]
    assert exact(full).network_time(torch.tensor([1, T])).tolist() == [0, (T - 1) * 1000 / T]
    told = exact(full.respaced(kept)).network_time(torch.tensor([1, 2, 3, 4]))
    assert told.tolist() == pytest.approx([(t - 1) * 1000 / T for t in kept])


def test_variances_broadcast_as_one_value_per_image_unless_learned():
    diffusion, t = exact(cosine(10)), torch.tensor([1, 5])
    x = draws(2, 3, 4, 4)
    prediction = Prediction(x, x)
    assert diffusion.p_log_variance(prediction, t, "beta").shape == (2, 1, 1, 1)
    assert diffusion.p_log_variance(prediction, t, "learned").shape == (2, 3, 4, 4)
