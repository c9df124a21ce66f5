"""Images: the committed set, the scale of the model, the order of training, sources, refusals."""

import gzip
import hashlib
import io
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from core.data import fashion_mnist, sources
from core.data.images import Images, batch_indices, to_uint8
from core.data.make_fashion16 import fashion16_arrays, halve, write_npz
from core.data.sources import load
from core.errors import Refused


def picture(level, size=(4, 4), mode="L", kind="PNG"):
    """The bytes of an image file of one colour."""
    file = io.BytesIO()
    Image.new(mode, size, level).save(file, kind)
    return file.getvalue()


def fill(folder, files):
    """Write {name: bytes} below `folder`, which is returned as text."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


def refusal(*arguments):
    """The one-line message with which `load` refuses."""
    with pytest.raises(Refused) as caught:
        load(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def original():
    """The folder of Fashion-MNIST's own files, or None on a machine without them."""
    folder = fashion_mnist.DEBIAN_FASHION
    return folder if fashion_mnist.missing_from(folder) is None else None


def test_fashion16_is_what_the_script_makes(original):
    with np.load(sources.FASHION16) as committed:
        if original is not None:
            for key, array in fashion16_arrays(original).items():
                assert np.array_equal(committed[key], array), key
        for split, n in (("train", 60_000), ("test", 10_000)):
            assert committed[f"{split}_images"].shape == (n, 16, 16)
            assert np.bincount(committed[f"{split}_labels"]).tolist() == [n // 10] * 10


def test_fashion16_loads():
    images = load("fashion16", "test")
    assert (len(images), images.channels, images.size, images.classes) == (10_000, 1, 16, 10)
    assert images.labels[:5].tolist() == [9, 2, 1, 1, 6]  # boot, pullover, trousers twice, shirt
    assert images.digest() == "fc5fd53b051d09c9"
    assert images.name == "fashion16 test"


def test_fashion_is_the_padded_original_or_refused(original):
    if original is None:
        assert "apt-get install dataset-fashion-mnist" in refusal("fashion", "test")
        return
    images, small = load("fashion", "test"), load("fashion16", "test")
    assert (len(images), images.channels, images.size) == (10_000, 1, 32)
    assert images.pixels[:, :, :2].max() == 0 and images.pixels[:, :, 2:].max() == 255
    assert np.array_equal(halve(images.pixels[:, 0].numpy()), small.pixels[:, 0].numpy())
    assert torch.equal(images.labels, small.labels)


def test_halve_rounds_halves_up():
    pixels = np.array([[[0, 1, 255, 255], [0, 1, 255, 254], [0, 1, 0, 0], [0, 0, 0, 3]]], np.uint8)
    assert halve(pixels).tolist() == [[[1, 255], [0, 1]]]


def test_write_npz_is_reproducible(tmp_path):
    arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.float64(0.5)}
    write_npz(tmp_path / "1.npz", arrays)
    write_npz(tmp_path / "2.npz", arrays)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz") as loaded:
        assert loaded["a"].tolist() == [0, 1, 2, 3, 4] and loaded["b"] == 0.5
    with zipfile.ZipFile(tmp_path / "1.npz") as archive:
        assert {member.date_time[0] for member in archive.infolist()} == {1980}


def test_write_npz_leaves_the_file_that_was_there_when_it_fails(tmp_path):
    write_npz(tmp_path / "a.npz", {"a": np.ones(3)})
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz(tmp_path / "a.npz", {"a": np.zeros(3), "b": np.array([None])})
    assert (tmp_path / "a.npz").read_bytes() == before


def levels():
    """All 256 levels as one 16 x 16 image, and as its negative."""
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    return Images("levels", torch.cat([pixels, 255 - pixels]), torch.tensor([0, 1]), 2)


def test_every_level_survives_the_round_trip():
    batch = levels().batch(np.array([1, 0]))
    assert batch.dtype == torch.float32 and batch.shape == (2, 1, 16, 16)
    assert (batch.min(), batch.max()) == (-1, 1)
    assert torch.equal(to_uint8(batch), levels().pixels[[1, 0]])


