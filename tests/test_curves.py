"""Curves along an axis, and power laws fitted to them."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis import curves, plot_model_size
from analysis.plot_model_size import in_words, laws
from analysis.plots import subplots
from analysis.powerlaw import PowerLaw, fit
from analysis.verdicts import Comparison


@pytest.mark.parametrize("offset, slope", [(4.0, -0.22), (3.4, -0.17), (0.5, -0.5)])
def test_the_papers_power_laws_are_found_again(offset, slope):
    C = np.geomspace(1e17, 1e20, 12)
    y = offset + (2.5e-19 * C) ** slope
    found = fit(C, y)
    assert found.offset == pytest.approx(offset, rel=1e-3)
    assert found.slope == pytest.approx(slope, rel=2e-3) and found.r2 > 0.999999
    assert found(C) == pytest.approx(y, rel=1e-6)


@pytest.mark.parametrize("slope", [-0.17, -0.7])
def test_an_offset_at_its_bound_is_exactly_there(slope):
    C = np.geomspace(1e12, 1e15, 24)
    y = (3e-13 * C) ** slope
    found = fit(C, y)
    assert found.offset == 0 and found.slope == pytest.approx(slope) and found.r2 > 1 - 1e-9
    assert found(C) == pytest.approx(y)
    assert fit(C, y - 0.2 * y.min()).offset == 0  # the offset of the least squares is negative


def test_scatter_moves_an_offset_to_neither_side():
    C, numbers, found = np.geomspace(1, 1000, 24), np.random.default_rng(0), []
    for _ in range(100):
        y = (2 + C**-0.4) * np.exp(0.01 * numbers.normal(size=24))
        found.append(fit(C, y))
    assert np.median([one.offset for one in found]) == pytest.approx(2, abs=0.02)
    assert np.median([one.slope for one in found]) == pytest.approx(-0.4, abs=0.02)


def trained(monkeypatch, seeds: int, scatter: float) -> SimpleNamespace:
    """Results of four widths on y = 2 + C^-0.4; each seed is off by a factor, each point by one."""
    spent, numbers = (0.3, 0.6, 1.0, 2.1), np.random.default_rng(0)  # C of a whole training
    monkeypatch.setattr(plot_model_size, "compute", lambda results, row: spent[row])
    lines = []
    for seed in range(seeds):
        off = 0.1 * numbers.normal()
        for row, at in product(range(4), (0.01, 0.03, 0.1, 0.3, 1.0)):
            law = (spent[row] * at) ** -0.4 * np.exp(off + scatter * numbers.normal())
            lines.append({"row": row, "at": at, "seed": seed, "value": 2 + law})
    frame = pd.DataFrame(lines)
    return SimpleNamespace(of=lambda name: frame)


def test_the_interval_over_seeds_holds_the_planted_law_about_as_often_as_it_says(monkeypatch):
    found = laws(trained(monkeypatch, seeds=60, scatter=0.01), "fd")
    assert len(found) == 60
    for true, values in ((-0.4, [one.slope for one in found]), (2, [one.offset for one in found])):
        groups = [Comparison(one).interval for one in np.reshape(values, (20, 3))]
        assert 16 <= sum(low < true < high for low, high in groups) <= 20
        assert np.median([high - low for low, high in groups]) < 0.2 * abs(true)


def test_a_single_seed_shows_no_interval_and_one_with_a_hole_no_law(monkeypatch):
    results = trained(monkeypatch, seeds=2, scatter=0.01)
    assert "(" in in_words(laws(results, "fd"), -0.22, 4)["slope"]
    results.of("fd").loc[39, "value"] = np.nan
    said = in_words(laws(results, "fd"), -0.22, 4)
    assert said["seeds"] == "1" and not any("(" in cell for cell in said.values())
    assert float(said["slope"]) == pytest.approx(-0.4, abs=0.05)
    results.of("fd").loc[0, "value"] = np.nan
    assert laws(results, "fd") == []


def test_laws_are_told_by_their_mean_over_seeds_and_student_s_interval():
    found = [PowerLaw(*law) for law in ((0, 1, -0.5, 0.9), (0, 1, -0.4, 0.7), (1, 1, -0.3, 0.8))]
    # Of three seeds t = 4.303; their standard errors are 0.1 / sqrt(3) and 1 / 3.
    assert in_words(found, -0.22, 4) == {
        "slope": "-0.40 (-0.65 to -0.15)",
        "the paper's slope": "-0.22",
        "offset": "0.33 (-1.10 to 1.77), at its bound in 2 of 3 seeds",
        "the paper's offset": "4.00",
        "R² of log y": "0.800",
        "seeds": "3",
    }
    assert in_words(found[:2], -0.22, 4)["offset"] == "0.00, at its bound"


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
