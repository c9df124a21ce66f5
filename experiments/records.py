"""What a finished training leaves beside its weights: where it comes from, and its log.

Nobody can compute either again without training, so the mark of a finished training, the file
`trained`, holds a copy of both: where one of the three is damaged the others restore it. In folders
of earlier versions the mark is empty, and the files are taken as they are.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from types import NoneType

from core.errors import Refused
from experiments.files import is_damaged, read_json, stamp, write_bytes, write_json

CONFIG, PROVENANCE, LOG, MARK = "config.json", "provenance.json", "log.jsonl", "trained"


def finish(folder: Path, provenance: dict) -> None:
    """Marks the training in this folder as finished."""
    log = folder / LOG
    content = log.read_bytes() if log.exists() else None
    if content is not None:
        provenance = provenance | {"log_sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / PROVENANCE, provenance)
    copy = {"provenance": provenance, "log": None if content is None else content.decode()}
    write_json(folder / MARK, copy)


def damaged(folder: Path) -> list[Path]:
    """Those of a run's records that are not as they were written."""
    paths = [folder / name for name in (CONFIG, PROVENANCE, LOG, MARK)]
    seen = tuple(stamp(path) for path in paths)
    return list(_damaged(*paths, seen))


@lru_cache(maxsize=4096)
def _damaged(config: Path, provenance: Path, log: Path, mark: Path, seen: tuple) -> list[Path]:
    found = [path for path in (config, provenance) if is_damaged(path)]
    if not mark.exists():
        return found
    copy = _copy(mark)
    record = read_json(provenance) or (copy or {}).get("provenance", {})
    if copy is None and (mark.stat().st_size or "log_sha256" in record):
        found.append(mark)
    if "log_sha256" in record and record["log_sha256"] != _digest(log):
        found.append(log)
    return found


def _copy(mark: Path) -> dict | None:
    """Provenance and log in the mark of a finished training; None where they are not there."""
    copy = read_json(mark) or {}
    right = isinstance(copy.get("provenance"), dict) and "log" in copy
    return copy if right and isinstance(copy["log"], (str, NoneType)) else None


def restore(folder: Path) -> None:
    """Mends the records of a finished training; where that cannot be it counts as not finished."""
    bad = [path for path in damaged(folder) if path.name != CONFIG]
    if not bad or not (folder / MARK).exists():
        return
    record = read_json(folder / PROVENANCE) if folder / LOG not in bad else None
    copy = _copy(folder / MARK)
    if copy is None and record is not None:
        finish(folder, record)
    elif copy is None:
        (folder / MARK).unlink()
    else:
        write_json(folder / PROVENANCE, copy["provenance"])
        if copy["log"] is not None:
            write_bytes(folder / LOG, copy["log"].encode())


def log_of(folder: Path) -> list[dict]:
    """The lines of a run's log. Refused when they are not those that the training wrote."""
    from core.training import read_log  # late: torch takes seconds to import

    if folder / LOG in damaged(folder):
        raise Refused(f"{folder / LOG} is damaged: run its grid again, which restores it", 1)
    return read_log(folder / LOG)


def training_seconds(folder: Path, record: dict) -> float:
    """About how many seconds a finished training took, all its processes together.

    By the time of a step in each line of its log, which is the mean since that process began.
    record: its provenance, which knows the last process alone. It counts where there is no log.
    """
    from core.training import read_log  # late, as above

    lines = [] if folder / LOG in damaged(folder) else read_log(folder / LOG)
    seconds, before = 0.0, 0
    for line in lines:
        each = line.get("seconds_per_step")
        seconds += (line["step"] - before) * (each if type(each) in (int, float) else 0.0)
        before = line["step"]
    return seconds or record.get("seconds", 0.0)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
