"""Measurements depend on the weights and their seed, not on batches or interruptions."""

import itertools
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg

from core import checkpoint, measurements, parts
from core.config import (
    DiffusionConfig,
    Frechet,
    Housekeeping,
    Likelihood,
    ObjectiveConfig,
    OptimConfig,
    SamplerConfig,
    TrainConfig,
    UNetConfig,
)
from core.data.images import Images
from core.data.sources import load
from core.errors import Refused
from core.measurements import draw_images, measure
from core.measurements.bound import measure_likelihood
from core.measurements.errors import reverse_process
from core.metrics.extractor import features_of
from core.metrics.fashion_cnn import FashionFeatures
from core.parts import Work
from core.trained import Trained, load_trained, snapshot_path
from core.training import Interrupted, train

KEEPING = Housekeeping(device="cpu", eval_batch=16, snapshots=(0.5,))
T = 60
CONFIG = TrainConfig(
    diffusion=DiffusionConfig(T=T),
    objective=ObjectiveConfig("hybrid"),
    unet=UNetConfig(channels=16, channel_mult=(1, 2), res_blocks=1, attention=(8,)),
    optim=OptimConfig(steps=20, batch_size=8, lr=2e-3, ema=(0.9, 0.5)),
)
CONDITIONAL = replace(
    CONFIG,
    unet=replace(CONFIG.unet, channels=8, class_conditional=True),
    optim=replace(CONFIG.optim, steps=2),
)
TEN = Likelihood(images=10, estimator="full", steps=2, stride="paper")
DRAWN = Frechet(images=70, sampler=SamplerConfig(steps=3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(CONFIG, load("fashion16", "train"), folder, KEEPING)
    return folder


@pytest.fixture(scope="module")
def conditional(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("conditional")
    train(CONDITIONAL, load("fashion16", "train"), folder, KEEPING)
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Makes what a measurement is given; of the data it sees the first 200 images of a split."""

    def few(name: str, split: str, path: str | None) -> Images:
        whole = load(name, split, path)
        return replace(whole, pixels=whole.pixels[:200], labels=whole.labels[:200])

    monkeypatch.setattr(measurements, "load_once", few)

    count = itertools.count()

    def make(name: str = "", stop=lambda: False, **housekeeping) -> Work:
        progress = []
        keeping = replace(KEEPING, **housekeeping)
        made = Work(
            keeping,
            tmp_path / f"{name or next(count)}.part",
            tmp_path / "cache",
            lambda done, total, words: progress.append((done, total)),
            stop,
        )
        object.__setattr__(made, "seen", progress)
        return made

    return make


def refusal(folder: Path, config: TrainConfig, measurement, work: Work) -> str:
    with pytest.raises(Refused) as error:
        measure(folder, config, measurement, work)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_stratified_estimator_agrees_with_the_full_bound_on_the_same_images(folder, work):
    settings = Likelihood(images=16)
    full = measure(folder, CONFIG, replace(settings, estimator="full"), work())
    few = [measure(folder, CONFIG, replace(settings, seed=seed), work()) for seed in range(2)]
    assert full.numbers["evaluations"] == full.numbers["steps"] == T
    assert all(one.numbers["evaluations"] == 40 for one in few)
    exact = full.arrays["per_image"].astype(np.float64)
    differences = np.stack([one.arrays["per_image"] - exact for one in few])
    error = differences.std(ddof=1) / differences.size**0.5
    assert 0 < error < 0.05
    assert abs(differences.mean()) < 4 * error
    # The error that it states for itself is of the size of the one it makes.
    stated = np.mean([one.numbers["estimator_error"] for one in few])
    assert 0.6 < stated / (differences.std(ddof=1) / 16**0.5) < 1.6
    assert full.numbers["estimator_error"] is None


@pytest.mark.parametrize("estimator", ["full", "stratified"])
def test_the_numbers_of_a_likelihood_have_units_and_follow_from_what_is_kept(
    estimator, folder, work
):
    made = work()
    result = measure(folder, CONFIG, Likelihood(images=20, estimator=estimator), made)
    numbers, arrays = result.numbers, result.arrays
    assert numbers["unit"] == "bits/dim" and numbers["images"] == 20
    assert 0 < numbers["nll"] < 20 and numbers["steps"] == T
    each = arrays["per_image"].astype(np.float64)
    assert each.shape == (20,) and len(set(each)) == 20
    assert numbers["nll"] == pytest.approx(each.mean(), rel=1e-6)
    assert numbers["standard_error"] == pytest.approx(each.std(ddof=1) / 20**0.5, rel=1e-4)
    assert arrays["t"].tolist() == list(range(T + 1))
    sums, counts = arrays["term_sum"].astype(np.float64), arrays["term_count"]
    assert counts[0] == 0 and counts.sum() == 20 * numbers["evaluations"]
    assert numbers["decoder"] == pytest.approx(sums[1] / counts[1], rel=1e-5)
    if estimator == "full":
        assert (counts[1:] == 20).all()
        assert numbers["nll"] == pytest.approx(numbers["prior"] + sums.sum() / 20, rel=1e-5)
    total = 20 * numbers["evaluations"]
    assert made.seen[-1] == (total, total)
    assert [done for done, _ in made.seen] == sorted({done for done, _ in made.seen})


@pytest.mark.parametrize("batch", [16, 5])
def test_likelihoods_and_samples_do_not_depend_on_the_batch(batch, folder, conditional, work):
    settings = Likelihood(images=21, steps=2, estimator="full", stride="paper")
    for run, config in ((folder, CONFIG), (conditional, CONDITIONAL)):
        one = measure(run, config, settings, work(eval_batch=128))
        other = measure(run, config, settings, work(eval_batch=batch))
        assert other.numbers == one.numbers
        for name in one.arrays:
            np.testing.assert_array_equal(other.arrays[name], one.arrays[name])
        trained = load_trained(run, config, 1.0, 0, KEEPING)
        how = SamplerConfig(steps=3), "learned", 3
        whole = draw_images(trained, range(21), *how, 128)
        assert torch.equal(draw_images(trained, range(21), *how, batch), whole)
        assert torch.equal(draw_images(trained, range(10, 13), *how, 2), whole[10:13])
        assert whole.dtype == torch.uint8 and whole.shape == (21, 1, 16, 16)
        assert len(whole.unique(dim=0)) == 21


def test_noise_depends_on_the_seed_of_the_measurement(folder, work):
    one, same, other = (
        measure(folder, CONFIG, replace(TEN, seed=seed), work()).arrays["per_image"]
        for seed in (0, 0, 1)
    )
    assert (one == same).all() and (one != other).all()
    trained = load_trained(folder, CONFIG, 1.0, 0, KEEPING)
    a, b = (draw_images(trained, range(4), SamplerConfig(steps=2), "beta", s, 4) for s in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("settings, evaluations", [(DRAWN, 3), (Likelihood(images=70), 40)])
@pytest.mark.parametrize("step", [0.1, 1.4, 1.9])
def test_a_measurement_continued_after_an_interruption_is_the_uninterrupted_one(
    step, settings, evaluations, folder, work, monkeypatch
):
    """Parts of 30 images: stopped in the first one, and late and early in the second."""
    step = max(1, round(step * evaluations))
    monkeypatch.setattr(parts, "PART", 30)
    whole = measure(folder, CONFIG, settings, work("whole", eval_batch=30))
    calls = iter(range(1, 1000))
    stopped = work("stopped", stop=lambda: next(calls) == step, eval_batch=30)
    with pytest.raises(Interrupted):
        measure(folder, CONFIG, settings, stopped)
    kept = sorted(stopped.scratch.glob("*")) if stopped.scratch.exists() else []
    assert [path.name for path in kept] == ["00000000-00000030.npz"][: (step - 1) // evaluations]

    resumed = work("stopped", eval_batch=30)
    result = measure(folder, CONFIG, settings, resumed)
    assert resumed.seen[0][0] > 30 * evaluations * len(kept)
    assert len(resumed.seen) == evaluations * (3 - len(kept))
    assert result.numbers == whole.numbers
    assert all((result.arrays[key] == whole.arrays[key]).all() for key in whole.arrays)
    assert resumed.seen[-1] == (70 * evaluations, 70 * evaluations)


def test_a_damaged_part_is_computed_again(folder, work, monkeypatch):
    monkeypatch.setattr(parts, "PART", 30)
    whole = measure(folder, CONFIG, DRAWN, work("same"))
    path = work("same").scratch / "00000030-00000060.npz"
    cut, flipped = path.read_bytes()[:500], bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    for damaged in (cut, flipped, b""):
        path.write_bytes(damaged)
        again = work("same")
        assert measure(folder, CONFIG, DRAWN, again).numbers == whole.numbers
        assert len(again.seen) == 2 * 3  # two batches of 16 and fewer, three steps each


def test_who_helps_computes_the_parts_that_nobody_else_does(folder, work, monkeypatch):
    monkeypatch.setattr(parts, "PART", 30)
    whole = measure(folder, CONFIG, DRAWN, work("whole"))
    claimed = []

    def claim(which: range):
        claimed.append(which)
        return None if which.start == 30 else nullcontext()

    helper = replace(work("same"), claim=claim, helping=True)
    assert measure(folder, CONFIG, DRAWN, helper) is None
    assert sorted(path.name[:8] for path in helper.scratch.glob("*")) == ["00000000", "00000060"]
    # Who claimed the part may be dead: then the helper waits until it knows, and does it.
    others = iter([None, None])
    unsure = iter([False, True])
    patient = replace(
        work("same"),
        claim=lambda which: next(others, nullcontext()),
        alive=lambda which: next(unsure),
        helping=True,
    )
    monkeypatch.setattr(parts.time, "sleep", lambda seconds: None)
    assert measure(folder, CONFIG, DRAWN, patient) is None and not list(unsure)
    last = replace(work("same"), helping=True)
    assert measure(folder, CONFIG, DRAWN, last).numbers == whole.numbers


def test_who_does_not_help_waits_for_what_others_compute(folder, work, monkeypatch):
    monkeypatch.setattr(parts, "PART", 30)
    whole = measure(folder, CONFIG, DRAWN, work("whole"))
    others = iter([None, None])
    monkeypatch.setattr(parts.time, "sleep", lambda seconds: waited.append(seconds))
    waited = []
    waiting = replace(
        work(), claim=lambda which: nullcontext() if which.start else next(others, nullcontext())
    )
    assert measure(folder, CONFIG, DRAWN, waiting).numbers == whole.numbers
    assert waited == [1]


def test_a_frechet_distance_says_what_it_is_and_keeps_images_to_look_at(folder, work):
    result = measure(folder, CONFIG, DRAWN, work())
    numbers = result.numbers
    assert numbers["metric"] == "FD (fashion_cnn)" and numbers["frechet"] > 0
    assert numbers["reference"] == "fashion16 train, 200 images"
    assert (numbers["images"], numbers["steps"]) == (70, 3)
    assert result.arrays["samples"].shape == (64, 1, 16, 16)
    on_test = measure(folder, CONFIG, replace(DRAWN, reference="test"), work("b"))
    assert on_test.numbers["reference"] == "fashion16 test, 200 images"
    assert on_test.numbers["frechet"] != numbers["frechet"]


def test_sets_are_the_same_images_by_parts(folder, work):
    """Against scipy's matrix root, of images that are drawn here once more."""
    settings = replace(DRAWN, images=140, sets=2)
    numbers = measure(folder, CONFIG, settings, work()).numbers
    whole = measure(folder, CONFIG, replace(DRAWN, images=140), work("whole")).numbers
    assert numbers["frechet"] == whole["frechet"] and "frechet_of_sets" not in whole
    network = FashionFeatures()
    trained = load_trained(folder, CONFIG, 1.0, 0, KEEPING)
    drawn = draw_images(trained, range(140), DRAWN.sampler, "learned", 0, 16)
    real = features_of(network, load("fashion16", "train").pixels[:200]).astype(float)
    each = []
    for part in (drawn[:70], drawn[70:]):
        ours = features_of(network, part).astype(float)
        root = linalg.sqrtm(np.cov(ours.T) @ np.cov(real.T)).real
        distance = ((ours.mean(0) - real.mean(0)) ** 2).sum()
        each.append(distance + np.trace(np.cov(ours.T) + np.cov(real.T) - 2 * root))
    assert numbers["frechet_of_sets"] == pytest.approx(np.mean(each), rel=1e-4)
    assert numbers["images_of_a_set"] == 70


@pytest.mark.parametrize(
    "sampler",
    [
        SamplerConfig("ddim", steps=4, stride="ddim"),
        SamplerConfig("ddim", steps=4, stride="quadratic", eta=1.0),
        SamplerConfig(steps=4, skip=0.5),
        SamplerConfig(steps=1),
    ],
)
def test_every_sampler_draws_images_of_its_own(sampler, folder, work):
    result = measure(folder, CONFIG, replace(DRAWN, sampler=sampler), work())
    plain = measure(folder, CONFIG, DRAWN, work("plain"))
    assert np.isfinite(result.numbers["frechet"])
    assert 1 <= result.numbers["steps"] <= sampler.steps
    assert (result.arrays["samples"] != plain.arrays["samples"]).any()


def test_a_deterministic_sampler_does_not_use_the_variance_and_the_others_do(folder):
    trained = load_trained(folder, CONFIG, 1.0, 0, KEEPING)
    for name, same in (("ddim", True), ("ancestral", False)):
        sampler = SamplerConfig(name, steps=4)
        a, b = (draw_images(trained, range(4), sampler, v, 0, 4) for v in ("beta", "learned"))
        assert torch.equal(a, b) is same, name


class Watched(Trained):
    """Takes note of the labels that the network is given."""

    def denoiser(self, diffusion, label, low=None):
        self.labels.append(None if label is None else label.tolist())
        return super().denoiser(diffusion, label, low)


def test_a_class_conditional_run_is_measured_with_true_labels_and_drawn_class_by_class(
    conditional, work, monkeypatch
):
    asked = []
    monkeypatch.setattr(Watched, "labels", asked, raising=False)
    trained = load_trained(conditional, CONDITIONAL, 1.0, 0, KEEPING)
    watched = Watched(trained.config, trained.model, trained.device, trained.shape, trained.classes)
    test_images = load("fashion16", "test")
    result = measure_likelihood(watched, TEN, test_images, work(eval_batch=6))
    true = load("fashion16", "test").labels[:10].tolist()
    assert asked == [true[:6], true[6:]]
    # The labels matter: with other ones the bound is another.
    embedding = trained.model.label_embedding.weight
    embedding.copy_(embedding.roll(1, dims=0) * 3)
    other = measure_likelihood(watched, TEN, test_images, work())
    assert (other.arrays["per_image"] != result.arrays["per_image"]).all()
    asked.clear()
    draw_images(watched, range(8, 13), SamplerConfig(steps=1), "beta", 0, 3)
    assert asked == [[8, 9, 0], [1, 2]]


def test_a_measurement_is_of_the_weights_at_its_fraction_and_average(folder, work):
    settings = [replace(TEN, at=at, ema=ema) for at in (0.5, 1.0) for ema in (-1, 0, 1)]
    values = [measure(folder, CONFIG, one, work()).numbers["nll"] for one in settings]
    assert len(set(values)) == 6
    state = checkpoint.load(snapshot_path(folder, 0.5, 20))
    trained = load_trained(folder, CONFIG, 0.5, 1, KEEPING)
    name, parameter = next(iter(trained.model.named_parameters()))
    assert torch.equal(parameter, state["ema"]["1"][name])
    assert not parameter.requires_grad and not trained.model.training


def test_too_few_images_for_the_features_are_refused_before_any_is_drawn(folder, work):
    made = work()
    says = refusal(folder, CONFIG, replace(DRAWN, images=64), made)
    assert "measure.fd.images: 64 images are too few for 64 features, at least 65" in says
    says = refusal(folder, CONFIG, replace(DRAWN, images=140, sets=3), made)
    assert "measure.fd.images, of each of its sets: 46 images are too few for 64" in says
    assert made.seen == []


def test_more_images_than_the_split_has_are_refused(folder, work):
    says = refusal(folder, CONFIG, Likelihood(images=201), work())
    assert "fashion16 test has 200 images: lower measure.nll.images=201" in says


def test_a_snapshot_that_is_missing_damaged_or_of_another_run_is_refused(folder, work, tmp_path):
    assert "no snapshot at 0.25" in refusal(folder, CONFIG, replace(TEN, at=0.25), work())
    assert "keeps 2 average(s)" in refusal(folder, CONFIG, replace(TEN, ema=2), work())
    other = replace(CONFIG, seed=1)
    assert "another configuration" in refusal(folder, other, TEN, work())

    path = snapshot_path(folder, 1.0, 20)
    copy = tmp_path / "checkpoints" / path.name
    copy.parent.mkdir()
    content = path.read_bytes()
    assert content != content[:-9] + b"123456789"
    for damaged in (content[: len(content) // 2], content[:-9] + b"123456789", b""):
        copy.write_bytes(damaged)
        says = refusal(tmp_path, CONFIG, TEN, work())
        assert str(copy) in says and "damaged or truncated: delete it" in says


def test_measuring_leaves_the_global_random_numbers_alone(folder, work):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    measure(folder, CONFIG, TEN, work())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_steps_chosen_by_a_network_s_errors_have_a_smaller_bound_than_even_ones(folder, work):
    even = Likelihood(images=60, estimator="full", steps=6, stride="paper")
    found = {
        s: measure(folder, CONFIG, replace(even, stride=s), work()) for s in ("dynamic", "paper")
    }
    assert found["dynamic"].numbers["nll"] < found["paper"].numbers["nll"]
    kept = found["dynamic"].arrays["t"]
    assert len(kept) == 7 and kept[0] == 0 and kept[-1] == T


def test_all_steps_are_a_choice_of_steps_too_where_there_are_more_than_candidates(folder):
    config = replace(CONFIG, diffusion=DiffusionConfig(T=600))
    trained = replace(load_trained(folder, CONFIG, 1.0, 0, KEEPING), config=config)
    asked = Likelihood(steps=600, stride="dynamic")
    assert reverse_process(trained, asked, KEEPING).K == 600


def test_the_analytic_variance_has_no_larger_bound_than_either_fixed_one(folder, work):
    asked = Likelihood(images=60, estimator="full", steps=8)
    nll = {
        v: measure(folder, CONFIG, replace(asked, variance=v), work()).numbers["nll"]
        for v in ("analytic", "beta", "beta_tilde")
    }
    assert nll["analytic"] < min(nll["beta"], nll["beta_tilde"])


def test_what_a_network_s_errors_decide_does_not_depend_on_batches(folder, work):
    sampler = SamplerConfig(steps=4, stride="dynamic")
    asked = replace(DRAWN, sampler=sampler, variance="analytic")
    whole = measure(folder, CONFIG, asked, work(eval_batch=64))
    parts_of = measure(folder, CONFIG, asked, work(eval_batch=16))
    assert np.array_equal(whole.arrays["samples"], parts_of.arrays["samples"])
