"""Folders and .zips of pictures: sizes, labels, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from made_up import encoded, fill, noise, pictures, refusal, run, zipped
from PIL import Image

from core.data import layout, prepared
from core.data.downsample import downsampled
from core.data.sources import load
from core.errors import Refused
from experiments import prepare

CATS = ["cat", "dog"]


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("source", ["folder", "zip"])
def test_a_prepared_folder_is_the_folder(colours, source, tmp_path):
    files = {name: encoded(pixels) for name, pixels in pictures(colours=colours).items()}
    files["a/000.png"] = encoded(noise(16, 16))  # grey among others
    path = fill(tmp_path / "some", files)
    if source == "zip":
        path = zipped(tmp_path / "some.zip", files)
    out = tmp_path / "some.images"
    run(path, out, "threads=3")
    for split in ("train", "test"):
        one, other = load("folder", split, str(path)), load("folder", split, str(out))
        assert (one.pixels == other.pixels).all() and (one.labels == other.labels).all()
        assert one.name == other.name and one.digest() == other.digest()


def test_the_size_is_reached_by_halving_and_then_bicubically(tmp_path):
    def halved(x):  # along rows, then along columns, each time with halves rounded up
        x = (x[:, 0::2].astype(int) + x[:, 1::2] + 1) // 2
        return (x[0::2] + x[1::2] + 1) // 2

    for shape, times in (((64, 64, 3), 2), ((128, 128), 3)):
        x = noise(*shape)
        expected = x
        for _ in range(times):
            expected = halved(expected)
        assert np.array_equal(downsampled(Image.fromarray(x), 16), expected)
        area = x.reshape(16, 2**times, 16, 2**times, -1).mean(axis=(1, 3)).squeeze()
        assert np.abs(expected - area).max() <= times  # levels of rounding
    wide = noise(48, 80)  # the middle 48 columns: halving gives 24 x 40, then 16 x 27 bicubically
    found = np.asarray(downsampled(Image.fromarray(wide), 16))
    other = Image.fromarray(halved(wide).astype(np.uint8)).resize((27, 16), Image.BICUBIC)
    assert np.array_equal(found, np.asarray(other)[:, 5:21])
    flat = downsampled(Image.new("RGB", (500, 375), (10, 200, 77)), 64)
    assert np.array_equal(np.asarray(flat), np.full((64, 64, 3), (10, 200, 77)))


def test_pictures_of_all_kinds_become_images_of_one_size(tmp_path):
    files = {
        **{f"{i}.png": encoded(noise(40 + i, 70, 3)) for i in range(8)},
        "8.jpg": encoded(noise(100, 33), "JPEG"),
        "9.webp": encoded(noise(64, 64, 3), "WEBP", lossless=True),
    }
    source, out = fill(tmp_path / "lsun", files), tmp_path / "x.images"
    run(source, out, "size=32", "labels=none")
    train, test = (load("folder", split, str(out)) for split in ("train", "test"))
    assert (train.channels, train.size, train.classes, len(train), len(test)) == (3, 32, 0, 9, 1)
    run(source, tmp_path / "grey.images", "size=32", "grey=true")
    assert load("folder", "train", str(tmp_path / "grey.images")).channels == 1
    assert "give crop=center" in refusal(source, tmp_path / "y.images", "size=32", "crop=none")
    assert "less than size=64" in (says := refusal(source, tmp_path / "y.images", "size=64"))
    assert "enlarge=true" in says
    run(source, tmp_path / "y.images", "size=64", "enlarge=true")


def labels_of(out):
    """File's first pixel -> name of the class, of both splits."""
    header, found = prepared.read_header(out), {}
    for split in ("train", "test"):
        images = load("folder", split, str(out))
        for pixels, label in zip(images.pixels, images.labels):
            found[int(pixels[0, 0, 0])] = header.classes[label]
    return found


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_labels_come_from_a_table_or_from_names(kind, tmp_path):
    flat = {f"deep/er/{CATS[i % 2]}_{i}.png": i for i in range(120)}
    files = {name: encoded(np.full((4, 4), i, np.uint8)) for name, i in flat.items()}
    table = "file,label\n" + "".join(f"{name},{i % 12}\n" for name, i in flat.items())

    def source(name, files):
        if kind == "zip":
            return zipped(tmp_path / f"{name}.zip", files)
        return fill(tmp_path / name, files)

    run(source("plain", files), tmp_path / "names.images", "labels=names")
    assert labels_of(tmp_path / "names.images") == {i: CATS[i % 2] for i in range(120)}
    run(source("table", files | {"labels.csv": table.encode()}), tmp_path / "auto.images")
    assert labels_of(tmp_path / "auto.images") == {i: str(i % 12) for i in range(120)}
    assert prepared.read_header(tmp_path / "auto.images").classes[9:] == ("9", "10", "11")
    (tmp_path / "other.csv").write_text(table)
    words = (source("plain", files), tmp_path / "own.images", f"labels={tmp_path / 'other.csv'}")
    run(*words)
    assert prepared.read_header(words[1]).digest == (
        prepared.read_header(tmp_path / "auto.images").digest
    )
    assert str(tmp_path).encode() not in words[1].read_bytes()  # no path of this machine

    def refused(text):
        (tmp_path / "other.csv").write_text(text)
        return refusal(words[0], tmp_path / "x.images", words[2])

    assert "lacks 'away.png', which the table labels" in refused(table + "away.png,3\n")
    assert "has no label in the table" in refused(table.replace("deep/er/cat_0.png,0\n", ""))
    assert "which is not file,label: mend" in refused(table + "a,b,c\n")
    assert "twice: mend" in refused(table + "deep/er/cat_0.png,1\n")
    assert "there is no such table" in refusal(words[0], tmp_path / "x.images", "labels=no.csv")
    bare = {"one.png": encoded(noise(4, 4))}
    says = refusal(source("bare", bare), tmp_path / "x.images", "labels=names")
    assert "'one.png' has no class before an underscore" in says


