"""From configuration to noise schedules: full chains and the steps that are kept of them.

Without torch, so that a grid's chains are checked before anything is started.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from core.config import DiffusionConfig, Likelihood, SamplerConfig, TrainConfig
from core.diffusion import optimal, schedules
from core.diffusion.schedules import Schedule
from core.errors import Refused

SCHEDULES = {
    "linear": schedules.linear,
    "cosine": schedules.cosine,
    "sigmoid": schedules.sigmoid,
}
STRIDES = {
    "paper": schedules.paper_stride,
    "extended": schedules.extended_stride,
    "ddim": schedules.ddim_stride,
    "quadratic": schedules.quadratic_stride,
    "dynamic": optimal.dynamic_count,  # so many; which ones is known once there is a network
}


def _named(key: str, name: str, there: dict[str, Callable], table: str) -> Callable:
    """What core/config.py knows by its name must be here as well."""
    if name not in there:
        names = ", ".join(there)
        raise Refused(f"{key}={name}: core/chains.py lacks it: add it to {table} beside {names}")
    return there[name]


@lru_cache(maxsize=16)
def training_chain(config: DiffusionConfig) -> Schedule:
    """All T steps. ValueError: no such chain, as the linear schedule of 20 steps or fewer."""
    schedule = _named("diffusion.schedule", config.schedule, SCHEDULES, "SCHEDULES")(config.T)
    return schedule if config.rescaled_time else replace(schedule, time_scale=config.T)


@lru_cache(maxsize=256)
def _kept(config: DiffusionConfig, skip: float, stride: str, steps: int | None) -> Schedule:
    full = training_chain(config)
    full = full.truncated(skip) if skip else full
    if steps is None or steps == full.K:
        return full
    return full.respaced(_named("stride", stride, STRIDES, "STRIDES")(full.K, steps))


def likelihood_chain(config: DiffusionConfig, settings: Likelihood) -> Schedule:
    """The steps over which a bound is taken (appendix E). ValueError: more than there are."""
    return _kept(config, 0.0, settings.stride, settings.steps)


def sampling_chain(config: DiffusionConfig, sampler: SamplerConfig) -> Schedule:
    """The steps that a sampler visits: a fraction left out at the noisy end, then strided.

    ValueError: more steps than are left, or a number that the stride cannot keep.
    """
    return _kept(config, sampler.skip, sampler.stride, sampler.steps)


def sampling_evaluations(config: TrainConfig, sampler: SamplerConfig) -> int:
    """Of the network, for one image: the sampler's K steps; a GAN's generator makes it in one."""
    return 1 if config.objective.name == "gan" else sampling_chain(config.diffusion, sampler).K
