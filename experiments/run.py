"""Run a study of the paper: train what is missing, measure it, write its table and figures.

    python experiments/run.py grid=NAME [key=value ...]

  grid=NAME       which study; see below. grid=all: every study of the paper; grid=extensions:
                  what others proposed since
  scale=NAME      how big everything is (default laptop); never what the study varies
  seeds=[0,1,2]   repetitions; a scale has its default
  on=here         where: this machine, all cores (one process per small network), or
  on=PROFILE      jobs of a cluster, as slurm/PROFILE.yaml says; slurm.KEY=VALUE changes a line
  pack=N          jobs of N runs each, side by side: small networks do not fill a GPU
  split=true      a job for each training and each measurement, and one for every
                  split_images=2560 images of a measurement
  watch=true      follow a grid that jobs or another process work on; on=here starts nothing then
  list=true       show ids and states, run nothing
  plan=true       show what it would cost, at throughput=TFLOP/s; run nothing
  retry=failed    start runs again that failed
  weights=reference  take the final weights that come with the code (scale=laptop, seed 0) instead
                  of training: for a new measurement, sampler or variance
  results=FOLDER  where results go (default results/)

Any configuration field can be set, by its dotted name (core/config.py has them all):

  unet.dropout=0.1 optim.steps=5000 data.name=folder data_path=images.zip
  measure.nll.images=200 measure.fd.sampler.steps=50

and what leaves the numbers alone, without a dot:

  device=cpu threads=2 compile=true microbatch=16 gradient_checkpointing=true eval_batch=64
  channels_last=true log_every=100 checkpoint_seconds=300
  features_path=FILE (of FID's Inception network)

The same command again continues what was interrupted and does nothing for what is done.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.command import start
from core.errors import Refused, unwritable_is_said
from experiments import profiles, read_yaml
from experiments.files import check_writable
from experiments.grid import Cell, Grid, available, expand_each
from experiments.listing import listing
from experiments.overrides import Request, of_results, parse
from experiments.profiles import Profile
from experiments.runs import Run, Runs, reason
from experiments.scripts import Analysis
from experiments.submitted import Queue
from experiments.tidy import tidy

HERE = Path(__file__).resolve().parent


def help_text() -> str:
    """The module's docstring and the grids and scales that there are."""
    parts = [__doc__.strip()]
    for kind in ("grids", "scales"):
        lines = [f"{kind}:"]
        for name in available(kind):
            content = read_yaml.read(HERE / kind / f"{name}.yaml", f"{name}.yaml")
            lines.append(f"  {name:18s}{content.get('title', '')}")
            if "prepare" in content:
                lines.append(f"  {'':18s}its data, once: {content['prepare']}")
        parts.append("\n".join(lines))
    titles = profiles.titles().items()
    parts.append("\n".join(["profiles (on=):", *(f"  {n:18s}{t}" for n, t in titles)]))
    return "\n\n".join(parts)


def distinct(grids: list[Grid], runs: Runs) -> list[tuple[Run, list[Cell]]]:
    """Each run once, with the cells that it serves: all of the first seed, then of the second."""
    wanted: dict[str, list[Cell]] = {}
    turns: dict[int, list[Cell]] = {}  # the seed's place in its grid -> cells
    for grid in grids:
        places = {seed: place for place, seed in enumerate(grid.seeds)}
        for cell in grid.cells:
            turns.setdefault(places[cell.seed], []).append(cell)
    for cell in (cell for place in sorted(turns) for cell in turns[place]):
        wanted.setdefault(cell.run_id, []).append(cell)
    return [(runs.find(id, cells[0].config), cells) for id, cells in wanted.items()]


