"""The reverse process's variance: fixed to beta or beta_tilde, or learned between them (eq. 15).

A fourth, `analytic`, is a table that is made for a network (core/diffusion/optimal.py).
"""

from typing import Literal

import numpy as np
from torch import Tensor

from core.diffusion.schedules import Schedule

ReverseVariance = Literal["beta", "beta_tilde", "learned", "analytic"]


def log_bounds(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """[K + 1] log beta_tilde and log beta: the lower and upper bound on the reverse log-variance.

    beta_tilde_1 is replaced by beta_tilde_2. Entry 0 is NaN.
    """
    log_beta = np.full_like(schedule.beta, np.nan)
    log_beta[1:] = np.log(schedule.beta[1:])
    return schedule.log_beta_tilde, log_beta


def fixed_log_variance(schedule: Schedule, variance: ReverseVariance) -> np.ndarray:
    """[K + 1] log sigma_t^2 of the fixed variances; entry 0 is NaN.

    `beta` uses beta_tilde_2 at t = 1, as OpenAI's code does: the last step's noise is never added
    to an image, and with beta_1 the decoder term would be needlessly worse. So the choice between
    the two does not touch the decoder term.
    """
    lower, upper = log_bounds(schedule)
    if variance == "beta_tilde":
        return lower
    if variance == "beta":
        table = upper.copy()
        table[1] = lower[1]
        return table
    raise ValueError(f"{variance!r} is not a fixed variance")


def learned_log_variance(v: Tensor, log_beta_tilde: Tensor, log_beta: Tensor) -> Tensor:
    """log Sigma = v log beta + (1 - v) log beta_tilde, one v per dimension (eq. 15).

    v is not constrained; 0 gives beta_tilde and 1 gives beta. Interpolated in the log domain.
    """
    return v * log_beta + (1 - v) * log_beta_tilde
