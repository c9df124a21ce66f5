"""From configuration to noise schedules: full chains and the steps that are kept of them.

Without torch, so that a grid's chains are checked before anything is started.
"""

from functools import lru_cache

from core.config import DiffusionConfig, Likelihood, SamplerConfig
from core.diffusion import schedules
from core.diffusion.schedules import Schedule

SCHEDULES = {"linear": schedules.linear, "cosine": schedules.cosine}
STRIDES = {
    "paper": schedules.paper_stride,
    "extended": schedules.extended_stride,
    "ddim": schedules.ddim_stride,
    "quadratic": schedules.quadratic_stride,
}


@lru_cache(maxsize=16)
def training_chain(config: DiffusionConfig) -> Schedule:
    """All T steps. ValueError: no such chain, as the linear schedule of 20 steps or fewer."""
    return SCHEDULES[config.schedule](config.T)


def likelihood_chain(config: DiffusionConfig, settings: Likelihood) -> Schedule:
    """The steps over which a bound is taken (appendix E). ValueError: more than there are."""
    full = training_chain(config)
    if settings.steps is None or settings.steps == full.K:
        return full
    return full.respaced(STRIDES[settings.stride](full.K, settings.steps))


def sampling_chain(config: DiffusionConfig, sampler: SamplerConfig) -> Schedule:
    """The steps that a sampler visits: a fraction left out at the noisy end, then strided.

    ValueError: more steps than are left, or a number that the stride cannot keep.
    """
    full = training_chain(config).truncated(sampler.skip)
    if sampler.steps is None or sampler.steps == full.K:
        return full
    return full.respaced(STRIDES[sampler.stride](full.K, sampler.steps))
