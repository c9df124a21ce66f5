"""Measurements that two runs take part in: mixed networks, and one that enlarges."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core import build
from core.build import training_images
from core.config import (
    DataConfig,
    DiffusionConfig,
    Frechet,
    Housekeeping,
    Likelihood,
    OptimConfig,
    SamplerConfig,
    TrainConfig,
    UNetConfig,
)
from core.data.images import Images, averaged, enlarged, to_model
from core.data.sources import load
from core.diffusion.process import Diffusion, Prediction
from core.diffusion.schedules import cosine
from core.errors import Refused
from core.measurements import draw_images, measure
from core.measurements.bound import measure_likelihood
from core.parts import Work
from core.trained import Mixed, Trained, load_trained, snapshot_path
from core.training import train
from experiments import claims, jobs
from experiments.asked import Asked, RowRun, not_applicable, with_partners
from experiments.execute import Task, execute
from experiments.files import read_json
from experiments.grid import expand
from experiments.overrides import parse
from experiments.run import distinct, tasks_of
from experiments.runs import Runs
from experiments.stages import Course

KEEPING = Housekeeping(device="cpu", eval_batch=32)
CONFIG = TrainConfig(
    diffusion=DiffusionConfig(T=40),
    unet=UNetConfig(channels=8, channel_mult=(1, 2), res_blocks=1, attention=(8,)),
    optim=OptimConfig(steps=3, batch_size=8, lr=2e-3, ema=(0.5,)),
)
FULL = Likelihood(images=6, estimator="full")
COURSE = Course(lambda *_: None, lambda: False)
DRAWN = Frechet(images=70, sampler=SamplerConfig(steps=3))


def trained(path: Path, config: TrainConfig) -> Path:
    path.mkdir()
    train(config, training_images(config.data), path, KEEPING)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, tuple[Path, TrainConfig]]:
    top = tmp_path_factory.mktemp("runs")
    configs = {
        "first": CONFIG,
        "second": replace(CONFIG, seed=1),
        "low": replace(CONFIG, data=DataConfig(size=8)),
        "upsampler": replace(CONFIG, data=DataConfig(low=8)),
    }
    return {name: (trained(top / name, config), config) for name, config in configs.items()}


def network(value: float) -> Trained:
    """A network that says the same at every pixel: eps = value and v = value."""

    class Constant(torch.nn.Module):
        def forward(self, x, time, label=None):
            return torch.full((len(x), 2, *x.shape[2:]), value)

    return Trained(CONFIG, Constant(), torch.device("cpu"), (1, 4, 4), 0)


def mixed(own: Trained, partner: Trained, ends: float) -> Mixed:
    rest = {name: getattr(own, name) for name in ("config", "model", "device", "shape", "classes")}
    return Mixed(**rest, partner=partner, ends=ends)


def test_the_partner_predicts_the_first_and_last_steps_and_nobody_else_does():
    """The paper has t in [100, T - 100) counted from 0, of T = 4000 steps, for the other one."""
    diffusion = Diffusion(cosine(4000))
    denoise = mixed(network(0.0), network(1.0), 0.025).denoiser(diffusion, None)
    t = torch.tensor([1, 100, 101, 2000, 3900, 3901, 4000])
    eps, v = denoise(torch.zeros(7, 1, 4, 4), t)
    assert eps[:, 0, 0, 0].tolist() == [1, 1, 0, 0, 0, 1, 1]
    assert v[:, 0, 0, 0].tolist() == [1, 1, 0.5, 0.5, 0.5, 1, 1]  # (0 + 1) / 2 and (1 + 1) / 2
    few = Diffusion(cosine(4000).respaced([1, 101, 3901]))
    denoise = mixed(network(0.0), network(1.0), 0.025).denoiser(few, None)
    eps = denoise(torch.zeros(3, 1, 4, 4), torch.tensor([1, 2, 3])).eps
    assert eps[:, 0, 0, 0].tolist() == [1, 0, 1]  # by the original steps, not the kept ones


@pytest.mark.parametrize("label", [None, torch.arange(6) % 3])
def test_a_batch_on_both_sides_is_each_network_on_its_part(runs, label):
    first, second = (load_trained(*runs[name], 1.0, 0, KEEPING) for name in ("first", "second"))
    diffusion = Diffusion(cosine(40))
    x, t = torch.randn(6, 1, 16, 16), torch.tensor([1, 20, 40, 10, 3, 21])
    denoise = mixed(first, second, 0.1).denoiser(diffusion, label)(x, t)
    ends = (t <= 4) | (t > 36)
    for trained, mask in ((second, ends), (first, ~ends)):
        alone = trained.denoiser(diffusion, label)(x, t)
        assert torch.equal(denoise.eps[mask], alone.eps[mask])
        assert torch.equal(denoise.v[mask], alone.v[mask])


def test_networks_without_v_are_mixed_without():
    diffusion = Diffusion(cosine(40))

    class Simple(Trained):
        def denoiser(self, diffusion, label, low=None):
            return lambda x, t: Prediction(torch.zeros_like(x))

    simple = Simple(CONFIG, torch.nn.Identity(), torch.device("cpu"), (1, 4, 4), 0)
    both = mixed(network(0.0), simple, 0.1).denoiser(diffusion, None)
    assert both(torch.zeros(2, 1, 4, 4), torch.tensor([1, 20])).v is None


def test_terms_of_a_mixed_bound_are_those_of_the_network_whose_steps_they_are(runs, tmp_path):
    """Exactly, since all draws depend on (seed, image) alone."""
    images = load("fashion16", "test")

    def terms(model):
        work = Work(KEEPING, tmp_path / model, tmp_path)
        if model == "mixed":
            settings = replace(FULL, partner="second", ends=0.1)
            return measure(*runs["first"], settings, work, runs["second"]).arrays["term_sum"]
        return measure_likelihood(
            load_trained(*runs[model], 1.0, 0, KEEPING), FULL, images, work
        ).arrays["term_sum"]

    first, second, both = (terms(model) for model in ("first", "second", "mixed"))
    ends = [*range(1, 5), *range(37, 41)]
    middle = range(5, 37)
    assert both[ends].tolist() == second[ends].tolist()
    assert both[middle].tolist() == first[middle].tolist()
    assert not (first[1:] == second[1:]).any()


def test_areas_are_averaged_and_sizes_that_do_not_divide_are_refused():
    pixels = torch.tensor([[1, 2, 10, 10], [3, 4, 10, 10], [0, 0, 255, 255], [0, 1, 255, 254]])
    images = Images("four", pixels[None, None].to(torch.uint8), None, 0)
    small = averaged(images, 2)
    assert small.pixels[0, 0].tolist() == [[3, 10], [0, 255]]  # 2.5, 10, 0.25 and 254.75
    with pytest.raises(ValueError, match="cannot be averaged to 3x3"):
        averaged(images, 3)
    with pytest.raises(Refused, match=r"data.size=5: 16x16 images"):
        training_images(DataConfig(size=5))
    assert training_images(DataConfig(size=8, images=20)).pixels.shape == (20, 1, 8, 8)


def test_a_network_that_enlarges_sees_the_small_image_beside_the_noisy_one():
    seen = {}

    class Spy(torch.nn.Module):
        def forward(self, x, time, label=None):
            seen["x"] = x
            return torch.zeros(len(x), 2, *x.shape[2:])

    low, x = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 8, 8)
    denoise = build.denoiser(Spy(), Diffusion(cosine(40)), low=enlarged(low, 8))
    assert denoise(x, torch.tensor([1, 2])).eps.shape == x.shape
    assert torch.equal(seen["x"][:, :1], x) and torch.equal(seen["x"][:, 1:], enlarged(low, 8))
    constant = torch.full((1, 1, 4, 4), 0.3)
    assert torch.allclose(enlarged(constant, 8), torch.full((1, 1, 8, 8), 0.3))


def test_enlarged_images_depend_on_the_small_ones_and_not_on_the_batch(runs):
    upsampler = load_trained(*runs["upsampler"], 1.0, 0, KEEPING)
    pixels = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)

    def draw(low, which, batch):
        how = SamplerConfig(steps=3), "learned", 0, batch
        return draw_images(upsampler, which, *how, low=low[which.start : which.stop])

    whole = draw(pixels, range(20), 20)
    parts = torch.cat([draw(pixels, range(0, 7), 3), draw(pixels, range(7, 20), 5)])
    assert torch.equal(whole, parts)
    changed = pixels.clone()
    changed[3] = 255 - changed[3]
    differs = (draw(changed, range(20), 20) != whole).flatten(1).any(dim=1)
    assert differs.nonzero().flatten().tolist() == [3]


def test_the_distance_of_two_stages_is_that_of_the_second_on_the_firsts_images(runs, tmp_path):
    settings = replace(DRAWN, partner="low", neighbours=3)
    work = Work(KEEPING, tmp_path / "two", tmp_path)
    result = measure(*runs["upsampler"], settings, work, runs["low"])
    low, up = (load_trained(*runs[name], 1.0, 0, KEEPING) for name in ("low", "upsampler"))
    how = DRAWN.sampler, "learned", 0, 32
    small = draw_images(low, range(70), *how)
    assert small.shape == (70, 1, 8, 8)
    images = draw_images(up, range(70), *how, low=small)
    assert torch.equal(torch.from_numpy(result.arrays["samples"]), images[:64])
    assert {"precision", "recall"} <= result.numbers.keys()


def test_one_step_of_an_enlarging_training_is_the_loss_by_hand():
    """The trainer gives the network the average of the very images of its batch."""
    from core.trainer import Trainer

    images = training_images(DataConfig(images=40))
    trainer = Trainer(replace(CONFIG, data=DataConfig(low=8, images=40)), images, KEEPING)
    seen = []
    trainer.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    trainer.one_step()
    from core.data.images import batch_indices

    indices = torch.from_numpy(batch_indices(40, 8, 0, 0))
    low = to_model(averaged(images, 8).pixels[indices])
    assert torch.equal(seen[0][:, 1:], enlarged(low, 16))


def test_grids_name_the_run_of_the_same_seed():
    words = ["grid=model_mix", "scale=smoke", "seeds=[0,1]"]
    grid = expand(parse(words))
    by_seed = {seed: [c for c in grid.cells if c.seed == seed] for seed in (0, 1)}
    for hybrid, vlb in by_seed.values():
        partners = {a.name: a.partner for a in hybrid.measurements}
        alone = dict.fromkeys(["nll", "terms", "fd"], "")
        assert partners == alone | {"nll_mix": vlb.run_id, "fd_mix": vlb.run_id}
        assert [a.name for a in vlb.measurements] == list(alone)
    ids = [a.id for cells in by_seed.values() for a in cells[0].measurements]
    assert len(set(ids)) == 10  # each seed has its own noise
    two = {c.words: c for c in expand(parse(["grid=two_stage", "scale=smoke"])).cells}
    assert {w: [a.name for a in c.measurements] for w, c in two.items()} == {
        "single": ["fd"],
        "low": [],
        "upsampler": ["fd_two"],
    }
    assert two["upsampler"].measurements[0].partner == two["low"].run_id


def test_partners_are_not_for_the_command_line():
    with pytest.raises(Refused, match="the code sets it"):
        expand(parse(["grid=model_mix", "scale=smoke", "measure.nll.partner=abc"]))
    with pytest.raises(Refused, match=r"measure.nll.ends=0.7 must be in \[0, 0.5\]"):
        expand(parse(["grid=model_mix", "scale=smoke", "measure.nll.ends=0.7"]))


def test_why_a_measurement_with_a_partner_makes_no_sense():
    low, up = DataConfig(size=8), DataConfig(low=8)
    assert "nothing" in not_applicable(replace(CONFIG, data=up), Frechet())
    assert "nothing" in not_applicable(replace(CONFIG, data=up), Likelihood(), True)
    assert not_applicable(replace(CONFIG, data=up), Frechet(), True) is None
    assert "size" in not_applicable(replace(CONFIG, data=low), Frechet())
    assert "no part" in not_applicable(CONFIG, Likelihood(), True)
    assert not_applicable(CONFIG, Likelihood(ends=0.1), True) is None


def two_stage(results: Path, *words: str) -> dict[str, Task]:
    """The grid's tasks, by the row's word, very small."""
    small = ["optim.steps=2", "measure.images=66", "measure.sampler.steps=2", "device=cpu"]
    request = parse(["grid=two_stage", "scale=smoke", f"results={results}", *small, *words])
    tasks = tasks_of(distinct([expand(request)], Runs(results / "runs")), request)
    return {task.words.split()[0]: task for task in tasks}


def test_a_measurement_trains_the_other_run_when_it_is_not_there(tmp_path):
    """In whatever order things are done; and the weights that it needs are kept then."""
    upsampler = two_stage(tmp_path)["upsampler"]
    (low,) = upsampler.partners
    assert low.needs_training
    assert execute(upsampler, COURSE) == "done"
    assert not low.needs_training and low.run.trained
    (asked,) = upsampler.asked
    stored = read_json(upsampler.run.folder / "measurements" / f"{asked.id}.json")
    assert stored["config"]["partner"] == low.run.id


def test_a_training_whose_weights_another_run_needs_is_done_again_if_they_are_gone(tmp_path):
    """At the fraction of the training that is asked for, and while nothing else misses them."""
    words = ["measure.at=0.5"]
    tasks = two_stage(tmp_path, *words)
    assert tasks["low"].also_at == (0.5,)
    assert execute(tasks["low"], COURSE) == "done"
    shutil.rmtree(tasks["low"].run.folder / "checkpoints")
    assert execute(tasks["upsampler"], COURSE) == "done"
    assert snapshot_path(tasks["low"].run.folder, 0.5, 2)
    assert not tasks["upsampler"].missing
    assert two_stage(tmp_path, *words)["low"].also_at == ()  # nobody needs them any more


def test_a_job_waits_for_a_partner_that_another_one_trains(tmp_path):
    """However sure it is that the other lives: nobody else takes its measurements."""
    tasks = two_stage(tmp_path)
    low = tasks["low"].run
    low.folder.mkdir(parents=True)
    claim = claims.acquire(low.claim())
    waited = []

    def report(stage, done, total, words):
        if stage.startswith("waiting"):
            waited.append(stage)
            claim.release()

    assert execute(tasks["upsampler"], Course(report, lambda: False, "until sure")) == "done"
    assert waited and not tasks["upsampler"].missing


def test_a_training_that_others_need_waits_for_whoever_does_it(tmp_path):
    """Else its job would end, and its measurements be released before there are weights."""
    tasks = two_stage(tmp_path)
    low = tasks["low"].run
    low.folder.mkdir(parents=True)
    claim = claims.acquire(low.claim())
    course = Course(lambda *_: claim.release(), lambda: False, "until sure")
    assert execute(replace(tasks["low"], part="training"), course) == "done" and low.trained


def test_progress_of_a_partner_is_progress(tmp_path):
    tasks = two_stage(tmp_path)
    before = jobs._mark(tasks["upsampler"])
    (tasks["low"].run.folder / "checkpoints").mkdir(parents=True)
    (tasks["low"].run.folder / "checkpoints" / "checkpoint-00000001.x.pt").touch()
    assert jobs._mark(tasks["upsampler"]) != before


def test_what_needs_a_run_that_failed_is_left_until_it_is_tried_again(tmp_path, capsys):
    tasks = two_stage(tmp_path)
    tasks["low"].run.folder.mkdir(parents=True)
    tasks["low"].run.error_file().write_text("training diverged\n")
    again = two_stage(tmp_path)
    assert not again["upsampler"].asked and not again["upsampler"].partners
    assert [a.name for a in two_stage(tmp_path, "retry=failed")["upsampler"].asked] == ["fd_two"]


ROWS = [
    RowRun({"stage": "a"}, "1", CONFIG),
    RowRun({"stage": "b"}, "2", replace(CONFIG, diffusion=DiffusionConfig(T=41))),
    RowRun({"stage": "c"}, "3", replace(CONFIG, data=DataConfig(low=8))),
    RowRun({"stage": "b"}, "4", replace(CONFIG, data=DataConfig(size=4))),
]


def asked(name, **settings):
    kind = Likelihood if name == "nll" else Frechet
    return (Asked(name, {}, kind(**settings), "id", {"stage": "b"}),)


def test_networks_that_do_not_fit_together_are_refused():
    with pytest.raises(Refused, match="two networks can be mixed only for the same data"):
        with_partners(asked("nll", ends=0.1), ROWS[0], ROWS[:2])
    with pytest.raises(Refused, match=r"must come from a network of data\.size=8 without"):
        with_partners(asked("fd"), ROWS[2], ROWS[2:])


def test_a_bound_of_averaged_images_is_of_their_size(runs, tmp_path):
    result = measure(*runs["low"], FULL, Work(KEEPING, tmp_path / "low", tmp_path))
    assert result.numbers["images"] == 6
