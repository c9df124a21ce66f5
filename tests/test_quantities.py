"""The numbers that claims compare: from a made-up folder of results and by hand."""

import json
import math
from functools import cache

import numpy as np
import pytest

from analysis import load as module
from analysis import plot_model_size
from analysis.load import Results, load
from analysis.plot_model_mix import every_term, ratios
from analysis.quantities import CLOSED, NoSuchPoint, along, value
from core.config import metric_of
from core.errors import Refused
from experiments.files import write_json
from experiments.grid import Grid, expand
from experiments.overrides import parse
from experiments.runs import Runs

X = np.array([0.1, 0.2, 0.4, 0.6, 1.0])


@pytest.mark.parametrize("take, number", [("least", 1), ("first", 7), ("last", 5)])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
def test_values_along_an_axis(take, number, order):
    y = np.array([7.0, 3, 1, 2, 5])
    assert along(X[order], y[order], take) == number


@pytest.mark.parametrize("place", [0.2, 0.31, 0.37, 0.4, 0.5])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3]])
def test_the_place_of_a_parabolas_least_is_its_vertex(place, order):
    y = 3 + 20 * (X - place) ** 2
    assert along(X[order], y[order], "where_least") == pytest.approx(place)


def test_the_place_of_the_least_between_equal_neighbours_and_at_the_edges():
    assert along(np.arange(4.0), np.array([3.0, 1, 1, 3]), "where_least") == pytest.approx(1.5)
    assert along(X, 2 - X, "where_least") == 1.0
    assert along(X[::-1], 2 + X[::-1], "where_least") == 0.1
    assert along(np.array([0.3]), np.array([5.0]), "where_least") == 0.3


@pytest.mark.parametrize("take", ["least", "first", "last", "where_least"])
@pytest.mark.parametrize("hole", range(5))
def test_a_hole_leaves_nothing_to_take(take, hole):
    y = np.array([7.0, 3, 1, 2, 5])
    y[hole] = np.nan
    assert math.isnan(along(X, y, take))


def linear_alpha_bar(T: int) -> list[float]:
    """Entries 0..T; "linear from 1e-4 to 0.02" of a thousand steps, each 1000/T as large."""
    found = [1.0]
    for t in range(1, T + 1):
        beta = (1e-4 + (0.02 - 1e-4) * (t - 1) / (T - 1)) * 1000 / T
        found.append(found[-1] * (1 - beta))
    return found


def cosine_alpha_bar(t: int, T: int) -> float:
    """Equation 17."""
    at, start = ((u / T + 0.008) / 1.008 * math.pi / 2 for u in (t, 0))
    return math.cos(at) ** 2 / math.cos(start) ** 2


