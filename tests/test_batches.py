"""Batches from memory, from a mapped file, and made ahead: the same bits."""

import gc
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up import encoded, fill, noise, run

from core import batches as module
from core.ahead import Ahead
from core.batches import batches
from core.config import (
    DataConfig,
    DiffusionConfig,
    Housekeeping,
    ObjectiveConfig,
    OptimConfig,
    TrainConfig,
    UNetConfig,
)
from core.data.images import Images, averaged
from core.data.prepared import SPLITS, UNKNOWN, Prepared, read_header
from core.data.sources import load
from core.gan_trainer import GANTrainer
from core.trainer import Trainer
from core.training import read_log
from experiments.execute import execute
from experiments.grid import expand
from experiments.overrides import parse
from experiments.run import distinct, tasks_of
from experiments.runs import Runs
from experiments.stages import Course

CPU = torch.device("cpu")
SMALL = TrainConfig(
    diffusion=DiffusionConfig(T=30),
    unet=UNetConfig(
        channels=16, channel_mult=(1, 2), res_blocks=1, attention=(4,), class_conditional=True
    ),
    optim=OptimConfig(steps=6, batch_size=8, lr=1e-3, ema=(0.5,)),
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same 120 images of 16x16 in a folder and in a prepared file."""
    there = tmp_path_factory.mktemp("data")
    files = {f"{'ab'[i % 2]}/{i:03}.png": encoded(noise(16, 16)) for i in range(120)}
    run(fill(there / "some", files), there / "some.images")
    return str(there / "some"), str(there / "some.images")


@pytest.mark.parametrize("by", [0, 1, 3])
def test_what_is_made_ahead_is_what_would_be_made_in_time(by):
    made = []

    def make(number):
        made.append((number, threading.current_thread() is threading.main_thread()))
        return number * number

    ahead = Ahead(make, by)
    asked = [0, 1, 2, 7, 8, 9, 3, 4]  # a resumed run begins somewhere else
    assert [ahead(number) for number in asked] == [number * number for number in asked]
    assert {alone for _, alone in made} == {by == 0}
    if by == 0:
        assert [number for number, _ in made] == asked


def test_a_failure_is_raised_where_its_number_is_asked_for():
    def make(number):
        if number == 2:
            raise ValueError("no such batch")
        return number

    ahead = Ahead(make, 2)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(ValueError, match="no such batch"):
        ahead(2)
    assert ahead(3) == 3


def test_the_thread_ends_with_what_it_works_for(sources):
    def alive():
        gc.collect()
        return [t for t in threading.enumerate() if t.name.startswith("ahead")]

    feed = batches(SMALL, load("folder", "train", sources[1]), range(8), CPU)
    feed = Ahead(feed.make, 2)
    feed(0)
    (thread,) = alive()
    del feed
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("ahead", [False, True])
def test_a_mapped_file_gives_the_batches_of_the_folder(ahead, sources):
    feeds = []
    for path in sources:
        images = load("folder", "train", path)
        feeds.append(batches(SMALL, images, range(2, 6), CPU, averaged(images, 8)))
    if ahead:
        feeds[1] = Ahead(feeds[1].make, module.AHEAD)
    for number in (0, 1, 2, 50, 51):  # 51: over the end of an epoch
        one, other = (feed(number) for feed in feeds)
        assert one.x0.shape == (4, 1, 16, 16) and one.low.shape == (4, 1, 8, 8)
        assert all(torch.equal(a, b) for a, b in zip(one, other))
        part = one.part(slice(1, 3), CPU)
        assert torch.equal(part.eps, other.eps[1:3]) and torch.equal(part.label, other.label[1:3])


@pytest.mark.parametrize("objective", ["hybrid", "gan"])
def test_a_training_ahead_on_a_mapped_file_is_the_plain_one_bit_for_bit(objective, sources):
    config = replace(SMALL, objective=ObjectiveConfig(objective))
    if objective == "hybrid":
        config = replace(config, data=DataConfig("folder", low=8))
    kind, keeping = {"gan": GANTrainer}.get(objective, Trainer), Housekeeping("cpu", microbatch=3)
    plain = kind(config, load("folder", "train", sources[0]), keeping)
    ahead = kind(config, load("folder", "train", sources[1]), keeping)
    ahead.batches = Ahead(ahead.batches.make, 2)
    for _ in range(4):
        plain.one_step()
        ahead.one_step()
    for a, b in zip(plain.model.parameters(), ahead.model.parameters()):
        assert torch.equal(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gets_the_batches_of_the_cpu(sources):
    gpu = torch.device("cuda")
    images = load("folder", "train", sources[1])
    plain = batches(SMALL, images, range(8), CPU, averaged(images, 8))
    pinned = batches(SMALL, images, range(8), gpu, averaged(images, 8))
    for number in range(20):
        one, other = plain(number), pinned(number)
        assert all(x.is_pinned() for x in other)
        on_gpu = other.part(slice(0, 8), gpu)
        del other
        assert all(torch.equal(a, b.cpu()) for a, b in zip(one, on_gpu))


def test_a_file_larger_than_the_memory_is_mapped_and_not_read(tmp_path):
    """61 GB of zeros, of which the disk holds a page."""
    unknown = dict.fromkeys(SPLITS, UNKNOWN)
    made = {"source": "made up", "options": {}}
    header = Prepared(3, 64, (), {"train": 5_000_000, "test": 10}, unknown, made)
    path = tmp_path / "large.images"
    path.write_bytes(header.encoded())
    os.truncate(path, header.bytes)

    def own():  # memory of this process alone, in bytes
        status = Path("/proc/self/status").read_text().split()
        return 1024 * int(status[status.index("RssAnon:") + 1])

    before = own() if Path("/proc/self/status").exists() else None
    images = load("folder", "train", str(path))
    assert len(images) == 5_000_000 and images.digest() == UNKNOWN[:16]
    assert (images.batch([0, 4_999_999, 2_500_000]) == -1).all()
    if before is not None:
        assert own() - before < 50e6


def test_averages_of_many_images_are_those_of_each(monkeypatch):
    images = Images("noise", torch.from_numpy(noise(10, 3, 8, 8)), None, 0)
    whole = averaged(images, 4)
    monkeypatch.setattr("core.data.images.PIECE", 3)
    assert torch.equal(averaged(images, 4).pixels, whole.pixels)
    means = images.pixels.double().view(10, 3, 4, 2, 4, 2).mean(dim=(3, 5))
    assert torch.equal(whole.pixels, (means + 0.5).floor().to(torch.uint8))


def test_a_study_on_a_prepared_file_gives_the_numbers_of_the_folder(sources, tmp_path):
    """Log and measurements; the runs are named after the content of either."""
    found, ids = [], []
    for number, path in enumerate(sources):
        words = ["grid=single", "scale=smoke", "device=cpu", "data.name=folder", "log_every=5"]
        words += ["measure.fd.images=66", "measure.fd.sampler.steps=2", "measure.nll.images=8"]
        request = parse([*words, f"data_path={path}", f"results={tmp_path / str(number)}"])
        (task,) = tasks_of(distinct([expand(request)], Runs(request.results / "runs")), request)
        assert execute(task, Course(lambda *said: None, lambda: False)) == "done"
        log = [{**line, "seconds_per_step": 0} for line in read_log(task.run.folder / "log.jsonl")]
        measured = [task.run.measurement(asked.id)["result"] for asked in task.asked]
        assert len(log) == 4 and {"nll", "frechet"} <= measured[0].keys() | measured[1].keys()
        found.append((log, measured))
        ids.append((task.run.id, task.config.data.digest))
    assert found[0] == found[1]
    assert ids[1][1] == read_header(Path(sources[1])).digest and ids[0] != ids[1]
