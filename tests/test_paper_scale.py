"""The paper's own configurations, as far as a CPU goes: two steps of CIFAR-10's and a measurement.

`make test ARGS="-m slow"` runs what is marked slow here, some minutes on two cores.
"""

import numpy as np
import pytest
from PIL import Image

from core.build import network, training_images
from core.config import Likelihood
from core.measurements import measure
from core.parts import Work
from core.training import read_log, train
from experiments import plan
from experiments.grid import EXTENSIONS, STUDIES, expand
from experiments.overrides import parse
from experiments.run import distinct, tasks_of
from experiments.runs import Runs


@pytest.fixture
def folder(tmp_path):
    """Noise of CIFAR-10's form: too few images to learn anything from, enough to train on."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 13), ("test", 2)):
        for cls in range(10):
            where = tmp_path / "images" / split / f"class{cls}"
            where.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(where / f"{i:03d}.png")
    return tmp_path / "images"


@pytest.mark.slow
def test_cifar10_s_network_trains_and_is_measured_on_the_cpu(folder, tmp_path):
    words = ["grid=schedule_ablation", "scale=cifar10", f"data_path={folder}", "optim.steps=2"]
    words += ["measure.nll.images=2", "seeds=[0]", "device=cpu", "microbatch=16"]
    request = parse([*words, f"results={tmp_path}"])
    cell = next(cell for cell in expand(request).cells if "L_hybrid" in cell.words)
    config, keeping = cell.config, request.housekeeping
    images = training_images(config.data, keeping.data_path)
    model = network(config, images.channels, images.size, images.classes)
    assert sum(p.numel() for p in model.parameters()) == 52_546_438
    (tmp_path / "run").mkdir()
    train(config, images, tmp_path / "run", keeping)
    last = read_log(tmp_path / "run" / "log.jsonl")[-1]
    # A new network predicts no noise at all, of which the mean square is one.
    assert last["step"] == 2 and last["mse"] == pytest.approx(1, abs=0.1)
    settings = next(a.settings for a in cell.measurements if isinstance(a.settings, Likelihood))
    work = Work(keeping, tmp_path / "part", tmp_path / "cache", lambda *_: None, lambda: False)
    found = measure(tmp_path / "run", config, settings, work)
    assert found.numbers["images"] == 2 and np.isfinite(found.numbers["nll"])
    assert found.numbers["evaluations"] == 40


@pytest.mark.parametrize("scale", ["cifar10", "imagenet64"])
@pytest.mark.parametrize("study", STUDIES)
def test_every_study_expands_at_the_paper_s_scales_before_there_is_any_data(study, scale):
    grid = expand(parse([f"grid={study}", f"scale={scale}", "plan=true"]))
    assert grid.cells and all(cell.measurements or cell.row for cell in grid.cells)
    assert all(cell.config.optim.batch_size >= 64 for cell in grid.cells)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["cifar10", "imagenet64"])
@pytest.mark.parametrize("study", [*STUDIES, *EXTENSIONS])
def test_every_study_is_priced_at_the_paper_s_scales(study, scale, tmp_path):
    request = parse([f"grid={study}", f"scale={scale}", "plan=true", "seeds=[0]"])
    grid = expand(request)
    tasks = tasks_of(distinct([grid], Runs(tmp_path)), request)
    prices = [plan.price(task, 100.0, grid.form) for task in tasks]
    assert len(prices) == len({cell.run_id for cell in grid.cells})
    assert all(1e7 < price.parameters < 3e8 for price in prices)
    assert all(1e15 < price.flops["train"] <= price.whole < 1e24 for price in prices)
