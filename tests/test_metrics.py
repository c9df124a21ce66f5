"""The Frechet distance against closed forms, the committed classifier, the cached moments."""

import os
import threading

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from core.data.images import Images
from core.data.sources import load
from core.errors import Refused
from core.metrics import fashion_cnn, train_fashion_cnn
from core.metrics.distances import bootstrap_error, frechet, frechet_from_features, moments
from core.metrics.extractor import Extractor
from core.metrics.fashion_cnn import FashionCNN, FashionFeatures, prepare
from core.metrics.features import extractor
from core.metrics.reference import reference_moments

D = 6
ZERO = np.zeros(D)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small convolutions on busy cores are many times slower with several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spd(seed, d=D):
    """A random symmetric positive definite matrix."""
    a = np.random.default_rng(seed).normal(size=(d, 2 * d))
    return a @ a.T / d


def rotation(seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))[0]


def test_equal_gaussians_are_at_distance_zero():
    assert 0 <= frechet(ZERO, spd(0), ZERO, spd(0)) < 1e-9


def test_shifted_means_are_at_their_squared_distance():
    assert frechet(ZERO, spd(0), ZERO + 2, spd(0)) == pytest.approx(4 * D)


def test_commuting_covariances_compare_by_standard_deviation():
    a, b = np.array([1.0, 4, 9, 16, 0, 0]), np.array([4.0, 4, 1, 25, 0, 9])
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()  # 1 + 0 + 4 + 1 + 0 + 9
    assert frechet(ZERO, np.diag(a), ZERO, np.diag(b)) == pytest.approx(expected)
    q = rotation(1)
    rotated = frechet(ZERO, q @ np.diag(a) @ q.T, ZERO, q @ np.diag(b) @ q.T)
    assert rotated == pytest.approx(expected, abs=1e-6)


def test_plane_rotated_by_a_right_angle():
    # diag(1, 9) against diag(9, 1): (1 - 3)^2 twice; without the rotation it would be zero.
    quarter = np.array([[0.0, -1], [1, 0]])
    a = np.diag([1.0, 9])
    assert frechet(ZERO[:2], a, ZERO[:2], quarter @ a @ quarter.T) == pytest.approx(8)


@pytest.mark.parametrize("seed", range(5))
def test_general_covariances_agree_with_the_matrix_square_root(seed):
    a, b = spd(seed, 20), spd(seed + 100, 20)
    shift = np.random.default_rng(seed).normal(size=20)
    expected = shift @ shift + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet(shift, a, np.zeros(20), b) == pytest.approx(expected, rel=1e-9)
    assert frechet(np.zeros(20), b, shift, a) == pytest.approx(expected, rel=1e-9)


def test_moments_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=(50, D)).astype(np.float32)
    mean, covariance = moments(x)
    assert mean.dtype == covariance.dtype == np.float64
    assert np.allclose(mean, x.mean(axis=0)) and np.allclose(covariance, np.cov(x.T))


def test_too_few_samples_are_refused():
    x = np.random.default_rng(0).normal(size=(D + 1, D))
    assert frechet_from_features(x, x) == pytest.approx(0, abs=1e-9)
    with pytest.raises(
        Refused, match=f"^{D} images are too few for {D} features: at least {D + 1}"
    ):
        frechet_from_features(x, x[:D])


@pytest.fixture(scope="module")
def test_images():
    return load("fashion16", "test")


@pytest.fixture(scope="module")
def test_features(test_images):
    return extractor("fashion_cnn", 1, 16)(test_images.pixels)


def test_classifier_is_as_accurate_as_its_file_says(test_images):
    extract = extractor("fashion_cnn", 1, 16)
    probabilities = extract.probabilities(test_images.pixels)
    assert probabilities.shape == (10_000, 10) and np.allclose(probabilities.sum(axis=1), 1)
    accuracy = (probabilities.argmax(axis=1) == test_images.labels.numpy()).mean()
    assert accuracy == pytest.approx(extract.test_accuracy, abs=0.002)
    assert extract.test_accuracy > 0.9


