"""One training step, and everything that changes while training.

Batch, timesteps, noise and dropout are functions of (seed, step), and cells of a grid that share a
seed share them: differences between cells are paired.
"""

import json

import numpy as np
import torch
from torch import Tensor

from core import build
from core.chains import training_chain
from core.config import Housekeeping, TrainConfig, to_dict
from core.data.images import Images, batch_indices
from core.data.sources import at_size
from core.diffusion.objectives import training_losses
from core.diffusion.process import Diffusion
from core.distributed import ALONE, Ranks
from core.errors import Refused
from core.networks.ema import EMA
from core.randomness import numpy_generator, torch_generator, torch_seed


def check_enough(images: Images, batch_size: int) -> None:
    """Refused when there are fewer images than a batch has."""
    if len(images) < batch_size:
        raise Refused(
            f"{images.name} has {len(images)} images, fewer than a batch of {batch_size}: "
            "lower optim.batch_size or add images"
        )


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The 2-norm of all entries together, a scalar."""
    return torch.stack(torch._foreach_norm(tensors)).norm()


def clip_gradients(gradients: list[Tensor], limit: float) -> None:
    """Scales all gradients by one factor so that their norm is at most `limit`.

    As torch.nn.utils.clip_grad_norm_, bit for bit, without its sorting by device and type.
    """
    factor = limit / (total_norm(gradients) + 1e-6)
    if factor.is_cpu and factor >= 1:
        return  # nothing to do, and asking costs nothing where there is no device to wait for
    torch._foreach_mul_(gradients, factor.clamp(max=1.0))


class Trainer:
    """A run in progress: everything that changes while training, and one step of it."""

    def __init__(
        self,
        config: TrainConfig,
        images: Images,
        housekeeping: Housekeeping,
        ranks: Ranks = ALONE,
    ):
        check_enough(images, config.optim.batch_size)
        ranks.check(config.optim.batch_size)
        self.config, self.images, self.ranks = config, images, ranks
        low = config.data.low
        self.low_images = at_size(images, low, "data.low") if low else None
        self.part = ranks.part(config.optim.batch_size)
        self.microbatch = housekeeping.microbatch or len(self.part)
        self.device = build.device(housekeeping)
        self.diffusion = Diffusion(training_chain(config.diffusion), self.device)
        self.model = build.network(config, images.channels, images.size, images.classes)
        self.model.to(self.device).train()
        self.model.gradient_checkpointing = housekeeping.gradient_checkpointing
        self.parameters = list(self.model.parameters())
        self.forward = ranks.wrap(self.model)
        if housekeeping.compile:
            self.forward = torch.compile(self.forward)
        self.optimizer = build.optimizer(config.optim, self.model)
        self.ema = EMA(self.model, config.optim.ema)
        self.timesteps = build.timestep_sampler(config.objective, config.diffusion.T)
        self.step = 0
        # Sums of loss, mse and vlb over the steps since the last line of the log, and over this
        # process's part of the batches.
        self.sums, self.summed = torch.zeros(3, device=self.device), 0

    def one_step(self) -> None:
        """Batch, t and its weights, noise, prediction, loss, optimizer, averages."""
        optim, seed = self.config.optim, self.config.seed
        indices = batch_indices(len(self.images), optim.batch_size, seed, self.step)
        u = numpy_generator(seed, "t", self.step).random(optim.batch_size)
        t, weights = self.timesteps.sample(u)
        shape = (optim.batch_size, self.images.channels, self.images.size, self.images.size)
        eps = torch.randn(shape, generator=torch_generator(seed, "eps", self.step))
        if self.config.unet.dropout:
            others = (self.ranks.rank,) if self.ranks.rank else ()
            torch.manual_seed(torch_seed(seed, "dropout", self.step, *others))

        self.optimizer.zero_grad()
        losses = []
        for first in range(self.part.start, self.part.stop, self.microbatch):
            end = min(first + self.microbatch, self.part.stop)
            part = slice(first, end)
            with self.ranks.quiet(self.forward, last=end == self.part.stop):
                losses.append(self._backward(indices[part], t[part], weights[part], eps[part]))
        for group in self.optimizer.param_groups:
            group["lr"] = optim.rate * min(1.0, (self.step + 1) / max(1, optim.warmup))
        if optim.grad_clip:
            clip_gradients([p.grad for p in self.parameters], optim.grad_clip)
        self.optimizer.step()
        self.ema.update()
        self.timesteps.update(t, self.ranks.gather(torch.cat(losses)))
        self.step += 1
        self.summed += 1

    def _backward(
        self, indices: np.ndarray, t: np.ndarray, weights: np.ndarray, eps: Tensor
    ) -> Tensor:
        """Adds the gradient of a part of the batch; returns its unweighted losses [n]."""
        x0 = self.images.batch(indices).to(self.device)
        eps, t = eps.to(self.device), torch.from_numpy(t).to(self.device)
        weights = torch.from_numpy(weights).to(self.device, x0.dtype)
        label = None
        if self.config.unet.class_conditional:
            label = self.images.labels[torch.from_numpy(indices)].to(self.device)
        low = self.low_images and self.low_images.batch(indices).to(self.device)
        x_t = self.diffusion.q_sample(x0, t, eps)
        denoise = build.denoiser(self.forward, self.diffusion, self.config.precision, label, low)
        objective = self.config.objective
        losses = training_losses(
            objective.name, objective.vlb_weight, self.diffusion, denoise(x_t, t), x0, x_t, t, eps
        )
        share = weights / self.config.optim.batch_size
        # Gradients are averaged over the processes, and their parts must be added up.
        (self.ranks.world * (share * losses.loss).sum()).backward()
        nothing = torch.zeros_like(share)
        logged = [losses.loss, losses.mse, losses.vlb]
        logged = [(share * (nothing if x is None else x.detach())).sum() for x in logged]
        self.sums += torch.stack(logged)
        return losses.loss.detach()

    def log_line(self) -> dict:
        """Means since the last line, and begins a new one. All processes must ask at once.

        loss as trained on; mse (L_simple) and vlb (bits/dim) where the objective has them;
        grad_norm of the last step, after clipping.
        """
        loss, mse, vlb = (self.ranks.sum(self.sums) / max(1, self.summed)).tolist()
        line = {"step": self.step, "loss": loss}
        if self.config.objective.name != "vlb":
            line["mse"] = mse
        if self.config.objective.name != "simple":
            line["vlb"] = vlb
        gradients = [p.grad for p in self.parameters]
        norm = total_norm(gradients).item()
        self.sums, self.summed = torch.zeros_like(self.sums), 0
        return line | {"grad_norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}

    def finite(self) -> bool:
        """Whether every loss since the last line of the log and every weight is finite.

        All processes must ask at once.
        """
        norm = total_norm([p.detach() for p in self.parameters])
        sums = self.ranks.sum(self.sums)
        fine = bool(torch.isfinite(sums).all() and torch.isfinite(norm))
        return not self.ranks.any(not fine)[0]

    def state_dict(self) -> dict:
        """What a resumed run needs to continue bit for bit. All processes must ask at once."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "timesteps": self.timesteps.state_dict(),
            "sums": self.ranks.gather(self.sums[None]),  # of each process
            "summed": self.summed,
        }

    def load_state_dict(self, state: dict) -> None:
        self.step, self.summed = state["step"], state["summed"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        self.timesteps.load_state_dict(state["timesteps"])
        sums = state["sums"].to(self.device).view(-1, 3)
        alike = len(sums) == self.ranks.world
        self.sums = sums[self.ranks.rank] if alike else sums.sum(0) / self.ranks.world

    def snapshot(self) -> dict:
        """What measurements need: weights, averages, the distribution of t, and what they are."""
        return {
            "config": json.dumps(to_dict(self.config)),
            "images": [self.images.channels, self.images.size, self.images.classes],
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "timesteps": self.timesteps.state_dict(),
        }
