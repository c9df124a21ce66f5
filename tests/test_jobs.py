"""How a launch becomes jobs, and jobs that submitit runs on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core import checkpoint
from core.config import to_dict
from core.errors import Refused
from experiments import jobs, profiles, progress, submitted
from experiments.arrays import arrays
from experiments.execute import Task
from experiments.files import write_json
from experiments.grid import expand
from experiments.jobs import Job, Signals
from experiments.overrides import parse
from experiments.run import distinct, tasks_of
from experiments.runs import SUBMITTED, Runs

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    *("grid=single", "scale=smoke", "device=cpu", "threads=1", "optim.steps=4", "diffusion.T=30"),
    *("measure.nll.images=4", "measure.fd.images=66", "measure.fd.sampler.steps=2"),
)


def run(tmp_path: Path, *words: str, folder: str = "on", code: int = 0) -> str:
    """run.py as a program; what it prints."""
    last = {word.partition("=")[0]: word for word in words}.values()
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "experiments" / "run.py"),
            *last,
            f"results={tmp_path / folder}",
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def measured(tmp_path: Path, folder: str) -> dict[str, dict]:
    found = sorted((tmp_path / folder / "runs").glob("*/measurements/*.json"))
    return {path.stem: json.loads(path.read_text())["result"] for path in found}


def weights(tmp_path: Path, folder: str) -> list[str]:
    return sorted(path.name for path in (tmp_path / folder).rglob("snapshot*.pt"))


def tasks(tmp_path: Path, *words: str) -> list[Task]:
    request = parse(["grid=schedule_ablation", "scale=smoke", *words], results=tmp_path)
    return tasks_of(distinct([expand(request)], Runs(tmp_path / "runs")), request)


def shaped(some: list[Task], **changed) -> list:
    settings = {"pack": 1, "split": False, "share": 10**6, "longest": 1000, "at_once": 8}
    return arrays("grid", some, **(settings | changed))


def words_of(array) -> list[str]:
    return [job.tasks[0].words for job in array.jobs]


def test_a_launch_is_one_array_of_a_job_for_each_run(tmp_path):
    some = tasks(tmp_path)
    (array,) = shaped(some)
    assert [job.tasks for job in array.jobs] == [(task,) for task in some]
    assert array.jobs[4].title == "grid:4K-cosine-L_hybrid-seed-0"
    assert (array.after, array.behind, array.at_once) == (None, None, 8)


def test_long_launches_are_chunked_and_share_the_limit(tmp_path):
    some = tasks(tmp_path)
    chunks = shaped(some, longest=2)
    assert [len(array.jobs) for array in chunks] == [2, 2, 2]
    assert [array.at_once for array in chunks] == [3, 3, 2]
    assert [array.behind for array in chunks] == [None] * 3
    # Fewer at a time than arrays: one begins behind another, and the limit holds.
    chunks = shaped(some, longest=2, at_once=2)
    assert [array.at_once for array in chunks] == [1, 1, 1]
    assert [array.behind for array in chunks] == [None, None, 0]
    (only,) = {array.at_once for array in shaped(some, longest=1, at_once=1)}
    assert only == 1


def test_packed_runs_share_a_job(tmp_path):
    (array,) = shaped(tasks(tmp_path), pack=4)
    assert [len(job.tasks) for job in array.jobs] == [4, 2]
    assert array.jobs[0].title.endswith("+3") and array.jobs[0].side_by_side == 4


def test_split_launches_measure_each_run_after_its_own_training(tmp_path):
    some = tasks(tmp_path, "measure.fd.images=600")
    few = replace(some[0], asked=some[0].asked[:1])
    trained = replace(some[5], run=some[5].run)
    trained.run.folder.mkdir(parents=True)
    done = [few, *some[1:5]]
    first, *rest = shaped(done, split=True, share=256)
    assert {job.tasks[0].part for job in first.jobs} == {"training"}
    assert words_of(first)[-1] == few.words, "who has fewest measurements comes last"
    assert [len(array.jobs) for array in rest] == [5, 4, 4, 4]
    for array in rest:
        assert array.after == 0
        for job, training in zip(array.jobs, first.jobs):
            (task,) = job.tasks
            assert task.run == training.tasks[0].run and task.part == "measurements"
            assert len(task.asked) == 1 and task.helping == (task.asked[0].name == "fd")
    # Trainings may take the limit, and so may measurements.
    assert first.at_once == 8 and sum(array.at_once for array in rest) == 8


def test_split_launches_measure_what_is_trained_at_once(tmp_path):
    some = tasks(tmp_path)
    made = some[2]
    write_json(made.run.folder / "config.json", to_dict(made.config))
    (made.run.folder / "trained").touch()
    checkpoint.save(made.run.folder / "checkpoints", "snapshot", 20, {})
    assert not made.needs_training
    arrays = shaped([some[1], made], split=True)
    assert [(words_of(a), a.after) for a in arrays] == [
        ([some[1].words], None),
        ([f"{some[1].words} nll"], 0),
        ([f"{some[1].words} fd"], 0),
        ([f"{made.words} nll", f"{made.words} fd"], None),
    ]


@pytest.mark.parametrize("name", profiles.available())
def test_every_profile_is_what_submitit_takes(name, tmp_path):
    profile = profiles.load(name, {})
    import submitit

    executor = submitit.AutoExecutor(tmp_path, cluster="debug")
    executor.update_parameters(**profile.parameters)
    if profile.cluster == "slurm":
        from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

        known = SlurmExecutor._equivalence_dict()
        own = {k.removeprefix("slurm_"): v for k, v in profile.parameters.items()}
        own = {known.get(key, key): value for key, value in own.items()}
        text = _make_sbatch_string("x", tmp_path, **own)
        assert "--requeue" in text and "--signal=USR2@" in text
    assert profiles.titles()[name]


@pytest.mark.parametrize(
    "name, overrides, message",
    [
        ("gpuu", {}, "there is no slurm/gpuu.yaml; .*Did you mean 'gpu'"),
        ("gpu", {"partitoin": "x"}, "slurm.partitoin: .*Did you mean 'partition'"),
        ("gpu", {"timeout_min": "long"}, "slurm.timeout_min=long: give int"),
        ("gpu", {"timeout_min": 2}, "leaves no time to work"),
        ("gpu", {"nodes": 0}, "nodes=0: at least 1"),
        ("gpu", {"setup": "module load x"}, "give a list of strings"),
        ("gpu", {"mem_gb": -1}, "not negative"),
        ("gpu", {"cluster": "moon"}, "slurm.cluster=moon: choose one of slurm, local, debug"),
        ("gpu", {"array_parallelism": 0}, "at least 1"),
    ],
)
def test_mistakes_in_a_profile_are_one_line(name, overrides, message):
    with pytest.raises(Refused, match=message) as error:
        profiles.load(name, overrides)
    assert "\n" not in str(error.value)


def test_the_command_line_changes_lines_of_a_profile():
    profile = profiles.load("gpu", {"partition": "a100", "timeout_min": 60, "gpus_per_node": 2})
    assert profile.parameters["slurm_partition"] == "a100"
    assert profile.parameters["timeout_min"] == 60 and profile.parameters["gpus_per_node"] == 2


@pytest.mark.parametrize("words", [("slurm.timeout_min=5",), ("pack=2",), ("split=true",)])
def test_words_about_jobs_need_a_place_for_jobs(words, tmp_path):
    assert "give on=PROFILE too" in run(tmp_path, *TINY, *words, code=2)


def test_runs_side_by_side_do_not_go_with_runs_of_several_processes(tmp_path):
    words = ("on=local", "pack=2", "slurm.tasks_per_node=2")
    assert "choose one of the two" in run(tmp_path, *TINY, *words, code=2)
    assert not (tmp_path / "on" / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("on=local", "split=true", "split_images=256"),
        pytest.param(("on=debug",), marks=pytest.mark.slow),
    ],
)
def test_jobs_on_this_machine_give_the_numbers_of_one_process(words, tmp_path):
    more = ("measure.fd.images=300",)
    run(tmp_path, *TINY, *more, folder="here")
    out = run(tmp_path, *TINY, *more, *words)
    assert measured(tmp_path, "on") == measured(tmp_path, "here") != {}, out
    assert weights(tmp_path, "on") == weights(tmp_path, "here") != []
    assert "nothing to do" in run(tmp_path, *TINY, *more, *words)


@pytest.mark.slow
def test_two_processes_of_this_machine_train_one_run(tmp_path):
    run(tmp_path, *TINY, folder="here")
    out = run(tmp_path, *TINY, "on=local", "slurm.tasks_per_node=2")
    (record,) = (tmp_path / "on" / "runs").glob("*/provenance.json")
    assert json.loads(record.read_text())["processes"] == 2, out
    ours, theirs = measured(tmp_path, "on"), measured(tmp_path, "here")
    assert ours.keys() == theirs.keys() and len(ours) == 2
    for id in ours:
        assert {k for k in ours[id]} == {k for k in theirs[id]}
        for key in ("nll", "frechet"):
            assert ours[id].get(key, 0) == pytest.approx(theirs[id].get(key, 0), rel=1e-3)


def test_a_failing_job_on_this_machine_is_said_in_one_line(tmp_path):
    out = run(tmp_path, *TINY, "optim.lr=1e30", "optim.steps=40", "on=local", "split=true", code=1)
    assert "training diverged" in out
    assert "1 failed" in run(tmp_path, *TINY, "optim.lr=1e30", "optim.steps=40", "list=true")


def test_ctrl_c_lets_jobs_on_this_machine_save(tmp_path):
    words = (*TINY, "optim.steps=100000", "on=local", f"results={tmp_path / 'on'}")
    last = {word.partition("=")[0]: word for word in words}.values()
    command = [sys.executable, str(ROOT / "experiments" / "run.py"), *last]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 120
    while not list((tmp_path / "on").rglob("progress.json")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert len(list((tmp_path / "on").rglob("checkpoint-*.pt"))) == 1
    assert not list((tmp_path / "on" / "runs").rglob("owner*.json"))


def test_signals_ask_to_stop_and_remember_the_warning():
    called = []
    before = signal.signal(signal.SIGUSR2, lambda *_: called.append("submitit's"))
    try:
        with Signals() as signals:
            assert not signals.stop()
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.stop() and not signals.warned
            os.kill(os.getpid(), signal.SIGUSR2)
            assert signals.warned and called == []
            with pytest.raises(SystemExit):
                signals.requeue()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert called == ["submitit's", "submitit's"]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_what_asks_for_the_requeue_survives_the_signal_that_answers_it():
    """SLURM's TERM to all of the job's processes, before scontrol has come to its end."""
    scontrol, ended = ["sh", "-c", "kill -TERM $$; exit 0"], []
    assert subprocess.call(scontrol) == -signal.SIGTERM
    terminated = signal.getsignal(signal.SIGTERM)
    before = signal.signal(signal.SIGUSR2, lambda *_: ended.append(subprocess.call(scontrol)))
    try:
        with Signals() as signals, pytest.raises(SystemExit):
            signals.requeue()
        assert ended == [0] and signal.getsignal(signal.SIGTERM) == terminated
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_job_that_gets_nothing_done_is_not_requeued_for_ever(tmp_path):
    some = tasks(tmp_path)[:2]
    for task in some:
        (task.run.folder / "checkpoints").mkdir(parents=True)
    job = Job("job", tuple(some))
    for _ in range(jobs.STALLS - 1):
        job._refuse_stalling()
    (some[1].run.folder / "checkpoints" / "checkpoint-00000007.0.pt").touch()
    for _ in range(jobs.STALLS - 1):
        job._refuse_stalling()
    with pytest.raises(Refused, match="5 allocations in a row ended before anything was done"):
        job._refuse_stalling()
    assert some[0].run.state == "failed"
    job._refuse_stalling()  # who tries again begins to count again


def test_what_is_in_the_queue_is_not_submitted_again(tmp_path, monkeypatch):
    """squeue's answer decides, also about a claim whose job is gone."""
    (tmp_path / "squeue").write_text("#!/bin/sh\nprintf '71_0\\n71_2\\n90\\n'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    some = tasks(tmp_path)
    for task, ids in zip(some, (["71_0"], ["71_1"], ["71_1", "90"], ["71"])):
        task.run.folder.mkdir(parents=True)
        submitted.note(task.run, "slurm", ids)
    queue = submitted.Queue(strict=True)
    assert [queue.holds(task.run) for task in some] == [True, False, True, False, False, False]
    assert submitted.jobs_of(some[2].run) == ["71_1", "90"]
    foreign = {"token": "x", "host": "elsewhere", "pid": 1, "seen_from": ["elsewhere"]}
    write_json(some[1].run.claim(), foreign | {"job": "71_1"})
    write_json(some[3].run.claim(), foreign | {"job": "71_2"})
    some[4].run.folder.mkdir()
    write_json(some[4].run.claim("a"), foreign)
    assert [queue.works_on(task.run) for task in some] == [False, False, False, True, True, False]
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'no controller' >&2; exit 1\n")
    with pytest.raises(Refused, match="no controller"):
        submitted.Queue(strict=True).holds(some[0].run)
    assert not submitted.Queue().holds(some[0].run)
    (tmp_path / "squeue").write_text("#!/bin/sh\necho >&2; exit 3\n")
    with pytest.raises(Refused, match=r"squeue does not answer .*exit status 3"):
        submitted.Queue(strict=True).holds(some[0].run)


def test_a_job_of_this_machine_is_known_by_its_process_and_not_by_its_number(tmp_path):
    some = tasks(tmp_path)
    for task in some[:2]:
        task.run.folder.mkdir(parents=True)
        submitted.note(task.run, "local", [str(os.getpid())])
    record = json.loads((some[1].run.folder / SUBMITTED).read_text())
    record["processes"][0]["started"] = "long ago"  # who had the number before
    write_json(some[1].run.folder / SUBMITTED, record)
    assert [submitted.Queue().holds(task.run) for task in some[:3]] == [True, False, False]


def test_a_batch_that_the_processes_of_a_run_cannot_share_is_refused_at_once(tmp_path):
    words = ("on=local", "slurm.tasks_per_node=3", "optim.batch_size=16")
    out = run(tmp_path, *TINY, *words, code=2)
    assert "optim.batch_size=16 cannot be shared by 3 processes" in out
    assert not (tmp_path / "on" / "runs").exists()


@pytest.mark.slow
def test_starting_a_job_leaves_the_failures_of_others(tmp_path):
    """Three runs one after the other, of which the first fails."""
    words = (*TINY, "seeds=[0,1,2]", "optim.lr=1e30", "optim.steps=40", "on=local")
    run(tmp_path, *words, "slurm.array_parallelism=1", code=1)
    assert "3 failed" in run(tmp_path, *words, "list=true")


@pytest.mark.slow
def test_a_failure_of_a_job_is_kept_also_if_mending_its_cause_would_be_enough(tmp_path):
    words = (*TINY, "on=local")
    run(tmp_path, *words)
    (run_folder,) = (tmp_path / "on" / "runs").glob("*")
    for path in run_folder.glob("measurements/*"):
        path.unlink()
    (path,) = run_folder.glob("checkpoints/snapshot*")
    state = checkpoint.load(path)
    state["config"] = json.dumps(json.loads(state["config"]) | {"seed": 1})
    snapshot = checkpoint.save(path.parent, "snapshot", state["step"], state)
    out = run(tmp_path, *words, code=1)
    assert "another configuration" in out and "1 failed" in run(tmp_path, *TINY, "list=true")
    snapshot.unlink()
    run(tmp_path, *words, "retry=failed")
    assert len(measured(tmp_path, "on")) == 2


def test_progress_is_written_now_and_then_and_removed(tmp_path, monkeypatch):
    now = iter([0.0, 1.0, 5.0, 15.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100 + next(now))
    noted = progress.Progress(tmp_path / "progress.json")
    noted.note("train", 10, 100, "")
    assert progress.read(tmp_path)[0].left is None
    noted.note("train", 11, 100, "")
    assert progress.read(tmp_path)[0].done == 10
    noted.note("train", 20, 100, "loss 0.1")
    (seen,) = progress.read(tmp_path)
    assert (seen.key, seen.share, seen.words, seen.left) == ("train", 0.2, "loss 0.1", 40.0)
    noted.end()
    assert progress.read(tmp_path) == []


def test_a_grid_is_followed_without_starting_anything(tmp_path):
    out = run(tmp_path, *TINY, "watch=true", code=1)
    assert "nobody works on it" in out and not (tmp_path / "on" / "runs").exists()
