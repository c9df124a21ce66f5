"""A study as data: YAML, scale and command line -> a list of cells.

A grid is rows x axes x seeds. A key of a row is a term (terms.yaml) or a dotted configuration
field. Order, the last one wins: defaults < scale < the grid's base < the scale's word on the grid <
row and axes < seed < command line.
"""

import itertools
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from core.config import GANConfig, TrainConfig
from core.data.identity import content_digest
from core.errors import Refused
from experiments import read_yaml
from experiments.asked import Asked, RowRun, measurements_of, with_partners
from experiments.limits import check
from experiments.overrides import (
    HOUSEKEEPING,
    RESERVED,
    ROOT,
    Request,
    did_you_mean,
    dotted,
    seeds_of,
    typed,
)
from experiments.runs import digest

HERE = Path(__file__).resolve().parent
GRID_KEYS = {  # and what their values are (experiments/read_yaml.py)
    **{"title": str, "paper": str, "claim": str, "base": dict, "rows": (list, dict)},
    **{"axes": (dict, list), "seeds": object, "measure": (dict, dict), "analysis": (list, str)},
}
# The paper's studies, in the order of grid=all: what is cheap, or of use to others, comes first.
STUDIES = (
    "schedule_ablation",
    "variance_ablation",
    "objective_noise",
    "skipped_steps",
    "model_mix",
    "training_length",
    "sample_count",
    "architecture",
    "two_stage",
    "overfitting",
    "ema_dropout",
    "model_size",
    "gan_comparison",
    "recipe",
    "sampling_steps",
)
# Not the paper's: what others proposed since, as worked examples of adding one's own.
EXTENSIONS = (
    "extension_schedule",
    "extension_weighting",
    "extension_steps",
    "extension_variance",
)
GROUPS = {"all": STUDIES, "extensions": EXTENSIONS}
SCALE_KEYS = {
    **{"title": str, "train": dict, "measure": (dict, dict), "seeds": object, "prepare": str},
    **{"grids": (dict, dict), "axes": (dict, dict), "terms": (dict, dict), "form": (list, int)},
}


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
        """The row's values; those of fields with the field's name, as in "dropout 0.1"."""
        named = ((key.rpartition("."), value) for key, value in self.row.items())
        words = (f"{last} {value}" if dot else f"{value}" for (_, dot, last), value in named)
        return " ".join(words) or "run"


@dataclass(frozen=True)
class Grid:
    """A grid at one scale. `analysis`: scripts that turn it into tables and figures.

    form: what a scale whose data are the user's own says of them, so that it can be priced before.
    """

    name: str
    title: str
    paper: str
    claim: str
    scale: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]  # all rows of the first seed, then of the second, ...
    analysis: tuple[str, ...]
    form: tuple[int, int, int] | None = None  # of the scale's images: channels, size, classes

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [cell.row for cell in self.cells if cell.seed == self.seeds[0]]


def available(kind: str) -> list[str]:
    """Names of the grids or scales that exist; kind: "grids" or "scales"."""
    return sorted(path.stem for path in (HERE / kind).glob("*.yaml"))


def expand_each(request: Request) -> list[Grid]:
    """The grid that a command line asks for or, with grid=all or grid=extensions, each of them."""
    names = GROUPS.get(request.grid, (request.grid,))
    return [expand(replace(request, grid=name)) for name in names]


def expand(request: Request) -> Grid:
    """The grid that a command line asks for; anything wrong with it is Refused in one line."""
    grid = _read("grids", request.grid, GRID_KEYS)
    scale = _read("scales", request.scale, SCALE_KEYS)
    terms = read_yaml.read(HERE / "terms.yaml", "terms.yaml")
    for term, meanings in (scale.get("terms") or {}).items():
        terms[term] = terms.get(term, {}) | meanings
    seeds = request.seeds or seeds_of(scale.get("seeds", grid.get("seeds", [0])))
    rows = _rows(grid)
    expanded = [_fields(row, terms) for row in rows]
    typed_in = _fields(request.overrides, terms)
    _refuse_varied(request, typed_in, expanded, grid)
    _refuse_unknown(typed_in, terms)

    # What this scale says about this grid alone, such as fewer images where it draws many sets.
    base = _fields(grid.get("base") or {}, terms)
    base |= _fields((scale.get("grids") or {}).get(request.grid, {}), terms)
    of_scale = dotted(scale.get("train") or {})
    data = _data_digest(request, typed_in, [of_scale, base, *expanded], scale)
    fields_of_all = [of_scale, _training(base)]
    ready = []
    for row, values in zip(rows, expanded):
        config = typed(TrainConfig, [*fields_of_all, _training(values), _training(typed_in)], "")
        if config.objective.name != "gan":  # settings of another row's training
            config = replace(config, gan=GANConfig())
        if config.data.name == "folder":
            config = replace(config, data=replace(config.data, digest=data))
        layers = [base, values, typed_in]
        asked = measurements_of(config, request.grid, grid, scale, layers)
        check(config, {item.name: item.settings for item in asked})
        ready.append((row, config, asked))
    cells = []
    for seed in seeds:
        configs = [replace(config, seed=seed) for _, config, _ in ready]
        rows = [RowRun(row, digest(c), c) for (row, _, _), c in zip(ready, configs)]
        for (row, _, asked), own in zip(ready, rows):
            cells.append(Cell(row, seed, own.config, own.id, with_partners(asked, own, rows)))
    if grid.get("measure") and not any(cell.measurements for cell in cells):
        raise Refused(f"nothing that {request.grid} measures has a meaning with these settings")
    _refuse_twins(cells)
    return Grid(
        request.grid,
        grid.get("title", request.grid),
        grid.get("paper", ""),
        " ".join(grid.get("claim", "").split()),
        request.scale,
        seeds,
        tuple(cells),
        tuple(grid.get("analysis") or []),
        tuple(scale["form"]) if "form" in scale else None,
    )


