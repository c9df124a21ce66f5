"""One training step of a GAN (Goodfellow et al. 2014) with the hinge loss.

Batches and latents are functions of (seed, step), as everything random is in core/trainer.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import build
from core.any_trainer import AnyTrainer, load_moments, total_norm
from core.batches import batches
from core.config import Housekeeping, TrainConfig
from core.data.images import Images
from core.distributed import ALONE, Ranks
from core.randomness import torch_generator


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))], the hinge loss (Lim & Ye 2017, arXiv
    1705.02894): 2 where all logits are 0, and 0 where every logit is beyond 1 on its own side.

    real, fake: logits [N] of real and of drawn images.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-E[D(G(z))]. fake: logits [N] of drawn images."""
    return -fake.mean()


class GANTrainer(AnyTrainer):
    """The training of a GAN; `model` is its generator.

    A step is config.gan.discriminator_steps of the discriminator, each on a batch of its own, and
    one of the generator. Drawn images have the classes of the batch they stand beside. Of
    `housekeeping`, microbatch, compile and gradient_checkpointing are for diffusion models.
    """

    rates = "gan.lr_generator and gan.lr_discriminator"

    def __init__(
        self,
        config: TrainConfig,
        images: Images,
        housekeeping: Housekeeping,
        ranks: Ranks = ALONE,
    ):
        # The discriminator's loss, the generator's, the logits of real and of drawn images.
        super().__init__(config, images, housekeeping, ranks, logged=4)
        self.batches = batches(config, images, self.part, self.device, noise=False)
        form, gan = (images.channels, images.size, images.classes), config.gan
        self.discriminator = build.placed(build.discriminator(config, *form), housekeeping)
        self.optimizer = build.adam(gan, self.model, gan.lr_generator)
        self.discriminator.train()
        self.opponent = build.adam(gan, self.discriminator, gan.lr_discriminator)
        self.parameters += self.discriminator.parameters()

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return self.optimizer, self.opponent

    def one_step(self) -> None:
        """The discriminator's steps, the generator's, averages."""
        n = self.config.gan.discriminator_steps
        for i in range(n):
            real, _, label, _ = self.batches(self.step * n + i).part(slice(None), self.device)
            with torch.no_grad():
                fake = self._draw(label, i)
            both = None if label is None else torch.cat([label, label])
            logits = self._logits(torch.cat([real, fake]), both)
            loss = discriminator_loss(*logits.chunk(2))
            self._descend(loss, self.discriminator, self.opponent)
            seen = torch.stack([loss, *(x.mean() for x in logits.chunk(2))]).detach()
            self.sums[[0, 2, 3]] += seen / n / self.ranks.world

        # The gradient goes through the discriminator, and need not be taken by its weights.
        self.discriminator.requires_grad_(False)
        loss = generator_loss(self._logits(self._draw(label, n), label))
        self._descend(loss, self.model, self.optimizer)
        self.discriminator.requires_grad_(True)
        self.sums[1] += loss.detach() / self.ranks.world
        self.ema.update()
        self.step += 1
        self.summed += 1

    def _draw(self, label: Tensor | None, i: int) -> Tensor:
        """As many images as a part has, from latents number i of this step."""
        size = self.config.optim.batch_size, self.config.gan.latent
        z = torch.randn(size, generator=torch_generator(self.config.seed, "z", self.step, i))
        with self._precision():
            images = self.model(z[self.part.start : self.part.stop].to(self.device), label)
        return images.float()

    def _logits(self, images: Tensor, label: Tensor | None) -> Tensor:
        with self._precision():
            logits = self.discriminator(images, label)
        return logits.float()

    def _precision(self) -> torch.autocast:
        half = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def _descend(self, loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """A step of one network; gradients are averaged over the processes."""
        optimizer.zero_grad()
        loss.backward()
        if self.ranks.world > 1:
            for p in network.parameters():
                p.grad = self.ranks.sum(p.grad) / self.ranks.world
        optimizer.step()

    def log_line(self) -> dict:
        """Means since the last line, and begins a new one. All processes must ask at once.

        loss: the discriminator's; generator: the generator's; real, fake: logits in the
        discriminator's steps; grad_norm of the generator's last step.
        """
        loss, generator, real, fake = self.means()
        norm = total_norm([p.grad for p in self.model.parameters()]).item()
        line = {"step": self.step, "loss": loss, "generator": generator, "real": real, "fake": fake}
        return line | {"grad_norm": norm, "lr": self.config.gan.lr_generator}

    def state_dict(self) -> dict:
        """The discriminator's has the singular vectors of its spectral norms."""
        return super().state_dict() | {
            "discriminator": self.discriminator.state_dict(),
            "opponent": self.opponent.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.discriminator.load_state_dict(state["discriminator"])
        load_moments(self.opponent, state["opponent"])
