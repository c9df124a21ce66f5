"""Files that claim or unpack to more than there is memory: refused in one line, in little of it."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import Memory, refusal
from made_up import encoded, fill, noise, zipped
from numpy.lib import format as npy
from PIL import Image
from safetensors.numpy import save as save_safetensors

from analysis.load import read_arrays
from core import weights
from core.data import arrays, fashion_mnist, mapped
from core.data.cifar10 import is_cifar10, open_cifar10
from core.data.original import Options
from core.data.pictures import open_pictures
from core.data.prepared import BEGINNING, FORMAT, Prepared, read_header
from core.data.recognise import open_original
from core.data.sources import load

LITTLE = 2**24  # bytes: 16 MiB
HUGE = 2**31
ZEROS = gzip.compress(bytes(2**20))  # a mebibyte; several after each other are a file as well


def png(width: int, height: int, mode: int = 0) -> bytes:
    """A picture whose head claims any size; of its pixels there are a few."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def prepared(source: Path) -> None:
    open_pictures(source, Options(), 1, lambda done, total: None)


@pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (10_000, 10_000)])
@pytest.mark.parametrize("packed", [True, False])
def test_a_picture_of_gigantic_sides_is_refused_by_its_head(size, packed, tmp_path):
    files = {f"{i}.png": encoded(noise(8, 8)) for i in range(19)} | {"1z.png": png(*size)}
    source = zipped(tmp_path / "a.zip", files) if packed else fill(tmp_path / "a", files)
    for read in (lambda: load("folder", "train", str(source)), lambda: prepared(source)):
        with Memory(LITTLE):
            says = refusal(read)
        assert "'1z.png' in " in says
        assert "shrink or remove it" in says or "is no readable image" in says


@pytest.mark.parametrize("packed", [True, False])
def test_many_pictures_that_are_bearable_each_are_refused_together(packed, tmp_path):
    """Of 80 KB each on disk, and together 9 GiB."""
    picture = encoded(np.zeros((9000, 9000), np.uint8))
    files = {f"{s}/{i}.png": picture for s in ("train", "test") for i in range(40)}
    source = zipped(tmp_path / "a.zip", files) if packed else fill(tmp_path / "a", files)
    with Memory(LITTLE):
        says = refusal(lambda: load("folder", "train", str(source)))
    assert "40 images of 9000x9000 would take 9 GiB of memory" in says and "prepare.py" in says


def test_sizes_are_compared_before_pixels_are_held(tmp_path):
    """Pillow's bound allows 90 million pixels a picture, of which there may be any number."""
    big = png(9000, 9000)
    files = {"0.png": encoded(noise(8, 8))} | {f"{i}.png": big for i in range(1, 20)}
    source = fill(tmp_path / "a", files)
    with Memory(LITTLE):
        assert "'0.png' is 8x8 but '" in refusal(load, "folder", "train", str(source))


@pytest.mark.parametrize("size, says", [(2**31, "no readable image"), (40, "no readable image")])
def test_a_zip_is_believed_neither_when_it_says_too_much_nor_too_little(size, says, tmp_path):
    """What an entry says bounds what is unpacked; more than an image has is not even begun."""
    path = zipped(tmp_path / "a.zip", {f"{i:02}.png": encoded(noise(8, 8)) for i in range(20)})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", size)  # of the unpacked bytes
    path.write_bytes(content)
    for read in (lambda: load("folder", "train", str(path)), lambda: prepared(path)):
        with Memory(LITTLE):
            assert says in refusal(read)


def test_a_gzip_that_unpacks_to_gigabytes_is_read_no_further_than_the_largest_file(tmp_path):
    bomb = ZEROS * 128
    for name in fashion_mnist.CONTENT_SHA256:
        (tmp_path / f"{name}.gz").write_bytes(bomb)
    with Memory(fashion_mnist.LARGEST + LITTLE):
        assert "is not Fashion-MNIST's" in refusal(load, "fashion", "train", str(tmp_path))


def tar_of(path: Path, *members: tuple[bytes, int]) -> Path:
    """An archive with members of these types that claim so many bytes, of which 40 MiB follow."""
    heads = b""
    for kind, size in members:
        member = tarfile.TarInfo("data_batch_1.bin")
        member.type, member.size = kind, size
        heads += member.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(gzip.compress(heads) + 40 * ZEROS)
    return path


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_extended_header_of_gigabytes_is_not_read(kind, tmp_path):
    path = tar_of(tmp_path / "a.tar.gz", (kind, HUGE))
    with Memory(LITTLE):
        assert "a.tar.gz' is neither" in refusal(open_original, str(path), Options(), 1, print)
    path = tar_of(tmp_path / "b.tar.gz", (tarfile.REGTYPE, 0), (kind, HUGE))
    assert is_cifar10(path)
    with Memory(LITTLE):
        assert "is damaged or cut short" in refusal(open_cifar10, path, Options())


def test_a_batch_of_gigabytes_is_refused_by_what_the_archive_says(tmp_path):
    path = tar_of(tmp_path / "a.tar.gz", (tarfile.REGTYPE, 36 * 2**20))
    with Memory(LITTLE):
        assert "has data_batch_1.bin of 37,748,736 bytes" in refusal(open_cifar10, path, Options())


