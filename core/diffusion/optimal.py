"""What follows from a network's errors along the chain. Not in the paper.

The optimal reverse variance (Bao et al. 2022, Analytic-DPM, arXiv 2201.06503) and the steps of the
least bound (Watson et al. 2021, arXiv 2106.03802) need to know how well x_0 can be told from x_t:
an `Errors`, measured on training images (core/measurements/errors.py).
"""

import math
from dataclasses import dataclass

import numpy as np

from core.diffusion.schedules import Schedule

BIN = 2 / 255  # width of a pixel's level in [-1, 1]
CANDIDATES = 256  # steps at which errors are known, at most


@dataclass(frozen=True)
class Errors:
    """Of a network at some steps of the full chain, means over images, pixels and noise.

    t: [n] increasing, in 1..T;  power: [n] E eps_theta^2, at most 1 for an exact network;
    x0: [n] E (x_0 - predicted x_0)^2 with the prediction kept within [-1, 1].
    """

    t: np.ndarray
    power: np.ndarray
    x0: np.ndarray


def candidates(T: int) -> np.ndarray:
    """At most CANDIDATES of the steps 1..T, both ends among them: dense at the beginning, where the
    bound's terms are large, and evenly spread."""
    some = [np.geomspace(1, T, CANDIDATES // 2), np.linspace(1, T, CANDIDATES // 2)]
    return np.unique(np.rint(np.concatenate(some)).astype(np.int64))


def dynamic_count(T: int, K: int) -> list[int]:
    """As many steps as `dynamic_steps` keeps: for plans, since which ones depends on the network.

    ValueError for more than there are candidates.
    """
    there = candidates(T)
    if not 1 <= K <= len(there):
        raise ValueError(f"the dynamic stride chooses 1 to {len(there)} of {T} steps, not {K}")
    return there[-K:].tolist()


def analytic_log_variance(schedule: Schedule, errors: Errors) -> np.ndarray:
    """[K + 1] log of the variance with the best bound of all that are one number per step.

    sigma_k^2 = beta_tilde_k + c_k^2 Var(x_0 | x_k), where c_k is the weight of x_0 in the
    posterior's mean and, by the law of total variance,

        E Var(x_0 | x_k) = (1 - alpha_bar_k) / alpha_bar_k (1 - E eps_theta^2)

    which is their Theorem 1 for DDPM (lambda^2 = beta_tilde). Between the steps of `errors` the
    power is interpolated. Not below beta_tilde (_2 for _1), nor above beta. Entry 0 is NaN.
    """
    k = np.arange(1, schedule.K + 1)
    power = np.interp(schedule.t[k], errors.t, errors.power)
    noise, before = schedule.one_minus_alpha_bar, schedule.alpha_bar[k - 1]
    weight = np.sqrt(before) * schedule.beta[k] / noise[k]
    spread = noise[k] / schedule.alpha_bar[k] * np.clip(1 - power, 0, None)
    table = np.full(schedule.K + 1, np.nan)
    best = schedule.beta_tilde[k] + weight**2 * spread
    table[1:] = np.log(np.maximum(np.minimum(best, schedule.beta[k]), 1e-20))
    lower = schedule.log_beta_tilde[k]
    table[1:] = np.maximum(table[1:], np.minimum(lower, np.log(schedule.beta[k])))
    return table


def dynamic_steps(schedule: Schedule, errors: Errors, K: int) -> list[int]:
    """The K of `errors.t` whose chain has the least bound, by dynamic programming.

    The bound is a sum over the kept steps: from t to s < t, with the best variance, it takes
    1/2 log(1 + (SNR_s - SNR_t) E (x_0 - predicted x_0)^2) nats per dimension, SNR = alpha_bar /
    (1 - alpha_bar); from the first kept step to the image, a Gaussian decoder. schedule: the full
    chain. The last of errors.t is always kept: there the chain begins. ValueError for more steps
    than candidates.
    """
    n = len(errors.t)
    if not 1 <= K <= n:
        raise ValueError(f"{K} steps cannot be chosen from {n}")
    snr = schedule.alpha_bar[errors.t] / schedule.one_minus_alpha_bar[errors.t]
    error = np.maximum(errors.x0, BIN**2 / 12)
    # cost[i, j]: from t_i to t_j, j < i.
    cost = 0.5 * np.log1p(np.maximum(snr[None, :] - snr[:, None], 0) * error[:, None])
    cost[np.triu_indices(n)] = np.inf
    least = 0.5 * np.log(2 * math.pi * math.e * error) - math.log(BIN)  # ... to the image
    came_from = np.zeros((K, n), dtype=np.int64)
    for k in range(1, K):
        total = cost + least[None, :]
        came_from[k] = total.argmin(axis=1)
        least = total.min(axis=1)
    chosen = [n - 1]
    for k in range(K - 1, 0, -1):
        chosen.append(int(came_from[k][chosen[-1]]))
    return [int(errors.t[i]) for i in reversed(chosen)]
