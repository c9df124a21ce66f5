"""Where training curves can be shown besides the log: TensorBoard, trackio, Weights & Biases.

Each is an optional extra (`pip install .[tensorboard]`, `.[trackio]`, `.[wandb]`) behind the same
three calls. What they hold is a copy: log.jsonl and measurements/ stay the truth.
"""

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from core.errors import Refused

PROJECT = "diffusion-ablations"


class Sink(Protocol):
    """Takes the curves of many runs, one after the other. anew: a run is sent whole each time."""

    anew: bool

    def begin(self, id: str, name: str, config: dict[str, Any]) -> None:
        """The next lines are of this run; id is unique, config flat and dotted."""

    def line(self, step: int, values: dict[str, float]) -> None:
        """What was logged after so many steps; steps do not decrease within a run."""

    def end(self) -> None:
        """Of the run."""


class TensorBoard:
    """Event files below FOLDER/tensorboard, a folder for each run, written anew."""

    anew = True

    def __init__(self, results: Path):
        _needed("tensorboard")
        self.writers = import_module("torch.utils.tensorboard")
        self.folder = results / "tensorboard"

    def begin(self, id: str, name: str, config: dict[str, Any]) -> None:
        shutil.rmtree(self.folder / id, ignore_errors=True)
        self.writer = self.writers.SummaryWriter(str(self.folder / id))
        lines = "\n".join(f"    {key}: {value}" for key, value in config.items())
        self.writer.add_text("run", f"{name}\n\n{lines}")

    def line(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def end(self) -> None:
        self.writer.close()


class Tracked:
    """trackio or wandb, whose calls are the same; a run goes on where it was left."""

    anew = False

    def __init__(self, package: str):
        self.package = _needed(package)
        self.wandb = package == "wandb"

    def begin(self, id: str, name: str, config: dict[str, Any]) -> None:
        how = {"id": id} if self.wandb else {}
        label = name if self.wandb else f"{id} {name}"
        self.package.init(project=PROJECT, name=label, config=config, resume="allow", **how)

    def line(self, step: int, values: dict[str, float]) -> None:
        self.package.log(values, step=step)

    def end(self) -> None:
        self.package.finish()


SINKS = ("tensorboard", "trackio", "wandb")


def sink(name: str, results: Path) -> Sink:
    """The sink of this name; Refused when there is none or its package is not installed."""
    if name not in SINKS:
        raise Refused(f"to={name or '?'}: choose one of {', '.join(SINKS)}")
    return TensorBoard(results) if name == "tensorboard" else Tracked(name)


def _needed(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        raise Refused(f"{package} is not installed: pip install '.[{package}]'", 1) from error
