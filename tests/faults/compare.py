"""Whether results are those of the undisturbed command: bit for bit, each once, nothing besides."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from programs import leftovers

from core import checkpoint
from core.errors import Refused
from core.training import RESUME, SNAPSHOT, read_log
from experiments.files import read_json


def differences(results: Path, alone: Path) -> list[str]:
    """In words; `alone` is the undisturbed results folder."""
    theirs, ours = _folders(alone), _folders(results)
    wrong = [f"{name}: missing" for name in theirs.keys() - ours.keys()]
    wrong += [f"{name}: not asked for" for name in ours.keys() - theirs.keys()]
    for name in sorted(theirs.keys() & ours.keys()):
        wrong += [f"{name}: {what}" for what in _of_run(ours[name], theirs[name])]
    for path in sorted(path for kind in ("tables", "figures") for path in (alone / kind).glob("*")):
        other = results / path.relative_to(alone)
        # An SVG has names of its own each time; its picture is that of the PNG beside it.
        same = other.exists() and (path.suffix == ".svg" or other.read_bytes() == path.read_bytes())
        wrong += [] if same else [f"{path.name}: another one"]
    return wrong + [f"{name}: left behind" for name in leftovers(results)]


def finished(journal: Path) -> Counter:
    """How often each stage of a run was finished, by the notes of hook/sitecustomize.py."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    return Counter(line["finished"] for line in lines if "finished" in line)


def _folders(results: Path) -> dict[str, Path]:
    return {path.name: path for path in (results / "runs").glob("*")}


def _of_run(ours: Path, theirs: Path) -> list[str]:
    wrong = [path.name for path in ours.glob("error*.txt")]
    if checkpoint.paths(ours / "checkpoints", RESUME):
        wrong.append("a checkpoint is left")
    try:
        weights = [
            {p.name: checkpoint.load(p) for p in checkpoint.paths(run / "checkpoints", SNAPSHOT)}
            for run in (ours, theirs)
        ]
        # A name has the digest of its content, which `load` has verified.
        if not weights[1] or weights[0].keys() != weights[1].keys():
            wrong.append("other weights")
    except Refused as error:
        wrong.append(str(error))
    if _log(ours) != _log(theirs):
        wrong.append("another log")
    there = {path.name for path in (theirs / "measurements").glob("*")}
    if {path.name for path in (ours / "measurements").glob("*")} != there:
        wrong.append("not the same measurements")
    else:
        wrong += [
            f"another {n}"
            for n in there
            if not _same(*(f / "measurements" / n for f in (ours, theirs)))
        ]
    return wrong


def _log(run: Path) -> list[dict]:
    """Without what depends on the clock."""
    return [
        {key: value for key, value in line.items() if key != "seconds_per_step"}
        for line in read_log(run / "log.jsonl")
    ]


def _same(ours: Path, theirs: Path) -> bool:
    if ours.suffix == ".json":
        a, b = ((read_json(path) or {}) | {"provenance": None} for path in (ours, theirs))
        return "result" in a and a == b
    with np.load(ours) as a, np.load(theirs) as b:
        return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)
