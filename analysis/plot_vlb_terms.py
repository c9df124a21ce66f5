"""Figure 2: the terms of the variational bound against t, for the trained rows or by variance.

Above, as in the paper: each term L_t on a log scale. Below: what share of the bound the steps up to
t carry. Of a grid that measures each network with several variances (variance_ablation): the last
row's network with each of them and, below, where along t they gain or lose bits beside the first.

What to look for: the first few of thousands of steps hold most of the bound, which is why uniformly
drawn t make L_vlb so noisy, and why likelihoods with few steps must keep them all. By variance,
too, nearly all differences arise there.

    python analysis/plot_vlb_terms.py [grid=NAME] [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import curves
from analysis.load import Results, measured, read_arrays
from analysis.plots import GREY, line, save, subplots
from analysis.script import say_written
from analysis.table_variance_ablation import VARIANCES
from analysis.tables import in_words, number
from core.command import start
from core.diffusion.likelihood import widening
from core.errors import Refused

GRID = "schedule_ablation"
PARTS = 4  # bins per stratum of the estimator: enough draws in each for a smooth curve
# Of the variances, in the colours of the objectives that are measured with them.
LOOKS = {
    "beta": line("L_simple") | {"linewidth": 2.8},
    "beta_tilde": {"color": "#333333", "linestyle": "--"},
    "learned": line("L_hybrid") | {"linewidth": 1.0},
}


@dataclass(frozen=True)
class Terms:
    """The bound of one row along t, mean over images and seeds, in bits/dim.

    t: [B] centre of each bin (geometric);  last: [B] its last step;  term: [B] mean L_t in it;
    share: [B] of the whole bound carried by the steps up to `last`;  bound: the whole.
    """

    T: int
    t: np.ndarray
    last: np.ndarray
    term: np.ndarray
    share: np.ndarray
    bound: float

    @property
    def up_to(self) -> np.ndarray:
        """[B] sum of the terms of the steps up to `last`, in bits/dim."""
        return self.share * self.bound

    def share_up_to(self, t: int) -> float:
        """Share of the bound that the steps 1..t carry, interpolated within a bin."""
        return float(np.interp(t, np.append(0, self.last), np.append(0, self.share)))


def terms(lines: pd.DataFrame, T: int) -> Terms | None:
    """Joins the stored sums per step of all seeds; None when nothing is stored."""
    total, count = np.zeros(T + 1), np.zeros(T + 1)
    for path in lines["arrays"].dropna():
        arrays = read_arrays(path, t=1, term_sum=1, term_count=1)
        if len(arrays["t"]) == T + 1:  # not a bound over a subset of the steps
            total += arrays["term_sum"]
            count += arrays["term_count"]
    if not count.any():
        return None
    first, last = _bins(T)
    which = np.searchsorted(first, np.arange(1, T + 1), side="right") - 1
    sums = np.bincount(which, total[1:], len(first))
    counts = np.bincount(which, count[1:], len(first))
    mean = sums / np.maximum(counts, 1)
    carried = np.cumsum(mean * (last - first + 1))
    return Terms(T, np.sqrt(first * last), last, mean, carried / carried[-1], float(carried[-1]))


def _bins(T: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last t of bins that subdivide the likelihood estimator's strata."""
    edges = np.append(widening(T).first, T + 1)
    fine = [
        np.unique(np.rint(np.linspace(a, b, PARTS + 1)).astype(int))[:-1]
        for a, b in pairwise(edges)
    ]
    first = np.concatenate(fine)
    return first, np.append(first[1:] - 1, T)


def by_seed(lines: pd.DataFrame, T: int) -> dict[int, Terms]:
    """`terms` of each seed that has some stored."""
    found = {seed: terms(mine, T) for seed, mine in lines.groupby("seed")}
    return {seed: each for seed, each in found.items() if each is not None}


def _bounds(lines: pd.DataFrame, *axes: str) -> int:
    """The most bounds that there are of a network with the same values on these axes."""
    return lines.groupby(["row", "seed", *axes], dropna=False).size().max()


def main(words: list[str]) -> None:
    results = measured(words, "nll", grid=GRID)
    lines = results.of("nll")
    several = _bounds(lines) > 1
    if several and ("variance" not in lines or _bounds(lines, "variance") > 1):
        raise Refused(f"{results.grid.name} measures several bounds of a network: this shows one")
    figure, panels = subplots(4.2, nrows=2)
    caption = (draw_variances if several else draw)(results, *panels)
    caption += " " + in_words(results)
    paths = save(figure, f"vlb_terms.{results.name}", results.written / "figures", caption)
    print(caption)
    say_written(paths)


