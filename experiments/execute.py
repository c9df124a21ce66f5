"""What one job does: train a run if needed, then take each missing measurement."""

import errno
import io
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from core.build import device
from core.config import Housekeeping, TrainConfig, metric_of, to_dict
from core.data.sources import load_once
from core.errors import DiskFull, Refused
from core.measurements import Work, measure
from core.trained import snapshot_path
from core.training import Interrupted, train
from experiments import provenance
from experiments.claims import Claim, acquire, holder
from experiments.files import write_bytes, write_json
from experiments.grid import Asked
from experiments.runs import Run

Report = Callable[[str, int, int, str], None]  # stage, done, total, words


@dataclass(frozen=True)
class Task:
    """A run and the measurements wanted of it; everything picklable, nothing alive."""

    words: str  # of its row, for people
    run: Run
    config: TrainConfig
    asked: tuple[Asked, ...]
    housekeeping: Housekeeping
    cache: Path

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


def execute(task: Task, report: Report, stop: Callable[[], bool], wait: bool = False) -> str:
    """Does the task and returns "done"; "busy" when another process holds the run and not `wait`.

    Raises Interrupted when stopped, with everything saved; otherwise what went wrong. A failure
    that would come again is written to the run's error.txt.
    """
    run, claim = task.run, None
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        while (claim := acquire(run.owner)) is None:
            if not wait:
                return "busy"
            if stop():
                raise Interrupted
            report(f"waiting for {holder(run.owner)}", 0, 1, "")
            time.sleep(1)
        if wait and run.error is not None:
            raise Refused(f"it failed in another process: {run.error.strip().splitlines()[-1]}", 1)
        _work(task, _while_held(claim, report), stop)
    except _Lost:
        return "busy"
    except Interrupted:
        raise
    except Exception as error:
        if claim and claim.lost.is_set():
            return "busy"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(run.folder) from error
        if not isinstance(error, Refused):
            write_bytes(run.folder / "error.txt", traceback.format_exc().encode())
        elif error.lasting:
            write_bytes(run.folder / "error.txt", f"{error}\n".encode())
        raise
    finally:
        if claim:
            claim.release()
    return "done"


class _Lost(Exception):
    """Another process took the run over while this one was not heard of; it writes no more."""


def _while_held(claim: Claim, report: Report) -> Report:
    """Reports come after each step: there work ends without saving once the claim is lost."""

    def checked(stage: str, done: int, total: int, words: str) -> None:
        if claim.lost.is_set():
            raise _Lost
        report(stage, done, total, words)

    return checked


def _work(task: Task, report: Report, stop: Callable[[], bool]) -> None:
    run, config = task.run, task.config
    run.check_drift(config)
    (run.folder / "error.txt").unlink(missing_ok=True)
    write_json(run.folder / "config.json", to_dict(config))
    if task.needs_training:
        _train(task, report, stop)
    for asked in task.missing:
        _measure(task, asked, report, stop)


def _train(task: Task, report: Report, stop: Callable[[], bool]) -> None:
    run, config = task.run, task.config
    (run.folder / "trained").unlink(missing_ok=True)
    began = time.monotonic()
    images = load_once(config.data.name, "train", task.housekeeping.data_path or None)
    snapshots = {*task.housekeeping.snapshots, *(a.settings.at for a in task.asked)}
    housekeeping = replace(task.housekeeping, snapshots=tuple(sorted(snapshots)))
    report("train", 0, config.optim.steps, "")
    train(
        config,
        images,
        run.folder,
        housekeeping,
        progress=lambda done, total, words: report("train", done, total, words),
        stop=stop,
    )
    record = _record(task, time.monotonic() - began)
    write_json(run.folder / "provenance.json", record | {"images": images.digest()})
    write_bytes(run.folder / "trained", b"")


def _measure(task: Task, asked: Asked, report: Report, stop: Callable[[], bool]) -> None:
    run, began = task.run, time.monotonic()
    scratch = run.folder / "measurements" / f"{asked.id}.part"
    work = Work(
        task.housekeeping,
        scratch,
        task.cache,
        progress=lambda done, total, words: report(asked.name, done, total, words),
        stop=stop,
    )
    result = measure(run.folder, task.config, asked.settings, work)
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
            "provenance": _record(task, time.monotonic() - began),
        },
    )
    shutil.rmtree(scratch, ignore_errors=True)


def _record(task: Task, seconds: float) -> dict:
    return provenance.record(seconds, str(device(task.housekeeping)), torch.get_num_threads())
