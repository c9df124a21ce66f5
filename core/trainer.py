"""One training step, and everything that changes while training.

Batch, timesteps, noise and dropout are functions of (seed, step), and cells of a grid that share a
seed share them: differences between cells are paired.
"""

import numpy as np
import torch
from torch import Tensor

from core import build
from core.any_trainer import AnyTrainer, total_norm
from core.batches import Batch, batches
from core.chains import training_chain
from core.config import Housekeeping, TrainConfig
from core.data.images import Images, enlarged
from core.data.sources import at_size
from core.diffusion.objectives import training_losses
from core.diffusion.process import Diffusion
from core.distributed import ALONE, Ranks
from core.randomness import numpy_generator, torch_seed


def clip_gradients(gradients: list[Tensor], limit: float) -> None:
    """Scales all gradients by one factor so that their norm is at most `limit`.

    As torch.nn.utils.clip_grad_norm_, bit for bit, without its sorting by device and type.
    """
    factor = limit / (total_norm(gradients) + 1e-6)
    if factor.is_cpu and factor >= 1:
        return  # nothing to do, and asking costs nothing where there is no device to wait for
    torch._foreach_mul_(gradients, factor.clamp(max=1.0))


class Trainer(AnyTrainer):
    """The training of a diffusion model: what changes while it goes on, and one step of it."""

    def __init__(
        self,
        config: TrainConfig,
        images: Images,
        housekeeping: Housekeeping,
        ranks: Ranks = ALONE,
    ):
        super().__init__(config, images, housekeeping, ranks, logged=3)  # loss, mse, vlb
        low = at_size(images, config.data.low, "data.low") if config.data.low else None
        self.batches = batches(config, images, self.part, self.device, low)
        self.microbatch = housekeeping.microbatch or len(self.part)
        self.diffusion = Diffusion(training_chain(config.diffusion), self.device)
        self.model.gradient_checkpointing = housekeeping.gradient_checkpointing
        self.forward = ranks.wrap(self.model)
        if housekeeping.compile:
            self.forward = torch.compile(self.forward)
        self.optimizer = build.optimizer(config.optim, self.model)
        self.timesteps = build.timestep_sampler(config.objective, config.diffusion.T)

    def one_step(self) -> None:
        """Batch, t and its weights, noise, prediction, loss, optimizer, averages."""
        optim, seed = self.config.optim, self.config.seed
        batch = self.batches(self.step)
        u = numpy_generator(seed, "t", self.step).random(optim.batch_size)
        t, weights = self.timesteps.sample(u)
        if self.config.unet.dropout:
            others = (self.ranks.rank,) if self.ranks.rank else ()
            torch.manual_seed(torch_seed(seed, "dropout", self.step, *others))

        self.optimizer.zero_grad()
        losses = []
        for first in range(self.part.start, self.part.stop, self.microbatch):
            end = min(first + self.microbatch, self.part.stop)
            part = batch.part(slice(first - self.part.start, end - self.part.start), self.device)
            with self.ranks.quiet(self.forward, last=end == self.part.stop):
                losses.append(self._backward(part, t[first:end], weights[first:end]))
        for group in self.optimizer.param_groups:
            group["lr"] = optim.rate * min(1.0, (self.step + 1) / max(1, optim.warmup))
        if optim.grad_clip:
            clip_gradients([p.grad for p in self.parameters], optim.grad_clip)
        self.optimizer.step()
        self.ema.update()
        self.timesteps.update(t, self.ranks.gather(torch.cat(losses)))
        self.step += 1
        self.summed += 1

    def _backward(self, batch: Batch, t: np.ndarray, weights: np.ndarray) -> Tensor:
        """Adds the gradient of a part of the batch; returns its unweighted losses [n]."""
        x0, eps, label, low = batch
        t = torch.from_numpy(t).to(self.device)
        weights = torch.from_numpy(weights).to(self.device, x0.dtype)
        low = None if low is None else enlarged(low, x0.shape[-1])
        x_t = self.diffusion.q_sample(x0, t, eps)
        denoise = build.denoiser(self.forward, self.diffusion, self.config.precision, label, low)
        objective = self.config.objective
        at = denoise(x_t, t), x0, x_t, t, eps
        losses = training_losses(
            objective.name, objective.vlb_weight, self.diffusion, *at, objective.min_snr
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
        loss, mse, vlb = self.means()
        line = {"step": self.step, "loss": loss}
        if self.config.objective.name != "vlb":
            line["mse"] = mse
        if self.config.objective.name != "simple":
            line["vlb"] = vlb
        norm = total_norm([p.grad for p in self.parameters]).item()
        return line | {"grad_norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}

    def state_dict(self) -> dict:
        return super().state_dict() | {"timesteps": self.timesteps.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.timesteps.load_state_dict(state["timesteps"])

    def snapshot(self) -> dict:
        """With the distribution of t."""
        return super().snapshot() | {"timesteps": self.timesteps.state_dict()}