def tasks_of(runs: list[tuple[Run, list[Cell]]], request: Request) -> list:
    """A task (experiments/execute.py) for each of these runs, with those that it needs."""
    from experiments.execute import Task  # late: torch takes seconds to import

    tasks, needed = {}, {}  # by the run's id; needed: fractions of it that others ask for
    failed = failed_partners(runs, request)
    for run, cells in runs:
        asked = {item.id: item for cell in cells for item in cell.measurements}
        asked = {id: item for id, item in asked.items() if item.partner not in failed}
        words, keeping = f"{cells[0].words} seed {cells[0].seed}", request.housekeeping
        cache, config = request.results / "cache", cells[0].config
        task = Task(words, run, config, tuple(asked.values()), keeping, cache)
        tasks[run.id] = task
        for item in task.missing:
            if item.partner:
                needed.setdefault(item.partner, set()).add(item.settings.at)
    for id, ats in needed.items():
        tasks[id] = replace(tasks[id], also_at=tuple(sorted(ats)))
    alone = {id: replace(tasks[id], part="training") for id in needed}
    for id, task in tasks.items():
        partners = {item.partner for item in task.missing if item.partner}
        tasks[id] = replace(task, partners=tuple(alone[partner] for partner in sorted(partners)))
    return list(tasks.values())


def failed_partners(runs: list[tuple[Run, list[Cell]]], request: Request) -> set[str]:
    """Ids of runs that failed and are not tried again, without which others cannot be measured."""
    partners = {item.partner for _, cells in runs for cell in cells for item in cell.measurements}
    if request.retry == "failed" or partners == {""}:
        return set()
    return {run.id for run, _ in runs if run.id in partners and run.state == "failed"}


def plan(grids: list[Grid], request: Request, runs: Runs) -> str:
    """What the grids cost, as text."""
    from experiments import plan  # late, as above

    title = f"{request.grid} at scale {request.scale}"
    tasks, cells = tasks_of(distinct(grids, runs), request), sum(len(g.cells) for g in grids)
    # What a scale says of its data counts as long as they are not here.
    form = None if request.housekeeping.data_path else grids[0].form
    return plan.report(title, tasks, cells, request.throughput, form)


def unfinished(grids: list[Grid], request: Request, runs: Runs) -> tuple[list[str], list[Run]]:
    """Ids of the runs with something missing, and runs left out because they failed before."""
    todo, failed_before, everything = [], [], distinct(grids, runs)
    failed = failed_partners(everything, request)
    for run, cells in everything:
        asked = [item for cell in cells for item in cell.measurements]
        asked = [item for item in asked if item.partner not in failed]
        damaged = run.damaged(item.id for item in asked)
        if run.trained and not damaged and all(run.has(item.id) for item in asked):
            continue
        if run.state == "failed" and request.retry != "failed":
            failed_before.append(run)
            words = f"{run.folder.name} failed before: {reason(run.error)}"
            print(f"{words} (retry=failed starts it again)")
        else:
            todo.append(run.id)
    return todo, failed_before


def launch(grids: list[Grid], request: Request, runs: Runs, profile: Profile | None) -> int:
    """Does what is missing of the grids, here or by jobs; the exit code."""
    folders = [run.folder for run, _ in distinct(grids, runs)]
    tidy(request.results, folders)
    todo, failed_before = unfinished(grids, request, runs)
    analysis, title = Analysis(grids, request), f"{request.grid} ({request.scale})"
    if not todo:
        if not failed_before:
            print(f"{request.grid} at scale {request.scale} is complete: nothing to do. There is:")
            if analysis.outdated() and not analysis.write_all():
                print("analysis failed: a script failed; its message is above", file=sys.stderr)
                return 1
            print(analysis.where() if analysis.commands else "\n".join(map(str, folders)))
        return 1 if failed_before else 0

    tasks = [t for t in tasks_of(distinct(grids, runs), request) if t.run.id in todo]
    if request.watch and profile is None:
        return follow(title, tasks, analysis, lambda: False)

    from experiments.preflight import preflight  # late, as above

    preflight(tasks, here=profile is None or profile.cluster != "slurm")
    check_writable(request.results / "runs")
    for task in {t.run.id: t for first in tasks for t in (first, *first.partners)}.values():
        for path in task.damaged:
            print(f"warning: {path} is damaged; what it held is made again", file=sys.stderr)
        if task.lacks_weights:
            print(f"{task.words} ({task.run.id}): no weights on this disk, so it trains again")
    if profile is None:
        code = launch_here(title, tasks, analysis)
        tidy(request.results, folders)
    else:
        code = launch_jobs(title, request, tasks, profile, analysis)
    return code or (1 if failed_before else 0)


