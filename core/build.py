"""From configuration to objects that compute; noise schedules are in core/chains.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from core.config import (
    DataConfig,
    GANConfig,
    Housekeeping,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
)
from core.data.images import Images
from core.data.sources import at_size, load_once
from core.diffusion.process import Diffusion, Prediction
from core.diffusion.samplers import Denoise
from core.diffusion.timesteps import LossSecondMoment, TimestepSampler, UniformTimesteps
from core.errors import Refused
from core.networks.gan import Discriminator, Generator
from core.networks.unet import UNet
from core.randomness import torch_seed


def device(housekeeping: Housekeeping) -> torch.device:
    """The device asked for, or the best that is there: cuda, mps, cpu."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if housekeeping.device == "auto":
        return torch.device(next(name for name, present in there.items() if present))
    if not there[housekeeping.device]:
        present = ", ".join(name for name in there if there[name])
        raise Refused(f"device={housekeeping.device} is not on this machine; it has: {present}")
    return torch.device(housekeeping.device)


def placed(model: nn.Module, housekeeping: Housekeeping) -> nn.Module:
    """The model on the device asked for, its weights in the order in memory asked for."""
    order = torch.channels_last if housekeeping.channels_last else torch.preserve_format
    return model.to(device(housekeeping), memory_format=order)


@contextmanager
def _initial(config: TrainConfig, key: str, fields: str) -> Iterator[None]:
    """Weights made within depend on (seed, key) alone. Refused: `fields` allow no network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(config.seed, key))
        try:
            yield
        except ValueError as error:
            raise Refused(f"{fields}: {error}") from error


def _classes(config: TrainConfig, classes: int) -> int:
    """How many classes the networks of a run are told of, when the images have so many."""
    if config.unet.class_conditional and not classes:
        raise Refused("unet.class_conditional=true needs labels: put images in class sub-folders")
    return classes if config.unet.class_conditional else 0


@lru_cache(maxsize=4)
def training_images(config: DataConfig, path: str | None = None) -> Images:
    """The images that a training sees: all of its split or the first so many, at its size."""
    images, n = load_once(config.name, "train", path), config.images
    if n > len(images):
        raise Refused(f"{images.name} has {len(images)} images: lower data.images={n}")
    if n:
        labels = None if images.labels is None else images.labels[:n]
        images = Images(f"{images.name}, first {n}", images.pixels[:n], labels, images.classes)
    return at_size(images, config.size, "data.size") if config.size else images


def network(config: TrainConfig, channels: int, size: int, classes: int) -> UNet | Generator:
    """The network that a run draws images with, at its initial weights, which the seed determines.

    channels, size, classes: of the images.
    """
    if config.objective.name == "gan":
        return _generator(config, channels, size, classes)
    return _unet(config, channels, size, classes)


def _generator(config: TrainConfig, channels: int, size: int, classes: int) -> Generator:
    classes = _classes(config, classes)
    with _initial(config, "network", "gan"):
        return Generator(size, channels, config.gan_channels, config.gan.latent, classes)


def discriminator(config: TrainConfig, channels: int, size: int, classes: int) -> Discriminator:
    """The generator's opponent, at its initial weights."""
    classes = _classes(config, classes)
    with _initial(config, "discriminator", "gan"):
        return Discriminator(size, channels, config.gan_channels, classes)


def _unet(config: TrainConfig, channels: int, size: int, classes: int) -> UNet:
    """Learned variances double the output channels."""
    unet, classes = config.unet, _classes(config, classes)
    if size % 2 ** (len(unet.channel_mult) - 1):
        raise Refused(
            f"{size}x{size} images cannot be halved {len(unet.channel_mult) - 1} times: "
            f"give unet.channel_mult fewer stages"
        )
    if config.data.low >= size:
        raise Refused(f"data.low={config.data.low}: the images have no more than {size} pixels")
    learned = config.objective.name != "simple"
    with _initial(config, "network", "unet"):
        return UNet(
            size=size,
            in_channels=2 * channels if config.data.low else channels,
            out_channels=2 * channels if learned else channels,
            channels=unet.base,
            channel_mult=unet.channel_mult,
            res_blocks=unet.res_blocks,
            attention=unet.attention,
            heads=unet.heads,
            dropout=unet.dropout,
            conditioning=unet.conditioning,
            classes=classes,
        )


def optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW; its weight decay is 0 in the paper, which makes it Adam."""
    decay = config.weight_decay
    return torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=decay, fused=True)


def adam(config: GANConfig, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Of one of the two networks of a GAN."""
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(model.parameters(), lr=lr, betas=betas, fused=True)


def timestep_sampler(config: ObjectiveConfig, T: int) -> TimestepSampler:
    """The distribution over training timesteps."""
    if config.timesteps == "uniform":
        return UniformTimesteps(T)
    return LossSecondMoment(T, config.history, config.uniform_share)


def denoiser(
    model: nn.Module,
    diffusion: Diffusion,
    precision: str = "float32",
    label: Tensor | None = None,
    low: Tensor | None = None,
) -> Denoise:
    """(x_t, t) -> Prediction, from a network that is told the rescaled time.

    The network's second half of channels, when it has one, is v mapped from [-1, 1] to [0, 1], as
    in OpenAI's code: a new network's zero output means v = 1/2. label: [N] or None. low:
    [N, C, H, W] or None: what the network enlarges, already of the size of x_t and given beside it.
    """

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16")
        given = x if low is None else torch.cat([x, low], dim=1)
        with autocast:
            out = model(given, diffusion.network_time(t), label)
        out = out.to(x.dtype)
        channels = x.shape[1]
        if out.shape[1] == channels:
            return Prediction(out)
        return Prediction(out[:, :channels], (out[:, channels:] + 1) / 2)

    return denoise
