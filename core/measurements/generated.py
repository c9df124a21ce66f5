"""Images drawn from the generator of a GAN."""

from collections.abc import Callable

import torch
from torch import Tensor

from core.data.images import to_uint8
from core.measurements.result import batches
from core.randomness import torch_generator
from core.trained import Trained


def generate_images(
    trained: Trained, which: range, seed: int, batch: int, on_step: Callable[[], None]
) -> Tensor:
    """Images number `which`: uint8 [n, C, H, W]. Image i depends on (seed, i) alone.

    z is standard normal, without truncation. Classes as `draw_images` chooses them.
    """
    drawn, latent = [], trained.config.gan.latent
    for chosen in batches(which, batch):
        keys = ((seed, "latent", image) for image in chosen)
        z = torch.stack([torch.randn(latent, generator=torch_generator(*key)) for key in keys])
        label = torch.tensor(chosen) % trained.classes if trained.classes else None
        drawn.append(to_uint8(trained.generate(z, label).cpu()))
        on_step()
    return torch.cat(drawn)
