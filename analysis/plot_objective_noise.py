"""Figures 6 and 7: learning curves of the bound, and how noisy the objectives' gradients are.

What to look for: above, L_vlb with uniformly drawn timesteps jumps about and stays behind; drawn by
importance (eq. 18) it is smooth and, with enough training, the lowest. Below, the noise scale:
about the batch size up to which a larger batch would still pay in full.

    python analysis/plot_objective_noise.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from analysis import curves
from analysis.load import Results, measured
from analysis.plots import line, subplots
from analysis.publish import publish
from core.command import start
from core.training import number
from experiments.overrides import parse
from experiments.records import log_of

WIDTH = 3  # logged values to either side that the smooth line averages
MARGIN = 1.1  # of the axis of the bound, to the highest and the lowest value that it shows
LEARNING_CURVES = (
    f"the bound on training batches, each value a mean over {parse([]).housekeeping.log_every} "
    f"steps, faint; running mean over {2 * WIDTH + 1} of them; mean over seeds, with a band of one "
    "standard error where there are several; cut off above the highest value of the second half of "
    "the training."
)


def style(words: dict) -> dict:
    """Of a row: its objective's colour, dashed where timesteps are drawn by importance."""
    dashes = {"uniform": "-", "importance": "--"}[words["timesteps"]]
    return line(words["objective"]) | {"linestyle": dashes}


def learning_curve(folders: list[Path]) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps [points] and the bound in bits/dim [runs, points] as logged; None without a log.

    Of those runs that have all of it.
    """
    logs = [log_of(folder) for folder in folders]
    longest = max(map(len, logs), default=0)
    whole = [log for log in logs if len(log) == longest]
    if not longest:
        return None
    values = np.array([[number(entry.get("vlb")) for entry in log] for log in whole])
    return np.array([entry["step"] for entry in whole[0]]), values


def draw(results: Results, measurement: str, bounds: Axes, along: Axes) -> dict:
    """The learning curves, and a measurement along the training; its points of each row."""
    found, lines = {}, results.of(measurement)
    for row, words in enumerate(results.grid.rows):
        mine = lines[lines["row"] == row]
        label, look = f"{words['objective']}, {words['timesteps']} t", style(words)
        curve = learning_curve(list(dict.fromkeys(mine["folder"])))
        if curve is not None:
            step, bits = curve
            plain = {"color": look["color"], "linestyle": look["linestyle"]}
            bounds.plot(step, bits.mean(0), **plain, alpha=0.35, linewidth=0.6)
            smooth = np.array([curves.smoothed(one, WIDTH) for one in bits])
            every = {
                "marker": look["marker"],
                "markevery": (row * len(step) // 20, -(-len(step) // 5)),
            }
            curves.band(bounds, step, smooth, label, **plain, **every)
        found[label] = curves.points(results, measurement, row, "at")
        steps = mine["config"].iloc[0].optim.steps
        curves.draw(along, found[label].assign(x=found[label]["x"] * steps), None, **look)
    bounds.set(yscale="log", ylabel="bound (bits/dim)")
    if bounds.lines:
        bounds.set_ylim(*limits(bounds))
        look = {"ncols": 2, "fontsize": 6, "handlelength": 4.5}  # so long that dashes are seen
        names = bounds.get_legend_handles_labels()
        bounds.figure.legend(*names, loc="outside upper center", **look)
    along.set(xlabel="training step")
    return found


def limits(bounds: Axes) -> tuple[float, float]:
    """Of the axis in bits/dim: all that the lines show in their second half, and what is lower.

    The first steps have bounds of hundreds of bits/dim, beside which all curves would look flat.
    """
    drawn = [line.get_ydata() for line in bounds.lines]
    highest = max(np.nanmax(y[len(y) // 2 :]) for y in drawn)
    return min(map(np.nanmin, drawn)) / MARGIN, highest * MARGIN


def main(words: list[str]) -> None:
    results = measured(words, "noise", grid="objective_noise")
    figure, (above, below) = subplots(4.4, nrows=2, sharex=True)
    found = draw(results, "noise", above, below)
    below.set(yscale="log", ylabel="gradient noise scale (images)")
    settings = results.of("noise")["settings"].iloc[0]
    caption = (
        f"Above: {LEARNING_CURVES} Below: noise scale tr(Sigma)/|G|^2 from {settings.images} "
        f"images in batches of {settings.batch}, mean and standard error over seeds."
    )
    nll = {
        label: curves.points(results, "nll", row, "measurement") for row, label in enumerate(found)
    }
    ats = sorted(set(results.of("noise")["at"]))
    tables = [
        ("Noise scale in images, by the share of the training done", curves.table(found, ats, 1)),
        ("NLL of test images in bits/dim", curves.table(nll, ["nll"], 3)),
    ]
    publish(results, figure, caption, tables)


if __name__ == "__main__":
    start(main)
