"""How noisy the gradient of an objective is: the simple noise scale of McCandlish et al. 2018.

    B_simple = tr(Sigma) / |G|^2    (their eq. 2.9)

with G the true gradient and Sigma the covariance of one image's: about the batch size below which
averaging over more images pays in full. Both are estimated from gradients of small batches and from
their mean, a large batch (their appendix A.1), each without bias.
"""

import numpy as np
import torch
from torch import Tensor

from core import build
from core.chains import training_chain
from core.config import GradientNoise
from core.data.images import Images
from core.diffusion.objectives import training_losses
from core.diffusion.process import Diffusion
from core.errors import Refused
from core.measurements.result import Result
from core.parts import Work
from core.randomness import numpy_generator, torch_generator, torch_seed
from core.trained import Trained

GROUPS = 8  # of batches, over which the jackknife goes: so many gradients are kept


class NoiseScale:
    """Takes gradients of batches one by one, [D] each, and estimates from all so far.

    batch: images of each. At least 3 * GROUPS gradients, so that every group may be left out.
    """

    def __init__(self, batch: int):
        self.batch, self.taken = batch, 0
        self.sums: list[Tensor] = []  # of each group's gradients, [D] in float64
        self.squares = np.zeros(GROUPS)
        self.counts = np.zeros(GROUPS)

    def add(self, gradient: Tensor) -> None:
        """The next batch's mean gradient."""
        gradient, group = gradient.double(), self.taken % GROUPS
        if len(self.sums) == group:
            self.sums.append(torch.zeros_like(gradient))
        self.sums[group] += gradient
        self.squares[group] += float(gradient @ gradient)
        self.counts[group] += 1
        self.taken += 1

    def estimate(self) -> tuple[float, float, float, float]:
        """B_simple in images and its standard error, tr(Sigma) per image, |G|^2.

        The ratio's first-order bias is removed by the jackknife, which also gives the error.
        """
        total = sum(self.sums)
        noise, gradient = self._parts(total, self.squares.sum(), self.counts.sum())
        left_out = np.array(
            [
                self._ratio(total - self.sums[g], self.squares.sum() - self.squares[g], n)
                for g, n in enumerate(self.counts.sum() - self.counts)
            ]
        )
        scale = GROUPS * noise / gradient - (GROUPS - 1) * left_out.mean()
        error = np.sqrt((GROUPS - 1) / GROUPS * ((left_out - left_out.mean()) ** 2).sum())
        return float(scale), float(error), noise, gradient

    def _ratio(self, total: Tensor, squares: float, n: float) -> float:
        noise, gradient = self._parts(total, squares, n)
        return noise / gradient

    def _parts(self, total: Tensor, squares: float, n: float) -> tuple[float, float]:
        """tr(Sigma) and |G|^2: two different batches share no noise, so their product has none."""
        gradient = (float(total @ total) - squares) / (n * (n - 1))
        return float(self.batch * (squares / n - gradient)), float(gradient)


def measure_gradient_noise(
    trained: Trained, settings: GradientNoise, images: Images, work: Work
) -> Result:
    """The noise scale of the run's own objective, with its own distribution of timesteps.

    Refused where that was learned while training, and did not come with the weights.
    """
    config, M = trained.config, settings.images // settings.batch
    objective, T = config.objective, config.diffusion.T
    diffusion = Diffusion(training_chain(config.diffusion), trained.device)
    timesteps = build.timestep_sampler(objective, T)
    if trained.timesteps:
        timesteps.load_state_dict(trained.timesteps)
    elif objective.timesteps != "uniform":
        raise Refused(
            f"objective.timesteps={objective.timesteps}: these weights came without the state of "
            "their importance sampler, which the noise of the gradient depends on; train them here"
        )
    parameters = [p.requires_grad_(True) for p in trained.model.parameters()]
    trained.model.train()
    found = NoiseScale(settings.batch)
    for i in range(M):
        key = (settings.seed, "gradient noise", i)
        indices = numpy_generator(*key, "images").integers(len(images), size=settings.batch)
        t, weights = timesteps.sample(numpy_generator(*key, "t").random(settings.batch))
        x0 = images.batch(indices).to(trained.device)
        eps = torch.randn(x0.shape, generator=torch_generator(*key, "eps")).to(trained.device)
        t, weights = (torch.from_numpy(x).to(trained.device) for x in (t, weights))
        label = None
        if config.unet.class_conditional:
            label = images.labels[torch.from_numpy(indices)].to(trained.device)
        torch.manual_seed(torch_seed(*key, "dropout"))
        x_t = diffusion.q_sample(x0, t, eps)
        denoise = build.denoiser(trained.model, diffusion, config.precision, label)
        at = denoise(x_t, t), x0, x_t, t, eps
        losses = training_losses(
            objective.name, objective.vlb_weight, diffusion, *at, objective.min_snr
        )
        mean = (weights.to(x0.dtype) * losses.loss).mean()
        gradients = torch.autograd.grad(mean, parameters)
        found.add(torch.cat([g.flatten() for g in gradients]).cpu())
        work.done(3 * settings.batch * (i + 1), 3 * settings.images)
    scale, error, noise, gradient = found.estimate()
    return Result(
        {
            "gradient_noise": scale,
            "unit": "images",
            "standard_error": error,
            "noise": noise,
            "gradient": gradient,
            "images": M * settings.batch,
            "batch": settings.batch,
        }
    )
