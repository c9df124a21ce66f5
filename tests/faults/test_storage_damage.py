"""Every kind of file that a run keeps, cut short, emptied or with one bit flipped.

The damage is found by a checksum and named, nothing of it is believed, and the same command leaves
the results of a run that was left alone, bit for bit.
"""

import json
import random
import shutil

import numpy as np
import pytest
from storage import (
    assert_same,
    command,
    contents,
    folder_of,
    interrupted,
    leftovers,
    one_row,  # noqa: F401
    steps_logged,
)

from core import checkpoint, parts
from core.errors import Refused
from core.trainer import Trainer
from core.training import RESUME
from experiments import records
from experiments.files import is_damaged, read_json, write_json
from experiments.runs import Run

# kind -> where it is, in a run that is finished or was interrupted on the way
FILES = {
    "finished": {
        "config": "runs/*/config.json",
        "provenance": "runs/*/provenance.json",
        "log": "runs/*/log.jsonl",
        "mark of a finished training": "runs/*/trained",
        "numbers of a measurement": "runs/*/measurements/*.json",
        "arrays of a measurement, samples": "runs/*/measurements/*.npz",
        "final weights": "runs/*/checkpoints/snapshot-00000008.*.pt",
        "snapshot on the way": "runs/*/checkpoints/snapshot-00000004.*.pt",
        "moments of the reference images": "cache/moments-*.npz",
    },
    "training": {
        "config": "runs/*/config.json",
        "log": "runs/*/log.jsonl",
        "newest checkpoint": "runs/*/checkpoints/checkpoint-00000006.*.pt",
        "checkpoint before": "runs/*/checkpoints/checkpoint-00000005.*.pt",
        "snapshot on the way": "runs/*/checkpoints/snapshot-00000004.*.pt",
    },
    "measuring": {
        "part of a measurement": "runs/*/measurements/*.part/*.npz",
        "provenance": "runs/*/provenance.json",
        "log": "runs/*/log.jsonl",
    },
}
STATES = {
    "finished": "each kind of file of a finished run, the cache",
    "training": "each kind of file of an unfinished training",
    "measuring": "each kind of file of an unfinished measurement",
}
# Empty files that hold nothing: the lock of the cache.
NOTHING = ("cache/*.lock",)
# Weights and moments are looked at when something needs them: then a measurement is taken away.
NEEDED_BY = {
    "final weights": "nll",
    "snapshot on the way": "half",
    "moments of the reference images": "frechet",
}
UNREAD = ("checkpoint before",)  # nothing asks for it while the newest one is whole
# The step after which training goes on: that of the last checkpoint that is good.
CONTINUED_FROM = {
    ("training", "newest checkpoint"): 5,
    ("training", "checkpoint before"): 6,
    ("training", "log"): 6,
    ("finished", "log"): 8,
}
CASES = [(state, kind) for state, kinds in FILES.items() for kind in kinds]
HOW = [("flipped", 0), ("cut", 0), ("emptied", 0), ("flipped", 1)]
# Each kind of file is damaged in one way; in the others too among the slow tests.
DAMAGED = [
    pytest.param(*case, *HOW[(i + j) % len(HOW)], marks=pytest.mark.slow if j else ())
    for i, case in enumerate(CASES)
    for j in range(len(HOW))
]


@pytest.fixture(scope="module")
def there(one_row, tmp_path_factory):  # noqa: F811
    """Results folders: finished, stopped in the training, and stopped in a measurement."""
    root = tmp_path_factory.mktemp("there")
    interrupted(root / "training", lambda: steps_logged(root / "training") == 6)
    shutil.copytree(root / "training", root / "measuring")
    interrupted(root / "measuring", lambda: any((root / "measuring").rglob("*.part/*.npz")))
    shutil.copytree(root / "measuring", root / "finished")
    assert command(root / "finished") == 0
    return root


def _files(results) -> set:
    return {path for path in results.rglob("*") if path.is_file()}


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def flip(content: bytes, rng: random.Random) -> bytes:
    place, changed = rng.randrange(8 * len(content)), bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    same = changed.lower() == content.lower()  # 1E-05 is 1e-05
    return flip(content, rng) if same else bytes(changed)