def test_features_have_the_promised_form(test_images, test_features):
    extract = extractor("fashion_cnn", 1, 16)
    assert (extract.name, extract.dimension, len(extract.digest)) == ("fashion_cnn", 64, 16)
    assert test_features.shape == (10_000, 64) and test_features.dtype == np.float64
    assert np.linalg.matrix_rank(np.cov(test_features.T)) == 64
    # In eval mode an image's features do not depend on its company.
    assert np.allclose(extract(test_images.pixels[7:8]), test_features[7:8], atol=1e-5)


def test_noise_is_much_farther_than_another_half_of_the_data(test_features):
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (1000, 1, 16, 16), dtype=torch.uint8, generator=draw)
    noise_features = extractor("fashion_cnn", 1, 16)(noise)
    between_halves = frechet_from_features(test_features[:5000], test_features[5000:])
    from_noise = frechet_from_features(test_features, noise_features)
    assert between_halves < from_noise / 100


def test_a_missing_class_is_noticed(test_images, test_features):
    labels = test_images.labels.numpy()
    halves = frechet_from_features(test_features[::2], test_features[1::2])
    without_boots = frechet_from_features(test_features[::2], test_features[labels != 9])
    assert without_boots > 3 * halves


def test_larger_and_coloured_images_are_reduced(test_images):
    pixels = test_images.pixels[:50]
    doubled = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = extractor("fashion_cnn", 1, 16)(pixels)
    for c, enlarged in ((1, doubled), (3, pixels.expand(-1, 3, -1, -1))):
        size = enlarged.shape[-1]
        assert np.allclose(extractor("fashion_cnn", c, size)(enlarged), expected, atol=1e-5)
    green = torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    green[:, 1] = 200
    assert torch.allclose(prepare(green), torch.tensor(round(0.587 * 200) / 127.5 - 1))


def test_averages_are_rounded_as_in_fashion16():
    pixels = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8).repeat(16, 16).view(1, 1, 32, 32)
    assert torch.allclose(prepare(pixels), torch.tensor(1 / 127.5 - 1))  # 0.5 becomes 1


@pytest.mark.parametrize(
    "name, channels, size, message",
    [
        ("vgg", 1, 16, "unknown feature extractor 'vgg': choose one of fashion_cnn, effnet_lite0"),
        ("effnet_lite0", 2, 16, "takes images of 1 or 3 channels, not 2 channels of 16x16"),
        ("inception", 4, 64, "takes images of 1 or 3 channels, not 4 channels of 64x64"),
        ("fashion_cnn", 2, 16, "not 2 channels of 16x16"),
        ("fashion_cnn", 1, 24, "not 1 channels of 24x24"),
        ("fashion_cnn", 1, 8, "not 1 channels of 8x8"),
    ],
)
def test_what_the_extractor_does_not_take_is_refused(name, channels, size, message):
    with pytest.raises(Refused, match=message):
        extractor(name, channels, size)


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_cnn, "WEIGHTS", tmp_path / "fashion_cnn.npz")
    for content in (None, b"no npz", fashion_cnn.Path(__file__).read_bytes()):
        if content is not None:
            fashion_cnn.WEIGHTS.write_bytes(content)
        with pytest.raises(Refused, match=r"fashion_cnn\.npz is missing or damaged: restore it"):
            FashionFeatures()


def test_training_learns_and_repeats_itself(monkeypatch, test_images):
    few = Images("few", test_images.pixels[:300], test_images.labels[:300], 10)
    monkeypatch.setattr(train_fashion_cnn, "BATCH", 25)
    monkeypatch.setattr(train_fashion_cnn, "EPOCHS", 5)
    torch.manual_seed(0)
    assert train_fashion_cnn.accuracy(FashionCNN().eval(), few) < 0.3
    assert train_fashion_cnn.accuracy(train_fashion_cnn.train(few), few) > 0.5
    monkeypatch.setattr(train_fashion_cnn, "EPOCHS", 1)
    once, again = train_fashion_cnn.train(few), train_fashion_cnn.train(few)
    assert torch.equal(once.classify.weight, again.classify.weight)


