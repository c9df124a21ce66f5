"""Table 5 and Figure 12: images drawn at once, or small and then enlarged.

What to look for: whether two networks, one of low resolution and one that enlarges, have the lower
distance; each is as large as the single one and trained as long.

    python analysis/table_two_stage.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd

from analysis import curves
from analysis.load import Results, measured, printed
from analysis.plots import COLUMN
from analysis.publish import publish
from analysis.samples import beside, drawn
from core.command import start

RIVALS = ("VQ-VAE-2 two-stage", "BigGAN", "BigGAN-deep")  # of the paper, at ImageNet 256
# Row of the grid, measurement, and the paper's name for the model.
LINES = {"one stage": (0, "fd", "single-stage"), "two stages": (2, "fd_two", "two-stage")}


def table(results: Results) -> pd.DataFrame:
    """A line for one stage and one for two, "mean ± s.e." of FD and the paper's FID; and those
    that the paper compares with."""
    lines = []
    for name, (row, measurement, paper) in LINES.items():
        found = curves.words_of(curves.points(results, measurement, row, "measurement"), 2)
        ours = (found or [curves.HOLE])[0]
        fid = printed(table_or_figure="table5", model=f"Improved Diffusion {paper}")
        lines.append({"": name, results.fd_short: ours, "ImageNet 256 FID (paper)": fid})
    for model in RIVALS:
        fid = printed(table_or_figure="table5", model=model)
        lines.append({"": model, results.fd_short: curves.HOLE, "ImageNet 256 FID (paper)": fid})
    return pd.DataFrame(lines)


def main(words: list[str]) -> None:
    results = measured(words, grid="two_stage")
    settings = results.of("fd")["settings"].iloc[0]
    low = next(r["config"].data.low for _, r in results.of("fd_two").iterrows())
    two = drawn(results, 2, "fd_two")
    small = f"two stages: {low}x{low}"
    shown = {"one stage": drawn(results, 0, "fd"), small: two, "then enlarged": two}
    caption = (
        f"Class-conditional networks; two stages: images of {low}x{low} pixels, then enlarged. "
        f"{results.fd} of {settings.images} images in {settings.sampler.steps or 'all'} steps of "
        "each network, mean and standard error over seeds. Two stages are two trainings as long as "
        "the single one's, and two chains for an image. The paper's column is another data set"
        f"{'' if results.fd_short == 'FID' else ' and other features'}. Images of the first seed, "
        "of the same classes."
    )
    figure = beside(shown, 5, 1.5 * COLUMN, low=small)
    publish(results, figure, caption, [("One stage and two", table(results))])


if __name__ == "__main__":
    start(main)
