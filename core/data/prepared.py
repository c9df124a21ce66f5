"""A prepared data set: one file of pixels and labels that training maps into its memory.

It is a safetensors file (8 bytes with the header's length, the header in JSON, the tensors one
after the other), so that others can read it too: train.pixels and test.pixels, uint8 [N, C, H, H],
and, where there are labels, train.labels and test.labels, int64 [N]. The header's metadata hold
the names of the classes, from what and how the file was made, a checksum of each split, and one of
the header itself. So the identity of a file is told without reading its pixels.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np

from core.data.original import CHUNK, Original, Split
from core.errors import Refused

FORMAT = "prepared images 1"
BEGINNING = f'{{"__metadata__":{{"format":"{FORMAT}"'.encode()
PAGE = 4096  # the tensors begin at a multiple of it
LONGEST = 2**27  # bytes of a header; safetensors allows 100 MB
UNKNOWN = "0" * 64  # in place of a checksum
SPLITS: tuple[Split, ...] = ("train", "test")
AGAIN = "remove it and prepare it again with experiments/prepare.py"


@dataclass(frozen=True)
class Prepared:
    """What the header of a prepared file says.

    classes: names in the order of the labels, () without labels. count: images of each split.
    checksums: SHA-256 of each split, over its shape, pixels and labels as in Images.digest. made:
    from what and how, for people.
    """

    channels: int
    size: int
    classes: tuple[str, ...]
    count: dict[Split, int]
    checksums: dict[Split, str]
    made: dict

    @property
    def digest(self) -> str:
        """Identity of the content, 16 hex digits: images, labels and the number of classes."""
        parts = [FORMAT, *(self.checksums[split] for split in SPLITS), str(len(self.classes))]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    def shape(self, split: Split) -> tuple[int, int, int, int]:
        """Of the pixels, [N, C, H, H]."""
        return self.count[split], self.channels, self.size, self.size

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """Of each tensor: where it begins and ends, in bytes of the file."""
        return {name: (self.start + a, self.start + b) for name, (a, b) in self._offsets().items()}

    @property
    def bytes(self) -> int:
        """Of the whole file."""
        return max(end for _, end in self.places.values())

    @cached_property
    def start(self) -> int:
        """Where the tensors begin."""
        return len(self.encoded())

    def _offsets(self) -> dict[str, tuple[int, int]]:
        # Labels come first: their eight bytes each stay aligned.
        lengths = {f"{s}.labels": 8 * self.count[s] for s in SPLITS if self.classes}
        lengths |= {f"{split}.pixels": prod(self.shape(split)) for split in SPLITS}
        ends = np.cumsum(list(lengths.values())).tolist()
        return {name: (end - lengths[name], end) for name, end in zip(lengths, ends)}

    def encoded(self) -> bytes:
        """The beginning of the file, up to its tensors."""
        metadata = {
            "format": FORMAT,
            "classes": json.dumps(self.classes),
            "made": json.dumps(self.made),
            **{f"{split}.sha256": self.checksums[split] for split in SPLITS},
            "header.sha256": UNKNOWN,
        }
        tensors = {}
        for name, offsets in self._offsets().items():
            split, _, what = name.partition(".")
            shape = self.shape(split) if what == "pixels" else (self.count[split],)
            kind = "U8" if what == "pixels" else "I64"
            tensors[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        text = json.dumps({"__metadata__": metadata} | tensors, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % PAGE)
        checksum = hashlib.sha256(text).hexdigest().encode()
        mine = b'"header.sha256":"%s"'
        text = text.replace(mine % UNKNOWN.encode(), mine % checksum)
        return len(text).to_bytes(8, "little") + text


def is_prepared(path: Path) -> bool:
    """Whether the file begins as a prepared one does; its header may be damaged further on."""
    try:
        with open(path, "rb") as file:
            return file.read(8 + len(BEGINNING))[8:] == BEGINNING
    except OSError:
        return False


def read_header(path: Path) -> Prepared:
    """The header of a prepared file; Refused unless it is whole and the file as long as it says."""
    try:
        with open(path, "rb") as file:
            real = os.fstat(file.fileno()).st_size
            content = file.read(8)
            content += file.read(min(int.from_bytes(content, "little"), LONGEST, real))
        values = json.loads(content[8:])
        metadata = values["__metadata__"]
        count, channels, size, _ = values["train.pixels"]["shape"]
        header = Prepared(
            channels,
            size,
            tuple(json.loads(metadata["classes"])),
            {"train": count, "test": values["test.pixels"]["shape"][0]},
            {split: metadata[f"{split}.sha256"] for split in SPLITS},
            json.loads(metadata["made"]),
        )
        # The same bytes come out only if every one of them is right, the checksum included.
        right = header.encoded() == content
    except OSError as error:
        raise Refused(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"'{path}' is damaged, its header is not whole: {AGAIN}") from error
    if not _sensible(header):
        raise Refused(f"'{path}' has a header that no prepared file has: {AGAIN}")
    if not right:
        raise Refused(f"'{path}' is damaged, its header's checksum is another: {AGAIN}")
    if real != header.bytes:
        raise Refused(f"'{path}' has {real:,} bytes instead of {header.bytes:,}: {AGAIN}")
    return header


def _sensible(header: Prepared) -> bool:
    """Whether it describes images: anybody can write a header with a right checksum."""
    numbers = (header.channels, header.size, *header.count.values())
    made = header.made
    return (
        all(type(n) is int and n > 0 for n in numbers)
        and header.channels in (1, 3)
        and all(isinstance(name, str) for name in header.classes)
        and isinstance(made, dict)
        and isinstance(made.get("source"), str)
        and isinstance(made.get("options"), dict)
    )


def blank(original: Original, made: dict) -> Prepared:
    """The header that a file of these images will have, but for its checksums."""
    unknown = dict.fromkeys(SPLITS, UNKNOWN)
    form = original.channels, original.size, original.classes
    return Prepared(*form, original.count, unknown, made)


def write(path: Path, original: Original, made: dict, progress: Callable[[int], None]) -> Prepared:
    """Writes a prepared file; before this returns its beginning is empty and nobody takes it.

    progress: told how many images are done, of both splits together.
    """
    header, checksums, done = blank(original, made), {}, 0
    with open(path, "wb") as file:
        for split in SPLITS:
            shape = header.shape(split)
            checksum, labels, taken = hashlib.sha256(repr(shape).encode()), [], 0
            file.seek(header.places[f"{split}.pixels"][0])
            for pixels, some in original.read(split):
                if pixels.shape[1:] != shape[1:] or pixels.dtype != np.uint8:
                    raise ValueError(f"{pixels.dtype} {pixels.shape} are no images of {shape}")
                content = np.ascontiguousarray(pixels)
                checksum.update(content)
                file.write(content)
                labels.append(some)
                taken += len(pixels)
                progress(done + taken)
            if taken != shape[0]:
                raise Refused(f"'{original.name}' has {taken} {split} images, not {shape[0]}")
            if original.classes:
                labels = np.concatenate(labels).astype("<i8")
                refuse_labels(labels, original.name, len(original.classes))
                checksum.update(labels)
                file.seek(header.places[f"{split}.labels"][0])
                file.write(labels)
            checksums[split], done = checksum.hexdigest(), done + taken
        header = Prepared(*_form(header), checksums, made)
        file.seek(0)
        file.write(header.encoded())
        file.flush()
        os.fsync(file.fileno())
    return header


def _form(header: Prepared) -> tuple:
    return header.channels, header.size, header.classes, header.count


def refuse_labels(labels: np.ndarray, what: object, classes: int) -> None:
    """Refused when a label is of none of the classes."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        found = f"{labels.min()} to {labels.max()}"
        raise Refused(f"'{what}' has labels from {found} of {classes}")


def verify(path: Path, progress: Callable[[int], None] = lambda done: None) -> Prepared:
    """Reads the whole file and compares its checksums; Refused when a split is another."""
    header, done = read_header(path), 0
    for split in SPLITS:
        shape = header.shape(split)
        checksum = hashlib.sha256(repr(shape).encode())
        with open(path, "rb") as file:
            file.seek(header.places[f"{split}.pixels"][0])
            for first in range(0, shape[0], CHUNK):
                n = min(CHUNK, shape[0] - first)
                checksum.update(file.read(n * prod(shape[1:])))
                done += n
                progress(done)
            if header.classes:
                file.seek(header.places[f"{split}.labels"][0])
                checksum.update(file.read(8 * shape[0]))
        if checksum.hexdigest() != header.checksums[split]:
            raise Refused(f"'{path}' is damaged, its {split} images are others: {AGAIN}", 1)
    return header
