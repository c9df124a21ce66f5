"""The scripts that make the tables and figures of grids."""

import contextlib
import hashlib
import subprocess
import sys
from dataclasses import replace

from core.errors import Refused
from experiments.files import read_json, write_json
from experiments.grid import Grid
from experiments.overrides import ROOT, Request, of_results
from experiments.runs import Runs


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
        names = [replace(request, grid=grid.name).name for grid in grids]
        self._names = [f".{name}." for name in names]
        self._tables = [request.results / "tables" / f"{name}.md" for name in names]
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
        made_of = self.made_of()
        fine = all([subprocess.run(command).returncode == 0 for command in self.commands])
        if fine and self.commands:
            self.mark(made_of)
        return fine

    def mark(self, made_of: str) -> None:
        """Notes which measurements are in the tables. Where that cannot be written the tables are
        made again the next time."""
        with contextlib.suppress(OSError, Refused):
            write_json(self._stamp, {"made of": made_of, "made": self._made()})

    def outdated(self) -> bool:
        """Whether the scripts would make something else now, or what they made is damaged: a
        measurement came after them, as jobs run none. By content, whatever the clocks say."""
        noted = read_json(self._stamp) or {}
        return bool(self.commands) and noted != {"made of": self.made_of(), "made": self._made()}

    def made_of(self) -> str:
        """Digest of the measurements."""
        runs, digest = Runs(self.results / "runs"), hashlib.sha256()
        for cell in (cell for grid in self.grids for cell in grid.cells):
            folder = runs.find(cell.run_id, cell.config).folder / "measurements"
            for path in (folder / f"{asked.id}.json" for asked in cell.measurements):
                digest.update(path.read_bytes() if path.exists() else b"-")
        return digest.hexdigest()

    def _made(self) -> dict[str, str]:
        """Digests of the tables and figures of these grids."""
        files = (p for kind in ("tables", "figures") for p in (self.results / kind).glob("*.*"))
        mine = (p for p in files if any(name in f".{p.name}" for name in self._names))
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(mine)}

    def where(self) -> str:
        """The tables that there are, or else the folder of figures, for people."""
        tables = [str(path) for path in self._tables if path.exists()]
        return "\n".join(tables or [str(self.results / "figures")])
