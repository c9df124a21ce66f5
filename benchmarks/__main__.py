"""Measure how fast the suite is, and write results/reference/benchmarks.md.

    make bench
    python -m benchmarks [training] [sampling] [suite] [likelihood] [memory] [short=true]

Without a section, all of them: about forty minutes on two cores, which should have nothing else to
do. With some, or short=true, which measures next to nothing and only shows that all of it works,
the table is printed and not written.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from benchmarks.lines import Line
from experiments.launch import ALLOCATOR, cores
from experiments.overrides import ROOT
from experiments.provenance import code, machine

WRITTEN = ROOT / "results" / "reference" / "benchmarks.md"
Section = Callable[[], Iterator[Line]]


def sections(short: bool, scratch: Path) -> dict[str, dict[str, Section]]:
    """What can be measured: group -> title -> a function that does it."""
    from benchmarks import estimators, memory, sampling, subjects, suite, training
    from experiments.runs import Runs

    small = subjects.laptop("smoke" if short else "laptop")
    big = [] if short else subjects.paper(cores())
    table = scratch / "table"

    def likelihood(row: str) -> Iterator[Line]:
        from experiments.grid import expand
        from experiments.overrides import parse

        cells = expand(parse(["grid=schedule_ablation", f"scale={small.name}"])).cells
        cell = next(cell for cell in cells if cell.words == row)
        folder = Runs(table / "runs").find(cell.run_id, cell.config).folder
        if not (folder / "trained").exists():
            list(suite.first_table(small.name, table, 0))
        images, repeats = (2, 20) if short else (32, 2000)
        return estimators.measure(folder, cell.config, images, repeats)

    shorter = [] if short else ["optim.steps=300", "measure.nll.images=128"]
    shorter += [] if short else ["measure.fd.images=256"]
    found: dict[str, dict[str, Section]] = {
        "training": {
            f"A training step, {s.name} network": lambda s=s, rounds=rounds: training.measure(
                s, rounds
            )
            for s, rounds in [(small, 2 if short else 21), *((s, 5) for s in big)]
        },
        "sampling": {
            f"Sampling, {s.name} network": lambda s=s, n=n: sampling.measure(s, *n)
            for s, n in [
                (small, (16, 3, 2) if short else (128, 50, 9)),
                *((s, (s.config.optim.batch_size, 2, 5)) for s in big),
            ]
        },
        "suite": {
            "The first table": lambda: suite.first_table(small.name, table, 10),
            "Workers": lambda: suite.speed_up(
                small.name, scratch / "workers", shorter, 1 if short else 3
            ),
            "Starting": lambda: suite.start_up(1 if short else 5),
            "Many runs": lambda: suite.many_runs(2 if short else 1667, scratch / "many"),
        },
        "likelihood": {
            f"The bound, {row}": lambda row=row: likelihood(row)
            for row in ("1K linear L_simple", "4K linear L_hybrid", "4K cosine L_hybrid")[
                : 1 if short else None
            ]
        },
        "memory": {
            f"Memory of a training step, {name} network": lambda name=name, n=n: memory.measure(
                name, n, cores()
            )
            for name, n in ([("smoke", 8)] if short else [("CIFAR-10", 8), ("ImageNet 64", 4)])
        },
    }
    return found


def document(done: dict[str, list[Line]]) -> str:
    """The sections as Markdown: targets first, then every line."""
    import pandas as pd

    from analysis.tables import markdown

    here, now = machine(), datetime.now(UTC).date().isoformat()
    lines = list(chain.from_iterable(done.values()))
    judged = [line for line in lines if line.met is not None]
    modified = ", with changes" if code()["modified"] else ""
    parts = [
        "# Benchmarks",
        f"{here['cores']} cores of {here['processor']}, {here['platform']}, Python "
        f"{here['python']}, torch {here['torch']}; {now}, commit "
        f"{(code()['commit'] or 'unknown')[:10]}{modified}. Written by `make bench`.",
        "Ratios are medians over rounds in which the contestants take turns, with quartiles; times "
        "are of the fastest round. Operations count a multiplication and an addition as two. "
        f"{sum(line.met for line in judged)} of {len(judged)} targets are met; "
        "docs/performance.md explains the others.",
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
    names = ("training", "sampling", "suite", "likelihood", "memory")
    if unknown := [word for word in asked if word not in names]:
        print(f"{__doc__.strip()}\n\nerror: no section '{unknown[0]}'", file=sys.stderr)
        return 2
    if not ALLOCATOR.items() <= os.environ.items():
        # As the suite's workers have it; the allocator reads it when a process starts.
        environment = os.environ | ALLOCATOR | {"TQDM_DISABLE": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *words], environment)
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    done: dict[str, list[Line]] = {}
    scratch = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    try:
        chosen: dict[str, Section] = {}
        for name, group in sections(short, scratch).items():
            chosen |= group if not asked or name in asked else {}
        columns = (SpinnerColumn(), "{task.description}", MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn()) as progress:
            bar = progress.add_task("", total=len(chosen))
            for title, section in chosen.items():
                progress.update(bar, description=title)
                done[title] = []
                for line in section():
                    done[title].append(line)
                    progress.console.print(f"{title}: {': '.join(filter(None, line.cells))}")
                progress.advance(bar)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if asked or short:
        print(document(done))
    else:
        WRITTEN.write_text(document(done))
        print(WRITTEN)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
