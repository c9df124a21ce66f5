"""Checkpoints that are whole or absent: atomic, verified, and loaded without running code.

A file is named `<kind>-<step>.<first 16 hex digits of its SHA-256>.pt`, so that a truncated or
altered file is known by its name. Contents are nested dicts of tensors, numbers and strings.
"""

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from core.errors import DiskFull, Refused
from core.files import temporary


def save(folder: Path, kind: str, step: int, state: dict) -> Path:
    """Writes the state under a temporary name, flushes it to the disk, then renames it."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(folder / f"{kind}-{step}")
    try:
        with open(unfinished, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"{kind}-{step:08d}.{_digest(unfinished)}.pt"
        os.replace(unfinished, path)
        for other in folder.glob(f"{kind}-{step:08d}.*.pt"):
            if other != path:  # damaged, or else nobody would have come to this step again
                other.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        unfinished.unlink(missing_ok=True)
        # torch reports a failed write as a RuntimeError whose cause is lost.
        if isinstance(error, RuntimeError) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(folder) from error
        raise
    return path


def load(path: Path) -> dict:
    """The state in a checkpoint, on the CPU; Refused when the file is not what was written.

    The digest in its name tells damage, not origin: a stranger's file may have the right one, so
    that PyTorch reads tensors, numbers and strings from it, and nothing that could run.
    """
    if _digest(path) != path.name.split(".")[-2]:
        raise Refused(
            f"{path} is damaged or truncated: delete it and run the same command again", code=1
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # it raises nearly anything for a file that is not its own
        raise _not_ours(path) from error
    if not isinstance(state, dict):
        raise _not_ours(path)
    return state


def _not_ours(path: Path) -> Refused:
    return Refused(
        f"{path} holds something else than a training's state, and nothing of it was run: delete "
        "it and run the same command again",
        code=1,
    )


@contextmanager
def fitting(where: Path) -> Iterator[None]:
    """Around what takes a loaded state apart: one that lacks something or is of another form is
    Refused, naming the file or folder that it is from."""
    try:
        yield
    except torch.OutOfMemoryError:  # the device's fault, and no reason to delete anything
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:100]
        raise Refused(
            f"{where} does not fit this run ({why}): delete it and run the same command again",
            code=1,
        ) from error


def is_whole(path: Path) -> bool:
    """Whether the file is what was written; read once as long as it does not change."""
    try:
        seen = path.stat()
    except OSError:
        return False
    return _is_whole(path, seen.st_mtime_ns, seen.st_size, seen.st_ino)


@lru_cache(maxsize=4096)
def _is_whole(path: Path, *seen: int) -> bool:
    return _digest(path) == path.name.split(".")[-2]


def step_of(path: Path) -> int:
    """The step that a checkpoint is of."""
    return int(path.name.partition(".")[0].rpartition("-")[2])


def paths(folder: Path, kind: str) -> list[Path]:
    """The checkpoints of one kind in a folder, newest first."""
    return sorted(folder.glob(f"{kind}-*.pt"), reverse=True)


def newest(folder: Path, kind: str, before: int | None = None) -> dict | None:
    """The newest checkpoint that is whole, of a step before the given one; None without any.

    Damaged ones are passed over with a warning.
    """
    for path in paths(folder, kind):
        if before is not None and step_of(path) >= before:
            continue
        if is_whole(path):
            return load(path)
        print(
            f"warning: {path} is damaged; the one before it is taken, or the first step",
            file=sys.stderr,
        )
    return None


def keep_newest(folder: Path, kind: str, n: int, step: int) -> None:
    """Of the checkpoints of a kind up to a step, deletes all but the newest n.

    Later ones stay: a training that has gone back for a snapshot comes to them again.
    """
    for path in [path for path in paths(folder, kind) if step_of(path) <= step][n:]:
        path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