def npz(path: Path, shape: tuple[int, ...], kind: str = "|u1", content: bytes = b""):
    """A file with an array whose header claims any shape."""
    head = io.BytesIO()
    npy.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", head.getvalue() + content)
    return path


CLAIMS = {
    "a petabyte": ((10**15,), "|u1", b"abc"),
    "of many dimensions": ((10**6,) * 30, "|u1", b"abc"),
    "of items without bytes": ((10**15,), "|V0", b""),
    "of items of gigabytes": ((1,), "|S4294967295", b"abc"),
    "less than it has": ((2,), "|u1", b"abc"),
    "of no shape": ((-1,), "|u1", b"abc"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_array_that_claims_more_than_it_has_is_refused(claim, tmp_path):
    path = npz(tmp_path / "x.npz", *CLAIMS[claim])
    with Memory(LITTLE):
        assert "x.npz is damaged" in refusal(read_arrays, path)


def test_an_array_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    path = npz(tmp_path / "x.npz", (2**21,), content=bytes(2**21))
    assert arrays.read(path)["data"].shape == (2**21,)
    monkeypatch.setattr(arrays, "LARGEST", 2**20)
    with Memory(2**20):
        assert "bytes of arrays" in refusal(read_arrays, path)


def forged(path: Path, **changed) -> Path:
    """A prepared file with any header, whose checksum anybody can make."""
    given = {"channels": 1, "size": 2, "classes": ("a", "b"), "count": {"train": 3, "test": 1}}
    given |= {"checksums": dict.fromkeys(("train", "test"), "0" * 64)}
    given |= {"made": {"source": "x", "options": {}}} | changed
    header = Prepared(**given)
    head = header.encoded()
    rest = max(0, min(header.bytes - len(head), 2**12)) if header.places else 0
    path.write_bytes(head + bytes(rest))
    return path


HEADERS = {
    "images without pixels": {"channels": 0, "count": {"train": 10**15, "test": 1}},
    "pictures of no size": {"size": 0},
    "fewer images than none": {"count": {"train": -4, "test": 8}},
    "more images than the file": {"count": {"train": 10**17, "test": 1}},
    "more than any number": {"count": {"train": 10**40, "test": 1}},
    "classes that are numbers": {"classes": (1, 2)},
    "nothing of its making": {"made": {}},
    "a making that is a list": {"made": [1]},
    "five channels": {"channels": 5},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_prepared_file_with_a_forged_header_is_refused(kind, tmp_path):
    path = forged(tmp_path / "x.images", **HEADERS[kind])
    with Memory(LITTLE):
        assert "prepare it again" in refusal(read_header, path)
        assert "prepare it again" in refusal(load, "folder", "train", str(path))


def test_a_prepared_file_with_labels_of_no_class_is_refused(tmp_path):
    path = forged(tmp_path / "x.images")
    assert mapped.load_prepared(path, "train").classes == 2
    content = bytearray(path.read_bytes())
    content[read_header(path).places["train.labels"][0]] = 7
    path.write_bytes(content)
    assert "has labels from 0 to 7 of 2" in refusal(mapped.load_prepared, path, "train")


@pytest.mark.parametrize("length", [2**63, 2**40, 2**26])
def test_a_header_of_any_claimed_length_takes_no_more_memory_than_the_file(length, tmp_path):
    content = struct.pack("<Q", length) + BEGINNING + b"}" * 1000
    (tmp_path / "x.images").write_bytes(content)
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + b'{"a":1}')
    with Memory(LITTLE):
        assert "its header is not whole" in refusal(read_header, tmp_path / "x.images")
        assert "missing or damaged" in refusal(weights.read, tmp_path / "x.safetensors")


def test_a_deep_header_is_refused(tmp_path):
    deep = f'{{"__metadata__":{{"format":"{FORMAT}"}},"x":{"[" * 50_000}'.encode()
    (tmp_path / "x.images").write_bytes(struct.pack("<Q", len(deep)) + deep)
    assert "its header is not whole" in refusal(read_header, tmp_path / "x.images")


@pytest.mark.parametrize("about", [None, {}, {"images": "[" * 50_000, "step": "1", "config": "{}"}])
def test_weights_that_do_not_say_what_they_are_are_refused(about, tmp_path):
    content = save_safetensors({"a": np.zeros(2, np.float32)}, about)
    (tmp_path / "x.safetensors").write_bytes(content)
    assert "missing or damaged" in refusal(weights.read, tmp_path / "x.safetensors")


def test_a_file_that_is_called_a_picture_is_opened_as_nothing_else(tmp_path):
    """Pillow hands PostScript to an interpreter of programs, whatever the file is called."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (tmp_path / "x.eps").write_bytes(script)
    assert Image.open(tmp_path / "x.eps").format == "EPS"  # so that it would be
    files = {f"{i}.png": encoded(noise(8, 8)) for i in range(19)} | {"1a.png": script}
    source = fill(tmp_path / "a", files)
    for read in (lambda: load("folder", "train", str(source)), lambda: prepared(source)):
        assert "'1a.png' in " in (says := refusal(read)) and "no readable image" in says
