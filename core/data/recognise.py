"""What kind of data set lies under a path."""

import zipfile
from collections.abc import Callable
from pathlib import Path

from core.data.cifar10 import download_cifar10, is_cifar10, open_cifar10
from core.data.imagenet64 import is_imagenet64, open_imagenet64
from core.data.original import Options, Original
from core.data.pictures import open_pictures
from core.errors import Refused

DOWNLOADS = {"cifar10": download_cifar10}


def open_original(
    source: str, options: Options, threads: int, looked: Callable[[int, int], None]
) -> Original:
    """The data set `source`: a path, or the name of one that can be downloaded.

    threads: for decoding pictures; looked: told how many of how many pictures were looked at.
    Refused when it is of no known kind, incomplete or damaged, or the options do not suit it.
    """
    path = Path(source)
    if not path.exists() and source in DOWNLOADS:
        options.refuse_for(source)
        path = DOWNLOADS[source]()
    if not path.exists():
        there = ", ".join(DOWNLOADS)
        raise Refused(f"'{source}' does not exist: correct it, or name a download: {there}")
    if is_imagenet64(path):
        return open_imagenet64(path, options)
    if is_cifar10(path):
        return open_cifar10(path, options)
    if path.is_dir() or zipfile.is_zipfile(path):
        return open_pictures(path, options, threads, looked)
    raise Refused(
        f"'{source}' is neither a folder or .zip of pictures, nor CIFAR-10's archive, nor the "
        "folder of ImageNet 64's .npz files: unpack it, or fetch it again if it is cut short"
    )
