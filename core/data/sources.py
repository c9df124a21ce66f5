"""Where images come from, by name: fashion16 in the repository, fashion, or the user's own.

Everything a user can get wrong is refused in one line (core/errors.py).
"""

import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from core.data.fashion_mnist import load_fashion
from core.data.folders import load_folder
from core.data.images import Images, averaged, grey
from core.data.mapped import load_prepared
from core.data.original import Split
from core.data.prepared import is_prepared
from core.errors import Refused

FASHION16 = Path(__file__).with_name("fashion16.npz")
DIGESTS = {"train": "32e589fc2ad79533", "test": "fc5fd53b051d09c9"}  # Images.digest of its splits


def load(name: str, split: Split, path: str | None = None) -> Images:
    """The images of one split of the source `name`, in the order they are stored in.

    fashion16: Fashion-MNIST at 16 x 16 x 1, 10 classes, committed with the code.
    fashion:   Fashion-MNIST with its 28 x 28 images padded by zeros to 32 x 32 x 1, 10 classes,
               from the folder `path`, else Debian's package, else `download_fashion`.
    folder:    a file that experiments/prepare.py made, or PNG and JPEG images of one square size
               in the folder or .zip `path`, whose layouts are those of `load_folder`.

    Raises Refused when the name or split is unknown or the images cannot be had.
    """
    if split not in ("train", "test"):
        raise Refused(f"unknown split '{split}': choose train or test")
    if name == "fashion16":
        if path is not None:
            raise Refused("fashion16 comes with the code: remove data_path, or take source folder")
        return load_fashion16(split)
    if name == "fashion":
        return load_fashion(split, path)
    if name == "folder":
        if path is None:
            raise Refused(
                "source folder needs data_path=FOLDER, a .zip of images or a prepared file"
            )
        return (load_prepared if is_prepared(Path(path)) else load_folder)(Path(path), split)
    raise Refused(f"unknown data source '{name}': choose fashion16, fashion or folder")


def load_fashion16(split: Split) -> Images:
    """The committed 16 x 16 images that `core.data.make_fashion16` made."""
    try:
        with np.load(FASHION16) as arrays:
            pixels, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        images = grey(f"fashion16 {split}", pixels, labels)
        if images.digest() != DIGESTS[split]:
            raise ValueError("other images")
    except (OSError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise Refused(
            f"{FASHION16.name} is missing or damaged: restore it from git, or make it again with "
            "python -m core.data.make_fashion16"
        ) from error
    return images


# Images are never changed: one process reads each split once, however many runs it serves.
load_once = lru_cache(maxsize=4)(load)


def at_size(images: Images, size: int, key: str) -> Images:
    """The images averaged to a size that the field `key` asks for; Refused when that cannot be."""
    try:
        return averaged(images, size)
    except ValueError as error:
        raise Refused(f"{key}={size}: {error}") from error
