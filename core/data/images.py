"""Images as bytes, their scale in the model, and which of them make up a training batch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import Refused
from core.randomness import numpy_generator

LOOKED = 256  # images whose levels are looked at before anything begins
PIECE = 4096  # images that are averaged at a time


@dataclass(frozen=True, eq=False)
class Images:
    """One split of a data set, as bytes: in memory, or in a file that is mapped into it.

    `name` is for people, e.g. "fashion16 train". `pixels` is uint8 [N, C, H, W] with H = W, and is
    never written to. `labels` is int64 [N] in 0 .. classes - 1, or None, and `classes` is 0 for
    unlabelled images. `known` is their digest where it was taken before; "" where it was not.
    Raises ValueError when the tensors are not of this form.
    """

    name: str
    pixels: Tensor
    labels: Tensor | None
    classes: int
    known: str = ""

    def __post_init__(self):
        shape = tuple(self.pixels.shape)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[2] != shape[3]:
            raise ValueError(f"pixels must be uint8 [N, C, H, H], not {self.pixels.dtype} {shape}")
        if (self.labels is None) != (self.classes == 0):
            raise ValueError("labels and a number of classes come together or not at all")
        if self.labels is not None and tuple(self.labels.shape) != shape[:1]:
            raise ValueError(f"{shape[0]} images need as many labels, not {len(self.labels)}")

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @property
    def channels(self) -> int:
        """C: 1 for grey images, 3 for RGB."""
        return self.pixels.shape[1]

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.pixels.shape[2]

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """The images at `indices` in the order asked for, float32 [n, C, H, W] in [-1, 1].

        Level 0 becomes -1 and level 255 becomes 1, the scale of the diffusion model's x_0.
        """
        return to_model(self.pixels[torch.as_tensor(indices)])

    def digest(self) -> str:
        """Identity of the data, 16 hex digits: a hash of shape, pixels and labels.

        The name and the place the images were read from do not enter, so that equal data from a
        folder and from a .zip share their cached statistics.
        """
        if self.known:
            return self.known
        content = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        content.update(self.pixels.contiguous().numpy())
        if self.labels is not None:
            content.update(self.labels.numpy().astype("<i8"))
        return content.hexdigest()[:16]


def averaged(images: Images, size: int) -> Images:
    """The images at `size` pixels a side, each the mean of an area, rounded to whole levels.

    Raises ValueError when the size does not divide that of the images.
    """
    if not 0 < size <= images.size or images.size % size:
        raise ValueError(f"{images.size}x{images.size} images cannot be averaged to {size}x{size}")
    pixels = torch.empty(len(images), images.channels, size, size, dtype=torch.uint8)
    # In pieces: as floating-point numbers all images together may be more than the memory.
    for some, target in zip(images.pixels.split(PIECE), pixels.split(PIECE)):
        means = F.avg_pool2d(some.float(), images.size // size)
        target.copy_((means + 0.5).floor())
    return Images(f"{images.name} at {size}x{size}", pixels, images.labels, images.classes)


def enlarged(x: Tensor, size: int) -> Tensor:
    """Images [n, C, h, h] at `size` pixels a side, bilinearly; what networks that enlarge see."""
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def to_model(pixels: Tensor) -> Tensor:
    """float32 in [-1, 1] of uint8 levels, the scale of x_0: level 0 is -1 and level 255 is 1."""
    return pixels.to(torch.float32, copy=True).div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Levels 0 .. 255 as uint8 for `x` in [-1, 1]; the inverse of `to_model`.

    Values between two levels go to the nearer one, values beyond the range to its end. Refused:
    NaN, of which a processor would make some level, and a distance would be a number all the same.
    """
    if bool(x.isnan().any()):
        raise Refused("drawn images have pixels that are not a number: their network has diverged")
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def check_levels(images: Images) -> None:
    """Refused when the first images show nothing, or have levels that are not those of bytes."""
    looked = images.pixels[:LOOKED]
    planes = looked.flatten(2)
    if images.size > 1 and bool((planes == planes[:, :, :1]).all()):
        raise Refused(
            f"{images.name}: each of the first {len(looked)} images is of a single colour, so that "
            "there is nothing to learn: look at the files, and at what saved them"
        )
    if int(looked.max()) <= 1:
        raise Refused(
            f"{images.name} has no level above 1 of 255: its images were saved with values from 0 "
            "to 1; save them with levels from 0 to 255"
        )


def batch_indices(n_images: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Indices of the images in training batch number `step` (from 0), int64 [batch_size].

    Training sees one endless sequence of examples, cut into batches: example j is position
    j mod N of a random permutation of the N images made for epoch j div N. Every image is thus
    seen once per epoch, a batch may hold the end of one epoch and the start of the next, and the
    sequence does not depend on the batch size. Being a function of (seed, step) alone, it lets a
    run resume at any step.
    """
    first = step * batch_size
    epochs, positions = np.divmod(np.arange(first, first + batch_size, dtype=np.int64), n_images)
    parts = [
        _permutation(n_images, seed, epoch)[positions[epochs == epoch]]
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
    ]
    return np.concatenate(parts)


# Two permutations are kept because a batch may straddle two epochs.
@lru_cache(maxsize=2)
def _permutation(n_images: int, seed: int, epoch: int) -> np.ndarray:
    """The order of all images in one epoch, int64 [n_images]."""
    return numpy_generator(seed, "epoch", epoch).permutation(n_images)


def grey(name: str, pixels: np.ndarray, labels: np.ndarray) -> Images:
    """Grey Images from uint8 arrays [N, H, W] and [N], with Fashion-MNIST's ten classes."""
    return Images(
        name, torch.from_numpy(pixels[:, None]), torch.from_numpy(labels.astype(np.int64)), 10
    )
