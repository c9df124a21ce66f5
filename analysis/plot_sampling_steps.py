"""Figures 8 and 15: image quality and likelihood against the number of steps.

What to look for: above, L_hybrid with its learned variance keeps its quality with few steps, where
fixed variances lose theirs; DDIM is the best with the fewest and stays behind with many. Below, the
likelihood over a subset of the steps needs every one of the first (appendix E); a plain stride
wrecks it. Above right: the paper's released network as others measured it.

    python analysis/plot_sampling_steps.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd
from matplotlib.axes import Axes

from analysis import curves
from analysis.load import Results, measured, published
from analysis.plots import GREY, line, subplots
from analysis.publish import publish
from core.command import start

# Colours of the four ways to draw images, in the order of the grid's rows.
STYLES = [
    {"color": "#DE8F05", "marker": "o"},
    {"color": "#333333", "marker": "v"},
    {"color": "#0173B2", "marker": "D"},
    line("L_hybrid"),
]
NAMES = ["L_simple, β", "L_simple, β̃", "L_simple, DDIM", "L_hybrid"]
SECONDARY = {"fixed beta": 0, "fixed beta-tilde": 1, "ddim": 2}  # of the released checkpoint


def main(words: list[str]) -> None:
    results = measured(words, "fd", "nll", grid="sampling_steps")
    figure, ((quality, others), (likelihood, plain)) = subplots(4.6, 6.8, nrows=2, ncols=2)
    tables = [*_quality(results, quality), *_likelihood(results, likelihood, plain)]
    _others(others)
    others.legend(*quality.get_legend_handles_labels(), fontsize=6)  # where it hides nothing
    settings, middle, bound = (
        results.of(name)["settings"].iloc[0] for name in ("fd", "fd_mid", "nll")
    )
    caption = (
        f"Above left: {results.fd} of {settings.images} images against the number of sampling "
        f"steps, fully trained (lines) and after {middle.at:g} of the training (dashed). Above "
        "right, in the same colours: FID of "
        "the paper's released ImageNet 64 checkpoint as measured by others (OCM, ICLR 2025; 50K "
        "samples), not comparable as levels. Below: bound on "
        f"{bound.images} test images over a subset of the steps, left with every one of the first "
        "T/K (and dashed as above), right evenly strided alone. Mean and standard error over seeds."
    )
    publish(results, figure, caption, tables)


def _quality(results: Results, axes: Axes) -> list[tuple[str, pd.DataFrame]]:
    steps, short = sorted(set(results.of("fd")["sampler.steps"])), results.fd_short
    out = []
    for name, title, dashes in (
        ("fd", f"{short} against sampling steps, fully trained", "-"),
        ("fd_mid", f"{short} against sampling steps, after 0.4 of the training", "--"),
    ):
        found = {
            label: curves.points(results, name, row, "sampler.steps")
            for row, label in enumerate(NAMES)
        }
        for style, (label, curve) in zip(STYLES, found.items()):
            curves.draw(axes, curve, label if name == "fd" else None, **(style | {"ls": dashes}))
        out.append((title, curves.table(found, steps, 2)))
    axes.set(xscale="log", yscale="log", xlabel="sampling steps $K$", ylabel=results.fd)
    curves.number_points(axes, steps)
    middle = results.of("fd_mid")["settings"].iloc[0].at
    for dashes, words in (("-", "fully trained"), ("--", f"after {middle:g} of the training")):
        axes.plot([], [], color=GREY, linestyle=dashes, label=words)
    strides = {
        label: curves.points(results, "stride", row, "sampler.stride")
        for row, label in enumerate(NAMES)
    }
    title = f"{short} with 50 steps, by the stride that keeps them"
    return [*out, (title, curves.table(strides, ["paper", "ddim", "quadratic"], 2))]


def _likelihood(results: Results, extended: Axes, plain: Axes) -> list[tuple[str, pd.DataFrame]]:
    steps, out = sorted(set(results.of("nll")["steps"])), []
    middle = results.of("nll_mid")["settings"].iloc[0].at
    for axes, name, where, dashes, words in (
        (extended, "nll", {"stride": "extended"}, "-", "with all of the first T/K"),
        (
            extended,
            "nll_mid",
            {},
            "--",
            f"with all of the first T/K, after {middle:g} of the training",
        ),
        (plain, "nll", {"stride": "paper"}, "-", "evenly strided"),
    ):
        found = {
            label: curves.points(results, name, row, "steps", **where)
            for row, label in enumerate(NAMES)
            if row != 2  # a deterministic sampler has no likelihood
        }
        for label, curve in found.items():
            curves.draw(axes, curve, None, **(STYLES[NAMES.index(label)] | {"ls": dashes}))
        axes.set(xscale="log", xlabel="evaluation steps $K$", ylabel="NLL (bits/dim)")
        curves.number_points(axes, steps)
        title = f"NLL in bits/dim against evaluation steps, {words}"
        out.append((title, curves.table(found, steps, 3)))
    plain.set_yscale("log")
    return out


def _others(axes: Axes) -> None:
    paper = published()
    mine = paper["table_or_figure"].str.contains("OCM-ICLR2025-table5") & (
        paper["dataset"] == "imagenet64"
    )
    for sampler, row in SECONDARY.items():
        lines = paper[mine & (paper["sampler"] == sampler)].astype({"steps": float, "value": float})
        lines = lines.sort_values("steps")
        axes.plot(lines["steps"], lines["value"], **STYLES[row])
    axes.set(xscale="log", yscale="log", xlabel="sampling steps $K$", ylabel="FID, ImageNet 64")
    curves.number_points(axes, sorted(set(lines["steps"])))


if __name__ == "__main__":
    start(main)
