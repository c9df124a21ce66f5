"""How much of a run's time is spent inside the network: python -m benchmarks.share SCALE.

One row of the schedule study is trained and measured, shortened but in the proportions of the
scale, with a clock around each call of the network and each backward pass. Prints the share.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from core.networks.unet import UNet
from experiments.execute import Task, execute
from experiments.grid import expand
from experiments.overrides import parse
from experiments.runs import Runs

SHORTER = 5


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
    optim = replace(cell.config.optim, steps=cell.config.optim.steps // SHORTER)
    config = replace(cell.config, optim=optim)
    asked = tuple(
        replace(a, settings=replace(a.settings, images=max(80, a.settings.images // SHORTER)))
        for a in cell.measurements
    )
    clock = Clock()
    UNet.forward = clock.around(UNet.forward)
    torch.Tensor.backward = clock.around(torch.Tensor.backward)
    with tempfile.TemporaryDirectory() as folder:
        run = Runs(Path(folder)).find(cell.run_id, config)
        task = Task("", run, config, asked, parse([]).housekeeping, Path(folder) / "cache")
        begun = time.perf_counter()
        execute(task, lambda *words: None, lambda: False)
        return clock.seconds / (time.perf_counter() - begun)


if __name__ == "__main__":
    print(json.dumps(share(sys.argv[1])))
