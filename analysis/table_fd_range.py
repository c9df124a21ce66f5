"""Between what a Frechet distance can lie: real images for a floor, noise for a ceiling.

What to look for: a distance of n drawn images is to be judged against that of n real ones, which
is not 0 and falls as n grows; the spread between draws is the least that a difference must exceed.
A network that only repeats the few images it was trained on, as in the study of overfitting, would
come to their line: above that, overfitting costs no distance.

    python analysis/table_fd_range.py [scale=NAME] [data.name=NAME data_path=PATH] [results=FOLDER]

takes the same words as experiments/run.py, and measures on the data set alone: nothing is trained.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from analysis.script import say_written
from analysis.tables import markdown, number, write
from core.build import device, training_images
from core.command import start
from core.config import Frechet
from core.data.sources import load_once
from core.errors import Refused
from core.measurements.frechet import extractor_of
from core.metrics.distances import frechet, moments
from core.metrics.extractor import features_of
from core.metrics.names import metric_name
from core.metrics.reference import reference_moments
from core.randomness import numpy_generator
from experiments.grid import expand
from experiments.overrides import Request, parse

SIZES = (256, 500, 1000)
LARGER = (2500, 5000)  # for features that are more than those
DRAWS = 20
MOST = 60_000  # training images that sets are drawn from


def distances(
    n: int, of: np.ndarray, to: tuple[np.ndarray, np.ndarray], repeated: bool = False
) -> np.ndarray:
    """Of DRAWS random sets of n of the features `of`; repeated: with replacement within a set."""
    found = []
    for i in range(DRAWS):
        drawn = numpy_generator(i, "fd range", n)
        chosen = drawn.integers(len(of), size=n) if repeated else drawn.permutation(len(of))[:n]
        found.append(frechet(*moments(of[chosen]), *to))
    return np.array(found)


def few(request: Request) -> int:
    """Images that the study of overfitting trains on at this scale; 0: all that there are."""
    data = {key: value for key, value in request.overrides.items() if key.startswith("data.")}
    return expand(replace(request, grid="overfitting", overrides=data)).cells[0].config.data.images


def table(request: Request) -> tuple[pd.DataFrame, str]:
    """A line for each kind of images, a column for each n, and what stands under it."""
    cell, keeping = expand(request).cells[0], request.housekeeping
    config, path = cell.config, keeping.data_path or None
    train, test = training_images(config.data, path), load_once(config.data.name, "test", path)
    settings = next(a.settings for a in cell.measurements if isinstance(a.settings, Frechet))
    form = train.channels, train.size, keeping, device(keeping)
    features = extractor_of(settings, *form)
    sizes = SIZES if features.dimension < min(SIZES) else LARGER
    shape = max(4000, *sizes), *train.pixels.shape[1:]
    noise = numpy_generator(0, "fd range noise").integers(0, 256, shape)
    kinds = {
        "training images": features_of(features, train.pixels[:MOST]),
        "test images": features_of(features, test.pixels[:MOST]),
        "noise": features_of(features, torch.from_numpy(noise.astype(np.uint8))),
    }
    if len(train) > MOST:
        whole = reference_moments(train, features, request.results / "cache")
    else:
        whole = moments(kinds["training images"])
    repeated = ""
    if 0 < (n := few(request)) < len(kinds["training images"]):
        repeated = f"the first {n:,}, repeated"
        kinds[repeated] = kinds["training images"][:n]
    lines = []
    for kind, found in kinds.items():
        line = {"images": kind}
        for n in sizes:
            if len(found) < n and kind != repeated:
                raise Refused(f"{n} {kind} are needed, there are {len(found)}")
            drawn = distances(n, found, whole, kind == repeated)
            line[f"n = {n:,}"] = number(drawn.mean(), drawn.std(ddof=1), 2)
        lines.append(line)
    half = numpy_generator(0, "fd range halves").permutation(min(len(train), MOST))
    halves = [kinds["training images"][part] for part in np.array_split(half, 2)]
    apart = frechet(*moments(halves[0]), *moments(halves[1]))
    legend = (
        f"{metric_name(settings.features, None, settings.features_sha256)} to all {len(train):,} "
        f"images of {train.name}; mean ± standard deviation over {DRAWS} random sets of n images. "
        f"One half of {train.name} to the other: {apart:.3f}."
    )
    return pd.DataFrame(lines), legend


def main(words: list[str]) -> None:
    request = parse(words, grid="schedule_ablation")
    ours, legend = table(request)
    text = (
        f"# The range of Frechet distances, scale {request.scale}\n\n{markdown(ours)}\n\n{legend}"
    )
    print(text)
    changed = request.name.removeprefix(f"{request.grid}.")
    name = f"fd_range.{changed}"
    say_written(write(request.results / "tables", name, {"md": text + "\n"}))


if __name__ == "__main__":
    start(main)
