"""Copy finished runs to where results are published: no checkpoints, the final average if asked.

    python experiments/export.py results=FOLDER [to=results/reference] [scale=laptop] [grid=all]
                                 [seeds=[0,1,2]] [weights=[0]]

Takes the measurements that the grids ask for, and no others; a run that is not trained is left out,
and so are trainings and measurements by code that was not committed. weights: seeds whose final
average is written as safetensors, for weights=reference. Running it again adds what is new.
"""

from dataclasses import replace
from pathlib import Path

from core import checkpoint, weights
from core.command import start
from core.errors import Refused
from core.trained import snapshot_path
from experiments.files import write_bytes
from experiments.grid import Cell, expand_each
from experiments.overrides import REFERENCE, parse
from experiments.reference import WEIGHTS, adopted
from experiments.runs import Run, Runs

FILES = ("config.json", "provenance.json", "log.jsonl", "trained")  # of a run, beside measurements


def export(cell: Cell, run: Run, to: Path, with_weights: bool) -> int:
    """Copies what there is of a cell; the number of measurements."""
    run.refuse_links()
    if run.provenance.get("modified") or adopted(run):
        return 0
    for name in FILES:
        if (run.folder / name).exists():
            write_bytes(to / name, (run.folder / name).read_bytes())
    done = 0
    for asked in cell.measurements:
        stored = run.measurement(asked.id)
        if stored is None or stored.get("provenance", {}).get("modified"):
            continue
        if run.arrays(asked.id).exists():
            write_bytes(to / "measurements" / f"{asked.id}.npz", run.arrays(asked.id).read_bytes())
        record = run.folder / "measurements" / f"{asked.id}.json"
        write_bytes(to / "measurements" / record.name, record.read_bytes())
        done += 1
    path = snapshot_path(run.folder, 1.0, cell.config.optim.steps)
    if with_weights and path:
        snapshot = checkpoint.load(path)
        # The same weights make other bytes each time, and git would keep them all.
        if not ((to / WEIGHTS).exists() and weights.alike(weights.read(to / WEIGHTS), snapshot)):
            write_bytes(to / WEIGHTS, weights.to_bytes(snapshot))
    return done


def main(words: list[str]) -> None:
    """The command line."""
    own = dict(word.split("=", 1) for word in words if word.startswith(("to=", "weights=")))
    request = parse([w for w in words if not w.startswith(("to=", "weights="))], grid="all")
    names = ("all", "extensions") if request.grid == "all" else (request.grid,)
    grids = [grid for name in names for grid in expand_each(replace(request, grid=name))]
    to = Path(own.get("to", REFERENCE)).resolve()
    given = parse([f"seeds={own['weights']}"]).seeds if "weights" in own else ()
    if request.results == to:
        raise Refused("results= and to= are the same folder")
    if not (request.results / "runs").is_dir():
        raise Refused(f"{request.results} has no runs: results= names the folder to publish from")
    runs, done, asked = Runs(request.results / "runs"), 0, 0
    for grid in grids:
        for cell in grid.cells:
            run = runs.find(cell.run_id, cell.config)
            asked += len(cell.measurements)
            if run.trained:
                for path in run.damaged(item.id for item in cell.measurements):
                    raise Refused(f"{path} is damaged: run its grid again, then publish", 1)
                folder = to / "runs" / run.folder.name
                done += export(cell, run, folder, cell.seed in given)
    print(f"{done} of {asked} measurements copied to {to}")


if __name__ == "__main__":
    start(main, needs_words=True)
