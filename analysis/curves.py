"""Curves: mean and standard error over seeds, point by point."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.load import Results
from analysis.tables import HOLE, number, summary


def points(results: Results, measurement: str, row: int, x: str, **where: Any) -> pd.DataFrame:
    """Columns x, mean, se, n of one row, in the order of x; points without a value are left out.

    where: other axes and the value that each must have; dots of their names as double underscores.
    """
    lines = results.of(measurement)
    lines = lines[lines["row"] == row]
    for name, value in where.items():
        lines = lines[lines[name.replace("__", ".")] == value]
    found = summary(lines, [x]).rename(columns={x: "x"})
    return found[found["n"] > 0].sort_values("x", ignore_index=True)


def draw(axes: Axes, found: pd.DataFrame, label: str | None, **style: Any) -> None:
    """A line through the points, with bars of one standard error where there are several seeds."""
    error = None if found["se"].isna().all() else found["se"].fillna(0.0)
    axes.errorbar(
        found["x"].astype(float), found["mean"], error, label=label, elinewidth=0.8, **style
    )


def over_seeds(each: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over seeds, in the unit of `each`; the latter NaN for a single seed.

    each: [seeds, ...], one curve or number of each seed.
    """
    if len(each) == 1:
        return each[0], np.full_like(each[0], np.nan)
    return each.mean(0), each.std(0, ddof=1) / len(each) ** 0.5


def band(
    axes: Axes, x: np.ndarray, each: np.ndarray, label: str | None = None, **style: Any
) -> None:
    """The mean over seeds, in a light band of one standard error where there are several.

    x: [points];  each: [seeds, points];  style: of the line. The standard error of positive
    numbers is at most their mean, so that a logarithmic axis has a place for the band.
    """
    mean, error = over_seeds(each)
    (drawn,) = axes.plot(x, mean, label=label, **style)
    if len(each) > 1:
        look = {"color": drawn.get_color(), "alpha": 0.25, "linewidth": 0}
        axes.fill_between(x, mean - error, mean + error, **look)


def number_points(axes: Axes, xs: list[float]) -> None:
    """A number at each of these places of the x axis, and nowhere else."""
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.xaxis.minorticks_off()


def words_of(found: pd.DataFrame, digits: int) -> list[str]:
    """The points as "mean ± s.e."."""
    return [number(mean, se, digits) for mean, se in zip(found["mean"], found["se"])]


def table(rows: dict[str, pd.DataFrame], xs: list[Any], digits: int) -> pd.DataFrame:
    """One line per curve and one column per x: "mean ± s.e." or a dash."""
    titles = {x: x if isinstance(x, str) else f"{x:g}" for x in xs}
    lines = []
    for name, found in rows.items():
        there = dict(zip(found["x"], words_of(found, digits)))
        lines.append({"": name} | {titles[x]: there.get(x, HOLE) for x in xs})
    return pd.DataFrame(lines)


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean over at most `width` values to either side; of the same length."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    at = np.arange(len(values))
    first, last = np.maximum(0, at - width), np.minimum(len(values), at + width + 1)
    return (total[last] - total[first]) / (last - first)


def crossing(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """Where along the training the second curve comes below the first to stay, in words.

    Between two points by a straight line; `x` is the share of the training done.
    """
    both = first.merge(second, on="x", suffixes=("_1", "_2"))
    ahead = (both["mean_2"] - both["mean_1"]).to_numpy(float)
    if not len(ahead):
        return "not measured"
    if ahead[-1] >= 0:
        trend = "closing" if len(ahead) > 1 and ahead[-1] < ahead[-2] else "not closing"
        return f"not yet, {ahead[-1]:.2g} above and {trend}"
    above = np.flatnonzero(ahead >= 0)
    if not len(above):
        return f"before {both['x'].iloc[0]:g}"
    i = above[-1]
    x, share = both["x"].to_numpy(float), ahead[i] / (ahead[i] - ahead[i + 1])
    return f"at {x[i] + share * (x[i + 1] - x[i]):.2f}"
