"""Data sets in the forms in which they are published: CIFAR-10 and downsampled ImageNet."""

import hashlib
import io
import os
import pickle
import re
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from made_up import RNG, encoded, fill, noise, refusal, run

from core.data import cifar10, imagenet64, plain_pickle, prepared
from core.data.sources import load

CIFAR = [*cifar10.BATCHES["train"], *cifar10.BATCHES["test"]]

# CIFAR-10: batches of four images, in all forms in which it is published.


@pytest.fixture
def batches(monkeypatch):
    monkeypatch.setattr(cifar10, "IMAGES", 4)
    return {name: (noise(4, 3, 32, 32), RNG.integers(0, 10, 4)) for name in CIFAR}


def binary(pixels, labels):
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(pixels, labels))


def short(text):
    return b"U" + bytes([len(text)]) + text


def of_python_2(pixels, labels):
    """The pickle of a batch, instruction by instruction as Python 2 and its NumPy wrote it."""
    content = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ" + b"\xff" * 4
    kind += b"J" + b"\xff" * 4 + b"K\x00tb"
    state = b"(K\x01K\x04M" + struct.pack("<H", 3072) + b"\x86" + kind + b"\x89"
    state += b"T" + struct.pack("<I", len(content)) + content + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    pairs = short(b"data") + array + state + short(b"labels") + listed
    return b"\x80\x02}(" + pairs + short(b"batch_label") + short(b"testing batch") + b"u."


def cifar_files(batches, form):
    if form == "binary":
        return {f"{name}.bin": binary(*batch) for name, batch in batches.items()}
    return {name: of_python_2(*batch) for name, batch in batches.items()}


def tarred(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("packed", ["archive", "folder"])
def test_every_form_of_cifar10_gives_its_very_pixels(form, packed, batches, tmp_path):
    files = cifar_files(batches, form)
    files = {name: files[name] for name in sorted(files, reverse=True)}  # in no helpful order
    if packed == "archive":
        source = tarred(tmp_path / "cifar-10.tar.gz", files | {"readme.html": b"<html>"})
    else:
        source = fill(tmp_path / "cifar", {f"cifar-10-batches/{n}": c for n, c in files.items()})
    out = tmp_path / "cifar10.images"
    run(source, out)
    train, test = (load("folder", split, str(out)) for split in ("train", "test"))
    for images, names in ((train, CIFAR[:5]), (test, CIFAR[5:])):
        assert np.array_equal(images.pixels, np.concatenate([batches[n][0] for n in names]))
        assert images.labels.tolist() == [label for n in names for label in batches[n][1]]
    assert (train.classes, train.name) == (10, "cifar10 train")
    assert prepared.read_header(out).classes[9] == "truck"


def test_archives_of_other_content_are_refused(batches, tmp_path):
    files, out = cifar_files(batches, "binary"), tmp_path / "x.images"
    whole = tarred(tmp_path / "whole.tar.gz", files).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for length in (len(whole) // 2, len(whole) - 5000, 100):
        cut.write_bytes(whole[:length])
        assert "cut.tar.gz' is " in (says := refusal(cut, out)) or "lacks" in says, says
        assert "fetch it again" in says
    missing = {name: content for name, content in files.items() if name != "data_batch_3.bin"}
    archive = tarred(tmp_path / "missing.tar.gz", missing)
    assert "lacks data_batch_3 of CIFAR-10: fetch it again" in refusal(archive, out)
    twice = tarred(tmp_path / "twice.tar.gz", files | {"a/test_batch.bin": b""})
    assert "has test_batch.bin twice" in refusal(twice, out)
    shorter = tarred(tmp_path / "short.tar.gz", files | {"test_batch.bin": bytes(3 * 3073)})
    assert "test_batch.bin of '" in (says := refusal(shorter, out)) and "damaged or not" in says
    eleven = binary(noise(4, 3, 32, 32), [0, 1, 2, 10])
    wrong = tarred(tmp_path / "wrong.tar.gz", files | {"test_batch.bin": eleven})
    assert "has labels from 0 to 10 of 10" in refusal(wrong, out)
    big = tarred(tmp_path / "big.tar.gz", files | {"test_batch.bin": bytes(cifar10.LARGEST + 1)})
    assert "not CIFAR-10's own archive" in refusal(big, out)
    assert "CIFAR-10 is taken as it was published: leave out size=" in refusal(
        tarred(tmp_path / "whole.tar.gz", files), out, "size=16"
    )


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(protocol, batches, tmp_path):
    marker, files = tmp_path / "ran", cifar_files(batches, "python")
    files["data_batch_2"] = pickle.dumps({"data": Evil(marker)}, protocol)
    source = fill(tmp_path / "cifar", files)
    assert "data_batch_2 of " in (says := refusal(source, tmp_path / "x.images"))
    assert "(the name posix.system)" in says and not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n.",
        pickle.dumps({b"data": np.array([None])}, 4),  # objects in an array
        pickle.dumps({b"data": np.zeros(3, "U4")}, 4),
        pickle.dumps({b"data": np.float64(1)}, 4),
        pickle.dumps([1], 4),
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87RI1\nb.",  # a state that is none
        b"",
        b"\x80\x04",
    ],
)
def test_only_arrays_of_numbers_are_read_from_pickles(content):
    with pytest.raises(ValueError):
        plain_pickle.loads(content)