def _read(kind: str, name: str, keys: dict[str, Any]) -> dict:
    path = HERE / kind / f"{name}.yaml"
    word = kind.removesuffix("s")
    if name not in available(kind):  # also where it would lead out of the folder
        there = ", ".join(available(kind))
        what = f"there is no {word} '{name}'" if name else f"{word}=NAME is missing"
        raise Refused(f"{what}; there are: {there}{did_you_mean(name, available(kind))}")
    content = read_yaml.read(path, path.name)
    for key in content.keys() - keys.keys():
        raise Refused(f"{path.name}: unknown key '{key}'; a {word} has: {', '.join(sorted(keys))}")
    read_yaml.refuse_shape(content, keys, path.name)
    for script in content.get("analysis") or []:
        if script not in {file.stem for file in (ROOT / "analysis").glob("*.py")}:
            raise Refused(f"{path.name}: there is no script '{script}' in analysis/")
    return content


def seeds_of_grid(name: str) -> tuple[int, ...]:
    """Those of the grid's own file. Refused when there is no such grid."""
    return seeds_of(_read("grids", name, GRID_KEYS).get("seeds", [0]))


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
        if "$" in f"{key}{value}":  # figures would take it for a formula
            raise Refused(f"{key}={value}: a word cannot have a '$'")
        if key not in terms:
            values[key] = value
        elif str(value) in terms[key]:
            values |= terms[key][str(value)]
        else:
            raise Refused(f"{key}={value}: choose one of {', '.join(terms[key])}")
    return dotted(values)


def _training(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith("measure.")}


def _refuse_varied(request: Request, typed_in: dict, rows: list[dict], grid: dict) -> None:
    """A key that the grid varies cannot be fixed from outside: rows would collapse into one."""
    for key in [*typed_in, *request.overrides]:
        varied = len({str(row.get(key)) for row in rows}) > 1
        for name, entry in (grid.get("measure") or {}).items():
            of_one = key.startswith(f"measure.{name}.")
            field = key.removeprefix(f"measure.{name}." if of_one else "measure.")
            if key.startswith("measure."):
                varied |= of_one and len({str(row.get(f"measure.{field}")) for row in rows}) > 1
                varied |= field in (entry.get("axes") or {})
        if varied:
            raise Refused(f"{request.grid} varies {key}; the command line cannot fix it")


def _refuse_unknown(typed_in: dict[str, Any], terms: dict) -> None:
    """Names at the first level, where a word may be meant for the launcher as well."""
    names = [f.name for f in fields(TrainConfig)]
    known = [*RESERVED, *HOUSEKEEPING, *names, "measure"]
    for key in typed_in:
        first = key.split(".")[0]
        if first not in known:
            dotted = {name.rpartition(".")[2]: name for name in _flat(TrainConfig())}
            near = did_you_mean(dotted.get(first, first), [*known, *terms, *dotted.values()])
            raise Refused(f"unknown key '{key}'{near or '; --help shows the keys'}")
        if key == "seed":
            raise Refused("seeds are given as seeds=[0,1,2]")
        if key in ("data.digest", "recipe") or key.endswith(".partner"):
            raise Refused(f"{key} is not for the command line: the code sets it")


def _data_digest(request: Request, typed_in: dict, layers: list[dict], scale: dict) -> str:
    """Of the user's own images: their content is part of a run's identity, their path is not.

    A scale may say of what form they are, which is enough for a plan, and how to come by them.
    """
    if not any(layer.get("data.name") == "folder" for layer in [*layers, typed_in]):
        return ""
    if not request.housekeeping.data_path:
        if "form" in scale and request.plan:
            return ""
        needs = "data.name=folder needs data_path=FOLDER, a .zip of images or a prepared file"
        how = f"; once: {scale['prepare']}" if "prepare" in scale else ""
        raise Refused(f"{needs}{how}")
    return content_digest(Path(request.housekeeping.data_path))


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


def _refuse_twins(cells: list[Cell]) -> None:
    seen: dict = {}
    for cell in cells:
        key = (cell.run_id, tuple(sorted(item.id for item in cell.measurements)))
        if key in seen:
            raise Refused(f"two cells are the same: '{seen[key]}' and '{cell.words}'")
        seen[key] = cell.words
