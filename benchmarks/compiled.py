"""Whether torch.compile pays: what it saves per step against what it costs at the start."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.lines import Line
from benchmarks.subjects import Subject
from benchmarks.timing import race
from core import build


def measure(subject: Subject, cache: Path, rounds: int) -> Iterator[Line]:
    """Forward and backward, compiled from nothing and eager. Needs a C++ compiler."""
    torch.set_num_threads(subject.threads)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    model = build.network(subject.config, subject.channels, subject.size, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    compiled = torch.compile(model)
    batch = subject.config.optim.batch_size
    x, t = subject.inputs(batch)
    gradient = torch.randn(batch, subject.learned, subject.size, subject.size)

    def both_ways(network):
        model.zero_grad()
        network(x, t).backward(gradient)

    begun = time.perf_counter()
    try:
        both_ways(compiled)
    except Exception as error:  # the compiler's own errors have no common ancestor
        yield Line("torch.compile", f"failed: {str(error).splitlines()[0][:80]}")
        return
    first = time.perf_counter() - begun
    with torch.no_grad():
        off = ((compiled(x, t) - model(x, t)).norm() / model(x, t).norm()).item()
    times = race(
        {"eager": lambda: both_ways(model), "compiled": lambda: both_ways(compiled)}, rounds
    )
    saved = times.best("eager") - times.best("compiled")
    yield Line("compiled / eager, forward and backward", times.ratio("compiled", "eager"))
    yield Line("compiling the training step, s", first)
    yield Line("steps until it has paid", f"{first / saved:,.0f}" if saved > 0 else "never")
    yield Line("relative difference of the output", off)