def draw(results: Results, above: Axes, below: Axes) -> str:
    """Terms of each row's network, in bits/dim, and shares of its bound; returns the caption."""
    lines, shares, errors = results.of("nll"), [], []
    for row, words in enumerate(results.grid.rows):
        mine = lines[lines["row"] == row]
        found = list(by_seed(mine, mine["config"].iloc[0].diffusion.T).values())
        label = results.grid.cells[row].words
        if not found:
            shares.append(f"{label}: missing")
            continue
        # T and the schedule decide on the line, the objective on its colour.
        style = line(*reversed([str(word) for word in words.values()]))
        style |= line(str(words.get("objective"))) | {"marker": ""}
        style["linewidth"] = max(1.0, 2.8 - 0.3 * row)  # a covered line shows beside its cover
        of_terms, T = np.array([each.term for each in found]), found[0].T
        curves.band(above, found[0].t / T, of_terms, label, **style)
        curves.band(below, found[0].last / T, np.array([each.share for each in found]), **style)
        shares.append(f"{label} {_first_percent(found)}")
        errors.append(_relative_error(of_terms))
    above.set(xlabel="diffusion step $t/T$")
    below.set(xscale="log", ylim=(0, 1), xlabel="diffusion step $t/T$")
    below.set(ylabel="share of the bound up to $t$")
    _finish(above)
    return (
        f"Terms of the variational bound on {lines['settings'].iloc[0].images} test images, each "
        f"row with its own variance; mean over seeds{_spread(errors)}. Share of the bound in the "
        f"first 1 % of the steps: {', '.join(shares)}."
    )


def draw_variances(results: Results, above: Axes, below: Axes) -> str:
    """Terms of the last row's network with each variance, in bits/dim; returns the caption.

    Below, in bits/dim: the bound up to t with each variance less that with the first, of the same
    network with the same noise. Its last value is the difference of the NLLs.
    """
    lines, row = results.of("nll"), len(results.grid.rows) - 1
    lines, cell = lines[lines["row"] == row], results.grid.cells[row]
    T, ends, shares, errors = cell.config.diffusion.T, [], [], []
    names = list(dict.fromkeys(lines["variance"]))
    base = by_seed(lines[lines["variance"] == names[0]], T)
    for name in names:
        found = by_seed(lines[lines["variance"] == name], T)
        label = VARIANCES.get(name, name)
        if not found:
            shares.append(f"{label}: missing")
            continue
        style = LOOKS.get(name, {"color": GREY, "linestyle": ":"}) | {"marker": ""}
        each = list(found.values())
        of_terms = np.array([one.term for one in each])
        curves.band(above, each[0].t, of_terms, label, **style)
        shares.append(f"{label} {_first_percent(each)}")
        errors.append(_relative_error(of_terms))
        if both := [seed for seed in found if seed in base]:
            less = np.array([found[seed].up_to - base[seed].up_to for seed in both])
            curves.band(below, each[0].last, less, label, **style)
            if name != names[0]:
                ends.append(f"{label} {number(*curves.over_seeds(less[:, -1]), 3)}")
    for axes in (above, below):
        axes.set(xscale="log", xlabel="diffusion step $t$")
    beside = VARIANCES.get(names[0], names[0])
    below.set(ylabel=f"bound up to $t$, less\nthat with {beside} (bits/dim)")
    _finish(above)
    return (
        f"Terms of the variational bound on {lines['settings'].iloc[0].images} test images, of "
        f"the {cell.words} network with each variance; mean over seeds{_spread(errors)}. Below: "
        f"the bound up to t less that with {beside}, of the same network with the same noise; over "
        f"all steps {', '.join(ends) or 'missing'}. Share of the bound in the first 1 % of the "
        f"steps: {', '.join(shares)}."
    )


def _finish(above: Axes) -> None:
    """What both ways to draw the terms have in common."""
    above.set(yscale="log", ylabel="term $L_t$ (bits/dim)")
    if above.lines:
        above.legend(fontsize=6, loc="upper right")


def _first_percent(found: list[Terms]) -> str:
    """The share of the bound that the first 1 % of the steps carry, in words."""
    shares = np.array([100 * each.share_up_to(max(1, each.T // 100)) for each in found])
    return f"{number(*curves.over_seeds(shares), 1)} %"


def _relative_error(of_terms: np.ndarray) -> float:
    """The largest standard error over seeds of terms [seeds, B], as a share of the term."""
    mean, error = curves.over_seeds(of_terms)
    return float(np.max(error[mean > 0] / mean[mean > 0]))


def _spread(errors: list[float]) -> str:
    """What the bands are, if there are any; errors: the relative one of each line."""
    if not np.isfinite(errors).any():
        return ""
    percent = 100 * np.nanmax(errors)
    return f", in a band of one standard error (above, at most {percent:.2g} % of a term)"


if __name__ == "__main__":
    start(main)
