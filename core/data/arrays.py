"""Arrays of numbers from .npz files that anybody may have made: bounded memory, never an object.

NumPy's own reader believes a header: an array of a petabyte in a file of a hundred bytes is asked
for before anything is read.
"""

import math
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

LARGEST = 2**30  # bytes of all arrays of a file together
KINDS = "biufU"  # Booleans, integers, floating-point numbers, short texts


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; a zip archive has a checksum of each.

    FileNotFoundError where there is none; ValueError, in a few words, when it is damaged, holds
    anything but numbers and text, or is larger than LARGEST once it is unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > LARGEST:
                raise ValueError(f"{total:,} bytes of arrays")
            return {m.filename.removesuffix(".npy"): _array(archive, m) for m in members}
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:  # zipfile and NumPy raise nearly anything for a damaged file
        raise ValueError(f"{error or type(error).__name__}") from error


def header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is kept by columns, and type of an array; its numbers follow in the file.

    ValueError when the file does not begin so.
    """
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"an array of version {version}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array, whose header says no more than its bytes hold."""
    with archive.open(member) as file:
        shape, by_columns, kind = header(file)
        if kind.kind not in KINDS:
            raise ValueError(f"an array of {kind}")
        content = file.read()
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(content):
        raise ValueError(f"an array of {shape} in {len(content):,} bytes")
    array = np.frombuffer(content, kind).reshape(shape, order="F" if by_columns else "C")
    return array.copy()
