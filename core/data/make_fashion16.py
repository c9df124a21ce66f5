"""Make fashion16.npz, Fashion-MNIST at 16 x 16, from the four original files.

Usage: python -m core.data.make_fashion16 [FOLDER]

FOLDER holds the original files; without it, those that `find_fashion` finds are used. All
60,000 training and 10,000 test images are kept, in their order. The file is the same byte for byte
wherever Python uses the same zlib; its arrays are the same everywhere.
"""

import argparse
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from core.data.fashion_mnist import find_fashion, read_fashion
from core.data.sources import FASHION16


def halve(pixels: np.ndarray) -> np.ndarray:
    """Area average over 2 x 2 pixels: uint8 [N, H, W] -> uint8 [N, H / 2, W / 2], H and W even.

    The sum s of four levels becomes (s + 2) div 4, the mean rounded with halves up.
    """
    n, height, width = pixels.shape
    blocks = pixels.reshape(n, height // 2, 2, width // 2, 2)
    return ((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def fashion16_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of fashion16.npz: {train,test}_images uint8 [N, 16, 16], _labels uint8 [N]."""
    arrays = {}
    for split in ("train", "test"):
        pixels, labels = read_fashion(folder, split)
        # 28 is padded to 32 before it is halved, as the suite's full-size images are.
        arrays[f"{split}_images"] = halve(np.pad(pixels, ((0, 0), (2, 2), (2, 2))))
        arrays[f"{split}_labels"] = labels
    return arrays


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Like np.savez_compressed, but without the time of day, so that equal arrays give equal files.

    NumPy stamps each member of the archive with the time of writing.
    """
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3  # Unix; otherwise the file would differ on Windows
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    path.write_bytes(whole.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make fashion16.npz from Fashion-MNIST's files.")
    parser.add_argument("folder", nargs="?", help="folder of the four idx files, .gz or not")
    write_npz(FASHION16, fashion16_arrays(find_fashion(parser.parse_args().folder)))
    print(f"{FASHION16.name}: {FASHION16.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
