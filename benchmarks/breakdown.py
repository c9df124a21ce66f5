"""What the time of a training step is spent on, by kind of operation."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.lines import Line
from benchmarks.subjects import Subject
from benchmarks.training import textbook
from core.config import Housekeeping
from core.trainer import Trainer

# Beginnings of operations' names; the first kind that fits counts.
KINDS = {
    "convolutions": ("convolution", "_convolution", "mkldnn_convolution", "slow_conv"),
    "matrix products": ("bmm", "baddbmm", "mm", "addmm"),
    "softmax": ("_softmax",),
    "normalisation": ("native_group_norm",),
    "SiLU": ("silu",),
    "sums, products, concatenations, copies": (
        *("add", "mul", "sub", "div", "cat", "copy_", "sum", "neg", "pow", "exp", "fill_", "zero_"),
        *("upsample", "constant_pad", "clamp", "where", "rsub", "stack", "lerp"),
    ),
    "optimizer and averages": ("_fused_adamw", "_foreach", "Optimizer"),
}


def kind_of(name: str) -> str:
    """The kind an operation is of; what only administers tensors and the graph is "the rest"."""
    name = name.removeprefix("aten::")
    for kind, beginnings in KINDS.items():
        if name.startswith(beginnings):
            return kind
    return "the rest: autograd, views, Python"


def milliseconds(work, repeats: int) -> Counter:
    """Self time of each kind in one call of `work`."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repeats):
            work()
    spent = Counter()
    for event in profiler.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1e3 / repeats
    return spent


def measure(subject: Subject, repeats: int) -> Iterator[Line]:
    """Ours and the textbook's network, forward and backward, and our whole step."""
    torch.set_num_threads(subject.threads)
    batch = subject.config.optim.batch_size
    trainer, plain = (
        Trainer(subject.config, subject.images(), Housekeeping("cpu")),
        textbook(subject),
    )
    x, time = subject.inputs(batch)
    gradient = torch.randn(batch, subject.learned, subject.size, subject.size)

    def both_ways(network):
        network.zero_grad()
        network(x, time).backward(gradient)

    columns = [
        milliseconds(lambda: both_ways(plain), repeats),
        milliseconds(lambda: both_ways(trainer.model), repeats),
        milliseconds(trainer.one_step, repeats),
    ]
    yield Line("ms under the profiler", "textbook's network; our network; our whole step")
    kinds = sorted(set().union(*columns), key=lambda kind: -columns[0][kind])
    for kind in [*kinds, "all"]:
        spent = [sum(c.values()) if kind == "all" else c[kind] for c in columns]
        yield Line(kind, "; ".join(f"{milliseconds:.1f}" for milliseconds in spent))
