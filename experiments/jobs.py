"""What one job of a cluster does: its tasks, until they are done or it is told to stop.

The job is pickled as a list of what is to be done. All state is in the run folders: after a
requeue, a kill or the end of a node it starts anew and continues what is there.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from core import distributed
from core.errors import Refused
from core.training import Interrupted
from experiments import claims, launch
from experiments.board import duration
from experiments.execute import Task, execute
from experiments.files import read_json, write_bytes, write_json
from experiments.progress import Rate
from experiments.stages import Course

STALLS = 5  # allocations in a row that may end before anything was done
LINGER = 60.0  # seconds, twice SLURM's KillWait; a node that is said to be down waits for this


class Signals:
    """Turns signals into a question that work asks between two steps.

    USR2, with which SLURM warns of a time limit or a preemption: stop, then `requeue`. TERM and
    INT, with which jobs are cancelled, or requeued from outside: stop.
    """

    STOPPING = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.stopping = self.warned = False
        self._handlers: dict[int, Callable] = {}

    def __enter__(self) -> "Signals":
        for number in self.STOPPING:
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        self.stopping = True
        self.warned |= number == signal.SIGUSR2

    def stop(self) -> bool:
        """Whether to stop."""
        return self.stopping

    def linger(self) -> None:
        """After TERM, or a signal that another process of the job had: waits for USR2 or the end.

        A job that ends by itself between TERM and KILL counts as failed, and one that is killed is
        requeued if that was the reason.
        """
        until = time.monotonic() + LINGER
        while not self.warned and time.monotonic() < until:
            time.sleep(0.1)

    def requeue(self) -> None:
        """What submitit does on USR2: pickles the job again, `scontrol requeue`, and exits."""
        # SLURM answers with TERM to the whole job: to scontrol too, which would be said to have
        # failed if it comes before the end of it. What is ignored here is ignored by its children.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        handler = self._handlers[signal.SIGUSR2]
        if callable(handler):
            handler(signal.SIGUSR2, None)
        sys.exit("stopped by SIGUSR2, and requeued by nobody")


@dataclass
class Job:
    """Tasks, and how many of them at a time, each in a process of its own."""

    title: str
    tasks: tuple[Task, ...]
    side_by_side: int = 1

    def __call__(self) -> str:
        """Does the tasks. SystemExit after a signal, RuntimeError when one of them failed."""
        _rename(self.title)
        with Signals() as signals:
            try:
                done = self._several(signals) if len(self.tasks) > 1 else self._one(signals)
                self._stalls.unlink(missing_ok=True)
                return done
            except Interrupted:
                if os.environ.get("RANK", "0") != "0":
                    return "stopped; the first process of the job says how it goes on"
                if "SLURM_JOB_ID" in os.environ and not signals.warned:
                    print("everything is saved; SLURM ends this job", flush=True)
                    signals.linger()
                if not signals.warned:
                    sys.exit(143)
                self._refuse_stalling()
                signals.requeue()

    def checkpoint(self):
        """For submitit, which asks on USR2 what to run next time: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _one(self, signals: Signals) -> str:
        """A task in this process, which may be one of several that train it."""
        import torch

        task = self.tasks[0]
        course = Course(_Log(), signals.stop, "until sure", unattended=True)
        torch.set_num_threads(task.housekeeping.threads or launch.cores())
        ranks = _join()
        try:
            if ranks.world > 1 and task.part != "measurements":
                together = replace(course, ranks=ranks)
                if execute(replace(task, part="training"), together) == "busy":
                    return f"others work on {task.run.id}"
                for partner in task.partners if task.part == "all" else ():
                    execute(partner, together)
        finally:
            distributed.leave()
        if ranks.world > 1:
            if task.part == "training":
                return "done"
            task = replace(task, part="measurements", helping=task.helping or not ranks.writes)
        if execute(task, course) == "busy":
            return f"others work on {task.run.id}"
        return "done"

    def _several(self, signals: Signals) -> str:
        outcome = launch.here(
            self.title,
            list(self.tasks),
            stop=signals.stop,
            workers=self.side_by_side,
            wait="until sure",
        )
        if outcome.interrupted:
            signals.stopping = True
            raise Interrupted
        if outcome.failed:
            raise RuntimeError("; ".join(f"{name}: {why}" for name, why in outcome.failed.items()))
        return f"{outcome.done} done"

    @property
    def _stalls(self) -> Path:
        """How often in a row this job has got nothing done, and what there was then."""
        name = f"requeued.{claims.own_job() or 'local'}.json"
        return self.tasks[0].run.folder / name

    def _refuse_stalling(self) -> None:
        """A job that never gets anything done before it must stop is not requeued for ever."""
        first, path = self.tasks[0], self._stalls
        marks = [_mark(task) for task in self.tasks]
        before = read_json(path) or {}
        known = type(before.get("times")) is int and before.get("marks") == marks
        times = before["times"] + 1 if known else 1
        if times >= STALLS:
            path.unlink(missing_ok=True)
            message = (
                f"{times} allocations in a row ended before anything was done: "
                "give slurm.timeout_min more, or another partition"
            )
            stage = first.asked[0].id if first.part == "measurements" else ""
            write_bytes(first.run.error_file(stage), f"{message}\n".encode())
            raise Refused(message, code=1)
        write_json(path, {"marks": marks, "times": times})


def _mark(task: Task) -> list:
    """Something that changes when anything of a task gets done."""
    folders = [one.run.folder for one in (task, *task.partners)]
    files = (path for folder in folders for path in folder.rglob("*"))
    files = (path for path in files if path.suffix in (".pt", ".npz", ".json"))
    own = ("owner", "progress", "requeued", "submitted", ".")
    return sorted(path.name for path in files if not path.name.startswith(own))


def _join() -> distributed.Ranks:
    """The other processes of this job, whom submitit's environment tells of."""
    from submitit.core.job_environment import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    try:
        if JobEnvironment().num_tasks == 1:
            return distributed.ALONE
    except RuntimeError:  # not in a job, as with the debug executor
        return distributed.ALONE
    address = os.environ.get("MASTER_ADDR")  # for a cluster whose node names do not resolve
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if address:
        os.environ["MASTER_ADDR"] = address
    return distributed.join()


class _Log:
    """Reports as lines of the job's log: at the beginning of each stage, and every minute."""

    EVERY = 60.0

    def __init__(self):
        self._stage, self._printed, self._rate = "", 0.0, Rate()

    def __call__(self, stage: str, done: int, total: int, words: str) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._rate = stage, Rate()
        elif now - self._printed < self.EVERY:
            return
        self._printed = now
        left = self._rate.left(done, total, now)
        left = f", {duration(left)} left" if left is not None else ""
        print(f"{stage}: {done} of {total}{left}  {words}".rstrip(), flush=True)


def _rename(title: str) -> None:
    """Names this task of an array after its run; an array is submitted under one name."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{x}_ID") for x in ("JOB", "TASK"))
    if array and os.environ.get("SLURM_PROCID", "0") == "0":
        words = ["scontrol", "update", f"JobId={array}_{task}", f"JobName={title}"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(words, capture_output=True, timeout=30)
