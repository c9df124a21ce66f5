"""Handing a grid's tasks to a cluster with submitit, or to processes that submitit starts here."""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import submitit
import torch
from submitit.core.utils import FailedJobError, FailedSubmissionError

from core.distributed import Ranks
from core.errors import Refused
from experiments import claims, launch, submitted
from experiments.arrays import Array, arrays
from experiments.execute import Task
from experiments.jobs import Job
from experiments.profiles import Profile


@dataclass(frozen=True)
class Shape:
    """How tasks become jobs: see experiments/arrays.py."""

    pack: int = 1
    split: bool = False
    share: int = 2560


def free(tasks: list[Task], queue: submitted.Queue) -> list[Task]:
    """The tasks on which nobody works and which no job has; says why of the others."""
    mine = []
    for task in tasks:
        if queue.holds(task.run):
            jobs = ", ".join(submitted.jobs_of(task.run))
            print(f"{task.words} ({task.run.id}): has job {jobs} already")
        elif queue.works_on(task.run):
            print(f"{task.words} ({task.run.id}): another process works on it")
        else:
            mine.append(task)
    return mine


def check_shares(tasks: list[Task], profile: Profile) -> None:
    """Refused when a batch cannot be shared out among the processes of a run."""
    for task in tasks:
        Ranks(world=profile.processes).check(task.config.optim.batch_size)


def only_launcher(results: Path) -> claims.Claim:
    """The right to submit runs of this results folder; waits while another launcher does."""
    results.mkdir(parents=True, exist_ok=True)
    path, said = results / "submitting.json", False
    while (claim := claims.acquire(path)) is None:
        if not said:
            print(f"waiting for another launcher to submit its jobs ({claims.holder(path)})")
            said = True
        time.sleep(0.2)
    return claim


class Submission:
    """One launch: its arrays, and what has been submitted of them."""

    def __init__(self, title: str, tasks: list[Task], profile: Profile, shape: Shape, jobs: Path):
        if shape.pack > 1 and profile.processes > 1:
            raise Refused(
                f"pack={shape.pack} puts runs into one job side by side, and on={profile.name} "
                f"gives each run {profile.processes} processes: choose one of the two"
            )
        for task in tasks:  # before anything is noted in its folder
            task.run.refuse_links(jobs.parent)
        self.title, self.profile, self.tasks = title, profile, tasks
        on_slurm = profile.cluster == "slurm"
        self.arrays = arrays(
            title,
            tasks,
            pack=shape.pack,
            split=shape.split,
            share=shape.share,
            longest=_longest_array() if on_slurm else len(tasks) * 10**6,
            at_once=profile.get("slurm_array_parallelism", 256),
        )
        # A folder of its own for each launch: job ids may come again, and with them old results.
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.folder = jobs / f"{title}-{stamp}-{os.getpid()}"
        self._ids: dict[str, list[str]] = {}  # run -> jobs
        launch.set_allocator()

    @property
    def count(self) -> int:
        """Its jobs."""
        return sum(len(array.jobs) for array in self.arrays)

    def send(self) -> list[str]:
        """Submits everything to SLURM; the ids of the arrays."""
        _forget_own_job()
        self.forget_failures()
        sent: list[list[str]] = []
        try:
            for array in self.arrays:
                after, behind = (
                    None if i is None else sent[i] for i in (array.after, array.behind)
                )
                waits = _dependency(len(array.jobs), after, behind)
                sent.append(self._send(array, self.slurm_executor(array, waits)))
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
            reason = " ".join(str(error).split())
            before = f" ({sum(map(len, sent))} jobs were submitted before)" if sent else ""
            raise Refused(f"sbatch refused the jobs{before}: {reason}", code=1) from error
        finally:
            if not sent:
                shutil.rmtree(self.folder, ignore_errors=True)
        return [_array_id(ids) for ids in sent]

    def _send(self, array: Array, executor: submitit.AutoExecutor) -> list[str]:
        with executor.batch():
            jobs = [executor.submit(job) for job in array.jobs]
        ids = [job.job_id for job in jobs]
        for id, job in zip(ids, array.jobs):
            self.sent(job, id)
        return ids

    def forget_failures(self) -> None:
        """Of the runs that are about to be tried again."""
        for task in self.tasks:
            for path in task.run.folder.glob("error*.txt"):
                path.unlink(missing_ok=True)

    def sent(self, job: Job, id: str) -> None:
        """Writes down in the folders of the job's runs who has them; the next launcher reads it."""
        for run in {task.run.id: task.run for task in job.tasks}.values():
            self._ids.setdefault(run.id, []).append(id)
            run.folder.mkdir(parents=True, exist_ok=True)
            submitted.note(run, self.profile.cluster, self._ids[run.id])

    def slurm_executor(self, array: Array, waits: str) -> submitit.AutoExecutor:
        """What submits one array, which waits for others as sbatch's --dependency says."""
        parameters = dict(self.profile.parameters)
        parameters["slurm_array_parallelism"] = array.at_once
        if waits:
            given = parameters.get("slurm_dependency")
            parameters["slurm_dependency"] = f"{given},{waits}" if given else waits
            # Else what waits for a job that failed stays in the queue for ever.
            more = parameters.get("slurm_additional_parameters", {})
            parameters["slurm_additional_parameters"] = more | {"kill-on-invalid-dep": "yes"}
        # Every warning of a time limit counts as a time-out, and none is one too many.
        executor = submitit.AutoExecutor(
            self.folder, cluster="slurm", slurm_max_num_timeout=1_000_000
        )
        name = array.jobs[0].title if len(array.jobs) == 1 else self.title
        executor.update_parameters(**({"name": name} | parameters))
        return executor

    def local_executor(self) -> submitit.AutoExecutor:
        """What starts jobs on this machine (cluster: local or debug)."""
        parameters = self.profile.parameters.items()
        executor = submitit.AutoExecutor(self.folder, cluster=self.profile.cluster)
        # Unless told otherwise, submitit hides the GPUs from jobs on this machine.
        gpus = {"gpus_per_node": torch.cuda.device_count()} if torch.cuda.is_available() else {}
        own = {key: value for key, value in parameters if not key.startswith("slurm_")}
        executor.update_parameters(**(gpus | own))
        return executor


def _dependency(jobs: int, after: list[str] | None, behind: list[str] | None) -> str:
    """In sbatch's words, for an array of so many jobs; after and behind: ids of arrays' jobs."""
    words = []
    if after and jobs > 1:
        words.append(f"aftercorr:{_array_id(after)}")
    elif after:  # a job alone is no array, to which aftercorr belongs
        words.append(f"afterok:{after[0]}")
    if behind:
        words.append(f"afterany:{_array_id(behind)}")
    return ",".join(words)


def _array_id(ids: list[str]) -> str:
    return ids[0].partition("_")[0]


def _longest_array() -> int:
    """The most tasks that an array may have on this cluster."""
    try:
        shown = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Refused(
            "this machine cannot submit to SLURM, scontrol does not answer: "
            "run it on a login node, or with on=here"
        ) from error
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown)
    return max(1, int(found.group(1)) - 1) if found else 1000


def _forget_own_job() -> None:
    """Else a job that is submitted from within a job takes itself for that one."""
    for key in list(os.environ):
        if key.startswith("SLURM_") and key != "SLURM_CONF":
            del os.environ[key]
