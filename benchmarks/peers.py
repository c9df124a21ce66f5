"""The same work in other packages: diffusers and denoising-diffusion-pytorch.

Their networks are set as near to the paper's as their options allow; what remains different is seen
in the number of operations, by which the times are divided. Their training steps are the loops that
their documentation shows, with noise and timesteps drawn inside.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.subjects import Subject
from core.interop.diffusers_unet import architecture

FOLDER = Path(sys.prefix) / "peers"  # `make bench` runs the Python of .venv
T = 4000

# denoising-diffusion-pytorch imports these for saving pictures and for FID; neither is used here.
UNUSED = ("torchvision", "accelerate", "pytorch_fid", "pytorch_fid.inception")
UNUSED += ("pytorch_fid.fid_score",)


@dataclass(frozen=True)
class Peer:
    """A package's network, one training step with it, and its sampler.

    network: called with (x, time) -> [N, 2C, H, W];  step: one whole training step;
    sample: (images, steps) -> draws them.
    """

    name: str
    network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    module: nn.Module
    step: Callable[[], None]
    sample: Callable[[int, int], object]


def imported(name: str):
    """A peer's module. ModuleNotFoundError: the peers are not installed."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)


def all_peers(subject: Subject) -> list[Peer]:
    """Both peers; [] when they are not installed (`make bench` installs them)."""
    try:
        return [diffusers(subject), denoising_diffusion_pytorch(subject)]
    except ModuleNotFoundError as error:
        print(f"peers are left out: {error}", file=sys.stderr)
        return []


def diffusers(subject: Subject) -> Peer:
    """UNet2DModel with scale-shift conditioning, DDPMScheduler, AdamW and EMAModel."""
    package = imported("diffusers")
    training_utils = imported("diffusers.training_utils")
    unet = subject.config.unet
    settings = architecture(unet, subject.size, subject.channels, subject.learned)
    model = package.UNet2DModel(
        **settings,
        attention_head_dim=settings["block_out_channels"][-1] // unet.heads,
        norm_num_groups=32 if unet.channels >= 64 else unet.channels // 4,
    )
    chain = {"beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range"}
    scheduler = package.DDPMScheduler(T, **chain)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    average = training_utils.EMAModel(model.parameters(), decay=0.99)
    images = subject.images().batch(range(subject.config.optim.batch_size))

    def network(x, time):
        return model(x, time).sample

    def step():
        noise = torch.randn_like(images)
        t = torch.randint(0, T, (len(images),))
        out = network(scheduler.add_noise(images, noise, t), t)
        F.mse_loss(out[:, : subject.channels], noise).backward()
        optimizer.step()
        average.step(model.parameters())
        optimizer.zero_grad()

    @torch.inference_mode()
    def sample(n, steps):
        chosen = package.DDPMScheduler(T, **chain)
        chosen.set_timesteps(steps)
        x = torch.randn(n, subject.channels, subject.size, subject.size)
        for t in chosen.timesteps:
            x = chosen.step(network(x, t), t, x).prev_sample
        return x

    return Peer("diffusers", network, model, step, sample)


def denoising_diffusion_pytorch(subject: Subject) -> Peer:
    """Unet and GaussianDiffusion (L_simple), Adam and ema_pytorch's EMA."""
    for name in UNUSED:
        sys.modules.setdefault(name, MagicMock())
    package = imported("denoising_diffusion_pytorch")
    ema = imported("ema_pytorch")
    unet = subject.config.unet
    attention = [subject.size >> level in unet.attention for level in range(len(unet.channel_mult))]
    settings = {
        "dim": unet.channels,
        "dim_mults": unet.channel_mult,
        "channels": subject.channels,
        "attn_heads": unet.heads,
        "attn_dim_head": unet.channels * unet.channel_mult[-1] // unet.heads,
        "full_attn": tuple(attention),
    }
    model = package.Unet(**settings)

    def process(steps: int):
        quiet = {"objective": "pred_noise", "beta_schedule": "cosine", "auto_normalize": False}
        return package.GaussianDiffusion(model, image_size=subject.size, timesteps=steps, **quiet)

    diffusion = process(T)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4)
    average = ema.EMA(diffusion, beta=0.99, update_every=1)
    images = subject.images().batch(range(subject.config.optim.batch_size))

    def step():
        diffusion(images).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    def sample(n, steps):
        with torch.inference_mode():
            return process(steps).sample(batch_size=n)

    return Peer("denoising-diffusion-pytorch", model, model, step, sample)
