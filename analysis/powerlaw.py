"""Power laws with an offset, as the paper fits them in Figure 10: y = offset + (b C)^slope."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares


@dataclass(frozen=True)
class PowerLaw:
    """A fit; offset in the unit of y, log_b of 1 / C; r2: of log(y - offset)."""

    offset: float
    log_b: float
    slope: float
    r2: float

    def __call__(self, C: np.ndarray) -> np.ndarray:
        """y at each C; of its shape."""
        return self.offset + np.exp(self.slope * (self.log_b + np.log(C)))


def fit(C: np.ndarray, y: np.ndarray) -> PowerLaw:
    """By least squares in log(y - offset), over offsets from 0, their bound, to the least y.

    Both arrays [n], n >= 4, positive. Raises ValueError for fewer points.
    """
    if len(C) < 4:
        raise ValueError("a power law with an offset needs at least four points")

    # Over fractions of the smallest y: the sum of squares in log y has one valley there.
    def error(fraction: np.ndarray) -> np.ndarray:
        share = 1 / (1 + np.exp(-fraction[0]))
        return _line(C, y, share * y.min())[2]

    starts = [least_squares(error, [start]) for start in (-4.0, 0.0, 2.0)]
    best = min(starts, key=lambda found: found.cost)
    offset = float(y.min() / (1 + np.exp(-best.x[0])))
    if (_line(C, y, 0.0)[2] ** 2).sum() / 2 <= best.cost * (1 + 1e-6):
        offset = 0.0  # the sigmoid only comes near to it
    slope, log_b, residuals = _line(C, y, offset)
    spread = np.log(y - offset)
    r2 = 1 - (residuals**2).sum() / ((spread - spread.mean()) ** 2).sum()
    return PowerLaw(offset, log_b, slope, float(r2))


def _line(C: np.ndarray, y: np.ndarray, offset: float) -> tuple[float, float, np.ndarray]:
    """Slope, log b and residuals of log(y - offset) = slope (log b + log C)."""
    slope, intercept = np.polyfit(np.log(C), np.log(y - offset), 1)
    residuals = np.log(y - offset) - (slope * np.log(C) + intercept)
    return float(slope), float(intercept / slope), residuals