HOW_SAID = {"cut": "cut short", "emptied": "emptied", "flipped": "a bit flipped"}
DAMAGES = {"cut": cut, "emptied": lambda content, rng: b"", "flipped": flip}


def test_no_kind_of_file_is_left_out(there):
    for state, kinds in FILES.items():
        known = {p for kind in (*kinds.values(), *NOTHING) for p in (there / state).glob(kind)}
        rest = {p for kind in FILES["finished"].values() for p in (there / state).glob(kind)}
        assert _files(there / state) <= known | rest
        assert all(list((there / state).glob(pattern)) for pattern in kinds.values())


@pytest.mark.parametrize("state, kind, how, seed", DAMAGED)
def test_damage_is_named_and_what_was_lost_is_made_again(
    state, kind, how, seed, there, tmp_path, capsys, monkeypatch, injected
):
    outcome = "named, made again or restored, bit for bit"
    if kind in UNREAD:  # its damage is not named before it matters
        outcome = "not needed; the results bit for bit"
    injected(HOW_SAID[how], STATES[state], outcome)
    results, rng = tmp_path / "results", random.Random(f"{state} {kind} {how} {seed}")
    shutil.copytree(there / state, results)
    if state == "finished" and kind in NEEDED_BY:
        for path in folder_of(results).glob("measurements/*.json"):
            stored = read_json(path)
            at = "half" if stored["config"]["at"] == 0.5 else stored["metric"]
            if at == NEEDED_BY[kind]:
                path.unlink()
    victim = rng.choice(sorted(results.glob(FILES[state][kind])))
    victim.write_bytes(DAMAGES[how](victim.read_bytes(), rng))
    taken, one_step = [], Trainer.one_step
    monkeypatch.setattr(Trainer, "one_step", lambda self: taken.append(self.step) or one_step(self))
    capsys.readouterr()
    assert command(results) == 0
    said = capsys.readouterr()
    if (state, kind) in CONTINUED_FROM:
        assert taken == list(range(CONTINUED_FROM[state, kind], 8))
    assert kind in UNREAD or f"warning: {victim} is damaged" in said.err, said.err
    assert "Traceback" not in said.err
    assert_same(contents(results), contents(there / "finished"))
    assert leftovers(results) == []
    assert command(results) == 0 and "nothing to do" in capsys.readouterr().out


def test_a_log_and_its_provenance_are_restored_without_training(
    there, tmp_path, monkeypatch, injected
):
    injected("emptied", "log, provenance", "restored without training", 2)
    results = tmp_path / "results"
    shutil.copytree(there / "finished", results)
    folder = folder_of(results)
    before = {name: (folder / name).read_bytes() for name in ("log.jsonl", "provenance.json")}
    monkeypatch.setattr("experiments.execute.train", None)
    for name in before:
        (folder / name).write_bytes(b"")
        assert command(results) == 0
        assert {name: (folder / name).read_bytes() for name in before} == before


def test_when_the_log_and_its_copy_are_both_damaged_the_run_trains_again(
    there, tmp_path, capsys, injected
):
    where = "log and its copy together"
    injected("a bit flipped", where, "trained again, bit for bit")
    results = tmp_path / "results"
    shutil.copytree(there / "finished", results)
    for name in ("log.jsonl", "trained"):
        path = folder_of(results) / name
        path.write_bytes(flip(path.read_bytes(), random.Random(name)))
    assert command(results) == 0
    assert_same(contents(results), contents(there / "finished"))


def test_when_every_checkpoint_is_damaged_the_training_begins_anew(
    there, tmp_path, capsys, injected
):
    where = "all checkpoints together"
    injected("a bit flipped", where, "named, trained anew, bit for bit")
    results = tmp_path / "results"
    shutil.copytree(there / "training", results)
    paths = sorted(results.glob("runs/*/checkpoints/checkpoint-*.pt"))
    for path in paths:
        path.write_bytes(flip(path.read_bytes(), random.Random(path.name)))
    assert command(results) == 0
    said = capsys.readouterr().err
    assert all(str(path) in said for path in paths)
    assert_same(contents(results), contents(there / "finished"))


