"""Random numbers as functions of a key, not of what was drawn before.

Every draw in the suite starts from a generator made for its key: (seed, step) in training,
(seed, image) in sampling and likelihoods. Nothing needs to be saved for a resumed run to continue
bit for bit, and neither batch size nor the number of workers changes a result. A key is made of
integers and short words; the words keep the streams of different uses apart.
"""

import zlib

import numpy as np
import torch


def _sequence(key: tuple[int | str, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(
        [zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key]
    )


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A NumPy generator that depends on `key` alone; integers must not be negative."""
    return np.random.default_rng(_sequence(key))


def torch_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on `key` alone."""
    return int(_sequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(*key: int | str) -> torch.Generator:
    """A CPU generator that depends on `key` alone; draws are made on the CPU on every device."""
    return torch.Generator().manual_seed(torch_seed(*key))


class ImageNoise:
    """Standard normal noise for a set of images, each from a stream of its own.

    Image i's stream depends on (key, i) alone, so that what it is given is the same in any batch.
    Streams are read some draws ahead, which costs one call per image instead of one per draw.
    """

    AHEAD = 16

    def __init__(self, images: range, shape: tuple[int, ...], *key: int | str):
        """images: which images; shape: of one image, (C, H, W)."""
        self._generators = [torch_generator(*key, image) for image in images]
        self._shape = shape
        self._ready: list[torch.Tensor] = []

    def __call__(self) -> torch.Tensor:
        """The next draw for every image: float32 [N, C, H, W], on the CPU."""
        if not self._ready:
            size = (self.AHEAD, *self._shape)
            drawn = torch.stack([torch.randn(size, generator=g) for g in self._generators], dim=1)
            self._ready = list(drawn.unbind(0))[::-1]
        return self._ready.pop()
