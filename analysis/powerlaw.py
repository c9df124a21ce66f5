"""Power laws with an offset, as the paper fits them in Figure 10: y = offset + (b C)^slope."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares


@dataclass(frozen=True)
class PowerLaw:
    """A fit; offset in the unit of y, log_b of 1 / C; r2: of log y."""

    offset: float
    log_b: float
    slope: float
    r2: float

    def __call__(self, C: np.ndarray) -> np.ndarray:
        """y at each C; of its shape."""
        return self.offset + np.exp(self.slope * (self.log_b + np.log(C)))


def fit(C: np.ndarray, y: np.ndarray) -> PowerLaw:
    """By least squares in log y, over offsets from 0, their bound, to the least y.

    Not in log(y - offset), whose spread depends on the offset: where points scatter its least sum
    of squares is at an offset near 0, whatever the true one. Both arrays [n], n >= 4, positive.
    Raises ValueError for fewer points.
    """
    if len(C) < 4:
        raise ValueError("a power law with an offset needs at least four points")
    x, log_y = np.log(C) - np.log(C).mean(), np.log(y)

    def residuals(law: np.ndarray) -> np.ndarray:
        share, level, slope = law
        return np.logaddexp(np.log(share * y.min()), level + slope * x) - log_y

    bounds = [(1e-12, -np.inf, -np.inf), (1, np.inf, np.inf)]
    starts = [(s, *np.polyfit(x, np.log(y - s * y.min()), 1)[::-1]) for s in (0.1, 0.5, 0.9)]
    found = [least_squares(residuals, start, bounds=bounds, x_scale="jac") for start in starts]
    best = min(found, key=lambda one: one.cost)
    share, (level, slope) = 0.0, np.polyfit(x, log_y, 1)[::-1]
    left = level + slope * x - log_y
    if (left**2).sum() > 2 * best.cost * (1 + 1e-6):
        (share, level, slope), left = best.x, best.fun
    r2 = 1 - (left**2).sum() / ((log_y - log_y.mean()) ** 2).sum()
    log_b = level / slope - np.log(C).mean()
    return PowerLaw(float(share * y.min()), float(log_b), float(slope), float(r2))
