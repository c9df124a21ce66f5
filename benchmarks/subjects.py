"""What is measured: the networks of three scales, and images to feed them with."""

from dataclasses import dataclass, replace

import torch

from core.config import DataConfig, OptimConfig, TrainConfig, UNetConfig
from core.data.images import Images
from experiments.grid import expand
from experiments.overrides import parse


@dataclass(frozen=True)
class Subject:
    """A scale's training configuration and its images' form."""

    name: str
    config: TrainConfig
    channels: int
    size: int
    threads: int  # as the suite would choose on this machine

    @property
    def learned(self) -> int:
        """Output channels of a network that learns its variances."""
        return 2 * self.channels

    def images(self) -> Images:
        """Noise of the right shape: what is in an image does not change a step's time."""
        n = max(64, self.config.optim.batch_size)
        shape = (n, self.channels, self.size, self.size)
        pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
        return Images("noise", pixels.to(torch.uint8), None, 0)

    def inputs(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """x_t [batch, C, H, W] and times in [0, 1000)."""
        g = torch.Generator().manual_seed(0)
        x = torch.randn(batch, self.channels, self.size, self.size, generator=g)
        return x, 1000 * torch.rand(batch, generator=g)


def laptop(scale: str = "laptop") -> Subject:
    """The row "4K cosine L_hybrid" of the schedule study; scale: "laptop" or "smoke"."""
    cells = expand(parse(["grid=schedule_ablation", f"scale={scale}"])).cells
    config = next(cell.config for cell in cells if cell.words == "4K cosine L_hybrid")
    return Subject(scale, config, 1, 16, 1)


def paper(threads: int) -> list[Subject]:
    """The paper's CIFAR-10 and ImageNet 64x64 networks, with batches that a processor can take."""
    base = TrainConfig(data=DataConfig("folder"), optim=OptimConfig(batch_size=4))
    cifar = replace(base, unet=UNetConfig(channel_mult=(1, 2, 2, 2)))
    imagenet = replace(base, optim=OptimConfig(batch_size=2))
    return [
        Subject("CIFAR-10", cifar, 3, 32, threads),
        Subject("ImageNet 64", imagenet, 3, 64, threads),
    ]
