"""The adapters to FID's network, on stand-ins whose features are known in closed form.

The stand-ins see what the real networks would: NVIDIA's is a TorchScript archive with the names and
the forward of its own, torch-fidelity's a package of that name. Where the real package is, its
network takes part, with random weights.
"""

import hashlib
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import Refused
from core.metrics import inception
from core.metrics.inception import InceptionFeatures
from core.metrics.inception_networks import LAYERS, resized

STRIDE, PLACES = 16, 19  # of the stand-in's first layer, and what it leaves of 299


def sha256_of(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def to_channels(inputs: int, outputs: int, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """Channel i of the output is channel i mod `inputs` of the input, times i // inputs + 1."""
    layer = nn.Conv2d(inputs, outputs, 1, stride, bias=False).requires_grad_(False)
    layer.weight.zero_()
    for i in range(outputs):
        layer.weight[i, i % inputs] = gain * (i // inputs + 1)
    return layer


class Mixed(nn.Module):
    """mixed_6 has a branch of its own name; the stand-in's other layers are passed through."""

    def __init__(self, gain: float):
        super().__init__()
        self.conv = to_channels(3, 9, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        return x


class StandIn(nn.Module):
    """Feature i: the mean over places of channel i mod 3, times i // 3 + 1; images are -1..1."""

    def __init__(self, width: int, gain: float = 1.0, stride: int = STRIDE):
        super().__init__()
        layers = [(name, nn.Identity()) for name in LAYERS]
        layers[0] = ("conv", to_channels(3, 3, stride))
        layers += [("mixed_6", Mixed(gain)), ("mixed_10", to_channels(3, width, gain=gain))]
        self.layers = nn.Sequential(OrderedDict(layers))

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        x = img.to(torch.float32)
        theta = torch.eye(2, 3, device=x.device)
        theta[0, 2] += theta[0, 0] / img.shape[3] - theta[0, 0] / 299
        theta[1, 2] += theta[1, 1] / img.shape[2] - theta[1, 1] / 299
        theta = theta.unsqueeze(0).repeat([img.shape[0], 1, 1])
        grid = F.affine_grid(theta, [img.shape[0], 3, 299, 299], align_corners=False)
        x = F.grid_sample(x, grid, "bilinear", "border", align_corners=False)
        features = self.layers((x - 128) / 128).mean(dim=[2, 3])
        return features if return_features else torch.softmax(features, dim=1)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Writes a stand-in for NVIDIA's file, which counts as it."""

    def write(width: int = 2048, gain: float = 1.0, known: bool = True) -> str:
        path = tmp_path / f"script-{width}-{gain}.pt"
        torch.jit.script(StandIn(width, gain)).save(str(path))
        if known:
            sha256 = sha256_of(path)
            monkeypatch.setattr(inception, "KNOWN", {sha256: "NVIDIA's file"})
        return str(path)

    return write


class Fake(nn.Module):
    """Has of torch-fidelity's network what the adapter touches."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        assert (name, features_list) == ("inception", ["2048"])
        self.Mixed_6d = nn.ModuleDict({"branch1x1": nn.Conv2d(3, 9, 1, bias=False)})
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        x = (resized(x.float()) - 128) / 128
        spatial = self.Mixed_6d["branch1x1"](x[:, :, ::STRIDE, ::STRIDE])
        return (spatial.mean(dim=(2, 3))[:, torch.arange(2048) % 9],)


@pytest.fixture
def fidelity(tmp_path, monkeypatch):
    """Writes weights for a stand-in of torch-fidelity's network; they count as the known ones."""
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Fake
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def write(gain: float = 1.0) -> str:
        path = tmp_path / f"weights-{gain}.pth"
        weight = to_channels(3, 9, gain=gain).weight
        torch.save(OrderedDict({"Mixed_6d.branch1x1.weight": weight}), path)
        sha256 = sha256_of(path)
        monkeypatch.setattr(inception, "KNOWN", {sha256: "torch-fidelity's file"})
        return str(path)

    return write


@pytest.fixture(params=["script", "fidelity"])
def written(request):
    return request.getfixturevalue(request.param)


def images(n: int, channels: int = 3, size: int = 16) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=draw)


def test_it_is_a_map_to_2048_features(written):
    extract, pixels = InceptionFeatures(written()), images(3)
    found = extract(pixels)
    assert (extract.name, extract.dimension, len(extract.digest)) == ("inception", 2048, 16)
    assert extract.facts["weights"].startswith(extract.digest)
    assert found.shape == (3, 2048) and found.dtype == np.float64
    assert np.allclose(extract(pixels[1:2]), found[1:2], atol=1e-6)


@pytest.mark.parametrize("level", [0, 128, 200, 255])
def test_levels_are_those_of_bytes(level, written):
    extract = InceptionFeatures(written())
    constant = torch.full((1, 1, 8, 8), level, dtype=torch.uint8)
    assert np.allclose(extract(constant)[0, :9], np.repeat([1, 2, 3], 3) * (level - 128) / 128)
    assert np.allclose(extract.spatial(constant)[0, : 3 * PLACES**2], (level - 128) / 128)


def test_grey_images_are_rgb_with_equal_channels(written):
    extract, grey = InceptionFeatures(written()), images(2, channels=1)
    for view in (extract, extract.spatial):
        assert np.array_equal(view(grey), view(grey.repeat(1, 3, 1, 1)))
    colour = grey.repeat(1, 3, 1, 1)
    colour[:, 1] = 128
    assert np.allclose(extract(colour)[:, 1], 0) and np.allclose(
        extract(colour)[:, ::3], extract(grey)[:, ::3]
    )


def test_places_are_the_first_seven_channels_of_the_layer(written):
    extract, pixels = InceptionFeatures(written()), images(2)
    spatial = extract.spatial
    assert spatial.name == "inception_spatial" and spatial.digest == extract.digest
    assert spatial.dimension == 7 * PLACES**2
    places = spatial(pixels).reshape(2, 7, PLACES, PLACES)
    seen = (resized(pixels.float()) - 128)[:, :, ::STRIDE, ::STRIDE] / 128
    expected = torch.cat([seen, 2 * seen, 3 * seen[:, :1]], dim=1)
    assert np.allclose(places, expected, atol=1e-5)
    assert np.allclose(places.mean(axis=(2, 3))[:, :3], extract(pixels)[:, :3], atol=1e-5)


@pytest.mark.parametrize("n", [16, 32, 64, 299, 512])
def test_images_are_resized_as_tensorflow_1_did(n):
    """A ramp stays a ramp, from the corner on, until it meets the last row."""
    ramp = torch.arange(n).float()
    x = (ramp[:, None] + 1000 * ramp).view(1, 1, n, n)
    at = (torch.arange(299) * (n / 299)).clamp(max=n - 1)
    expected = at[:, None] + 1000 * at
    assert torch.allclose(resized(x)[0, 0], expected, rtol=1e-5, atol=1e-2)


def test_a_script_resizes_in_the_same_way(script):
    """NVIDIA's by its own code; the places' path by ours."""
    extract, pixels = InceptionFeatures(script()), images(1, size=20)
    means = extract.spatial(pixels).reshape(7, -1).mean(axis=1)
    assert np.allclose(means, extract(pixels)[0, :7], atol=1e-5)


def test_other_weights_have_another_digest(written):
    digests = {InceptionFeatures(written(gain=gain)).digest for gain in (1.0, 2.0)}
    assert len(digests) == 2


def test_loading_leaves_the_global_random_numbers_alone(written):
    path = written()
    before = torch.get_rng_state()
    InceptionFeatures(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_script_without_those_layers_has_no_places(tmp_path):
    class Bare(nn.Module):
        def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
            return img.to(torch.float32).mean(dim=[1, 2, 3]).unsqueeze(1).repeat([1, 2048])

    path = tmp_path / "bare.pt"
    torch.jit.script(Bare()).save(str(path))
    sha256 = sha256_of(path)
    assert InceptionFeatures(str(path), sha256).spatial is None


def refusal(path, sha256: str = "") -> str:
    with pytest.raises(Refused) as error:
        InceptionFeatures(str(path), sha256)
    assert "\n" not in str(error.value) and error.value.code == 2
    return str(error.value)


def test_a_missing_file_and_another_one_are_refused(tmp_path, script):
    assert refusal("").startswith("features=inception needs features_path=FILE: NVIDIA's")
    assert "is not there" in refusal(tmp_path / "none.pt") and "is not there" in refusal(tmp_path)
    path = script(known=False)
    sha256 = sha256_of(path)
    says = refusal(path)
    assert "is neither NVIDIA's inception-2015-12-05.pt nor torch-fidelity's" in says
    assert f"no FID; measure.features_sha256={sha256} takes it all the same" in says
    assert InceptionFeatures(path, sha256).digest == sha256[:16]
    assert f"has sha256 {sha256}, asked for is {'0' * 64}" in refusal(path, "0" * 64)


class Attack:
    def __reduce__(self):
        return exec, ("raise SystemExit('it was run')",)


def test_a_file_that_is_no_network_is_refused_and_not_run(tmp_path, script, fidelity):
    torch.save({"weights": Attack()}, tmp_path / "attack.pth")
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no network")
    paths = [tmp_path / f"{name}.pth" for name in ("attack", "other", "text")]
    for path in [*paths, script(width=12)]:
        sha256 = sha256_of(path)
        assert "holds no Inception-v3" in refusal(path, sha256), path


def test_weights_whose_package_is_not_there_are_refused(fidelity, monkeypatch):
    path = fidelity()
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    says = refusal(path)
    assert "need torch-fidelity (pip install '.[fid]'), which cannot be imported" in says


def real_network():
    """torch-fidelity's class, where that package and its torchvision fit this torch."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception as error:
        pytest.skip(f"pip install .[fid]: {error}")
    return FeatureExtractorInceptionV3


def test_torch_fidelitys_own_network_with_random_weights(tmp_path, monkeypatch):
    network = real_network()
    monkeypatch.setattr(network, "load_state_dict", lambda self, state: None)
    blank = tmp_path / "blank.pth"
    torch.save({}, blank)
    torch.manual_seed(0)
    theirs = network("inception", ["2048", "768"], blank)
    monkeypatch.undo()
    path = tmp_path / "random.pth"
    torch.save(theirs.state_dict(), path)
    sha256 = sha256_of(path)
    extract, pixels = InceptionFeatures(str(path), sha256), images(2, size=32)
    pool, deep = theirs(pixels)
    assert np.allclose(extract(pixels), pool, rtol=1e-4, atol=1e-6)
    assert extract.spatial.dimension == 7 * 17 * 17 and deep.shape == (2, 768)
    grey = images(1, channels=1)
    assert np.array_equal(extract(grey), extract(grey.repeat(1, 3, 1, 1)))


def test_the_resize_is_torch_fidelitys():
    real_network()
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    for n in (16, 32, 64, 512):
        x = images(2, size=n).float()
        theirs = interpolate_bilinear_2d_like_tensorflow1x(x, (299, 299), align_corners=False)
        assert torch.allclose(resized(x), theirs, atol=1e-3)
