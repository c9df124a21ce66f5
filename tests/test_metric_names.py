"""The name of a Frechet distance reaches tables, axes and captions."""

import importlib
import re

import numpy as np
import pytest
import test_studies
from test_reference_moments import D, Quarters
from test_studies import SCRIPTS, WORDS, write

from analysis import table_fd_range
from analysis.load import load
from core.data.images import Images
from core.data.sources import load as load_images
from core.metrics.distances import frechet, moments
from experiments.overrides import parse


def results_of(study, *words):
    return load(parse([f"grid={study}", *words]), fall_back=False)


@pytest.mark.parametrize(
    "words, full, short",
    [
        ((), "FD (fashion_cnn)", "FD"),
        (("measure.features=effnet_lite0",), "FD (effnet_lite0)", "FD"),
        (("measure.features=inception", "measure.fd.images=10000"), "FID (inception, 10k)", "FID"),
        (
            ("measure.features=inception", f"measure.features_sha256={64 * 'a'}"),
            "FD (inception aaaaaaaa, 80)",
            "FD",
        ),
    ],
)
def test_results_know_what_their_distances_are_called(words, full, short, tmp_path):
    results = results_of("schedule_ablation", "scale=smoke", f"results={tmp_path}", *words)
    assert (results.fd, results.fd_short) == (full, short)


def test_distances_of_several_numbers_of_images_have_no_number_in_their_name(tmp_path):
    words = ("scale=cifar10", "plan=true", f"results={tmp_path}")
    assert results_of("sample_count", *words).fd == "FID (inception)"
    assert results_of("overfitting", *words).fd == "FID (inception, 50k)"
    nothing = results_of("objective_noise", "scale=smoke", f"results={tmp_path}")
    assert (nothing.fd, nothing.fd_short) == ("FD", "FD")


# Those that show no Frechet distance, or pictures alone.
WITHOUT = ("plot_objective_noise", "plot_vlb_terms", "plot_learned_v", "plot_samples")
WITHOUT += ("table_likelihood_models", "plot_longer_training")


@pytest.mark.parametrize(
    "study, script", [(study, script) for study, script in SCRIPTS if script not in WITHOUT]
)
def test_a_fid_is_called_one_everywhere(study, script, tmp_path, monkeypatch, capsys):
    words = (*WORDS, "measure.features=inception")
    monkeypatch.setattr(test_studies, "WORDS", words)
    write(tmp_path, study)
    importlib.import_module(f"analysis.{script}").main(
        [f"grid={study}", *words, f"results={tmp_path}"]
    )
    (text,) = [path.read_text() for path in (tmp_path / "tables").glob("*.md")]
    assert "FID (inception" in text
    for path in (tmp_path / "tables").glob("*"):
        assert not re.search(r"\bFD\b|fashion_cnn", path.read_text()), path.name
    for path in (tmp_path / "figures").glob("*.svg"):
        assert not re.search(r"\bFD\b|fashion_cnn", path.read_text()), path.name


def test_the_range_is_of_the_features_that_the_scale_measures_with(tmp_path, monkeypatch):
    """Sets of more images than there are features, drawn from the first of a large data set."""
    train, test = (
        Images(split, load_images("fashion16", split).pixels[:100], None, 0)
        for split in ("train", "test")
    )
    asked = []

    def quarters(settings, *how):
        asked.append(settings.features)
        return Quarters()

    monkeypatch.setattr(table_fd_range, "training_images", lambda config, path: train)
    monkeypatch.setattr(table_fd_range, "load_once", lambda name, split, path: test)
    monkeypatch.setattr(table_fd_range, "extractor_of", quarters)
    monkeypatch.setattr(table_fd_range, "SIZES", (D,))
    monkeypatch.setattr(table_fd_range, "LARGER", (20, 40))
    monkeypatch.setattr(table_fd_range, "MOST", 60)
    words = ["grid=schedule_ablation", "measure.features=effnet_lite0", f"results={tmp_path}"]
    table, legend = table_fd_range.table(parse(words))
    assert asked == ["effnet_lite0"]
    assert list(table.columns) == ["images", "n = 20", "n = 40"] and len(table) == 3
    assert legend.startswith("FD (effnet_lite0) to all 100 images of train;")
    assert list((tmp_path / "cache").glob("moments-quarters-*.npz"))
    table, _ = table_fd_range.table(parse([*words, "scale=smoke", "data.images=50"]))
    assert table["images"].iloc[-1] == "the first 50, repeated"


def test_a_few_images_repeated_are_as_far_as_they_are_themselves():
    numbers = np.random.default_rng(0)
    some, whole = numbers.normal(size=(30, 3)), moments(numbers.normal(size=(5000, 3)))
    few = some.mean(axis=0), np.cov(some.T, bias=True)
    of_many = table_fd_range.distances(20_000, some, whole, repeated=True)
    np.testing.assert_allclose(of_many, frechet(*few, *whole), rtol=0.1)
    of_few = table_fd_range.distances(30, some, whole, repeated=True)
    assert of_few.std() > 0.01 and of_few.mean() > of_many.mean()
    same = table_fd_range.distances(30, some, whole)
    np.testing.assert_allclose(same, frechet(*moments(some), *whole))