TEN = {f"{i}.png": (4, 4) for i in range(10)}


@pytest.mark.parametrize(
    "files, says",
    [
        ({**TEN, "b.png": (8, 8)}, "are of 4 and 8 pixels a side: give size=4"),
        ({**TEN, "a.png": (4, 8)}, "'a.png' is 8x4, not square: give crop=center"),
        ({**TEN, "a.png": b"text"}, "'a.png' in "),
        (
            {**TEN, "a.png": encoded(noise(4, 4))[:-30]},
            "is no readable image: replace or remove it",
        ),
        ({"a.gif": (4, 4)}, "has no .webp, .png, .jpg or .jpeg images: correct SOURCE"),
        ({"a.png": (4, 4)}, "has no test images: every 10th is test"),
        ({"train/a.png": (4, 4), "b.png": (4, 4)}, "but also 'b.png': move it"),
        ({"train/a.png": (4, 4), "test/a.png": (4, 4), "val/a.png": (4, 4)}, "has test and val"),
        ({"x/y/z/a.png": (4, 4), "b/b.png": (4, 4)}, "is too deep"),
    ],
)
def test_unsuitable_pictures_are_refused_before_anything_is_written(files, says, tmp_path):
    files = {n: c if isinstance(c, bytes) else encoded(noise(*c)) for n, c in files.items()}
    assert says in refusal(fill(tmp_path / "some", files), tmp_path / "x.images")


def test_bombs_are_refused_in_one_line(tmp_path, monkeypatch, capfd):
    files = {f"{i}.png": encoded(noise(8, 8)) for i in range(10)} | {
        "z.png": encoded(noise(15, 15))
    }
    source, out = fill(tmp_path / "some", files), tmp_path / "x.images"
    for most in (200, 100):  # more than it, and more than twice
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        assert f"'z.png' in '{source}' has more than the {most} pixels" in refusal(
            source, out, "size=8"
        )
    monkeypatch.setattr(layout, "LARGEST", 100)
    assert "is no readable image" in refusal(source, out, "size=8")
    assert "Warning" not in capfd.readouterr().err


def test_names_in_archives_lead_nowhere(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    names = ["../evil.png", "/evil.png", "a/../../evil.png", *(f"a/{i}.png" for i in range(10))]
    source = zipped(inner / "some.zip", {name: encoded(noise(4, 4)) for name in names})
    prepare_or_refuse = [str(source), str(inner / "some.images")]
    try:
        prepare.main(prepare_or_refuse)
    except Refused as error:
        assert "\n" not in str(error)
    assert {p.name for p in inner.iterdir()} <= {"some.zip", "some.images"}
    assert not (tmp_path / "evil.png").exists() and not Path("/evil.png").exists()
