"""CIFAR-10 (Krizhevsky 2009) as it is published: its binary or its Python archive, packed or not.

Both hold five batches for training and one for testing, of 10,000 images each, and no byte of them
differs between the two. Nothing is unpacked: batches are read out of the archive one at a time.
"""

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from core.data import plain_pickle
from core.data.fashion_mnist import download_folder
from core.data.original import CHUNK, Chunk, Options, Original, Split
from core.errors import Refused

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES = 10_000  # of a batch
SHAPE = (3, 32, 32)
LARGEST = 2**25  # bytes of a batch; the published ones have 31 million at most
BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}

# The binary archive, because whoever reads it needs no pickles.
URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE = "cifar-10-binary.tar.gz"  # 170,052,171 bytes
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

# What tarfile raises for archives that are damaged or cut short, in whatever way they are packed.
DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)

Read = Callable[[], bytes]


class Member(tarfile.TarInfo):
    """A member of an archive, whose extended headers are read into memory whole: short ones."""

    LONGEST = 2**20  # bytes
    EXTENDED = (
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    )

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        member = super().frombuf(buf, encoding, errors)
        if member.type in cls.EXTENDED and member.size > cls.LONGEST:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def download_cifar10() -> Path:
    """Download the binary archive (170 MB) from the data set's own site; returns where it is.

    pooch checks it against its pinned SHA-256 and fetches it once. Raises Refused when there is no
    network or the file is not the pinned one.
    """
    import pooch  # late: it brings an HTTP client that hardly anybody needs

    folder = download_folder()
    try:
        return Path(pooch.retrieve(URL + ARCHIVE, f"sha256:{SHA256}", fname=ARCHIVE, path=folder))
    except (OSError, ValueError) as error:  # no network or disk; another content
        reason = " ".join(str(error).split())[:200]
        raise Refused(
            f"{ARCHIVE} could not be downloaded ({reason}): fetch {URL}{ARCHIVE} in another way "
            "and give its path",
            1,
        ) from error


def is_cifar10(path: Path) -> bool:
    """Whether the path is a folder with CIFAR-10's batches, or a tar archive of whatever."""
    if path.is_dir():
        return any(_batch(file.name) for file in _inside(path))
    try:
        with tarfile.open(path, tarinfo=Member):
            return True
    except tarfile.TarError:
        return False
    except DAMAGE:  # compressed, and cut short near its beginning
        return path.is_file()


def open_cifar10(path: Path, options: Options) -> Original:
    """CIFAR-10 from its archive or the folder that this was unpacked into."""
    options.refuse_for("CIFAR-10")
    files = _in_folder(path) if path.is_dir() else _in_archive(path)
    reads = {_batch(file): (file, read) for file, read in files.items()}
    missing = [name for names in BATCHES.values() for name in names if name not in reads]
    if missing:
        raise Refused(f"'{path}' lacks {', '.join(missing)} of CIFAR-10: fetch it again")

    def read(split: Split) -> Iterator[Chunk]:
        for name in BATCHES[split]:
            pixels, labels = _content(path, *reads[name])
            for first in range(0, len(pixels), CHUNK):
                yield pixels[first : first + CHUNK], labels[first : first + CHUNK]

    count = {split: IMAGES * len(names) for split, names in BATCHES.items()}
    return Original(path.name, *SHAPE[:2], CLASSES, count, read)


def _batch(file: str) -> str | None:
    """The batch that a file of this name holds, if any."""
    name = file.removesuffix(".bin")
    return name if any(name in names for names in BATCHES.values()) else None


def _inside(path: Path) -> list[Path]:
    """The files of a folder or, where there are none, of the only folder in it."""
    inside = [file for file in path.iterdir() if not file.name.startswith(".")]
    if len(inside) == 1 and inside[0].is_dir():
        inside = list(inside[0].iterdir())
    return inside


def _in_folder(path: Path) -> dict[str, Read]:
    """Name of each batch's file -> its content."""
    return _each_once(
        path,
        [
            (file.name, file.stat().st_size, file.read_bytes)
            for file in _inside(path)
            if file.is_file()
        ],
    )


def _in_archive(path: Path) -> dict[str, Read]:
    """As `_in_folder`. Members' folders are of no account, and links are passed over."""
    try:
        with tarfile.open(path, tarinfo=Member) as archive:
            members = [member for member in archive if member.isreg()]
    except DAMAGE as error:
        raise Refused(f"'{path}' is damaged or cut short: fetch it again") from error

    def reader(member: tarfile.TarInfo) -> Read:
        def read() -> bytes:
            with tarfile.open(path, tarinfo=Member) as archive:
                return archive.extractfile(member).read()

        return read

    return _each_once(path, [(Path(m.name).name, m.size, reader(m)) for m in members])


def _each_once(path: Path, files: list[tuple[str, int, Read]]) -> dict[str, Read]:
    """Those of the files that hold batches; Refused when one is there twice, or too large."""
    found: dict[str, Read] = {}
    for name, size, read in files:
        if not _batch(name):
            continue
        if size > LARGEST or any(_batch(name) == _batch(other) for other in found):
            why = f"has {name} of {size:,} bytes" if size > LARGEST else f"has {name} twice"
            raise Refused(f"'{path}' {why}: it is not CIFAR-10's own archive")
        found[name] = read
    return found


def _content(path: Path, file: str, read: Read) -> Chunk:
    """Images uint8 [10000, 3, 32, 32] and labels of one batch."""
    try:
        content = read()
        if file.endswith(".bin"):  # records of a label and the pixels, channel by channel
            records = np.frombuffer(content, np.uint8).reshape(IMAGES, 1 + np.prod(SHAPE))
            pixels, labels = records[:, 1:], records[:, 0]
        else:
            values = plain_pickle.loads(content)
            pixels, labels = values[b"data"], np.array(values[b"labels"], np.int64)
        if pixels.dtype != np.uint8 or labels.shape != (IMAGES,):
            raise ValueError(f"{labels.shape} labels of {pixels.dtype}")
        return pixels.reshape(IMAGES, *SHAPE), labels.astype(np.int64)
    except (*DAMAGE, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error} in it" if isinstance(error, KeyError) else f"{error}"
        raise Refused(
            f"{file} of '{path}' is damaged or not CIFAR-10's ({reason[:200]}): fetch it again"
        ) from error
