"""Any study's measurements along an axis: a panel for each, a line for each row and other axis.

What to look for: which line is lowest where, and where lines cross.

    python analysis/plot_axes.py grid=NAME [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py; a grid of your own needs no script of its own.
"""

import itertools
from typing import Any

import pandas as pd
import seaborn as sns

from analysis import curves
from analysis.load import Results, measured
from analysis.plots import subplots
from analysis.publish import publish
from analysis.tables import described
from core.command import start
from core.config import metric_of
from core.errors import Refused

MARKERS = "osv^D<>"


def axes_of(results: Results) -> dict[str, dict[str, list[Any]]]:
    """Measurement -> axis -> its values, in the order of the grid; those with a numeric axis."""
    found: dict[str, dict[str, list[Any]]] = {}
    for cell in results.grid.cells:
        for asked in cell.measurements:
            for axis, value in asked.axes.items():
                values = found.setdefault(asked.name, {}).setdefault(axis, [])
                if value not in values:
                    values.append(value)
    return {name: axes for name, axes in found.items() if any(map(_numeric, axes.values()))}


def _numeric(values: list[Any]) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def curves_of(results: Results, name: str, axes: dict[str, list]) -> tuple[str, dict]:
    """The numeric axis with the most values, and label -> points along it."""
    numeric = [axis for axis in axes if _numeric(axes[axis])]
    x = max(numeric, key=lambda axis: len(axes[axis]))
    others = {axis: values for axis, values in axes.items() if axis != x}
    found = {}
    for row in range(len(results.grid.rows)):
        for point in itertools.product(*others.values()):
            where = dict(zip(others, point))
            label = " ".join(map(str, point))
            if len(results.grid.rows) > 1:
                label = " ".join([*results.grid.cells[row].named, label]).strip()
            found[label] = curves.points(results, name, row, x, **where)
    return x, found


def _scale(values: pd.Series) -> str:
    """Of an axis: logarithmic where that leaves no point out."""
    return "log" if (values > 0).all() else "linear"


def main(words: list[str]) -> None:
    results = measured(words)
    along = axes_of(results)
    if not along:
        raise Refused(f"{results.grid.name} measures nothing along a numeric axis: see table_rows")
    figure, panels = subplots(2.6, 3.4 * len(along), ncols=len(along), squeeze=False)
    labels = {"nll": "NLL (bits/dim)", "frechet": results.fd}
    tables: list[tuple[str, pd.DataFrame]] = []
    lines = {name: curves_of(results, name, of_name) for name, of_name in along.items()}
    labelled = list(dict.fromkeys(itertools.chain(*(found for _, found in lines.values()))))
    colors = sns.color_palette("colorblind", len(labelled))
    for axes, (name, of_name) in zip(panels[0], along.items()):
        x, found = lines[name]
        for label, curve in found.items():
            i = labelled.index(label)  # a line looks the same in every panel
            curves.draw(axes, curve, label, color=colors[i], marker=MARKERS[i % len(MARKERS)])
        metric = metric_of(results.of(name)["settings"].iloc[0])
        digits = 3 if metric == "nll" else 2
        drawn = pd.concat(found.values())
        axes.set(xlabel=x, ylabel=labels.get(metric, name))
        axes.set(xscale=_scale(drawn["x"]), yscale=_scale(drawn["mean"]))
        tables.append((f"{name} by {x}", curves.table(found, sorted(of_name[x]), digits)))
        axes.legend(fontsize=6)
    publish(results, figure, described(results), tables, name="axes")


if __name__ == "__main__":
    start(main)
