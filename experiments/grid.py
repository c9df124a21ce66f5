"""A study as data: YAML, scale and command line -> a list of cells.

A grid is rows x axes x seeds. A key of a row is a term (terms.yaml) or a dotted configuration
field. Order, the last one wins: defaults < scale < the grid's base < the scale's word on the grid <
row and axes < seed < command line.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.config import GANConfig, TrainConfig
from core.data.identity import content_digest
from core.errors import Refused
from experiments import definitions, read_yaml
from experiments.asked import Asked, RowRun, measurements_of, of_seed, with_partners
from experiments.limits import check
from experiments.overrides import ROOT, Request, did_you_mean, dotted, seeds_of, typed
from experiments.rows import blame, fields_of, refuse_unknown, refuse_varied, rows_of, training_of
from experiments.runs import digest

HERE = Path(__file__).resolve().parent
# The paper's studies, in the order of grid=all: what is cheap, or of use to others, comes first.
STUDIES = (
    "schedule_ablation",
    "variance_ablation",
    "objective_noise",
    "skipped_steps",
    "model_mix",
    "training_length",
    "all_steps",
    "sample_count",
    "architecture",
    "two_stage",
    "overfitting",
    "ema_dropout",
    "model_size",
    "gan_comparison",
    "recipe",
    "longer_training",
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


@dataclass(frozen=True)
class Cell:
    """One expanded entry: `row` in the grid's own words, a seed, a training, measurements."""

    row: dict[str, Any]
    seed: int
    config: TrainConfig
    run_id: str
    measurements: tuple[Asked, ...]

    @property
    def named(self) -> list[str]:
        """The row's values; those of fields with the field's name, as in "dropout 0.1"."""
        parts = ((key.rpartition("."), value) for key, value in self.row.items())
        return [f"{last} {value}" if dot else f"{value}" for (_, dot, last), value in parts]

    @property
    def words(self) -> str:
        """The same in one line."""
        return " ".join(self.named) or "run"


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
    scale = _read("scales", request.scale, definitions.SCALE)
    terms = _terms(scale)
    refuse_unknown(request.overrides, terms)
    grid = _read("grids", request.grid, definitions.GRID)
    of_grid, of_scale = f"grids/{request.grid}.yaml: ", f"scales/{request.scale}.yaml: "
    where = of_scale if "seeds" in scale else of_grid
    seeds = blame(where, lambda: seeds_of(scale.get("seeds", grid.get("seeds", [0]))))
    seeds = request.seeds or seeds
    rows = rows_of(grid)
    expanded = [fields_of(row, terms, of_grid) for row in rows]
    typed_in = fields_of(request.overrides, terms)
    refuse_varied(request, typed_in, expanded, grid)
    refuse_unknown(typed_in, terms)

    # What this scale says about this grid alone, such as fewer images where it draws many sets.
    of_study = fields_of((scale.get("grids") or {}).get(request.grid) or {}, terms, of_scale)
    base = fields_of(grid.get("base") or {}, terms, of_grid)
    trained = dotted(scale.get("train") or {})
    layers = [(of_scale, trained), (of_grid, base), (of_scale, of_study)]
    for where, layer in [*layers, *((of_grid, values) for values in expanded)]:
        refuse_unknown(layer, terms, where)
        typed(TrainConfig, [layer if layer is trained else training_of(layer)], where)
    _refuse_unused(request.grid, grid, scale, of_scale)
    base |= of_study
    data = _data_digest(request, typed_in, [trained, base, *expanded], scale)

    def settled(values: dict, typed_in: dict) -> tuple[TrainConfig, tuple[Asked, ...]]:
        """A row's training and what is measured on it."""
        layers = [trained, training_of(base), training_of(values), training_of(typed_in)]
        config = typed(TrainConfig, layers, "")
        if config.objective.name != "gan":  # settings of another row's training
            config = replace(config, gan=GANConfig())
        if config.data.name == "folder":
            config = replace(config, data=replace(config.data, digest=data))
        asked = measurements_of(config, request.grid, grid, scale, [base, values, typed_in])
        check(config, {item.name: item.settings for item in asked})
        return config, asked

    ready = []
    for row, values in zip(rows, expanded):
        try:
            ready.append((row, *settled(values, typed_in)))
        except Refused:
            files = f"grids/{request.grid}.yaml at scales/{request.scale}.yaml: "
            blame(files, lambda values=values: settled(values, {}))
            raise  # without the command line's words all is well
    cells = []
    for seed in seeds:
        configs = [replace(config, seed=seed) for _, config, _ in ready]
        runs = [RowRun(row, digest(c), c) for (row, _, _), c in zip(ready, configs)]
        for (row, _, asked), own in zip(ready, runs):
            asked = with_partners(of_seed(asked, seed), own, runs)
            cells.append(Cell(row, seed, own.config, own.id, asked))
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
        tuple(grid.get("analysis", [])),
        tuple(scale["form"]) if "form" in scale else None,
    )


def _read(kind: str, name: str, shapes: dict[str, definitions.Shape]) -> dict:
    word, there = kind.removesuffix("s"), available(kind)
    if name not in there:
        what = f"there is no {word} '{name}'" if name else f"{word}=NAME is missing"
        raise Refused(f"{what}; there are: {', '.join(there)}{did_you_mean(name, there)}")
    content = definitions.read(HERE / kind / f"{name}.yaml", shapes)
    for script in content.get("analysis") or []:
        if script not in {file.stem for file in (ROOT / "analysis").glob("*.py")}:
            raise Refused(f"{kind}/{name}.yaml: there is no script '{script}' in analysis/")
    return content


def seeds_of_grid(name: str) -> tuple[int, ...]:
    """Those of the grid's own file. Refused when there is no such grid."""
    return seeds_of(_read("grids", name, definitions.GRID).get("seeds", [0]))


def _terms(scale: dict) -> dict[str, dict[str, dict]]:
    """The words of terms.yaml and of a scale: term -> word -> fields."""
    terms = read_yaml.read(HERE / "terms.yaml", "terms.yaml")
    definitions.TERMS("terms.yaml", terms)
    for term, meanings in (scale.get("terms") or {}).items():
        terms[term] = (terms.get(term) or {}) | (meanings or {})
    return terms


def _refuse_unused(name: str, grid: dict, scale: dict, where: str) -> None:
    """What a scale says of a grid, or of a measurement of this one, that there is not."""
    there = available("grids")
    measured = list(grid.get("measure") or {})
    said = [(key, other, there) for key in ("grids", "axes") for other in scale.get(key) or {}]
    of_mine = (scale.get("axes") or {}).get(name) or {}
    said += [(f"axes.{name}", other, measured) for other in of_mine]
    for key, other, known in said:
        if other not in known:
            raise Refused(f"{where}{key}: there is no '{other}'{did_you_mean(other, known)}")


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


def _refuse_twins(cells: list[Cell]) -> None:
    seen: dict = {}
    for cell in cells:
        key = (cell.run_id, tuple(sorted(item.id for item in cell.measurements)))
        if key in seen:
            raise Refused(f"two cells are the same: '{seen[key]}' and '{cell.words}'")
        seen[key] = cell.words