def test_to_uint8_rounds_and_clamps():
    x = torch.tensor([-5.0, -1 + 0.9 / 255, -1 + 1.1 / 255, 0.999, 7.0, torch.inf, -torch.inf])
    assert to_uint8(x).tolist() == [0, 0, 1, 255, 255, 255, 0]


def test_what_is_not_a_number_has_no_level():
    x = torch.zeros(2, 3, 8, 8)
    x[1, 2, 7, 7] = torch.nan
    with pytest.raises(Refused, match="not a number: their network has diverged"):
        to_uint8(x)


def test_digest_is_that_of_the_data_alone():
    one = levels()
    changed = one.pixels.clone()
    changed[1, 0, 3, 3] += 1
    others = [
        Images("x", changed, one.labels, 2),
        Images("x", one.pixels, one.labels.flip(0), 2),
        Images("x", one.pixels, None, 0),
        Images("x", one.pixels.view(2, 4, 8, 8), one.labels, 2),
    ]
    assert Images("renamed", one.pixels.clone(), one.labels, 2).digest() == one.digest()
    assert len({one.digest(), *(other.digest() for other in others)}) == 5
    assert len(one.digest()) == 16


@pytest.mark.parametrize(
    "pixels, labels, classes",
    [
        (torch.zeros(2, 1, 4, 4), None, 0),
        (torch.zeros(2, 1, 4, 5, dtype=torch.uint8), None, 0),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), None, 2),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.long), 2),
    ],
)
def test_images_of_another_form_raise(pixels, labels, classes):
    with pytest.raises(ValueError):
        Images("wrong", pixels, labels, classes)


