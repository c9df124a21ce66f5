"""What work costs, in evaluations of the network on one image; a backward pass counts as two."""

from core.chains import likelihood_chain, sampling_chain
from core.config import (
    GradientNoise,
    LearnedVariance,
    Likelihood,
    Measurement,
    TrainConfig,
)
from core.diffusion.likelihood import STRATA
from experiments.execute import Task


def training_evaluations(config: TrainConfig) -> float:
    """Of a whole training."""
    return 3.0 * config.optim.steps * config.optim.batch_size


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
        per_image = stages * sampling_chain(config.diffusion, settings.sampler).K
    return float(settings.images * per_image)


def task_costs(task: Task) -> dict[str, float]:
    """Of each stage of a task that is still to be done."""
    training = task.part != "measurements" and task.needs_training
    costs = {"train": training_evaluations(task.config)} if training else {}
    for asked in task.missing if task.part != "training" else ():
        more = measurement_evaluations(task.config, asked.settings)
        costs[asked.name] = costs.get(asked.name, 0.0) + more
    return costs
