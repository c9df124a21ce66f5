"""What may happen to a training on a cluster, each on a training of its own.

Each function is given a results folder and the undisturbed training, done on this machine, whose
last snapshot has its content's digest in its name.
"""

import json
import os
import signal

from on_cluster import ONE, command, until


def begun(cluster, id, steps=1):
    """Waits until the only run of a job has a checkpoint of so many steps."""
    until(lambda: cluster.steps() >= steps or not cluster.queue(id), say=cluster.log)
    assert cluster.queue(id), cluster.log()
    return cluster.steps()


def as_left_alone(cluster, alone):
    """Nothing is lost or changed, and no claim or half-written file is left."""
    assert cluster.weights() == alone.weights("one"), cluster.log()
    assert cluster.measured() == alone.measured("one")
    names = [path.name for path in (cluster.results / "on" / "runs").rglob("*")]
    assert not [
        n for n in names if n.startswith(("owner", "progress", "error", "requeued")) or "tmp" in n
    ]


def cancelled(cluster, alone):
    (id,) = cluster.submit(*ONE)
    steps = begun(cluster, id)
    command("scancel", id)
    cluster.ended(id)
    assert steps <= cluster.steps() < 400
    assert "1 started" in cluster.run(*ONE, "list=true")
    (id,) = cluster.submit(*ONE)
    cluster.ended(id)
    as_left_alone(cluster, alone)
    assert cluster.starts() == 1


def requeued(cluster, alone):
    """By hand, which sends TERM."""
    (id,) = cluster.submit(*ONE)
    begun(cluster, id)
    command("scontrol", "requeue", id)
    cluster.ended(id)
    as_left_alone(cluster, alone)


def warned(cluster, alone):
    """USR2, as before a time limit or a preemption; twice."""
    (id,) = cluster.submit(*ONE, "checkpoint_seconds=1000")
    for _ in range(2):
        before = cluster.steps()
        until(lambda: cluster.queue(id).get(id) == "RUNNING" and "train" in progress(cluster))
        command("scancel", "--signal=USR2", id)
        until(lambda before=before: cluster.steps() > before or not cluster.queue(id))
        until(lambda: cluster.queue(id).get(id) != "RUNNING")
    cluster.ended(id)
    as_left_alone(cluster, alone)
    assert cluster.log().count("Requeued job") == 2 and cluster.starts() == 1


def progress(cluster) -> str:
    return "".join(path.read_text() for run in cluster.runs() for path in run.glob("progress.json"))


def killed(cluster, alone):
    """SIGKILL of the process that trains, which can tell nobody."""
    (id,) = cluster.submit(*ONE)
    steps = begun(cluster, id)
    owner = json.loads((cluster.runs()[0] / "owner.json").read_text())
    assert owner["job"] == id
    os.kill(owner["pid"], signal.SIGKILL)
    cluster.ended(id)
    assert (cluster.runs()[0] / "owner.json").exists() and cluster.steps() >= steps
    (id,) = cluster.submit(*ONE)
    cluster.ended(id)
    as_left_alone(cluster, alone)
    assert cluster.starts() == 1


ALL = {f.__name__: f for f in (cancelled, requeued, warned, killed)}
