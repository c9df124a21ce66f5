"""How much of a run's time is spent inside the network: python -m benchmarks.share SCALE.

One row of the schedule study is trained and measured as the scale has it, with a clock around each
call of the network and each backward pass; the statistics of the training set are there already, as
they are for all rows but the first. Prints the share.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from core.config import Frechet
from core.measurements import check
from core.measurements.frechet import extractor_of
from core.metrics.reference import reference_moments
from core.networks.unet import UNet
from experiments.execute import Task, execute
from experiments.grid import expand
from experiments.overrides import parse
from experiments.runs import Runs
from experiments.stages import Course


class Clock:
    """Adds up the time spent in the functions that it wraps."""

    def __init__(self):
        self.seconds = 0.0

    def around(self, function):
        def timed(*args, **kwargs):
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begun

        return timed


def share(scale: str) -> float:
    """Seconds inside the network / seconds of the whole."""
    torch.set_num_threads(1)
    cells = expand(parse(["grid=schedule_ablation", f"scale={scale}"])).cells
    cell = next(cell for cell in cells if cell.words == "4K cosine L_hybrid")
    clock = Clock()
    UNet.forward = clock.around(UNet.forward)
    torch.Tensor.backward = clock.around(torch.Tensor.backward)
    with tempfile.TemporaryDirectory() as folder:
        run, cache = Runs(Path(folder)).find(cell.run_id, cell.config), Path(folder) / "cache"
        keeping = parse([]).housekeeping
        for asked in cell.measurements:
            if isinstance(asked.settings, Frechet):
                reference = check(cell.config, asked.settings, keeping)
                form = reference.channels, reference.size
                features = extractor_of(asked.settings, *form, keeping)
                reference_moments(reference, features, cache)
        task = Task("", run, cell.config, cell.measurements, keeping, cache)
        begun = time.perf_counter()
        execute(task, Course(lambda *words: None, lambda: False))
        return clock.seconds / (time.perf_counter() - begun)


if __name__ == "__main__":
    print(json.dumps(share(sys.argv[1])))
