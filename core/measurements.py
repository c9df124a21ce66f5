"""What can be measured on a trained network: a dataclass of settings in, numbers out.

The settings are in core/config.py; here is one function for each. What a measurement draws depends
on (its seed, image) alone, not on batches or interruptions.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.chains import likelihood_chain, sampling_chain
from core.config import (
    Frechet,
    Housekeeping,
    Likelihood,
    Measurement,
    SamplerConfig,
    TrainConfig,
)
from core.data.images import Images, to_uint8
from core.data.sources import load_once
from core.diffusion import likelihood, samplers
from core.diffusion.process import Diffusion
from core.diffusion.variances import ReverseVariance
from core.errors import Refused
from core.metrics import distances
from core.metrics.features import extractor
from core.parts import Arrays, Report, Work, compute
from core.randomness import ImageNoise, numpy_generator
from core.trained import Trained, load_trained

SHOWN = 64  # drawn images kept with a Frechet distance, for looking at


@dataclass(frozen=True)
class Result:
    """Numbers for JSON and arrays for npz."""

    numbers: dict
    arrays: Arrays = field(default_factory=dict)


def measure(
    folder: Path, config: TrainConfig, measurement: Measurement, work: Work
) -> Result | None:
    """Loads the snapshot that the measurement asks for and takes it; None as `compute` says it."""
    at, ema = measurement.at, measurement.ema
    trained = load_trained(folder, config, at, ema, work.housekeeping)
    take = {Likelihood: measure_likelihood, Frechet: measure_frechet}[type(measurement)]
    return take(trained, measurement, work)


def check(config: TrainConfig, measurement: Measurement, housekeeping: Housekeeping) -> Images:
    """The data set that a measurement needs; Refused when it or the features will not do."""
    likelihood_wanted = isinstance(measurement, Likelihood)
    split = measurement.split if likelihood_wanted else measurement.reference
    images = load_once(config.data.name, split, housekeeping.data_path or None)
    if likelihood_wanted:
        if measurement.images > len(images):
            raise Refused(
                f"{images.name} has {len(images)} images: lower measure.nll.images="
                f"{measurement.images}"
            )
        return images
    dimension = extractor(measurement.features, images.channels, images.size).dimension
    for what, n in (("measure.fd.images", measurement.images), (images.name, len(images))):
        if n <= dimension:
            raise Refused(
                f"{what}: {n} images are too few for {dimension} features, at least "
                f"{dimension + 1} are needed"
            )
    return images


def measure_likelihood(trained: Trained, settings: Likelihood, work: Work) -> Result | None:
    """The bound on the first images of a split, in bits/dim (core/diffusion/likelihood.py)."""
    images = check(trained.config, settings, work.housekeeping)
    schedule = likelihood_chain(trained.config.diffusion, settings)
    diffusion = Diffusion(schedule, trained.device)
    strata = likelihood.STRATA[settings.estimator](schedule.K)

    def part(which: range, report: Report) -> Arrays:
        done = []
        for chosen in _batches(which, work.housekeeping.eval_batch):
            u = [numpy_generator(settings.seed, "nll t", i) for i in chosen]
            t = strata.draw(np.stack([generator.random(strata.evaluations) for generator in u]))
            noise = ImageNoise(chosen, trained.shape, settings.seed, "nll eps")
            x0 = images.batch(chosen).to(trained.device)
            label = None if images.labels is None else images.labels[chosen.start : chosen.stop]
            denoise = trained.denoiser(diffusion, label)
            terms = np.empty(t.shape)
            for e in range(strata.evaluations):
                at = torch.from_numpy(t[:, e]).to(trained.device)
                eps = noise().to(trained.device)
                bits = likelihood.bound_terms(denoise, diffusion, x0, at, eps, settings.variance)
                terms[:, e] = bits.double().cpu().numpy()
                of_batch = len(chosen) * (e + 1) / strata.evaluations
                report((chosen.start - which.start + of_batch) / len(which))
            prior = likelihood.prior_term(diffusion, x0).double().cpu().numpy()
            done.append({"prior": prior, "t": t, "terms": terms})
        return {key: np.concatenate([batch[key] for batch in done]) for key in done[0]}

    parts = compute(settings.images, strata.evaluations, part, work)
    if parts is None:
        return None
    joined = {key: np.concatenate([arrays[key] for arrays in parts]) for key in parts[0]}
    bound = likelihood.Bound(**joined, strata=strata)
    sums, counts = bound.by_step()
    return Result(
        {
            "nll": bound.mean,
            "unit": "bits/dim",
            "standard_error": bound.standard_error,
            "estimator_error": bound.estimator_error if strata.draws > 1 else None,
            "prior": float(bound.prior.mean()),
            "decoder": float(sums[1] / counts[1]),
            "images": settings.images,
            "evaluations": strata.evaluations,
            "steps": schedule.K,
        },
        {
            "per_image": bound.per_image.astype(np.float32),
            "t": schedule.t.astype(np.int32),
            "term_sum": sums.astype(np.float32),
            "term_count": counts.astype(np.int32),
        },
    )


def _batches(which: range, size: int) -> list[range]:
    """Consecutive ranges of at most `size` images."""
    return [which[first : first + size] for first in range(0, len(which), size)]


def draw_images(
    trained: Trained,
    which: range,
    sampler: SamplerConfig,
    variance: ReverseVariance,
    seed: int,
    batch: int,
    on_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Drawn images number `which`: uint8 [n, C, H, W]. Image i depends on (seed, i) alone.

    Class-conditional networks draw class i mod the number of classes for image i.
    """
    schedule = sampling_chain(trained.config.diffusion, sampler)
    diffusion, drawn = Diffusion(schedule, trained.device), []
    for chosen in _batches(which, batch):
        noise = ImageNoise(chosen, trained.shape, seed, "sample")
        label = torch.tensor(chosen) % trained.classes if trained.classes else None
        denoise, x = trained.denoiser(diffusion, label), noise().to(trained.device)
        if sampler.name == "ddim":
            x0 = samplers.ddim(denoise, diffusion, x, noise, sampler.eta, on_step=on_step)
        else:
            x0 = samplers.ancestral(denoise, diffusion, x, noise, variance, on_step=on_step)
        drawn.append(to_uint8(x0.cpu()))
    return torch.cat(drawn)


def measure_frechet(trained: Trained, settings: Frechet, work: Work) -> Result | None:
    """Frechet distance of drawn images to the whole reference split."""
    channels, size, _ = trained.shape
    features = extractor(settings.features, channels, size)
    reference = check(trained.config, settings, work.housekeeping)
    K = sampling_chain(trained.config.diffusion, settings.sampler).K

    def part(which: range, report: Report) -> Arrays:
        batch, taken = work.housekeeping.eval_batch, itertools.count(1)
        evaluations = K * len(_batches(which, batch))
        how = settings.sampler, settings.variance, settings.seed, batch
        drawn = draw_images(trained, which, *how, lambda: report(next(taken) / evaluations))
        return {"images": drawn.numpy()}

    parts = compute(settings.images, K, part, work)
    if parts is None:
        return None
    drawn = torch.from_numpy(np.concatenate([arrays["images"] for arrays in parts]))
    mean, covariance = distances.moments(features(drawn))
    distance = distances.frechet(
        mean, covariance, *distances.reference_moments(reference, features, work.cache)
    )
    return Result(
        {
            "frechet": distance,
            "metric": f"FD ({features.name})",
            "images": settings.images,
            "reference": f"{reference.name}, {len(reference)} images",
            "steps": K,
        },
        {"samples": drawn[:SHOWN].numpy()},
    )
