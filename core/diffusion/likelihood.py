"""The variational bound on -log p(x_0), term by term, in bits/dim (eq. 4; appendix E).

    L_vlb = L_T + sum_{t = 2..K} KL(q(x_{t-1} | x_t, x_0) || p_theta) - log p_theta(x_0 | x_1)

A bound over K steps needs K network evaluations per image. The estimator `stratified` needs a few
dozen: the first steps, which carry most of the bound, one by one, and the others through draws from
strata that widen geometrically. It is unbiased, and two draws per stratum give its error.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.diffusion.gaussians import BITS_PER_NAT, Gaussian, kl, mean_flat
from core.diffusion.objectives import bound_term
from core.diffusion.process import Diffusion
from core.diffusion.samplers import Denoise
from core.diffusion.variances import ReverseVariance

SINGLE_STEPS = 6  # strata of one step each at the beginning of the chain
WIDENING_STRATA = 14
DRAWS = 2  # per stratum: the fewest that show an estimator's error


@dataclass(frozen=True)
class Strata:
    """Consecutive ranges of t that cover 1..K, and how many t are drawn from each.

    first: [S] first t of each stratum, starting with 1; last t is the next one's first minus one.
    """

    K: int
    first: np.ndarray
    draws: int

    @property
    def widths(self) -> np.ndarray:
        """[S] number of steps in each stratum; they sum to K."""
        return np.diff(np.append(self.first, self.K + 1))

    @property
    def evaluations(self) -> int:
        """Network evaluations per image."""
        return len(self.first) * self.draws

    def draw(self, u: np.ndarray) -> np.ndarray:
        """Timesteps [N, S * draws] from uniform numbers of that shape in [0, 1)."""
        first, widths = np.repeat(self.first, self.draws), np.repeat(self.widths, self.draws)
        return first + (u * widths).astype(np.int64)

    @property
    def weights(self) -> np.ndarray:
        """[S * draws] how many terms of the bound each draw stands for; they sum to K."""
        return np.repeat(self.widths / self.draws, self.draws)


def every_step(K: int) -> Strata:
    """The full bound: each t once."""
    return Strata(K, np.arange(1, K + 1), 1)


def widening(K: int, singles: int = SINGLE_STEPS, widening_strata: int = WIDENING_STRATA) -> Strata:
    """Strata of one step each at the beginning, then others whose widths grow geometrically.

    Terms fall about as fast as the strata widen, so each counts alike: importance sampling with a
    proposal that is the same for all networks, whose differences stay paired. Every step once where
    that takes no more evaluations.
    """
    singles = min(singles, K)
    edges = np.geomspace(singles + 1, K + 1, widening_strata + 1)[:-1] if singles < K else []
    first = np.unique(np.rint([*range(1, singles + 1), *edges]).astype(np.int64))
    first = first[first <= K]  # short chains round the last edge past the end
    return Strata(K, first, DRAWS) if len(first) * DRAWS < K else every_step(K)


STRATA = {"full": every_step, "stratified": widening}


@torch.inference_mode()
def prior_term(diffusion: Diffusion, x0: Tensor) -> Tensor:
    """L_T = KL(q(x_T | x_0) || N(0, I)) in bits/dim, [N] (eq. 7)."""
    zero = torch.zeros((), dtype=x0.dtype, device=x0.device)
    return mean_flat(kl(diffusion.q_prior(x0), Gaussian(zero, zero))) * BITS_PER_NAT


@torch.inference_mode()
def bound_terms(
    denoise: Denoise,
    diffusion: Diffusion,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    variance: ReverseVariance,
    clip: bool = True,
) -> Tensor:
    """Terms of the bound at (image, t) pairs in bits/dim, [N].

    x0: [N, C, H, W] in [-1, 1], levels of 256;  t: [N] in 1..K;  eps: noise like x0.
    clip: the predicted x_0 is kept within [-1, 1], as in the paper's evaluation.
    """
    x_t = diffusion.q_sample(x0, t, eps)
    return bound_term(diffusion, denoise(x_t, t), x0, x_t, t, variance, clip)


@dataclass(frozen=True)
class Bound:
    """The bound for N images from E evaluations each, in bits/dim.

    prior: [N] L_T;  t: [N, E] evaluated steps;  terms: [N, E] their terms;  strata: the plan.
    """

    prior: np.ndarray
    t: np.ndarray
    terms: np.ndarray
    strata: Strata

    @property
    def per_image(self) -> np.ndarray:
        """[N] unbiased estimate of each image's bound."""
        return self.prior + self.terms @ self.strata.weights

    @property
    def mean(self) -> float:
        return float(self.per_image.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, for the population of images: spread between images and the estimator's."""
        return float(self.per_image.std(ddof=1) / len(self.prior) ** 0.5)

    @property
    def estimator_error(self) -> float:
        """Standard error of the mean for these very images, from the spread within strata.

        NaN with one draw per stratum, as in the full bound, where only eps is random.
        """
        draws = self.strata.draws
        if draws < 2:
            return float("nan")
        spread = self.terms.reshape(len(self.terms), -1, draws).var(axis=2, ddof=1) / draws
        return float(np.sqrt((spread @ self.strata.widths**2).mean() / len(self.terms)))

    def by_step(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the terms at each t and number of evaluations there: two tables [K + 1]."""
        size = self.strata.K + 1
        flat = self.t.ravel()
        return np.bincount(flat, self.terms.ravel(), size), np.bincount(flat, minlength=size)
