"""A data set as it is published or collected: what a prepared file is made of."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np

from core.errors import Refused

Split = Literal["train", "test"]

CHUNK = 256  # images that are in memory at a time

# Pixels uint8 [n, C, H, H] and labels int64 [n], or None where there are none.
Chunk = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Options:
    """How pictures become images of one form. The defaults take them as they are."""

    size: int = 0  # pixels a side after cropping and downsampling; 0: as they are
    crop: Literal["", "center", "none"] = ""  # to a square; "": center where a size is given
    grey: bool | None = None  # one channel; None: when all pictures are 8-bit grey
    labels: str = "auto"  # auto, folders, names, none or a table FILE.csv
    enlarge: bool = False  # also pictures that are smaller than `size`

    @property
    def crops(self) -> bool:
        """Whether pictures that are not square are cropped rather than refused."""
        return self.crop == "center" or (self.crop == "" and self.size > 0)

    def given(self) -> dict:
        """What differs from the defaults."""
        defaults = asdict(Options())
        return {key: value for key, value in asdict(self).items() if value != defaults[key]}

    def refuse_for(self, what: str) -> None:
        """Refused when anything is asked of images that are taken as published."""
        if given := self.given():
            keys = ", ".join(f"{key}=" for key in given)
            raise Refused(f"{what} is taken as it was published: leave out {keys}")


OPTIONS = tuple(f.name for f in fields(Options))


@dataclass(frozen=True)
class Original:
    """Both splits of a data set, read piece by piece.

    name: of the archive or folder, for people. channels, size: of the images, uint8 [C, H, H].
    classes: their names, in the order of the labels; () without labels. count: images of each
    split. read: the images of a split in their order, at most CHUNK at a time; Refused on the way
    when something is damaged.
    """

    name: str
    channels: int
    size: int
    classes: tuple[str, ...]
    count: dict[Split, int]
    read: Callable[[Split], Iterator[Chunk]]
