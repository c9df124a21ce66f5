"""Measure how fast the suite is, and write results/reference/benchmarks/SECTION.md.

    make bench
    python -m benchmarks [SECTION ...] [short=true]

SECTION is training, compile, sampling, suite, likelihood, memory or loading. Without one, all of
them: about forty-five minutes on two cores, which should have nothing else to do. short=true
measures next to nothing and only shows that all of it works; what it finds is printed and not
written.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path

from benchmarks.lines import Line
from core.command import start
from core.errors import Refused
from experiments.launch import ALLOCATOR, cores
from experiments.overrides import ROOT
from experiments.provenance import code, machine

WRITTEN = ROOT / "results" / "reference" / "benchmarks"
GROUPS = ("training", "compile", "sampling", "suite", "likelihood", "memory", "loading")
ROWS = ("1K linear L_simple", "4K linear L_hybrid", "4K cosine L_hybrid")
Section = Callable[[], Iterator[Line]]


def sections(short: bool, scratch: Path) -> list[tuple[str, str, Section]]:
    """All that can be measured: group, title, and a function that does it."""
    from benchmarks import breakdown, compiled, loading, memory, sampling, subjects, suite, training
    from core.trained import FEWEST

    found = []

    def add(group: str, title: str, measure, *arguments) -> None:
        found.append((group, title, partial(measure, *arguments)))

    small = subjects.laptop("smoke" if short else "laptop")
    big = [] if short else subjects.paper(cores())
    table, seeds = scratch / "table", 2 if short else 1667
    shorter = [] if short else ["optim.steps=300", "measure.nll.images=128"]
    shorter += [] if short else ["measure.fd.images=256"]
    for s, rounds, repeats in [(small, 2 if short else 21, 10), *((s, 5, 1) for s in big)]:
        add("training", f"A training step, {s.name} network", training.measure, s, rounds)
        add("training", f"Where its time goes, {s.name} network", breakdown.measure, s, repeats)
    if not short:
        cache = scratch / "compiled"
        add("compile", f"torch.compile, {small.name} network", compiled.measure, small, cache, 21)
    add(
        "sampling",
        f"Sampling, {small.name} network",
        sampling.measure,
        small,
        *((16, 3, 2) if short else (128, 50, 9)),
    )
    for s in big:  # the suite fills up smaller batches, as their rounding differs
        add("sampling", f"Sampling, {s.name} network", sampling.measure, s, FEWEST, 1, 5)
    add("suite", "The first table", suite.first_table, small.name, table, 10)
    again = (small.name, scratch / "workers", shorter, 1 if short else 2)
    add("suite", "Workers", suite.speed_up, *again)
    add("suite", "Starting", suite.start_up, 1 if short else 5)
    add("suite", "Many runs", suite.many_runs, seeds, scratch / "many")
    for row in ROWS[: 1 if short else None]:
        add("likelihood", f"The bound, {row}", _likelihood, small.name, row, table, short)
    for name, n in [("smoke", 8)] if short else [("CIFAR-10", 8), ("ImageNet 64", 4)]:
        add(
            "memory", f"Memory of a training step, {name} network", memory.measure, name, n, cores()
        )
    file, extent = scratch / "noise.images", (512, 2) if short else (20_000, 21)
    add("loading", "Batches out of a prepared file", loading.measure, file, *extent)
    return found


def _likelihood(scale: str, row: str, table: Path, short: bool) -> Iterator[Line]:
    """On a network of the first table, which is made if no section before has done so."""
    from benchmarks import estimators, suite
    from experiments.grid import expand
    from experiments.overrides import parse
    from experiments.runs import Runs

    cells = expand(parse(["grid=schedule_ablation", f"scale={scale}"])).cells
    cell = next(cell for cell in cells if cell.words == row)
    folder = Runs(table / "runs").find(cell.run_id, cell.config).folder
    if not (folder / "trained").exists():
        list(suite.first_table(scale, table, 10))
    images, repeats = (2, 20) if short else (32, 2000)
    yield from estimators.measure(folder, cell.config, images, repeats)


def document(group: str, done: dict[str, list[Line]]) -> str:
    """A section as Markdown: where it was measured, then a table for each of its parts."""
    import pandas as pd

    from analysis.tables import markdown

    here, now = machine(), datetime.now(UTC).date().isoformat()
    lines = list(chain.from_iterable(done.values()))
    judged = [line for line in lines if line.met is not None]
    targets = f"{sum(x.met for x in judged)} of {len(judged)} targets are met; " if judged else ""
    modified = ", with changes" if code()["modified"] else ""
    parts = [
        f"# Benchmarks: {group}",
        f"{here['cores']} cores of {here['processor']}, {here['platform']}, Python "
        f"{here['python']}, torch {here['torch']}; {now}, commit "
        f"{(code()['commit'] or 'unknown')[:10]}{modified}. Written by `make bench ARGS={group}`.",
        "Ratios are medians over rounds in which the contestants take turns, with quartiles; times "
        "are of the fastest round. Operations count a multiplication and an addition as two. "
        f"{targets}docs/performance.md says more.",
    ]
    for title, content in done.items():
        rows = [line.cells for line in content]
        columns = ["what", "measured", "target", "verdict"]
        parts += [f"## {title}", markdown(pd.DataFrame(rows, columns=columns))]
    return "\n\n".join(parts) + "\n"


def main(words: list[str]) -> int:
    """The command line; returns the exit code."""
    short = "short=true" in words
    asked = [word for word in words if word != "short=true"]
    if unknown := [word for word in asked if word not in GROUPS]:
        raise Refused(f"there is no section '{unknown[0]}'; there are: {', '.join(GROUPS)}")
    if not ALLOCATOR.items() <= os.environ.items():
        # As the suite's workers have it; the allocator reads it when a process starts.
        environment = os.environ | ALLOCATOR | {"TQDM_DISABLE": "1", "KINETO_LOG_LEVEL": "5"}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *words], environment)
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    done: dict[str, dict[str, list[Line]]] = {}
    scratch = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    try:
        chosen = [s for s in sections(short, scratch) if not asked or s[0] in asked]
        columns = (SpinnerColumn(), "{task.description}", MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn()) as progress:
            bar = progress.add_task("", total=len(chosen))
            for group, title, section in chosen:
                progress.update(bar, description=title)
                lines = done.setdefault(group, {}).setdefault(title, [])
                for line in section():
                    lines.append(line)
                    progress.console.print(f"{title}: {': '.join(filter(None, line.cells))}")
                progress.advance(bar)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for group, parts in done.items():
        if short:
            print(document(group, parts))
        else:
            WRITTEN.mkdir(exist_ok=True)
            (WRITTEN / f"{group}.md").write_text(document(group, parts))
            print(WRITTEN / f"{group}.md")
    return 0


if __name__ == "__main__":
    start(main)
