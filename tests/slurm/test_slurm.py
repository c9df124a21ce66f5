"""A grid on a real SLURM, by the project's own commands: nothing is lost, doubled or changed."""

import json
import os
import re
import subprocess
import sys
import time

import disturbances
import pytest
from daemons import LONGEST, kill_slurmd
from disturbances import as_left_alone, begun
from on_cluster import ONE, PATIENCE, PLACE, ROOT, WHOLE, command


def test_a_grid_on_the_cluster_gives_the_numbers_of_this_machine(cluster, alone):
    """Six runs in arrays of at most LONGEST, two at a time; then nothing is left to do."""
    parallel = "slurm.array_parallelism=2"
    process = cluster.start(*PLACE, *WHOLE, parallel, "watch=true")
    most, names = 0, set()
    while process.poll() is None:
        states = list(cluster.queue().values())
        most = max(most, states.count("RUNNING"))
        names |= set(command("squeue", "--noheader", "--array", "--format=%j").split())
        time.sleep(0.2)
    out = process.communicate()[0]
    assert process.returncode == 0, out + cluster.log()
    ids = re.search(r"submitted 6 jobs: (\d+) (\d+)\n", out)
    assert ids and LONGEST < 6, out
    assert most == 2
    assert any(re.fullmatch(r"schedule_ablation:\w+-\w+-L_\w+-seed-0", name) for name in names), (
        names
    )
    assert cluster.measured() == alone.measured("whole") and len(cluster.measured()) == 12
    assert cluster.weights() == alone.weights("whole") and len(cluster.weights()) == 6
    table = "tables/schedule_ablation.smoke"
    assert len(list((cluster.results / "on").glob(f"{table}*.md"))) == 1
    assert cluster.starts() == 6
    assert "nothing to do" in cluster.run(*PLACE, *WHOLE)


@pytest.mark.parametrize("name", disturbances.ALL)
def test_a_disturbed_training_ends_as_if_it_had_been_left_alone(name, disturbed):
    """Cancelled, requeued, warned, killed: disturbances.py says how; all at the same time."""
    disturbed[name].result(PATIENCE)


def test_a_node_that_fails(cluster, alone):
    """The job begins anew on the other node, from its last checkpoint."""
    (id,) = cluster.submit(*ONE)
    begun(cluster, id)
    node = command("squeue", "--noheader", f"--job={id}", "--format=%N").strip()
    command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        cluster.ended(id)
    finally:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
    as_left_alone(cluster, alone)
    assert cluster.starts() == 1


@pytest.mark.slow
def test_slurmd_killed_and_started_again(cluster, alone, slurm):
    """The job goes on without it, and its end is noticed later."""
    (id,) = cluster.submit(*ONE)
    begun(cluster, id)
    kill_slurmd()
    time.sleep(1)
    slurm("start")
    cluster.ended(id)
    as_left_alone(cluster, alone)


