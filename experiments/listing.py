"""What there is of a grid: a line per cell, from the run folders."""

from experiments.grid import Grid
from experiments.runs import Runs, State, reason
from experiments.submitted import Queue

STATES = ("trained", "running", "queued", "started", "failed", "new")


def listing(grids: list[Grid], runs: Runs) -> str:
    """One line per cell, with the row's words, seed, id and state, and a summary."""
    lines, missing, asked, queue = [], 0, 0, Queue()
    states: dict[str, State] = {}
    measured: set[tuple[str, str]] = set()
    for grid in grids:
        width = max(len(cell.words) for cell in grid.cells)
        if len(grids) > 1:
            lines += [f"{grid.name}: {grid.title} ({grid.paper})", ""]
        for cell in grid.cells:
            run = runs.find(cell.run_id, cell.config)
            there = sum(run.has(item.id) for item in cell.measurements)
            new = {(cell.run_id, item.id) for item in cell.measurements} - measured
            asked, measured = asked + len(new), measured | new
            missing += sum(not run.has(id) for _, id in new)
            if cell.run_id not in states:
                states[cell.run_id] = run.look(queue.holds)
            state = states[cell.run_id]
            line = f"{cell.words:{width}s}  seed {cell.seed}  {cell.run_id}  {state:8s}"
            line += f"{there}/{len(cell.measurements)} measured"
            if state == "failed":
                line += f"  {reason(run.error)}"
            lines.append(line)
        if len(grids) > 1:
            lines.append("")
    found = list(states.values())
    counts = [f"{found.count(state)} {state}" for state in STATES if state in found]
    summary = f"{len(states)} runs: {', '.join(counts)}; {missing} of {asked} measurements missing"
    cells = sum(len(grid.cells) for grid in grids)
    if len(grids) > 1:
        summary += f"; {cells - len(states)} of {cells} cells share their run with another"
    return "\n".join([*lines, summary])
