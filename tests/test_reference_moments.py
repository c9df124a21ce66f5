"""Moments of sets too large to hold: as those of all at once, whatever interrupts them."""

import numpy as np
import pytest
import torch

from core.data.images import Images
from core.errors import Refused
from core.metrics import reference
from core.metrics.distances import moments
from core.metrics.extractor import Extractor, features_of
from core.metrics.reference import Moments, reference_moments

D = 4


class Quarters(Extractor):
    """Mean levels of image quarters; takes note of how many images it was given."""

    name, dimension, digest = "quarters", D, "0123456789abcdef"

    def __init__(self):
        self.given = []

    def __call__(self, pixels):
        self.given.append(len(pixels))
        return pixels.double().reshape(len(pixels), D, -1).mean(dim=2).numpy()


class Stopped(Exception):
    pass


@pytest.fixture
def many(monkeypatch):
    """95 images, of which ten make a chunk, and more than may be held at once."""
    monkeypatch.setattr(reference, "CHUNK", 10)
    monkeypatch.setattr(reference, "AT_ONCE", 300)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (95, 1, 4, 4), dtype=torch.uint8, generator=draw)
    return Images("many", pixels, None, 0)


def test_chunks_add_up_to_the_moments_of_all():
    x = 1e6 + np.random.default_rng(0).normal(size=(95, D)) @ np.diag([1, 1e-3, 10, 1])
    for cuts in ([], [10, 20], [1, 2, 94]):
        found = Moments(D)
        for part in np.split(x, cuts):
            found.add(part)
        mean, covariance = moments(x)
        assert found.n == 95 and np.allclose(found.mean, mean, rtol=1e-14)
        assert np.allclose(found.covariance, covariance, rtol=1e-8, atol=1e-9)


def test_a_large_set_is_never_held_at_once(many):
    extract, told = Quarters(), []
    mean, covariance = reference_moments(many, extract, None, told.append)
    assert extract.given == 9 * [10] + [5]
    assert told[0] == "features of 10 of 95 reference images" and len(told) == 10
    expected = moments(extract(many.pixels))
    assert np.allclose(mean, expected[0]) and np.allclose(covariance, expected[1])


@pytest.mark.parametrize("chunks", [1, 5, 10])
def test_an_interrupted_computation_goes_on_to_the_same_bits(chunks, many, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "KEEP_SECONDS", -1)
    whole = reference_moments(many, Quarters(), tmp_path / "other")

    def stop(words):
        if words.startswith(f"features of {min(10 * chunks, 95)} of"):
            raise Stopped

    with pytest.raises(Stopped):
        reference_moments(many, Quarters(), tmp_path, stop)
    assert [path.suffix for path in tmp_path.glob("moments-*") if path.suffix != ".lock"] == [
        ".partial"
    ]
    again = Quarters()
    resumed = reference_moments(many, again, tmp_path)
    assert sum(again.given) == 95 - min(10 * chunks, 95)
    assert all(np.array_equal(a, b) for a, b in zip(resumed, whole, strict=True))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("damage", ["cut", "other shape"])
def test_a_damaged_state_is_begun_anew(damage, many, tmp_path):
    path = tmp_path / f"moments-quarters-{Quarters.digest}-{many.digest()}.partial"
    if damage == "cut":
        path.write_bytes(b"PK\3\4")
    else:
        with path.open("wb") as file:
            np.savez(file, n=10, mean=np.zeros(3), scatter=np.zeros((3, 3)))
    extract = Quarters()
    reference_moments(many, extract, tmp_path)
    assert sum(extract.given) == 95


def test_other_weights_have_moments_of_their_own(many, tmp_path):
    for digest in ("0" * 16, "1" * 16, "0" * 16):
        extract = Quarters()
        extract.digest = digest
        reference_moments(many, extract, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2 and extract.given == []


def test_who_waits_for_another_process_says_so_and_can_be_stopped(many, tmp_path):
    path = tmp_path / f"moments-quarters-{Quarters.digest}-{many.digest()}.npz"

    def stop(words):
        assert words == "another process computes the moments of the reference images"
        raise Stopped

    with reference.FileLock(f"{path}.lock"), pytest.raises(Stopped):
        reference_moments(many, Quarters(), tmp_path, stop)


def test_features_in_chunks_are_those_of_all(many, monkeypatch):
    told, extract = [], Quarters()
    whole = extract(many.pixels)
    assert np.array_equal(features_of(extract, many.pixels, told.append, "drawn images"), whole)
    assert told == ["features of 95 of 95 drawn images"]


def test_too_few_images_are_refused():
    few = Images("few", torch.zeros(D, 1, 4, 4, dtype=torch.uint8), None, 0)
    with pytest.raises(Refused, match=r"^4 images are too few for 4 features: at least 5"):
        reference_moments(few, Quarters(), None)
