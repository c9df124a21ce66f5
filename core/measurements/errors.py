"""How well a network tells noise and image apart along the chain, and what is made of it.

What follows from such errors is in core/diffusion/optimal.py.
"""

import numpy as np

from core import build
from core.chains import likelihood_chain, sampling_chain, training_chain
from core.config import DiffusionConfig, Frechet, Housekeeping, Likelihood
from core.diffusion.optimal import (
    CANDIDATES,
    Errors,
    analytic_log_variance,
    candidates,
    dynamic_steps,
)
from core.diffusion.process import Diffusion
from core.diffusion.schedules import Schedule
from core.measurements.along import along_chain
from core.measurements.result import batches
from core.randomness import ImageNoise
from core.trained import Trained

IMAGES = 64  # of the training split


def errors_along(
    trained: Trained, steps: np.ndarray, housekeeping: Housekeeping, seed: int
) -> Errors:
    """Of a network at these steps of the full chain, on the first IMAGES training images.

    The noise is drawn from `seed`, other noise at each step.
    """
    images = build.training_images(trained.config.data, housekeeping.data_path or None)
    diffusion = Diffusion(training_chain(trained.config.diffusion), trained.device)
    power, x0_error = np.zeros(len(steps)), np.zeros(len(steps))
    which = range(min(IMAGES, len(images)))
    for chosen in batches(which, housekeeping.eval_batch):
        noise = ImageNoise(chosen, trained.shape, seed, "errors eps")
        along = along_chain(trained, diffusion, steps, images, chosen, noise)
        for i, (x0, x_t, t, prediction) in enumerate(along):
            found = diffusion.predicted_x0(prediction, x_t, t, clip=True)
            power[i] += float((prediction.eps.double() ** 2).mean()) * len(chosen)
            x0_error[i] += float(((x0 - found).double() ** 2).mean()) * len(chosen)
    return Errors(steps, power / len(which), x0_error / len(which))


def reverse_process(
    trained: Trained, settings: Likelihood | Frechet, housekeeping: Housekeeping
) -> Diffusion | None:
    """Over the steps that a measurement keeps, with the variance it asks for.

    variance=analytic and stride=dynamic are made from the network's errors along the chain. None
    for a GAN, which has no such process.
    """
    config = trained.config.diffusion
    if trained.config.objective.name == "gan":
        return None
    asked = settings if isinstance(settings, Likelihood) else settings.sampler
    if asked.stride == "dynamic" and asked.steps not in (None, config.T):
        full = training_chain(config)
        errors = errors_along(trained, candidates(config.T), housekeeping, settings.seed)
        chain = full.respaced(dynamic_steps(full, errors, asked.steps))
    else:
        chain = _chain(config, settings)
        if settings.variance != "analytic":
            return Diffusion(chain, trained.device)
        steps = chain.t[1:] if chain.K <= CANDIDATES else candidates(config.T)
        errors = errors_along(trained, steps, housekeeping, settings.seed)
    analytic = analytic_log_variance(chain, errors) if settings.variance == "analytic" else None
    return Diffusion(chain, trained.device, analytic=analytic)


def _chain(config: DiffusionConfig, settings: Likelihood | Frechet) -> Schedule:
    if isinstance(settings, Likelihood):
        return likelihood_chain(config, settings)
    return sampling_chain(config, settings.sampler)
