r"""Images on their way to noise: the linear and the cosine schedule (the paper's Figure 3).

    python analysis/plot_noised_images.py [T=4000] [data_path=FOLDER] [results=FOLDER]

  T=4000            steps of the diffusion process
  data_path=FOLDER  three test images of this folder or .zip, instead of fashion16's
  results=FOLDER    the picture goes to FOLDER/figures/ (default results/)

Three test images after t steps, t evenly spaced from 0 to T, with the same noise in every column
and in both halves. What to look for: under the linear schedule the last quarter is nearly pure
noise, and the images are lost at half of the way; under the cosine schedule they fade evenly.
"""

import numpy as np
import torch
from matplotlib import pyplot as plt

from analysis import plots
from analysis.script import RESULTS, chain, keys, say_written
from core.command import start
from core.data.images import Images, to_uint8
from core.data.sources import load
from core.diffusion import schedules
from core.randomness import ImageNoise

SCHEDULES = {"linear": schedules.linear, "cosine": schedules.cosine}
COLUMNS = 9
FASHION16 = (2, 30, 83)  # trousers, a bag and a boot: bright, and unlike one another
SEED = 0
WIDTH, LEFT, ABOVE, GAP = 612, 42, 40, 12  # in dots, of a column's 680: the images, and around them


def chosen(data_path: str | None) -> tuple[Images, list[int]]:
    """A test split and the indices of the images to show."""
    if data_path is None:
        return load("fashion16", "test"), list(FASHION16)
    images = load("folder", "test", data_path)
    return images, sorted(set(np.linspace(0, len(images) - 1, len(FASHION16), dtype=int).tolist()))


def steps(T: int) -> np.ndarray:
    """The t of each column."""
    return np.linspace(0, T, COLUMNS).round().astype(int)


def noised(images: Images, indices: list[int], T: int) -> dict[str, np.ndarray]:
    """By schedule, x_t as uint8 [image, column, H, W, C]: eq. 9 with one noise for each image."""
    x0 = images.batch(indices)
    eps = torch.cat([ImageNoise(range(i, i + 1), x0.shape[1:], SEED, "figure")() for i in indices])
    latents = {}
    for name, make in SCHEDULES.items():
        schedule = make(T)
        signal, noise = np.sqrt(schedule.alpha_bar), np.sqrt(schedule.one_minus_alpha_bar)
        x = torch.stack([float(signal[t]) * x0 + float(noise[t]) * eps for t in steps(T)], dim=1)
        latents[name] = to_uint8(x).permute(0, 1, 3, 4, 2).numpy()
    return latents


def montage(x: np.ndarray) -> np.ndarray:
    """[rows, columns, H, W, C] as one picture [height, width, 3] with white lines in between."""
    x = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    rows, columns, height, width, channels = x.shape
    picture = x.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return np.repeat(picture, 3 // channels, axis=2)[:-1, :-1]


def draw(latents: dict[str, np.ndarray], T: int):
    """The figure: linear above cosine, a row for each image."""
    pictures = {name: montage(x) for name, x in latents.items()}
    high, wide = pictures["linear"].shape[:2]
    # A whole number of dots per pixel, so that all pixels are equally large, if they fit at all.
    zoom = WIDTH // wide or WIDTH / wide
    width, height = plots.COLUMN * plots.DPI, ABOVE + GAP + 2 * round(high * zoom)
    figure = plt.figure(figsize=(plots.COLUMN, height / plots.DPI))
    figure.set_layout_engine("none")
    for row, (name, picture) in enumerate(pictures.items()):
        bottom = (1 - row) * (round(high * zoom) + GAP)
        axes = figure.add_axes(
            (LEFT / width, bottom / height, wide * zoom / width, high * zoom / height)
        )
        # "none" and not "nearest": the SVG gets the pixels themselves, not a resampling at 72 dpi.
        axes.imshow(picture, interpolation="none" if zoom >= 1 else "antialiased", aspect="auto")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(name, color=plots.line(name)["color"], labelpad=3)
        if row == 0:
            middles = (np.arange(COLUMNS) + 0.5) * (wide + 1) / COLUMNS - 1
            axes.set_xticks(middles, [f"$t={t}$" if t == 0 else str(t) for t in steps(T)])
            axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
            axes.tick_params(length=0, pad=2)
    return figure


def main(words: list[str]) -> None:
    """The command line."""
    asked = keys(words, T=4000, data_path=None, results=RESULTS)
    T = chain(asked["T"])
    images, indices = chosen(asked["data_path"])
    name = images.name.replace("$", r"\$")  # a folder's name may hold what begins a formula
    caption = (
        f"Paper's Figure 3. {name}, images {', '.join(map(str, indices))}; T = {T}; noise "
        f"of seed {SEED}, the same in every column and schedule. Exact: follows from the "
        "schedule alone. Shown clipped to [-1, 1]."
    )
    folder = asked["results"] / "figures"
    figure = draw(noised(images, indices, T), T)
    say_written(plots.save(figure, "noised_images", folder, caption))


if __name__ == "__main__":
    start(main)