def test_augmentation_moves_images_by_at_most_a_pixel():
    x = torch.full((200, 1, 16, 16), -1.0)
    x[:, 0, 8, 5] = 1.0
    moved = train_fashion_cnn.augment(x, step=3)
    assert torch.equal(moved.sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3)))
    places = {tuple(place) for place in (moved[:, 0] > 0).nonzero()[:, 1:].tolist()}
    mirrored = 15 - 5
    assert places == {
        (8 + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1) for column in (5, mirrored)
    }


class CountingExtractor(Extractor):
    """Mean levels of image quarters as features; counts how often it was asked."""

    name, dimension, digest = "quarters", 4, "0123456789abcdef"

    def __init__(self):
        self.calls = 0

    def __call__(self, pixels):
        self.calls += 1
        return pixels.double().reshape(len(pixels), 4, -1).mean(dim=2).numpy()


@pytest.fixture
def few():
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=draw)
    return Images("few", pixels, None, 0)


def test_reference_moments_are_computed_once_per_data_set(tmp_path, few):
    extract, cache = CountingExtractor(), tmp_path / "deep" / "cache"
    expected = moments(extract(few.pixels))
    for _ in range(2):
        for kept, value in zip(reference_moments(few, extract, cache), expected, strict=True):
            assert np.array_equal(kept, value)
    assert extract.calls == 2
    reference_moments(Images("changed", 255 - few.pixels, None, 0), extract, cache)
    assert extract.calls == 3
    reference_moments(few, extract, None)
    assert extract.calls == 4
    names = sorted(file.name for file in cache.glob("*.npz"))
    assert f"moments-quarters-0123456789abcdef-{few.digest()}.npz" in names and len(names) == 2
    assert not list(cache.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other shape"])
def test_damaged_reference_moments_are_computed_anew(tmp_path, few, damage):
    extract = CountingExtractor()
    expected = reference_moments(few, extract, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    content = bytearray(path.read_bytes())
    whole = bytes(content)
    if damage == "empty":
        content = b""
    elif damage == "cut":
        content = content[:200]
    elif damage == "flipped":
        content[content.index(expected[0].tobytes())] ^= 1
    path.write_bytes(content)
    if damage == "other shape":
        np.savez(path, mean=np.zeros(3), covariance=np.zeros((3, 3)))
    for kept, value in zip(reference_moments(few, extract, tmp_path), expected, strict=True):
        assert np.array_equal(kept, value)
    assert extract.calls == 2 and path.read_bytes() == whole


def test_those_who_ask_at_once_wait_for_the_first(tmp_path, few):
    extract = CountingExtractor()
    ask = threading.Barrier(4)

    def work():
        ask.wait()
        reference_moments(few, extract, tmp_path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert extract.calls == 1


def test_a_failed_write_leaves_nothing(tmp_path, few, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        reference_moments(few, CountingExtractor(), tmp_path)
    assert [file.suffix for file in tmp_path.iterdir()] in ([], [".lock"])


def test_the_bootstrap_has_the_spread_of_independent_samples():
    """Of 40 samples of one distribution, whose distances spread as each one says."""
    numbers = np.random.default_rng(0)
    reference = np.zeros(3), np.eye(3)
    samples = [numbers.normal(size=(400, 3)) + 0.5 for _ in range(40)]
    spread = np.std([frechet(*moments(x), *reference) for x in samples], ddof=1)
    errors = [bootstrap_error(x, reference, seed) for seed, x in enumerate(samples)]
    assert np.mean(errors) == pytest.approx(spread, rel=0.3)
    assert bootstrap_error(samples[0], reference, 1) == bootstrap_error(samples[0], reference, 1)
    assert bootstrap_error(samples[0], reference, 1) != bootstrap_error(samples[0], reference, 2)
