"""What the trainings of all kinds of networks share: their state, and what is asked of it."""

import json
import math

import torch
from torch import Tensor

from core import build
from core.config import Housekeeping, TrainConfig, to_dict
from core.data.images import Images, check_levels
from core.distributed import Ranks
from core.errors import Refused
from core.networks.ema import EMA


def check_enough(images: Images, batch_size: int) -> None:
    """Refused when there are fewer images than a batch has."""
    if len(images) < batch_size:
        raise Refused(
            f"{images.name} has {len(images)} images, fewer than a batch of {batch_size}: "
            "lower optim.batch_size or add images"
        )


def check_classes(images: Images, conditional: bool) -> None:
    """Refused when a class that is to be learned has no image."""
    if conditional and images.labels is not None:
        seen = torch.bincount(images.labels, minlength=images.classes)
        if lacking := (seen == 0).nonzero().flatten().tolist():
            raise Refused(
                f"{images.name} has no image of {len(lacking)} of its {images.classes} classes "
                f"(number {lacking[0]}), which the network would draw unseen: add some, or leave "
                "out unet.class_conditional"
            )


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The 2-norm of all entries together, a scalar."""
    return torch.stack(torch._foreach_norm(tensors)).norm()


def load_moments(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Loads an optimizer's state, each moment in its parameter's order in memory.

    Fused optimizers want that, and a run may go on in another order than it was saved in.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(moment)


class AnyTrainer:
    """A run in progress. What draws its images is `model`, with its averages and its optimizer.

    images: of the training split. logged: how many numbers are summed for the lines of the log.
    """

    optimizer: torch.optim.Optimizer
    rates = "optim.lr"  # what to lower when a training diverges

    def __init__(
        self,
        config: TrainConfig,
        images: Images,
        housekeeping: Housekeeping,
        ranks: Ranks,
        logged: int,
    ):
        check_enough(images, config.optim.batch_size)
        check_levels(images)
        check_classes(images, config.unet.class_conditional)
        ranks.check(config.optim.batch_size)
        self.config, self.images, self.ranks = config, images, ranks
        self.part = ranks.part(config.optim.batch_size)
        self.device = build.device(housekeeping)
        self.model = build.network(config, images.channels, images.size, images.classes)
        build.placed(self.model, housekeeping).train()
        self.parameters = list(self.model.parameters())  # all that is trained
        self.ema = EMA(self.model, config.optim.ema)
        self.step = 0
        # Over the steps since the last line of the log, and this process's part of the batches.
        self.sums, self.summed = torch.zeros(logged, device=self.device), 0

    def means(self) -> list[float]:
        """Of what is logged, since the last line; begins a new one. All processes ask at once."""
        means = (self.ranks.sum(self.sums) / max(1, self.summed)).tolist()
        self.sums, self.summed = torch.zeros_like(self.sums), 0
        return means

    def finite(self) -> bool:
        """Whether every loss since the last line of the log, every weight and every moment of the
        optimizers is finite: a gradient whose square is not stops its weight for good, unseen.

        All processes must ask at once.
        """
        state = [p.detach() for p in self.parameters]
        state += [
            x
            for optimizer in self.optimizers
            for of_weight in optimizer.state.values()
            for x in of_weight.values()
            if isinstance(x, Tensor) and x.dim()  # not the count of steps
        ]
        largest = torch.stack([x.float() for x in torch._foreach_norm(state, math.inf)])
        sums = self.ranks.sum(self.sums)
        fine = bool(torch.isfinite(sums).all() and torch.isfinite(largest).all())
        return not self.ranks.any(not fine)[0]

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return (self.optimizer,)

    def state_dict(self) -> dict:
        """What a resumed run needs to continue bit for bit. All processes must ask at once."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "sums": self.ranks.gather(self.sums[None]),  # of each process
            "summed": self.summed,
        }

    def load_state_dict(self, state: dict) -> None:
        self.step, self.summed = int(state["step"]), int(state["summed"])
        self.model.load_state_dict(state["model"])
        load_moments(self.optimizer, state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        sums = state["sums"].to(self.device).view(-1, len(self.sums))
        alike = len(sums) == self.ranks.world
        self.sums = sums[self.ranks.rank] if alike else sums.sum(0) / self.ranks.world

    def snapshot(self) -> dict:
        """What measurements need: weights, averages, and what they are."""
        return {
            "config": json.dumps(to_dict(self.config)),
            "images": [self.images.channels, self.images.size, self.images.classes],
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
        }
