"""What no type can say about a configuration, found before anything runs."""

import math
import re

from core.chains import likelihood_chain, sampling_chain, training_chain
from core.config import (
    Frechet,
    GradientNoise,
    LearnedVariance,
    Likelihood,
    Measurement,
    TrainConfig,
)
from core.errors import Refused

LONGEST_CHAIN = 1_000_000  # steps; tables of a longer one fill the memory before anything begins
WIDEST = 2**20  # channels; the weights of wider layers cannot even be counted
DEEPEST = 100  # blocks of a stage; so many take minutes to count


def check(config: TrainConfig, measurements: dict[str, Measurement]) -> None:
    """Refused when a value is out of its range, or the chains asked for do not exist.

    measurements: name in the grid -> settings.
    """
    T = config.diffusion.T
    if not 1 <= T <= LONGEST_CHAIN:
        raise Refused(f"diffusion.T={T} must be in 1..{LONGEST_CHAIN}")
    try:
        training_chain(config.diffusion)
    except ValueError as error:
        raise Refused(f"diffusion.T={T}: {error}") from error
    optim, unet, objective = config.optim, config.unet, config.objective
    finite, share, channels = math.isfinite, objective.uniform_share, unet.channels * unet.width
    even = f"positive and even, at most {WIDEST}"
    wide = "unet.channels" if unet.width == 1 else "unet.channels * unet.width"
    rules = [
        ("optim.steps", optim.steps, optim.steps > 0, "positive"),
        ("optim.batch_size", optim.batch_size, optim.batch_size > 0, "positive"),
        ("optim.lr", optim.lr, optim.lr > 0 and finite(optim.lr), "positive and finite"),
        ("optim.weight_decay", optim.weight_decay, 0 <= optim.weight_decay < 1, "in [0, 1)"),
        ("optim.warmup", optim.warmup, optim.warmup >= 0, "0 or more"),
        ("optim.grad_clip", optim.grad_clip, 0 <= optim.grad_clip < math.inf, "0 or more"),
        ("objective.vlb_weight", objective.vlb_weight, finite(objective.vlb_weight), "finite"),
        ("objective.history", objective.history, objective.history > 0, "positive"),
        ("objective.min_snr", objective.min_snr, objective.min_snr >= 0, "0 or more"),
        ("objective.uniform_share", share, 0 <= share <= 1, "in [0, 1]"),
        (wide, f"{channels:g}", 0 < channels <= WIDEST and channels % 2 == 0, even),
        ("optim.lr_factor", optim.rate, 0 < optim.rate < math.inf, "positive and finite"),
        ("data.images", config.data.images, config.data.images >= 0, "0 or more"),
        ("data.size", config.data.size, config.data.size >= 0, "0 or more"),
        ("data.low", config.data.low, config.data.low >= 0, "0 or more"),
        ("unet.res_blocks", unet.res_blocks, 0 < unet.res_blocks <= DEEPEST, f"in 1..{DEEPEST}"),
        ("unet.heads", unet.heads, unet.heads > 0, "positive"),
        ("unet.dropout", unet.dropout, 0 <= unet.dropout < 1, "in [0, 1)"),
    ]
    gan, width, per_step = config.gan, config.gan_channels, config.gan.discriminator_steps
    rules += [
        (
            "gan.width",
            gan.width,
            width > 0,
            f"at least {1 / max(unet.channels, 1):.2g}, for a channel",
        ),
        ("unet.channels * gan.width", width, width <= WIDEST, f"at most {WIDEST}"),
        ("gan.latent", gan.latent, 0 < gan.latent <= WIDEST, f"in 1..{WIDEST}"),
        ("gan.beta1", gan.beta1, 0 <= gan.beta1 < 1, "in [0, 1)"),
        ("gan.beta2", gan.beta2, 0 <= gan.beta2 < 1, "in [0, 1)"),
        ("gan.discriminator_steps", per_step, per_step > 0, "positive"),
    ]
    for name in ("lr_generator", "lr_discriminator"):
        lr = getattr(gan, name)
        rules.append((f"gan.{name}", lr, 0 < lr < math.inf, "positive and finite"))
    for name, settings in measurements.items():
        name = f"measure.{name}"
        rules += [
            (f"{name}.seed", settings.seed, settings.seed >= 0, "0 or more"),
            (f"{name}.images", settings.images, settings.images > 1, "at least 2"),
            (f"{name}.at", settings.at, 0 < settings.at <= 1, "in (0, 1]"),
        ]
        if isinstance(settings, Frechet):
            k = settings.neighbours
            rules.append((f"{name}.neighbours", k, 0 <= k < settings.images, "below its images"))
            sets = settings.sets
            rules.append((f"{name}.sets", sets, sets == 0 or sets > 1, "0, or at least 2"))
            skip = settings.sampler.skip
            eta = settings.sampler.eta
            rules.append((f"{name}.sampler.eta", eta, eta >= 0, "0 or more"))
            whole = not skip or settings.sampler.stride != "dynamic"
            rules.append((f"{name}.sampler.skip", skip, whole, "0 with the dynamic stride"))
            sha256 = settings.features_sha256
            right = not sha256 or (
                settings.features == "inception" and re.fullmatch("[0-9a-f]{64}", sha256)
            )
            what = "64 hexadecimal digits, with features=inception"
            rules.append((f"{name}.features_sha256", sha256, right, what))
        if isinstance(settings, (Frechet, Likelihood)):
            ends = settings.ends
            rules.append((f"{name}.ends", ends, 0 <= ends <= 0.5, "in [0, 0.5]"))
        if isinstance(settings, LearnedVariance):
            n = settings.timesteps
            rules.append((f"{name}.timesteps", n, n > 1, "at least 2"))
        if isinstance(settings, GradientNoise):
            n, fits = settings.batch, 0 < 24 * settings.batch <= settings.images
            rules.append((f"{name}.batch", n, fits, "positive and at most 1/24 of its images"))
    for key, value, right, what in rules:
        if not right:
            raise Refused(f"{key}={value} must be {what}")
    if not unet.channel_mult or min(unet.channel_mult) < 1:
        raise Refused(f"unet.channel_mult={list(unet.channel_mult)}: give positive whole numbers")
    if unet.attention and min(unet.attention) < 1:
        raise Refused(f"unet.attention={list(unet.attention)}: give positive whole numbers")
    if not optim.ema or not all(0 <= rate < 1 for rate in optim.ema):
        raise Refused(f"optim.ema={list(optim.ema)}: give at least one rate, each in [0, 1)")
    for name, settings in measurements.items():
        name = f"measure.{name}"
        try:
            if isinstance(settings, Likelihood):
                likelihood_chain(config.diffusion, settings)
            elif isinstance(settings, Frechet):
                sampling_chain(config.diffusion, settings.sampler)
        except ValueError as error:
            raise Refused(f"{name} on a chain of T={T}: {error}") from error
        if not -1 <= settings.ema < len(optim.ema):
            raise Refused(f"{name}.ema={settings.ema}, but optim.ema has {len(optim.ema)} rate(s)")
