"""Several processes train one run: who is who, and what they tell each other.

Each process works on its own consecutive part of the same batch, so that a step sees the images,
timesteps and noise that it would see in one process; only dropout draws its masks per process.
Weights, averages and timestep samplers are alike in all of them; the first one writes.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from core.errors import Refused


@dataclass(frozen=True)
class Ranks:
    """This process among `world` of them. The default is one process alone, which tells nobody."""

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process keeps the run's files."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Refused when a batch cannot be shared out evenly."""
        if batch_size % self.world:
            raise Refused(
                f"optim.batch_size={batch_size} cannot be shared by {self.world} processes: "
                "give a multiple of their number"
            )

    def part(self, batch_size: int) -> range:
        """Positions of this process's images in the batch."""
        size = batch_size // self.world
        return range(self.rank * size, (self.rank + 1) * size)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, whose backward pass averages gradients over all processes."""
        if self.world == 1:
            return model
        devices = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else None
        return DistributedDataParallel(model, device_ids=devices)

    def quiet(self, model: nn.Module, last: bool):
        """A context in which backward passes tell nobody, but for the `last` of a step."""
        return nullcontext() if self.world == 1 or last else model.no_sync()

    def gather(self, x: Tensor) -> Tensor:
        """The parts of all processes, one after the other: the whole batch's [N]."""
        if self.world == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over all processes, in a new tensor."""
        if self.world == 1:
            return x
        total = x.clone()
        dist.all_reduce(total)
        return total

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, as true as in the process where it is truest: all take the same decisions."""
        if self.world == 1:
            return flags
        told = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in told.tolist())

    def first_only(self, work: Callable[[], None]) -> None:
        """Done by the first process. If it fails there, all raise: none is left waiting."""
        error = None
        if self.writes:
            try:
                work()
            except Exception as raised:
                error = raised
        (failed,) = self.any(error is not None)
        if error is not None:
            raise error
        if failed:
            raise Refused("the first process of this run failed; its message says why", code=1)

    def check_alike(self, number: int, what: str) -> None:
        """Refused in all processes when one of them has another number."""
        if self.world > 1:
            found = self.gather(torch.tensor([number])).tolist()
            if len(set(found)) > 1:
                raise Refused(
                    f"the processes of this run differ in their {what}: {found}; do all of them "
                    "see the same results folder?",
                    code=1,
                )


ALONE = Ranks()


def join() -> Ranks:
    """Meets the other processes that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT speak of.

    Tensors on GPUs go over NCCL, all others and all decisions over gloo. ALONE without these
    variables, or with a world of one.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return ALONE
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    dist.init_process_group(backend)
    return Ranks(dist.get_rank(), world)


def leave() -> None:
    """Ends what `join` began, if it did."""
    if dist.is_initialized():
        dist.destroy_process_group()
