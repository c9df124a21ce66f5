"""What the tests do with a cluster: the project's own commands, SLURM's, and looking."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds for anything on the cluster; on quiet cores nothing takes a third of it

# A job of this cluster; the warning before a time limit comes 10 s ahead.
PLACE = (
    *("on=cpu", "slurm.partition=main", "slurm.cpus_per_task=1", "slurm.mem_gb=1.5"),
    *("slurm.timeout_min=10", "slurm.signal_delay_s=10"),
)
# One training of a small network that takes some seconds, with two checkpoints in each of them.
ONE = (
    *("grid=single", "scale=smoke", "device=cpu", "threads=1", "diffusion.T=30", "log_every=20"),
    *("optim.steps=400", "optim.batch_size=4", "unet.channels=8", "unet.channel_mult=[1]"),
    *("unet.attention=[]", "checkpoint_seconds=0.5", "measure.nll.images=4"),
    *("measure.fd.images=66", "measure.fd.sampler.steps=2"),
)
# The paper's first study, as small as it can be: six runs.
WHOLE = (
    *("grid=schedule_ablation", "scale=smoke", "device=cpu", "threads=1", "optim.steps=4"),
    *("measure.nll.images=4", "measure.fd.images=66", "measure.fd.sampler.steps=2"),
    *("unet.channels=8", "unet.channel_mult=[1]", "unet.attention=[]"),
)
# ONE, so long that its time limit ends it before.
LONG = (*ONE, "optim.steps=2000", "log_every=500", "checkpoint_seconds=1000")


@dataclass(frozen=True)
class Cluster:
    """A folder of results, and what happens to it."""

    results: Path

    def start(self, *words: str, folder: str = "on", **env: str) -> subprocess.Popen:
        """run.py with words, of which the last one with a key counts, and a results folder."""
        last = {word.partition("=")[0]: word for word in words}.values()
        command = [sys.executable, str(ROOT / "experiments" / "run.py"), *last]
        command.append(f"results={self.results / folder}")
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=os.environ | env, cwd=ROOT, **pipe)

    def run(self, *words: str, folder: str = "on", code: int = 0, **env: str) -> str:
        """As `start`; what it prints, once it has ended with that exit code."""
        process = self.start(*words, folder=folder, **env)
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, out
        return out

    def submit(self, *words: str, **env: str) -> list[str]:
        """run.py on this cluster; the ids of the arrays or jobs that it submitted."""
        out = self.run(*PLACE, *words, **env)
        found = re.search(r"submitted \d+ jobs: (.*)", out)
        return found.group(1).split() if found else []

    def queue(self, *ids: str) -> dict[str, str]:
        """State of each job or task of this folder that has not ended, among these or all."""
        columns = "--Format=JobArrayID:40,State:20,STDOUT:400"  # its log lies below the folder
        lines = command("squeue", "--noheader", "--array", columns).splitlines()
        mine = dict(line.split()[:2] for line in lines if f" {self.results}/" in line)
        return {id: mine[id] for id in mine if not ids or id.partition("_")[0] in ids}

    def ended(self, *ids: str) -> None:
        """Waits until these jobs have left the queue."""
        until(lambda: not self.queue(*ids), say=self.log)

    def clear(self) -> None:
        """Cancels the jobs of this folder."""
        if ids := self.queue():
            subprocess.run(["scancel", *ids], check=False)
            self.ended()

    def runs(self, folder: str = "on") -> list[Path]:
        return sorted((self.results / folder / "runs").glob("*"))

    def steps(self, folder: str = "on") -> int:
        """The newest checkpoint's step of the only run."""
        found = [p.name for run in self.runs(folder) for p in run.glob("checkpoints/check*.pt")]
        return max((int(name.split("-")[1].split(".")[0]) for name in found), default=0)

    def log(self, folder: str = "on") -> str:
        """What all jobs of a results folder have printed, in their logs."""
        logs = sorted((self.results / folder / "jobs").rglob("*.out"))
        logs += sorted((self.results / folder / "jobs").rglob("*.err"))
        return "\n".join(path.read_text() for path in logs)

    def weights(self, folder: str = "on") -> dict[str, str]:
        """Run -> its last snapshot's name, which has the digest of its content."""
        return {run.name: max(map(str, _snapshots(run))) for run in self.runs(folder)}

    def measured(self, folder: str = "on") -> dict[str, dict]:
        """Run and measurement -> its result."""
        runs = self.results / folder / "runs"
        found = sorted(runs.glob("*/measurements/*.json"))
        return {str(p.relative_to(runs)): json.loads(p.read_text())["result"] for p in found}

    def starts(self, folder: str = "on") -> int:
        """How often a training was begun from nothing, by the jobs' logs."""
        return self.log(folder).count("train: 0 of")


def _snapshots(run: Path) -> list[str]:
    return [path.name for path in (run / "checkpoints").glob("snapshot*.pt")]


def command(*words: str) -> str:
    """A command of SLURM's; its output."""
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def until(
    condition: Callable[[], object],
    seconds: float = PATIENCE,
    say: Callable[[], str] = str,
) -> None:
    """Waits for something that must come; if it does not, says how the cluster stands."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            queue, nodes = command("squeue", "--long"), command("sinfo", "--long", "--Node")
            raise AssertionError(f"it never came\n{queue}\n{nodes}\n{say()}")
        time.sleep(0.2)
