"""Runs that were handed to a cluster: which jobs have a run, and whether those jobs still exist."""

import subprocess
import time
from datetime import UTC, datetime

from core.errors import Refused
from experiments import claims
from experiments.files import read_json, write_json
from experiments.runs import SUBMITTED, Run, reason


def note(run: Run, cluster: str, jobs: list[str]) -> None:
    """Writes down which jobs are to do the run."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"cluster": cluster, "jobs": jobs, "when": when}
    if cluster == "local":  # whose jobs are processes
        record["processes"] = [claims.process(int(job)) for job in jobs]
    write_json(run.folder / SUBMITTED, record)


def jobs_of(run: Run) -> list[str]:
    """The jobs that were last submitted for the run."""
    return (_record(run) or {}).get("jobs", [])


def _record(run: Run) -> dict | None:
    """What `note` wrote; None where it wrote nothing, or something else is there."""
    record = read_json(run.folder / SUBMITTED) or {}
    jobs, processes = record.get("jobs"), record.get("processes", [])
    right = isinstance(record.get("cluster"), str) and isinstance(jobs, list)
    right = right and all(isinstance(job, str) and job.isprintable() for job in jobs)
    right = right and isinstance(processes, list)
    return record if right and all(isinstance(one, dict) for one in processes) else None


class Queue:
    """The jobs that exist now, asked for at most every `fresh_s` seconds.

    strict: Refused where the cluster cannot be asked; otherwise no job is known then.
    """

    def __init__(self, strict: bool = False, fresh_s: float = 30.0):
        self.strict, self.fresh_s = strict, fresh_s
        self._asked: float | None = None
        self._jobs: set[str] = set()

    def holds(self, run: Run) -> bool:
        """Whether a job that waits or works has the run."""
        record = _record(run)
        if record is None:
            return False
        if record["cluster"] == "slurm":
            return not self.slurm.isdisjoint(record["jobs"])
        return any(claims.process_lives(process) for process in record.get("processes", []))

    def works_on(self, run: Run) -> bool:
        """Whether a process that may be alive holds a stage of the run.

        A claim that names a job is as alive as the job: SLURM knows of a dead node's at once.
        """
        for path in run.folder.glob("owner*.json"):
            job = claims.job_of(path)
            if job in self.slurm if job else claims.alive(path):
                return True
        return False

    @property
    def slurm(self) -> set[str]:
        """Ids of SLURM's jobs, array tasks one by one."""
        now = time.monotonic()
        if self._asked is None or now - self._asked > self.fresh_s:
            self._asked, self._jobs = now, self._squeue()
        return self._jobs

    def _squeue(self) -> set[str]:
        command = ["squeue", "--noheader", "--array", "--format=%i"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        except FileNotFoundError as error:
            if not self.strict:
                return set()
            raise Refused("runs are submitted to SLURM, and squeue is not here to ask") from error
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            if not self.strict:
                return self._jobs
            said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
            why = reason(said.strip() or str(error))
            raise Refused(f"squeue does not answer ({why}): try again") from error
        return set(done.stdout.split())
