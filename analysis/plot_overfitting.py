"""Figure 16: likelihood and image quality along a training on few images.

What to look for: the likelihood of the images trained on goes on improving while that of test
images turns: overfitting. It comes sooner with the cosine schedule, and dropout delays it.

    python analysis/plot_overfitting.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

from typing import Any

from analysis import curves
from analysis.load import measured
from analysis.plots import line, subplots
from analysis.publish import publish
from core.command import start

MARKERS = ["o", "s", "^"]  # by dropout, in the order of the rows


def main(words: list[str]) -> None:
    results = measured(words, grid="overfitting")
    figure, panels = subplots(4.6, 6.8, nrows=2, ncols=2, sharex=True, sharey="row")
    schedules = list(dict.fromkeys(words["schedule"] for words in results.grid.rows))
    dropouts = list(dict.fromkeys(words["unet.dropout"] for words in results.grid.rows))
    config = results.frame["config"].iloc[0]
    steps, found = config.optim.steps, {"fd": {}, "nll_test": {}, "nll_train": {}}
    for row, words in enumerate(results.grid.rows):
        column = schedules.index(words["schedule"])
        place = dropouts.index(words["unet.dropout"])
        look: dict[str, Any] = line(words["schedule"]) | {
            "linestyle": "-",
            "marker": MARKERS[place],
        }
        look["alpha"] = 1 - 0.3 * place
        label = f"{words['schedule']}, dropout {words['unet.dropout']:g}"
        for name, curves_of in found.items():
            curve = curves_of[label] = curves.points(results, name, row, "at")
            axes = panels[0 if name == "fd" else 1, column]
            style = look | ({"linestyle": ":"} if name == "nll_train" else {})
            shown = f"dropout {words['unet.dropout']:g}" if name == "nll_test" else None
            curves.draw(axes, curve.assign(x=curve["x"] * steps), shown, **style)
    for column, schedule in enumerate(schedules):
        panels[0, column].set(title=f"{schedule} schedule")
        panels[1, column].set(xlabel="training step")
        panels[1, column].legend(fontsize=6)
    panels[0, 0].set(ylabel=results.fd, yscale="log")  # the end matters, where it is smallest
    panels[1, 0].set(ylabel="NLL (bits/dim)")
    fd, nll = (results.of(name)["settings"].iloc[0] for name in ("fd", "nll_test"))
    caption = (
        f"Trained on {config.data.images or 'all'} images. Above: {results.fd} of {fd.images} "
        "drawn images against the whole training split. Below: bound on "
        f"{nll.images} test images (solid) and images trained on (dotted). Mean and standard error "
        "over seeds."
    )
    ats = sorted(set(results.of("fd")["at"]))
    titles = {
        "fd": results.fd_short,
        "nll_test": "NLL, test images",
        "nll_train": "NLL, images trained on",
    }
    tables = [
        (
            f"{title}, by the share of the training done",
            curves.table(found[name], ats, 2 if name == "fd" else 3),
        )
        for name, title in titles.items()
    ]
    publish(results, figure, caption, tables)


if __name__ == "__main__":
    start(main)
