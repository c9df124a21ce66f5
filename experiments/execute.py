"""What one job does: train a run if needed, then take each missing measurement."""

import errno
import io
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from core.build import device
from core.config import Housekeeping, TrainConfig, metric_of, to_dict
from core.data.sources import training_images
from core.distributed import ALONE, Ranks
from core.errors import DiskFull, Refused
from core.measurements import Result, in_parts, measure
from core.parts import Work
from core.trained import snapshot_path
from core.training import Interrupted, train
from experiments import claims, provenance
from experiments.claims import Claim
from experiments.files import write_bytes, write_json
from experiments.grid import Asked
from experiments.progress import Progress
from experiments.runs import Run

Report = Callable[[str, int, int, str], None]  # stage, done, total, words


@dataclass(frozen=True)
class Task:
    """A run and the measurements wanted of it; everything picklable, nothing alive.

    part: the training (which keeps the snapshots that the measurements need), the measurements, or
    all. helping: other tasks do the same measurement, and none waits for another.
    """

    words: str  # of its row, for people
    run: Run
    config: TrainConfig
    asked: tuple[Asked, ...]
    housekeeping: Housekeeping
    cache: Path
    part: Literal["all", "training", "measurements"] = "all"
    helping: bool = False

    @property
    def missing(self) -> list[Asked]:
        return [a for a in self.asked if not self.run.has(a.id)]

    @property
    def needs_training(self) -> bool:
        """Whether the weights that it takes are not on this disk."""
        steps = self.config.optim.steps
        if not self.run.trained:
            return True
        return any(
            snapshot_path(self.run.folder, a.settings.at, steps) is None for a in self.missing
        )


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


