"""ImageNet downsampled to 64x64 (Chrabaszcz et al. 2017, arXiv 1707.08819), as NumPy archives.

A folder with train_data_batch_1.npz to train_data_batch_10.npz and val_data.npz. Each holds data,
uint8 [N, 3 * 64 * 64], and labels in 1 .. 1000. A batch has 1.6 GB, so that its arrays are read in
pieces. Images of other sizes (16x16, 32x32) are published in the same form, and read as well.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from core.data import arrays
from core.data.layout import UNREADABLE
from core.data.original import CHUNK, Chunk, Options, Original, Split
from core.errors import Refused

CLASSES = tuple(str(label) for label in range(1, 1001))  # the labels, in the order of the paper's
BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"train_data_batch_{i}.npz" for i in range(1, 11)),
    "test": ("val_data.npz",),
}


def is_imagenet64(path: Path) -> bool:
    """Whether the folder has any of the archives."""
    names = [name for names in BATCHES.values() for name in names]
    return path.is_dir() and any((path / name).is_file() for name in names)


def open_imagenet64(path: Path, options: Options) -> Original:
    """Both splits; the validation images are the test split."""
    options.refuse_for("downsampled ImageNet")
    for name in (name for names in BATCHES.values() for name in names):
        if not (path / name).is_file():
            raise Refused(f"'{path}' lacks {name} of downsampled ImageNet: fetch it too")
    shapes = {s: [_shape(path / name) for name in names] for s, names in BATCHES.items()}
    sizes = {size for of_split in shapes.values() for _, size in of_split}
    if len(sizes) > 1:
        raise Refused(f"'{path}' has images of {sorted(sizes)} pixels a side: fetch all of one")

    def read(split: Split) -> Iterator[Chunk]:
        for name in BATCHES[split]:
            yield from _read(path / name)

    count = {split: sum(n for n, _ in of_split) for split, of_split in shapes.items()}
    return Original(path.name, 3, sizes.pop(), CLASSES, count, read)


@contextmanager
def _damage_is_said(path: Path) -> Iterator[None]:
    """Around what reads an archive: whatever is raised for a damaged one becomes Refused."""
    try:
        yield
    except (*UNREADABLE, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refused(
            f"'{path}' is damaged or no such archive ({reason}): fetch it again"
        ) from error


def _begun(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array whose header is read; its numbers follow in the file."""
    shape, by_columns, kind = arrays.header(file)
    if by_columns or kind.kind not in "iu":
        raise ValueError("arrays of something else than whole numbers")
    return shape, kind


def _shape(path: Path) -> tuple[int, int]:
    """Number of images and their pixels a side, by the archive's headers."""
    with _damage_is_said(path), zipfile.ZipFile(path) as archive, archive.open("data.npy") as file:
        shape, kind = _begun(file)
        size = math.isqrt(shape[1] // 3) if len(shape) == 2 else 0
        if kind != np.uint8 or len(shape) != 2 or 3 * size * size != shape[1]:
            raise ValueError(f"data is {kind} {shape}, not uint8 [N, 3 * 64 * 64]")
    return shape[0], size


def _read(path: Path) -> Iterator[Chunk]:
    """The images of one archive, and their labels from 0."""
    n, size = _shape(path)
    with _damage_is_said(path), zipfile.ZipFile(path) as archive:
        with archive.open("labels.npy") as file:
            shape, kind = _begun(file)
            if shape != (n,):
                raise ValueError(f"labels of {shape} for {n} images")
            labels = np.frombuffer(_exactly(file, n * kind.itemsize), kind).astype(np.int64) - 1
            _ended(file)
        with archive.open("data.npy") as file:
            _begun(file)
            for first in range(0, n, CHUNK):
                some = labels[first : first + CHUNK]
                content = _exactly(file, len(some) * 3 * size * size)
                yield np.frombuffer(content, np.uint8).reshape(-1, 3, size, size), some
            _ended(file)


def _exactly(file: BinaryIO, n: int) -> bytes:
    content = file.read(n)
    if len(content) < n:
        raise ValueError("an array is cut short")
    return content


def _ended(file: BinaryIO) -> None:
    """An array's checksum is compared when its end is read."""
    if file.read(1):
        raise ValueError("an array goes on after its end")
