"""What a grid would cost, before anything is started: `plan=true`.

Operations are counted on the networks themselves, without memory or data (PyTorch's meta device): a
multiplication and an addition are two. Hours follow from a stated throughput; nothing is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core import build
from core.config import DataConfig, Housekeeping, ObjectiveConfig, TrainConfig, UNetConfig
from core.training import snapshot_step
from experiments.costs import gan_passes, measurement_evaluations, training_evaluations
from experiments.execute import Task

# TFLOP/s by precision: a fifth of what NVIDIA states for dense products on the H100 SXM, 989 in
# bfloat16 and 495 in TF32, which PyTorch takes for float32 convolutions. Convolutional networks of
# this size may be expected to reach about as much.
THROUGHPUT = {"bfloat16": 200.0, "float32": 100.0}
WHENCE = "a fifth of an H100's peak"
BYTES = 4  # of a float32


@dataclass(frozen=True)
class Network:
    """Counts of one network, per image where they depend on the batch."""

    parameters: int
    forward_flops: int
    activations: int  # bytes kept for the backward pass, in float32


@lru_cache(maxsize=64)
def network(
    unet: UNetConfig,
    learned: bool,
    images: tuple[int, int, int],
    checkpointing: bool = False,
    low: int = 0,
) -> Network:
    """Counts of a network for images of (channels, size, classes).

    learned: whether it has outputs for the variance; checkpointing: as in Housekeeping, without
    the stage that is being computed again; low: as in DataConfig.
    """
    objective = ObjectiveConfig("hybrid" if learned else "simple")
    config = TrainConfig(data=DataConfig(low=low), unet=unet, objective=objective)
    channels, size, _ = images
    channels *= 2 if low else 1
    with torch.device("meta"):
        model = build.network(config, *images)
        model.gradient_checkpointing = checkpointing
        return _counts(
            model,
            lambda n: (torch.empty(n, channels, size, size), torch.empty(n), _labels(n, unet)),
        )


@lru_cache(maxsize=64)
def adversaries(config: TrainConfig, images: tuple[int, int, int]) -> tuple[Network, Network]:
    """Counts of a GAN's generator and discriminator."""
    channels, size, _ = images
    latent, unet = config.gan.latent, config.unet
    with torch.device("meta"):
        return (
            _counts(
                build.network(config, *images),
                lambda n: (torch.empty(n, latent), _labels(n, unet)),
            ),
            _counts(
                build.discriminator(config, *images),
                lambda n: (torch.empty(n, channels, size, size), _labels(n, unet)),
            ),
        )


def _labels(n: int, unet: UNetConfig) -> torch.Tensor | None:
    return torch.empty(n, dtype=torch.int64) if unet.class_conditional else None


def _counts(model: nn.Module, inputs: Callable[[int], tuple]) -> Network:
    """inputs: so many images -> what the model is called with."""
    flops, kept = zip(*(_forward(model, inputs(n)) for n in (1, 2)))
    parameters = sum(p.numel() for p in model.parameters())
    # The difference leaves out what is kept once for all images, such as sums of weights.
    return Network(parameters, flops[1] - flops[0], kept[1] - kept[0])


def _forward(model: nn.Module, inputs: tuple) -> tuple[int, int]:
    """Operations of a forward pass, and bytes that it keeps."""
    kept: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, torch.nn.Parameter):
            storage = x.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return x

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
        FlopCounterMode(display=False) as counter,
    ):
        # The output is held until all is counted: it holds what was kept.
        out = model(*inputs)
    total = counter.get_total_flops(), sum(kept.values())
    del out
    return total


@dataclass(frozen=True)
class Training:
    """What a run's training takes; bytes are of float32."""

    parameters: int  # of all networks
    drawing: Network  # the network that images are drawn with, which is kept
    flops: float
    activations: int  # bytes, at most at once


def training(config: TrainConfig, form: tuple[int, int, int], keeping: Housekeeping) -> Training:
    """Of images of `form`: (channels, size, classes)."""
    batch = config.optim.batch_size
    if config.objective.name == "gan":
        drawing, judging = adversaries(config, form)
        of_drawing, of_judging = gan_passes(config.gan)
        flops = of_drawing * drawing.forward_flops + of_judging * judging.forward_flops
        # A discriminator's step sees twice the batch; a generator's goes through both networks.
        at_once = judging.activations + max(judging.activations, drawing.activations)
        parameters = drawing.parameters + judging.parameters
        return Training(parameters, drawing, config.optim.steps * batch * flops, batch * at_once)
    learned, checkpointing = config.objective.name != "simple", keeping.gradient_checkpointing
    counts = network(config.unet, learned, form, checkpointing, config.data.low)
    # Checkpointing computes the activations once more: four passes' work instead of three.
    again = 4 / 3 if checkpointing else 1.0
    flops = again * training_evaluations(config) * counts.forward_flops
    at_once = (keeping.microbatch or batch) * counts.activations
    return Training(counts.parameters, counts, flops, at_once)


