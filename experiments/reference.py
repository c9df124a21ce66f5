"""Trained weights that come with the code, and what else of a run is published."""

import json
from collections.abc import Iterable

from core import checkpoint, weights
from core.config import GradientNoise, TrainConfig, from_dict
from core.errors import Refused
from core.training import SNAPSHOT
from experiments.asked import Asked
from experiments.overrides import REFERENCE
from experiments.runs import Run, Runs

WEIGHTS = "weights.safetensors"


def adopted(run: Run) -> bool:
    """Whether the run's weights were taken from the reference."""
    return run.provenance.get("weights") == "reference"


def enough(asked: Iterable[Asked]) -> bool:
    """Whether the final average is all that the measurements need."""
    settings = [item.settings for item in asked]
    return not any(s.at != 1 or s.ema or isinstance(s, GradientNoise) for s in settings)


def adopt(run: Run, config: TrainConfig, asked: list[Asked], also_at: tuple[float, ...]) -> dict:
    """Makes the reference's weights the run's own final snapshot; returns their provenance.

    asked, also_at: what they are needed for. Refused when they do not come with the code or are not
    all that is needed.
    """
    source = Runs(REFERENCE / "runs").find(run.id, config)
    theirs = source.folder
    if not (theirs / WEIGHTS).exists():
        raise Refused(
            f"weights=reference: none of run {run.id} come with the code, which has those of "
            "seed 0 at scale=laptop; leave the word out and it is trained"
        )
    if not enough(asked) or set(also_at) - {1.0}:
        raise Refused(
            f"weights=reference has the final average of {run.id} alone, and a measurement needs "
            "another snapshot or average; leave the word out and it is trained"
        )
    state = weights.read(theirs / WEIGHTS)
    if from_dict(TrainConfig, json.loads(state["config"])) != config:
        raise Refused(f"{theirs / WEIGHTS} is of another configuration: restore it from git", 1)
    checkpoint.save(run.folder / "checkpoints", SNAPSHOT, state["step"], state)
    return source.provenance | {"weights": "reference"}