@pytest.mark.parametrize("T", [100, 1000, 4000])
def test_closed_formulas_are_the_papers(T):
    linear = linear_alpha_bar(T)
    # beta_tilde over beta is (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t), equation 10.
    late = [(1 - linear[t - 1]) / (1 - linear[t]) for t in range(math.ceil(T / 10), T + 1)]
    assert CLOSED["least_variance_ratio"](T=T) == pytest.approx(min(late), rel=1e-9)
    gaps = [cosine_alpha_bar(t, T) - linear[t] for t in range(1, 99 * T // 100 + 1)]
    assert CLOSED["least_alpha_bar_gap"](T=T) == pytest.approx(min(gaps), rel=1e-6)
    step = math.sqrt(1 - cosine_alpha_bar(1, T))
    assert CLOSED["first_step"](T=T) == pytest.approx(step, rel=1e-6)
    assert value(None, {"closed": "first_step", "arguments": {"T": T}}, 0) == pytest.approx(step)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "reference")
    return tmp_path / "results"


def words_of(name: str) -> list[str]:
    return [f"grid={name}", "scale=smoke", "seeds=[0,1]"]


@cache
def study(name: str) -> Grid:
    return expand(parse(words_of(name)))


def made_up(folder, name: str, measured, log=None, terms=None) -> Results:
    """A study's results at the smallest scale, of two seeds.

    measured(cell, asked): the result, or None for a hole; log: lines of the training; terms: L_t of
    each t, for bounds.
    """
    for cell in study(name).cells:
        run = Runs(folder / "runs").find(cell.run_id, cell.config)
        run.folder.mkdir(parents=True)
        if log is not None:
            (run.folder / "log.jsonl").write_text(log)
        for asked in cell.measurements:
            result = measured(cell, asked)
            if result is None:
                continue
            stored = {"metric": metric_of(asked.settings), "result": result}
            path = run.folder / "measurements" / f"{asked.id}.json"
            write_json(path, stored, durable=False)
            if terms is not None and stored["metric"] == "nll":
                write_terms(run.arrays(asked.id), terms(cell.config.diffusion.T))
    return load(parse(words_of(name), results=folder))


def write_terms(path, term: np.ndarray) -> None:
    """As of many images; every other t was drawn twice as often."""
    count = np.where(np.arange(len(term)) % 2, 30, 60)
    np.savez(path, t=np.arange(len(term)), term_sum=term * count, term_count=count)


def numbered(cell, asked) -> dict:
    """A number that says which row, seed and measurement it is of."""
    row = ["1K linear L_simple", "4K linear L_simple", "4K linear L_hybrid", "4K cosine L_simple"]
    row += ["4K cosine L_hybrid", "4K cosine L_vlb"]
    number = 100 * row.index(cell.words) + 10 * cell.seed + (asked.name == "fd")
    return {metric_of(asked.settings): float(number), "recall": number / 1000}


def test_a_cell_is_one_rows_and_one_seeds_number(folder):
    results = made_up(folder, "schedule_ablation", numbered)
    cell = {"of": "nll", "T": "4K", "schedule": "cosine", "objective": "L_hybrid"}
    assert [value(results, cell, seed) for seed in (1, 0)] == [410, 400]
    assert value(results, cell | {"of": "fd"}, 1) == 411
    assert value(results, cell | {"of": "fd", "field": "recall"}, 1) == 0.411
    assert math.isnan(value(results, cell | {"field": "precision"}, 0))
    assert value(results, {"of": "nll", "T": "1K"}, 0) == 0
    with pytest.raises(ValueError, match="3 measurements, not one"):
        value(results, {"of": "nll", "T": "4K", "schedule": "cosine"}, 0)


@pytest.mark.parametrize(
    "cell", [{"of": "nll", "T": "2K"}, {"of": "nll", "T": "1K", "schedule": "cosine"}, {"of": "v"}]
)
def test_what_the_study_does_not_have_is_no_such_point(folder, cell):
    results = made_up(folder, "schedule_ablation", numbered)
    with pytest.raises(NoSuchPoint, match="scale smoke"):
        value(results, cell, 0)


def test_what_is_not_measured_is_a_hole(folder):
    def first_seed(cell, asked):
        return numbered(cell, asked) if cell.seed == 0 else None

    results = made_up(folder, "schedule_ablation", first_seed)
    assert value(results, {"of": "fd", "T": "1K"}, 0) == 1
    assert math.isnan(value(results, {"of": "fd", "T": "1K"}, 1))
    between = {"quantity": "bound_between", "arguments": {"first": 0, "last": 0.5}}
    assert math.isnan(value(results, {"of": "nll", "T": "1K"} | between, 1))


def test_a_cell_looks_along_one_axis_for_some_values_of_it(folder):
    # By rate of the average and share of the training.
    found = {(0, 0.5): 9.0, (4, 0.5): 4.0, (0, 1.0): 6.0, (4, 1.0): 7.0}

    def fd(cell, asked):
        above = cell.seed + 10 * cell.row["unet.dropout"]
        return {"frechet": found[asked.axes["ema"], asked.axes["at"]] + above}

    results = made_up(folder, "ema_dropout", fd)
    cell = {"of": "fd", "unet.dropout": 0.1}
    along_at = cell | {"over": "at", "take": "least"}
    assert value(results, along_at | {"ema": 0}, 0) == 7
    assert value(results, along_at | {"ema": 4}, 1) == 6
    assert value(results, along_at | {"ema": 4, "take": "where_least"}, 1) == 0.5
    along_ema = cell | {"over": "ema", "take": "least", "at": 1.0}
    assert value(results, along_ema | {"ema": [0, 4]}, 0) == 7
    assert value(results, along_ema | {"ema": [4]}, 0) == 8


def quantity(results, name: str, of="nll", row=None, **arguments) -> float:
    row = row or {"T": "4K", "schedule": "cosine", "objective": "L_hybrid"}
    return value(results, {"of": of, "quantity": name, "arguments": arguments} | row, 0)


def steep(T: int) -> np.ndarray:
    """L_1 is 2 and every other term 0.001; t = 0 has none."""
    return np.array([0.0, 2.0] + [0.001] * (T - 1))


def rising(T: int) -> np.ndarray:
    return np.arange(T + 1) / T


def test_shares_of_the_bound_are_sums_of_terms(folder):
    results = made_up(folder, "schedule_ablation", numbered, terms=steep)
    assert quantity(results, "bound_between", first=0, last=0.01) == pytest.approx(2.039)
    assert quantity(results, "bound_between", first=0, last=1) == pytest.approx(5.999)
    assert quantity(results, "bound_between", first=0.1, last=0.9) == pytest.approx(3.2)
    assert quantity(results, "bound_between", first=0.975, last=1) == pytest.approx(0.1)
    assert quantity(results, "largest_percent") == pytest.approx(0.04)  # of 40 steps
    assert quantity(results, "decades") == pytest.approx(math.log10(2000))
    short = {"T": "1K"}
    assert quantity(results, "bound_between", row=short, first=0, last=0.01) == pytest.approx(2.009)


def test_the_largest_percent_may_be_the_last(folder):
    results = made_up(folder, "schedule_ablation", numbered, terms=rising)
    last = sum(t / 4000 for t in range(3961, 4001))
    assert quantity(results, "largest_percent") == pytest.approx(last, rel=0.1)  # within a bin
    assert quantity(results, "bound_between", first=0.5, last=1) == pytest.approx(1500, rel=0.01)


@pytest.mark.parametrize("name", ["bound_between", "largest_percent", "decades"])
def test_a_bound_whose_terms_are_not_stored_is_a_hole(folder, name):
    results = made_up(folder, "schedule_ablation", numbered)
    arguments = {"first": 0, "last": 0.01} if name == "bound_between" else {}
    assert math.isnan(quantity(results, name, **arguments))


def logged(bounds: list[float]) -> str:
    lines = [json.dumps({"step": 10 * i, "vlb": bound}) for i, bound in enumerate(bounds, 1)]
    return "\n".join([*lines, '{"step": 9999, "vl'])  # cut short by a kill


@pytest.mark.parametrize(
    "bounds, spread",
    [
        # From one to the next of the second half: 2, -3, 2, with mean 1/3.
        ([90, 80, 70, 60, 5, 7, 4, 6], ((25 / 9 + 100 / 9 + 25 / 9) / 2) ** 0.5),
        # However fast it falls, a steady fall is no noise.
        ([90, 80, 70, 60, 50, 40, 30, 20], 0),
        ([90, 5, 7, 4], math.nan),
        ([], math.nan),
    ],
)
def test_the_late_spread_is_of_the_second_half_of_the_log(folder, bounds, spread):
    def one(cell, asked):
        return {metric_of(asked.settings): 1.0}

    results = made_up(folder, "objective_noise", one, log=logged(bounds))
    row = {"objective": "L_vlb", "timesteps": "importance"}
    assert quantity(results, "late_spread", row=row) == pytest.approx(spread, nan_ok=True)


def mixed(folder, by_row) -> Results:
    """model_mix with terms L_t = by_row(row, seed, t)."""

    def one(cell, asked):
        return {metric_of(asked.settings): 1.0}

    results = made_up(folder, "model_mix", one)
    for line in results.of("terms").itertuples():
        path = line.folder / "measurements" / f"{line.measurement_id}.npz"
        write_terms(path, by_row(line.row, line.seed, np.arange(4001.0)))
    return load(results.request)


def test_where_every_term_is_measured_parts_of_the_bound_are_exact(folder):
    """No line through the bins of an estimator: the last steps count by themselves."""
    results = mixed(folder, lambda row, seed, t: np.where(t > 3900, 5.0, 0.001 * (seed + 1)))
    row = {"of": "terms", "objective": "L_vlb"}

    def between(first, last, seed=0):
        arguments = {"first": first, "last": last}
        return value(results, row | {"quantity": "bound_between", "arguments": arguments}, seed)

    assert between(0.975, 1) == pytest.approx(500) == between(0, 1) - between(0, 0.975)
    assert between(0.1, 0.9, seed=1) == pytest.approx(3200 * 0.002)


def test_the_ratio_of_terms_is_each_seeds_own_along_the_chain(folder):
    """L_hybrid's over L_vlb's: 2 in the first eightieth, 1/2 after it, off by a factor per seed."""

    def by_row(row, seed, t):
        return (1 + seed) * np.where(t <= 50, 2.0, 0.5) if row == 0 else np.ones(4001)

    found = ratios(mixed(folder, by_row))
    assert len(found) == 80 and found["x"].iloc[[0, -1]].tolist() == [1 / 160, 159 / 160]
    assert found["mean"].tolist() == pytest.approx([3.0] + [0.75] * 79)
    assert found["se"].tolist() == pytest.approx([1.0] + [0.25] * 79)


def test_a_bound_that_lacks_a_term_is_not_taken_for_every_one(tmp_path):
    count = np.ones(4001)
    count[7] = 0
    np.savez(tmp_path / "a.npz", t=np.arange(4001), term_sum=count, term_count=count)
    with pytest.raises(Refused, match="has not every term"):
        every_term(tmp_path / "a.npz")


@pytest.mark.parametrize("slope", [-0.22, -0.5])
def test_a_planted_power_law_is_found_over_all_widths(folder, monkeypatch, slope):
    C = {0.5: 0.3, 0.75: 0.6, 1.0: 1.0, 1.5: 2.1}  # of a whole training
    monkeypatch.setattr(plot_model_size, "compute", lambda results, row: list(C.values())[row])

    def measured(cell, asked):
        spent = C[cell.row["unet.width"]] * asked.axes["at"]
        law, noise = 2 + spent**slope, math.exp(math.sin(1000 * spent))
        return {"frechet": law} if asked.name == "fd" else {"nll": law * noise}

    results = made_up(folder, "model_size", measured)
    everything = {"at": [0.2, 0.5, 1.0]}
    found = quantity(results, "power_law", "fd", everything, give="slope")
    assert found == pytest.approx(slope, rel=0.01)
    assert quantity(results, "power_law", "fd", everything, give="r2") > 0.9999
    assert quantity(results, "power_law", "nll", everything, give="r2") < 0.9


def test_a_power_law_with_a_hole_is_a_hole(folder):
    def some(cell, asked):
        return {metric_of(asked.settings): 3.0} if asked.axes["at"] < 1 else None

    results = made_up(folder, "model_size", some)
    assert math.isnan(value(results, {"of": "fd", "quantity": "power_law"}, 0))
