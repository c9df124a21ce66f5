"""Figure 13: where along the chain each objective has the smaller terms, and both networks in one.

What to look for: the ratio above 1 at both ends of the chain, where L_vlb is better, and below 1
in the middle; and whether the mixed model's bound is below both networks' while its samples stay
near those of L_hybrid (appendix D).

    python analysis/plot_model_mix.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import numpy as np
import pandas as pd

from analysis import curves
from analysis.load import Results, measured, printed
from analysis.plot_vlb_terms import Terms, terms
from analysis.plots import GREY, line, subplots
from analysis.publish import publish
from core.command import start

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


def ratio(results: Results) -> tuple[Terms, np.ndarray] | None:
    """L_hybrid's terms along t and their ratio to those of L_vlb, or None without both."""
    lines = results.of("nll")
    T = lines["config"].iloc[0].diffusion.T
    hybrid, vlb = (terms(lines[lines["row"] == row], T) for row in (0, 1))
    return None if hybrid is None or vlb is None else (hybrid, hybrid.term / vlb.term)


def main(words: list[str]) -> None:
    results = measured(words, grid="model_mix")
    figure, axes = subplots(2.4)
    if found := ratio(results):
        hybrid, of_terms = found
        axes.plot(hybrid.t / hybrid.T, of_terms, **line("L_hybrid") | {"marker": "."})
    axes.axhline(1, color=GREY, linewidth=0.8)
    settings = results.of("nll_mix")["settings"].iloc[0]
    for edge in (settings.ends, 1 - settings.ends):
        axes.axvline(edge, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlabel="diffusion step $t/T$", ylabel="$L_t$(L_hybrid) / $L_t$(L_vlb)")
    fd = results.of("fd")["settings"].iloc[0]
    caption = (
        "Ratio of the terms of the bound of the networks trained on L_hybrid and on L_vlb, on "
        f"{settings.images} test images. In the mix, L_vlb's network takes the first and the last "
        f"{100 * settings.ends:g} % of the steps (dotted). NLL in bits/dim, {results.fd} of "
        f"{fd.images} images; mean and standard error over seeds. The paper's columns are other "
        f"data{'' if results.fd_short == 'FID' else ' and other features'}."
    )
    publish(results, figure, caption, [("Each network and both in one", table(results))])


if __name__ == "__main__":
    start(main)
