"""What can be measured on a trained network: a dataclass of settings in, numbers out.

The settings are in core/config.py; each module here has a function for one of them. What a
measurement draws depends on (its seed, image) alone, not on batches or interruptions.
"""

from dataclasses import fields
from pathlib import Path

from core.build import training_images
from core.config import (
    Frechet,
    GradientNoise,
    Housekeeping,
    LearnedVariance,
    Likelihood,
    Measurement,
    TrainConfig,
    metric_of,
)
from core.data.images import Images, check_levels
from core.data.sources import at_size, load_once
from core.errors import Refused
from core.measurements.bound import measure_likelihood
from core.measurements.frechet import draw_images, extractor_of, measure_frechet
from core.measurements.gradient_noise import measure_gradient_noise
from core.measurements.learned_v import measure_learned_v
from core.measurements.result import Result
from core.metrics.features import load
from core.parts import Work
from core.trained import Mixed, load_trained

__all__ = ["Result", "check", "check_features", "draw_images", "in_parts", "measure"]

TAKE = {
    Likelihood: measure_likelihood,
    Frechet: measure_frechet,
    LearnedVariance: measure_learned_v,
    GradientNoise: measure_gradient_noise,
}


def in_parts(measurement: Measurement) -> bool:
    """Whether several processes can share the measurement (core/parts.py)."""
    return not isinstance(measurement, GradientNoise)


def measure(
    folder: Path,
    config: TrainConfig,
    measurement: Measurement,
    work: Work,
    partner: tuple[Path, TrainConfig] | None = None,
) -> Result | None:
    """Loads the snapshot that the measurement asks for and takes it; None as `compute` says it.

    partner: folder and configuration of the run that the measurement names, if it names one. Its
    network predicts near the ends of the chain or, for a network that enlarges, draws what is
    enlarged.
    """
    how = measurement.at, measurement.ema, work.housekeeping
    trained = load_trained(folder, config, *how)
    images = check(config, measurement, work.housekeeping)
    take = TAKE[type(measurement)]
    if partner is None:
        return take(trained, measurement, images, work)
    other = load_trained(*partner, *how)
    if config.data.low:
        return measure_frechet(trained, measurement, images, work, draws=other)
    alike = {f.name: getattr(trained, f.name) for f in fields(trained)}
    return take(Mixed(**alike, partner=other, ends=measurement.ends), measurement, images, work)


def check_features(measurement: Measurement, housekeeping: Housekeeping) -> None:
    """Refused when a measurement needs features whose package or file is not there."""
    if isinstance(measurement, Frechet):
        load(measurement.features, housekeeping.features_path, measurement.features_sha256)


def check(config: TrainConfig, measurement: Measurement, housekeeping: Housekeeping) -> Images:
    """The data set that a measurement needs; Refused when it or the features will not do."""
    if isinstance(measurement, GradientNoise):
        return training_images(config.data, housekeeping.data_path or None)
    of_split = isinstance(measurement, (Likelihood, LearnedVariance))
    split = measurement.split if of_split else measurement.reference
    images = load_once(config.data.name, split, housekeeping.data_path or None)
    check_levels(images)
    if of_split:
        if config.data.size:
            images = at_size(images, config.data.size, "data.size")
        if measurement.images > len(images):
            raise Refused(
                f"{images.name} has {len(images)} images: lower measure.{metric_of(measurement)}"
                f".images={measurement.images}"
            )
        return images
    if measurement.neighbours >= min(measurement.images, len(images)):
        n = min(measurement.images, len(images))
        raise Refused(
            f"{measurement.neighbours} neighbours need more than {measurement.neighbours} images, "
            f"not {n}: lower measure.fd.neighbours"
        )
    features = extractor_of(measurement, images.channels, images.size, housekeeping)
    dimension = max(view.dimension for view in (features, features.spatial) if view)
    of_set = measurement.images // max(1, measurement.sets)
    drawn = "measure.fd.images" + ", of each of its sets" * bool(measurement.sets)
    for what, n in ((drawn, of_set), (images.name, len(images))):
        if n <= dimension:
            raise Refused(
                f"{what}: {n} images are too few for {dimension} features, at least "
                f"{dimension + 1} are needed"
            )
    return images
