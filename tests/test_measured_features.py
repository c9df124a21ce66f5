"""Frechet distances over features that the user brings: what is said of them, and when."""

from dataclasses import replace

import pytest
import torch
from test_inception import StandIn, sha256_of

from core import build, measurements
from core.config import (
    DiffusionConfig,
    Frechet,
    Housekeeping,
    OptimConfig,
    SamplerConfig,
    TrainConfig,
    UNetConfig,
)
from core.data.sources import load
from core.errors import Refused
from core.measurements import check, measure
from core.metrics import features, inception
from core.parts import Work
from core.training import train
from experiments import launch
from experiments.grid import expand
from experiments.overrides import parse
from experiments.run import main

CONFIG = TrainConfig(
    diffusion=DiffusionConfig(T=60),
    unet=UNetConfig(channels=16, channel_mult=(1, 2), res_blocks=1, attention=(8,)),
    optim=OptimConfig(steps=2, batch_size=4),
)
DRAWN = Frechet(images=20, features="inception", sampler=SamplerConfig(steps=2), neighbours=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(CONFIG, load("fashion16", "train"), folder, Housekeeping(device="cpu"))
    return folder


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A stand-in for NVIDIA's network with 12 features, at one place."""
    monkeypatch.setattr(inception, "DIMENSION", 12)
    monkeypatch.setattr(inception.InceptionFeatures, "dimension", 12)
    path = tmp_path / "standin.pt"
    torch.jit.script(StandIn(12, stride=299)).save(str(path))
    features.load.cache_clear()
    yield path
    features.load.cache_clear()


@pytest.fixture
def work(tmp_path, monkeypatch):
    def few(name, split, path):
        whole = load(name, split, path)
        return replace(whole, pixels=whole.pixels[:100], labels=whole.labels[:100])

    monkeypatch.setattr(measurements, "load_once", few)

    def make(path) -> Work:
        keeping = Housekeeping(device="cpu", features_path=str(path))
        return Work(keeping, tmp_path / "part", tmp_path / "cache")

    return make


def test_it_is_fid_over_the_published_weights_alone(folder, work, weights, monkeypatch):
    sha256 = sha256_of(weights)
    told = replace(DRAWN, features_sha256=sha256)
    numbers = measure(folder, CONFIG, told, work(weights)).numbers
    assert numbers["metric"] == f"FD (inception {sha256[:8]}, 20)"
    assert numbers["weights"] == sha256
    for key in ("frechet", "sfid", "standard_error"):
        assert numbers[key] > 0, key
    assert 0 <= numbers["precision"] <= 1 and 0 <= numbers["recall"] <= 1
    assert (numbers["images"], numbers["real_images"]) == (20, 20)

    monkeypatch.setattr(inception, "KNOWN", {sha256: "NVIDIA's"})
    published = measure(folder, CONFIG, DRAWN, work(weights)).numbers
    assert published == numbers | {"metric": "FID (inception, 20)"}


def test_both_kinds_of_features_have_moments_of_their_own(folder, work, weights, tmp_path):
    sha256 = sha256_of(weights)
    told = replace(DRAWN, features_sha256=sha256)
    measure(folder, CONFIG, told, work(weights))
    names = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "cache").glob("*.npz"))
    kinds = ("inception", "inception_spatial")
    assert names == [f"moments-{kind}-{sha256[:16]}" for kind in kinds]


def test_the_features_of_the_laptop_say_nothing_new(folder, work):
    settings = Frechet(images=70, sampler=SamplerConfig(steps=1))
    keys = {"frechet", "standard_error", "metric", "images", "reference", "steps"}
    assert set(measure(folder, CONFIG, settings, work("")).numbers) == keys


def test_too_few_images_for_either_kind_are_refused(work, weights):
    keeping = work(weights).housekeeping
    told = replace(DRAWN, features_sha256=sha256_of(weights))
    check(CONFIG, replace(told, images=13), keeping)
    with pytest.raises(Refused, match=r"measure\.fd\.images: 12 images are too few for 12 feat"):
        check(CONFIG, replace(told, images=12), keeping)


def words(*more: str) -> list[str]:
    return ["grid=single", "scale=smoke", "measure.features=inception", *more]


@pytest.mark.parametrize("on", [[], ["on=local"]])
def test_a_missing_file_is_said_before_anything_is_read_or_started(on, tmp_path, monkeypatch):
    def unwanted(*arguments):
        raise AssertionError("too late")

    monkeypatch.setattr(build, "training_images", unwanted)
    monkeypatch.setattr(launch, "here", unwanted)
    results = tmp_path / "results"
    with pytest.raises(Refused, match=r"^features=inception needs features_path=FILE: NVIDIA"):
        main([*words(), *on, f"results={results}"])
    with pytest.raises(Refused, match=r"features_path=none\.pt is not there"):
        main([*words("features_path=none.pt"), *on, f"results={results}"])
    assert not results.exists()


def test_a_plan_needs_no_file(tmp_path, capsys):
    assert main([*words("plan=true"), f"results={tmp_path}"]) == 0
    assert "PFLOP in all" in capsys.readouterr().out


@pytest.mark.parametrize("scale, images", [("cifar10", 50_000), ("imagenet64", 10_000)])
def test_the_papers_scales_measure_fid_as_the_paper_did(scale, images):
    grid = expand(parse(["grid=schedule_ablation", f"scale={scale}", "plan=true"]))
    asked = [a.settings for cell in grid.cells for a in cell.measurements if a.name == "fd"]
    assert {(s.features, s.images, s.reference) for s in asked} == {("inception", images, "train")}


@pytest.mark.parametrize(
    "word, message",
    [
        ("measure.features_sha256=12", "must be 64 hexadecimal digits, with features=inception"),
        ("measure.features=vgg", "measure.fd.features=vgg: "),
    ],
)
def test_features_that_cannot_be_are_refused(word, message):
    with pytest.raises(Refused, match=message):
        expand(parse(["grid=single", "scale=smoke", word]))


def test_other_weights_are_another_measurement():
    told = [words(f"measure.features_sha256={64 * digit}") for digit in "ab"]
    ids = set()
    for given in (words(), *told):
        (cell,) = expand(parse(given)).cells
        ids.add(next(asked.id for asked in cell.measurements if asked.name == "fd"))
    assert len(ids) == 3
