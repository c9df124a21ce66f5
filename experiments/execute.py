"""What one job does: train a run if needed, then take each missing measurement."""

import hashlib
import io
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from core import checkpoint
from core.build import device, training_images
from core.config import Housekeeping, TrainConfig, metric_of, to_dict
from core.distributed import ALONE, Ranks
from core.errors import Refused, unwritable_is_said
from core.measurements import Result, in_parts, measure
from core.parts import Work
from core.trained import snapshot_path
from core.training import Interrupted, train
from experiments import claims, provenance, records
from experiments.asked import Asked
from experiments.claims import Claim
from experiments.files import read_json, write_bytes, write_json
from experiments.reference import adopt, adopted, enough
from experiments.runs import Run
from experiments.stages import Course, Lost, acquire, working


@dataclass(frozen=True)
class Task:
    """A run and the measurements wanted of it; everything picklable, nothing alive.

    part: the training (which keeps the snapshots that the measurements need), the measurements, or
    all. helping: other tasks do the same measurement, and none waits for another. also_at:
    fractions of this training that others need. partners: trainings that the measurements need
    besides.
    """

    words: str  # of its row, for people
    run: Run
    config: TrainConfig
    asked: tuple[Asked, ...]
    housekeeping: Housekeeping
    cache: Path
    part: Literal["all", "training", "measurements"] = "all"
    helping: bool = False
    also_at: tuple[float, ...] = ()
    partners: tuple["Task", ...] = ()

    @property
    def missing(self) -> list[Asked]:
        return [a for a in self.asked if not self.run.has(a.id)]

    @property
    def needs_training(self) -> bool:
        """Whether the weights that it takes or its records are not whole on this disk."""
        mark = self.run.trained and not records.damaged(self.run.folder)
        return not mark or self.lacks_weights

    @property
    def trains(self) -> bool:
        """Whether it takes a training; weights that come with the code are copied in no time."""
        return self.needs_training and self.housekeeping.weights == "trained"

    @property
    def lacks_weights(self) -> bool:
        """Whether it is trained, and a measurement that is missing needs weights that are not."""
        if not self.run.trained:
            return False
        if adopted(self.run) and not enough(self.missing):
            return True
        return any(path is None or not checkpoint.is_whole(path) for path in self._snapshots)

    @property
    def _snapshots(self) -> list[Path | None]:
        ats = {*self.also_at, *(a.settings.at for a in self.missing)}
        steps = self.config.optim.steps
        return [snapshot_path(self.run.folder, at, steps) for at in sorted(ats)]

    @property
    def damaged(self) -> list[Path]:
        """Files of the run that are not as they were written, of those that it needs."""
        found = self.run.damaged(asked.id for asked in self.asked)
        return found + [path for path in self._snapshots if path and not checkpoint.is_whole(path)]

    def partner(self, asked: Asked) -> "Task | None":
        """The training that a measurement needs besides its own run's."""
        return next((t for t in self.partners if t.run.id == asked.partner), None)


def execute(task: Task, course: Course) -> str:
    """Does the task and returns "done"; "busy" when other processes do what is left of it.

    Raises Interrupted when stopped, with everything saved; otherwise what went wrong. A failure
    that would come again is written to the run's folder. With several `course.ranks` all of them
    call this for the training of one run; measurements are taken by each on its own.
    """
    with unwritable_is_said(task.run.folder):
        return _execute(task, course)


def _execute(task: Task, course: Course) -> Literal["done", "busy"]:
    ranks = course.ranks
    _open(task, ranks)
    if task.part != "measurements":
        (training,) = ranks.any(ranks.writes and task.needs_training)
        # Who trains it for a measurement of another run leaves this one's measurements alone.
        if training and not _train(task, _patient(course) if task.also_at else course):
            return "busy"
    if task.part == "training":
        return "done"
    # Another process may need a while for one of them: first those that nobody works on.
    waiting = [a for a in task.missing if not _measure(task, a, replace(course, wait="no"))]
    if course.wait != "no":
        waiting = [a for a in waiting if not _measure(task, a, course)]
    return "busy" if waiting else "done"


def _patient(course: Course) -> Course:
    """The course that waits for others to end, unless it does not wait at all."""
    return course if course.wait == "no" else replace(course, wait="until done")


def _open(task: Task, ranks: Ranks) -> None:
    """The run's folder, which is of its configuration and says so."""
    run = task.run
    run.refuse_links(run.folder.parent.parent)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.check_drift(task.config)
    if ranks.writes and read_json(run.folder / records.CONFIG) is None:
        write_json(run.folder / records.CONFIG, to_dict(task.config))


