"""What a grid asks to be measured: from its file, the scale and the command line to settings."""

import itertools
from dataclasses import dataclass, fields, replace
from typing import Any

from core.config import METRICS, Frechet, LearnedVariance, Measurement, TrainConfig, metric_of
from core.errors import Refused
from experiments.overrides import did_you_mean, typed
from experiments.runs import digest


@dataclass(frozen=True)
class Asked:
    """A measurement that a cell asks for: its name in the grid, its axes' values, its id.

    with_row: what the row of the same grid and seed has otherwise whose run takes part in it, in
    the grid's words. Once its seed is known that run's id is `settings.partner`.
    """

    name: str
    axes: dict[str, Any]
    settings: Measurement
    id: str
    with_row: dict[str, Any] | None = None

    @property
    def words(self) -> str:
        """Its name and its axes' values, for people and for telling how much of a task is done."""
        values = (f"{axis.rpartition('.')[2]} {value}" for axis, value in self.axes.items())
        return " ".join([self.name, *values])

    def having(self, **changed: Any) -> "Asked":
        """The same with other settings, and the id that they have."""
        settings = replace(self.settings, **changed)
        return replace(self, settings=settings, id=digest(settings, metric_of(settings)))

    @property
    def partner(self) -> str:
        """Id of the other run that takes part, or nothing."""
        return getattr(self.settings, "partner", "")


def from_errors(settings: Measurement) -> bool:
    """Whether the reverse process is made from the network's errors (core/diffusion/optimal.py)."""
    sampler = getattr(settings, "sampler", settings)
    variance, stride = getattr(settings, "variance", ""), getattr(sampler, "stride", "")
    return variance == "analytic" or stride == "dynamic"


def not_applicable(config: TrainConfig, settings: Measurement, partner: bool = False) -> str | None:
    """Why a measurement, with or without a partner, has no meaning for a training, or None."""
    if config.objective.name == "gan" and not isinstance(settings, Frechet):
        return "a GAN has neither a likelihood, nor a reverse variance, nor an objective over t"
    asks = isinstance(settings, LearnedVariance) or getattr(settings, "variance", "") == "learned"
    if config.objective.name == "simple" and asks:
        return "L_simple does not learn the variance"
    if from_errors(settings) and (config.data.low or partner):
        return "the errors of two networks at once are not measured"
    if config.data.size and isinstance(settings, Frechet):
        return "its images are not of the data set's size"
    if config.data.low and not (isinstance(settings, Frechet) and partner):
        return "there is nothing that it could enlarge"
    if partner and not (config.data.low or settings.ends):
        return "the other run would have no part in it"
    return None


@dataclass(frozen=True)
class RowRun:
    """A row of a grid, and its run for one seed."""

    row: dict[str, Any]
    id: str
    config: TrainConfig


def of_seed(asked: tuple[Asked, ...], seed: int) -> tuple[Asked, ...]:
    """The measurements of a row for the runs of one seed, whose noise is theirs.

    Rows of one seed share it, so that their differences are paired. Other seeds have other noise:
    if all of them had the same, what it does to a Frechet distance would be in every one of them,
    and no spread over seeds would show it. Of seed 0 they stay as they are.
    """
    return tuple(item.having(seed=item.settings.seed + seed) for item in asked)


def with_partners(asked: tuple[Asked, ...], own: RowRun, rows: list[RowRun]) -> tuple[Asked, ...]:
    """The measurements of a row with the ids of the runs that take part in them.

    rows: all of the grid. A row is no partner of itself: what would make it one is left out.
    Refused when there is no such row, or its network cannot take part.
    """
    found = []
    for item in asked:
        if item.with_row is None:
            found.append(item)
            continue
        wanted = own.row | item.with_row
        other = next((other for other in rows if other.row == wanted), None)
        if other is None:
            raise Refused(f"measure.{item.name}: no row of this grid is {wanted}")
        if wanted != own.row:
            if unfit := _unfit(own.config, other.config):
                raise Refused(f"measure.{item.name}: {unfit}")
            found.append(item.having(partner=other.id))
    return tuple(found)


def _unfit(config: TrainConfig, partner: TrainConfig) -> str | None:
    """Why a network cannot take part in measurements of another, or None."""
    low = config.data.low
    if low and (partner.data.low or partner.data.size != low):
        return f"what is enlarged must come from a network of data.size={low} without data.low"
    if not low and (config.data, config.diffusion) != (partner.data, partner.diffusion):
        return "two networks can be mixed only for the same data and the same chain"
    return None


def measurements_of(
    config: TrainConfig, study: str, grid: dict, scale: dict, layers: list[dict[str, Any]]
) -> tuple[Asked, ...]:
    """Every measurement of a cell: scale's settings < the grid's < layers < its own axes.

    The scale may have other values for an axis of a study's measurement.

    Those that have no meaning for the training are left out. In a layer `measure.FIELD` is for
    every measurement that has the field, and `measure.NAME.FIELD` for the one of that name.
    """
    for layer in layers:
        _check_names(layer, grid)
    asked = []
    of_scale = (scale.get("axes") or {}).get(study, {})
    for name, entry in (grid.get("measure") or {}).items():
        entry = dict(entry)
        metric = entry.pop("metric")
        axes = (entry.pop("axes", None) or {}) | ((of_scale or {}).get(name) or {})
        with_row = entry.pop("with_row", None)
        kind = METRICS[metric]
        mine = [(scale.get("measure") or {}).get(metric) or {}, entry]
        for layer in layers:
            mine.append(_for_measurement(layer, name, kind, grid.get("measure")))
        for point in itertools.product(*axes.values()):
            axis = dict(zip(axes, point))
            settings = typed(kind, [*mine, axis], f"measure.{name}.")
            if not not_applicable(config, settings, with_row is not None):
                asked.append(Asked(name, axis, settings, digest(settings, metric), with_row))
    return tuple(asked)


def _for_measurement(layer: dict[str, Any], name: str, kind: type, names: dict) -> dict[str, Any]:
    """The part of a layer's `measure.` keys that this measurement takes."""
    mine = {}
    for key, value in layer.items():
        start, _, rest = key.partition(".")
        first, _, field = rest.partition(".")
        if start != "measure":
            continue
        if first == name:
            mine[field] = value
        elif first not in names and first in {f.name for f in fields(kind)}:
            mine[rest] = value
    return mine


def _check_names(layer: dict[str, Any], grid: dict) -> None:
    """Refused: a `measure.` key of the layer that no measurement of the grid takes."""
    names = grid.get("measure") or {}
    if not names:  # a term such as the objective says how to measure, even if nothing is
        return
    known = {f.name for entry in names.values() for f in fields(METRICS[entry["metric"]])}
    for key, value in layer.items():
        start, _, rest = key.partition(".")
        first, dot, _ = rest.partition(".")
        if start == "measure" and first in names and not dot:
            raise Refused(f"{key}={value}: set a field of it, as in {key}.images=100")
        if start == "measure" and first not in {*names, *known}:
            near = did_you_mean(first, [*names, *known])
            raise Refused(f"{key}: no measurement of this grid is called or has '{first}'{near}")
