"""Trainings: paired between cells, resumed bit for bit after whatever stopped them."""

import json
import multiprocessing
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from core import checkpoint, trainer
from core.config import (
    DiffusionConfig,
    Housekeeping,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
    UNetConfig,
)
from core.data.images import Images
from core.errors import Refused
from core.trainer import Trainer
from core.training import RESUME, SNAPSHOT, Interrupted, read_log, snapshot_step, train

KEEPING = Housekeeping(device="cpu", log_every=4)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
IMAGES = Images("made up", torch.from_numpy(PIXELS), torch.arange(40) % 5, 5)
OBJECTIVES = ["simple", "hybrid", "vlb"]


def tiny(objective: str = "hybrid", steps: int = 6, **unet) -> TrainConfig:
    """A network of 8 x 8 images; L_vlb with importance sampling that is warm after 60 losses."""
    timesteps = "loss_second_moment" if objective == "vlb" else "uniform"
    shape = {"channels": 16, "channel_mult": (1, 2), "res_blocks": 1, "attention": (4,)}
    return TrainConfig(
        diffusion=DiffusionConfig(T=30),
        objective=ObjectiveConfig(objective, timesteps=timesteps, history=2),
        unet=UNetConfig(**shape | unet),
        optim=OptimConfig(steps=steps, batch_size=8, lr=1e-3, ema=(0.5, 0.9)),
    )


def with_optim(config: TrainConfig, **optim) -> TrainConfig:
    return replace(config, optim=replace(config.optim, **optim))


@pytest.fixture
def folder(tmp_path):
    """Makes folders of runs, as the runner does before it trains."""

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    return make


def train_until(step: int, config: TrainConfig, folder: Path, keeping=KEEPING, images=IMAGES):
    """Trains until it is stopped after `step`; returns everything that was then saved."""
    steps = [0]
    with pytest.raises(Interrupted):
        train(
            config,
            images,
            folder,
            keeping,
            progress=lambda done, total, words: steps.append(done),
            stop=lambda: steps[-1] == step,
        )
    state = checkpoint.newest(folder / "checkpoints", RESUME)
    assert state.pop("log") == (folder / "log.jsonl").read_text()  # which has times
    return state


def snapshot(folder: Path) -> dict:
    return checkpoint.newest(folder / "checkpoints", SNAPSHOT)


def names(folder: Path, kind: str) -> list[str]:
    """Kind and step of the checkpoints in a run's folder, oldest first."""
    paths = checkpoint.paths(folder / "checkpoints", kind)
    return [path.name.split(".")[0] for path in reversed(paths)]


def log(folder: Path) -> list[dict]:
    """The log without its times."""
    lines = read_log(folder / "log.jsonl")
    return [{k: v for k, v in line.items() if k != "seconds_per_step"} for line in lines]


def assert_same(a, b, name: str = "state") -> None:
    """Equal to the last bit, in every tensor of two nested states."""
    assert type(a) is type(b), name
    if isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_same(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), name
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{name}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), name
    else:
        assert a == b, name


def assert_differ(a: dict, b: dict) -> None:
    assert not all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_training_interrupted_twice_is_the_uninterrupted_one_bit_for_bit(objective, folder):
    config = with_optim(tiny(objective, steps=13, dropout=0.2), batch_size=12)
    whole, parts = folder("whole"), folder("parts")
    expected = train_until(12, config, whole)
    early = train_until(3, config, parts)
    train_until(7, config, parts)
    state = train_until(12, config, parts)
    assert_same(state, expected)
    assert state.keys() >= {"model", "optimizer", "ema", "timesteps", "sums"}
    assert set(state["ema"]) == {"0", "1"} and len(state["optimizer"]["state"]) > 10
    assert_differ(early["model"], state["model"])
    assert_differ(state["ema"]["0"], state["ema"]["1"])
    if objective == "vlb":  # interrupted both before and after the history was full
        assert (early["timesteps"]["count"] < 2).any()
        assert (state["timesteps"]["count"] >= 2).all()

    train(config, IMAGES, whole, KEEPING)
    train(config, IMAGES, parts, KEEPING)
    assert_same(snapshot(parts), snapshot(whole))
    assert log(parts) == log(whole)
    assert [line["step"] for line in log(whole)] == [4, 8, 12, 13]
    has = {"mse": objective != "vlb", "vlb": objective != "simple"}
    assert all((key in line) == there for line in log(whole) for key, there in has.items())
    assert names(whole, RESUME) == []


def test_a_training_that_is_complete_is_left_as_it_is(tmp_path):
    config = tiny(steps=2)
    train_until(1, config, tmp_path)
    train(config, IMAGES, tmp_path, KEEPING)
    assert names(tmp_path, SNAPSHOT) == ["snapshot-00000002"]
    assert [line["step"] for line in log(tmp_path)] == [2]


