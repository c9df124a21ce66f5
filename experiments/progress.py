"""How far a stage of a run is: a small file beside its claim, for who watches from elsewhere."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

from experiments.files import read_json, write_json

EVERY = 5.0  # seconds between two writes


@dataclass(frozen=True)
class Seen:
    """A stage as it was a moment ago. left: seconds, None while nobody can say."""

    key: str  # "train", or the measurement's id
    stage: str  # in words
    done: int
    total: int
    words: str
    left: float | None

    @property
    def share(self) -> float:
        return self.done / max(self.total, 1)


class Rate:
    """Time left at the rate since the first report of a stage."""

    def __init__(self):
        self._first: tuple[int, float] | None = None  # done, and when

    def left(self, done: int, total: int, now: float) -> float | None:
        """Seconds at that time, or None while nobody can say."""
        self._first = self._first or (done, now)
        since = done - self._first[0]
        return (total - done) * (now - self._first[1]) / since if since > 0 else None


class Progress:
    """Keeps a progress file while a stage is worked on, and removes it at the end."""

    def __init__(self, path: Path):
        self._path, self._rate, self._written = path, Rate(), 0.0

    def note(self, stage: str, done: int, total: int, words: str) -> None:
        """Writes it down, if the last time was long enough ago. Never fails."""
        now = time.monotonic()
        left = self._rate.left(done, total, now)
        if now - self._written < EVERY:
            return
        self._written = now
        record = {"stage": stage, "done": done, "total": total, "words": words, "left": left}
        with contextlib.suppress(Exception):  # a full disk is found by what must be written
            write_json(self._path, record, durable=False)

    def end(self) -> None:
        """Removes the file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def read(folder: Path) -> list[Seen]:
    """The stages of a run that are being worked on, the training first; once each.

    Of several processes that share a measurement, the one that is furthest says how far it is.
    """
    found: dict[str, Seen] = {}
    for path in sorted(folder.glob("progress*.json"), key=lambda path: len(path.name)):
        parts = path.name.split(".")[1:-1]  # a measurement's id, and a helper's process
        key, record = parts[0] if parts else "train", read_json(path)
        seen = record and _seen(key, record)
        if seen and (key not in found or seen.done > found[key].done):
            found[key] = seen
    return list(found.values())


def _seen(key: str, record: dict) -> Seen | None:
    """None for what this code does not write."""
    kinds = {"stage": str, "done": int, "total": int, "words": str, "left": (int, float, NoneType)}
    right = record.keys() == kinds.keys()
    right = right and all(isinstance(record[name], kind) for name, kind in kinds.items())
    right = right and (record["stage"] + record["words"]).isprintable()
    return Seen(key, **record) if right else None
