"""Starting the program as people do, with a grid made up for tests, and looking at what it leaves.

Worker processes import experiments/run.py itself, whichever grids it knows.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "experiments" / "run.py"
PATIENCE = 240  # seconds for a process; on quiet cores none takes a tenth of it

THREE_ROWS = """
title: Three rows
rows:
  - {schedule: linear, objective: L_simple}
  - {schedule: cosine, objective: L_hybrid}
  - {schedule: cosine, objective: L_vlb}
base: {diffusion.T: 30, optim.batch_size: 4, measure.nll.images: 2,
       unet.channels: 8, unet.channel_mult: [1], unet.attention: []}
measure: {nll: {metric: nll}}
"""
# run.py with grids from another folder.
PROGRAM = f"""
import runpy
from pathlib import Path
import experiments.grid
experiments.grid.HERE = Path(__file__).parent
runpy.run_path({str(RUN)!r}, run_name="__main__")
"""


def program(folder: Path, **grids: str) -> Path:
    """run.py that also knows these grids; in the folder."""
    here = folder / "experiments"
    for name in ("grids", "scales"):
        shutil.copytree(ROOT / "experiments" / name, here / name)
    shutil.copy(ROOT / "experiments" / "terms.yaml", here)
    for name, content in grids.items():
        (here / "grids" / f"{name}.yaml").write_text(content)
    (here / "program.py").write_text(PROGRAM)
    return here / "program.py"


def started(folder: Path, number: int, program: Path, *words: str, **variables: str):
    """The program in a process group of its own; `files` are its stdout and stderr."""
    files = folder / f"out{number}", folder / f"err{number}"
    usual = {"COLUMNS": "500", "OMP_NUM_THREADS": "1"}
    with open(files[0], "w") as out, open(files[1], "w") as err:
        process = subprocess.Popen(
            [sys.executable, str(program), *words],
            stdout=out,
            stderr=err,
            cwd=folder,
            env=os.environ | usual | variables,
            start_new_session=True,
        )
    process.files = files
    return process


def end(process: subprocess.Popen, patience: float = PATIENCE) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program that was started."""
    code = process.wait(patience)
    return code, *(file.read_text() for file in process.files)


def end_all(processes: list[subprocess.Popen]) -> None:
    """Kills those that still run, and what they have started."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(condition, *alive: subprocess.Popen) -> None:
    """Waits for a condition while the processes that should bring it about live."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in alive), end(alive[0])
        time.sleep(0.01)


def leftovers(results: Path) -> list[str]:
    """What must not be there once nothing runs any more."""
    names = [path.name for path in results.rglob("*")]
    claims = ("owner", ".owner", "progress")
    return [n for n in names if n.endswith((".tmp", ".part")) or n.startswith(claims)]
