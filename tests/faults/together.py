"""Many launchers on one grid at the same time: each run trained once, and all tables right."""

from pathlib import Path

from compare import differences, finished
from interruptions import LAUNCH, THREE_ROWS, Grid
from programs import end, end_all

# Thirty cells: three rows of ten seeds.
GRID = THREE_ROWS + "analysis: [table_rows]\n"
WORDS = (
    *("grid=three_rows", "scale=smoke", "device=cpu", "threads=1", "log_every=1"),
    *("optim.steps=10", "measure.nll.steps=4"),
)


def together(grid: Grid, results: Path, launchers: int) -> list[str]:
    """Starts so many launchers at once; in words what is not as of one alone, undisturbed."""
    processes = [grid.start(results, n) for n in range(launchers)]
    try:
        ends = [end(process, LAUNCH) for process in processes]
    finally:
        end_all(processes)
    wrong = [f"launcher {n}: exit code {e[0]}: {e[2]}" for n, e in enumerate(ends) if e[0]]
    wrong += ["a launcher printed a traceback" for e in ends if "Traceback" in e[2]]
    journal = results.with_name(f"{results.name}.faults") / "journal.jsonl"
    times = finished(journal)
    wrong += [f"{stage}: finished {n} times" for stage, n in times.items() if n != 1]
    if len(times) != 2 * len(list((grid.alone / "runs").iterdir())):  # a training and its bound
        wrong.append(f"{len(times)} stages were finished")
    return wrong + differences(results, grid.alone)
