r"""Do the two fixed variances differ? beta_tilde_t / beta_t (the paper's Figure 1).

    python analysis/plot_variance_ratio.py [T=[100,1000,10000]] [results=FOLDER]

  T=[100,1000,10000]  steps of the diffusion process, one line for each
  results=FOLDER      the picture goes to FOLDER/figures/ (default results/)

beta_t and beta_tilde_t are the upper and lower bounds on the variance of a reverse step. What to
look for: they are almost equal, except in the first steps; the longer the process, the sooner the
ratio is 1, so that samples of a long process hardly depend on which of the two is taken. The
inset stretches the first steps by a logarithmic axis. t = 1 is left out, as beta_tilde_1 = 0.
Linear schedule.
"""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis import plots
from analysis.script import RESULTS, chain, keys, say_written
from core.command import start
from core.diffusion import schedules


def curves(T: int) -> tuple[np.ndarray, np.ndarray]:
    """t/T and beta_tilde_t / beta_t of the linear schedule for t = 2..T."""
    schedule = schedules.linear(T)
    return np.arange(2, T + 1) / T, schedule.beta_tilde[2:] / schedule.beta[2:]


def draw(lengths: list[int]):
    """The figure, with a line for each T of `lengths`, the longest chain darkest."""
    figure, axes = plots.subplots(height=2.4)
    axes.grid(False)  # it would cross the tick labels of the inset
    inset = axes.inset_axes([0.34, 0.17, 0.64, 0.62])
    # Shades of the linear schedule's colour: T is a quantity and this schedule is the only one.
    blend = LinearSegmentedColormap.from_list("shades", ["#461700", "#E27A2B"])
    shades = map(tuple, blend(np.linspace(0, 1, len(lengths))))
    lowest = 1.0
    for T, shade in zip(sorted(lengths, reverse=True), shades):
        x, y = curves(T)
        lowest = min(lowest, y.min())
        for place in (axes, inset):
            place.plot(x, y, color=shade, label=f"$T={T}$", clip_on=False)
    for place in (axes, inset):
        place.set(yscale="log", ylim=(0.9 * lowest, 1))
        place.yaxis.set(
            major_locator=FixedLocator([0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1]),
            minor_locator=NullLocator(),
            major_formatter=FuncFormatter(lambda value, _: f"{value:g}"),
        )
    inset.set(xscale="log", xlim=(1 / max(lengths), 1))
    inset.xaxis.set_minor_locator(NullLocator())
    # "best": lower left for the paper's T, but no corner is free whatever the lengths.
    look = {"labelcolor": "linecolor", "handlelength": 1, "borderpad": 0.2, "borderaxespad": 0.2}
    inset.legend(loc="best", frameon=True, framealpha=1, edgecolor="none", **look)
    axes.set(xlim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set(xlabel="diffusion step $t/T$", ylabel=r"$\tilde\beta_t/\beta_t$")
    return figure


def main(words: list[str]) -> None:
    """The command line."""
    asked = keys(words, T=[100, 1000, 10000], results=RESULTS)
    lengths = sorted({chain(T) for T in asked["T"]})
    caption = (
        "Paper's Figure 1. Linear schedule, t from 2 to T; inset: the same over a "
        "logarithmic t/T. Exact: follows from the schedule alone."
    )
    folder = asked["results"] / "figures"
    say_written(plots.save(draw(lengths), "variance_ratio", folder, caption))


if __name__ == "__main__":
    start(main)
