"""Curves along an axis, and power laws fitted to them."""

import numpy as np
import pandas as pd
import pytest

from analysis import curves
from analysis.plots import subplots
from analysis.powerlaw import fit, fit_with_interval


@pytest.mark.parametrize("offset, slope", [(4.0, -0.22), (3.4, -0.17), (0.5, -0.5)])
def test_the_papers_power_laws_are_found_again(offset, slope):
    C = np.geomspace(1e17, 1e20, 12)
    y = offset + (2.5e-19 * C) ** slope
    found = fit(C, y)
    assert found.offset == pytest.approx(offset, rel=1e-3)
    assert found.slope == pytest.approx(slope, rel=2e-3) and found.r2 > 0.999999
    assert found(C) == pytest.approx(y, rel=1e-6)
    assert fit(C, y, offset).slope == pytest.approx(slope, rel=1e-9)


def test_the_interval_of_a_slope_holds_it_about_as_often_as_it_says():
    numbers, C, inside = np.random.default_rng(0), np.geomspace(1, 1000, 24), 0
    for _ in range(60):
        y = 2 + np.exp(-0.3 * np.log(C) + 0.05 * numbers.normal(size=len(C)))
        low, high = fit_with_interval(C, y, offset=2.0).interval
        inside += low < -0.3 < high
    assert 48 <= inside <= 60


def test_a_power_law_needs_points():
    with pytest.raises(ValueError, match="four points"):
        fit(np.array([1.0, 2, 3]), np.array([3.0, 2, 1]))


def test_a_band_is_one_standard_error_about_the_mean_and_a_single_seed_has_none():
    each = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]])
    axes = subplots(2)[1]
    curves.band(axes, np.array([5, 6]), each[:1], color="red")
    assert not axes.collections and np.isnan(curves.over_seeds(each[:1])[1]).all()
    curves.band(axes, np.array([5, 6]), each, "three", color="red")
    assert axes.lines[1].get_ydata() == pytest.approx([2, 2])
    (filled,) = axes.collections
    at_5 = [y for x, y in filled.get_paths()[0].vertices if x == 5]
    assert min(at_5) == pytest.approx(2 - 3**-0.5) and max(at_5) == pytest.approx(2 + 3**-0.5)


def test_running_means_keep_length_and_level():
    assert curves.smoothed(np.ones(7), 3) == pytest.approx(np.ones(7))
    assert curves.smoothed(np.array([0.0, 3, 6]), 1) == pytest.approx([1.5, 3, 4.5])
    assert curves.smoothed(np.arange(9.0), 0) == pytest.approx(np.arange(9.0))


def test_a_table_of_curves_shows_holes():
    a = pd.DataFrame({"x": [1, 2], "mean": [0.5, 0.25], "se": [0.01, np.nan], "n": [2, 1]})
    table = curves.table({"a": a, "b": a[:1]}, [1.0, 2.0], 2)  # numbers become floats by holes
    assert table.to_dict("list") == {
        "": ["a", "b"],
        "1": ["0.50 ± 0.01", "0.50 ± 0.01"],
        "2": ["0.25", "—"],
    }


@pytest.mark.parametrize(
    "second, words",
    [
        ([3.0, 2.0, 0.5], "at 0.38"),  # 1 above at 0.25, 1 below at 0.5
        ([1.0, 2.0, 0.5], "before 0.25"),
        ([1.0, 3.5, 0.5], "at 0.75"),  # to stay: what was before does not count
        ([3.0, 3.5, 0.7], "at 0.81"),
        ([4.0, 3.5, 1.2], "not yet, 0.2 above and closing"),
        ([4.0, 3.1, 1.2], "not yet, 0.2 above and not closing"),
    ],
)
def test_where_a_curve_comes_below_another_to_stay(second, words):
    x, first = [0.25, 0.5, 1.0], [2.0, 3.0, 1.0]
    found = [pd.DataFrame({"x": x, "mean": y}) for y in (first, second)]
    assert curves.crossing(*found) == words
    assert curves.crossing(found[0][:0], found[1]) == "not measured"


def test_no_crossing_is_told_without_common_points():
    found = [pd.DataFrame({"x": [x], "mean": [1.0]}) for x in (0.5, 1.0)]
    assert curves.crossing(*found) == "not measured"
