"""Numbers that are none, injected where trainings and measurements make them."""

import json
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hostile import refusal
from test_training import (
    IMAGES,
    KEEPING,
    assert_same,
    log,
    names,
    snapshot,
    tiny,
    train_until,
    with_optim,
)

from analysis.tables import HOLE, number, paired
from core import checkpoint, measurements
from core.config import Frechet, Housekeeping, TrainConfig
from core.data.images import Images
from core.measurements.result import Result
from core.metrics.distances import frechet_from_features, moments
from core.metrics.precision_recall import precision_recall
from core.trainer import Trainer
from core.training import RESUME, SNAPSHOT, train
from experiments.execute import _keep
from experiments.runs import Run

RIGHT = Trainer._backward
KINDS = {
    "a loss": lambda trainer: trainer.sums.fill_(math.nan),
    "a gradient": lambda trainer: trainer.parameters[0].grad.view(-1)[0].fill_(math.nan),
    "an infinite gradient": lambda trainer: trainer.parameters[-1].grad.fill_(math.inf),
    # Its square is infinite in float32: Adam would never move the weight again, without a word.
    "an exploding gradient": lambda trainer: trainer.parameters[0].grad.fill_(1e25),
}
EVERY = replace(KEEPING, checkpoint_seconds=0, log_every=100)
SELDOM = replace(KEEPING, checkpoint_seconds=1e9)


