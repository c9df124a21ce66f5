"""Removing what killed or overtaken processes have left: claims, progress, half-written files.

Nothing depends on it: who works on a run finds its way past all of that.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from core.files import writer
from experiments import claims

RESUME = "checkpoint-*.pt"  # of an unfinished training, as core/checkpoint.py names them
UNSEEN = 3600.0  # seconds without a change after which a process of another machine has ended


def tidy(results: Path, runs: Iterable[Path]) -> None:
    """Of these run folders, and of the tables, figures and statistics in the results folder.

    What belongs to a process that may be alive, here or elsewhere, stays, and so does whatever a
    link leads to that leads out of the results folder.
    """
    root = os.path.realpath(results)

    def inside(*places: Path) -> list[Path]:
        links = (p for p in places if p.is_symlink())  # few, and to follow a path takes long
        out = {p for p in links if not Path(os.path.realpath(p)).is_relative_to(root)}
        return [p for p in places if p not in out]

    for folder in inside(*runs) if inside(results / "runs") else ():
        alone = _unclaimed(folder)
        if alone and (folder / "trained").exists():
            # By a process that was stopped in the middle of writing it until another was done.
            for path in (p for place in inside(folder / "checkpoints") for p in place.glob(RESUME)):
                path.unlink(missing_ok=True)
        for place in inside(folder, folder / "checkpoints", measured := folder / "measurements"):
            _half_written(place)
        for parts in (path for place in inside(measured) for path in place.glob("*.part")):
            if parts.with_suffix(".json").exists():
                shutil.rmtree(parts, ignore_errors=True)
    for place in inside(*(results / name for name in ("tables", "figures", "cache"))):
        _half_written(place)


def _unclaimed(folder: Path) -> bool:
    """Claims of the dead, and what says how far they were; whether there are no others."""
    held = [path for path in folder.glob("owner*.json") if not claims.clear(path)]
    for path in () if held else folder.glob("progress*.json"):
        path.unlink(missing_ok=True)
    for lock in folder.glob(".owner*.json.removing"):
        if claims.age(lock) > claims.REMOVING:
            lock.unlink(missing_ok=True)
    return not held


def _half_written(place: Path) -> None:
    for path in place.glob(".*.tmp"):
        process = writer(path)
        if not claims.process_exists(process) if process else claims.age(path) > UNSEEN:
            path.unlink(missing_ok=True)
