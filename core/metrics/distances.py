"""The Frechet distance between two sets of features.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", section 4: with Inception features the distance is FID. It takes each set for a
Gaussian, so that only means and covariances enter.
"""

from collections.abc import Callable

import numpy as np

from core.errors import Refused
from core.randomness import numpy_generator

DRAWS = 50  # of the bootstrap


def frechet(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians in d dimensions, never negative.

    |mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), in squared feature units
    (Dowson & Landau 1982). The means are [d], the covariances symmetric [d, d] without negative
    eigenvalues; singular ones are fine.
    """
    # cov_a cov_b has the eigenvalues of the symmetric root_a cov_b root_a, which a symmetric solver
    # finds without the complex parts and instabilities of a general matrix square root. Rounding
    # can make eigenvalues that are zero slightly negative.
    values, vectors = np.linalg.eigh(np.asarray(cov_a, np.float64))
    root_a = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root_a @ np.asarray(cov_b, np.float64) @ root_a
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)
    difference = np.asarray(mean_a, np.float64) - mean_b
    spread = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(eigenvalues).sum()
    return max(0.0, float(difference @ difference + spread))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and covariance [d, d] (divisor n - 1) in float64 of features [n, d].

    Raises Refused when n <= d: the covariance is then singular and the distance misleading.
    """
    n, d = features.shape
    if n <= d:
        raise Refused(f"{n} images are too few for {d} features: at least {d + 1} are needed")
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    return mean, centred.T @ centred / (n - 1)


def frechet_from_features(a: np.ndarray, b: np.ndarray) -> float:
    """`frechet` between the moments of two sets of features, [n, d] and [m, d]."""
    return frechet(*moments(a), *moments(b))


def bootstrap_error(
    features: np.ndarray,
    reference: tuple[np.ndarray, np.ndarray],
    seed: int,
    tell: Callable[[str], None] = lambda words: None,
) -> float:
    """Standard error of `frechet` by the sample of features [n, d], in squared feature units.

    The spread over sets of n drawn from it with replacement (Efron 1979), which have larger
    distances than the sample itself, but the same spread. The reference's moments count as exact.
    tell: told how far it is, in words, after each.
    """
    n, found = len(features), []
    for i in range(DRAWS):
        chosen = numpy_generator(seed, "fd bootstrap", i).integers(n, size=n)
        found.append(frechet(*moments(features[chosen]), *reference))
        tell(f"standard error: {i + 1} of {DRAWS} draws")
    return float(np.std(found, ddof=1))
