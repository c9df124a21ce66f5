"""The scripts that make the tables and figures of grids."""

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from experiments.grid import Grid
from experiments.overrides import ROOT, Request, of_results


class Analysis:
    """The scripts, run as programs of their own: nothing here imports analysis/."""

    def __init__(self, grids: list[Grid], request: Request):
        words = [w for w in of_results(request.words) if not w.startswith("grid=")]
        self.commands = [
            [sys.executable, str(ROOT / "analysis" / f"{name}.py"), f"grid={grid.name}", *words]
            for grid in grids
            for name in grid.analysis
        ]
        self.grids, self.results = grids, request.results
        names = [f"{replace(request, grid=grid.name).name}.md" for grid in grids]
        self._tables = [request.results / "tables" / name for name in names]
        meant = hashlib.sha256(" ".join(words).encode()).hexdigest()[:10]  # seeds among them
        self._stamp = request.results / "cache" / f"{request.name}.{meant}.analysed"
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
        began = time.time()
        fine = all([subprocess.run(command).returncode == 0 for command in self.commands])
        if fine:
            self.mark(began)
        return fine

    def mark(self, when: float) -> None:
        """Notes that what was measured until then is in the tables."""
        self._stamp.parent.mkdir(parents=True, exist_ok=True)
        self._stamp.touch()
        os.utime(self._stamp, (when, when))

    def outdated(self, folders: list[Path]) -> bool:
        """Whether a measurement in these run folders came after the scripts: jobs run none."""
        if not self.commands:
            return False
        try:
            written = self._stamp.stat().st_mtime
        except FileNotFoundError:
            return True
        changed = (folder / "measurements" for folder in folders)
        return any(path.exists() and path.stat().st_mtime > written for path in changed)

    def where(self) -> str:
        """The tables that there are, or else the folder of figures, for people."""
        tables = [str(path) for path in self._tables if path.exists()]
        return "\n".join(tables or [str(self.results / "figures")])
