"""Where images come from: the committed fashion16, Fashion-MNIST's own files, a folder or a .zip.

`load` is the way in. Everything a user can get wrong is refused in one line (`core.errors`).
"""

import gzip
import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from core.data.images import Images
from core.errors import Refused

Split = Literal["train", "test"]

FASHION16 = Path(__file__).with_name("fashion16.npz")

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FASHION_PREFIX = {"train": "train", "test": "t10k"}
HOW_TO_GET_FASHION = "apt-get install dataset-fashion-mnist, or give its folder as data.path=FOLDER"

# SHA-256 by file name, of the published .gz files and of their uncompressed contents. The contents
# are what is compared on reading: Debian's .gz files have other gzip headers.
PUBLISHED_SHA256 = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
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


def load(name: str, split: Split, path: str | None = None) -> Images:
    """The images of one split of the source `name`, in the order they are stored in.

    fashion16: Fashion-MNIST at 16 x 16 x 1, 10 classes, committed with the code.
    fashion:   Fashion-MNIST with its 28 x 28 images padded by zeros to 32 x 32 x 1, 10 classes,
               from the folder `path`, else Debian's package, else an earlier `download_fashion`.
    folder:    PNG and JPEG images of one square size in the folder or .zip `path`; the layouts
               are those of `load_folder`.

    Raises Refused when the name or split is unknown or the images cannot be had.
    """
    if split not in FASHION_PREFIX:
        raise Refused(f"unknown split '{split}': choose train or test")
    if name == "fashion16":
        if path is not None:
            raise Refused("fashion16 comes with the code: remove data.path, or take source folder")
        return load_fashion16(split)
    if name == "fashion":
        return load_fashion(split, path)
    if name == "folder":
        if path is None:
            raise Refused("source folder needs data.path=FOLDER, or a .zip of images")
        return load_folder(Path(path), split)
    raise Refused(f"unknown data source '{name}': choose fashion16, fashion or folder")


def load_fashion16(split: Split) -> Images:
    """The committed 16 x 16 images that `core.data.make_fashion16` made."""
    try:
        with np.load(FASHION16) as arrays:
            pixels, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    except (*UNREADABLE, KeyError) as error:
        raise Refused(
            f"{FASHION16.name} is missing or damaged: restore it from git, or make it again with "
            "python -m core.data.make_fashion16"
        ) from error
    return _grey(f"fashion16 {split}", pixels, labels)


def load_fashion(split: Split, path: str | None = None) -> Images:
    """Fashion-MNIST, each 28 x 28 image amid a border of 2 zero (black) pixels: 32 x 32."""
    pixels, labels = read_fashion(find_fashion(path), split)
    return _grey(f"fashion {split}", np.pad(pixels, ((0, 0), (2, 2), (2, 2))), labels)


def _grey(name: str, pixels: np.ndarray, labels: np.ndarray) -> Images:
    """Images from uint8 arrays [N, H, W] and [N], with Fashion-MNIST's ten classes."""
    return Images(
        name, torch.from_numpy(pixels[:, None]), torch.from_numpy(labels.astype(np.int64)), 10
    )


def find_fashion(path: str | None = None) -> Path:
    """The folder with Fashion-MNIST's four idx files, each with or without .gz.

    Only `path` is looked at when it is given. Raises Refused when files are missing.
    """
    if path is not None:
        missing = _missing_from(Path(path))
        if missing:
            raise Refused(f"'{path}' lacks {missing}[.gz] of Fashion-MNIST: {HOW_TO_GET_FASHION}")
        return Path(path)
    for folder in (DEBIAN_FASHION, download_folder()):
        if not _missing_from(folder):
            return folder
    raise Refused(f"Fashion-MNIST is not on this machine: {HOW_TO_GET_FASHION}")


def _missing_from(folder: Path) -> str | None:
    """The first of Fashion-MNIST's four files that `folder` does not have."""
    present = (
        (name, any((folder / f"{name}{suffix}").is_file() for suffix in ("", ".gz")))
        for name in CONTENT_SHA256
    )
    return next((name for name, is_present in present if not is_present), None)


def download_folder() -> Path:
    """Where downloads are kept: diffusion-ablations in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "diffusion-ablations"


def download_fashion() -> Path:
    """Download Fashion-MNIST's four .gz files (31 MB) from its repository; returns their folder.

    pooch checks each file against its pinned SHA-256 and leaves files alone that are there
    already. Raises Refused when pooch or the network is missing or a file is not the pinned one.
    """
    try:
        import pooch
    except ImportError as error:
        raise Refused(f"downloads need pip install pooch; or else {HOW_TO_GET_FASHION}") from error
    folder = download_folder()
    for name, sha256 in PUBLISHED_SHA256.items():
        file = f"{name}.gz"
        try:
            pooch.retrieve(FASHION_URL + file, f"sha256:{sha256}", fname=file, path=folder)
        except (OSError, ValueError) as error:  # no network or disk; another content
            raise Refused(f"{file} could not be downloaded: {HOW_TO_GET_FASHION}", 1) from error
    return folder


def read_fashion(folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST as published: uint8 images [N, 28, 28] and uint8 labels [N] in 0 .. 9.

    The idx format is a header of big-endian 32-bit numbers (a magic number and the lengths of
    the axes), then the bytes. Only the contents that CONTENT_SHA256 pins are accepted, because
    MNIST's files have the same names and shapes; so nothing in the header needs checking.
    """
    images = _read_pinned(folder, f"{FASHION_PREFIX[split]}-images-idx3-ubyte")
    labels = _read_pinned(folder, f"{FASHION_PREFIX[split]}-labels-idx1-ubyte")
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels, np.frombuffer(labels, np.uint8, offset=8)


def _read_pinned(folder: Path, name: str) -> bytes:
    """The uncompressed content of one of Fashion-MNIST's files, refused unless it is theirs."""
    plain = folder / name
    try:
        if plain.is_file():
            content = plain.read_bytes()
        else:
            content = gzip.decompress((folder / f"{name}.gz").read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"'{plain}[.gz]' cannot be read: {HOW_TO_GET_FASHION}") from error
    if hashlib.sha256(content).hexdigest() != CONTENT_SHA256[name]:
        raise Refused(f"'{plain}[.gz]' is not Fashion-MNIST's: {HOW_TO_GET_FASHION}")
    return content


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

    Labels number the sorted class names of both splits. Images are grey (C = 1) when all the
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
    pixels = _decode(archive, [member.name for member in chosen])
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
        raise Refused(f"'{path}' is neither a folder nor a .zip: give data.path one of these")
    else:
        raise Refused(f"'{path}' does not exist: correct data.path")
    names = sorted(name for name in names if _is_image(name))
    if not names:
        raise Refused(f"'{path}' has no .png, .jpg or .jpeg images: correct data.path")
    return Archive(path, names, read)


def _is_image(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return not hidden and Path(name).suffix.lower() in IMAGE_SUFFIXES


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