@dataclass(frozen=True)
class Price:
    """One run's costs.

    parameters: of all networks in training. flops: stage -> operations, of all its stages; missing:
    of those to do. throughput: TFLOP/s that times are reckoned with.
    """

    task: Task
    parameters: int
    flops: dict[str, float]
    missing: float
    throughput: float
    memory: float  # bytes while training: weights, gradients, Adam's moments, averages, activations
    disk: float  # bytes kept: the snapshots that are measured

    def seconds(self, flops: float) -> float:
        return flops / (self.throughput * 1e12)

    @property
    def whole(self) -> float:
        """Operations of all stages."""
        return sum(self.flops.values())


def price(
    task: Task,
    throughput: float | None = None,
    form: tuple[int, int, int] | None = None,
    configs: dict[str, TrainConfig] | None = None,
) -> Price:
    """Costs of a run with all its measurements, whether or not some are there.

    form: (channels, size, classes) of data that are not here; None: they are. configs: of the runs
    that take part in its measurements, by their ids.
    """
    configs = configs or {}
    config, keeping = task.config, task.housekeeping
    if form and config.data.name == "folder":
        form = form[0], config.data.size or form[1], form[2]
    else:
        images = build.training_images(config.data, keeping.data_path or None)
        form = images.channels, images.size, images.classes
    trained = training(config, form, keeping)
    flops = {"train": trained.flops}
    missing = flops["train"] if task.trains else 0.0
    for asked in task.asked:
        evaluations = measurement_evaluations(config, asked.settings)
        more = evaluations * trained.drawing.forward_flops
        if config.data.low and asked.partner in configs:
            # Half of the evaluations are of the network that draws what this one enlarges.
            small = training(configs[asked.partner], (form[0], config.data.low, form[2]), keeping)
            more = evaluations / 2 * (trained.drawing.forward_flops + small.drawing.forward_flops)
        flops[asked.name] = flops.get(asked.name, 0.0) + more
        missing += more if asked in task.missing else 0.0
    averages = len(config.optim.ema)
    kept = averages * trained.drawing.parameters
    activations = trained.activations // (2 if config.precision == "bfloat16" else 1)
    memory = (4 * trained.parameters + kept) * BYTES + activations
    fractions = {1.0, *keeping.snapshots, *task.also_at}
    fractions |= {asked.settings.at for asked in task.asked}
    steps = {snapshot_step(at, config.optim.steps) for at in fractions}
    disk = len(steps) * (trained.drawing.parameters + kept) * BYTES
    throughput = throughput or THROUGHPUT[config.precision]
    return Price(task, trained.parameters, flops, missing, throughput, memory, disk)


def report(
    title: str,
    tasks: list[Task],
    cells: int,
    throughput: float | None = None,
    form: tuple[int, int, int] | None = None,
) -> str:
    """The costs of distinct runs as a table, and their sums.

    throughput: TFLOP/s of one device; None: THROUGHPUT, by each run's precision. form: as in price.
    """
    configs = {task.run.id: task.config for task in tasks}
    prices = [price(task, throughput, form, configs) for task in tasks]
    rows = [["run", "", "weights", "stage", "PFLOP", "time", "memory", "disk"]]
    for p in prices:
        first = [p.task.run.id, p.task.words, f"{p.parameters / 1e6:.3g} M"]
        last = [f"{p.memory / 2**30:.2g} GiB", f"{p.disk / 2**20:.3g} MiB"]
        for stage, flops in p.flops.items():
            rows.append([*first, stage, _number(flops / 1e15), _duration(p.seconds(flops)), *last])
            first, last = ["", "", ""], ["", ""]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths)).rstrip() for row in rows]
    total, missing = sum(p.whole for p in prices), sum(p.missing for p in prices)
    total_time = _duration(sum(p.seconds(p.whole) for p in prices))
    missing_time = _duration(sum(p.seconds(p.missing) for p in prices))
    rates = " and ".join(f"{rate:g}" for rate in sorted({p.throughput for p in prices}))
    whence = "" if throughput else f" ({WHENCE}; throughput= sets it)"
    lines += [
        "",
        f"{title}: {cells} cells are {len(prices)} distinct runs, "
        f"{_number(total / 1e15)} PFLOP in all, {_number(missing / 1e15)} of them still to do",
        f"at {rates} TFLOP/s{whence}: {total_time} in all, {missing_time} still to do",
        f"disk for snapshots: {sum(p.disk for p in prices) / 2**30:.3g} GiB",
    ]
    return "\n".join(lines)


def _number(x: float) -> str:
    """Three digits, without an exponent where people would not write one."""
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def _duration(seconds: float) -> str:
    """In the largest unit of which there is at least one."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{_number(seconds / length)} {unit}"
    return f"{_number(seconds)} s"
