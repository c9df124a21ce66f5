"""Images of the user's own: PNG and JPEG files in a folder or a .zip."""

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.data.fashion_mnist import Split
from core.data.identity import is_image
from core.data.images import Images
from core.errors import Refused
from core.randomness import numpy_generator

HOLD_OUT = 10  # without splits, one image in so many is a test image

# What zipfile, NumPy and Pillow raise for missing and damaged files.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Archive:
    """The image files of a folder or .zip: names relative to it, sorted, and how to read one."""

    path: Path
    names: list[str]
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class Member:
    """An image file's place in the layout; "" for the split or class that its path does not say."""

    split: str
    cls: str
    name: str


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
    archive = _open_archive(path)
    members = _arrange(archive)
    classes = sorted({member.cls for member in members})
    chosen = [
        member
        for cls in classes
        for member in _of_split([member for member in members if member.cls == cls], split)
    ]
    if not chosen:
        remedy = f"add {split}/" if members[0].split else f"every {HOLD_OUT}th is test, add more"
        raise Refused(f"'{path}' has no {split} images: {remedy}")
    # Mixed, always in the same way: the first few of a split shall not be of one class.
    order = numpy_generator(0, "order of files", split).permutation(len(chosen))
    pixels = _decode(archive, [member.name for member in chosen])[order]
    chosen = [chosen[i] for i in order]
    name = f"{path.resolve().name.removesuffix('.zip')} {split}"
    if classes == [""]:
        return Images(name, pixels, None, 0)
    labels = torch.tensor([classes.index(member.cls) for member in chosen])
    return Images(name, pixels, labels, len(classes))


def _open_archive(path: Path) -> Archive:
    """List the image files under `path`; raises Refused when there are none."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]

        def read(name: str) -> bytes:
            return (path / name).read_bytes()

    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except UNREADABLE as error:
            raise Refused(f"'{path}' is a damaged .zip: replace it") from error
        names, read = archive.namelist(), archive.read
    elif path.exists():
        raise Refused(f"'{path}' is neither a folder nor a .zip: give data_path one of these")
    else:
        raise Refused(f"'{path}' does not exist: correct data_path")
    names = sorted(name for name in names if is_image(name))
    if not names:
        raise Refused(f"'{path}' has no .png, .jpg or .jpeg images: correct data_path")
    return Archive(path, names, read)


def _without_leading_directory(places: list[list[str]]) -> list[list[str]]:
    """Paths, as lists of parts, without a first directory that all of them share.

    A lone class is taken for such a directory: one class tells a model nothing.
    """
    firsts = {place[0] for place in places}
    if len(firsts) == 1 and min(map(len, places)) > 1 and not firsts & {"train", "test"}:
        return [place[1:] for place in places]
    return places


def _arrange(archive: Archive) -> list[Member]:
    """Read splits and classes off the paths, in sorted order; refuses what fits no layout."""
    places = _without_leading_directory([name.split("/") for name in archive.names])
    has_splits = any(place[0] in ("train", "test") for place in places if len(place) > 1)
    members = []
    for name, place in zip(archive.names, places, strict=True):
        split, inner = (place[0], place[1:]) if has_splits else ("", place)
        if has_splits and split not in ("train", "test"):
            raise Refused(f"'{archive.path}' has train or test, but also '{name}': move it")
        if len(inner) > 2:
            raise Refused(
                f"'{name}' in '{archive.path}' is too deep: the layout is [SPLIT/][CLASS/]FILE"
            )
        members.append(Member(split, inner[0] if len(inner) == 2 else "", name))
    loose = [member.name for member in members if not member.cls]
    if loose and len(loose) < len(members):
        raise Refused(f"'{loose[0]}' in '{archive.path}' is in no class, others are: move it")
    return members


def _of_split(members: list[Member], split: Split) -> list[Member]:
    """Those of one class's members that belong to `split`."""
    if members[0].split:
        return [member for member in members if member.split == split]
    return [
        member
        for position, member in enumerate(members)
        if (position % HOLD_OUT == HOLD_OUT - 1) == (split == "test")
    ]


def _decode(archive: Archive, names: list[str]) -> torch.Tensor:
    """Decoded images, uint8 [N, C, H, H]; C is 1 when all are 8-bit grey and 3 otherwise."""
    images = [_decode_one(archive, name) for name in names]
    first = images[0].shape[:2]
    if first[0] != first[1]:
        height, width = first
        raise Refused(f"'{names[0]}' is {width}x{height}, not square: crop the images first")
    for name, image in zip(names, images, strict=True):
        if image.shape[:2] != first:
            (h, w), (height, width) = first, image.shape[:2]
            raise Refused(
                f"'{names[0]}' is {w}x{h} but '{name}' is {width}x{height}: "
                "resize all images to one size"
            )
    channels = max(image.shape[2] for image in images)
    pixels = np.empty((len(images), channels, *first), np.uint8)
    for target, image in zip(pixels, images, strict=True):
        target[:] = image.transpose(2, 0, 1)  # grey among RGB is repeated over the channels
    return torch.from_numpy(pixels)


def _decode_one(archive: Archive, name: str) -> np.ndarray:
    """One image, uint8 [H, W, C]: C = 1 from 8-bit grey files, C = 3 from all others."""
    try:
        with Image.open(io.BytesIO(archive.read(name))) as image:
            if image.mode == "L":
                return np.asarray(image)[:, :, None]
            return np.asarray(image.convert("RGB"))
    except UNREADABLE as error:
        message = f"'{name}' in '{archive.path}' is no readable image: replace or remove it"
        raise Refused(message) from error