def test_arrays_of_todays_numpy_are_read_from_pickles():
    values = {b"a": np.arange(6).reshape(2, 3), b"b": np.asfortranarray(noise(3, 4)), b"c": [b"x"]}
    found = plain_pickle.loads(pickle.dumps(values, 4))
    assert np.array_equal(found[b"a"], values[b"a"]) and found[b"a"].dtype == np.int64
    assert np.array_equal(found[b"b"], values[b"b"]) and found[b"c"] == [b"x"]
    big = plain_pickle.loads(pickle.dumps({b"a": np.arange(3, dtype=">i4")}, 4))
    assert big[b"a"].tolist() == [0, 1, 2]


def test_cifar10_is_downloaded_once_and_checked(batches, tmp_path, monkeypatch):
    """By pooch itself, from a file instead of the network."""
    there = tmp_path / "server"
    there.mkdir()
    archive = tarred(there / cifar10.ARCHIVE, cifar_files(batches, "binary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cifar10.URL.startswith("https://www.cs.toronto.edu/")
    assert len(cifar10.SHA256) == 64
    import pooch

    def retrieve(url, known_hash, fname, path, real=pooch.retrieve):
        assert url == cifar10.URL + cifar10.ARCHIVE and known_hash == f"sha256:{cifar10.SHA256}"

        def copy(url, output_file, mover):
            output_file = Path(output_file)
            output_file.write_bytes(archive.read_bytes())

        return real(url, known_hash, fname=fname, path=path, downloader=copy)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    out = tmp_path / "cifar10.images"
    assert "could not be downloaded" in (says := refusal("cifar10", out))
    assert "hash" in says and "give its path" in says
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    run("cifar10", out)
    archive.unlink()
    out.unlink()
    run("cifar10", out)  # out of the cache
    assert len(load("folder", "train", str(out))) == 20


# ImageNet 64: NumPy archives, and folders of PNGs.


def imagenet(folder, size=64, how=np.savez, **changed):
    folder.mkdir(exist_ok=True)
    made = {}
    for i, name in enumerate(n for names in imagenet64.BATCHES.values() for n in names):
        n = 1 + i % 3
        made[name] = noise(n, 3 * size * size), RNG.integers(1, 1001, n)
        arrays = {"data": made[name][0], "labels": made[name][1], "mean": np.zeros(3 * size**2)}
        how(folder / name, **arrays | (changed if name == "train_data_batch_4.npz" else {}))
    return made


@pytest.mark.parametrize("how", [np.savez, np.savez_compressed])
def test_batches_of_downsampled_imagenet_are_joined_in_their_order(how, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet64, "CHUNK", 2)
    made, out = imagenet(tmp_path / "npz", how=how), tmp_path / "imagenet64.images"
    run(tmp_path / "npz", out)
    for split, names in imagenet64.BATCHES.items():
        images = load("folder", split, str(out))
        pixels = np.concatenate([made[name][0] for name in names])
        assert np.array_equal(images.pixels, pixels.reshape(-1, 3, 64, 64))
        assert images.labels.tolist() == [label - 1 for n in names for label in made[n][1]]
        assert images.classes == 1000


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"labels": np.array([0, 1])}, r"labels of \(2,\) for 1 images|labels from -1"),
        ({"labels": np.array([0])}, "has labels from -1 to"),
        ({"labels": np.array([None])}, "something else than whole numbers"),
        ({"data": noise(1, 100)}, "not uint8"),
        ({"data": np.zeros((1, 12288))}, "something else than whole numbers"),
        ({"data": noise(1, 3 * 32 * 32)}, "images of .32, 64. pixels a side"),
    ],
)
def test_other_arrays_are_refused(changed, says, tmp_path):
    imagenet(tmp_path / "npz", **changed)
    message = refusal(tmp_path / "npz", tmp_path / "x.images")
    assert re.search(says, message), message


def test_damaged_and_missing_batches_are_refused(tmp_path):
    folder, out = tmp_path / "npz", tmp_path / "x.images"
    imagenet(folder)
    path = folder / "train_data_batch_7.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "train_data_batch_7.npz' is damaged" in refusal(folder, out)
    flipped = bytearray(whole)
    flipped[5000] ^= 1  # within the pixels: only the archive's checksum tells
    path.write_bytes(flipped)
    assert "Bad CRC-32" in refusal(folder, out)
    path.unlink()
    assert "lacks train_data_batch_7.npz" in refusal(folder, out)


def test_folders_of_imagenet64_have_their_splits(tmp_path):
    files = {f"train_64x64/{i:07}.png": noise(64, 64, 3) for i in range(5)}
    files |= {f"valid_64x64/{i:05}.png": noise(64, 64, 3) for i in range(2)}
    source = fill(tmp_path / "small", {name: encoded(pixels) for name, pixels in files.items()})
    out = tmp_path / "imagenet64.images"
    run(source, out)
    for split, n in (("train", 5), ("test", 2)):
        images = load("folder", split, str(out))
        assert len(images) == n and images.labels is None
        mine = {p.tobytes() for name, p in files.items() if name[:2] == {5: "tr", 2: "va"}[n]}
        assert {p.numpy().transpose(1, 2, 0).tobytes() for p in images.pixels} == mine
