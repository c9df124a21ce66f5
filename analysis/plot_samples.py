"""Figures 9, 14 and 18 to 31: images from the same starting noise, a line for each model or K.

What to look for: column by column, what a schedule, an objective or fewer steps change in an image
that begins with the same noise.

    python analysis/plot_samples.py [grid=NAME] [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd

from analysis.load import Results, load, read_arrays
from analysis.plots import subplots
from analysis.publish import publish
from analysis.samples import tiled
from core.command import start
from core.errors import Refused
from experiments.overrides import parse

COLUMNS = 10  # as many as the data have classes, which are drawn in turn
MOST = 24  # lines of a figure


def lines(results: Results) -> dict[str, pd.Series]:
    """What a line shows -> its measurement: the first seed's sets of the fully trained networks.

    Where rows and samplers vary, and there are more than MOST of both, only those of the last row.
    """
    frame = results.frame
    mine = frame[[getattr(s, "sampler", None) is not None for s in frame["settings"]]]
    mine = mine[[s.at == 1 and s.sampler.stride != "quadratic" for s in mine["settings"]]]
    mine = mine[(mine["seed"] == results.grid.seeds[0]) & (mine["measurement"] != "stride")]
    axes = [a for a in ("sampler.steps", "sampler.skip") if a in mine and mine[a].nunique() > 1]
    if axes and len(mine) > MOST:
        mine = mine[mine["row"] == mine["row"].max()]
    rows = mine["row"].nunique()
    found = {}
    for _, one in mine.iterrows():
        words = results.grid.cells[one["row"]].named if rows > 1 or not axes else []
        names = [*words, *(f"{axis.split('.')[1]} {one[axis]:g}" for axis in axes)]
        both = one["measurement"].removeprefix("fd").strip("_")
        found[" ".join([*names, *([f"({both})"] if both else [])])] = one
    return found


def main(words: list[str]) -> None:
    results = load(parse(words, grid="schedule_ablation"))
    shown = {name: one for name, one in lines(results).items() if one["arrays"] is not None}
    if not shown:
        raise Refused(f"nothing is drawn yet: {results.command}", 1)
    figure, panels = subplots(0.36 * len(shown) + 0.1, 4.9, nrows=len(shown), squeeze=False)
    for axes, (name, one) in zip(panels[:, 0], shown.items()):
        drawn = read_arrays(one["arrays"], samples=4)["samples"]
        axes.imshow(tiled(drawn, COLUMNS, 1), cmap="gray")
        axes.set_axis_off()
        axes.text(-0.02, 0.5, name, transform=axes.transAxes, ha="right", va="center", size=6)
    settings = next(iter(shown.values()))["settings"]
    steps = "" if "steps" in next(iter(shown)) else f", {settings.sampler.steps or 'all'} steps"
    row = {one["row"] for one in shown.values()}
    of = f" of {results.grid.cells[row.pop()].words}" if len(row) == 1 else ""
    caption = (
        f"{results.grid.title} ({results.grid.paper}): images{of}, seed {results.grid.seeds[0]}, "
        f"from the same starting noise in each column{steps}; not chosen."
    )
    publish(results, figure, caption, [], "samples")


if __name__ == "__main__":
    start(main)
