"""Data that come with the code, and published weights: others than they should be are refused."""

import random

import numpy as np
import pytest
import torch
from safetensors.torch import save

from core import weights
from core.data import sources
from core.errors import Refused
from core.metrics import fashion_cnn

SNAPSHOT = {
    "config": "{}",
    "images": [1, 16, 10],
    "step": 8,
    "ema": {"0": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}},
}
OTHERS = ("other content", "packaged images, feature network", "refused in one line")


def test_published_weights_with_any_bit_flipped_are_refused(tmp_path, injected):
    injected("a bit flipped", "published weights", "refused, or the same weights", 300)
    path, whole, refused = tmp_path / "weights.safetensors", weights.to_bytes(SNAPSHOT), 0
    path.write_bytes(whole)
    assert weights.alike(weights.read(path), SNAPSHOT)
    rng = random.Random(0)
    for bit in rng.sample(range(8 * len(whole)), 300):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert weights.alike(weights.read(path), SNAPSHOT)  # a blank of the header, say
        except Refused as error:
            assert "restore it from git" in str(error)
            refused += 1
    assert refused > 280


def test_weights_published_by_an_earlier_version_are_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    about = {"images": "[1, 16, 10]", "step": "8", "config": "{}"}
    path.write_bytes(save(SNAPSHOT["ema"]["0"], about))
    assert weights.alike(weights.read(path), SNAPSHOT)


def test_other_images_than_those_of_the_code_are_refused(tmp_path, monkeypatch, injected):
    injected(*OTHERS)
    monkeypatch.setattr(sources, "FASHION16", tmp_path / "fashion16.npz")
    images, labels = np.zeros((3, 16, 16), np.uint8), np.zeros(3, np.uint8)
    np.savez(sources.FASHION16, test_images=images, test_labels=labels)
    with pytest.raises(Refused, match=r"fashion16\.npz is missing or damaged: restore it"):
        sources.load("fashion16", "test")


def test_other_weights_than_those_of_the_code_are_refused(tmp_path, monkeypatch, injected):
    injected(*OTHERS)
    with np.load(fashion_cnn.WEIGHTS) as archive:
        arrays = dict(archive)
    name = max(arrays, key=lambda key: arrays[key].size)
    arrays[name].reshape(-1)[0] *= -1
    monkeypatch.setattr(fashion_cnn, "WEIGHTS", tmp_path / "fashion_cnn.npz")
    np.savez(fashion_cnn.WEIGHTS, **arrays)
    with pytest.raises(Refused, match=r"fashion_cnn\.npz is missing or damaged: restore it"):
        fashion_cnn.FashionFeatures()
