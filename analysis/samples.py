"""Drawn images side by side."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.load import Results, read_arrays
from analysis.plots import subplots


def drawn(results: Results, row: int, measurement: str = "") -> Path | None:
    """Arrays of the first images that a row's first seed drew, for this measurement or for any."""
    lines = results.of(measurement) if measurement else results.frame
    mine = (lines["row"] == row) & (lines["seed"] == results.grid.seeds[0])
    return next(iter(lines[mine & (lines["metric"] == "frechet")]["arrays"].dropna()), None)


def beside(shown: dict[str, Path | None], columns: int, width: float, low: str = "") -> Figure:
    """A panel of columns x columns images for each title; it stays empty where there are none.

    shown: title -> arrays of a Frechet distance. width: of the figure, in inches. low: the title
    that shows what an enlarging network was given instead of what was drawn.
    """
    figure, panels = subplots(width / len(shown) + 0.2, width, ncols=len(shown), squeeze=False)
    for axes, (title, path) in zip(panels[0], shown.items()):
        axes.set_axis_off()
        axes.set_title(title)
        arrays = {} if path is None else read_arrays(path, samples=4)
        if (name := "low" if title == low else "samples") in arrays:
            axes.imshow(tiled(arrays[name], columns), cmap="gray")
    return figure


def tiled(images: np.ndarray, columns: int, rows: int | None = None) -> np.ndarray:
    """The first images [n, C, H, W] as one picture [rows (H + 1) + 1, columns (W + 1) + 1(, 3)].

    uint8 levels, with white lines between the images. Without `rows` as many as are wide or fewer.
    """
    n, channels, height, width = images.shape
    rows = rows or min(columns, max(1, n // columns))
    shape = rows * (height + 1) + 1, columns * (width + 1) + 1, channels
    picture = np.full(shape, 255, np.uint8)
    for i, image in enumerate(images[: rows * columns]):
        y, x = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        picture[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    return picture[..., 0] if channels == 1 else picture
