"""A training from its first step, or its last checkpoint, to its end."""

import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from core import checkpoint
from core.config import Housekeeping, TrainConfig
from core.data.images import Images
from core.distributed import ALONE, Ranks
from core.errors import Refused
from core.files import replacing
from core.gan_trainer import GANTrainer
from core.trainer import Trainer

RESUME, SNAPSHOT = "checkpoint", "snapshot"  # kinds of files among a run's checkpoints

Progress = Callable[[int, int, str], None]  # done, total, a few words such as the loss


class Interrupted(Exception):
    """The work was asked to stop, and did so after saving what it had."""


def snapshot_step(at: float, steps: int) -> int:
    """The step that the fraction `at` of a training stands for, in 1..steps."""
    return max(1, round(at * steps))


def train(
    config: TrainConfig,
    images: Images,
    folder: Path,
    housekeeping: Housekeeping,
    progress: Progress = lambda done, total, words: None,
    stop: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> None:
    """Trains to config.optim.steps, continuing from the newest checkpoint in the folder.

    Writes folder/log.jsonl (a line per log interval) and folder/checkpoints/: one or two to resume
    from, and a snapshot for measuring at each of housekeeping.snapshots and at the end. A resumed
    run is the uninterrupted one bit for bit. `stop` is asked after each step; when it says so a
    checkpoint is written and Interrupted raised. A loss or weight that is not finite is Refused,
    and the last checkpoint kept. With several processes (`ranks`) all call this; the first writes.
    """
    kind = GANTrainer if config.objective.name == "gan" else Trainer
    trainer = kind(config, images, housekeeping, ranks)
    steps, checkpoints = config.optim.steps, folder / "checkpoints"
    kept_steps = {snapshot_step(at, steps) for at in (*housekeeping.snapshots, 1.0)}
    # Not from a step after a snapshot that is missing or damaged.
    there = {
        checkpoint.step_of(path)
        for path in checkpoint.paths(checkpoints, SNAPSHOT)
        if checkpoint.is_whole(path)
    }
    before = min(kept_steps - there, default=None)
    state = checkpoint.newest(checkpoints, RESUME, before) or {}
    if state:
        with checkpoint.fitting(checkpoints):
            trainer.load_state_dict(state)
    ranks.check_alike(trainer.step, "last checkpoint's step")
    lines = _Log(folder / "log.jsonl")
    ranks.first_only(lambda: lines.begin(trainer.step, state.get("log")))

    def diverged() -> Refused:
        good = checkpoint.paths(checkpoints, RESUME)
        stays = f"the last good checkpoint stays in {good[0]}" if good else "no checkpoint was due"
        return Refused(
            f"training diverged before step {trainer.step} of {folder.name}: loss, weights or "
            f"gradients are not finite; {stays}; try a lower {trainer.rates}, or optim.grad_clip=1",
            code=1,
            lasting=True,
        )

    def save() -> None:
        if not trainer.finite():
            raise diverged()
        state = trainer.state_dict()

        def write() -> None:
            checkpoint.save(checkpoints, RESUME, trainer.step, state | {"log": lines.text})
            checkpoint.keep_newest(checkpoints, RESUME, 2, trainer.step)

        ranks.first_only(write)

    progress(trainer.step, steps, "")
    saved, began, first = time.monotonic(), time.monotonic(), trainer.step
    words = ""
    while trainer.step < steps:
        trainer.one_step()
        step = trainer.step
        if step % housekeeping.log_every == 0 or step == steps:
            line = trainer.log_line() if trainer.finite() else {"loss": math.nan}
            if not all(map(math.isfinite, line.values())):
                raise diverged()
            words = f"loss {line['loss']:.4f}"
            seconds = (time.monotonic() - began) / (step - first)
            line |= {"seconds_per_step": round(seconds, 5)}
            ranks.first_only(partial(lines.add, line))
        progress(step, steps, words)
        if step in kept_steps:
            if not trainer.finite():
                raise diverged()
            snapshot = trainer.snapshot()
            ranks.first_only(partial(checkpoint.save, checkpoints, SNAPSHOT, step, snapshot))
        due = time.monotonic() - saved > housekeeping.checkpoint_seconds
        stopping, due = ranks.any(step < steps and stop(), due)
        if stopping:
            save()
            raise Interrupted
        if due:
            save()
            saved = time.monotonic()
    ranks.first_only(lambda: checkpoint.keep_newest(checkpoints, RESUME, 0, steps))


def read_log(path: Path) -> list[dict]:
    """The lines of a training log; a last line cut short by a kill is left out.

    Refused, naming it, when another line is no object with a step.
    """
    lines, texts = [], path.read_bytes().splitlines() if path.exists() else []
    for number, text in enumerate(texts, 1):
        line = _line(text)
        if line is None and number < len(texts):
            raise Refused(
                f"line {number} of {path} is damaged: remove the line, or the file, which nothing "
                "but figures of the training needs",
                code=1,
            )
        if line is not None:
            lines.append(line)
    return lines


def _line(text: bytes) -> dict | None:
    """A line of a log; None for anything else."""
    try:
        line = json.loads(text)
        return line if type(line["step"]) is int else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def number(value: Any) -> float:
    """A value of a line of a log; NaN where it is no finite number."""
    fine = type(value) in (int, float) and abs(value) < 1e300  # NaN is not
    return float(value) if fine else math.nan


class _Log:
    """The log that a training writes. Its checkpoints have it too: the file may be damaged.

    It stays open, and each who continues a training makes a new file of it: what a process writes
    that was stopped for so long that another one has taken its run over does not come to the log.
    """

    def __init__(self, path: Path):
        self.path, self.text = path, ""

    def begin(self, step: int, text: str | None) -> None:
        """As it was at the checkpoint of this step that training continues from.

        text: None where that is of a version that kept no log; then the file is cut.
        """
        if text is None and step == 0:
            text = ""
        elif text is None:
            kept = (line for line in read_log(self.path) if line["step"] <= step)
            text = "".join(json.dumps(line) + "\n" for line in kept)
        elif self.path.exists() and not self.path.read_bytes().startswith(text.encode()):
            print(f"warning: {self.path} is damaged; restored", file=sys.stderr)
        self.text = text
        with replacing(self.path) as file:
            file.write(text.encode())
        self._file = open(self.path, "a")  # noqa: SIM115

    def add(self, line: dict) -> None:
        text = json.dumps(line) + "\n"
        self.text += text
        self._file.write(text)
        self._file.flush()
