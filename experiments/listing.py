"""What there is of a grid: a line per cell, from the run folders."""

from experiments.grid import Grid
from experiments.runs import Runs
from experiments.submitted import Queue


def listing(grid: Grid, runs: Runs) -> str:
    """One line per cell, with the row's words, seed, id and state, and a summary."""
    lines, states, missing, asked = [], {}, 0, 0
    width, queue = max(len(cell.words) for cell in grid.cells), Queue()
    for cell in grid.cells:
        run = runs.find(cell.run_id, cell.config)
        there = sum(run.has(item.id) for item in cell.measurements)
        asked, missing = asked + len(cell.measurements), missing + len(cell.measurements) - there
        states[cell.run_id] = state = run.look(queue.holds)
        line = f"{cell.words:{width}s}  seed {cell.seed}  {cell.run_id}  {state:8s}"
        line += f"{there}/{len(cell.measurements)} measured"
        if state == "failed":
            line += f"  {reason(run.error)}"
        lines.append(line)
    counts = [
        f"{list(states.values()).count(state)} {state}"
        for state in ("trained", "running", "queued", "started", "failed", "new")
        if state in states.values()
    ]
    lines.append(
        f"{len(states)} runs: {', '.join(counts)}; {missing} of {asked} measurements missing"
    )
    return "\n".join(lines)


def reason(error: str | None) -> str:
    """The last line of a failure, which says most."""
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else "it failed, and nothing says why"
