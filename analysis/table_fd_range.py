"""Between what a Frechet distance can lie: real images for a floor, noise for a ceiling.

What to look for: a distance of n drawn images is to be judged against that of n real ones, which
is not 0 and falls as n grows; the spread between draws is the least that a difference must exceed.

    python analysis/table_fd_range.py [scale=NAME] [data.name=NAME data_path=PATH] [results=FOLDER]

takes the same words as experiments/run.py, and measures on the data set alone: nothing is trained.
"""

import numpy as np
import pandas as pd
import torch

from analysis.script import run, say_written
from analysis.tables import markdown, number, write
from core.build import training_images
from core.data.sources import load_once
from core.errors import Refused
from core.metrics.distances import frechet, moments
from core.metrics.features import extractor
from core.randomness import numpy_generator
from experiments.grid import expand
from experiments.overrides import Request, parse

SIZES = (256, 500, 1000)
DRAWS = 20


def distances(n: int, of: np.ndarray, to: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Of DRAWS random sets of n of the features `of`, without replacement within a set."""
    return np.array(
        [
            frechet(*moments(of[numpy_generator(i, "fd range", n).permutation(len(of))[:n]]), *to)
            for i in range(DRAWS)
        ]
    )


def table(request: Request) -> tuple[pd.DataFrame, str]:
    """A line for each kind of images, a column for each n, and what stands under it."""
    config, path = expand(request).cells[0].config, request.housekeeping.data_path or None
    train, test = training_images(config.data, path), load_once(config.data.name, "test", path)
    features = extractor("fashion_cnn", train.channels, train.size)
    noise = numpy_generator(0, "fd range noise").integers(0, 256, (4000, *train.pixels.shape[1:]))
    kinds = {
        "training images": features(train.pixels),
        "test images": features(test.pixels),
        "noise": features(torch.from_numpy(noise.astype(np.uint8))),
    }
    whole, lines = moments(kinds["training images"]), []
    for kind, found in kinds.items():
        line = {"images": kind}
        for n in SIZES:
            if len(found) < n:
                raise Refused(f"{n} {kind} are needed, there are {len(found)}")
            drawn = distances(n, found, whole)
            line[f"n = {n:,}"] = number(drawn.mean(), drawn.std(ddof=1), 2)
        lines.append(line)
    half = numpy_generator(0, "fd range halves").permutation(len(train))
    halves = [kinds["training images"][part] for part in np.array_split(half, 2)]
    apart = frechet(*moments(halves[0]), *moments(halves[1]))
    legend = (
        f"FD (fashion_cnn) to all {len(train):,} images of {train.name}; mean ± standard deviation "
        f"over {DRAWS} random sets of n images. One half of {train.name} to the other: {apart:.3f}."
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
    run(main)
