"""Pictures and data sets as people have them: refused with a reason, or read as they look."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hostile import refusal
from made_up import encoded, fill, noise, zipped
from PIL import Image
from test_training import IMAGES, KEEPING, tiny, train_until

from core.data.identity import content_digest
from core.data.images import Images
from core.data.original import Options
from core.data.pictures import open_pictures
from core.data.sources import load
from core.training import train
from experiments import run

RGB = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def picture(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def alpha() -> Image.Image:
    image = Image.fromarray(RGB).convert("RGBA")
    image.putalpha(Image.fromarray(GREY))
    return image


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


TWO = Image.fromarray((GREY > 100).astype(np.uint8) * 255).convert("1")
PALETTE = Image.fromarray(RGB).quantize(7)
CMYK = Image.fromarray(RGB).convert("CMYK")
# What a file holds -> what the network is to see, uint8 [8, 8] or [8, 8, 3].
READ = {
    "grey.png": (picture(Image.fromarray(GREY)), GREY),
    "rgb.png": (picture(Image.fromarray(RGB)), RGB),
    "one bit.png": (picture(TWO), rgb(TWO)),
    "palette.png": (picture(PALETTE), rgb(PALETTE)),
    "palette with transparency.png": (picture(PALETTE, transparency=0), rgb(PALETTE)),
    "alpha.png": (picture(alpha()), RGB),  # the colours as they are, as in OpenAI's code
    "grey and alpha.png": (picture(alpha().convert("LA")), rgb(alpha().convert("L"))),
    "print.jpg": (picture(CMYK, "JPEG", quality=100, subsampling=0), rgb(CMYK)),
}
DEEP = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
REFUSED = {
    "16 bits.png": (picture(DEEP), "has levels of more than 8 bits (mode I"),
    "text.png": (b"not a picture", "is no readable image: replace or remove it"),
    "nothing.png": (b"", "is no readable image: replace or remove it"),
    "half.png": (encoded(RGB)[:120], "is no readable image: replace or remove it"),
    "larger.png": (encoded(noise(16, 16)), "16"),
    "wide.png": (encoded(noise(8, 9)), "9x8"),
}


def among(name: str, content: bytes, tmp_path):
    """A folder of ten pictures of the same size and one more; that one is a training image."""
    others = {f"train/{i}.png": encoded(noise(8, 8)) for i in range(5)}
    others |= {f"test/{i}.png": encoded(noise(8, 8)) for i in range(5)}
    return fill(tmp_path / "some", others | {f"train/{name}": content})


@pytest.mark.parametrize("name", READ)
def test_each_kind_of_picture_is_read_as_it_looks(name, tmp_path):
    content, expected = READ[name]
    folder = among(name, content, tmp_path)
    images = load("folder", "train", str(folder))
    (pixels,) = [p for p in images.pixels.permute(0, 2, 3, 1).numpy() if _near(p, expected)]
    assert pixels.dtype == np.uint8
    assert images.channels == (1 if expected.ndim == 2 else 3)
    original = open_pictures(folder, Options(), 1, lambda done, total: None)
    prepared = np.concatenate([chunk for chunk, _ in original.read("train")])
    assert np.array_equal(prepared, images.pixels.numpy())


def _near(pixels: np.ndarray, expected: np.ndarray) -> bool:
    """The same but for what JPEG loses."""
    expected = expected.reshape(8, 8, -1).astype(int)
    return np.abs(pixels.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("name", REFUSED)
def test_each_picture_that_will_not_do_is_named(name, tmp_path):
    content, why = REFUSED[name]
    folder = among(name, content, tmp_path)
    for read in (
        lambda: load("folder", "train", str(folder)),
        lambda: list(open_pictures(folder, Options(), 1, lambda *_: None).read("train")),
    ):
        says = refusal(read)
        assert name in says and why in says


def test_a_folder_without_pictures_and_one_with_a_single_picture_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no .png, .jpg or .jpeg images" in refusal(
        load, "folder", "train", str(tmp_path / "empty")
    )
    one = fill(tmp_path / "one", {"a.png": encoded(noise(8, 8))})
    assert "has no test images: every 10th is test, add more" in refusal(
        load, "folder", "test", str(one)
    )
    images = load("folder", "train", str(one))
    assert "has 1 images, fewer than a batch of 8" in refusal(
        train, tiny(), images, tmp_path, KEEPING
    )


def test_images_with_values_from_0_to_1_are_refused(tmp_path):
    """Saved as bytes without being multiplied by 255: nearly black, and nothing else is wrong."""
    pixels = (IMAGES.pixels > 127).to(torch.uint8)
    wrong = Images("mine", pixels, IMAGES.labels, IMAGES.classes)
    says = refusal(train, tiny(), wrong, tmp_path, KEEPING)
    assert "mine has no level above 1 of 255" in says and list(tmp_path.iterdir()) == []
    for floats in (IMAGES.pixels / 255, IMAGES.pixels.to(torch.int16)):
        with pytest.raises(ValueError, match="pixels must be uint8"):
            Images("mine", floats, IMAGES.labels, IMAGES.classes)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("all_equal", [True, False])
def test_images_of_a_single_colour_each_are_refused(level, all_equal, tmp_path):
    pixels = torch.full((300, 3, 8, 8), level, dtype=torch.uint8)
    if not all_equal:
        pixels[::2] = 255 - level
    flat = Images("mine", pixels, None, 0)
    says = refusal(train, tiny(), flat, tmp_path, KEEPING)
    assert "mine: each of the first 256 images is of a single colour" in says
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong, why", [("train", "single colour"), ("test", "no level above 1")])
def test_splits_that_show_nothing_are_refused_before_anything_is_started(wrong, why, tmp_path):
    bad = {"single colour": np.full((8, 8), 7, np.uint8), "no level above 1": noise(8, 8) % 2}[why]
    for split, count in (("train", 80), ("test", 8)):
        picture = encoded(bad) if split == wrong else encoded(noise(8, 8))
        fill(tmp_path / "images", {f"{split}/{i}.png": picture for i in range(count)})
    words = ["grid=single", "scale=smoke", "data.name=folder", f"data_path={tmp_path / 'images'}"]
    words += ["measure.nll.images=8", "measure.fd.reference=train", f"results={tmp_path / 'r'}"]
    assert f"images {wrong}" in (says := refusal(run.main, words)) and why in says
    assert not (tmp_path / "r" / "runs").exists()


def test_a_class_without_images_is_refused_where_the_network_is_told_of_classes(tmp_path):
    labels = IMAGES.labels.clone()
    labels[labels == 3] = 2
    lacking = Images("mine", IMAGES.pixels, labels, IMAGES.classes)
    config = tiny(steps=1)
    conditional = replace(config, unet=replace(config.unet, class_conditional=True))
    says = refusal(train, conditional, lacking, tmp_path, KEEPING)
    assert "mine has no image of 1 of its 5 classes (number 3)" in says
    assert list(tmp_path.iterdir()) == []
    train(config, lacking, tmp_path, KEEPING)  # others do not ask


def test_a_single_class_is_no_class_and_said_so(tmp_path):
    files = {f"{s}/a/{i}.png": encoded(noise(8, 8)) for s in ("train", "test") for i in range(9)}
    images = load("folder", "train", str(fill(tmp_path / "one", files)))
    assert images.classes == 1 and set(images.labels.tolist()) == {0}
    loose = {f"a/{i}.png": encoded(noise(8, 8)) for i in range(20)}
    images = load("folder", "train", str(fill(tmp_path / "loose", loose)))
    assert images.classes == 0
    config = tiny(steps=1)
    conditional = replace(config, unet=replace(config.unet, class_conditional=True))
    (tmp_path / "run").mkdir()
    says = refusal(train, conditional, images, tmp_path / "run", KEEPING)
    assert "needs labels: put images in class sub-folders" in says


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("objective", ["hybrid", "vlb"])
def test_images_that_are_all_the_same_are_learned_with_finite_numbers(level, objective, tmp_path):
    """At the ends of the range, where the decoder's bins are open."""
    pixels = torch.full((8, 1, 8, 8), level, dtype=torch.uint8)
    pixels[:, :, 0, 0] = 255 - level  # a picture, over and over
    same = Images("the same", pixels, None, 0)
    state = train_until(3, tiny(objective, steps=4), tmp_path, KEEPING, same)
    assert all(torch.isfinite(p).all() for p in state["model"].values())


def test_a_zip_whose_list_of_files_is_damaged_is_refused_by_all_who_read_it(tmp_path):
    path = zipped(tmp_path / "a.zip", {f"{i}.png": encoded(noise(8, 8)) for i in range(20)})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry : entry + 4] = bytes(4)
    path.write_bytes(content)
    assert "a damaged .zip: replace it" in refusal(content_digest, path)
    assert "a damaged .zip: replace it" in refusal(load, "folder", "train", str(path))
