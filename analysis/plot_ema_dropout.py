"""Figure 17: image quality along a training, by dropout and by the rate of the average.

What to look for: too short an average is noisy, too long a one lags behind; in between the best
samples. Dropout moves the best point later and, in the paper, lowers it: below the dotted line.

    python analysis/plot_ema_dropout.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import seaborn as sns

from analysis import curves
from analysis.load import measured
from analysis.plots import GREY, subplots
from analysis.publish import publish
from core.command import start


def main(words: list[str]) -> None:
    results = measured(words, grid="ema_dropout")
    rows, config = results.grid.rows, results.frame["config"].iloc[0]
    rates, steps = config.optim.ema, config.optim.steps
    colors = sns.color_palette("viridis", len(rates))
    figure, panels = subplots(2.6, 6.8, ncols=len(rows), sharey=True)
    found = {}
    for row, (axes, words) in enumerate(zip(panels, rows)):
        for place in sorted(set(results.of("fd")["ema"])):
            rate = rates[place]
            curve = curves.points(results, "fd", row, "at", ema=place)
            found[f"dropout {words['unet.dropout']:g}, EMA {rate:g}"] = curve
            curve = curve.assign(x=curve["x"] * steps)
            curves.draw(axes, curve, f"EMA {rate:g}", color=colors[place], marker="o")
        axes.set(title=f"dropout {words['unet.dropout']:g}", xlabel="training step", yscale="log")
    panels[0].set(ylabel=results.fd)
    fd, plain = results.of("fd"), [not words["unet.dropout"] for words in rows]
    best = fd[fd["row"].map(plain.__getitem__)].groupby(["ema", "at"])["value"].mean().min()
    for axes in panels:
        axes.axhline(best, color=GREY, linestyle=":", linewidth=1, label="best without dropout")
    of_lines = panels[0].get_legend_handles_labels()
    figure.legend(*of_lines, loc="outside upper center", ncols=len(rates) + 1, fontsize=6)
    settings = results.of("fd")["settings"].iloc[0]
    caption = (
        f"Class-conditional L_hybrid: {results.fd} of {settings.images} images in "
        f"{settings.sampler.steps or 'all'} steps, all averages from the same trainings; mean and "
        "standard error over seeds. The paper's rates are 0.99 to 0.99999 in trainings of 1.4M "
        "iterations."
    )
    ats = sorted(set(results.of("fd")["at"]))
    title = f"{results.fd_short} by the share of the training done"
    publish(results, figure, caption, [(title, curves.table(found, ats, 2))])


if __name__ == "__main__":
    start(main)
