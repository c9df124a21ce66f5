"""Jobs of a submission as processes of this machine: so many at a time, each after what it needs.

submitit's own local executor starts all at once, and knows no dependencies.
"""

import signal
import time

import submitit

from experiments import launch
from experiments.jobs import Job
from experiments.submit import Submission


class Feeder:
    """`step` again and again, until it says that nothing is left."""

    def __init__(self, submission: Submission):
        self._submission = submission
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
        for sent in self._running.values():
            sent._process.send_signal(signal.SIGTERM)
        while self.step():
            time.sleep(0.1)

    def _ended(self, sent: submitit.Job) -> bool:
        if isinstance(sent, submitit.DebugJob):
            sent.exception()  # here it runs; done() would end in a debugger
            return True
        return sent.done()

    def _start(self, job: Job) -> None:
        executor = self._submission.local_executor()
        # Ctrl-C reaches the whole process group; only this process acts on it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            sent = executor.submit(job)
        finally:
            signal.signal(signal.SIGINT, before)
        self._running[id(job)] = sent
        self._submission.sent(job, sent.job_id)
        self._submission.note()
