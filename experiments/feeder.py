"""Jobs of a submission as processes of this machine: so many at a time, each after what it needs.

submitit's own local executor starts all at once, and knows no dependencies.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import submitit

from experiments import launch
from experiments.jobs import Job
from experiments.submit import Submission


class Feeder:
    """`step` again and again, until it says that nothing is left."""

    def __init__(self, submission: Submission):
        self._submission = submission
        submission.forget_failures()
        self._waiting: list[tuple[Job, Job | None]] = []  # a job, and the one that it needs
        for array in submission.arrays:
            needed = [None] * len(array.jobs)
            if array.after is not None:
                needed = submission.arrays[array.after].jobs
            self._waiting += zip(array.jobs, needed)
        self._running: dict[int, submitit.Job] = {}  # by the id() of a job
        profile = submission.profile
        cores = profile.processes * profile.get("cpus_per_task", 1)
        self._at_once = profile.get("slurm_array_parallelism", max(1, launch.cores() // cores))

    def step(self) -> bool:
        """Notices what has ended and starts what can be; whether anything is left."""
        self._running = {id: sent for id, sent in self._running.items() if not self._ended(sent)}
        unstarted = {id(job) for job, _ in self._waiting}
        for entry in list(self._waiting):
            job, needed = entry
            if len(self._running) >= self._at_once:
                break
            if needed is None or id(needed) not in unstarted | self._running.keys():
                self._waiting.remove(entry)
                if needed is None or all(task.run.trained for task in needed.tasks):
                    self._start(job)
        return bool(self._waiting or self._running)

    def stop(self) -> None:
        """Asks the jobs to save and end, and waits for that."""
        self._waiting.clear()
        for id, sent in list(self._running.items()):
            if isinstance(sent, submitit.DebugJob):
                del self._running[id]  # it has not begun
            else:
                sent._process.send_signal(signal.SIGTERM)
        while self.step():
            time.sleep(0.1)

    def _ended(self, sent: submitit.Job) -> bool:
        if not isinstance(sent, submitit.DebugJob):
            return sent.done()
        try:
            if error := sent.exception():  # here it runs; done() would end in a debugger
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
        except SystemExit:  # told to stop, it has saved
            raise KeyboardInterrupt from None
        return True

    def _start(self, job: Job) -> None:
        executor = self._submission.local_executor()
        # Ctrl-C reaches the whole process group; submitit's controllers leave it to this process.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            sent = executor.submit(job)
        finally:
            signal.signal(signal.SIGINT, before)
        self._running[id(job)] = sent
        self._submission.sent(job, sent.job_id)


@contextmanager
def unmissable_interrupt() -> Iterator[None]:
    """Ctrl-C ends in KeyboardInterrupt, at the latest when the block does.

    Python drops one that is raised in a destructor. The jobs have had it as well, and without this
    they would seem to have failed.
    """
    noted = []

    def note(number: int, frame) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if noted:
            raise KeyboardInterrupt
