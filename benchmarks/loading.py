"""Batches out of a prepared file: how fast they come, and whether training waits for them."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.lines import Line, at_least, at_most
from benchmarks.timing import Work, race
from core.ahead import Ahead
from core.batches import AHEAD, batches
from core.config import OptimConfig, TrainConfig
from core.data import prepared
from core.data.images import Images
from core.data.mapped import load_prepared
from core.data.original import CHUNK, Chunk, Original, Split

BATCH, SIZE = 128, 64
DEVICE = 0.05  # seconds; the paper's ImageNet 64 network takes longer for a step on any one GPU


def noise_of(count: int) -> Original:
    """So many images of noise, and a chunk of them for testing."""

    def read(split: Split) -> Iterator[Chunk]:
        numbers = np.random.default_rng(0)
        for first in range(0, counts[split], CHUNK):
            n = min(CHUNK, counts[split] - first)
            yield numbers.integers(256, size=(n, 3, SIZE, SIZE), dtype=np.uint8), None

    counts = {"train": count, "test": CHUNK}
    return Original("noise", 3, SIZE, (), counts, read)


def measure(path: Path, count: int, rounds: int) -> Iterator[Line]:
    """On one thread, with the file in the system's cache; beside a device that is busy for a while.

    The device is a sleep: what a GPU computes leaves the processor free.
    """
    torch.set_num_threads(1)
    began = time.perf_counter()
    made = {"source": "noise", "options": {}}
    header = prepared.write(path, noise_of(count), made, lambda done: None)
    written = header.bytes / (time.perf_counter() - began)
    mapped = load_prepared(path, "train")
    kept = Images("kept", mapped.pixels.clone(), None, 0)

    def feed(images: Images, noise: bool = False) -> Ahead:
        config = TrainConfig(optim=OptimConfig(batch_size=BATCH))
        return batches(config, images, range(BATCH), torch.device("cpu"), noise=noise)

    def taking(source: Ahead, by: int = 0, seconds: float = 0) -> Work:
        numbers, source = itertools.count(), Ahead(source.make, by)

        def work() -> None:
            source(next(numbers))
            if seconds:
                time.sleep(seconds)

        return work

    times = race(
        {
            "mapped": taking(feed(mapped)),
            "kept": taking(feed(kept)),
            "ahead": taking(feed(mapped), AHEAD),
            "device": lambda: time.sleep(DEVICE),
            "in time": taking(feed(mapped, noise=True), 0, DEVICE),
            "step ahead": taking(feed(mapped, noise=True), AHEAD, DEVICE),
        },
        rounds,
    )
    shape, busy = f"{count:,}, 3x{SIZE}x{SIZE}", f"{1e3 * DEVICE:.0f} ms"
    yield Line("images; of a batch; threads", f"{shape}; {BATCH}; 1")
    yield Line("writing them and their checksums, MB/s", f"{written / 1e6:,.0f}")
    for name, what in (("mapped", "one batch after the other"), ("ahead", "made by a thread")):
        yield Line(f"images per second, {what} (best round)", f"{BATCH / times.best(name):,.0f}")
    what = "batches out of memory / out of the file, speed"
    yield Line(what, times.ratio("mapped", "kept"))
    what = f"a step of a device that takes {busy} / these, batch and noise"
    yield Line(f"{what} made in time", times.ratio("in time", "device"))
    yield at_most(f"{what} made ahead", times.ratio("step ahead", "device"), 1.05)
    rate = DEVICE / times.best("mapped")
    yield at_least(f"batches that come while the device works on one, {busy}", rate, 2.0)
