"""After a process was killed, or stopped until another took over: what it left, what it may do."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from multiprocessing import Event, Pipe

import pytest

from core import files, parts
from core.training import Interrupted, read_log, train
from experiments import claims, execute, worker
from experiments.execute import Task
from experiments.grid import expand
from experiments.overrides import parse
from experiments.records import training_seconds
from experiments.run import distinct, tasks_of
from experiments.runs import Run, Runs
from experiments.stages import Course
from experiments.tidy import RESUME, tidy

COURSE = Course(lambda *_: None, lambda: False)


@pytest.fixture
def task(tmp_path) -> Task:
    """A run of a few steps and its bound on a few images."""
    words = ["grid=single", "scale=smoke", "device=cpu", "log_every=1", "diffusion.T=30"]
    words += ["optim.steps=6", "measure.nll.images=4", "measure.nll.steps=4"]
    request = parse(words, results=tmp_path)
    (only,) = tasks_of(distinct([expand(request)], Runs(tmp_path / "runs")), request)
    return replace(only, asked=tuple(a for a in only.asked if a.name == "nll"))


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def steps(run: Run) -> list[int]:
    return [line["step"] for line in read_log(run.folder / "log.jsonl")]


def test_what_the_dead_left_is_removed_and_what_the_living_write_stays(tmp_path, dead, monkeypatch):
    run = tmp_path / "runs" / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "measurements" / "done.part").mkdir(parents=True)
    (run / "measurements" / "open.part").mkdir()
    (run / "measurements" / "done.json").write_text("{}")
    (tmp_path / "tables").mkdir()
    places = (run, run / "checkpoints", run / "measurements", tmp_path / "tables")
    living = [files.temporary(place / "x") for place in places]
    for path in living:
        path.touch()
        path.with_name(path.name.replace(str(os.getpid()), str(dead))).touch()
    monkeypatch.setattr(files, "here", lambda: ["another machine"])
    fresh, old = (files.temporary(run / name) for name in ("fresh", "old"))
    monkeypatch.undo()
    for path, age in ((fresh, 60), (old, 7200)):
        path.touch()
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    claims.acquire(run / "owner.json").release()
    claim = claims.acquire(run / "owner.one.json")
    record = json.loads(claim.path.read_text()) | {"pid": dead}
    (run / "owner.two.json").write_text(json.dumps(record))
    (run / "progress.json").touch()

    tidy(tmp_path, [run, tmp_path / "runs" / "not there"])
    kept = {claim.path, run / "progress.json", run / "measurements" / "done.json", fresh, *living}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == kept
    assert [path.name for path in run.rglob("*.part")] == ["open.part"]
    claim.release()
    tidy(tmp_path, [run])
    assert not (run / "progress.json").exists()


def test_a_checkpoint_that_comes_late_is_removed_once_the_training_is_over(task):
    """Its writer was stopped before it gave the file its name, and another has trained the run."""
    folder, checkpoints = task.run.folder, task.run.folder / "checkpoints"
    config = replace(task.config, optim=replace(task.config.optim, steps=3))
    images = execute.training_images(config.data, None)
    with pytest.raises(Interrupted):
        train(config, images, folder, task.housekeeping, stop=lambda: len(steps(task.run)) > 1)
    (late,) = checkpoints.glob(RESUME)
    tidy(folder.parents[1], [folder])
    assert late.exists()  # the training goes on from it
    (folder / "trained").touch()
    claim = claims.acquire(folder / "owner.json")
    tidy(folder.parents[1], [folder])
    assert late.exists()  # somebody is at work
    claim.release()
    (final := checkpoints / late.name.replace("checkpoint", "snapshot")).touch()
    tidy(folder.parents[1], [folder])
    assert final.exists() and not late.exists()


def test_a_worker_whose_launcher_was_killed_fails_nothing(task, capfd):
    ours, theirs = Pipe()
    ours.send((task, "no"))
    ours.close()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        worker.main(theirs, Event(), 1, None)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert task.run.trained and task.run.error is None and task.missing == []
    assert capfd.readouterr().err == ""


def test_a_claim_is_looked_at_again_before_it_is_used_after_a_long_silence(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claims, "BEAT", 1e9)  # the thread that touches it has not come to it yet
    claim = claims.acquire(tmp_path / "owner.json")
    now[0] += claims.SILENCE
    assert claim.held()
    claim.path.unlink()
    other = claims.acquire(claim.path)
    assert not claim.held() and other.held()
    other.release()


def test_who_was_stopped_until_another_took_over_adds_nothing_to_the_log(task, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 1e9)
    overtaken = threading.Event()

    def report(stage, done, total, words):
        """In the middle of the training, as if this process had been stopped for long."""
        if stage == "train" and done == 3 and not overtaken.is_set():
            overtaken.set()
            task.run.claim().unlink()
            assert execute.execute(replace(task, part="training"), COURSE) == "done"
            monkeypatch.setattr(claims, "SILENCE", 0.0)

    course = replace(COURSE, report=report)
    assert execute.execute(replace(task, part="training"), course) == "busy"
    assert overtaken.is_set() and steps(task.run) == [1, 2, 3, 4, 5, 6]


def test_lines_of_a_training_that_another_one_took_over_do_not_come_to_its_log(task):
    def train_alone(progress=lambda *_: None) -> None:
        images = execute.training_images(task.config.data, None)
        train(task.config, images, task.run.folder, task.housekeeping, progress)

    def progress(done, total, words):
        if done == 3:
            train_alone()

    task.run.folder.mkdir(parents=True)
    train_alone(progress)
    assert steps(task.run) == [1, 2, 3, 4, 5, 6]


def test_a_measurement_that_another_one_took_over_is_not_written(task, monkeypatch):
    assert execute.execute(replace(task, part="training"), COURSE) == "done"
    (asked,) = task.asked
    measure = execute.measure

    def overtaken(*given):
        task.run.claim(asked.id).unlink()
        monkeypatch.setattr(claims, "SILENCE", 0.0)
        return measure(*given)

    monkeypatch.setattr(execute, "measure", overtaken)
    assert execute.execute(task, COURSE) == "busy"
    assert not task.run.has(asked.id)


def test_who_helps_ends_when_the_measurement_is_there_before_it_has_looked(task, monkeypatch):
    assert execute.execute(replace(task, part="training"), COURSE) == "done"
    there, claim = [], execute._claim_of_part
    monkeypatch.setattr(Run, "has", lambda self, id: bool(there))
    # Another process writes it between this one's look at the parts and its claim of the first.
    monkeypatch.setattr(execute, "_claim_of_part", lambda *of: there.append(1) or claim(*of))
    monkeypatch.setattr(parts.time, "sleep", lambda seconds: pytest.fail("it waits for nobody"))
    assert execute.execute(replace(task, helping=True), COURSE) == "done"
    assert there and not list(task.run.folder.glob("measurements/*.json"))


def test_the_time_of_an_interrupted_training_is_that_of_all_its_processes(tmp_path):
    """By its log: the first did two steps, the second four; provenance knows the second."""
    lines = [{"step": 1, "seconds_per_step": 3.0}, {"step": 2, "seconds_per_step": 2.0}]
    lines += [{"step": 6, "seconds_per_step": 0.5}]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert training_seconds(tmp_path, {"seconds": 2.0}) == 3.0 + 2.0 + 4 * 0.5
    (tmp_path / "log.jsonl").unlink()
    assert training_seconds(tmp_path, {"seconds": 2.0}) == 2.0
    assert training_seconds(tmp_path, {}) == 0.0
