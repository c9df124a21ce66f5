"""The three objectives: gradients, scale and units, and the bound's terms made by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from core.diffusion.objectives import bound_term, simple, training_losses, vlb
from core.diffusion.process import Diffusion, Prediction
from core.diffusion.schedules import cosine, linear, paper_stride

K = 30
T_ALL = torch.arange(1, K + 1)
CHAINS = {
    "linear": linear(K),
    "cosine": cosine(K),
    "respaced": cosine(300).respaced(paper_stride(300, K)),
}
EVERY_CHAIN = pytest.mark.parametrize("schedule", CHAINS.values(), ids=CHAINS.keys())


class Case:
    """The same image at every t, its noise, and an imperfect prediction that wants gradients."""

    def __init__(self, schedule):
        g = torch.Generator().manual_seed(0)
        self.schedule = schedule
        self.diffusion = Diffusion(schedule, dtype=torch.float64)
        levels = torch.randint(0, 256, (1, 2, 3, 3), generator=g)
        levels[0, 0, 0] = torch.tensor([0, 255, 128])  # the open bins too
        self.x0 = (levels.double() / 127.5 - 1).expand(K, 2, 3, 3)
        self.eps = torch.randn(K, 2, 3, 3, generator=g, dtype=torch.float64)
        self.x_t = self.diffusion.q_sample(self.x0, T_ALL, self.eps)
        wrong = torch.randn(K, 2, 3, 3, generator=g, dtype=torch.float64)
        v = torch.rand(K, 2, 3, 3, generator=g, dtype=torch.float64)
        self.prediction = Prediction(
            (self.eps + 0.3 * wrong).requires_grad_(), (1.4 * v - 0.2).requires_grad_()
        )

    def losses(self, name, vlb_weight=0.001, min_snr=0.0):
        at = self.prediction, self.x0, self.x_t, T_ALL, self.eps
        return training_losses(name, vlb_weight, self.diffusion, *at, min_snr)

    def gradients(self, loss):
        return torch.autograd.grad(loss.sum(), self.prediction, allow_unused=True)


def terms_by_hand(case):
    """[K] the bound's terms in bits/dim: Bayes' rule, eq. 13 and 15, torch and scipy."""
    out = []
    beta = case.schedule.beta
    alpha_bar = np.cumprod(1 - beta)

    def tilde(t):
        return 1 / ((1 - beta[t]) / beta[t] + 1 / (1 - alpha_bar[t - 1]))

    for t in range(1, K + 1):
        x0, x_t, eps, v = (
            z[t - 1].detach() for z in (case.x0, case.x_t, case.prediction.eps, case.prediction.v)
        )
        small = tilde(max(t, 2))
        sigma = torch.exp((v * math.log(beta[t]) + (1 - v) * math.log(small)) / 2)
        mean = (x_t - beta[t] / math.sqrt(1 - alpha_bar[t]) * eps) / math.sqrt(1 - beta[t])
        if t > 1:
            pull = math.sqrt(alpha_bar[t - 1]) / (1 - alpha_bar[t - 1]) * x0
            pull = pull + math.sqrt(1 - beta[t]) / beta[t] * x_t
            nats = kl_divergence(Normal(small * pull, math.sqrt(small)), Normal(mean, sigma))
        else:
            z = [(x0 + d - mean) / sigma for d in (1 / 255, -1 / 255)]
            upper, lower = (norm.cdf(w.numpy()) for w in z)
            upper, lower = np.where(x0 == 1, 1, upper), np.where(x0 == -1, 0, lower)
            nats = torch.from_numpy(-np.log(upper - lower))
        out.append(nats.mean() / math.log(2))
    return torch.stack(out)


@EVERY_CHAIN
def test_the_terms_of_the_bound_are_those_made_by_hand(schedule):
    case = Case(schedule)
    ours = bound_term(
        case.diffusion, case.prediction, case.x0, case.x_t, T_ALL, "learned", clip=False
    )
    torch.testing.assert_close(ours.detach(), terms_by_hand(case), rtol=1e-6, atol=1e-12)


@EVERY_CHAIN
def test_the_average_of_L_vlb_over_all_t_is_the_sum_of_the_terms_in_bits_per_dimension(schedule):
    case = Case(schedule)
    average = vlb(case.diffusion, case.prediction, case.x0, case.x_t, T_ALL).mean()
    assert average.item() == pytest.approx(terms_by_hand(case).sum().item(), rel=1e-6)


def test_lambda_multiplies_the_whole_bound():
    case = Case(cosine(K))
    for weight in (0.001, 0.5):
        hybrid = case.losses("hybrid", weight).loss - simple(case.prediction, case.eps)
        expected = weight * K * terms_by_hand(case)
        torch.testing.assert_close(hybrid.detach(), expected, rtol=1e-6, atol=1e-9)


def test_L_simple_is_the_mean_squared_error_of_each_example():
    case = Case(cosine(K))
    errors = (case.eps - case.prediction.eps).detach().numpy()
    expected = [np.mean(error**2) for error in errors]
    assert case.losses("simple").loss.tolist() == pytest.approx(expected)
    assert simple(Prediction(case.eps), case.eps).abs().max() == 0


def test_the_mean_learns_from_L_simple_alone_under_L_hybrid():
    case = Case(cosine(K))
    of_hybrid, _ = case.gradients(case.losses("hybrid", 0.7).loss)
    of_simple, nothing = case.gradients(case.losses("simple").loss)
    assert torch.equal(of_hybrid, of_simple) and of_simple.abs().min() > 0
    assert nothing is None


def test_the_variance_learns_from_lambda_times_the_bound_under_L_hybrid():
    case = Case(linear(K))
    _, of_hybrid = case.gradients(case.losses("hybrid", 0.02).loss)
    _, of_vlb = case.gradients(case.losses("vlb").loss)
    torch.testing.assert_close(of_hybrid, 0.02 * of_vlb)
    assert of_vlb.abs().min() > 0


def test_both_mean_and_variance_learn_from_L_vlb_as_finite_differences_say():
    case = Case(cosine(K))

    def loss(eps, v):
        return vlb(case.diffusion, Prediction(eps, v), case.x0, case.x_t, T_ALL).mean()

    assert torch.autograd.gradcheck(loss, tuple(case.prediction), atol=1e-4, rtol=1e-4)
    of_eps, of_v = case.gradients(case.losses("vlb").loss)
    assert of_eps.abs().max() > 0 and of_v.abs().max() > 0


@EVERY_CHAIN
def test_the_bound_of_the_true_posterior_is_its_decoder_term_alone(schedule):
    case = Case(schedule)
    truth = Prediction(case.eps, torch.zeros_like(case.eps))
    terms = vlb(case.diffusion, truth, case.x0, case.x_t, T_ALL) / K
    assert terms[1:].abs().max() < 1e-12
    # The decoder is centred on the pixel, as wide as the posterior of step 2.
    beta, alpha_bar = schedule.beta, np.cumprod(1 - schedule.beta)
    sigma = math.sqrt(1 / ((1 - beta[2]) / beta[2] + 1 / (1 - alpha_bar[1])))
    inside, outer = 2 * norm.cdf(1 / 255 / sigma) - 1, norm.cdf(1 / 255 / sigma)
    mass = np.where(case.x0[0].abs() == 1, outer, inside)
    assert terms[0].item() == pytest.approx(-np.log2(mass).mean())


def test_losses_for_the_log_are_the_parts_of_the_loss_without_gradients():
    case = Case(cosine(K))
    hybrid, mse, bound = (case.losses(name) for name in ("hybrid", "simple", "vlb"))
    torch.testing.assert_close(hybrid.mse, mse.loss.detach())
    torch.testing.assert_close(hybrid.vlb, bound.loss.detach())
    assert mse.vlb is None and bound.mse is None
    logged = [hybrid.mse, hybrid.vlb, mse.mse, bound.vlb]
    assert not any(x.requires_grad for x in logged)
    assert all(x.shape == (K,) for x in [*logged, hybrid.loss])


def test_the_terms_of_a_batch_do_not_depend_on_their_neighbours():
    case = Case(cosine(K))
    order = torch.tensor([7, 0, 29, 0, 3])
    part = [z[order] for z in (case.x0, case.x_t)]
    prediction = Prediction(*(z[order] for z in case.prediction))
    terms = bound_term(case.diffusion, prediction, *part, T_ALL[order], "learned", clip=False)
    torch.testing.assert_close(terms.detach(), terms_by_hand(case)[order], rtol=1e-6, atol=1e-12)


@EVERY_CHAIN
def test_min_snr_weighs_l_simple_alone(schedule):
    case, gamma = Case(schedule), 5.0
    snr = schedule.alpha_bar[1:] / (1 - schedule.alpha_bar[1:])
    weight = torch.from_numpy(np.minimum(snr, gamma) / snr)
    plain, weighted = case.losses("simple"), case.losses("simple", min_snr=gamma)
    assert torch.allclose(weighted.loss, weight * plain.loss, rtol=1e-9)
    assert torch.equal(weighted.mse, plain.mse)
    hybrid, weighted = case.losses("hybrid"), case.losses("hybrid", min_snr=gamma)
    assert torch.allclose(weighted.loss - hybrid.loss, (weight - 1) * plain.loss, rtol=1e-9)
    assert torch.equal(case.losses("vlb", min_snr=gamma).loss, case.losses("vlb").loss)
