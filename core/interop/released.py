"""The models that openai/improved-diffusion released, and what its flags mean here.

The flags are those of its README, word for word; what they leave out is the code's default.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from core import build
from core.config import (
    DataConfig,
    DiffusionConfig,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
    UNetConfig,
)
from core.errors import Refused
from core.interop.openai import Shapes, shapes
from core.networks.unet import UNet

CHANNELS, CLASSES = 3, 1000  # of every model
CHANNEL_MULT = {32: (1, 2, 2, 2), 64: (1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4)}  # by pixels
EMA = 0.9999
DEFAULTS = {
    "image_size": "64",
    "large_size": "256",  # of what is drawn, where the network enlarges
    "small_size": "64",  # of what it is given
    "num_res_blocks": "2",
    "num_heads": "4",
    "attention_resolutions": "16,8",
    "dropout": "0.0",
    "class_cond": "False",
    "use_kl": "False",
    "rescale_timesteps": "True",
    "rescale_learned_sigmas": "True",
    "use_scale_shift_norm": "True",
    "schedule_sampler": "uniform",
}


@dataclass(frozen=True)
class Released:
    """A model: how many steps it was trained for, its flags, and whether it enlarges images."""

    name: str
    steps: int
    flags: str
    enlarges: bool = False

    @property
    def flag(self) -> dict[str, str]:
        """Every flag's value, as text."""
        words = self.flags.replace("--", "").split()
        return DEFAULTS | dict(zip(words[::2], words[1::2]))

    @property
    def size(self) -> int:
        """Pixels a side of its images."""
        return int(self.flag["large_size" if self.enlarges else "image_size"])

    @property
    def classes(self) -> int:
        """How many classes it is told of; 0: none."""
        return CLASSES if self.flag["class_cond"] == "True" else 0

    def config(self, digest: str = "", averaged: bool = False) -> TrainConfig:
        """What the flags and the number of steps are here.

        digest: of the images that it will be measured on; averaged: whether these are larger than
        the model's. Its code adds the drawn term of the bound times T/1000, so that the weight of
        the whole bound is 0.001, or, without rescale_learned_sigmas, the term itself: 1/T.
        """
        flag = self.flag
        low = int(flag["small_size"]) if self.enlarges else 0
        T, rescaled = int(flag["diffusion_steps"]), flag["rescale_timesteps"] == "True"
        sampler = flag["schedule_sampler"].replace("-", "_")
        return TrainConfig(
            data=DataConfig("folder", digest, size=self.size if averaged else 0, low=low),
            diffusion=DiffusionConfig(T, flag["noise_schedule"], rescaled or T == 1000),
            objective=ObjectiveConfig(
                name="vlb" if flag["use_kl"] == "True" else "hybrid",
                vlb_weight=0.001 if flag["rescale_learned_sigmas"] == "True" else 1 / T,
                timesteps=sampler,
            ),
            unet=UNetConfig(
                channels=int(flag["num_channels"]),
                channel_mult=CHANNEL_MULT[self.size],
                res_blocks=int(flag["num_res_blocks"]),
                attention=tuple(int(n) for n in flag["attention_resolutions"].split(",")),
                heads=int(flag["num_heads"]),
                dropout=float(flag["dropout"]),
                conditioning=(
                    "scale_shift" if flag["use_scale_shift_norm"] == "True" else "additive"
                ),
                class_conditional=bool(self.classes),
            ),
            optim=OptimConfig(
                steps=self.steps,
                batch_size=int(flag["batch_size"]),
                lr=float(flag["lr"]),
                ema=(EMA,),
            ),
            source="openai",
        )

    def network(self) -> UNet:
        """The network without memory, on the meta device."""
        with torch.device("meta"):
            return build.network(self.config(), CHANNELS, self.size, self.classes)


_UNCONDITIONAL = "--image_size 64 --num_channels 128 --num_res_blocks 3 --learn_sigma True "
_CIFAR = "--image_size 32 --num_channels 128 --num_res_blocks 3 --learn_sigma True --dropout 0.3 "
_COSINE = "--diffusion_steps 4000 --noise_schedule cosine "
_USUAL = "--lr 1e-4 --batch_size 128 "
_VLB = "--use_kl True " + _USUAL + "--schedule_sampler loss-second-moment"
_UNSCALED = "--rescale_learned_sigmas False --rescale_timesteps False "
_LSUN = (
    "--image_size 256 --num_channels 128 --num_res_blocks 2 --num_heads 1 --learn_sigma True "
    "--use_scale_shift_norm False --attention_resolutions 16 "
    "--diffusion_steps 1000 --noise_schedule linear " + _UNSCALED
)
MODELS = (
    Released("imagenet64_uncond_100M_1500K", 1_500_000, _UNCONDITIONAL + _COSINE + _USUAL),
    Released("imagenet64_uncond_vlb_100M_1500K", 1_500_000, _UNCONDITIONAL + _COSINE + _VLB),
    Released("cifar10_uncond_50M_500K", 500_000, _CIFAR + _COSINE + _USUAL),
    Released("cifar10_uncond_vlb_50M_500K", 500_000, _CIFAR + _COSINE + _VLB),
    Released(
        "imagenet64_cond_270M_250K",
        250_000,
        "--image_size 64 --num_channels 192 --num_res_blocks 3 --learn_sigma True "
        "--class_cond True " + _COSINE + _UNSCALED + "--lr 3e-4 --batch_size 2048",
    ),
    Released(
        "upsample_cond_500K",
        500_000,
        "--num_channels 192 --num_res_blocks 2 --learn_sigma True --class_cond True "
        "--diffusion_steps 4000 --noise_schedule linear "
        + _UNSCALED
        + "--lr 3e-4 --batch_size 256",
        enlarges=True,
    ),
    Released("lsun_uncond_100M_1200K_bs128", 1_200_000, _LSUN + _USUAL),
    # The README says 128 here too; the file's name and the paper say 64.
    Released("lsun_uncond_100M_2400K_bs64", 2_400_000, _LSUN + "--lr 2e-5 --batch_size 64"),
)


def named(name: str) -> Released:
    """The model of that name. Refused when there is none."""
    for model in MODELS:
        if model.name == name:
            return model
    there = ", ".join(model.name for model in MODELS)
    raise Refused(f"there is no model '{name}'; there are: {there}")


def recognised(path: Path, found: Shapes) -> Released:
    """The model that a file is, by its name or, where that says nothing, by its parameters.

    found: name -> shape of the file's parameters. Refused when they fit no model, or several.
    """
    for model in MODELS:
        if model.name == path.stem:
            return model
    fit = [model.name for model in MODELS if shapes(model.network()) == found]
    if len(fit) == 1:
        return named(fit[0])
    if fit:
        raise Refused(f"{path.name} may be {' or '.join(fit)}: say which with model=NAME")
    there = ", ".join(model.name for model in MODELS)
    raise Refused(f"{path.name} fits none of the released models; these are: {there}")
