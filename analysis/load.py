"""Grid and results folder -> a tidy frame: one line per (row, seed, measurement).

The grid is expanded as the runner does it, and each cell is looked up by its id; nothing is
searched for. Where the user has run nothing of the grid at this scale, the reference results that
come with the code are read instead: never a mixture.
"""

import shlex
import sys
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import pandas as pd

from core.config import Frechet
from core.data import arrays
from core.errors import Refused
from core.metrics.names import metric_name, short_name
from experiments.grid import Grid, expand, seeds_of_grid
from experiments.overrides import REFERENCE, Request, of_results, parse
from experiments.runs import Runs

PUBLISHED = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Results:
    """A grid's measurements as they are now.

    frame: columns `row` (its number), the row's words, `seed`, `run`, `state`, `measurement`, its
    axes, `words` (both as text), `metric`, `value` (NaN: missing), `standard_error` over images
    (NaN: not known), `arrays` (path or None), `settings`, `result` (a dict), `commit`, `modified`.
    source: the folder that was read; written: where tables and figures of it go.
    """

    grid: Grid
    request: Request
    frame: pd.DataFrame
    source: Path
    written: Path

    @property
    def is_reference(self) -> bool:
        return self.source == REFERENCE

    @property
    def name(self) -> str:
        """Of the files made from it."""
        return self.request.name

    def of(self, measurement: str) -> pd.DataFrame:
        """The lines of one measurement."""
        return self.frame[self.frame["measurement"] == measurement]

    @property
    def fd(self) -> str:
        """What its Frechet distances are called, as in "FD (fashion_cnn)"; the names of all."""
        of = [s for s in self.frame["settings"] if isinstance(s, Frechet)]
        images = of[0].images if len({s.images for s in of}) == 1 else None
        names = (metric_name(s.features, images, s.features_sha256) for s in of)
        return " and ".join(dict.fromkeys(names)) or "FD"

    @property
    def fd_short(self) -> str:
        """The same in a word: FID, where all are."""
        of = [s for s in self.frame["settings"] if isinstance(s, Frechet)]
        kinds = {short_name(s.features, s.features_sha256) for s in of}
        return "FID" if kinds == {"FID"} else "FD"

    @property
    def command(self) -> str:
        """What would fill the holes; never among the reference results, or what stands for them."""
        words = [f"grid={self.grid.name}", f"seeds=[{','.join(map(str, self.grid.seeds))}]"]
        said = {"grid", "seeds"}
        if (self.written / "runs").resolve() == (REFERENCE / "runs").resolve():
            said.add("results")
        given = of_results(self.request.words)
        words += [word for word in given if word.partition("=")[0] not in said]
        return "python experiments/run.py " + shlex.join(words)


def load(request: Request, fall_back: bool = True) -> Results:
    """The results that a command line asks for: the user's own, or else the reference's.

    Without seeds=, all seeds of the grid's file that have a run, and those that follow (3, 4, ...)
    as long as nothing of them is missing. Missing cells are in the frame, with their state and
    without a value. fall_back: whether the reference will do.
    """
    for source in (request.results, REFERENCE) if fall_back else (request.results,):
        grid = _with_seeds(request, source)
        if grid is not None:
            break
    else:
        source, grid = request.results, expand(request)
    return Results(grid, request, _frame(grid, Runs(source / "runs")), source, request.results)


def measured(words: list[str], *names: str, grid: str = "") -> Results:
    """`load` of a command line of this grid or, without one, of the grid that it names.

    Refused, with the command that measures, while there is no value of these measurements, or of
    any when none is named.
    """
    results = load(parse(words, **({"grid": grid} if grid else {})))
    frame = results.frame
    if frame[frame["measurement"].isin(names or frame["measurement"])]["value"].isna().all():
        raise Refused(f"nothing is measured yet: {results.command}", 1)
    return results


