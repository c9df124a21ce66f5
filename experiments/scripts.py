"""A grid's own scripts, which make its tables and figures."""

import subprocess
import sys

from experiments.grid import Grid
from experiments.overrides import ROOT, Request, of_results
from experiments.runs import Runs


class Analysis:
    """The scripts, run as programs of their own: nothing here imports analysis/."""

    def __init__(self, grid: Grid, request: Request):
        words = of_results(request.words)
        self.commands = [
            [sys.executable, str(ROOT / "analysis" / f"{name}.py"), *words]
            for name in grid.analysis
        ]
        self.table = request.results / "tables" / f"{request.name}.md" if grid.analysis else None
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

    def outdated(self, grid: Grid, runs: Runs) -> bool:
        """Whether the table is missing or older than a measurement: jobs write none."""
        if not self.commands:
            return False
        try:
            written = self.table.stat().st_mtime
        except FileNotFoundError:
            return True
        found = {runs.find(cell.run_id, cell.config) for cell in grid.cells}
        changed = (run.folder / "measurements" for run in found)
        return any(path.exists() and path.stat().st_mtime > written for path in changed)
