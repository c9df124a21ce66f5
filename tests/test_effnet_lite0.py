"""EfficientNet-Lite0's features: with weights made up here, and with the package's where it is."""

import hashlib
import importlib.util

import numpy as np
import pytest
import torch

from core.data.sources import load as load_images
from core.errors import Refused
from core.metrics import effnet_lite0
from core.metrics.distances import frechet_from_features
from core.metrics.effnet_lite0 import (
    FILE,
    PACKAGE,
    Convolution,
    EfficientNetLite0,
    EffNetFeatures,
    prepare,
)
from core.metrics.features import extractor, load

HAS_PACKAGE = importlib.util.find_spec(PACKAGE) is not None
needs_package = pytest.mark.skipif(not HAS_PACKAGE, reason="pip install .[effnet]")


def images(n: int, channels: int = 3, size: int = 16) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=draw)


def made_up(folder, monkeypatch, seed: int = 0) -> None:
    """A package with a file of random weights, which counts as the known one."""
    torch.manual_seed(seed)
    path = folder / PACKAGE / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / PACKAGE / "__init__.py").write_text("raise AssertionError('it is not to be run')")
    torch.save(EfficientNetLite0().state_dict(), path)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(effnet_lite0, "SHA256", sha256)


def test_it_is_a_map_to_1280_features(tmp_path, monkeypatch):
    made_up(tmp_path, monkeypatch)
    extract, pixels = EffNetFeatures(), images(3)
    found = extract(pixels)
    assert (extract.name, extract.dimension, len(extract.digest)) == ("effnet_lite0", 1280, 16)
    assert found.shape == (3, 1280) and found.dtype == np.float64 and extract.spatial is None
    assert (found >= 0).all() and (found <= 6).all()
    assert np.allclose(extract(pixels[1:2]), found[1:2], atol=1e-5)
    grey = images(2, channels=1)
    assert np.array_equal(extract(grey), extract(grey.repeat(1, 3, 1, 1)))


def test_other_weights_have_another_digest(tmp_path, monkeypatch):
    found = set()
    for seed in (0, 1):
        made_up(tmp_path, monkeypatch, seed)
        found.add(EffNetFeatures().digest)
    monkeypatch.setattr(effnet_lite0, "SIZE", 96)
    found.add(EffNetFeatures().digest)
    assert len(found) == 3


def test_loading_leaves_the_global_random_numbers_alone(tmp_path, monkeypatch):
    made_up(tmp_path, monkeypatch)
    before = torch.get_rng_state()
    EffNetFeatures()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_network_sees_levels_at_its_own_size():
    level = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    assert prepare(level).shape == (1, 3, effnet_lite0.SIZE, effnet_lite0.SIZE)
    assert torch.allclose(prepare(level), torch.tensor(1.0))
    assert torch.allclose(prepare(level * 0), torch.tensor(-127 / 128))
    # Larger images are averaged: a fine chequerboard becomes its mean.
    side = 4 * effnet_lite0.SIZE
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2 * 254
    inner = prepare(board.byte().expand(1, 1, side, side))[..., 2:-2, 2:-2]
    assert torch.allclose(inner, torch.tensor(0.0), atol=1e-2)


@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_a_stride_begins_where_tensorflow_begins(kernel, stride):
    """Output i of a delta at p is the kernel's weight p - stride i + what is padded before."""
    layer = Convolution(1, 1, kernel, stride).requires_grad_(False)
    layer.weight.copy_(torch.arange(kernel * kernel).view(1, 1, kernel, kernel))
    x, p = torch.zeros(1, 1, 8, 8), 4
    x[0, 0, p, p] = 1
    before = (kernel - stride) // 2  # of TensorFlow's max(kernel - stride, 0) for even sizes
    expected = torch.zeros(8 // stride, 8 // stride)
    for i in range(8 // stride):
        for j in range(8 // stride):
            a, b = p - stride * i + before, p - stride * j + before
            if 0 <= a < kernel and 0 <= b < kernel:
                expected[i, j] = a * kernel + b
    assert torch.equal(layer(x)[0, 0], expected)


def test_a_missing_package_and_another_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(effnet_lite0, "PACKAGE", "no_such_package")
    load.cache_clear()
    with pytest.raises(Refused, match=r"^features=effnet_lite0 needs .* '\.\[effnet\]'"):
        extractor("effnet_lite0", 3, 32)
    monkeypatch.setattr(effnet_lite0, "PACKAGE", PACKAGE)
    made_up(tmp_path, monkeypatch)
    path = tmp_path / PACKAGE / FILE
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(Refused, match=r"missing or another: install version 0\.1\.0"):
        EffNetFeatures()
    path.unlink()
    with pytest.raises(Refused, match="missing or another"):
        EffNetFeatures()


@needs_package
def test_real_images_are_nearer_each_other_than_to_noise():
    """Of the pictures that are here: Fashion-MNIST's."""
    pixels = load_images("fashion16", "test").pixels[:120]
    extract = extractor("effnet_lite0", 1, 16)
    found, noise = extract(pixels)[:, :32], extract(images(60, 1))[:, :32]
    halves = frechet_from_features(found[::2], found[1::2])
    assert halves < frechet_from_features(found[::2], noise) / 3


@needs_package
def test_the_network_is_the_packages_own():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    ours = EffNetFeatures()._network
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(ours(x), theirs(x), atol=1e-4)
