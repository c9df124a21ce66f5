r"""Signal left after t steps: the linear and the cosine schedule (the paper's Figure 5).

    python analysis/plot_alpha_bar.py [T=4000] [results=FOLDER]

  T=4000          steps of the diffusion process
  results=FOLDER  the picture goes to FOLDER/figures/ (default results/)

alpha_bar_t is the signal's share of the variance of x_t. What to look for: halfway, the linear
schedule has 8 % of it left, the cosine schedule half. After three quarters it is 0.3 % against
14 %: the last quarter of the linear schedule is spent on images that are noise already.
"""

import numpy as np

from analysis import plots
from analysis.script import RESULTS, chain, keys, say_written
from core.command import start
from core.diffusion import schedules

SCHEDULES = {"linear": schedules.linear, "cosine": schedules.cosine}


def curves(T: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By schedule, t/T and alpha_bar_t for t = 0..T."""
    return {name: (np.arange(T + 1) / T, make(T).alpha_bar) for name, make in SCHEDULES.items()}


def draw(T: int):
    """The figure."""
    figure, axes = plots.subplots(height=2.2)
    for name, (x, y) in curves(T).items():
        axes.plot(x, y, clip_on=False, zorder=3, **plots.line(name))  # whole where it is 0 or 1
    # Each label stands where there is nothing but its own line nearby.
    plots.label(axes, 0.29, 0.33, "linear", plots.line("linear")["color"], ha="right")
    plots.label(axes, 0.56, 0.47, "cosine", plots.line("cosine")["color"])
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)
    axes.set(xlabel="diffusion step $t/T$", ylabel=r"$\bar\alpha_t$")
    return figure


def main(words: list[str]) -> None:
    """The command line."""
    asked = keys(words, T=4000, results=RESULTS)
    T = chain(asked["T"])
    caption = f"Paper's Figure 5. T = {T}. Exact: follows from the schedule alone."
    folder = asked["results"] / "figures"
    say_written(plots.save(draw(T), "alpha_bar", folder, caption))


if __name__ == "__main__":
    start(main)
