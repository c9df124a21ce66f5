"""Appendix A: the network as in DDPM, and with the paper's three changes.

What to look for: whether four heads instead of one, attention at a second resolution and
scale-shift conditioning together improve the images; the paper says slightly, without numbers.

    python analysis/table_architecture.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd

from analysis import curves
from analysis.load import Results, measured
from analysis.plots import COLUMN
from analysis.publish import publish
from analysis.samples import beside, drawn
from analysis.tables import HOLE
from core.command import start

NAMES = ("as in DDPM", "as in the paper")


def table(results: Results) -> pd.DataFrame:
    """A line for each network: what it has, and "mean ± s.e." of NLL and FD."""
    lines = []
    for row, name in enumerate(NAMES):
        unet = next(c.config.unet for c in results.grid.cells if c.row == results.grid.rows[row])
        cells = {
            "network": name,
            "heads": unet.heads,
            "attention at": ", ".join(f"{side}x{side}" for side in unet.attention),
            "conditioning": unet.conditioning.replace("_", "-"),
        }
        for column, measurement, digits in (("NLL", "nll", 3), (results.fd_short, "fd", 2)):
            found = curves.points(results, measurement, row, "measurement")
            cells[column] = (curves.words_of(found, digits) or [HOLE])[0]
        lines.append(cells)
    return pd.DataFrame(lines)


def main(words: list[str]) -> None:
    results = measured(words, grid="architecture")
    shown = {name: drawn(results, row, "fd") for row, name in enumerate(NAMES)}
    nll, fd = (results.of(name)["settings"].iloc[0] for name in ("nll", "fd"))
    caption = (
        f"NLL: bits/dim of {nll.images} test images; {results.fd} of {fd.images} images in "
        f"{fd.sampler.steps or 'all'} steps; mean and standard error over seeds. Images of the "
        "first seed, from the same noise."
    )
    figure = beside(shown, 6, COLUMN)
    publish(results, figure, caption, [("Two networks", table(results))])


if __name__ == "__main__":
    start(main)
