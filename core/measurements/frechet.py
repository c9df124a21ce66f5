"""Images drawn from a network, and their Frechet distance to a data set."""

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from core.chains import sampling_chain, sampling_evaluations
from core.config import Frechet, SamplerConfig
from core.data.images import Images, to_model, to_uint8
from core.diffusion import samplers
from core.diffusion.process import Diffusion
from core.diffusion.variances import ReverseVariance
from core.measurements.errors import reverse_process
from core.measurements.generated import generate_images
from core.measurements.result import Result, batches
from core.metrics import distances
from core.metrics.features import extractor
from core.metrics.precision_recall import precision_recall
from core.parts import Arrays, Report, Work, compute
from core.randomness import ImageNoise
from core.trained import Trained

SHOWN = 64  # drawn images kept with a Frechet distance, for looking at


def draw_images(
    trained: Trained,
    which: range,
    sampler: SamplerConfig,
    variance: ReverseVariance,
    seed: int,
    batch: int,
    on_step: Callable[[], None] = lambda: None,
    low: Tensor | None = None,
    diffusion: Diffusion | None = None,
) -> Tensor:
    """Drawn images number `which`: uint8 [n, C, H, W]. Image i depends on (seed, i) alone.

    Class-conditional networks draw class i mod the number of classes for image i. low: uint8
    [n, C, h, h], what a network that enlarges is given. diffusion: over the sampler's steps, where
    it is made from the network's errors.
    """
    if trained.config.objective.name == "gan":
        return generate_images(trained, which, seed, batch, on_step)
    if diffusion is None:
        chain = sampling_chain(trained.config.diffusion, sampler)
        diffusion = Diffusion(chain, trained.device)
    drawn = []
    purpose = "sample" if low is None else "sample enlarged"
    for chosen in batches(which, batch):
        noise = ImageNoise(chosen, trained.shape, seed, purpose)
        label = torch.tensor(chosen) % trained.classes if trained.classes else None
        given = None
        if low is not None:
            part = low[chosen.start - which.start : chosen.stop - which.start]
            given = to_model(part).to(trained.device)
        denoise, x = trained.denoiser(diffusion, label, given), noise().to(trained.device)
        if sampler.name == "ddim":
            x0 = samplers.ddim(denoise, diffusion, x, noise, sampler.eta, on_step=on_step)
        else:
            x0 = samplers.ancestral(denoise, diffusion, x, noise, variance, on_step=on_step)
        drawn.append(to_uint8(x0.cpu()))
    return torch.cat(drawn)


def measure_frechet(
    trained: Trained,
    settings: Frechet,
    reference: Images,
    work: Work,
    draws: Trained | None = None,
) -> Result | None:
    """Frechet distance of drawn images to all of `reference`, with precision and recall if asked.

    draws: the network that draws what `trained` enlarges, with the same sampler.
    """
    channels, size, _ = trained.shape
    features = extractor(settings.features, channels, size)
    K = sampling_evaluations(trained.config, settings.sampler)
    stages = 1 if draws is None else 2

    # Once for all parts, and not at all where other processes have drawn them.
    process = cache(lambda: reverse_process(trained, settings, work.housekeeping))

    def part(which: range, report: Report) -> Arrays:
        batch, taken = work.housekeeping.eval_batch, itertools.count(1)
        evaluations = stages * K * len(batches(which, batch))
        how = settings.sampler, settings.variance, settings.seed, batch
        how = *how, lambda: report(next(taken) / evaluations)
        low = None if draws is None else draw_images(draws, which, *how)
        return {"images": draw_images(trained, which, *how, low, process()).numpy()}

    parts = compute(settings.images, stages * K, part, work)
    if parts is None:
        return None
    drawn = torch.from_numpy(np.concatenate([arrays["images"] for arrays in parts]))
    ours = features(drawn)
    moments = distances.reference_moments(reference, features, work.cache)
    numbers = {
        "frechet": distances.frechet(*distances.moments(ours), *moments),
        "standard_error": distances.bootstrap_error(ours, moments, settings.seed),
        "metric": f"FD ({features.name})",
        "images": settings.images,
        "reference": f"{reference.name}, {len(reference)} images",
        "steps": K,
    }
    if settings.neighbours:
        # As many real images as drawn ones, since the neighbourhoods shrink as sets grow.
        real = features(reference.pixels[: settings.images])
        precision, recall = precision_recall(real, ours, settings.neighbours)
        numbers |= {"precision": precision, "recall": recall, "real_images": len(real)}
    return Result(numbers, {"samples": drawn[:SHOWN].numpy()})