def test_dropout_is_a_function_of_seed_and_step_and_changes_the_gradient():
    losses = []
    for dropout, noise in ((0.3, 1), (0.3, 2), (0.0, 1)):
        torch.manual_seed(noise)  # must not matter
        trained = Trainer(tiny("simple", dropout=dropout), IMAGES, KEEPING)
        for _ in range(3):
            trained.one_step()
        losses.append(trained.log_line())
    assert losses[0] == losses[1] != losses[2]


def _in_child(config: TrainConfig, folder: Path) -> None:
    torch.set_num_threads(1)
    train(config, IMAGES, folder, replace(KEEPING, log_every=1, checkpoint_seconds=0))


def test_a_killed_training_resumes_to_the_same_weights_with_every_line_of_its_log_once(folder):
    config, killed, whole = tiny("vlb", steps=40), folder("killed"), folder("whole")
    child = multiprocessing.get_context("spawn").Process(target=_in_child, args=(config, killed))
    child.start()
    deadline = time.monotonic() + 120
    while len(read_log(killed / "log.jsonl")) < 10 and time.monotonic() < deadline:
        assert child.is_alive()
        time.sleep(0.002)
    child.kill()
    child.join()
    assert child.exitcode == -9
    assert 1 <= len(names(killed, RESUME)) <= 3
    state = checkpoint.newest(killed / "checkpoints", RESUME)
    assert 8 <= state["step"] < 40
    # The worst moment: lines of steps after the last checkpoint, and the last one cut short.
    lines = (killed / "log.jsonl").read_text().splitlines()[: state["step"]]
    lines += [json.dumps({"step": state["step"] + 1, "loss": -1}), '{"step": 1']
    (killed / "log.jsonl").write_text("\n".join(lines))

    keeping = replace(KEEPING, log_every=1)
    train(config, IMAGES, killed, keeping)
    train(config, IMAGES, whole, keeping)
    assert_same(snapshot(killed), snapshot(whole))
    assert [line["step"] for line in log(killed)] == list(range(1, 41))
    assert log(killed) == log(whole)
    assert names(killed, RESUME) == []


def test_a_damaged_newest_checkpoint_costs_some_steps_and_nothing_else(folder, capsys):
    config, damaged, whole = tiny(), folder("damaged"), folder("whole")
    train_until(4, config, damaged, replace(KEEPING, checkpoint_seconds=0))
    assert names(damaged, RESUME) == ["checkpoint-00000003", "checkpoint-00000004"]
    newest = checkpoint.paths(damaged / "checkpoints", RESUME)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    train(config, IMAGES, damaged, KEEPING)
    train(config, IMAGES, whole, KEEPING)
    assert f"{newest.name} is damaged" in capsys.readouterr().err
    assert_same(snapshot(damaged), snapshot(whole))
    assert log(damaged) == log(whole)


def test_snapshots_are_kept_at_the_fractions_asked_for_and_are_those_steps(folder):
    config, every = tiny(steps=8), folder("every")
    train(config, IMAGES, every, replace(KEEPING, snapshots=(0.01, 0.25, 0.5)))
    steps = ["snapshot-00000001", "snapshot-00000002", "snapshot-00000004", "snapshot-00000008"]
    assert names(every, SNAPSHOT) == steps
    state = train_until(4, config, folder("four"))
    path = checkpoint.paths(every / "checkpoints", SNAPSHOT)[1]
    half = checkpoint.load(path)
    assert half["step"] == 4
    assert_same(half["model"], state["model"])
    assert_same(half["ema"], state["ema"])
    assert [snapshot_step(at, 200) for at in (0.001, 0.25, 0.5, 1.0)] == [1, 50, 100, 200]


def test_a_snapshot_asked_for_later_is_come_to_across_interruptions(folder):
    """Another study wants an earlier fraction of a training that was interrupted beyond it."""
    config, parts, whole = tiny(steps=8), folder("parts"), folder("whole")
    train_until(6, config, parts, replace(KEEPING, checkpoint_seconds=0))
    half = replace(KEEPING, snapshots=(0.5,))

    def began_when_stopped_after(step: int) -> int:
        steps = []
        with pytest.raises(Interrupted):
            progress, stop = lambda done, *_: steps.append(done), lambda: steps[-1] == step
            train(config, IMAGES, parts, half, progress, stop)
        return steps[0]

    assert [began_when_stopped_after(step) for step in (2, 3, 4)] == [0, 2, 3]
    assert began_when_stopped_after(7) == 6
    for run in (parts, whole):
        train(config, IMAGES, run, half)
    assert names(parts, SNAPSHOT) == ["snapshot-00000004", "snapshot-00000008"]
    assert_same(snapshot(parts), snapshot(whole))
    assert names(parts, RESUME) == []


