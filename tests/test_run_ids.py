"""Identity: what a run or a measurement is called must not change by accident.

A change of an id below orphans every result that people have, and the reference results that come
with the code. A new field must be `late`; a change of the numbers must raise `recipe`.
"""

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from core.config import (
    Frechet,
    Housekeeping,
    Likelihood,
    SamplerConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from core.errors import Refused
from experiments import runs
from experiments.claims import acquire
from experiments.files import write_json
from experiments.grid import available, expand
from experiments.overrides import parse, typed
from experiments.runs import SUBMITTED, Run, Runs, digest, label

# Row -> the ids of its runs, seed 0 first.
LAPTOP = {
    "1K linear L_simple": ["88a900fc12", "bca43f7337", "4dbed91b6d"],
    "4K linear L_simple": ["3a8a3f7d9c", "ebda07f7aa", "c241778696"],
    "4K linear L_hybrid": ["948c145c29", "1e81d971cd", "194f9e2c4d"],
    "4K cosine L_simple": ["69ad22ca1d", "950807168a", "07c84f225c"],
    "4K cosine L_hybrid": ["8d76258e07", "f7fc02e5bd", "37da7f15da"],
    "4K cosine L_vlb": ["455bb42d66", "90e59a2075", "5c938ff219"],
}
SMOKE = {
    "1K linear L_simple": ["1f2b163e09"],
    "4K linear L_simple": ["cd4c3f55b4"],
    "4K linear L_hybrid": ["50355c9c45"],
    "4K cosine L_simple": ["ac822a5509"],
    "4K cosine L_hybrid": ["5caab5a562"],
    "4K cosine L_vlb": ["20135d2c88"],
}
# Of seeds 0 and 1. Those of L_simple have sigma^2 = beta, the others learned variances.
MEASUREMENTS = {
    "laptop": [
        {"beta": ["e93c3e70de", "ad1e67eda2"], "learned": ["dd19336742", "27404ea1d6"]},
        {"beta": ["09a8897d54", "fa29bfea3a"], "learned": ["8521bc1565", "7e36e2fe5d"]},
    ],
    "smoke": [
        {"beta": ["7fbd8e6917", "28f082a59e"], "learned": ["39306a6944", "140e674cc3"]},
        {"beta": ["344c665d55", "16bc7094b9"], "learned": ["6e6a1cc117", "3d5e58ae75"]},
    ],
}


def grid(*words: str):
    return expand(parse(["grid=schedule_ablation", *words]))


@pytest.mark.parametrize("scale, ids", [("laptop", LAPTOP), ("smoke", SMOKE)])
def test_the_ids_of_all_runs_are_those_of_published_results(scale, ids):
    seeds = range(len(ids["1K linear L_simple"]))
    cells = grid(f"scale={scale}", f"seeds={list(seeds)}").cells
    assert [cell.seed for cell in cells] == [seed for seed in seeds for _ in ids]
    found = {row: [c.run_id for c in cells if c.words == row] for row in ids}
    assert found == ids
    assert len({cell.run_id for cell in cells}) == len(cells) == 6 * len(seeds)


@pytest.mark.parametrize("scale", ["laptop", "smoke"])
def test_the_ids_of_all_measurements_are_those_of_published_results(scale):
    for cell in grid(f"scale={scale}", "seeds=[0,1]").cells:
        variance = "beta" if "L_simple" in cell.words else "learned"
        assert [asked.name for asked in cell.measurements] == ["nll", "fd"]
        assert [asked.id for asked in cell.measurements] == MEASUREMENTS[scale][cell.seed][variance]


def test_the_digest_of_every_default_is_pinned():
    """A default that changes, or a field that comes without `late`, changes one of these."""
    assert digest(TrainConfig()) == "c03e382f6d"
    assert digest(Likelihood(), "nll") == "e833338fae"
    assert digest(Frechet(), "frechet") == "9ac16c7e82"
    assert digest(Frechet(sampler=SamplerConfig("ddim", 50)), "frechet") == "3d4aad38a5"


def test_an_id_does_not_depend_on_what_leaves_the_numbers_alone():
    keeping = [
        *("device=cpu", "threads=3", "compile=true", "microbatch=4", "log_every=7"),
        *("gradient_checkpointing=true", "channels_last=true"),
        *("checkpoint_seconds=1", "snapshots=[0.5]", "eval_batch=5", "results=elsewhere"),
        *("features_path=inception.pt",),
    ]
    given = {word.split("=")[0] for word in keeping}
    fields = set(Housekeeping.__dataclass_fields__)
    # The content of data_path is what counts (tests/test_grid.py), and the origin of weights is
    # where they are from, not what they are (tests/test_weights.py).
    assert fields - given == {"data_path", "weights"}
    changed, plain = grid(*keeping), grid()
    assert changed.cells == plain.cells


def test_an_id_depends_on_every_field_of_a_training():
    changes = {
        **{"data.name": "fashion", "data.digest": "0", "seed": 1, "recipe": 2},
        **{"diffusion.T": 3999, "diffusion.schedule": "linear", "precision": "bfloat16"},
        **{"objective.name": "vlb", "objective.vlb_weight": 0.1, "objective.history": 3},
        **{"objective.timesteps": "loss_second_moment", "objective.uniform_share": 0.1},
        **{"unet.channels": 8, "unet.channel_mult": [1], "unet.res_blocks": 2, "unet.heads": 2},
        **{"unet.attention": [], "unet.dropout": 0.1, "unet.conditioning": "additive"},
        **{"unet.class_conditional": True, "optim.steps": 1, "optim.batch_size": 1},
        **{"optim.lr": 1e-3, "optim.weight_decay": 0.1, "optim.warmup": 1, "optim.ema": [0.9]},
    }
    fields = {
        f"{name}.{field}" if field else name
        for name, value in to_dict(TrainConfig()).items()
        for field in (value if isinstance(value, dict) else [""])
    }
    assert changes.keys() == fields
    ids = {digest(typed(TrainConfig, [{key: value}], "")) for key, value in changes.items()}
    assert len(ids | {digest(TrainConfig())}) == len(changes) + 1


def test_the_same_value_written_in_another_way_has_the_same_id():
    same = [("lr", "1e-4", "0.0001"), ("ema", "[0.99]", "[0.990]"), ("weight_decay", "0", "0.0")]
    for key, *texts in same:
        given = [parse([f"optim.{key}={text}"]).overrides for text in texts]
        one, other = (digest(typed(TrainConfig, [values], "")) for values in given)
        assert one == other, key


def test_a_digest_does_not_depend_on_the_order_of_a_dictionary(monkeypatch):
    config = grid().cells[4].config
    expected = digest(config)

    def shuffled(values: dict) -> dict:
        items = [(k, shuffled(v) if isinstance(v, dict) else v) for k, v in values.items()]
        return dict(random.Random(1).sample(items, len(items)))

    assert list(shuffled(to_dict(config))) != list(to_dict(config))
    assert digest(from_dict(TrainConfig, shuffled(to_dict(config)))) == expected
    monkeypatch.setattr(runs, "to_dict", lambda config: shuffled(to_dict(config)))
    assert digest(config) == expected


def test_a_measurement_of_another_metric_with_equal_fields_has_another_id():
    assert digest(Likelihood(), "nll") != digest(Likelihood(), "nll_of_samples")
    assert digest(Likelihood(), "nll") != digest(Likelihood(images=999), "nll")


def test_a_folder_is_found_by_its_id_whatever_follows_in_its_name(tmp_path):
    cell = grid("scale=smoke").cells[5]
    run = Runs(tmp_path / "runs").find(cell.run_id, cell.config)
    assert run.folder.name == "20135d2c88-fashion16-T4000-cosine-vlb-s0"
    assert run.folder.name == f"{cell.run_id}-{label(cell.config)}"
    assert run.state == "new" and not run.folder.exists()
    renamed = tmp_path / "runs" / f"{cell.run_id}-my-favourite"
    renamed.mkdir(parents=True)
    run = Runs(tmp_path / "runs").find(cell.run_id, cell.config)
    assert run.folder == renamed


def test_a_folder_made_for_another_configuration_is_refused_naming_the_field(tmp_path):
    config, run = grid().cells[0].config, Run("ad5f5084b8", tmp_path)
    run.check_drift(config)  # an empty folder belongs to nobody yet
    write_json(tmp_path / "config.json", to_dict(config))
    run.check_drift(config)
    drifted = replace(config, unet=replace(config.unet, dropout=0.5))
    with pytest.raises(Refused, match=r"another unet\.dropout \(0\.0 instead of 0\.5\)") as error:
        run.check_drift(drifted)
    assert error.value.code == 1 and "\n" not in str(error.value)
    drifted = replace(config, optim=replace(config.optim, ema=(0.9, 0.99)))
    with pytest.raises(Refused, match=r"another optim\.ema"):
        run.check_drift(drifted)
    stored = to_dict(config) | {"news": 1}
    write_json(tmp_path / "config.json", stored)
    with pytest.raises(Refused, match="another news"):
        run.check_drift(config)


def test_the_state_of_a_run_is_read_off_its_files(tmp_path):
    run = Run("ad5f5084b8", tmp_path / "run")
    assert run.state == "new"
    run.folder.mkdir()
    write_json(run.folder / SUBMITTED, {})
    assert run.state == "new" and run.look(lambda asked: asked is run) == "queued"
    write_json(run.folder / "config.json", {})
    assert run.state == "started"
    for stage in ("", "some-measurement", "some-measurement.256"):
        claim = acquire(run.claim(stage))
        assert run.state == "running" == run.look(lambda run: True)
        claim.release()
        assert run.state == "started"
    (run.folder / "trained").touch()
    assert run.state == "trained"
    run.error_file("b3f0").write_text("too few images\n")
    assert run.state == "failed" and run.error == "too few images\n"
    run.error_file().write_text("diverged\n")
    assert run.state == "failed" and run.error == "diverged\n"


PINNED = yaml.safe_load(Path(__file__).with_name("pinned_ids.yaml").read_text())


def test_every_grid_that_ever_was_is_there_at_every_scale():
    """A study that is taken away, or called otherwise, takes its results with it."""
    assert set(PINNED) == set(available("grids"))
    assert {scale for ids in PINNED.values() for scale in ids} == set(available("scales"))


@pytest.mark.parametrize("grid", available("grids"))
@pytest.mark.parametrize("scale", available("scales"))
def test_the_ids_of_every_grid_at_every_scale_are_as_ever(grid, scale):
    found = expand(parse([f"grid={grid}", f"scale={scale}", "seeds=[0]", "plan=true"]))
    ids = {}
    for cell in found.cells:
        measured = " ".join(item.id for item in cell.measurements).encode()
        ids[cell.words] = [cell.run_id, hashlib.sha256(measured).hexdigest()[:10]]
    assert ids == PINNED[grid][scale]
