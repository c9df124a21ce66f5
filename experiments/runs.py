"""Run folders: identity, states and measurements, all read off files.

A run is named by the digest of its complete training configuration, a measurement by the digest of
its own. No database: a claim says who works on a run, and every write is atomic.
"""

import hashlib
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from core.config import TrainConfig, to_dict
from core.errors import Refused, one_line
from experiments import claims, records
from experiments.files import is_damaged, read_json, read_record, stamp

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
            if path.is_file() and not path.is_symlink():
                return path.read_text(errors="replace")
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
        """The stored measurement: metric, config, result, provenance; None when it is missing or
        anything of it is not as it was written.

        Refused, naming the file, when it is none, or its number is no number.
        """
        if not self.has(id):
            return None
        path, parts = self.folder / "measurements" / f"{id}.json", ("config", "result")
        stored = read_record(path, metric=str, provenance=dict, **dict.fromkeys(parts, dict))
        if stored is None:
            return None
        result, metric = stored.get("result") or {}, stored.get("metric") or ""
        wrong = [k for k, v in result.items() if not isinstance(v, (int, float, str, NoneType))]
        if wrong or type(result.get(metric)) not in (int, float):
            what = wrong[0] if wrong else metric
            raise Refused(f"{path} has no number '{what}': delete it and run the grid again", 1)
        _check_provenance(path, stored.get("provenance") or {})
        return stored

    @property
    def provenance(self) -> dict:
        """Of the training; {} before its end, or where `damaged` says that it is not whole."""
        path = self.folder / "provenance.json"
        found = read_json(path) or {}
        _check_provenance(path, found)
        return found

    def has(self, id: str) -> bool:
        """Whether the measurement is there, its numbers and arrays as they were written."""
        numbers, arrays = self._numbers(id), self.arrays(id)
        seen = stamp(numbers)
        return seen is not None and _is_whole(numbers, arrays, seen, stamp(arrays))

    def arrays(self, id: str) -> Path:
        """Where a measurement's arrays are, when it has any."""
        return self.folder / "measurements" / f"{id}.npz"

    def _numbers(self, id: str) -> Path:
        return self.folder / "measurements" / f"{id}.json"

    def damaged(self, ids: Iterable[str] = ()) -> list[Path]:
        """Files that are not as they were written: of the training's records and of these
        measurements. Weights are looked at when they are needed (core/checkpoint.py)."""
        found = records.damaged(self.folder)
        for id in ids:
            numbers = self._numbers(id)
            if numbers.exists() and not self.has(id):
                found.append(numbers if is_damaged(numbers) else self.arrays(id))
        return found

    def check_drift(self, config: TrainConfig) -> None:
        """Refused when the folder was made for another configuration, naming the field."""
        stored = read_json(self.folder / "config.json")
        if stored is None:
            return
        difference = _first_difference(stored, to_dict(config))
        if difference:
            raise Refused(f"{self.folder} was made with another {difference}: move it away", code=1)

    def refuse_links(self, root: Path | None = None) -> None:
        """Refused when anything that is read or written here lies elsewhere.

        A results folder may come from others, and a link in it may lead anywhere. root: what links
        may not lead out of, the folder of all runs. What is no file, such as a pipe, is refused
        too: to read it may take for ever.
        """
        root = os.path.realpath(root or self.folder.parent)
        inner = (self.folder, self.folder / "measurements", self.folder / "checkpoints")
        for path in (self.folder, *(p for folder in inner for p in _inside(folder))):
            kind = stat.S_IFMT(_mode(path))
            plain = kind in (stat.S_IFDIR, 0) or (kind == stat.S_IFREG and path not in inner)
            if path == self.folder or kind == stat.S_IFLNK:  # also where a folder above is a link
                within = Path(os.path.realpath(path)).is_relative_to(root)
                plain = within and (plain or kind == stat.S_IFLNK)
            if not plain:
                raise Refused(
                    f"{path} is a link that leads out of the results, or no plain file or folder: "
                    "remove it",
                    1,
                )


def _inside(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _mode(path: Path) -> int:
    """As lstat's; 0 where there is nothing (any more)."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _check_provenance(path: Path, record: dict) -> None:
    """Refused when what tables and reports say of it is not of its type."""
    kinds = {"commit": str, "seconds": (int, float), "processor": str, "device": str}
    for key, kind in kinds.items():
        value = record.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise Refused(f"{path} has another thing than a '{key}': delete the run's folder", 1)


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


@lru_cache(maxsize=2**16)  # asked every second, and each answer reads the files
def _is_whole(numbers: Path, arrays: Path, *seen: tuple | None) -> bool:
    """Whether a measurement's files are as they were written. seen: what they look like now."""
    stored = read_json(numbers)
    if stored is None:
        return False
    if "arrays_sha256" in stored:
        content = arrays.read_bytes() if arrays.exists() else None
        found = None if content is None else hashlib.sha256(content).hexdigest()
        return found == stored["arrays_sha256"]
    if not arrays.exists():
        return True
    try:  # of an earlier version: what an archive says of itself
        with zipfile.ZipFile(arrays) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
        return False


def label(config: TrainConfig) -> str:
    """The part of a folder's name that is for people."""
    diffusion, name = config.diffusion, config.objective.name
    chain = "" if name == "gan" else f"T{diffusion.T}-{diffusion.schedule}-"
    by = "" if config.source == "here" else f"{config.source}-"
    return f"{by}{config.data.name}-{chain}{name}-s{config.seed}"


def reason(error: str | None) -> str:
    """The last line of a failure, which says most."""
    lines = (error or "").strip().splitlines()
    return one_line(lines[-1]) if lines else "it failed, and nothing says why"


def _first_difference(a: Any, b: Any, name: str = "") -> str | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            found = _first_difference(a.get(key), b.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return None
    return None if a == b else f"{name} ({str(a)[:80]} instead of {b})"
