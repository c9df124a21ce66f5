"""Run folders: identity, states and measurements, all read off files.

A run is named by the digest of its complete training configuration, a measurement by the digest of
its own. No database: a claim says who works on a run, and every write is atomic.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from core.config import TrainConfig, to_dict
from core.errors import Refused
from experiments import claims
from experiments.files import read_json

State = Literal["new", "queued", "started", "running", "failed", "trained"]
ID_LENGTH = 10
SUBMITTED = "submitted.json"  # which jobs of a cluster have the run (experiments/submitted.py)


def digest(config: Any, *words: str) -> str:
    """First hex digits of SHA-256 over the canonical JSON of a complete configuration."""
    content = [*words, to_dict(config)] if words else to_dict(config)
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise Refused("a number in the configuration is not finite: give a finite one") from error
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


@dataclass(frozen=True)
class Run:
    """A training's folder. It may not exist yet."""

    id: str
    folder: Path

    # A run has stages: its training, "", and each of its measurements, named by its id. A stage
    # has its own claim (experiments/claims.py), error and progress: several jobs can share a run.

    def claim(self, stage: str = "") -> Path:
        """The file that names the process which works on the stage."""
        return self._of_stage("owner", stage, "json")

    def error_file(self, stage: str = "") -> Path:
        """Why the stage failed, when it did."""
        return self._of_stage("error", stage, "txt")

    def progress(self, stage: str = "") -> Path:
        """How far the stage is (experiments/progress.py)."""
        return self._of_stage("progress", stage, "json")

    def _of_stage(self, what: str, stage: str, kind: str) -> Path:
        return self.folder / ".".join(word for word in (what, stage, kind) if word)

    @property
    def error(self) -> str | None:
        """A failure, as text; the training's first."""
        for path in sorted(self.folder.glob("error*.txt"), key=lambda path: len(path.name)):
            return path.read_text()
        return None

    @property
    def trained(self) -> bool:
        return (self.folder / "trained").exists()

    @property
    def state(self) -> State:
        return self.look()

    def look(self, queued: Callable[["Run"], bool] = lambda run: False) -> State:
        """The run's state now; `queued` is asked about a run that was submitted to a cluster."""
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return "new"
        owners = (name for name in names if name.startswith("owner"))
        if any(claims.alive(self.folder / name) for name in owners):
            return "running"
        if any(name.startswith("error") for name in names):
            return "failed"
        if SUBMITTED in names and queued(self):
            return "queued"
        if "trained" in names:
            return "trained"
        return "started" if "config.json" in names else "new"

    def measurement(self, id: str) -> dict | None:
        """The stored measurement: metric, config, result, provenance; None when missing."""
        return read_json(self.folder / "measurements" / f"{id}.json")

    def has(self, id: str) -> bool:
        return (self.folder / "measurements" / f"{id}.json").exists()

    def arrays(self, id: str) -> Path:
        """Where a measurement's arrays are, when it has any."""
        return self.folder / "measurements" / f"{id}.npz"

    def check_drift(self, config: TrainConfig) -> None:
        """Refused when the folder was made for another configuration, naming the field."""
        stored = read_json(self.folder / "config.json")
        if stored is None:
            return
        difference = _first_difference(stored, to_dict(config))
        if difference:
            raise Refused(f"{self.folder} was made with another {difference}: move it away", code=1)


@dataclass(frozen=True)
class Runs:
    """All runs below one folder, found by the beginning of their names."""

    root: Path

    @cached_property
    def _index(self) -> dict[str, Path]:
        if not self.root.is_dir():
            return {}
        return {entry.name[:ID_LENGTH]: Path(entry) for entry in os.scandir(self.root)}

    def find(self, id: str, config: TrainConfig) -> Run:
        """The run of that id; where it has no folder yet, the one it would get."""
        return Run(id, self._index.get(id) or self.root / f"{id}-{label(config)}")


def label(config: TrainConfig) -> str:
    """The part of a folder's name that is for people."""
    diffusion, name = config.diffusion, config.objective.name
    chain = "" if name == "gan" else f"T{diffusion.T}-{diffusion.schedule}-"
    by = "" if config.source == "here" else f"{config.source}-"
    return f"{by}{config.data.name}-{chain}{name}-s{config.seed}"


def _first_difference(a: Any, b: Any, name: str = "") -> str | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            found = _first_difference(a.get(key), b.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return None
    return None if a == b else f"{name} ({a} instead of {b})"
