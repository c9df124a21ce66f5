"""Noise schedules (section 3.2) and subsets of their steps (section 4).

Steps are counted as in the paper, t = 1..T. Tables have T + 1 entries in float64; entry 0 is the
clean image (alpha_bar_0 = 1), so that alpha_bar[t - 1] is what the equations say. A process that
keeps only some of the steps is a Schedule too: one that remembers the original t of its steps.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

COSINE_OFFSET = 0.008  # s of eq. 17: keeps sqrt(beta_1) slightly below a pixel's bin, 1/127.5
MAX_BETA = 0.999  # section 3.2: no singularity at t = T


@dataclass(frozen=True, eq=False)
class Schedule:
    """beta_t and what follows from it, for the K kept steps of a chain of T.

    T            length of the original chain
    t            [K + 1] int64, original timestep of each kept step; t[0] = 0
    beta         [K + 1] variance of q(x_k | x_{k-1}); beta[0] = 0
    log_alpha_bar[K + 1] log of prod_{s <= k} (1 - beta_s), <= 0; entry 0 is 0
    time_scale   what the network is told of t runs from 0 to nearly this, whatever T is
    """

    T: int
    t: np.ndarray
    beta: np.ndarray
    log_alpha_bar: np.ndarray
    time_scale: int = 1000

    @property
    def K(self) -> int:
        """Number of kept steps."""
        return len(self.beta) - 1

    @property
    def alpha_bar(self) -> np.ndarray:
        """[K + 1] signal's share of the variance of x_k given x_0 (eq. 8)."""
        return np.exp(self.log_alpha_bar)

    @property
    def one_minus_alpha_bar(self) -> np.ndarray:
        """[K + 1] noise's share of the variance of x_k, without cancellation near k = 0."""
        return -np.expm1(self.log_alpha_bar)

    @property
    def beta_tilde(self) -> np.ndarray:
        """[K + 1] variance of the posterior q(x_{k-1} | x_k, x_0) (eq. 10); 0 at k = 1."""
        noise = self.one_minus_alpha_bar
        table = np.zeros_like(noise)
        table[1:] = noise[:-1] / noise[1:] * self.beta[1:]
        return table

    @property
    def log_beta_tilde(self) -> np.ndarray:
        """[K + 1] log beta_tilde with entry 1 replaced by entry 2, as beta_tilde_1 = 0.

        OpenAI's code does so; the paper leaves it open. Entry 0 is NaN: there is no step 0.
        """
        table = np.full_like(self.beta, np.nan)
        table[2:] = np.log(self.beta_tilde[2:])
        table[1] = table[2] if self.K > 1 else np.log(self.beta[1])
        return table

    def respaced(self, steps: Iterable[int]) -> "Schedule":
        """The process that visits only `steps` (eq. 19): beta_k = 1 - alpha_bar_k/alpha_bar_{k-1}.

        steps: distinct timesteps of this schedule's own numbering 1..K, in any order.
        """
        kept = np.array(sorted(steps), dtype=np.int64)
        if len(kept) == 0 or kept[0] < 1 or kept[-1] > self.K or len(np.unique(kept)) < len(kept):
            raise ValueError(f"steps must be distinct and in 1..{self.K}")
        kept = np.concatenate([[0], kept])
        log_alpha_bar = self.log_alpha_bar[kept]
        beta = np.concatenate([[0.0], -np.expm1(np.diff(log_alpha_bar))])
        # A step whose predecessor is kept has the beta that it had, to the last bit.
        unchanged = np.flatnonzero(np.diff(kept) == 1) + 1
        beta[unchanged] = self.beta[kept[unchanged]]
        return replace(self, t=self.t[kept], beta=beta, log_alpha_bar=log_alpha_bar)

    def truncated(self, skip: float) -> "Schedule":
        """Without the noisiest fraction `skip` of the steps: sampling begins late (Fig. 4)."""
        if not 0 <= skip < 1:
            raise ValueError(f"skip must be in [0, 1), not {skip}")
        return self.respaced(range(1, max(1, round(self.K * (1 - skip))) + 1))


def from_betas(beta: np.ndarray) -> Schedule:
    """Schedule of a full chain from beta_1..beta_T, each in (0, 1)."""
    beta = np.asarray(beta, dtype=np.float64)
    if not ((beta > 0) & (beta < 1)).all():
        raise ValueError("every beta must lie in (0, 1)")
    T = len(beta)
    log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-beta))])
    return Schedule(T, np.arange(T + 1), np.concatenate([[0.0], beta]), log_alpha_bar)


def linear(T: int) -> Schedule:
    """beta_t linear in t, from 1e-4 to 0.02 at T = 1000 and scaled by 1000/T otherwise.

    Without the scaling a chain of 4000 steps would be another schedule altogether. T > 20, since
    beta_T = 20/T must stay a variance below one.
    """
    if T <= 20:
        raise ValueError(f"the linear schedule needs T > 20 (beta_T = 20/T < 1), not T = {T}")
    return from_betas(np.linspace(1e-4, 0.02, T) * (1000 / T))


def cosine(T: int) -> Schedule:
    """alpha_bar_t = f(t)/f(0), f(t) = cos^2(((t/T + s)/(1 + s)) pi/2); beta_t <= 0.999 (eq. 17)."""
    f = np.cos((np.arange(T + 1) / T + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2
    return from_betas(np.minimum(1 - f[1:] / f[:-1], MAX_BETA))


def sigmoid(T: int) -> Schedule:
    """alpha_bar falls from 1 to 0 as a logistic function between -3 and 3; beta_t <= 0.999.

    Not in the paper: Jabri et al. 2022 (arXiv 2212.11972), with tau = 1.
    """
    level = 1 / (1 + np.exp(-np.linspace(-3, 3, T + 1)))
    alpha_bar = (level[-1] - level) / (level[-1] - level[0])
    return from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], MAX_BETA))


def paper_stride(T: int, K: int) -> list[int]:
    """K reals evenly spaced over [1, T], ends included, rounded (section 4)."""
    _check(T, K)
    if K == 1:
        return [T]
    return [1 + round(i * (T - 1) / (K - 1)) for i in range(K)]


def extended_stride(T: int, K: int) -> list[int]:
    """The paper's stride and every t <= T/K: K + T/K steps at most (appendix E).

    Likelihoods need the first steps one by one; with the plain stride they are far too high.
    """
    return sorted(set(paper_stride(T, K)) | set(range(1, T // K + 1)))


def ddim_stride(T: int, K: int) -> list[int]:
    """Constant integer stride from t = 1 to T - T/K + 1; K must divide T, and be at least 2."""
    _check(T, K, fewest=2)
    if T % K:
        raise ValueError(f"a constant stride of {K} steps needs a number that divides {T}")
    return [1 + i * (T // K) for i in range(K)]


def quadratic_stride(T: int, K: int) -> list[int]:
    """Steps that grow quadratically (DDIM, appendix D.2): dense near t = 1, last one near 0.8 T.

    Rounding makes some of the first ones equal; each is kept once, so K is an upper bound. K >= 2.
    """
    _check(T, K, fewest=2)
    return sorted({1 + int(x) for x in np.linspace(0, math.sqrt(0.8 * T), K) ** 2})


def _check(T: int, K: int, fewest: int = 1) -> None:
    if not fewest <= K <= T:
        raise ValueError(f"the number of steps must be in {fewest}..{T}, not {K}")
