"""Weights that come with the code: written, published, read again, measured without training."""

import json

import pytest
import torch

from core import checkpoint, weights
from core.errors import Refused
from core.trained import snapshot_path
from experiments import export, reference, run
from experiments.execute import execute
from experiments.files import read_json, write_json
from experiments.grid import expand
from experiments.overrides import parse
from experiments.run import distinct, tasks_of
from experiments.runs import Runs
from experiments.stages import Course

WORDS = ["scale=smoke", "device=cpu", "optim.steps=2", "measure.nll.images=4", "unet.channels=8"]
WORDS += ["measure.fd.images=66", "measure.fd.sampler.steps=2", "grid=single"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run's results folder."""
    folder = tmp_path_factory.mktemp("source")
    assert run.main([*WORDS, f"results={folder}"]) == 0
    # As if from a clean commit.
    for path in [*folder.glob("runs/*/measurements/*.json"), *folder.glob("runs/*/prov*.json")]:
        record = read_json(path)
        (record.get("provenance") or record)["modified"] = []
        path.write_text(json.dumps(record))
    return folder


@pytest.fixture
def published(source, tmp_path, monkeypatch):
    """The same, published with its weights, as what comes with the code."""
    words = [f"results={source}", f"to={tmp_path / 'reference'}", "weights=[0]", *WORDS]
    export.main(words)
    monkeypatch.setattr(reference, "REFERENCE", tmp_path / "reference")
    return tmp_path / "reference"


def cell_of(folder):
    (cell,) = expand(parse([*WORDS, f"results={folder}"])).cells
    return cell, Runs(folder / "runs").find(cell.run_id, cell.config)


def test_what_is_published_has_no_checkpoint_and_every_measurement(source, published):
    cell, run = cell_of(published)
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    ids = [asked.id for asked in cell.measurements]
    measured = {f"measurements/{id}.{kind}" for id in ids for kind in ("json", "npz")}
    rest = {"config.json", "provenance.json", "log.jsonl", "trained", "weights.safetensors"}
    assert names == measured | rest
    for name in measured:
        assert (run.folder / name).read_bytes() == (cell_of(source)[1].folder / name).read_bytes()


def test_what_is_published_again_is_the_same_files(source, published):
    def content():
        return {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}

    before = content()
    for _ in range(3):  # three orders of the metadata are not all the same by chance
        export.main([f"results={source}", f"to={published}", "weights=[0]", *WORDS])
        assert content() == before


def test_numbers_of_code_that_was_not_committed_are_not_published(source, tmp_path):
    cell, run = cell_of(source)
    path = run.folder / "measurements" / f"{cell.measurements[0].id}.json"
    before, stored = path.read_text(), read_json(path)
    try:
        stored["provenance"]["modified"] = ["M core/x.py"]
        write_json(path, stored)
        export.main([f"results={source}", f"to={tmp_path}", *WORDS])
    finally:
        path.write_text(before)
    found = [path.stem for path in tmp_path.glob("runs/*/measurements/*.json")]
    assert found == [cell.measurements[1].id]


def test_the_average_is_the_snapshots_and_says_what_it_is_of(source, published):
    _, run = cell_of(source)
    snapshot = checkpoint.load(snapshot_path(run.folder, 1.0, 2))
    state = weights.read(cell_of(published)[1].folder / "weights.safetensors")
    assert state["ema"].keys() == {"0"} and "model" not in state
    assert state["config"] == snapshot["config"] and state["images"] == snapshot["images"]
    for name, x in snapshot["ema"]["0"].items():
        assert torch.equal(state["ema"]["0"][name], x)


def do(own, *words):
    """The run with the reference's weights, in this process."""
    request = parse([*WORDS, *words, f"results={own}", "weights=reference"])
    (task,) = tasks_of(distinct([expand(request)], Runs(own / "runs")), request)
    return execute(task, Course(lambda *_: None, lambda: False))


def test_measurements_are_taken_without_training(source, published, tmp_path):
    own = tmp_path / "own"
    assert do(own) == "done"
    cell, mine = cell_of(own)
    for asked in cell.measurements:
        theirs = cell_of(source)[1].measurement(asked.id)["result"]
        assert mine.measurement(asked.id)["result"] == theirs
    assert not (mine.folder / "log.jsonl").exists()
    assert read_json(mine.folder / "provenance.json")["weights"] == "reference"


@pytest.mark.parametrize(
    "word, message",
    [
        ("measure.nll.at=0.5", "has the final average of .* alone"),
        ("measure.nll.ema=-1", "has the final average of .* alone"),
        ("seeds=[1]", "none of run .* come with the code"),
    ],
)
def test_what_the_weights_are_not_enough_for_is_refused(word, message, published, tmp_path):
    with pytest.raises(Refused, match=message):
        do(tmp_path / "own", word)


def test_a_damaged_file_is_said_in_one_line(published):
    path = cell_of(published)[1].folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Refused, match="restore it from git"):
        weights.read(path)
