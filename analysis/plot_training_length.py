"""Table 1's last rows: likelihood and image quality along the training, by objective.

What to look for: whether both go on improving, and whether L_vlb keeps the better likelihood and
L_hybrid the better images from beginning to end; the paper gives both after 200K and 1.5M
iterations.

    python analysis/plot_training_length.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd

from analysis import curves
from analysis.load import measured, printed
from analysis.plots import line, subplots
from analysis.publish import publish
from core.command import start

# Of a measurement: digits, and the published metric.
KINDS = {"nll": (3, "nll_bpd"), "fd": (2, "fid10k")}


def published() -> pd.DataFrame:
    """ImageNet 64 of Table 1: a line for each objective, NLL and FID after 200K and after 1.5M."""
    lines = []
    for objective in ("hybrid", "vlb"):
        cells = {"": f"L_{objective}"}
        for name, iters in (("200K", 200_000), ("1.5M", 1_500_000)):
            where = {"table_or_figure": "table1", "iters": iters, "T": 4000, "schedule": "cosine"}
            for title, (_, metric) in zip(("NLL", "FID"), KINDS.values()):
                value = printed(objective=objective, metric=metric, **where)
                cells[f"{title}, {name}"] = value
        lines.append(cells)
    return pd.DataFrame(lines)


def main(words: list[str]) -> None:
    results = measured(words, grid="training_length")
    figure, panels = subplots(2.4, 6.8, ncols=2)
    steps, tables, crossings = results.frame["config"].iloc[0].optim.steps, [], {}
    labels = {"nll": "NLL (bits/dim)", "fd": results.fd}
    for axes, (name, (digits, _)) in zip(panels, KINDS.items()):
        found, label = {}, labels[name]
        for row, words in enumerate(results.grid.rows):
            curve = found[words["objective"]] = curves.points(results, name, row, "at")
            look = line(words["objective"])
            curves.draw(axes, curve.assign(x=curve["x"] * steps), words["objective"], **look)
        axes.set(xlabel="training step", ylabel=label)
        crossings[name] = curves.crossing(*found.values())
        ats = sorted(set(results.of(name)["at"]))
        title = f"{label} by the share of the training done"
        tables.append((title, curves.table(found, ats, digits)))
    panels[0].legend()
    tables.append(("The paper's, ImageNet 64", published()))
    nll, fd = (results.of(name)["settings"].iloc[0] for name in KINDS)
    caption = (
        f"Bound on {nll.images} test images and {results.fd} of {fd.images} images along the "
        "training; mean and standard error over seeds. L_vlb comes below L_hybrid to stay: in NLL "
        f"{crossings['nll']}, in {results.fd_short} {crossings['fd']} (share of the training). The "
        f"paper's longer training is 7.5 times its shorter one, here the last point is "
        f"{ats[-1] / ats[0]:g} times the first."
    )
    publish(results, figure, caption, tables)


if __name__ == "__main__":
    start(main)
