"""Pictures in a folder or .zip, of any size, as the images of a data set."""

import csv
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from core.data.downsample import downsampled, middle
from core.data.layout import (
    UNREADABLE,
    Archive,
    Member,
    arrange,
    mixed,
    of_split,
    open_archive,
    opened,
)
from core.data.original import CHUNK, Chunk, Options, Original, Split
from core.errors import Refused

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
TABLE = "labels.csv"
_LABELS = "give auto, folders, names, none or a table FILE.csv"

# First directories. OpenAI's script for CIFAR-10 and the folders of ImageNet 64 have other names.
SPLITS: dict[str, Split] = {
    **{"train": "train", "train_64x64": "train", "cifar_train": "train"},
    **{"test": "test", "valid_64x64": "test", "cifar_test": "test", "val": "test", "valid": "test"},
}

Progress = Callable[[int, int], None]  # pictures looked at, of how many


def open_pictures(path: Path, options: Options, threads: int, looked: Progress) -> Original:
    """The pictures under `path` as a data set; their order and splits are those of `load_folder`.

    Every file is opened once before any is decoded, so that what will not do is refused before
    hours of work. threads: pictures that are decoded at a time.
    """
    archive = open_archive(path, SUFFIXES, "SOURCE")
    members = arrange(archive, SPLITS, _classes(archive, options.labels))
    tabled = _table(archive, options.labels) is not None
    classes = sorted({member.cls for member in members}, key=_natural if tabled else None)
    chosen = {split: _in_order(archive, members, split) for split in ("train", "test")}
    channels, size = _form(archive, options, threads, looked)
    numbers = {cls: number for number, cls in enumerate(classes)}

    def read(split: Split) -> Iterator[Chunk]:
        def one(member: Member) -> np.ndarray:
            return _decoded(archive, member.name, size, channels, options)

        decoded = _ahead(one, chosen[split], threads)
        for first in range(0, len(chosen[split]), CHUNK):
            some = chosen[split][first : first + CHUNK]
            pixels = np.stack([next(decoded) for _ in some])
            labels = np.array([numbers[member.cls] for member in some], np.int64)
            yield pixels, None if classes == [""] else labels

    named = () if classes == [""] else tuple(classes)
    count = {split: len(of) for split, of in chosen.items()}
    return Original(path.resolve().name, channels, size, named, count, read)


def _in_order(archive: Archive, members: list[Member], split: Split) -> list[Member]:
    chosen = of_split(archive, members, split)
    return [chosen[i] for i in mixed(len(chosen), split)]


def _natural(cls: str) -> tuple:
    """Classes that are numbers go by their value, all others by their letters and after them."""
    return (0, int(cls), cls) if cls.isascii() and cls.isdigit() else (1, 0, cls)


def _classes(archive: Archive, labels: str) -> Callable[[str], str] | None:
    """How a file's class follows from its name; None: it is the directory that it lies in."""
    if labels == "names":
        return _before_underscore
    if labels == "none":
        return lambda name: ""
    table = _table(archive, labels)
    if table is None:
        return None
    if unknown := table.keys() - set(archive.names):
        raise Refused(f"'{archive.path}' lacks '{min(unknown)}', which the table labels")

    def look_up(name: str) -> str:
        if name not in table:
            raise Refused(f"'{name}' of '{archive.path}' has no label in the table: add its line")
        return table[name]

    return look_up


def _before_underscore(name: str) -> str:
    """As OpenAI's code has it: truck_49997.png is of the class truck."""
    cls, underscore, _ = PurePosixPath(name).name.partition("_")
    if not underscore or not cls:
        raise Refused(f"'{name}' has no class before an underscore: take other labels=")
    return cls


def _table(archive: Archive, labels: str) -> dict[str, str] | None:
    """File -> label, from the table that is named or, with labels=auto, lies beside the files."""
    if labels in ("folders", "names", "none"):
        return None
    try:
        content = archive.read(TABLE) if labels == "auto" else Path(labels).read_bytes()
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (FileNotFoundError, KeyError) as error:
        if labels == "auto":
            return None
        raise Refused(f"labels={labels}: {_LABELS}, and there is no such table") from error
    except (*UNREADABLE, csv.Error) as error:
        raise Refused(f"the table of labels cannot be read: {error}") from error
    if lines and [word.strip().lower() for word in lines[0]] == ["file", "label"]:
        del lines[0]
    table: dict[str, str] = {}
    for line in filter(None, lines):
        words = [word.strip() for word in line]
        if len(words) != 2 or not all(words) or words[0] in table:
            why = "twice" if words[0] in table else "which is not file,label"
            raise Refused(f"the table of labels has '{','.join(line)[:80]}' {why}: mend the line")
        table[words[0]] = words[1]
    return table


def _form(archive: Archive, options: Options, threads: int, looked: Progress) -> tuple[int, int]:
    """Channels and size of the images that these pictures become."""
    size, grey, first = options.size, True, None
    for number, (name, (mode, sides)) in enumerate(
        zip(archive.names, _ahead(lambda name: _head(archive, name), archive.names, threads))
    ):
        grey &= mode == "L"
        short = min(sides)
        if not options.crops and sides[0] != sides[1]:
            raise Refused(f"'{name}' is {sides[0]}x{sides[1]}, not square: give crop=center")
        if size and short < size and not options.enlarge:
            raise Refused(
                f"'{name}' is {sides[0]}x{sides[1]}, less than size={size}: remove it, or give "
                "enlarge=true as OpenAI's code does"
            )
        first = first or (name, short)
        if not size and short != first[1]:
            raise Refused(
                f"'{first[0]}' and '{name}' are of {first[1]} and {short} pixels a side: "
                f"give size={min(first[1], short)}"
            )
        looked(number + 1, len(archive.names))
    grey = grey if options.grey is None else options.grey
    return 1 if grey else 3, size or first[1]


def _head(archive: Archive, name: str) -> tuple[str, tuple[int, int]]:
    """A picture's mode and sides, without its pixels."""
    with opened(archive, name, head=True) as picture:
        return picture.mode, picture.size


def _decoded(archive: Archive, name: str, size: int, channels: int, options: Options) -> np.ndarray:
    """One picture as an image, uint8 [C, size, size]. Colours are what `load_folder` makes them."""
    with opened(archive, name) as picture:
        picture = picture if picture.mode == "L" else picture.convert("RGB")
        if channels == 1 and picture.mode != "L":
            picture = picture.convert("L")  # luma of ITU-R BT.601
        picture = downsampled(picture, size) if options.size else middle(picture, size)
        pixels = np.asarray(picture)
    if pixels.ndim == 2:  # grey among RGB is repeated over the channels
        return np.broadcast_to(pixels, (channels, size, size))
    return pixels.transpose(2, 0, 1)


def _ahead(work: Callable, items: Iterable, threads: int) -> Iterator:
    """work(item) of each item, in order, by so many threads that are a little ahead."""
    pool, waiting = ThreadPoolExecutor(threads), deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
