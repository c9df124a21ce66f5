"""Images of the user's own: PNG and JPEG files in a folder or a .zip."""

from pathlib import Path

import numpy as np
import torch

from core.data.images import Images
from core.data.layout import Archive, arrange, mixed, of_split, open_archive, opened
from core.data.original import Split
from core.errors import Refused

AT_MOST = 2**33  # bytes of pixels that are held in memory


def load_folder(path: Path, split: Split) -> Images:
    """The images of one split under `path`, a folder or .zip, in sorted order of class and name.

    Layouts, with png, jpg or jpeg files; other files and hidden ones are passed over, and so is
    a single directory that holds all the rest, as archives tend to have:

        {train,test}/CLASS/FILE    the split as given
        {train,test}/FILE          the same without labels
        CLASS/FILE                 every tenth image of each class, in sorted order, is test
        FILE                       every tenth image is test; without labels

    A split's images come in an order of their own, which depends on their number alone. Labels
    number the sorted class names of both splits. Images are grey (C = 1) when all the
    split's files are stored as 8-bit grey, otherwise RGB (C = 3). Raises Refused when the layout
    is none of these, the split is empty, a file is unreadable, or sizes differ or are not square.
    """
    archive = open_archive(path)
    members = arrange(archive)
    classes = sorted({member.cls for member in members})
    chosen = of_split(archive, members, split)
    order = mixed(len(chosen), split)
    pixels = _decode(archive, [member.name for member in chosen])[order]
    chosen = [chosen[i] for i in order]
    name = f"{path.resolve().name.removesuffix('.zip')} {split}"
    if classes == [""]:
        return Images(name, pixels, None, 0)
    labels = torch.tensor([classes.index(member.cls) for member in chosen])
    return Images(name, pixels, labels, len(classes))


def _decode(archive: Archive, names: list[str]) -> torch.Tensor:
    """Decoded images, uint8 [N, C, H, H]; C is 1 when all are 8-bit grey and 3 otherwise."""
    with opened(archive, names[0], head=True) as image:
        width, height = image.size
    if width != height:
        raise Refused(f"'{names[0]}' is {width}x{height}, not square: crop the images first")
    need = len(names) * width * height * 3  # bytes, of RGB
    if need > AT_MOST:
        raise Refused(
            f"{len(names):,} images of {width}x{height} would take {need / 2**30:.0f} GiB of "
            "memory: make one file of them, once, by experiments/prepare.py, and smaller if need be"
        )
    # Sizes are compared before pixels are decoded: one that does not fit costs no memory.
    images = [_decode_one(archive, name, (width, height), names[0]) for name in names]
    channels = max(image.shape[2] for image in images)
    pixels = np.empty((len(images), channels, height, width), np.uint8)
    for target, image in zip(pixels, images, strict=True):
        target[:] = image.transpose(2, 0, 1)  # grey among RGB is repeated over the channels
    return torch.from_numpy(pixels)


def _decode_one(archive: Archive, name: str, size: tuple[int, int], first: str) -> np.ndarray:
    """One image, uint8 [H, W, C]: C = 1 from 8-bit grey files, C = 3 from all others.

    size: width and height, as those of the file `first`.
    """
    with opened(archive, name) as image:
        if image.size != size:
            (w, h), (width, height) = size, image.size
            raise Refused(
                f"'{first}' is {w}x{h} but '{name}' is {width}x{height}: "
                "resize all images to one size"
            )
        if image.mode == "L":
            return np.asarray(image)[:, :, None]
        return np.asarray(image.convert("RGB"))
