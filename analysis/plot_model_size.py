"""Figure 10: image quality and likelihood against the compute of training, for four widths.

What to look for: whether all widths' points fall on one power law; the paper finds FID to follow
one, with slope -0.22, and the likelihood less well, with -0.17. Wider networks are behind at little
compute and end lower.

    python analysis/plot_model_size.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import numpy as np
import pandas as pd
import seaborn as sns

from analysis import curves
from analysis.load import Results, measured
from analysis.plots import GREY, subplots
from analysis.powerlaw import fit_with_interval
from analysis.publish import publish
from core.build import training_images
from core.command import start
from experiments.plan import network

PAPER = {"fd": -0.22, "nll": -0.17}


def compute(results: Results, row: int) -> float:
    """Of a whole training of this row, as the paper counts: a multiplication and an addition are
    one, and a backward pass costs two forward passes."""
    config = next(cell.config for cell in results.grid.cells if cell.row == results.grid.rows[row])
    path = results.request.housekeeping.data_path or None
    images = training_images(config.data, path)
    learned = config.objective.name != "simple"
    counted = network(config.unet, learned, (images.channels, images.size, images.classes))
    return 3 * counted.forward_flops / 2 * config.optim.steps * config.optim.batch_size


def main(words: list[str]) -> None:
    results = measured(words, grid="model_size")
    rows = results.grid.rows
    colors = sns.color_palette("viridis", len(rows))
    figure, panels = subplots(2.8, 6.8, ncols=2)
    tables, fits, labels = [], [], {"fd": results.fd, "nll": "NLL (bits/dim)"}
    for axes, name in zip(panels, labels):
        found, everything = {}, []
        for row, words in enumerate(rows):
            C, curve = compute(results, row), curves.points(results, name, row, "at")
            found[f"C x {words['unet.width']:g}"] = curve
            curve = curve.assign(x=curve["x"] * C)
            everything.append(curve)
            label = f"width x {words['unet.width']:g}"
            curves.draw(axes, curve, label, color=colors[row], marker="o")
        points = pd.concat(everything)
        if len(points) >= 4:
            law = fit_with_interval(points["x"].to_numpy(float), points["mean"].to_numpy(float))
            x = np.geomspace(points["x"].min(), points["x"].max(), 50)
            axes.plot(x, law(x), color=GREY, linestyle=":", linewidth=1)
            low, high = law.interval
            fits.append(
                {
                    "": labels[name],
                    "offset": f"{law.offset:.3f}",
                    "slope": f"{law.slope:.2f} ({low:.2f} to {high:.2f})",
                    "R² of log": f"{law.r2:.3f}",
                    "the paper's slope": f"{PAPER[name]:.2f}",
                }
            )
        axes.set(xscale="log", yscale="log", xlabel="training compute (FLOP)", ylabel=labels[name])
        ats = sorted(set(results.of(name)["at"]))
        table = curves.table(found, ats, 2 if name == "fd" else 3)
        tables.append((f"{labels[name]} by the share of the training done", table))
    panels[0].legend(fontsize=6)
    if fits:
        tables.append(("y = offset + (b C)^slope, over all widths", pd.DataFrame(fits)))
    fd, nll = (results.of(name)["settings"].iloc[0] for name in ("fd", "nll"))
    caption = (
        f"{results.fd} of {fd.images} images and bound on {nll.images} test images along the "
        "training of L_hybrid networks of four widths, lr as 1/sqrt(width), against compute: "
        "three forward passes per image, a multiplication and an addition counted as one. Mean "
        "and standard error over seeds. Dotted: one power law with offset through all points; in "
        "brackets the middle 95 % of bootstrap fits."
    )
    publish(results, figure, caption, tables)


if __name__ == "__main__":
    start(main)
