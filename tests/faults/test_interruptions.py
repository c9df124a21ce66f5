"""Interrupted anywhere, in any way: the same command ends with the same results, bit for bit.

The short form of `make soak`. Programs are forked from one that has everything imported (warm.py);
tests/test_end_to_end.py and the long form start them as people do.
"""

import copy
import json
import shutil
from collections import deque
from itertools import islice

import overtaken
import pytest
import records
import together
from compare import differences
from interruptions import GRID, Grid, Round
from orders import PLACES, RANDOM, SIGNALS, TARGETS, Fault, faults
from overtaken import stopped_beyond_silence
from warm import Warm

STOP = "SIGSTOP, SIGCONT"
# Each signal, each target and each place at least once.
FEW = (
    ("SIGKILL", "worker", "checkpoint", "half written"),
    ("SIGTERM", "worker", "training", "step"),
    ("SIGKILL", "both", "claim", "taken"),
    (STOP, "both", "snapshot", "before replace"),
    ("SIGINT", "launcher", "likelihood", "step"),
    ("SIGKILL", "launcher", "sampling", "step"),
    ("SIGINT", "worker", "part", "before replace"),
    ("SIGKILL", "worker", "measurement", "after replace"),
    ("SIGTERM", "launcher", "record", "before replace"),
    ("SIGKILL", "both", "table", "half written"),
    ("SIGKILL", "launcher", "starting", RANDOM),
)


@pytest.fixture(scope="module")
def warm():
    server = Warm()
    yield server
    server.close()


@pytest.fixture(scope="module")
def grid(warm, tmp_path_factory) -> Grid:
    return Grid(tmp_path_factory.mktemp("grid"), GRID, how=warm.start)


def test_a_grid_that_is_interrupted_in_every_phase_ends_as_if_left_alone(grid, tmp_path):
    assert {few[0] for few in FEW} == set(SIGNALS) and {few[1] for few in FEW} == set(TARGETS)
    assert {PLACES[few[2]] for few in FEW} == set(PLACES.values())
    deck = deque(Fault(n, *few, rest=0.2) for n, few in enumerate(FEW))
    round = Round(grid, tmp_path / "results", deck, len(FEW)).run()
    assert round.wrong == []
    assert {record["n"] for record in round.records} == set(range(len(FEW)))


def test_a_worker_stopped_until_another_machine_took_over_writes_nothing_more(grid, tmp_path):
    fault = Fault(0, STOP, "worker", "training", "step", skip=4)
    round = stopped_beyond_silence(grid, tmp_path / "results", fault, silence=4.0)
    assert round.wrong == [] and len(round.records) == 1


def test_launches_at_the_same_time_train_each_run_once(warm, tmp_path):
    grid = Grid(tmp_path, together.GRID, together.WORDS, warm.start)
    assert together.together(grid, tmp_path / "results", 4) == []


def test_what_is_lost_or_changed_or_left_is_found(grid, tmp_path):
    results = shutil.copytree(grid.alone, tmp_path / "copy")
    assert differences(results, grid.alone) == []
    run = sorted((results / "runs").iterdir())[0]
    measurement = next((run / "measurements").glob("*.json"))
    snapshot = next((run / "checkpoints").glob("snapshot-*"))
    table = next((results / "tables").glob("*.md"))
    changed = json.loads(measurement.read_text())
    changed["result"]["images"] += 1
    for path, content, says in (
        (measurement, json.dumps(changed).encode(), f"another {measurement.name}"),
        (snapshot, snapshot.read_bytes()[:-1], "damaged"),
        (snapshot, None, "other weights"),
        (table, b"|", f"{table.name}: another one"),
        (run / "log.jsonl", 2 * (run / "log.jsonl").read_bytes(), "another log"),
        (run / "owner.json", b"{}", "owner.json: left behind"),
        (run / "error.txt", b"", "error.txt"),
        (run / ".x.1.tmp", b"", ".x.1.tmp: left behind"),
    ):
        before = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True) if content is None else path.write_bytes(content)
        found = differences(results, grid.alone)
        assert len(found) == 1 and says in found[0], (path.name, found)
        path.unlink(missing_ok=True) if before is None else path.write_bytes(before)
    shutil.rmtree(run)
    assert differences(results, grid.alone) == [f"{run.name}: missing"]


def test_a_stage_that_is_finished_twice_is_found(grid, tmp_path):
    round = Round(copy.copy(grid), grid.alone, deque(), 0)
    assert round._finished_twice() == []
    round.faults = tmp_path
    line = json.dumps({"finished": "a/trained", "pid": 1})
    (tmp_path / "journal.jsonl").write_text(f"{line}\n{line}\n")
    assert round._finished_twice() == ["a/trained: finished 2 times"]


def test_faults_are_a_function_of_the_seed_and_come_in_every_kind():
    many = list(islice(faults(3), 200))
    assert many == list(islice(faults(3), 200)) != list(islice(faults(4), 200))
    assert {PLACES[fault.phase] for fault in many} == set(PLACES.values())
    assert {(f.signal, f.target) for f in many} == {(s, t) for s in SIGNALS for t in TARGETS}


def test_the_tables_of_the_page_are_those_of_the_records():
    assert records.with_tables(records.PAGE.read_text()) == records.PAGE.read_text()


def test_the_committed_campaign_is_a_whole_one_in_which_nothing_was_lost():
    found = records.read(records.HERE / "records" / "interruptions.jsonl")
    assert len(found) >= 200 and {record["lost"] for record in found} == {"nothing"}
    kinds = {(record["fault"], record["target"]) for record in found}
    assert {(signal, target) for signal in SIGNALS for target in TARGETS} <= kinds
    assert {record["where"] for record in found} == set(PLACES.values()) | {"everywhere"}
    faults = [record["fault"] for record in found]
    assert "20 launches of the same 30 cells at the same time" in faults
    assert sum(fault.startswith("SIGSTOP for longer") for fault in faults) == len(overtaken.CASES)


def test_the_committed_faults_of_storage_cost_nothing():
    found = records.read(records.HERE / "records" / "storage.jsonl")
    assert {record["lost"] for record in found} == {"nothing"}
    assert len(found) > 100 and sum(record["times"] for record in found) > 2500