def test_every_image_once_per_epoch():
    examples = np.concatenate([batch_indices(50, 20, 3, step) for step in range(5)])
    first, second = examples.reshape(2, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist() and first.tolist() != list(range(50))


def test_order_does_not_depend_on_the_batch_size():
    small = np.concatenate([batch_indices(50, 7, 0, step) for step in range(64)])
    large = np.concatenate([batch_indices(50, 64, 0, step) for step in range(7)])
    assert small.dtype == np.int64
    assert np.array_equal(small, large)


def test_batches_are_a_function_of_seed_and_step():
    expected = batch_indices(50, 8, 1, 5)
    for step in (40, 0, 17):
        batch_indices(50, 8, 1, step)[:] = -1  # nor does a caller's change reach later batches
    assert np.array_equal(batch_indices(50, 8, 1, 5), expected)
    assert not np.array_equal(batch_indices(50, 8, 2, 5), expected)


SPLIT = {
    "train/cat/0.png": picture(10),
    "train/cat/1.jpeg": picture(20, kind="JPEG"),
    "train/ant/0.JPG": picture(30, kind="JPEG"),
    "test/cat/0.png": picture(40),
    "test/bee/0.png": picture(50),
}


def contents(images):
    """The first pixel of each image with its label, sorted: the order is the loader's own."""
    labels = [None] * len(images) if images.labels is None else images.labels.tolist()
    return sorted(zip(images.pixels[:, 0, 0, 0].tolist(), labels))


def test_split_folders_and_zips_are_the_same_data(tmp_path):
    extra = {"train/cat/.0.png": b"", "__MACOSX/train/cat/0.png": b"", "train/notes.txt": b"x"}
    folder = fill(tmp_path / "plain", SPLIT | extra)
    archive = zipped(tmp_path / "one.zip", SPLIT | extra)
    nested = zipped(tmp_path / "two.zip", {f"cifar/{name}": SPLIT[name] for name in SPLIT})
    images = load("folder", "train", folder)
    assert contents(images) == [(10, 2), (20, 2), (30, 0)] and images.classes == 3  # bee is in test
    assert (images.channels, images.size, images.name) == (1, 4, "plain train")
    assert sorted(load("folder", "test", folder).labels.tolist()) == [1, 2]
    for path in (archive, nested):
        assert load("folder", "train", path).digest() == images.digest()


def test_without_splits_every_tenth_of_a_class_is_test(tmp_path):
    files = {f"{cls}/{i:02}.png": picture(i) for cls, n in (("a", 21), ("b", 10)) for i in range(n)}
    path = fill(tmp_path, files)
    test, train = load("folder", "test", path), load("folder", "train", path)
    assert contents(test) == [(9, 0), (9, 1), (19, 0)]
    kept = [(i, 0) for i in range(21) if i not in (9, 19)] + [(i, 1) for i in range(9)]
    assert contents(train) == sorted(kept)


def test_the_first_images_of_a_folder_are_of_all_its_classes(tmp_path):
    """Alike each time, and whatever the folder is called."""
    files = {f"train/{c}/{i}.png": picture(10 * c + i) for c in range(4) for i in range(10)}
    images = load("folder", "train", fill(tmp_path / "a", files))
    assert len(set(images.labels[:12].tolist())) == 4
    assert torch.equal(images.pixels[:, 0, 0, 0] // 10, images.labels)  # labels went along
    assert load("folder", "train", zipped(tmp_path / "b.zip", files)).digest() == images.digest()


@pytest.mark.parametrize("leading", ["", "all/"])
def test_flat_folders_have_no_labels(tmp_path, leading):
    files = {f"{leading}{i:02}.png": picture(i) for i in range(10)}
    images = load("folder", "train", zipped(tmp_path / "flat.zip", files))
    assert images.labels is None and images.classes == 0
    assert contents(images) == [(i, None) for i in range(9)]
    assert load("folder", "test", fill(tmp_path / "flat", files)).pixels.max() == 9


def test_flat_splits_have_no_labels(tmp_path):
    path = fill(tmp_path, {"train/0.png": picture(1), "test/0.png": picture(2)})
    test = load("folder", "test", path)
    assert test.labels is None and test.pixels.unique().tolist() == [2]


def test_colours_make_rgb(tmp_path):
    red, palette = picture((200, 0, 0), mode="RGB"), picture(0, mode="P")
    files = {"train/a/0.png": red, "train/a/1.png": picture(7), "test/a/0.png": palette}
    path = fill(tmp_path, files)
    images = load("folder", "train", path)
    assert sorted(images.pixels[:, :, 0, 0].tolist()) == [[7, 7, 7], [200, 0, 0]]
    assert load("folder", "test", path).channels == 3


def test_unknown_names_are_refused():
    assert "unknown data source 'mnist': choose fashion16, " in refusal("mnist", "train")
    assert "unknown split 'valid': choose train or test" in refusal("fashion16", "valid")
    assert "remove data_path" in refusal("fashion16", "train", "somewhere")
    assert "needs data_path=FOLDER" in refusal("folder", "train")


def test_missing_and_empty_paths_are_refused(tmp_path):
    assert "nowhere' does not exist: correct data_path" in refusal(
        "folder", "train", str(tmp_path / "nowhere")
    )
    assert "has no .png, .jpg or .jpeg images: correct data_path" in refusal(
        "folder", "train", str(tmp_path)
    )
    text = tmp_path / "a.zip"
    text.write_text("not a zip")
    assert "a.zip' is neither a folder nor a .zip" in refusal("folder", "train", str(text))


@pytest.mark.parametrize(
    "files, message",
    [
        (
            {"train/a/0.png": picture(0), "train/a/1.png": picture(0, (8, 6))},
            "'train/a/0.png' is 4x4 but 'train/a/1.png' is 8x6: resize all",
        ),
        ({"train/a/0.png": picture(0, (8, 6))}, "'train/a/0.png' is 8x6, not square"),
        ({"train/a/0.png": b"text"}, "is no readable image: replace or remove it"),
        ({"train/a/0.png": picture(0)[:45]}, "'train/a/0.png' in "),
        ({"train/a/0.png": picture(0), "1.png": picture(0)}, "but also '1.png': move it"),
        ({"test/a/0.png": picture(0)}, "has no train images: add train/"),
        ({"train/a/0.png": picture(0), "b/0.png": picture(0)}, "but also 'b/0.png': move it"),
        ({"train/a/b/0.png": picture(0)}, "is too deep: the layout is [SPLIT/][CLASS/]FILE"),
        ({"a/0.png": picture(0), "1.png": picture(0)}, "is in no class, others are: move it"),
    ],
)
def test_unsuitable_folders_are_refused(tmp_path, files, message):
    assert message in refusal("folder", "train", fill(tmp_path / "folder", files))
    assert message in refusal("folder", "train", zipped(tmp_path / "a.zip", files))


def test_too_few_images_to_hold_out_are_refused(tmp_path):
    path = fill(tmp_path, {f"a/{i}.png": picture(0) for i in range(9)} | {"b/0.png": picture(0)})
    assert "has no test images: every 10th is test, add more" in refusal("folder", "test", path)


def test_damaged_zips_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    zipped(path, SPLIT)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x89PNG") + 60] ^= 255  # the file's check sum no longer agrees
    path.write_bytes(content)
    assert "is no readable image: replace or remove it" in refusal("folder", "train", str(path))


def test_fashion16_damaged_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FASHION16", tmp_path / "fashion16.npz")
    assert "fashion16.npz is missing or damaged: restore it" in refusal("fashion16", "train")
    (tmp_path / "fashion16.npz").write_bytes(b"PK\3\4 cut off")
    assert "fashion16.npz is missing or damaged: restore it" in refusal("fashion16", "train")


def idx_files(folder, content=b"", zip_it=gzip.compress):
    return fill(folder, {f"{name}.gz": zip_it(content) for name in fashion_mnist.CONTENT_SHA256})


def test_other_files_with_the_same_names_are_refused(tmp_path):
    assert "train-images-idx3-ubyte[.gz]' is not Fashion-MNIST's: apt-get" in refusal(
        "fashion", "train", idx_files(tmp_path / "mnist", bytes(100))
    )
    assert "t10k-images-idx3-ubyte[.gz]' cannot be read" in refusal(
        "fashion", "test", idx_files(tmp_path / "cut", bytes(100), lambda c: gzip.compress(c)[:-9])
    )


def test_missing_files_are_refused(tmp_path, monkeypatch):
    path = idx_files(tmp_path / "part")
    (tmp_path / "part" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "lacks t10k-labels-idx1-ubyte[.gz]" in refusal("fashion", "train", path)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    no_network(monkeypatch)
    message = refusal("fashion", "train")
    assert "apt-get install dataset-fashion-mnist" in message and "data_path=FOLDER" in message


def test_own_files_are_read_with_or_without_gz(tmp_path, monkeypatch):
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    contents = {
        "train-images-idx3-ubyte": bytes(16) + pixels.tobytes(),
        "train-labels-idx1-ubyte": bytes(8) + b"\1\2",
        "t10k-images-idx3-ubyte": bytes(16) + pixels[::-1].tobytes(),
        "t10k-labels-idx1-ubyte": bytes(8) + b"\3\7",
    }
    pins = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(fashion_mnist, "CONTENT_SHA256", pins)
    path = fill(tmp_path, {f"{name}.gz": gzip.compress(contents[name]) for name in contents})
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    fill(tmp_path, {"train-labels-idx1-ubyte": contents["train-labels-idx1-ubyte"]})

    train, test = load("fashion", "train", path), load("fashion", "test", path)
    assert np.array_equal(train.pixels[:, 0, 2:30, 2:30].numpy(), pixels)
    assert train.pixels.sum() == pixels.sum()  # the border is zero
    assert torch.equal(test.pixels, train.pixels.flip(0))
    assert train.labels.tolist() == [1, 2] and test.labels.tolist() == [3, 7]


def test_downloads_are_pinned_and_found_again(tmp_path, monkeypatch):
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append((url, known_hash))
        fill(path, {fname: gzip.compress(b"")})

    monkeypatch.setitem(sys.modules, "pooch", SimpleNamespace(retrieve=retrieve))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (
        fashion_mnist.download_fashion()
        == fashion_mnist.find_fashion()
        == tmp_path / "diffusion-ablations"
    )
    assert len(asked) == 4
    assert all(url.startswith("https://") and url.endswith("-ubyte.gz") for url, _ in asked)
    assert all(len(known) == len("sha256:") + 64 for _, known in asked)


def no_network(monkeypatch):
    def retrieve(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "pooch", SimpleNamespace(retrieve=retrieve))


def test_failed_downloads_are_refused(monkeypatch):
    no_network(monkeypatch)
    with pytest.raises(Refused, match="could not be downloaded: apt-get install") as caught:
        fashion_mnist.download_fashion()
    assert caught.value.code == 1
