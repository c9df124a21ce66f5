"""Which files of a folder or .zip are images, of which split and class, and in which order."""

import io
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from core.data.identity import IMAGE_SUFFIXES, is_image
from core.data.original import Split
from core.errors import Refused
from core.randomness import numpy_generator

HOLD_OUT = 10  # without splits, one image in so many is a test image
SPLITS = {"train": "train", "test": "test"}  # first directory -> split
FORMATS = ("PNG", "JPEG", "WEBP")  # whatever a file is called, Pillow tries no others
# What Pillow brings to 8-bit RGB as it should; an alpha channel is left out, as in OpenAI's code.
MODES = frozenset({"L", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "1", "CMYK", "YCbCr"})
LARGEST = 2**28  # bytes of an image file; what claims more is no image that anybody trains on
# Pillow's own bound; it warns of more, which is refused here in one line.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

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
    """The image files of a folder or .zip: names relative to it, sorted, and how to open one.

    Nothing is ever written under these names, so that none of them can lead anywhere.
    """

    path: Path
    names: list[str]
    open: Callable[[str], BinaryIO]

    def read(self, name: str) -> bytes:
        """The content of one file."""
        with self.open(name) as file:
            return file.read()


@dataclass(frozen=True, slots=True)
class Member:
    """An image file's place in the layout; "" for the split or class that its path does not say."""

    split: str
    cls: str
    name: str


def open_archive(
    path: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES, word: str = "data_path"
) -> Archive:
    """List the image files under `path`; raises Refused when there are none.

    word: what the user is told to correct.
    """
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]

        def open_one(name: str) -> BinaryIO:
            file = path / name
            _refuse_large(file.stat().st_size)
            return file.open("rb")

    elif zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except UNREADABLE as error:
            raise Refused(f"'{path}' is a damaged .zip: replace it") from error
        names = archive.namelist()

        def open_one(name: str) -> BinaryIO:
            _refuse_large(archive.getinfo(name).file_size)
            return archive.open(name)

    elif path.exists():
        raise Refused(f"'{path}' is neither a folder nor a .zip: give {word} one of these")
    else:
        raise Refused(f"'{path}' does not exist: correct {word}")
    names = sorted(name for name in names if is_image(name, suffixes))
    if not names:
        *others, last = sorted(suffixes, reverse=True)
        raise Refused(f"'{path}' has no {', '.join(others)} or {last} images: correct {word}")
    return Archive(path, names, open_one)


def _refuse_large(size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"{size:,} bytes are too many for an image")


def arrange(
    archive: Archive,
    splits: dict[str, Split] = SPLITS,
    class_of: Callable[[str], str] | None = None,
) -> list[Member]:
    """Read splits and classes off the paths, in sorted order; refuses what fits no layout.

    splits: names of first directories -> split. class_of: a file's class by its name, wherever it
    lies; without it the directory that it lies in is its class.
    """
    places = _without_leading_directory([name.split("/") for name in archive.names], splits)
    firsts = dict.fromkeys(place[0] for place in places if len(place) > 1 and place[0] in splits)
    for split in ("train", "test"):
        if len(alike := [first for first in firsts if splits[first] == split]) > 1:
            raise Refused(f"'{archive.path}' has {' and '.join(alike)}: keep one of them")
    members = []
    for name, place in zip(archive.names, places, strict=True):
        first, inner = (place[0], place[1:]) if firsts else ("", place)
        if firsts and not (first in splits and inner):
            raise Refused(f"'{archive.path}' has train or test, but also '{name}': move it")
        if class_of is None and len(inner) > 2:
            raise Refused(
                f"'{name}' in '{archive.path}' is too deep: the layout is [SPLIT/][CLASS/]FILE"
            )
        cls = class_of(name) if class_of else inner[0] if len(inner) == 2 else ""
        members.append(Member(splits[first] if firsts else "", cls, name))
    loose = [member.name for member in members if not member.cls]
    if loose and len(loose) < len(members):
        raise Refused(f"'{loose[0]}' in '{archive.path}' is in no class, others are: move it")
    return members


def _without_leading_directory(
    places: list[list[str]], splits: dict[str, Split]
) -> list[list[str]]:
    """Paths, as lists of parts, without a first directory that all of them share.

    A lone class is taken for such a directory: one class tells a model nothing.
    """
    firsts = {place[0] for place in places}
    if len(firsts) == 1 and min(map(len, places)) > 1 and not firsts & splits.keys():
        return [place[1:] for place in places]
    return places


def of_split(archive: Archive, members: list[Member], split: Split) -> list[Member]:
    """The members of one split, sorted by class and name; Refused when there are none."""
    by_class: dict[str, list[Member]] = {}
    for member in members:
        by_class.setdefault(member.cls, []).append(member)
    chosen = [m for cls in sorted(by_class) for m in _of_class(by_class[cls], split)]
    if not chosen:
        remedy = f"add {split}/" if members[0].split else f"every {HOLD_OUT}th is test, add more"
        raise Refused(f"'{archive.path}' has no {split} images: {remedy}")
    return chosen


def _of_class(members: list[Member], split: Split) -> list[Member]:
    """Those of one class's members that belong to `split`."""
    if members[0].split:
        return [member for member in members if member.split == split]
    return [
        member
        for position, member in enumerate(members)
        if (position % HOLD_OUT == HOLD_OUT - 1) == (split == "test")
    ]


def mixed(n: int, split: Split) -> np.ndarray:
    """The order of a split of n images, positions among the sorted: int64 [n].

    Always the same one, for the first few of a split shall not be of one class.
    """
    return numpy_generator(0, "order of files", split).permutation(n)


@contextmanager
def opened(archive: Archive, name: str, head: bool = False) -> Iterator[Image.Image]:
    """A picture whose pixels are decoded when they are asked for; head: they will not be.

    Refused, here and for what is raised while it is used: a file that is none of FORMATS or is
    damaged, has more pixels than MAX_IMAGE_PIXELS, or levels beyond a byte.
    """
    where = f"'{name}' in '{archive.path}'"
    try:
        file = archive.open(name) if head else io.BytesIO(archive.read(name))
        with file, Image.open(file, formats=FORMATS) as picture:
            (width, height), most = picture.size, Image.MAX_IMAGE_PIXELS
            if most and width * height > most:  # Pillow itself refuses twice as many
                raise Image.DecompressionBombError
            if picture.mode not in MODES:
                raise Refused(
                    f"{where} has levels of more than 8 bits (mode {picture.mode}), of which "
                    "nothing says what is white: save it with levels from 0 to 255"
                )
            yield picture
    except Image.DecompressionBombError as error:
        raise Refused(
            f"{where} has more than the {Image.MAX_IMAGE_PIXELS:,} pixels "
            "that are taken for a picture: shrink or remove it"
        ) from error
    except UNREADABLE as error:
        raise Refused(f"{where} is no readable image: replace or remove it") from error
