"""What can be measured on a trained network: a dataclass of settings in, numbers out.

The settings are in core/config.py; here is one function for each. What a measurement draws depends
on (its seed, image) alone, not on batches or interruptions.
"""

import itertools
import os
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
from core.randomness import ImageNoise, numpy_generator
from core.trained import Trained, load_trained
from core.training import Interrupted, Progress

SHARD = 256  # drawn images per file: what an interruption can cost
SHOWN = 64  # drawn images kept with a Frechet distance, for looking at


@dataclass(frozen=True)
class Result:
    """Numbers for JSON and arrays for npz."""

    numbers: dict
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a measurement is given besides its settings.

    scratch: a folder of its own for what an interrupted measurement can pick up again;
    cache: where statistics of whole data sets are kept, by content.
    """

    housekeeping: Housekeeping
    scratch: Path
    cache: Path
    progress: Progress = lambda done, total, words: None
    stop: Callable[[], bool] = lambda: False

    def done(self, done: int, total: int) -> None:
        """Report progress in network evaluations; raise Interrupted when asked to stop."""
        self.progress(done, total, "")
        if self.stop():
            raise Interrupted


def measure(folder: Path, config: TrainConfig, measurement: Measurement, work: Work) -> Result:
    """Loads the snapshot that the measurement asks for and takes it."""
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


def measure_likelihood(trained: Trained, settings: Likelihood, work: Work) -> Result:
    """The bound on the first images of a split, in bits/dim (core/diffusion/likelihood.py)."""
    images = check(trained.config, settings, work.housekeeping)
    schedule = likelihood_chain(trained.config.diffusion, settings)
    diffusion = Diffusion(schedule, trained.device)
    strata = likelihood.STRATA[settings.estimator](schedule.K)
    total, parts = settings.images * strata.evaluations, []
    for first in range(0, settings.images, work.housekeeping.eval_batch):
        chosen = range(first, min(first + work.housekeeping.eval_batch, settings.images))
        u = [numpy_generator(settings.seed, "nll t", i).random(strata.evaluations) for i in chosen]
        t = strata.draw(np.stack(u))
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
            work.done(first * strata.evaluations + len(chosen) * (e + 1), total)
        parts.append((likelihood.prior_term(diffusion, x0).double().cpu().numpy(), t, terms))
    bound = likelihood.Bound(*(np.concatenate(x) for x in zip(*parts)), strata)
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
    for first in range(which.start, which.stop, batch):
        chosen = range(first, min(first + batch, which.stop))
        noise = ImageNoise(chosen, trained.shape, seed, "sample")
        label = torch.tensor(chosen) % trained.classes if trained.classes else None
        denoise, x = trained.denoiser(diffusion, label), noise().to(trained.device)
        if sampler.name == "ddim":
            x0 = samplers.ddim(denoise, diffusion, x, noise, sampler.eta, on_step=on_step)
        else:
            x0 = samplers.ancestral(denoise, diffusion, x, noise, variance, on_step=on_step)
        drawn.append(to_uint8(x0.cpu()))
    return torch.cat(drawn)


def measure_frechet(trained: Trained, settings: Frechet, work: Work) -> Result:
    """Frechet distance of drawn images to the whole reference split."""
    channels, size, _ = trained.shape
    features = extractor(settings.features, channels, size)
    reference = check(trained.config, settings, work.housekeeping)
    shards = [
        _shard(trained, settings, range(first, min(first + SHARD, settings.images)), work)
        for first in range(0, settings.images, SHARD)
    ]
    drawn = torch.from_numpy(np.concatenate(shards))
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
            "steps": sampling_chain(trained.config.diffusion, settings.sampler).K,
        },
        {"samples": drawn[:SHOWN].numpy()},
    )


def _shard(trained: Trained, settings: Frechet, which: range, work: Work) -> np.ndarray:
    """Images number `which`, from the scratch folder if an earlier attempt left them there."""
    path = work.scratch / f"{which.start:08d}-{which.stop:08d}.npy"
    if path.exists():
        return np.load(path)
    K = sampling_chain(trained.config.diffusion, settings.sampler).K
    batch, taken = work.housekeeping.eval_batch, itertools.count(1)
    batches = -(-len(which) // batch)

    def on_step() -> None:
        evaluations = next(taken) * len(which) // batches
        work.done(which.start * K + evaluations, settings.images * K)

    how = settings.sampler, settings.variance, settings.seed, batch
    drawn = draw_images(trained, which, *how, on_step).numpy()
    work.scratch.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.save(file, drawn)
    os.replace(temporary, path)
    return drawn
