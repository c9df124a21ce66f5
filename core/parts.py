"""A measurement in parts: what an interruption cannot cost, and what several processes can share.

Each part is about PART images and is kept as a file of arrays until the measurement is done. It is
computed by whoever claims it first, and a part that is there is never computed again.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from core.config import Housekeeping
from core.data import arrays
from core.files import replacing
from core.training import Interrupted, Progress

PART = 256  # images

Arrays = dict[str, np.ndarray]
Report = Callable[[float], None]  # told which share of a part is done


def always(which: range) -> Any:
    """The claim of a process that shares its work with nobody."""
    return nullcontext()


@dataclass(frozen=True)
class Work:
    """What a measurement is given besides its settings.

    scratch: a folder of its own for its parts; cache: where statistics of whole data sets are kept,
    by content. claim: asked before a part is computed; a context to compute it in, or None when
    somebody else does. helping: leave what others compute to them instead of waiting for it, once
    `alive` says of each part that who claimed it lives.
    """

    housekeeping: Housekeeping
    scratch: Path
    cache: Path
    progress: Progress = lambda done, total, words: None
    stop: Callable[[], bool] = lambda: False
    claim: Callable[[range], Any] = always
    helping: bool = False
    alive: Callable[[range], bool] = lambda which: True

    def done(self, done: float, total: int, words: str = "") -> None:
        """Report progress; raise Interrupted when asked to stop."""
        self.progress(round(done), total, words)
        if self.stop():
            raise Interrupted


def compute(
    images: int, evaluations: int, part: Callable[[range, Report], Arrays], work: Work
) -> list[Arrays] | None:
    """The parts of a measurement on so many images, in order.

    Those that are not there are computed: part(which images, report). Where others compute the
    rest: waits for them, or returns None when `work.helping`. Progress is told in network
    evaluations, of which there are so many per image.
    """
    total = images * evaluations
    everything = [range(a, min(a + PART, images)) for a in range(0, images, PART)]
    paths = {
        which: work.scratch / f"{which.start:08d}-{which.stop:08d}.npz" for which in everything
    }
    while True:
        missing = [which for which in everything if not paths[which].exists()]
        if not missing:
            found = {which: _load(paths[which]) for which in everything}
            if None not in found.values():
                return list(found.values())
            continue  # a damaged one was deleted
        progressed = False
        for which in missing:
            claim = work.claim(which)
            if claim is None:
                continue
            with claim:
                if not paths[which].exists():
                    there = images - sum(len(w) for w in everything if not paths[w].exists())
                    step = partial(
                        _report, work, there * evaluations, len(which) * evaluations, total
                    )
                    _save(paths[which], part(which, step))
                progressed = True
        if not progressed:
            if work.helping and all(work.alive(which) for which in missing):
                return None
            there = images - sum(len(which) for which in missing)
            work.done(there * evaluations, total, "the rest is computed elsewhere")
            time.sleep(1)


def _report(work: Work, before: int, part: int, total: int, share: float) -> None:
    """Says that `share` of a part is done; all in network evaluations."""
    work.done(before + share * part, total)


def _save(path: Path, content: Arrays) -> None:
    with replacing(path) as file:
        np.savez(file, **content, names=sorted(content))


def _load(path: Path) -> Arrays | None:
    """The arrays of a part; deleted when it is damaged.

    A zip archive has checksums of its members, and `names` says which there are.
    """
    try:
        found = arrays.read(path)
        if "names" in found and found.pop("names").tolist() == sorted(found):
            return found
    except (OSError, ValueError):
        pass
    print(f"warning: {path} is damaged; computed again", file=sys.stderr)
    path.unlink(missing_ok=True)
    return None
