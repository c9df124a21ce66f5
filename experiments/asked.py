"""What a grid asks to be measured: from its file, the scale and the command line to settings."""

import itertools
from dataclasses import dataclass, fields
from typing import Any

from core.config import METRICS, LearnedVariance, Measurement, TrainConfig
from core.errors import Refused
from experiments.overrides import did_you_mean, typed
from experiments.runs import digest


@dataclass(frozen=True)
class Asked:
    """A measurement that a cell asks for: its name in the grid, its axes' values, its id."""

    name: str
    axes: dict[str, Any]
    settings: Measurement
    id: str


def not_applicable(config: TrainConfig, settings: Measurement) -> str | None:
    """Why a measurement has no meaning for a training, or None."""
    asks = isinstance(settings, LearnedVariance) or getattr(settings, "variance", "") == "learned"
    if config.objective.name == "simple" and asks:
        return "L_simple does not learn the variance"
    return None


def measurements_of(
    config: TrainConfig, grid: dict, scale: dict, layers: list[dict[str, Any]]
) -> tuple[Asked, ...]:
    """Every measurement of a cell: scale's settings < the grid's < layers < its own axes.

    Those that have no meaning for the training are left out. In a layer `measure.FIELD` is for
    every measurement that has the field, and `measure.NAME.FIELD` for the one of that name.
    """
    asked = []
    for name, entry in (grid.get("measure") or {}).items():
        entry = dict(entry)
        metric, axes = entry.pop("metric", None), entry.pop("axes", {})
        if metric not in METRICS:
            raise Refused(
                f"measure.{name}: unknown metric '{metric}'; there are: {', '.join(METRICS)}"
            )
        kind = METRICS[metric]
        mine = [(scale.get("measure") or {}).get(metric, {}), entry]
        for layer in layers:
            mine.append(_for_measurement(layer, name, kind, grid))
        for point in itertools.product(*axes.values()):
            axis = dict(zip(axes, point))
            settings = typed(kind, [*mine, axis], f"measure.{name}.")
            if not not_applicable(config, settings):
                asked.append(Asked(name, axis, settings, digest(settings, metric)))
    return tuple(asked)


def _for_measurement(layer: dict[str, Any], name: str, kind: type, grid: dict) -> dict[str, Any]:
    """The part of a layer's `measure.` keys that this measurement takes."""
    names = grid.get("measure") or {}
    kinds = {other: METRICS.get(entry.get("metric")) for other, entry in names.items()}
    mine = {}
    for key, value in layer.items():
        if not key.startswith("measure."):
            continue
        rest = key.removeprefix("measure.")
        first = rest.split(".")[0]
        if first in names:
            if "." not in rest:
                raise Refused(f"{key}={value}: set a field of it, as in {key}.images=100")
            if first == name:
                mine[rest.removeprefix(f"{name}.")] = value
            continue
        if first in {f.name for f in fields(kind)}:
            mine[rest] = value
        elif not any(first in {f.name for f in fields(k)} for k in kinds.values() if k):
            there = [*names, *(f.name for k in kinds.values() if k for f in fields(k))]
            raise Refused(
                f"{key}: no measurement of this grid is called or has '{first}'"
                f"{did_you_mean(first, there)}"
            )
    return mine
