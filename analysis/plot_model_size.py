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

from analysis import curves, plots
from analysis.load import Results, measured
from analysis.plots import GREY, subplots
from analysis.powerlaw import PowerLaw, fit
from analysis.publish import publish
from analysis.verdicts import Comparison
from core.build import training_images
from core.command import start
from experiments.plan import network

PAPER = {"fd": (-0.22, 4.00), "nll": (-0.17, 3.40)}  # slope and offset


def compute(results: Results, row: int) -> float:
    """Of a whole training of this row, FLOP as the paper counts: a multiplication and an addition
    are one, and a backward pass costs two forward passes."""
    config = next(cell.config for cell in results.grid.cells if cell.row == results.grid.rows[row])
    path = results.request.housekeeping.data_path or None
    images = training_images(config.data, path)
    learned = config.objective.name != "simple"
    counted = network(config.unet, learned, (images.channels, images.size, images.classes))
    return 3 * counted.forward_flops / 2 * config.optim.steps * config.optim.batch_size


def law(results: Results, lines: pd.DataFrame) -> PowerLaw:
    """Through one seed's measurements at all widths, at least four, against compute in FLOP."""
    of_row = {row: compute(results, row) for row in set(lines["row"])}
    C = lines["row"].map(of_row).to_numpy(float) * lines["at"].to_numpy(float)
    return fit(C, lines["value"].to_numpy(float))


def laws(results: Results, name: str) -> list[PowerLaw]:
    """One of each seed that has all points of `fd` or `nll`, in order: of one range of compute."""
    seeds = [lines for _, lines in results.of(name).groupby("seed")]
    whole = [lines for lines in seeds if lines["value"].notna().all() and len(lines) >= 4]
    return [law(results, lines) for lines in whole]


def in_words(found: list[PowerLaw], slope: float, offset: float) -> dict[str, str]:
    """Cells of the table: of one law per seed the mean and, in brackets, Student's 95 % interval.

    slope and offset: the paper's; offsets in the unit of y.
    """
    bound = sum(one.offset == 0 for one in found)
    share = ", at its bound" if bound else ""
    if 0 < bound < len(found):
        share += f" in {bound} of {len(found)} seeds"
    return {
        "slope": _over_seeds([one.slope for one in found]),
        "the paper's slope": f"{slope:.2f}",
        "offset": _over_seeds([one.offset for one in found]) + share,
        "the paper's offset": f"{offset:.2f}",
        "R² of log y": f"{np.mean([one.r2 for one in found]):.3f}",
        "seeds": str(len(found)),
    }


def _over_seeds(values: list[float]) -> str:
    found = Comparison(np.array(values))
    low, high = found.interval
    return f"{found.effect:.2f}" + ("" if np.isnan(low) else f" ({low:.2f} to {high:.2f})")


def main(words: list[str]) -> None:
    results = measured(words, grid="model_size")
    rows = results.grid.rows
    colors = sns.color_palette("viridis", len(rows))
    figure, panels = subplots(2.8, 6.8, ncols=2)
    tables, fits, labels = [], [], {"fd": results.fd, "nll": "NLL (bits/dim)"}
    for axes, name in zip(panels, labels):
        found, spent = {}, []
        for row, words in enumerate(rows):
            C, curve = compute(results, row), curves.points(results, name, row, "at")
            found[f"C x {words['unet.width']:g}"] = curve
            curve = curve.assign(x=curve["x"] * C)
            spent.extend(curve["x"])
            label = f"width x {words['unet.width']:g}"
            curves.draw(axes, curve, label, color=colors[row], marker="o")
        if fitted := laws(results, name):
            x = np.geomspace(min(spent), max(spent), 50)
            mean = np.mean([one(x) for one in fitted], axis=0)
            axes.plot(x, mean, color=GREY, linestyle=":", linewidth=1)
            slope, offset = PAPER[name]
            said = in_words(fitted, slope, offset)
            fits.append({"": labels[name]} | said)
            text = f"slope {said['slope']}\n(paper {slope:.2f})"
            plots.label(axes, 0.04, 0.04, text, GREY, transform=axes.transAxes, size=6)
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
        "and standard error over seeds. Power laws with an offset are fitted to each seed's points "
        "of all widths, where it has all of them; in brackets the 95 % interval of Student's t "
        "over these seeds' fits, none with one seed. "
        "Dotted: the mean of these seeds' laws."
    )
    publish(results, figure, caption, tables)


if __name__ == "__main__":
    start(main)
