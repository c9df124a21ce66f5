"""Footnote 2: the same model's Frechet distance by the number of images it is measured with.

What to look for: fewer images give a larger distance although the model is the same, which is why
numbers of 10,000 images must not stand beside numbers of 50,000. The bias goes as 1/n, so that the
points lie on a line over 1/n, which meets the axis at the distance of infinitely many images.

    python analysis/plot_sample_count.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import curves
from analysis.load import Results, measured
from analysis.plots import GREY, line, subplots
from analysis.publish import publish
from analysis.tables import number
from core.command import start


def sets(results: Results, axes: Axes) -> pd.DataFrame:
    """Draws the mean of disjoint sets of the largest sample; a line of both, if measured."""
    lines = results.of("sets").dropna(subset="value")
    if lines.empty:
        return pd.DataFrame()
    n, whole = lines["settings"].iloc[0].sets, lines["value"].to_numpy(float)
    parts = lines["result"].map(lambda result: result["frechet_of_sets"]).to_numpy(float)
    size = lines["result"].iloc[0]["images_of_a_set"]
    style = {"color": GREY, "marker": "o", "mfc": "none", "linestyle": "none", "elinewidth": 0.8}
    x = 0.97 * 1000 / size  # beside the bar of the single sample as large as a set
    axes.errorbar(x, *curves.over_seeds(parts), label="mean of disjoint sets", **style)
    axes.legend(loc="upper left")  # where no point is: the distance grows to the right
    shown = {
        "images": lines["settings"].iloc[0].images,
        "all at once": number(*curves.over_seeds(whole), 2),
        f"mean of {n} sets of {size}": number(*curves.over_seeds(parts), 2),
        "difference": number(*curves.over_seeds(parts - whole), 2),
    }
    return pd.DataFrame([shown])


def main(words: list[str]) -> None:
    results = measured(words, grid="sample_count")
    figure, axes = subplots(2.4)
    found = curves.points(results, "fd", 0, "images")
    inverse = 1000 / found["x"].astype(float)
    curves.draw(axes, found.assign(x=inverse), None, **line("L_hybrid") | {"linestyle": "none"})
    limit = "not known from one point"
    if len(found) > 1:
        slope, at_infinity = np.polyfit(inverse, found["mean"], 1)
        x = np.array([0, inverse.max()])
        axes.plot(x, at_infinity + slope * x, color=GREY, linestyle=":", linewidth=1)
        limit = f"{at_infinity:.2f}"
    pairs = sets(results, axes)
    axes.set(xlabel="1000 / images", ylabel=results.fd, xlim=(0, None))
    settings = results.of("fd")["settings"].iloc[0]
    caption = (
        f"{results.fd} of the same network by the number of images drawn, in "
        f"{settings.sampler.steps or 'all'} steps; mean and standard error over seeds. Dotted: a "
        f"straight line by least squares, which meets the axis at {limit}. The paper says of FID "
        "that 50,000 images lower it by about 2 against 10,000. Open: the largest sample again, as "
        "the mean of disjoint sets of its images (drawn a little to the left)."
    )
    counts = sorted(set(results.of("fd")["images"]))
    table = curves.table({"L_hybrid": found}, counts, 2)
    tables = [(f"{results.fd_short} by the number of images", table)]
    if len(pairs):
        tables.append((f"{results.fd_short} of the same images, at once and in sets", pairs))
    publish(results, figure, caption, tables)


if __name__ == "__main__":
    start(main)
