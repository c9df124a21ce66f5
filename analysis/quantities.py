"""The numbers that claims compare, one for each seed: measured values and what follows from them.

A cell of a claim is a measurement of a study, by its name and the words of its row and axes:

    {of: nll, T: 4K, schedule: cosine, objective: L_hybrid}

`field: recall` takes another number of its result. `over: at, take: least` looks along an axis:
`least` and `last` and `first` are values, `where_least` is the place of the least. `quantity: NAME`
is one of the functions below, `closed: NAME` a formula that needs no measurement.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import Results
from analysis.plot_model_mix import every_term
from analysis.plot_model_size import law
from analysis.plot_vlb_terms import Terms, terms
from core.diffusion.schedules import cosine, linear
from core.training import number
from experiments.records import log_of

HOW = ("of", "field", "over", "take", "quantity", "closed", "arguments")


class NoSuchPoint(Exception):
    """The study has no such row or point at this scale."""


def value(results: Results | None, spec: dict[str, Any], seed: int) -> float:
    """A cell's number for one seed, NaN where it is not measured. Raises NoSuchPoint."""
    arguments = spec.get("arguments", {})
    if "closed" in spec:
        return CLOSED[spec["closed"]](**arguments)
    lines = results.of(spec["of"])
    lines = lines[lines["seed"] == seed]
    for name, wanted in spec.items():
        if name not in HOW:
            wanted = wanted if isinstance(wanted, list) else [wanted]
            lines = lines[lines[name].isin(wanted)]
    if lines.empty:
        raise NoSuchPoint(f"scale {results.grid.scale} leaves out what this compares")
    if "quantity" in spec:
        if lines["value"].isna().any():
            return float("nan")
        return QUANTITIES[spec["quantity"]](results, lines, **arguments)
    numbers = lines["value"]
    if "field" in spec:
        numbers = lines["result"].map(lambda result: result.get(spec["field"], np.nan))
    if "over" in spec:
        return along(lines[spec["over"]].to_numpy(float), numbers.to_numpy(float), spec["take"])
    if len(lines) > 1:
        raise ValueError(f"{len(lines)} measurements, not one, are {spec}")
    return float(numbers.iloc[0])


def along(x: np.ndarray, y: np.ndarray, take: str) -> float:
    """`least`, `first` or `last` of y in the order of x, or `where_least`; NaN with a hole in y.

    The place of an inner least is the vertex of the parabola through it and its neighbours.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if np.isnan(y).any():
        return float("nan")
    if take == "least":
        return float(y.min())
    if take in ("first", "last"):
        return float(y[0 if take == "first" else -1])
    i = int(np.argmin(y))
    if i in (0, len(y) - 1):
        return float(x[i])
    a, b, _ = np.polyfit(x[i - 1 : i + 2] - x[i], y[i - 1 : i + 2], 2)
    return float(x[i] - b / (2 * a)) if a > 0 else float(x[i])


def _terms(lines: pd.DataFrame) -> Terms:
    """All NaN where the terms are not stored."""
    T, hole = lines["config"].iloc[0].diffusion.T, np.array([np.nan])
    return terms(lines, T) or Terms(T, hole, np.array([T]), hole, hole, float("nan"))


def bound_between(results: Results, lines: pd.DataFrame, first: float, last: float) -> float:
    """What the steps from `first` T to `last` T carry of the bound, bits/dim."""
    one = lines.iloc[0]
    if one["settings"].estimator == "full" and one["arrays"] is not None:
        each = every_term(one["arrays"])
        return float(each[round(first * len(each)) : round(last * len(each))].sum())
    found = _terms(lines)
    share = found.share_up_to(round(last * found.T)) - found.share_up_to(round(first * found.T))
    return share * found.bound


def largest_percent(results: Results, lines: pd.DataFrame) -> float:
    """The most that any 1 % of the steps but the first carries of the bound, bits/dim."""
    found = _terms(lines)
    edges = [found.share_up_to(round(i * found.T / 100)) for i in range(1, 101)]
    return float(np.diff(edges).max()) * found.bound


def decades(results: Results, lines: pd.DataFrame) -> float:
    """log10 of the largest term of the bound over the smallest."""
    term = _terms(lines).term
    return float(np.log10(term.max() / term.min()))


def _second_half(lines: pd.DataFrame) -> np.ndarray:
    """The bound on training batches as logged in the second half of the training."""
    logged = [number(entry.get("vlb")) for entry in log_of(lines["folder"].iloc[0])]
    return np.array(logged[len(logged) // 2 :])


def late_spread(results: Results, lines: pd.DataFrame) -> float:
    """Standard deviation from one logged bound to the next in the second half, bits/dim."""
    found = _second_half(lines)
    return float(np.diff(found).std(ddof=1)) if len(found) > 2 else float("nan")


def power_law(results: Results, lines: pd.DataFrame, give: str) -> float:
    """`slope` or `r2` of y = offset + (b C)^slope over the points of all widths, C the compute."""
    return float(getattr(law(results, lines), give))


def least_variance_ratio(T: int) -> float:
    """min over t >= T/10 of beta_tilde_t / beta_t, linear schedule (Figure 1)."""
    schedule = linear(T)
    late = schedule.t >= 0.1 * T
    return float((schedule.beta_tilde[late] / schedule.beta[late]).min())


def least_alpha_bar_gap(T: int) -> float:
    """min over 0 < t/T <= 0.99 of cosine's alpha_bar less linear's (Figure 5)."""
    gap, t = cosine(T).alpha_bar - linear(T).alpha_bar, cosine(T).t
    return float(gap[(t > 0) & (t <= 0.99 * T)].min())


def first_step(T: int) -> float:
    """sqrt(beta_1) of the cosine schedule (section 3.2)."""
    return float(np.sqrt(cosine(T).beta[1]))


QUANTITIES: dict[str, Callable[..., float]] = {
    f.__name__: f for f in (bound_between, largest_percent, decades, late_spread, power_law)
}
CLOSED: dict[str, Callable[..., float]] = {
    f.__name__: f for f in (least_variance_ratio, least_alpha_bar_gap, first_step)
}
