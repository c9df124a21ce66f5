"""A study as data: YAML, scale and command line -> a list of cells.

A grid is rows x axes x seeds. A key of a row is a term (terms.yaml) or a dotted configuration
field. Order, the last one wins: defaults < scale < the grid's base < row and axes < seed < command
line.
"""

import itertools
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from core.chains import likelihood_chain, sampling_chain, training_chain
from core.config import METRICS, Likelihood, Measurement, TrainConfig
from core.data.identity import content_digest
from core.errors import Refused
from experiments.overrides import HOUSEKEEPING, RESERVED, Request, typed
from experiments.runs import digest

HERE = Path(__file__).resolve().parent
GRID_KEYS = {"title", "paper", "claim", "base", "rows", "axes", "seeds", "measure", "analysis"}
SCALE_KEYS = {"title", "train", "measure", "seeds"}


@dataclass(frozen=True)
class Asked:
    """A measurement that a cell asks for: its name in the grid, its axes' values, its id."""

    name: str
    axes: dict[str, Any]
    settings: Measurement
    id: str


@dataclass(frozen=True)
class Cell:
    """One expanded entry: `row` in the grid's own words, a seed, a training, measurements."""

    row: dict[str, Any]
    seed: int
    config: TrainConfig
    run_id: str
    measurements: tuple[Asked, ...]

    @property
    def words(self) -> str:
        return " ".join(str(value) for value in self.row.values())


