"""Images drawn from a network, and their Frechet distance to a data set."""

import itertools
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from core.chains import sampling_chain, sampling_evaluations
from core.config import Frechet, Housekeeping, SamplerConfig
from core.data.images import Images, to_model, to_uint8
from core.diffusion import samplers
from core.diffusion.process import Diffusion
from core.diffusion.variances import ReverseVariance
from core.measurements.errors import reverse_process
from core.measurements.generated import generate_images
from core.measurements.result import Result, batches
from core.metrics import distances
from core.metrics.extractor import Extractor, features_of
from core.metrics.features import CPU, extractor
from core.metrics.names import metric_name
from core.metrics.precision_recall import precision_recall
from core.metrics.reference import Tell, reference_moments
from core.parts import Arrays, Report, Work, compute
from core.randomness import ImageNoise
from core.trained import Trained

SHOWN = 64  # drawn images kept with a Frechet distance, for looking at
TELL_SECONDS = 10.0  # between two reports once all images are drawn


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


def extractor_of(
    settings: Frechet,
    channels: int,
    size: int,
    housekeeping: Housekeeping,
    device: torch.device = CPU,
) -> Extractor:
    """The features that a measurement asks for; Refused when they cannot be had."""
    path, sha256 = housekeeping.features_path, settings.features_sha256
    return extractor(settings.features, channels, size, path, sha256, device)


def measure_frechet(
    trained: Trained,
    settings: Frechet,
    reference: Images,
    work: Work,
    draws: Trained | None = None,
) -> Result | None:
    """Frechet distance of drawn images to all of `reference`, with precision and recall if asked,
    and with the mean distance of disjoint sets of them.

    Where the features' network has spatial ones too, their distance is `sfid`. draws: the network
    that draws what `trained` enlarges, with the same sampler; its first images are kept as `low`.
    """
    channels, size, _ = trained.shape
    features = extractor_of(settings, channels, size, work.housekeeping, trained.device)
    K = sampling_evaluations(trained.config, settings.sampler)
    stages = 1 if draws is None else 2

    # Once for all parts, and not at all where other processes have drawn them.
    process = cache(lambda: reverse_process(trained, settings, work.housekeeping))

    def part(which: range, report: Report) -> Arrays:
        batch, taken = work.housekeeping.eval_batch, itertools.count(1)
        evaluations = stages * K * len(batches(which, batch))
        how = settings.sampler, settings.variance, settings.seed, batch
        how = *how, lambda: report(next(taken) / evaluations)
        if draws is None:
            return {"images": draw_images(trained, which, *how, None, process()).numpy()}
        low = draw_images(draws, which, *how)
        enlarged = draw_images(trained, which, *how, low, process())
        return {"images": enlarged.numpy(), "low": low.numpy()}

    parts = compute(settings.images, stages * K, part, work)
    if parts is None:
        return None
    drawn = torch.from_numpy(np.concatenate([arrays["images"] for arrays in parts]))
    tell = _teller(work, settings.images * stages * K)
    ours = features_of(features, drawn, tell, "drawn images")
    moments = reference_moments(reference, features, work.cache, tell)
    numbers = {
        "frechet": distances.frechet(*distances.moments(ours), *moments),
        "standard_error": distances.bootstrap_error(ours, moments, settings.seed, tell=tell),
        "metric": metric_name(settings.features, settings.images, settings.features_sha256),
        "images": settings.images,
        "reference": f"{reference.name}, {len(reference)} images",
        "steps": K,
        **features.facts,
    }
    if settings.sets:
        # As a smaller sample would have it, from the very images: what is left is the size's doing.
        each = np.array_split(ours, settings.sets)
        found = [distances.frechet(*distances.moments(part), *moments) for part in each]
        numbers |= {"frechet_of_sets": float(np.mean(found)), "images_of_a_set": len(each[-1])}
    if features.spatial:
        there = distances.moments(features_of(features.spatial, drawn, tell, "drawn images"))
        to = reference_moments(reference, features.spatial, work.cache, tell)
        numbers["sfid"] = distances.frechet(*there, *to)
    if settings.neighbours:
        # As many real images as drawn ones, since the neighbourhoods shrink as sets grow.
        real = features_of(features, reference.pixels[: settings.images], tell, "real images")
        precision, recall = precision_recall(real, ours, settings.neighbours)
        numbers |= {"precision": precision, "recall": recall, "real_images": len(real)}
    shown = {"samples": drawn[:SHOWN].numpy()}
    if all("low" in arrays for arrays in parts):  # parts of an earlier version have none
        shown["low"] = np.concatenate([arrays["low"] for arrays in parts])[:SHOWN]
    return Result(numbers, shown)


def _teller(work: Work, total: int) -> Tell:
    """Says what goes on after the last image is drawn, where that takes long, and asks to stop."""
    last = time.monotonic()

    def tell(words: str) -> None:
        nonlocal last
        if time.monotonic() - last > TELL_SECONDS:
            last = time.monotonic()
            work.done(total, total, words)

    return tell