def test_two_launchers_at_once_and_a_third_later(cluster):
    few = (*ONE, "seeds=[0,1,2]", "optim.steps=4")
    both = [cluster.start(*PLACE, *few) for _ in range(2)]
    outs = [process.communicate(timeout=PATIENCE)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert sum("submitted 3 jobs" in out for out in outs) == 1, outs
    later = cluster.run(*PLACE, *few)
    assert "submitted" not in later and "has job" in later
    cluster.ended()
    assert cluster.starts() == 3 and len(cluster.measured()) == 6


def test_a_run_that_fails_is_not_requeued_but_listed_and_can_be_retried(cluster):
    words = (*ONE, "optim.lr=1e30", "optim.steps=40")
    cluster.ended(*cluster.submit(*words))
    listed = cluster.run(*words, "list=true")
    assert "1 failed" in listed and "training diverged" in listed
    assert "Requeued" not in cluster.log() and cluster.starts() == 1
    assert "retry=failed starts it again" in cluster.run(*PLACE, *words, code=1)
    (id,) = cluster.submit(*words, "retry=failed")
    cluster.ended(id)
    assert cluster.starts() == 2


@pytest.mark.slow
def test_measurements_in_jobs_of_their_own_wait_for_their_training(cluster):
    """Three jobs draw a part each of 600 images, and one of them computes the distance."""
    words = (*ONE, "optim.steps=60", "measure.fd.images=600")
    cluster.run(*words, folder="here")
    ids = cluster.submit(*words, "split=true", "split_images=256")
    assert len(ids) == 5  # the training, the likelihood, three for the distance
    seen = {}
    while states := cluster.queue(*ids):
        if states.get(ids[0]) == "RUNNING":
            assert set(states.values()) - {"RUNNING"} <= {"PENDING"}
            assert all(states[id] == "PENDING" for id in ids[1:]), states
        for path in (cluster.results / "on" / "runs").glob("*/owner.*.*.json"):
            if path.exists():
                seen[path.name.split(".")[2]] = json.loads(path.read_text())["job"]
        time.sleep(0.05)
    assert cluster.measured() == cluster.measured("here"), cluster.log()
    assert cluster.weights() == cluster.weights("here")
    assert not list((cluster.results / "on" / "runs").glob("*/measurements/*.part"))
    assert cluster.starts() == 1
    assert len({job for job in seen.values()}) >= 2, seen


def test_measurements_of_two_networks_wait_for_both_trainings(cluster):
    words = (*WHOLE, "grid=model_mix")
    cluster.run(*words, folder="here")
    ids = cluster.submit(*words, "split=true")
    assert len(ids) > 2
    cluster.ended(*ids)
    assert cluster.measured() == cluster.measured("here"), cluster.log()
    assert len(cluster.measured()) == 8  # of each network its own three, and two of both
    assert cluster.starts() == 2  # each network trained once


@pytest.mark.slow
def test_measurements_are_cancelled_when_their_training_fails(cluster):
    ids = cluster.submit(*ONE, "optim.lr=1e30", "optim.steps=40", "split=true")
    cluster.ended(*ids)
    assert not cluster.measured() and cluster.starts() == 1


@pytest.mark.slow
def test_several_runs_in_one_job(cluster, alone):
    ids = cluster.submit(*WHOLE, "pack=3", "slurm.cpus_per_task=2", "slurm.mem_gb=3")
    assert len(ids) == 1 and len(cluster.queue(*ids)) == 2
    cluster.ended(*ids)
    assert cluster.measured() == alone.measured("whole"), cluster.log()
    assert cluster.weights() == alone.weights("whole")


def test_two_processes_train_one_run(cluster, alone):
    """The loss curve is that of one process but for rounding, also across a requeue."""
    words = (*ONE, "slurm.nodes=2")
    (id,) = cluster.submit(*words, MASTER_ADDR="127.0.0.1")
    begun(cluster, id, 100)
    command("scancel", "--signal=USR2", id)
    cluster.ended(id)
    (run,), (other,) = cluster.runs(), alone.runs("one")
    a, b = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (run, other)
    )
    assert [line["step"] for line in a] == [line["step"] for line in b], cluster.log()
    for x, y in zip(a, b):
        assert x["loss"] == pytest.approx(y["loss"], rel=2e-3), x["step"]
    assert json.loads((run / "provenance.json").read_text())["processes"] == 2
    assert len(cluster.measured()) == 2 and cluster.log().count("Requeued job") == 1


@pytest.mark.slow
def test_the_launcher_in_a_job_of_its_own(cluster):
    """sbatch slurm/submit.sbatch, whose own variables must not reach the jobs it submits."""
    few = [word for word in ONE if not word.startswith("optim.steps")]
    few += ["optim.steps=4", "seeds=[0,1]"]
    options = ["--partition=main", "--mem=1G", f"--output={cluster.results}/launcher.log"]
    words = (*PLACE, *few, f"results={cluster.results / 'on'}")
    script = [str(ROOT / "slurm" / "submit.sbatch"), *words]
    submitted = subprocess.run(
        ["sbatch", "--parsable", *options, *script],
        cwd=ROOT,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert submitted.returncode == 0, submitted.stderr
    cluster.ended(submitted.stdout.strip())
    log = (cluster.results / "launcher.log").read_text()
    assert "submitted 2 jobs" in log, log
    cluster.ended()
    assert len(cluster.measured()) == 4 and cluster.starts() == 2


def test_what_sbatch_refuses_is_one_line_and_leaves_nothing(cluster):
    out = cluster.run(*PLACE, *ONE, "slurm.partition=nowhere", code=1)
    assert re.search(r"^error: sbatch refused the jobs: .*invalid partition", out, re.M), out
    assert not list((cluster.results / "on").glob("jobs/*")) and not cluster.runs()


def test_a_time_limit_shorter_than_the_training(limited):
    """One minute, of which SLURM's warning leaves 20 to 50 s."""
    cluster, id, process = limited
    cluster.ended(id)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    log = cluster.log()
    assert log.count("Requeued job") >= 1 and "train: 0 of 2000" in log, log
    assert cluster.starts() == 1
    assert cluster.weights() == cluster.weights("here")
    assert cluster.measured() == cluster.measured("here")