def _with_seeds(request: Request, source: Path) -> Grid | None:
    """The grid with the seeds that are taken from this folder; None when there is no run."""
    runs = Runs(source / "runs")
    named = seeds_of_grid(request.grid) if request.seeds is None else request.seeds
    grid = expand(replace(request, seeds=named))
    there = {c.seed for c in grid.cells if runs.find(c.run_id, c.config).folder.exists()}
    if not there:
        return None
    seeds = tuple(seed for seed in grid.seeds if seed in there)
    if request.seeds is None:
        # Other grids share some of the trainings, so that a run alone does not say that it was
        # this grid that somebody ran with more seeds.
        further = (expand(replace(request, seeds=(seed,))) for seed in count(max(named) + 1))
        whole = takewhile(lambda one: _is_whole(one, runs), further)
        seeds += tuple(one.seeds[0] for one in whole)
    return grid if seeds == grid.seeds else expand(replace(request, seeds=seeds))


def _is_whole(grid: Grid, runs: Runs) -> bool:
    """Whether nothing of it is missing."""
    found = ((runs.find(c.run_id, c.config), c.measurements) for c in grid.cells)
    return all(run.measurement(one.id) for run, wanted in found for one in wanted)


def _frame(grid: Grid, runs: Runs) -> pd.DataFrame:
    lines, per_seed = [], len(grid.cells) // len(grid.seeds)
    for number, cell in enumerate(grid.cells):
        run = runs.find(cell.run_id, cell.config)
        run.refuse_links()
        state = run.state
        for path in run.damaged(asked.id for asked in cell.measurements):
            print(f"warning: {path} is damaged and left out: run the grid again", file=sys.stderr)
        for asked in cell.measurements:
            stored = run.measurement(asked.id) or {}
            result, provenance = stored.get("result", {}), stored.get("provenance") or {}
            metric = stored.get("metric", "")
            arrays = run.arrays(asked.id)
            lines.append(
                {"row": number % per_seed}
                | cell.row
                | {"seed": cell.seed, "run": cell.run_id, "state": state}
                | {"measurement": asked.name, "measurement_id": asked.id}
                | asked.axes
                | {
                    "words": asked.words,
                    "metric": metric,
                    "value": result.get(metric, np.nan),
                    "standard_error": result.get("standard_error", np.nan),
                    "arrays": arrays if stored and arrays.exists() else None,
                    "settings": asked.settings,
                    "result": result,
                    "commit": provenance.get("commit"),
                    "modified": bool(provenance.get("modified")),
                    "seconds": provenance.get("seconds", 0.0),
                    "config": cell.config,
                    "folder": run.folder,
                }
            )
    return pd.DataFrame(lines)


def read_arrays(path: Path, **dimensions: int) -> dict[str, np.ndarray]:
    """A measurement's arrays; dimensions: of those that there must be, all of one length.

    Refused, naming it, when the file is damaged, lacks one or has a number that is not finite.
    """
    try:
        found = arrays.read(path)
        for name, ndim in dimensions.items():
            if name not in found or found[name].ndim != ndim or found[name].dtype.kind not in "iuf":
                raise ValueError(f"no {name} of {ndim} dimensions")
        if len({len(found[name]) for name in dimensions}) > 1:
            raise ValueError(f"{', '.join(dimensions)} are not of one length")
        if wild := [name for name, x in found.items() if x.dtype.kind == "f" and not finite(x)]:
            raise ValueError(f"{wild[0]} is not finite")
    except (OSError, ValueError) as error:
        raise Refused(
            f"{path} is damaged ({error}): delete it and its .json and run the grid again", 1
        ) from error
    return found


def finite(x: np.ndarray) -> bool:
    return bool(np.isfinite(x).all())


def published() -> pd.DataFrame:
    """The paper's numbers in long form, `value` as printed: the suite's own copy."""
    return pd.read_csv(PUBLISHED, dtype={"value": str})


def printed(**where: object) -> str:
    """The one published value for which the columns have these contents, as printed.

    ValueError when there is none or more than one.
    """
    found = published()
    for column, content in where.items():
        found = found[found[column] == content]
    if len(found) != 1:
        raise ValueError(f"{len(found)} published values, not one, have {where}")
    return found["value"].iloc[0]
