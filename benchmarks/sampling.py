"""A sampling step against the bare forward pass, and against peers' samplers."""

from collections.abc import Iterator

import torch

from benchmarks.floor import forward_flops
from benchmarks.lines import Line, at_least, at_most
from benchmarks.peers import all_peers
from benchmarks.subjects import Subject
from benchmarks.timing import race
from core import build
from core.config import SamplerConfig
from core.measurements import draw_images
from core.trained import Trained


def measure(subject: Subject, batch: int, steps: int, rounds: int) -> Iterator[Line]:
    """Drawing `batch` images in `steps` steps, noise and rounding to bytes included."""
    torch.set_num_threads(subject.threads)
    model = build.network(subject.config, subject.channels, subject.size, 0)
    model.eval().requires_grad_(False)
    shape = (subject.channels, subject.size, subject.size)
    trained = Trained(subject.config, model, torch.device("cpu"), shape, 0)
    x, time = subject.inputs(batch)
    peers = all_peers(subject)

    def bare():
        with torch.inference_mode():
            for _ in range(steps):
                model(x, time)

    def ours(name: str):
        sampler = SamplerConfig(name, steps)
        return lambda: draw_images(trained, range(batch), sampler, "learned", 0, batch)

    contestants = {"bare": bare, "ancestral": ours("ancestral"), "ddim": ours("ddim")}
    contestants |= {peer.name: lambda peer=peer: peer.sample(batch, steps) for peer in peers}
    times = race(contestants, rounds)

    flops = forward_flops(model, x, time)
    yield Line("images; steps; threads", f"{batch}; {steps}; {subject.threads}")
    yield Line(
        "ancestral, ms per image and step (best round)",
        1e3 * times.best("ancestral") / batch / steps,
    )
    for name in ("ancestral", "ddim"):
        yield at_most(f"{name} / bare forward passes", times.ratio(name, "bare"), 1.03)
    for peer in peers:
        theirs = forward_flops(peer.network, x, time)
        ratio = times.ratio(peer.name, "ancestral").scaled(flops / theirs)
        yield at_least(f"{peer.name}: its sampler / ours, at equal operations", ratio, 1.0)
