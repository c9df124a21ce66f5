"""The three training objectives (eq. 14, 4 and 16), per example.

Each takes the network's Prediction and returns losses [N]; the weights of a TimestepSampler
multiply outside. L_simple has no unit; the bound is in bits per dimension.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.diffusion.gaussians import (
    BITS_PER_NAT,
    Gaussian,
    discretized_log_likelihood,
    kl,
    mean_flat,
)
from core.diffusion.process import Diffusion, Prediction
from core.diffusion.variances import ReverseVariance

ObjectiveName = Literal["simple", "vlb", "hybrid"]


@dataclass(frozen=True)
class Losses:
    """What one batch gives: `loss` [N] is trained on; the others [N] are for the log, or None."""

    loss: Tensor
    mse: Tensor | None
    vlb: Tensor | None


def simple(prediction: Prediction, eps: Tensor) -> Tensor:
    """L_simple = E ||eps - eps_theta||^2 (eq. 14), averaged over dimensions: [N]."""
    return mean_flat((eps - prediction.eps) ** 2)


def bound_term(
    diffusion: Diffusion,
    prediction: Prediction,
    x0: Tensor,
    x_t: Tensor,
    t: Tensor,
    variance: ReverseVariance,
    clip: bool,
) -> Tensor:
    """L_{t-1} of the bound (eq. 4-6) in bits/dim, [N], t in 1..K.

    For t > 1 the KL divergence of the posterior from p_theta, for t = 1 the decoder's -log
    p(x_0 | x_1), discretised to 256 levels.
    """
    p = diffusion.p_mean_variance(prediction, x_t, t, variance, clip)
    terms = mean_flat(kl(diffusion.q_posterior(x0, x_t, t), p))
    first = (t == 1).nonzero()[:, 0]
    if len(first):
        # Far in the tails a float32 gradient of the decoder is wrong, then NaN: float64 for the few
        # images at t = 1, where the device has it.
        exact = x0.dtype if x0.device.type == "mps" else torch.float64
        mean, log_variance = (z[first].to(exact) for z in p)
        decoder = discretized_log_likelihood(x0[first].to(exact), Gaussian(mean, log_variance))
        terms = terms.index_put((first,), -mean_flat(decoder).to(terms.dtype))
    return terms * BITS_PER_NAT


def vlb(diffusion: Diffusion, prediction: Prediction, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """L_vlb (eq. 4) from one t per example: K times the drawn term, bits/dim, [N].

    Without L_T, which has no parameters. Learned variance; x_0 is not clipped in training.
    Unbiased when t is uniform over 1..K, or with the TimestepSampler's weights otherwise.
    """
    return diffusion.K * bound_term(diffusion, prediction, x0, x_t, t, "learned", clip=False)


def training_losses(
    name: ObjectiveName,
    vlb_weight: float,
    diffusion: Diffusion,
    prediction: Prediction,
    x0: Tensor,
    x_t: Tensor,
    t: Tensor,
    eps: Tensor,
    min_snr: float = 0.0,
) -> Losses:
    """Losses of one batch under the named objective.

    vlb_weight: lambda of eq. 16. It multiplies the whole bound, the sum over all T terms in
    bits/dim. A lambda on a single term, as many copies of this objective have it, is T times less.
    min_snr: gamma of min-SNR weighting, which L_simple's terms are trained with; 0: none.
    """
    if name == "vlb":
        bound = vlb(diffusion, prediction, x0, x_t, t)
        return Losses(bound, None, bound.detach())
    mse = simple(prediction, eps)
    weighted = mse * diffusion.min_snr_weight(t, min_snr) if min_snr else mse
    if name == "simple":
        return Losses(weighted, mse.detach(), None)
    # Section 3.1: L_vlb guides the variance alone; the mean learns from L_simple only.
    variance_only = Prediction(prediction.eps.detach(), prediction.v)
    bound = vlb(diffusion, variance_only, x0, x_t, t)
    return Losses(weighted + vlb_weight * bound, mse.detach(), bound.detach())
