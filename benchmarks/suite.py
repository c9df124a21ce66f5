"""The suite as a whole: a grid's wall time, its workers, start-up, and thousands of runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.floor import together
from benchmarks.lines import Line, at_least, at_most
from benchmarks.memory import resident
from benchmarks.timing import Ratio
from core.config import to_dict
from experiments.grid import expand
from experiments.overrides import ROOT, parse
from experiments.runs import Runs
from experiments.scripts import Analysis

RUN = str(ROOT / "experiments" / "run.py")
STUDY = "grid=schedule_ablation"


def timed(*words: str, cores: int | None = None) -> float:
    """Wall seconds of a program, on so many of this process's cores."""
    mine = sorted(os.sched_getaffinity(0))[:cores]
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, *words],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, mine),
    )
    return time.perf_counter() - begun


def first_table(scale: str, results: Path, minutes: float) -> Iterator[Line]:
    """One seed of the schedule study from nothing, and where its wall time went."""
    words = (RUN, STUDY, f"scale={scale}", "seeds=[0]", f"results={results}")
    wall = timed(*words)
    workers = len(os.sched_getaffinity(0))
    stages = sum(json.loads(path.read_text())["seconds"] for path in _provenances(results))
    stages += sum(
        json.loads(path.read_text())["provenance"]["seconds"]
        for path in results.glob("runs/*/measurements/*.json")
    )
    inside = float(json.loads(_output("benchmarks.share", scale)))
    yield at_most("schedule_ablation, one seed, from nothing, minutes", wall / 60, minutes)
    yield Line("workers", f"{workers}")
    yield Line("share of the workers' time in training and measuring", stages / wall / workers)
    yield Line("share of training and measuring inside the network", inside)
    yield at_least(
        "share of the grid's time inside the network", inside * stages / wall / workers, 0.93
    )
    again = min(timed(*words) for _ in range(3))
    yield at_most("the same command once more, s", again, 2.0)


def _provenances(results: Path) -> list[Path]:
    return list(results.glob("runs/*/provenance.json"))


def _output(module: str, *words: str) -> str:
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout


def speed_up(scale: str, scratch: Path, shorter: list[str], rounds: int) -> Iterator[Line]:
    """The same grid by one worker on one core and by one on each core, in turns."""
    ratios, cores = [], len(os.sched_getaffinity(0))
    for number in range(rounds):
        taken = {}
        for used in (1, cores) if number % 2 else (cores, 1):
            results = f"results={scratch / f'{used}-{number}'}"
            taken[used] = timed(RUN, STUDY, f"scale={scale}", *shorter, results, cores=used)
        ratios.append(taken[1] / taken[cores])
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    ratio = Ratio(float(median), float(low), float(high))
    yield Line("shortened to", " ".join(shorter) or "nothing")
    limit = float(np.median([together(cores) for _ in range(rounds)]))
    yield Line(f"matrix products by {cores} processes / by 1, speed", limit)
    what = f"{cores} workers on {cores} cores / 1 worker on 1 core, speed"
    yield at_least(what, ratio, 0.925 * cores)


def start_up(rounds: int) -> Iterator[Line]:
    """What a user waits for before anything happens."""
    for what, words in (("--help", ["--help"]), ("list=true", [STUDY, "list=true"])):
        yield Line(f"run.py {what}, s", min(timed(RUN, *words) for _ in range(rounds)))


def many_runs(seeds: int, root: Path) -> Iterator[Line]:
    """A made-up results folder: expanding, listing, launching again, loading into a frame."""
    request = replace(parse([STUDY]), seeds=tuple(range(seeds)), results=root)
    grid, runs = expand(request), Runs(root / "runs")
    for cell in grid.cells:
        folder = runs.find(cell.run_id, cell.config).folder
        folder.mkdir(parents=True)
        (folder / "trained").touch()
        write_plain(folder / "config.json", to_dict(cell.config))
        for asked in cell.measurements:
            metric = "nll" if asked.name == "nll" else "frechet"
            result = {metric: 3.0 + 0.001 * cell.seed, "standard_error": 0.03, "images": 512}
            stored = {"metric": metric, "config": to_dict(asked.settings), "result": result}
            stored |= {"provenance": {"commit": "0" * 40, "modified": [], "seconds": 1.0}}
            write_plain(folder / "measurements" / f"{asked.id}.json", stored)
    words = [STUDY, f"seeds={list(request.seeds)}".replace(" ", ""), f"results={root}"]
    runs_word = f"{len(grid.cells):,} runs"
    yield at_most(f"{runs_word}: expanding and listing, s", timed(RUN, *words, "list=true"), 3.0)
    analysis = Analysis([grid], parse(words))
    analysis.mark(analysis.made_of())  # else its scripts would run as well
    yield at_most(f"{runs_word}: launching a finished grid, s", timed(RUN, *words), 2.0)
    spent, peak = json.loads(_output("benchmarks.suite", *words))
    yield at_most(f"{runs_word}: loading all measurements into the frame, s", spent, 5.0)
    yield at_most(f"{runs_word}: memory while loading, MB", peak, 500.0)


def write_plain(path: Path, content: dict) -> None:
    """Without waiting for the disk, unlike the suite's own writing."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


if __name__ == "__main__":  # loading a results folder, alone in its process
    from analysis.load import load

    asked_for = parse(sys.argv[1:])
    begun = time.perf_counter()
    assert len(load(asked_for).frame) > 0
    elapsed = time.perf_counter() - begun
    print(json.dumps([elapsed, 1024 * resident("VmHWM")]))
