"""What every feature extractor is: a fixed map from images to vectors, with a name and an identity.

Those that there are lie in files of their own; core/metrics/features.py finds them by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CHUNK = 1000  # images between two reports; whole batches of every extractor


class Extractor(ABC):
    """Features of images.

    name: as in measure.fd.features. dimension: of a vector. digest: 16 hex digits that are others
    when the vectors are: those of cached statistics. spatial: another layer of the same network as
    an extractor of its own, for sFID, where there is one. facts: what a result says of the features
    besides their name.
    """

    name: str
    dimension: int
    digest: str
    spatial: "Extractor | None" = None
    facts: dict[str, str | int] = {}  # noqa: RUF012 (never changed)

    @abstractmethod
    def __call__(self, pixels: Tensor) -> np.ndarray:
        """Features, float64 [N, dimension], of uint8 images [N, C, H, H]. C: 1 for grey, 3 RGB."""


def features_of(
    extractor: Extractor,
    pixels: Tensor,
    tell: Callable[[str], None] = lambda words: None,
    what: str = "images",
) -> np.ndarray:
    """float64 [N, dimension] of uint8 images [N, C, H, H]; tells how far it is after each CHUNK."""
    parts = []
    for first in range(0, len(pixels), CHUNK):
        parts.append(extractor(pixels[first : first + CHUNK]))
        done = min(first + CHUNK, len(pixels))
        tell(f"features of {done:,} of {len(pixels):,} {what}")
    return np.concatenate(parts)


def as_rgb(pixels: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] of RGB images, or of grey ones [N, 1, H, W], whose channels are equal."""
    return pixels.expand(-1, 3, -1, -1)


def exact_convolutions():
    """A context in which a GPU's convolutions of float32 are float32.

    Unless told so, newer ones round their factors to the 10 bits of TF32.
    """
    return torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled,
        benchmark=torch.backends.cudnn.benchmark,
        deterministic=torch.backends.cudnn.deterministic,
        allow_tf32=False,
    )
