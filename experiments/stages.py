"""Holding a stage of a run while one works on it: its claim, its progress file, its failure."""

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

from core.distributed import ALONE, Ranks
from core.errors import DiskFull, Refused, Unwritable, unwritable_is_said
from core.training import Interrupted
from experiments import claims
from experiments.claims import Claim
from experiments.files import write_bytes
from experiments.progress import Progress
from experiments.runs import Run, reason

Report = Callable[[str, int, int, str], None]  # stage, done, total, words
NOT_HERE = DiskFull, Unwritable  # failures that cannot be kept in the run's folder


@dataclass(frozen=True)
class Course:
    """How work goes on: whom it tells, when it stops, whether it waits for others.

    wait: for a stage that another process holds: not at all; until that process is sure to live or
    to be dead; or until it has ended. unattended: nobody reads messages, so that each failure is
    kept in the run's folder, also those that mending their cause would end.
    """

    report: Report
    stop: Callable[[], bool]
    wait: Literal["no", "until sure", "until done"] = "no"
    unattended: bool = False
    ranks: Ranks = ALONE


class Lost(Exception):
    """Another process took the stage over while this one was not heard of; it writes no more."""


def acquire(run: Run, stage: str, course: Course) -> Claim | None:
    """The claim on a stage, waiting for it as the course says; None if others have it."""
    path, waited = run.claim(stage), False
    while (claim := claims.acquire(path)) is None:
        # A requeued job meets itself: what is left of its last life is about to end.
        own = claims.own_job() is not None and claims.job_of(path) == claims.own_job()
        sure = course.wait == "until sure" and not own and claims.surely_alive(path)
        if course.wait == "no" or sure:
            return None
        if course.stop():
            raise Interrupted
        waited = True
        course.report(f"waiting for {claims.holder(path)}", 0, 1, "")
        time.sleep(1)
    error = run.error_file(stage)
    if waited and error.exists():
        claim.release()
        why = reason(error.read_text(errors="replace"))
        raise Refused(f"it failed in another process: {why}", 1)
    return claim


@contextmanager
def working(run: Run, stage: str, course: Course, claim: Claim | None) -> Iterator[Report]:
    """Around the work on a stage; yields what it must report to after each step.

    Keeps a progress file and gives the claim back at the end. A failure that would come again is
    written to the stage's error file. Who helps has no claim, and a progress file of its own.
    """
    own = stage if claim else f"{stage}.{os.getpid()}"
    progress, error_file = Progress(run.progress(own)), run.error_file(stage)
    held = claim.held if claim else lambda: True

    def report(name: str, done: int, total: int, words: str) -> None:
        if not held():
            raise Lost
        progress.note(name, done, total, words)
        course.report(name, done, total, words)

    with claim or nullcontext():
        try:
            if claim:
                error_file.unlink(missing_ok=True)
            with unwritable_is_said(run.folder):
                yield report
        except (Interrupted, Lost):
            raise
        except Exception as error:
            if not held():
                raise Lost from error
            if not isinstance(error, Refused):
                write_bytes(error_file, traceback.format_exc().encode())
            elif error.lasting or (course.unattended and not isinstance(error, NOT_HERE)):
                write_bytes(error_file, f"{error}\n".encode())
            raise
        finally:
            if held():
                progress.end()