def test_a_loss_that_is_not_finite_is_refused_and_the_last_good_checkpoint_kept(
    tmp_path, monkeypatch
):
    config, steps = tiny(), Counter()
    right = trainer.training_losses

    def poisoned(*arguments):
        steps["done"] += 1
        losses = right(*arguments)
        return replace(losses, loss=losses.loss * float("nan")) if steps["done"] == 4 else losses

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_losses", poisoned)
        with pytest.raises(Refused, match=r"diverged before step 4.*lower optim\.lr") as refusal:
            keeping = replace(KEEPING, log_every=50, checkpoint_seconds=0, snapshots=(4 / 6,))
            train(config, IMAGES, tmp_path, keeping)
    assert refusal.value.lasting and refusal.value.code == 1
    assert "\n" not in str(refusal.value) and str(tmp_path) in str(refusal.value)
    state = checkpoint.newest(tmp_path / "checkpoints", RESUME)
    assert state["step"] == 3
    assert all(torch.isfinite(p).all() for p in state["model"].values())
    assert names(tmp_path, SNAPSHOT) == []
    train(config, IMAGES, tmp_path, KEEPING)  # from there, without the poison
    assert_same(snapshot(tmp_path)["step"], 6)


@pytest.mark.parametrize("interval", [1, 50])
def test_a_learning_rate_without_measure_is_refused_and_no_snapshot_is_kept(interval, tmp_path):
    config = with_optim(tiny(steps=3), lr=1e20)
    with pytest.raises(Refused, match="diverged") as refusal:
        train(config, IMAGES, tmp_path, replace(KEEPING, log_every=interval))
    assert refusal.value.lasting
    assert names(tmp_path, SNAPSHOT) == names(tmp_path, RESUME) == []


def test_fewer_images_than_a_batch_are_refused(tmp_path):
    few = Images("a few", IMAGES.pixels[:7], None, 0)
    with pytest.raises(Refused, match="a few has 7 images, fewer than a batch of 8"):
        train(tiny(), few, tmp_path, KEEPING)
    assert list(tmp_path.iterdir()) == []
    exactly = Images("enough", IMAGES.pixels[:8], None, 0)
    train(tiny(steps=1), exactly, tmp_path, KEEPING)


def test_a_device_that_is_not_there_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refused, match="device=cuda is not on this machine") as refusal:
        train(tiny(), IMAGES, tmp_path, replace(KEEPING, device="cuda"))
    assert "cpu" in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_learning_rate_warms_up_linearly_and_is_then_constant(tmp_path):
    config = with_optim(tiny(steps=6), warmup=4)
    train(config, IMAGES, tmp_path, replace(KEEPING, log_every=1))
    rates = [line["lr"] for line in log(tmp_path)]
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])


def test_the_first_step_of_adam_moves_each_weight_by_the_warm_learning_rate_at_most():
    trained = Trainer(with_optim(tiny(), warmup=4), IMAGES, KEEPING)
    before = [p.detach().clone() for p in trained.model.parameters()]
    trained.one_step()
    moved = max((p - q).abs().max().item() for p, q in zip(trained.model.parameters(), before))
    assert moved == pytest.approx(2.5e-4, rel=1e-2)


def test_cells_that_share_a_seed_share_weights_batches_timesteps_and_noise():
    simple, hybrid = (Trainer(tiny(o), IMAGES, KEEPING) for o in ("simple", "hybrid"))
    other = Trainer(replace(tiny("simple"), seed=1), IMAGES, KEEPING)
    pairs = zip(simple.model.named_parameters(), hybrid.model.parameters())
    alike = {name: torch.equal(p, q) for (name, p), q in pairs if p.shape == q.shape}
    assert len(alike) > 20 and all(alike.values())
    assert_differ(simple.model.state_dict(), other.model.state_dict())
    lines = []
    for trained in (simple, hybrid, other):
        trained.one_step()
        lines.append(trained.log_line())
    assert lines[0]["mse"] == lines[1]["mse"] != lines[2]["mse"]
    for trained in (simple, hybrid):
        trained.one_step()
    # The gradients now differ by the bound's small share alone.
    assert simple.log_line()["mse"] == pytest.approx(hybrid.log_line()["mse"], rel=1e-3)


def test_every_image_is_seen_once_per_epoch_and_the_loss_goes_down(tmp_path):
    config, seen = with_optim(tiny("simple", steps=60), lr=3e-3), Counter()
    keeping = replace(KEEPING, log_every=10)

    class Watched(Images):
        def batch(self, indices):
            seen.update(indices.tolist())
            return super().batch(indices)

    images = Watched("watched", IMAGES.pixels // 8 + 100, None, 0)  # nearly grey: easily learnt
    train(config, images, tmp_path, keeping)
    assert seen == {i: 60 * 8 // 40 for i in range(40)}
    losses = [line["mse"] for line in log(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]
    assert min(b - a for a, b in pairwise(line["step"] for line in log(tmp_path))) == 10


def test_clipping_scales_the_gradient_to_the_given_norm_and_keeps_its_direction():
    gradients = []
    for clip in (0.0, 1e-2):
        trainer = Trainer(with_optim(tiny(), grad_clip=clip), IMAGES, KEEPING)
        trainer.one_step()
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    free, clipped = gradients
    assert free.norm() > 0.02
    assert clipped.norm().item() == pytest.approx(1e-2, rel=1e-3)
    assert torch.cosine_similarity(free, clipped, dim=0).item() == pytest.approx(1, abs=1e-5)
