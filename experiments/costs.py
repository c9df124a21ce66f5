"""What work costs, in evaluations of the network on one image; a backward pass counts as two."""

from core.chains import likelihood_chain, sampling_evaluations
from core.config import (
    GANConfig,
    GradientNoise,
    LearnedVariance,
    Likelihood,
    Measurement,
    TrainConfig,
)
from core.diffusion.likelihood import STRATA
from core.diffusion.optimal import candidates
from core.measurements.errors import IMAGES
from experiments.asked import from_errors
from experiments.execute import Task


def training_evaluations(config: TrainConfig) -> float:
    """Of a whole training. A discriminator's count like its generator's."""
    per_image = sum(gan_passes(config.gan)) if config.objective.name == "gan" else 3
    return float(per_image * config.optim.steps * config.optim.batch_size)


def gan_passes(gan: GANConfig) -> tuple[int, int]:
    """Evaluations of the generator and of the discriminator, per step and image of the batch.

    A step of the discriminator draws an image, without gradients, and trains on it and on a real
    one. The generator's draws one and trains on it, with a gradient through the discriminator that
    its weights do not take: of the two halves of a backward pass, one.
    """
    n = gan.discriminator_steps
    return n + 3, 6 * n + 2


def measurement_evaluations(config: TrainConfig, settings: Measurement) -> float:
    """Of one measurement of it."""
    if isinstance(settings, GradientNoise):
        return 3.0 * settings.images
    if isinstance(settings, LearnedVariance):
        return float(settings.images * settings.timesteps)
    if isinstance(settings, Likelihood):
        K = likelihood_chain(config.diffusion, settings).K
        per_image = STRATA[settings.estimator](K).evaluations
    else:
        stages = 2 if config.data.low else 1  # an image is drawn small before it is enlarged
        per_image = stages * sampling_evaluations(config, settings.sampler)
    more = IMAGES * len(candidates(config.diffusion.T)) if from_errors(settings) else 0
    return float(settings.images * per_image + more)


def task_costs(task: Task) -> dict[str, float]:
    """Of each stage of a task that is still to be done: "train", and measurements by their ids."""
    training = task.part != "measurements" and task.trains
    costs = {"train": training_evaluations(task.config)} if training else {}
    for asked in task.missing if task.part != "training" else ():
        costs[asked.id] = measurement_evaluations(task.config, asked.settings)
    return costs
