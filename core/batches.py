"""What a training step takes from the data and from chance, as functions of (seed, number).

Several steps' may therefore be made ahead of them, and are what they would be when made in time.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from core.ahead import Ahead
from core.config import TrainConfig
from core.data.images import Images, batch_indices
from core.randomness import torch_generator

AHEAD = 2  # batches of a GPU run, made while it works on another


class Batch(NamedTuple):
    """A process's part of a training batch: tensors [n, ...], on the CPU.

    x0: images in [-1, 1]. eps: noise like them. label: their classes. low: the images, smaller.
    None for what the training has no use for.
    """

    x0: Tensor
    eps: Tensor | None
    label: Tensor | None
    low: Tensor | None

    def part(self, which: slice, device: torch.device) -> "Batch":
        """Some of them, on the device."""
        # From pinned memory a copy goes on while the CPU does something else.
        free = device.type == "cuda"
        return Batch(*(None if x is None else x[which].to(device, non_blocking=free) for x in self))


def batches(
    config: TrainConfig,
    images: Images,
    part: range,
    device: torch.device,
    low: Images | None = None,
    noise: bool = True,
) -> Ahead[Batch]:
    """Batch number n of a training, when called with n.

    part: positions of this process's images in a batch. low: the images at a smaller size, for
    networks that enlarge. For a GPU they are made by a thread, and pinned.
    """
    ahead = device.type == "cuda"
    make = partial(_batch, config, images, part, low, noise, ahead)
    return Ahead(make, AHEAD if ahead else 0)


def _batch(
    config: TrainConfig,
    images: Images,
    part: range,
    low: Images | None,
    noise: bool,
    pinned: bool,
    number: int,
) -> Batch:
    size, seed = config.optim.batch_size, config.seed
    indices = batch_indices(len(images), size, seed, number)[part.start : part.stop]
    eps = label = None
    if noise:  # of the whole batch, so that it does not depend on the number of processes
        shape = (size, images.channels, images.size, images.size)
        eps = torch.randn(shape, generator=torch_generator(seed, "eps", number))
        eps = eps[part.start : part.stop]
    if config.unet.class_conditional:
        label = images.labels[torch.from_numpy(indices)]
    made = Batch(images.batch(indices), eps, label, None if low is None else low.batch(indices))
    return Batch(*(None if x is None else x.pin_memory() for x in made)) if pinned else made
