"""Fashion-MNIST from its own idx files: a folder, Debian's package, or a checked download."""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from core.data.images import Images, grey
from core.data.original import Split
from core.errors import Refused

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FASHION_PREFIX = {"train": "train", "test": "t10k"}
HOW_TO_GET_FASHION = "apt-get install dataset-fashion-mnist, or give its folder as data_path=FOLDER"

# SHA-256 by file name, of the published .gz files and of their uncompressed contents. The contents
# are what is compared on reading: Debian's .gz files have other gzip headers.
PUBLISHED_SHA256 = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
LARGEST = 16 + 60_000 * 28 * 28  # bytes of the largest of them; no more is unpacked
CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def load_fashion(split: Split, path: str | None = None) -> Images:
    """Fashion-MNIST, each 28 x 28 image amid a border of 2 zero (black) pixels: 32 x 32."""
    pixels, labels = read_fashion(find_fashion(path), split)
    return grey(f"fashion {split}", np.pad(pixels, ((0, 0), (2, 2), (2, 2))), labels)


def find_fashion(path: str | None = None) -> Path:
    """The folder with Fashion-MNIST's four idx files, each with or without .gz.

    Only `path` is looked at when it is given; otherwise the files are downloaded as a last resort.
    Raises Refused when they cannot be had.
    """
    if path is not None:
        missing = missing_from(Path(path))
        if missing:
            raise Refused(f"'{path}' lacks {missing}[.gz] of Fashion-MNIST: {HOW_TO_GET_FASHION}")
        return Path(path)
    for folder in (DEBIAN_FASHION, download_folder()):
        if not missing_from(folder):
            return folder
    return download_fashion()


def missing_from(folder: Path) -> str | None:
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
    already. Raises Refused when there is no network or a file is not the pinned one.
    """
    import pooch  # late: it brings an HTTP client that hardly any run needs

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
            with plain.open("rb") as file:
                content = file.read(LARGEST + 1)
        else:
            with gzip.open(folder / f"{name}.gz") as file:
                content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"'{plain}[.gz]' cannot be read: {HOW_TO_GET_FASHION}") from error
    if hashlib.sha256(content).hexdigest() != CONTENT_SHA256[name]:
        raise Refused(f"'{plain}[.gz]' is not Fashion-MNIST's: {HOW_TO_GET_FASHION}")
    return content
