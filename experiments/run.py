"""Run a study of the paper: train what is missing, measure it, write its table and figures.

    python experiments/run.py grid=NAME [key=value ...]

  grid=NAME       which study; see below
  scale=NAME      how big everything is (default laptop); never what the study varies
  seeds=[0,1,2]   repetitions; a scale has its default
  on=here         where: this machine, all cores (one process per small network)
  list=true       show ids and states, run nothing
  plan=true       show what it would cost, at throughput=TFLOP/s; run nothing
  retry=failed    start runs again that failed
  results=FOLDER  where results go (default results/)

Any configuration field can be set, by its dotted name (core/config.py has them all):

  unet.dropout=0.1 optim.steps=5000 data.name=folder data_path=images.zip
  measure.nll.images=200 measure.fd.sampler.steps=50

and what leaves the numbers alone, without a dot:

  device=cpu threads=2 compile=true microbatch=16 gradient_checkpointing=true eval_batch=64
  log_every=100 checkpoint_seconds=300

The same command again continues what was interrupted and does nothing for what is done.
"""

import subprocess
import sys
from pathlib import Path

import yaml

from core.errors import Refused
from experiments.grid import Cell, Grid, available, expand
from experiments.overrides import ROOT, Request, parse
from experiments.runs import Run, Runs

HERE = Path(__file__).resolve().parent


def help_text() -> str:
    """The module's docstring and the grids and scales that there are."""
    parts = [__doc__.strip()]
    for kind in ("grids", "scales"):
        titles = {
            name: yaml.safe_load((HERE / kind / f"{name}.yaml").read_text()).get("title", "")
            for name in available(kind)
        }
        parts.append("\n".join([f"{kind}:", *(f"  {n:18s}{t}" for n, t in titles.items())]))
    return "\n\n".join(parts)


def cell_done(run: Run, cell: Cell) -> bool:
    """Whether the cell has its training and all its measurements."""
    return run.trained and all(run.has(asked.id) for asked in cell.measurements)


def listing(grid: Grid, runs: Runs) -> str:
    """One line per cell, with the row's words, seed, id and state, and a summary."""
    lines, states, missing, asked = [], {}, 0, 0
    width = max(len(cell.words) for cell in grid.cells)
    for cell in grid.cells:
        run = runs.find(cell.run_id, cell.config)
        there = sum(run.has(item.id) for item in cell.measurements)
        asked, missing = asked + len(cell.measurements), missing + len(cell.measurements) - there
        states[cell.run_id] = run.state
        line = f"{cell.words:{width}s}  seed {cell.seed}  {cell.run_id}  {run.state:8s}"
        line += f"{there}/{len(cell.measurements)} measured"
        if run.state == "failed":
            line += f"  {run.error.strip().splitlines()[-1]}"
        lines.append(line)
    counts = [
        f"{list(states.values()).count(state)} {state}"
        for state in ("trained", "running", "started", "failed", "new")
        if state in states.values()
    ]
    lines.append(
        f"{len(states)} runs: {', '.join(counts)}; {missing} of {asked} measurements missing"
    )
    return "\n".join(lines)


class Analysis:
    """The grid's scripts, run as programs of their own: nothing here imports analysis/."""

    def __init__(self, grid: Grid, request: Request):
        words = [
            word
            for word in request.words
            if word.split("=")[0] not in ("on", "list", "plan", "throughput", "retry")
        ]
        self.commands = [
            [sys.executable, str(ROOT / "analysis" / f"{name}.py"), *words]
            for name in grid.analysis
        ]
        self._refreshing: subprocess.Popen | None = None

    def refresh(self) -> None:
        """Rewrites the table in the background; skipped while the last time is still going on."""
        if self.commands and (self._refreshing is None or self._refreshing.poll() is not None):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._refreshing = subprocess.Popen(self.commands[0], **quiet)

    def write_all(self) -> bool:
        """Runs every script, whose words are the command's result. False if one failed."""
        if self._refreshing is not None:
            self._refreshing.wait()
        return all([subprocess.run(command).returncode == 0 for command in self.commands])


def distinct(grid: Grid, runs: Runs) -> list[tuple[Run, list[Cell]]]:
    """Each run once, with the cells that it serves."""
    wanted: dict[str, list[Cell]] = {}
    for cell in grid.cells:
        wanted.setdefault(cell.run_id, []).append(cell)
    return [(runs.find(id, cells[0].config), cells) for id, cells in wanted.items()]


def tasks_of(runs: list[tuple[Run, list[Cell]]], request: Request) -> list:
    """What is to be done for these runs (experiments/execute.py)."""
    from experiments.execute import Task  # late: torch takes seconds to import

    tasks = []
    for run, cells in runs:
        asked = {item.id: item for cell in cells for item in cell.measurements}
        words, keeping = f"{cells[0].words} seed {cells[0].seed}", request.housekeeping
        cache, config = request.results / "cache", cells[0].config
        tasks.append(Task(words, run, config, tuple(asked.values()), keeping, cache))
    return tasks


def plan(grid: Grid, request: Request, runs: Runs) -> str:
    """What the grid costs, as text."""
    from experiments import plan  # late, as above

    title, tasks = f"{grid.name} at scale {grid.scale}", tasks_of(distinct(grid, runs), request)
    return plan.report(title, tasks, len(grid.cells), request.throughput)


def launch(grid: Grid, request: Request, runs: Runs) -> int:
    """Does what is missing of the grid here; the exit code."""
    failed_before = []
    todo: list[tuple[Run, list[Cell]]] = []
    for run, cells in distinct(grid, runs):
        if all(cell_done(run, cell) for cell in cells):
            continue
        if run.state == "failed" and request.retry != "failed":
            failed_before.append(run)
        else:
            todo.append((run, cells))
    for run in failed_before:
        reason = run.error.strip().splitlines()[-1]
        print(f"{run.folder.name} failed before: {reason} (retry=failed starts it again)")
    if not todo:
        if not failed_before:
            print(f"{grid.name} at scale {grid.scale} is complete: nothing to do. Its table:")
            print(request.results / "tables" / f"{request.name}.md")
        return 1 if failed_before else 0

    from experiments import launch  # late, as above

    tasks = tasks_of(todo, request)
    launch.preflight(tasks)
    for task in tasks:
        if task.run.trained and task.needs_training:
            print(f"{task.words} ({task.run.id}): no weights on this disk, so it trains again")
    analysis = Analysis(grid, request)
    outcome = launch.here(f"{grid.name} ({grid.scale})", tasks, analysis.refresh)
    if outcome.done and not outcome.interrupted and not analysis.write_all():
        outcome.failed["analysis"] = "a script failed; its message is above"
    for name, message in outcome.failed.items():
        print(f"{name} failed: {message}", file=sys.stderr)
    if outcome.interrupted:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 1 if outcome.failed or failed_before else 0


def main(words: list[str]) -> int:
    """The command line; returns the exit code."""
    if not words or {"-h", "--help", "help"} & set(words):
        print(help_text())
        return 0
    request = parse(words)
    if request.on != "here":
        raise Refused(f"on={request.on}: this machine is the only place so far, on=here")
    grid = expand(request)
    runs = Runs(request.results / "runs")
    if request.list:
        print(listing(grid, runs))
        return 0
    if request.plan:
        print(plan(grid, request, runs))
        return 0
    return launch(grid, request, runs)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
