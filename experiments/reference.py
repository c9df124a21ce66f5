"""Trained weights that come with the code, and what else of a run is published."""

import json
from dataclasses import dataclass
from pathlib import Path

from core import checkpoint, weights
from core.config import TrainConfig, from_dict
from core.errors import Refused
from core.training import SNAPSHOT
from experiments.files import read_json
from experiments.overrides import REFERENCE
from experiments.runs import Run, Runs

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Needed:
    """What measurements need of a training: fractions of it, and averages."""

    ats: frozenset[float]
    averages: frozenset[int]


def adopt(run: Run, config: TrainConfig, needed: Needed) -> dict:
    """Makes the reference's weights the run's own final snapshot; returns their provenance.

    Refused when they do not come with the code or are not all that is needed.
    """
    theirs = Runs(REFERENCE / "runs").find(run.id, config).folder
    if not (theirs / WEIGHTS).exists():
        raise Refused(
            f"weights=reference: none of run {run.id} come with the code, which has those of "
            "seed 0 at scale=laptop; leave the word out and it is trained"
        )
    if needed.ats - {1.0} or needed.averages - {0}:
        raise Refused(
            f"weights=reference has the final average of {run.id} alone, and a measurement needs "
            "another snapshot or average; leave the word out and it is trained"
        )
    state = weights.read(theirs / WEIGHTS)
    if from_dict(TrainConfig, json.loads(state["config"])) != config:
        raise Refused(f"{theirs / WEIGHTS} is of another configuration: restore it from git", 1)
    checkpoint.save(run.folder / "checkpoints", SNAPSHOT, state["step"], state)
    return (read_json(theirs / "provenance.json") or {}) | {"weights": "reference"}


def published(source: Path) -> list[Path]:
    """The files of a run that are worth publishing, without weights."""
    names = ("config.json", "provenance.json", "log.jsonl", "trained")
    return [source / name for name in names if (source / name).exists()]
