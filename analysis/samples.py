"""Drawn images side by side."""

import numpy as np


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