def execute(task: Task, course: Course) -> str:
    """Does the task and returns "done"; "busy" when other processes do what is left of it.

    Raises Interrupted when stopped, with everything saved; otherwise what went wrong. A failure
    that would come again is written to the run's folder. With several `course.ranks` all of them
    call this for the training of one run; measurements are taken by each on its own.
    """
    run, ranks = task.run, course.ranks
    with _disk_full_is_said(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        run.check_drift(task.config)
        if ranks.writes and not (run.folder / "config.json").exists():
            write_json(run.folder / "config.json", to_dict(task.config))
    if task.part != "measurements":
        (training,) = ranks.any(ranks.writes and task.needs_training)
        if training and not _train(task, course):
            return "busy"
    if task.part == "training":
        return "done"
    # Another process may need a while for one of them: first those that nobody works on.
    waiting = [a for a in task.missing if not _measure(task, a, replace(course, wait="no"))]
    if course.wait != "no":
        waiting = [a for a in waiting if not _measure(task, a, course)]
    return "busy" if waiting else "done"


class _Lost(Exception):
    """Another process took the stage over while this one was not heard of; it writes no more."""


def _acquire(run: Run, stage: str, course: Course) -> Claim | None:
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
        reason = error.read_text().strip().splitlines()[-1]
        raise Refused(f"it failed in another process: {reason}", 1)
    return claim


@contextmanager
def _working(run: Run, stage: str, course: Course, claim: Claim | None) -> Iterator[Report]:
    """Around the work on a stage; yields what it must report to after each step.

    Keeps a progress file and gives the claim back at the end. A failure that would come again is
    written to the stage's error file. Who helps has no claim, and a progress file of its own.
    """
    own = stage if claim else f"{stage}.{os.getpid()}"
    progress, error_file = Progress(run.progress(own)), run.error_file(stage)
    lost = claim.lost.is_set if claim else lambda: False

    def report(name: str, done: int, total: int, words: str) -> None:
        if lost():
            raise _Lost
        progress.note(name, done, total, words)
        course.report(name, done, total, words)

    with claim or nullcontext():
        try:
            if claim:
                error_file.unlink(missing_ok=True)
            with _disk_full_is_said(run.folder):
                yield report
        except (Interrupted, _Lost):
            raise
        except Exception as error:
            if lost():
                raise _Lost from error
            if not isinstance(error, Refused):
                write_bytes(error_file, traceback.format_exc().encode())
            elif error.lasting or (course.unattended and not isinstance(error, DiskFull)):
                write_bytes(error_file, f"{error}\n".encode())
            raise
        finally:
            if not lost():
                progress.end()


@contextmanager
def _disk_full_is_said(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(folder) from error
        raise


def _train(task: Task, course: Course) -> bool:
    """Trains the run; False if another process does."""
    run, ranks, claim, stopped = task.run, course.ranks, None, False
    try:
        claim = _acquire(run, "", course) if ranks.writes else None
    except Interrupted:
        stopped = True
    held, stopped = ranks.any(claim is not None, stopped)
    if stopped:
        raise Interrupted
    if not held:
        return False
    try:
        told = nullcontext(course.report)
        with _working(run, "", course, claim) if ranks.writes else told as report:
            (training,) = ranks.any(ranks.writes and task.needs_training)
            if training:  # others may have done it since
                _train_held(task, replace(course, report=report))
    except _Lost:
        return False
    return True


def _train_held(task: Task, course: Course) -> None:
    run, config, ranks = task.run, task.config, course.ranks
    if ranks.writes:
        (run.folder / "trained").unlink(missing_ok=True)
    began = time.monotonic()
    data = config.data
    images = training_images(data.name, data.images, task.housekeeping.data_path or None)
    snapshots = {*task.housekeeping.snapshots, *(a.settings.at for a in task.asked)}
    housekeeping = replace(task.housekeeping, snapshots=tuple(sorted(snapshots)))
    train(
        config,
        images,
        run.folder,
        housekeeping,
        progress=lambda done, total, words: course.report("train", done, total, words),
        stop=course.stop,
        ranks=ranks,
    )

    def write() -> None:
        record = _record(task, time.monotonic() - began)
        record |= {"images": images.digest(), "processes": ranks.world}
        write_json(run.folder / "provenance.json", record)
        write_bytes(run.folder / "trained", b"")

    ranks.first_only(write)


def _measure(task: Task, asked: Asked, course: Course) -> bool:
    """Takes a measurement; False if others do. A helper is done when there is no part left."""
    run, claim = task.run, None
    helping = task.helping and in_parts(asked.settings)
    if not helping and (claim := _acquire(run, asked.id, course)) is None:
        return task.helping
    try:
        with _working(run, asked.id, course, claim) as report:
            if run.has(asked.id):  # others may have taken it since
                return True
            began = time.monotonic()
            work = Work(
                task.housekeeping,
                run.folder / "measurements" / f"{asked.id}.part",
                task.cache,
                progress=lambda done, total, words: report(asked.name, done, total, words),
                stop=course.stop,
                claim=lambda which: _claim_of_part(run, asked, which),
                helping=helping,
                alive=lambda which: claims.surely_alive(_part(run, asked, which)),
            )
            result = measure(run.folder, task.config, asked.settings, work)
            if helping:
                # The last one to finish a part has a result; a late one may have it as well.
                sure = replace(course, wait="until sure")
                claim = None if result is None else _acquire(run, asked.id, sure)
                with claim or nullcontext():
                    if claim and not run.has(asked.id):
                        _keep(task, asked, result, work.scratch, time.monotonic() - began)
                return True
            _keep(task, asked, result, work.scratch, time.monotonic() - began)
    except _Lost:
        return False
    return True


def _part(run: Run, asked: Asked, which: range) -> Path:
    return run.claim(f"{asked.id}.{which.start}")


def _claim_of_part(run: Run, asked: Asked, which: range) -> Claim | None:
    claim = claims.acquire(_part(run, asked, which))
    if claim and run.has(asked.id):  # and the parts are gone: there is nothing left to compute
        claim.release()
        return None
    return claim


def _keep(task: Task, asked: Asked, result: Result, scratch: Path, seconds: float) -> None:
    """Writes a measurement, which exists when its numbers do, and removes its parts."""
    run = task.run
    if result.arrays:
        content = io.BytesIO()
        np.savez_compressed(content, **result.arrays)
        write_bytes(run.arrays(asked.id), content.getvalue())
    write_json(
        run.folder / "measurements" / f"{asked.id}.json",
        {
            "metric": metric_of(asked.settings),
            "config": to_dict(asked.settings),
            "result": result.numbers,
            "provenance": _record(task, seconds),
        },
    )
    shutil.rmtree(scratch, ignore_errors=True)
    for path in run.folder.glob(f"progress.{asked.id}.*.json"):  # of helpers that were killed
        path.unlink(missing_ok=True)


def _record(task: Task, seconds: float) -> dict:
    return provenance.record(seconds, str(device(task.housekeeping)), torch.get_num_threads())