def _train(task: Task, course: Course) -> bool:
    """Trains the run; False if another process does."""
    run, ranks, claim, stopped = task.run, course.ranks, None, False

    def take() -> None:
        nonlocal claim, stopped
        try:
            claim = acquire(run, "", course)
        except Interrupted:  # which all must learn, rather than that the first one failed
            stopped = True

    ranks.first_only(take)
    held, stopped = ranks.any(claim is not None, stopped)
    if stopped:
        raise Interrupted
    if not held:
        return False
    try:
        told = nullcontext(course.report)
        with working(run, "", course, claim) if ranks.writes else told as report:
            ranks.first_only(lambda: records.restore(run.folder))
            (training,) = ranks.any(ranks.writes and task.needs_training)
            if training:  # others may have done it since
                _train_held(task, replace(course, report=report))
    except Lost:
        return False
    return True


def _train_held(task: Task, course: Course) -> None:
    run, config, ranks = task.run, task.config, course.ranks
    if config.source != "here":
        has = "its final weights alone" if run.trained else "no weights"
        raise Refused(
            f"source={config.source}: {run.folder.name} has {has}, and none are trained here; "
            f"import a file by experiments/import_{config.source}.py, or leave the word out",
            code=1,
        )
    if task.housekeeping.weights == "reference":
        records.finish(run.folder, adopt(run, config, task.missing, task.also_at))
        return
    if ranks.writes:
        (run.folder / "trained").unlink(missing_ok=True)
        if adopted(run):
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    began = time.monotonic()
    images = training_images(config.data, task.housekeeping.data_path or None)
    snapshots = {*task.housekeeping.snapshots, *task.also_at}
    snapshots |= {a.settings.at for a in task.asked}
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
        records.finish(run.folder, record)

    ranks.first_only(write)


def _measure(task: Task, asked: Asked, course: Course) -> bool:
    """Takes a measurement; False if others do. A helper is done when there is no part left."""
    run, claim, partner = task.run, None, task.partner(asked)
    if partner and partner.needs_training:
        _open(partner, ALONE)
        if not _train(partner, _patient(replace(course, ranks=ALONE))):
            return False
    helping = task.helping and in_parts(asked.settings)
    if not helping and (claim := acquire(run, asked.id, course)) is None:
        return task.helping
    try:
        with working(run, asked.id, course, claim) as report:
            if run.has(asked.id):  # others may have taken it since
                return True
            began = time.monotonic()
            work = Work(
                task.housekeeping,
                run.folder / "measurements" / f"{asked.id}.part",
                task.cache,
                progress=lambda done, total, words: report(asked.words, done, total, words),
                stop=course.stop,
                claim=lambda which: _claim_of_part(run, asked, which),
                helping=helping,
                # Of a measurement that is there nobody holds parts any more.
                alive=lambda which: (
                    run.has(asked.id) or claims.surely_alive(_part(run, asked, which))
                ),
            )
            other = (partner.run.folder, partner.config) if partner else None
            result = measure(run.folder, task.config, asked.settings, work, other)
            if claim and not claim.held():
                raise Lost
            if helping:
                # The last one to finish a part has a result; a late one may have it as well.
                sure = replace(course, wait="until sure")
                claim = None if result is None else acquire(run, asked.id, sure)
                with claim or nullcontext():
                    if claim and not run.has(asked.id):
                        _keep(task, asked, result, work.scratch, time.monotonic() - began)
                return True
            _keep(task, asked, result, work.scratch, time.monotonic() - began)
    except Lost:
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
    if wild := [key for key, x in result.numbers.items() if isinstance(x, float) and x - x != 0]:
        raise Refused(
            f"{asked.words} of {run.folder.name}: {wild[0]} is not finite, so that nothing is "
            "kept of it; look at the images and the log of the training, which may have diverged",
            code=1,
            lasting=True,
        )
    digest = None
    if result.arrays:
        content = io.BytesIO()
        np.savez_compressed(content, **result.arrays)
        write_bytes(run.arrays(asked.id), content.getvalue())
        digest = hashlib.sha256(content.getvalue()).hexdigest()
    write_json(
        run.folder / "measurements" / f"{asked.id}.json",
        {
            "metric": metric_of(asked.settings),
            "config": to_dict(asked.settings),
            "result": result.numbers,
            "arrays_sha256": digest,
            "provenance": _record(task, seconds),
        },
    )
    shutil.rmtree(scratch, ignore_errors=True)
    for path in run.folder.glob(f"progress.{asked.id}.*.json"):  # of helpers that were killed
        path.unlink(missing_ok=True)


def _record(task: Task, seconds: float) -> dict:
    return provenance.record(seconds, str(device(task.housekeeping)), torch.get_num_threads())
