"""What a network says of a batch of images at several steps of the chain."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.data.images import Images
from core.diffusion.process import Diffusion, Prediction
from core.randomness import ImageNoise
from core.trained import Trained


class AtStep(NamedTuple):
    """x0: images [N, C, H, W] in [-1, 1]; x_t: one draw of q(x_t | x0), eq. 9; t: [N], one step."""

    x0: Tensor
    x_t: Tensor
    t: Tensor
    prediction: Prediction


def along_chain(
    trained: Trained,
    diffusion: Diffusion,
    steps: np.ndarray,
    images: Images,
    chosen: range,
    noise: ImageNoise,
) -> Iterator[AtStep]:
    """The chosen images [N, C, H, W] at each of `steps` (1 to T), each with new noise."""
    x0 = images.batch(chosen).to(trained.device)
    label = None if images.labels is None else images.labels[chosen.start : chosen.stop]
    denoise = trained.denoiser(diffusion, label)
    for step in steps:
        t = torch.full((len(chosen),), int(step), device=trained.device)
        with torch.inference_mode():
            x_t = diffusion.q_sample(x0, t, noise().to(trained.device))
            at = AtStep(x0, x_t, t, denoise(x_t, t))
        yield at
