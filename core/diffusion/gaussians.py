"""Gaussian densities: KL divergence and the discretised decoder. Nats, per dimension."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

BITS_PER_NAT = 1 / math.log(2)
HALF_BIN = 1 / 255  # half the distance between two of the 256 levels, which span [-1, 1]


class Gaussian(NamedTuple):
    """Diagonal Gaussian; `log_variance` broadcasts against `mean` [N, C, H, W]."""

    mean: Tensor
    log_variance: Tensor


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) in nats for every dimension, >= 0; shape of the broadcast means."""
    log_ratio = q.log_variance - p.log_variance
    scaled_distance = (q.mean - p.mean) ** 2 * torch.exp(-p.log_variance)
    # expm1(r) - r loses less than exp(r) - 1 - r where the variances are nearly equal, at most t.
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + scaled_distance)


def discretized_log_likelihood(x: Tensor, p: Gaussian) -> Tensor:
    """log of p's mass in the bin of each pixel of x, in nats, <= 0; same shape as x.

    x holds the 256 levels scaled to [-1, 1]. The bins of the lowest and the highest level reach to
    -inf and +inf, so the masses of the 256 levels sum to one (DDPM, eq. 13). The exact normal
    distribution function is used, in log space; OpenAI's code approximates it by a tanh and cuts
    the mass off at 1e-12.
    """
    scale = torch.exp(-0.5 * p.log_variance)
    centred = x - p.mean
    # Reflect to the lower tail, where log Phi has full relative precision.
    sign = torch.where(centred > 0, -1.0, 1.0)
    upper = (sign * centred + HALF_BIN) * scale
    lower = (sign * centred - HALF_BIN) * scale
    # Beyond the outermost levels: open the bin on the outer side, which is `lower` at the level
    # nearer to the reflected tail and `upper` at the other one.
    at_bottom, at_top = x < -1 + HALF_BIN, x > 1 - HALF_BIN
    open_below = torch.where(sign > 0, at_bottom, at_top)
    open_above = torch.where(sign > 0, at_top, at_bottom)
    log_upper = torch.special.log_ndtr(upper)
    log_lower = torch.special.log_ndtr(lower)
    # log(exp(u) - exp(l)); the gap stays off zero, so that no bin has an infinite gradient.
    gap = (log_upper - log_lower).clamp(min=1e-20)
    inside = log_upper + torch.log(-torch.expm1(-gap))
    above = torch.special.log_ndtr(-lower)
    return torch.where(open_above, above, torch.where(open_below, log_upper, inside))


def mean_flat(x: Tensor) -> Tensor:
    """Mean over all dimensions but the first: [N, ...] -> [N]."""
    return x.flatten(1).mean(1)
