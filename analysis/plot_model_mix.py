"""Figure 13: where along the chain each objective has the smaller terms, and both networks in one.

What to look for: the ratio above 1 at both ends of the chain, where L_vlb is better, and below 1
in the middle; and whether the mixed model's bound is below both networks' while its samples stay
near those of L_hybrid (appendix D).

    python analysis/plot_model_mix.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis import curves
from analysis.load import Results, measured, printed, read_arrays
from analysis.plots import GREY, line, subplots
from analysis.publish import publish
from core.command import start
from core.errors import Refused

PARTS = 80  # of the chain; the ends that the paper mixes are two of them each
# A line of the table: row of the grid, suffix of its measurements, what the paper's numbers are of.
LINES = {
    "L_hybrid": (0, "", {"table_or_figure": "table1", "iters": 1_500_000, "objective": "hybrid"}),
    "L_vlb": (1, "", {"table_or_figure": "table1", "iters": 1_500_000, "objective": "vlb"}),
    "both": (0, "_mix", {"table_or_figure": "appD"}),
}


def table(results: Results) -> pd.DataFrame:
    """A line for each network and one for both: "mean ± s.e." of NLL and FD, and the paper's."""
    lines = []
    for name, (row, suffix, where) in LINES.items():
        ours = {
            column: curves.words_of(curves.points(results, m + suffix, row, "measurement"), digits)
            for column, m, digits in (("NLL", "nll", 3), (results.fd_short, "fd", 2))
        }
        shown = {column: (words or [curves.HOLE])[0] for column, words in ours.items()}
        paper = {
            "ImageNet 64 NLL": printed(metric="nll_bpd", **where),
            "ImageNet 64 FID": printed(metric="fid10k", **where),
        }
        lines.append({"network": name} | shown | paper)
    return pd.DataFrame(lines)


def every_term(path: Path) -> np.ndarray:
    """[T] the term L_t of each t = 1..T by itself, bits/dim; Refused where one is missing."""
    arrays = read_arrays(path, t=1, term_sum=1, term_count=1)
    if not arrays["term_count"][1:].all():
        raise Refused(f"{path} has not every term of the bound: delete it and its .json", 1)
    return arrays["term_sum"][1:] / arrays["term_count"][1:]


def ratios(results: Results) -> pd.DataFrame:
    """Of L_hybrid's terms to L_vlb's, both as means over each of PARTS parts of the chain.

    Columns x (the part's middle, t/T), mean and se (NaN: one seed) over the seeds that have both;
    empty without.
    """
    lines = results.of("terms").dropna(subset=["arrays"])
    found = []
    for _, own in lines.groupby("seed"):
        if set(own["row"]) == {0, 1}:
            hybrid, vlb = map(every_term, own.sort_values("row")["arrays"])
            parts = zip(np.array_split(hybrid, PARTS), np.array_split(vlb, PARTS))
            found.append([a.mean() / b.mean() for a, b in parts])
    x = (np.arange(PARTS) + 0.5) / PARTS
    each = pd.DataFrame(found, columns=x, dtype=float)
    return pd.DataFrame({"x": x, "mean": each.mean(), "se": each.sem()}).dropna(subset=["mean"])


def main(words: list[str]) -> None:
    results = measured(words, grid="model_mix")
    figure, axes = subplots(2.4)
    found = ratios(results)
    if len(found):
        curves.draw(axes, found, None, **line("L_hybrid") | {"marker": "."})
    axes.axhline(1, color=GREY, linewidth=0.8)
    settings, terms = (results.of(name)["settings"].iloc[0] for name in ("nll_mix", "terms"))
    for edge in (settings.ends, 1 - settings.ends):
        axes.axvline(edge, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="diffusion step $t/T$", ylabel="$L_t$(L_hybrid) / $L_t$(L_vlb)")
    fd = results.of("fd")["settings"].iloc[0]
    caption = (
        "Ratio of the terms of the bound of the networks trained on L_hybrid and on L_vlb, on "
        f"{terms.images} test images, over {100 / PARTS:g} % of the chain at a time. In the mix, "
        f"L_vlb's network takes the first and the last {100 * settings.ends:g} % of the steps "
        f"(dotted). NLL in bits/dim of {settings.images} test images, {results.fd} of "
        f"{fd.images} images in {fd.sampler.steps or 'all'} steps; mean and standard error over "
        "seeds. The paper's columns are other data"
        f"{'' if results.fd_short == 'FID' else ' and other features'}."
    )
    publish(results, figure, caption, [("Each network and both in one", table(results))])


if __name__ == "__main__":
    start(main)
