"""A tiny grid run in this process, as the command line runs it, and what its results hold."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from core import checkpoint, parts
from core.errors import Refused
from core.training import Interrupted, read_log
from experiments import grid, launch, run
from experiments.execute import execute
from experiments.files import read_json
from experiments.stages import Course

ROOT = Path(__file__).resolve().parents[2]
GRID = """
title: One row
rows: [{schedule: cosine, objective: L_hybrid}]
base: {diffusion.T: 30, optim.batch_size: 4, optim.steps: 8,
       unet.channels: 8, unet.channel_mult: [1], unet.attention: []}
measure:
  nll: {metric: nll, images: 4}
  half: {metric: nll, images: 2, at: 0.5}
  fd: {metric: frechet, images: 66, sampler.steps: 2, reference: test}
"""
WORDS = ("grid=one_row", "scale=smoke", "device=cpu", "log_every=1", "checkpoint_seconds=0")


@pytest.fixture(scope="module")
def one_row(tmp_path_factory):
    """`command` knows grid=one_row, runs its tasks here and cuts measurements in small parts."""
    here = tmp_path_factory.mktemp("experiments")
    for name in ("grids", "scales"):
        shutil.copytree(grid.HERE / name, here / name)
    shutil.copy(grid.HERE / "terms.yaml", here)
    (here / "grids" / "one_row.yaml").write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "HERE", here)
        patch.setattr(launch, "here", in_this_process)
        patch.setattr(parts, "PART", 33)
        yield


stopping = []  # what a launch asks whether to stop, when a test says so


def in_this_process(title, tasks, on_done=None, *_):
    """Does what launch.here does by worker processes."""
    outcome = launch.Outcome(0, {}, False)
    for task in tasks:
        try:
            execute(task, Course(lambda *_: None, stopping[0] if stopping else lambda: False))
            outcome.done += 1
        except Interrupted:
            outcome.interrupted = True
        except Refused as error:
            outcome.failed[task.words] = str(error)
    return outcome


def command(results: Path, *words: str) -> int:
    """`run.py grid=one_row results=RESULTS`; its exit code. A refusal is printed as there."""
    try:
        return run.main([*WORDS, f"results={results}", *words])
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code


def interrupted(results: Path, when) -> None:
    """The command, stopped as soon as `when()` holds."""
    stopping.append(when)
    try:
        assert command(results) == 130
    finally:
        stopping.clear()


def steps_logged(results: Path) -> int:
    return sum(len(read_log(path)) for path in results.glob("runs/*/log.jsonl"))


def folder_of(results: Path) -> Path:
    (folder,) = (results / "runs").iterdir()
    return folder


def contents(results: Path) -> dict:
    """All that a finished run holds but times: weights, log, measurements, configuration."""
    folder, found = folder_of(results), {}
    for path in sorted((folder / "checkpoints").iterdir()):
        found[path.name] = checkpoint.load(path)
    lines = read_log(folder / "log.jsonl")
    found["log"] = [{**line, "seconds_per_step": 0} for line in lines]
    for path in sorted((folder / "measurements").glob("*.json")):
        stored = read_json(path)
        found[path.name] = [stored[key] for key in ("metric", "config", "result", "arrays_sha256")]
        with np.load(path.with_suffix(".npz")) as arrays:
            found[path.stem] = dict(arrays)
    found["config"] = read_json(folder / "config.json")
    record = read_json(folder / "provenance.json")
    found["provenance"] = {key: record[key] for key in ("commit", "images", "device")}
    return found


def assert_same(a, b, where: str = "") -> None:
    """Equal to the last bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b)):
            assert_same(*pair, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and np.array_equal(a, b), where
    else:
        assert a == b, where


def leftovers(results: Path) -> list[str]:
    """What must not be there when nothing runs."""
    names = [path.name for path in results.rglob("*")]
    return [name for name in names if name.endswith((".tmp", ".writable", ".removing"))]


class Disk:
    """A disk with so many bytes of room, or one that refuses whatever would change it.

    In place of `open`, for files below a folder that are opened to be written.
    """

    def __init__(self, folder: Path, room: float = float("inf"), error: int | None = None):
        self.folder, self.room, self.error, self.written = folder, room, error, 0
        self.open = io.open

    def __call__(self, file, mode="r", *more, **named):
        inside = isinstance(file, (str, Path)) and Path(file).is_relative_to(self.folder)
        if not inside or not set(mode) & set("wax+"):
            return self.open(file, mode, *more, **named)
        if self.error:
            raise OSError(self.error, "no", str(file))
        raw = Limited(file, mode.replace("b", "").replace("t", ""))
        raw.disk = self
        buffered = io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")


class Limited(io.FileIO):
    """A file on a Disk."""

    def write(self, content) -> int:
        disk, content = self.disk, bytes(content)
        if len(content) and disk.room <= disk.written:
            raise OSError(28, "No space left on device")
        done = super().write(content[: int(min(len(content), disk.room - disk.written))])
        disk.written += done
        return done


def put(disk: Disk, patch: pytest.MonkeyPatch) -> Disk:
    """Everything that is written in this process goes to the disk."""
    patch.setattr("builtins.open", disk)
    patch.setattr("io.open", disk)
    return disk