def poisoned(monkeypatch, kind: str, step: int) -> None:
    """The gradients or losses of that step, counted from 0, are what a fault makes of them."""

    def backward(self, *arguments):
        losses = RIGHT(self, *arguments)
        if self.step == step:
            KINDS[kind](self)
        return losses

    monkeypatch.setattr(Trainer, "_backward", backward)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed trainings."""
    folders = {}
    for objective in ("hybrid", "vlb"):
        folders[objective] = tmp_path_factory.mktemp(objective)
        train(tiny(objective, steps=8), IMAGES, folders[objective], EVERY)
    return folders


@pytest.mark.parametrize("objective", ["hybrid", "vlb"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_stops_at_once_and_goes_on_from_the_last_good_step(
    kind, objective, whole, tmp_path, monkeypatch
):
    """At a random step; afterwards, without the fault, to the same bits as undisturbed."""
    step = random.Random(f"{kind} {objective}").randrange(1, 8)
    with monkeypatch.context() as patch:
        poisoned(patch, kind, step)
        says = refusal(train, tiny(objective, steps=8), IMAGES, tmp_path, EVERY)
    assert f"training diverged before step {step + 1} of {tmp_path.name}" in says
    good = checkpoint.paths(tmp_path / "checkpoints", RESUME)[0]
    assert f"the last good checkpoint stays in {good}" in says
    assert "try a lower optim.lr, or optim.grad_clip=1" in says
    assert checkpoint.load(good)["step"] == step and names(tmp_path, SNAPSHOT) == []
    train(tiny(objective, steps=8), IMAGES, tmp_path, EVERY)
    assert_same(snapshot(tmp_path), snapshot(whole[objective]))


def test_it_is_seen_at_the_next_line_of_the_log_when_no_checkpoint_is_due(tmp_path, monkeypatch):
    poisoned(monkeypatch, "a gradient", 1)
    says = refusal(train, tiny(steps=8), IMAGES, tmp_path, replace(SELDOM, log_every=4))
    assert "before step 4" in says and "no checkpoint was due" in says
    assert log(tmp_path) == [] and names(tmp_path, RESUME) == []


def test_clipping_lets_no_gradient_without_measure_through(tmp_path, monkeypatch):
    """One that is finite is scaled; one that is not cannot be, and is refused as any other."""
    config = with_optim(tiny(steps=4), grad_clip=1.0)
    for name in ("large", "infinite"):
        (tmp_path / name).mkdir()
    with monkeypatch.context() as patch:
        patch.setitem(KINDS, "large", lambda trainer: trainer.parameters[0].grad.fill_(1e10))
        poisoned(patch, "large", 1)
        train(config, IMAGES, tmp_path / "large", replace(KEEPING, log_every=1))
    assert all(line["grad_norm"] < 1.01 for line in log(tmp_path / "large"))
    poisoned(monkeypatch, "an infinite gradient", 1)
    assert "diverged before step 2" in refusal(
        train, config, IMAGES, tmp_path / "infinite", replace(KEEPING, log_every=1)
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_measurement_that_is_not_finite_is_not_kept(value, tmp_path):
    run = Run("0123456789", tmp_path)
    task = SimpleNamespace(run=run, housekeeping=Housekeeping(device="cpu"))
    asked = SimpleNamespace(words="nll", id="abc", settings=None)
    result = Result({"nll": value, "images": 3}, {"per_image": np.array([value])})
    says = refusal(_keep, task, asked, result, tmp_path / "scratch", 1.0)
    assert f"nll of {tmp_path.name}: nll is not finite" in says
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_number_is_a_hole_in_a_table(tmp_path):
    assert number(math.nan, 1.0, 2) == HOLE and number(math.inf, math.nan, 2) == HOLE
    assert number(1.0, math.nan, 2) == "1.00"
    for name, values in {"a": [1.0, math.nan], "b": [1.0, 2.0], "c": [1.0, 2.0, 3.0]}.items():
        np.savez(tmp_path / f"{name}.npz", per_image=np.array(values))

    def pair(one, other):
        import pandas as pd

        rows = [{"row": i, "seed": 0, "arrays": tmp_path / n} for i, n in enumerate((one, other))]
        results = SimpleNamespace(
            of=lambda measurement: pd.DataFrame(rows), grid=SimpleNamespace(seeds=(0,))
        )
        return paired(results, "nll", 0, 1)

    assert pair("b.npz", "b.npz")["difference"] == 0
    assert "a.npz is damaged (per_image is not finite)" in refusal(pair, "a.npz", "b.npz")
    assert "c.npz is of other images" in refusal(pair, "b.npz", "c.npz")


# Too little data for a metric, and data without spread.


@pytest.mark.parametrize("n", [1, 2, 8])
def test_a_distance_of_fewer_images_than_features_is_refused(n):
    features = np.random.default_rng(0).normal(size=(20, 8))
    assert f"{n} images are too few for 8 features: at least 9" in refusal(moments, features[:n])
    assert frechet_from_features(features[:9], features) > 0


@pytest.mark.parametrize("n, k", [(5, 5), (1, 1), (3, 4)])
def test_precision_and_recall_of_no_more_images_than_neighbours_are_refused(n, k):
    points = np.random.default_rng(0).normal(size=(20, 2))
    for a, b in ((points, points[:n]), (points[:n], points)):
        assert f"need more than {k} images, not {n}" in refusal(precision_recall, a, b, k)


def test_too_few_for_the_neighbours_is_said_before_any_image_is_drawn(monkeypatch):
    few = Images("a few", torch.arange(30 * 256).to(torch.uint8).view(30, 1, 16, 16), None, 0)
    monkeypatch.setattr(measurements, "load_once", lambda *arguments: few)
    asked = Frechet(images=1000, neighbours=30)
    says = refusal(measurements.check, TrainConfig(), asked, Housekeeping(device="cpu"))
    assert "30 neighbours need more than 30 images, not 30: lower measure.fd.neighbours" in says


def test_features_without_spread_have_distances_and_neighbours():
    """As of a data set that is one image over and over, or a network that draws but one."""
    same, others = np.ones((20, 4)), np.random.default_rng(0).normal(size=(20, 4))
    assert frechet_from_features(same, same) == 0
    expected = ((others.mean(0) - 1) ** 2).sum() + np.trace(np.cov(others.T))
    assert frechet_from_features(same, others) == pytest.approx(expected)
    assert precision_recall(same, same, 3) == (1.0, 1.0)
    assert precision_recall(others + 100, same, 3) == (0.0, 0.0)


def test_an_interrupted_training_has_no_line_that_json_does_not_know(tmp_path):
    train_until(4, tiny(steps=8), tmp_path, replace(KEEPING, log_every=1))
    for text in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=lambda word: pytest.fail(word))
