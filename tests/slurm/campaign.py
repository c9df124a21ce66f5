"""Random disturbances of trainings on a real SLURM, until there have been so many: what is lost?

    python tests/slurm/campaign.py [injections=60] [seed=0]

Rounds of four runs at a time are submitted, disturbed every few seconds, and submitted again when
no job is left, until all are done. Then their weights, measurements and logs are compared with
those of runs that were left alone. Prints the table of docs/cluster.md.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import daemons
from on_cluster import ONE, Cluster, command

WORDS = (*ONE, "seeds=[0,1,2,3]", "optim.steps=1500")


def main(injections: int, seed: int) -> None:
    """Runs the campaign and prints its table; exit code 1 if anything was lost."""
    numbers, done, wrong = random.Random(seed), Counter(), Counter()
    rounds = launches = 0
    with tempfile.TemporaryDirectory() as folder, daemons.running() as ask:
        cluster = Cluster(Path(folder))
        cluster.run(*WORDS, folder="alone")
        while sum(done.values()) < injections:
            rounds += 1
            launches += disturbed_round(Cluster(Path(folder) / str(rounds)), numbers, done, ask)
            wrong += differences(Cluster(Path(folder) / str(rounds)), cluster)
            print(f"round {rounds}: {sum(done.values())} injections", file=sys.stderr)
    print("| injected into running jobs | times |\n| --- | --- |")
    for name, times in sorted(done.items()):
        print(f"| {name} | {times} |")
    print(f"| all, in {4 * rounds} runs and {launches} launches | {sum(done.values())} |")
    for what in ("runs", "measurements", "lines of a log"):
        print(f"| {what} lost, doubled or other than undisturbed | {wrong[what]} |")
    sys.exit(1 if wrong else 0)


def disturbed_round(cluster: Cluster, numbers: random.Random, done: Counter, ask) -> int:
    """Four runs from nothing to their end; the number of launches that it took."""
    launches = 0
    while len(cluster.measured()) < 8:
        if not cluster.queue():
            cluster.submit(*WORDS)
            launches += 1
        time.sleep(numbers.uniform(1, 5))
        for id in held():  # when slurmd was killed while it started a job
            tell("scontrol", "release", id)
        running = [id for id, state in cluster.queue().items() if state == "RUNNING"]
        if running:
            name = numbers.choice(list(KINDS))
            if KINDS[name](cluster, numbers.choice(running), ask):
                done[name] += 1
    cluster.ended()
    return launches


def held() -> list[str]:
    """Jobs that SLURM requeued and holds until somebody releases them."""
    out = command("squeue", "--noheader", "--array", "--format=%i %r")
    return [line.split()[0] for line in out.splitlines() if "requeued held" in line]


def differences(cluster: Cluster, alone: Cluster) -> Counter:
    """What is not as in the undisturbed runs."""
    wrong, there = Counter(), alone.weights("alone")
    wrong["runs"] = sum(cluster.weights().get(run) != there[run] for run in there)
    theirs, ours = alone.measured("alone"), cluster.measured()
    wrong["measurements"] = sum(ours.get(key) != theirs[key] for key in theirs)
    for run, other in zip(cluster.runs(), alone.runs("alone")):
        a, b = (lines(folder) for folder in (run, other))
        wrong["lines of a log"] += sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b))
    return +wrong


def lines(folder: Path) -> list[dict]:
    """A training's log, without what depends on the clock."""
    read = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds_per_step"} for line in read]


def tell(*words: str) -> bool:
    """A command that comes too late when the job has just ended."""
    return subprocess.run(words, capture_output=True).returncode == 0


def send(cluster: Cluster, id: str, number: int) -> list[int]:
    """Sends a signal to the process that holds a claim of the job; its id if there is one."""
    for path in (cluster.results / "on" / "runs").glob("*/owner*.json"):
        try:
            owner = json.loads(path.read_text())
            if owner["job"] == id:
                os.kill(owner["pid"], number)
                return [owner["pid"]]
        except (OSError, ValueError):
            pass
    return []


def stop_for_a_while(cluster: Cluster, id: str, ask) -> bool:
    pids = send(cluster, id, signal.SIGSTOP)
    time.sleep(5)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    return bool(pids)


def node_down(cluster: Cluster, id: str, ask) -> bool:
    node = command("squeue", "--noheader", "--array", f"--job={id}", "--format=%N").split()
    if not node:
        return False
    told = tell("scontrol", "update", f"nodename={node[0]}", "state=down", "reason=campaign")
    time.sleep(8)
    tell("scontrol", "update", f"nodename={node[0]}", "state=resume")
    return told


def slurmd_killed(cluster: Cluster, id: str, ask) -> bool:
    daemons.kill_slurmd()
    time.sleep(1)
    ask("start")
    return True


KINDS = {
    "scancel": lambda cluster, id, ask: tell("scancel", id),
    "scontrol requeue": lambda cluster, id, ask: tell("scontrol", "requeue", id),
    "warning of a time limit (USR2)": lambda cluster, id, ask: tell("scancel", "-s", "USR2", id),
    "SIGKILL of the working process": lambda c, id, ask: bool(send(c, id, signal.SIGKILL)),
    "SIGSTOP of the working process for 5 s": stop_for_a_while,
    "node down": node_down,
    "SIGKILL of both slurmd": slurmd_killed,
}

if __name__ == "__main__":
    given = {"injections": 60, "seed": 0}
    given |= {key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])}
    main(**given)
