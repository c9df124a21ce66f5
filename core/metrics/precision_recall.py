"""Precision and recall of a set of drawn images, by nearest neighbours in feature space.

Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models",
eqs 1 and 2: a set's manifold is the union of balls around its points, each as far as the k-th
nearest other point of the set.
"""

import numpy as np

from core.errors import Refused

ROWS = 1024  # of a matrix of distances that is held at once
# From so many features on distances come from products of matrices, many times faster, and exact to
# about 1e-7 of the vectors' lengths.
BY_PRODUCTS = 256


def precision_recall(real: np.ndarray, drawn: np.ndarray, k: int) -> tuple[float, float]:
    """(precision, recall) of features [n, d] and [m, d], each in [0, 1].

    Precision is the share of drawn points on the manifold of the real ones, recall the share of
    real points on that of the drawn ones. Both depend on n and m. Refused when a set has no k-th
    other point.
    """
    if k >= min(len(real), len(drawn)):
        raise Refused(f"{k} neighbours need more than {k} images, not {min(len(real), len(drawn))}")
    return _share_on_manifold(drawn, real, k), _share_on_manifold(real, drawn, k)


def _share_on_manifold(points: np.ndarray, of: np.ndarray, k: int) -> float:
    """The share of points within the k-th neighbour's distance of at least one of the others."""
    # Column 0 of the sorted distances within a set is the point itself.
    radii = np.concatenate([np.partition(d, k, axis=1)[:, k] for d in _distances(of, of)])
    inside = [(distances <= radii).any(axis=1) for distances in _distances(points, of)]
    return float(np.concatenate(inside).mean())


def _distances(a: np.ndarray, b: np.ndarray):
    """Blocks of rows of the Euclidean distances [len(a), len(b)]."""
    if a.shape[1] < BY_PRODUCTS:
        from scipy.spatial.distance import cdist  # late: a fifth of what any program would import

        for first in range(0, len(a), ROWS):
            yield cdist(a[first : first + ROWS], b)
        return
    squares = (b * b).sum(axis=1)
    for first in range(0, len(a), ROWS):
        some = a[first : first + ROWS]
        found = some @ b.T
        found *= -2
        found += squares
        found += (some * some).sum(axis=1)[:, None]
        yield np.sqrt(found.clip(min=0, out=found), out=found)