def test_a_checkpoint_of_a_version_that_kept_no_log_continues(there, tmp_path, capsys):
    results = tmp_path / "results"
    shutil.copytree(there / "training", results)
    checkpoints = folder_of(results) / "checkpoints"
    state = checkpoint.newest(checkpoints, RESUME)
    assert state.pop("log")
    checkpoint.save(checkpoints, RESUME, state["step"], state)
    capsys.readouterr()
    assert command(results) == 0
    assert "warning" not in capsys.readouterr().err
    assert_same(contents(results), contents(there / "finished"))


def test_no_bit_of_a_file_of_numbers_is_flipped_unseen(there, tmp_path, injected):
    source = min(folder_of(there / "finished").glob("measurements/*.json"))
    whole, path = source.read_bytes(), tmp_path / "x.json"
    content = read_json(source)
    assert content["result"]
    cuts = range(0, len(whole) - 1, 7)  # without its last byte, a line end, it says the same
    injected("a bit flipped", "one file of numbers", "all seen", 2000)
    injected("cut short", "one file of numbers", "all seen", len(cuts))
    for bit in random.Random(0).sample(range(8 * len(whole)), 2000):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        seen = is_damaged(path) or read_json(path) == content  # 1E-05 is 1e-05
        assert seen, (bit, bytes(changed[max(0, bit // 8 - 20) : bit // 8 + 20]))
    for length in cuts:
        path.write_bytes(whole[:length])
        assert is_damaged(path), length


def test_a_plausible_number_is_not_believed(tmp_path):
    write_json(tmp_path / "x.json", {"result": {"nll": 3.1}, "last": "a" * 64})
    path = tmp_path / "x.json"
    assert read_json(path) == {"result": {"nll": 3.1}, "last": "a" * 64}
    path.write_text(path.read_text().replace("3.1", "7.1"))
    assert read_json(path) is None and is_damaged(path)
    path.write_text(json.dumps({"result": {"nll": 3.1}, "last": "a" * 64}))  # of an old version
    assert read_json(path)["result"] == {"nll": 3.1} and not is_damaged(path)


def test_arrays_with_any_of_many_bits_flipped_are_never_taken_for_others(there, tmp_path, injected):
    injected("a bit flipped", "one part of a measurement", "not taken for another", 150)
    injected("a bit flipped", "one file of arrays", "refused, named", 50)
    rng, folder = random.Random(3), folder_of(there / "finished")
    part = min((there / "measuring").rglob("*.part/*.npz"))
    whole = parts._load(part)
    path = tmp_path / part.name
    for _ in range(150):
        path.write_bytes(flip(part.read_bytes(), rng))
        found = parts._load(path)
        assert found is None or found.keys() == whole.keys()
        assert found is None or all(np.array_equal(found[key], whole[key]) for key in whole)
    shutil.copytree(folder, tmp_path / "run")
    run, id = Run("x", tmp_path / "run"), min(folder.glob("measurements/*.npz")).stem
    kept = run.arrays(id).read_bytes()
    assert run.has(id)
    for _ in range(50):
        run.arrays(id).write_bytes(flip(kept, rng))
        assert not run.has(id) and run.damaged([id]) == [run.arrays(id)]
    run.arrays(id).unlink()
    assert not run.has(id)


def test_a_checkpoint_with_any_bit_flipped_is_refused(there, tmp_path, injected):
    injected("a bit flipped", "one checkpoint", "refused, named", 30)
    source, rng = min((there / "training").rglob("snapshot-*.pt")), random.Random(4)
    path = tmp_path / source.name
    for _ in range(30):
        path.write_bytes(flip(source.read_bytes(), rng))
        with pytest.raises(Refused, match="damaged or truncated"):
            checkpoint.load(path)


def test_what_is_damaged_is_not_drawn_nor_published(there, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(folder_of(there / "finished"), folder)
    assert len(records.log_of(folder)) == 8
    log = folder / "log.jsonl"
    log.write_bytes(flip(log.read_bytes(), random.Random(5)))
    with pytest.raises(Refused, match=r"log\.jsonl is damaged: run its grid again"):
        records.log_of(folder)