def launch_here(title: str, tasks: list, analysis: Analysis) -> int:
    """By processes of this machine."""
    from experiments import launch  # late, as above

    outcome = launch.here(title, tasks, analysis.refresh)
    if outcome.done and not outcome.interrupted and not analysis.write_all():
        outcome.failed["analysis"] = "a script failed; its message is above"
    for name, message in outcome.failed.items():
        print(f"{name} failed: {message}", file=sys.stderr)
    if outcome.interrupted:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 1 if outcome.failed else 0


def launch_jobs(
    title: str, request: Request, tasks: list, profile: Profile, analysis: Analysis
) -> int:
    """By jobs of a cluster, or by processes that submitit starts here."""
    from experiments import submit  # late, as above
    from experiments.feeder import Feeder, unmissable_interrupt

    submit.check_shares(tasks, profile)
    shape = submit.Shape(request.pack, request.split, request.split_images)
    with submit.only_launcher(request.results):
        queue = Queue(strict=profile.cluster == "slurm")
        mine = submit.free(tasks, queue)
        folder = request.results / "jobs"
        submission = submit.Submission(request.grid, mine, profile, shape, folder) if mine else None
        if submission and profile.cluster == "slurm":
            ids = submission.send()
            print(f"submitted {submission.count} jobs: {' '.join(ids)}")
            print(f"their logs:  {submission.folder}")
    if profile.cluster == "slurm":
        if request.watch:
            return follow(title, tasks, analysis, lambda: False)
        command = shlex.join(["python", "experiments/run.py", *of_results(request.words)])
        print(f"the state:   {command} list=true\nto follow:   {command} watch=true")
        return 0
    feeder = Feeder(submission) if submission else None
    try:
        with unmissable_interrupt():
            return follow(title, tasks, analysis, feeder.step if feeder else lambda: False)
    except KeyboardInterrupt:
        if feeder:
            feeder.stop()
        raise


def follow(title: str, tasks: list, analysis: Analysis, step: Callable[[], bool]) -> int:
    """Shows what goes on until it ends, then writes tables and figures; the exit code."""
    from experiments import watch  # late, as above

    queue = Queue(fresh_s=10)
    try:
        watch.follow(title, tasks, queue, step)
    except KeyboardInterrupt:
        print("no longer followed", file=sys.stderr)
        raise
    open_ = [task for task in tasks if not watch.is_done(task)]
    for task in open_:
        failed = task.run.state == "failed"
        why = reason(task.run.error) if failed else "nobody works on it; the same command continues"
        print(f"{task.words} ({task.run.id}): {why}", file=sys.stderr)
    written = len(open_) == len(tasks) or analysis.write_all()
    return 1 if open_ or not written else 0


def main(words: list[str]) -> int:
    """The command line; returns the exit code."""
    request = parse(words)
    profile = None if request.on == "here" else profiles.load(request.on, request.slurm)
    if profile is None:
        refuse_cluster_words(request)
    grids = expand_each(request)
    runs = Runs(request.results / "runs")
    if request.list:
        print(listing(grids, runs))
        return 0
    if request.plan:
        print(plan(grids, request, runs))
        return 0
    with unwritable_is_said(request.results):
        return launch(grids, request, runs, profile)


def refuse_cluster_words(request: Request) -> None:
    """Words that mean nothing on this machine are a mistake."""
    for key in (*(f"slurm.{key}" for key in request.slurm), "pack", "split", "split_images"):
        if key.startswith("slurm.") or any(w.partition("=")[0] == key for w in request.words):
            there = ", ".join(profiles.available())
            raise Refused(f"{key}= shapes jobs of a cluster: give on=PROFILE too, one of {there}")


if __name__ == "__main__":
    start(main, needs_words=True, text=help_text)
