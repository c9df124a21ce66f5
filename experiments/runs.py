"""Run folders: identity, states and measurements, all read off files.

A run is named by the digest of its complete training configuration, a measurement by the digest of
its own. No database: a claim says who works on a run, and every write is atomic.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from core.config import TrainConfig, to_dict
from core.errors import Refused
from experiments import claims
from experiments.files import read_json

State = Literal["new", "started", "running", "failed", "trained"]
ID_LENGTH = 10


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

    @property
    def owner(self) -> Path:
        """The claim of the process that works on the run (experiments/claims.py)."""
        return self.folder / "owner.json"

    @property
    def error(self) -> str | None:
        """The last failure, as text."""
        path = self.folder / "error.txt"
        return path.read_text() if path.exists() else None

    @property
    def trained(self) -> bool:
        return (self.folder / "trained").exists()

    @property
    def state(self) -> State:
        if not self.folder.exists():
            return "new"
        if claims.alive(self.owner):
            return "running"
        if self.error is not None:
            return "failed"
        return "trained" if self.trained else "started"

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
    return f"{config.data.name}-T{diffusion.T}-{diffusion.schedule}-{name}-s{config.seed}"


def _first_difference(a: Any, b: Any, name: str = "") -> str | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            found = _first_difference(a.get(key), b.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return None
    return None if a == b else f"{name} ({a} instead of {b})"