@dataclass(frozen=True)
class Grid:
    """A grid at one scale. `analysis`: scripts that turn it into tables and figures."""

    name: str
    title: str
    paper: str
    claim: str
    scale: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]  # all rows of the first seed, then of the second, ...
    analysis: tuple[str, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [cell.row for cell in self.cells if cell.seed == self.seeds[0]]


def available(kind: str) -> list[str]:
    """Names of the grids or scales that exist; kind: "grids" or "scales"."""
    return sorted(path.stem for path in (HERE / kind).glob("*.yaml"))


def expand(request: Request) -> Grid:
    """The grid that a command line asks for; anything wrong with it is Refused in one line."""
    grid = _read("grids", request.grid, GRID_KEYS)
    scale = _read("scales", request.scale, SCALE_KEYS)
    terms = yaml.safe_load((HERE / "terms.yaml").read_text())
    seeds = request.seeds or tuple(scale.get("seeds", grid.get("seeds", [0])))
    rows = _rows(grid)
    expanded = [_fields(row, terms) for row in rows]
    typed_in = _fields(request.overrides, terms)
    _refuse_varied(request, typed_in, expanded)
    _refuse_unknown(typed_in, grid)

    cells = []
    for seed, (row, values) in itertools.product(seeds, zip(rows, expanded)):
        base = _fields(grid.get("base", {}), terms)
        layers = [scale.get("train", {}), _training(base), _training(values), {"seed": seed}]
        config = typed(TrainConfig, [*layers, _training(typed_in)], "")
        config = _with_data(config, request)
        asked = _measurements(config, grid, scale, [base, values, typed_in])
        _check(config, asked)
        cells.append(Cell(row, seed, config, digest(config), asked))
    _refuse_twins(cells)
    return Grid(
        request.grid,
        grid.get("title", request.grid),
        grid.get("paper", ""),
        " ".join(grid.get("claim", "").split()),
        request.scale,
        seeds,
        tuple(cells),
        tuple(grid.get("analysis", [])),
    )


def _read(kind: str, name: str, keys: set[str]) -> dict:
    path = HERE / kind / f"{name}.yaml"
    word = kind.removesuffix("s")
    if not name or not path.is_file():
        there = ", ".join(available(kind))
        what = f"there is no {word} '{name}'" if name else f"{word}=NAME is missing"
        raise Refused(f"{what}; there are: {there}{_did_you_mean(name, available(kind))}")
    content = yaml.safe_load(path.read_text()) or {}
    for key in content.keys() - keys:
        raise Refused(f"{path.name}: unknown key '{key}'; a {word} has: {', '.join(sorted(keys))}")
    return content


def _did_you_mean(word: str, words: list[str]) -> str:
    near = get_close_matches(word, words, 1)
    return f". Did you mean '{near[0]}'?" if near else ""


def _rows(grid: dict) -> list[dict]:
    """Rows x axes, in the grid's own words."""
    axes = grid.get("axes") or {}
    points = itertools.product(*axes.values())
    points = [dict(zip(axes, point)) for point in points]
    return [row | point for row in (grid.get("rows") or [{}]) for point in points]


def _fields(row: dict, terms: dict) -> dict[str, Any]:
    """A row's words as dotted configuration fields."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key not in terms:
            values[key] = value
        elif str(value) in terms[key]:
            values |= terms[key][str(value)]
        else:
            raise Refused(f"{key}={value}: choose one of {', '.join(terms[key])}")
    return values


def _training(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith("measure.")}


def _refuse_varied(request: Request, typed_in: dict, rows: list[dict]) -> None:
    """A key that the grid varies cannot be fixed from outside: rows would collapse into one."""
    for key in [*typed_in, *request.overrides]:
        if len({str(row.get(key)) for row in rows}) > 1:
            raise Refused(f"{request.grid} varies {key}; the command line cannot fix it")


def _refuse_unknown(typed_in: dict[str, Any], grid: dict) -> None:
    """Names at the first level, where a word may be meant for the launcher as well."""
    names = [f.name for f in fields(TrainConfig)]
    known = [*RESERVED, *HOUSEKEEPING, *names, "measure"]
    for key in typed_in:
        first = key.split(".")[0]
        if first not in known:
            raise Refused(
                f"unknown key '{key}'{_did_you_mean(first, known)}; --help shows the keys"
            )
        if first in names and "." in key:
            continue
        if first == "seed":
            raise Refused("seeds are given as seeds=[0,1,2]")


def _with_data(config: TrainConfig, request: Request) -> TrainConfig:
    """A folder's content becomes part of the identity; its path does not."""
    path = request.housekeeping.data_path
    if config.data.name != "folder":
        return config
    if not path:
        raise Refused("data.name=folder needs data_path=FOLDER, or a .zip of images")
    return typed(TrainConfig, [_flat(config), {"data.digest": content_digest(Path(path))}], "")


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted fields of a configuration."""
    values: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if hasattr(value, "__dataclass_fields__"):
            values |= _flat(value, f"{prefix}{f.name}.")
        else:
            values[prefix + f.name] = value
    return values


def not_applicable(config: TrainConfig, settings: Measurement) -> str | None:
    """Why a measurement has no meaning for a training, or None."""
    if config.objective.name == "simple" and settings.variance == "learned":
        return "L_simple does not learn the variance"
    return None


def _measurements(
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
            if first == name and "." in rest:
                mine[rest.removeprefix(f"{name}.")] = value
            continue
        if first in {f.name for f in fields(kind)}:
            mine[rest] = value
        elif not any(first in {f.name for f in fields(k)} for k in kinds.values() if k):
            raise Refused(f"{key}: no measurement of this grid is called or has '{first}'")
    return mine


def _check(config: TrainConfig, asked: tuple[Asked, ...]) -> None:
    """What no type can say, found before anything runs."""
    T = config.diffusion.T
    try:
        training_chain(config.diffusion)
    except ValueError as error:
        raise Refused(f"diffusion.T={T}: {error}") from error
    optim = config.optim
    for key, value in (("steps", optim.steps), ("batch_size", optim.batch_size), ("lr", optim.lr)):
        if not value > 0:
            raise Refused(f"optim.{key}={value} must be positive")
    if not optim.ema or not all(0 <= rate < 1 for rate in optim.ema):
        raise Refused(f"optim.ema={list(optim.ema)}: give at least one rate, each in [0, 1)")
    if not 0 <= config.unet.dropout < 1:
        raise Refused(f"unet.dropout={config.unet.dropout} must be in [0, 1)")
    for item in asked:
        settings, name = item.settings, f"measure.{item.name}"
        try:
            if isinstance(settings, Likelihood):
                likelihood_chain(config.diffusion, settings)
            else:
                sampling_chain(config.diffusion, settings.sampler)
        except ValueError as error:
            raise Refused(f"{name} on a chain of T={T}: {error}") from error
        if not 0 < settings.at <= 1:
            raise Refused(f"{name}.at={settings.at} must be in (0, 1]")
        if not -1 <= settings.ema < len(optim.ema):
            raise Refused(f"{name}.ema={settings.ema}, but optim.ema has {len(optim.ema)} rate(s)")
        if settings.images < 2:
            raise Refused(f"{name}.images={settings.images}: at least 2 are needed")


def _refuse_twins(cells: list[Cell]) -> None:
    seen: dict = {}
    for cell in cells:
        key = (cell.run_id, tuple(sorted(item.id for item in cell.measurements)))
        if key in seen:
            raise Refused(f"two cells are the same: '{seen[key]}' and '{cell.words}'")
        seen[key] = cell.words
