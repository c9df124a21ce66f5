"""Power laws with an offset, as the paper fits them in Figure 10: y = offset + (b C)^slope."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

DRAWS = 200  # bootstrap samples behind an interval


@dataclass(frozen=True)
class PowerLaw:
    """A fit; interval: of the slope, the middle 95 % of bootstrap fits; r2: of log(y - offset)."""

    offset: float
    log_b: float
    slope: float
    r2: float
    interval: tuple[float, float] = (float("nan"), float("nan"))

    def __call__(self, C: np.ndarray) -> np.ndarray:
        return self.offset + np.exp(self.slope * (self.log_b + np.log(C)))


def fit(C: np.ndarray, y: np.ndarray, offset: float | None = None) -> PowerLaw:
    """By least squares in log(y - offset); the offset too, if none is given, below all of y.

    Both arrays [n], n >= 4, positive. Raises ValueError for fewer points.
    """
    if len(C) < 4:
        raise ValueError("a power law with an offset needs at least four points")
    if offset is None:
        # Over fractions of the smallest y: the sum of squares in log y has one valley there.
        def error(fraction: np.ndarray) -> np.ndarray:
            share = 1 / (1 + np.exp(-fraction[0]))
            return _line(C, y, share * y.min())[2]

        starts = [least_squares(error, [start]) for start in (-4.0, 0.0, 2.0)]
        best = min(starts, key=lambda found: found.cost)
        offset = float(y.min() / (1 + np.exp(-best.x[0])))
    slope, log_b, residuals = _line(C, y, offset)
    spread = np.log(y - offset)
    r2 = 1 - (residuals**2).sum() / ((spread - spread.mean()) ** 2).sum()
    return PowerLaw(offset, log_b, slope, float(r2))


def fit_with_interval(
    C: np.ndarray, y: np.ndarray, offset: float | None = None, seed: int = 0
) -> PowerLaw:
    """As `fit`; the interval by drawing points with replacement, the same for the same seed."""
    found, numbers, slopes = fit(C, y, offset), np.random.default_rng(seed), []
    while len(slopes) < DRAWS:
        chosen = numbers.integers(len(C), size=len(C))
        if len(np.unique(C[chosen])) >= 3:
            slopes.append(fit(C[chosen], y[chosen], offset).slope)
    low, high = np.quantile(slopes, [0.025, 0.975])
    return PowerLaw(found.offset, found.log_b, found.slope, found.r2, (float(low), float(high)))


def _line(C: np.ndarray, y: np.ndarray, offset: float) -> tuple[float, float, np.ndarray]:
    """Slope, log b and residuals of log(y - offset) = slope (log b + log C)."""
    slope, intercept = np.polyfit(np.log(C), np.log(y - offset), 1)
    residuals = np.log(y - offset) - (slope * np.log(C) + intercept)
    return float(slope), float(intercept / slope), residuals
