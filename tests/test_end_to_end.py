"""The program as people start it: complete, interrupted, killed, doubled, refused.

Each test starts processes and looks at nothing but what they print and leave behind. Most take a
made-up grid of three rows instead of the paper's six, to spare the time.
"""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import ROOT, RUN, THREE_ROWS, end, end_all, leftovers, program, started, until

from analysis.tables import HOLE
from core.training import read_log
from experiments.grid import expand
from experiments.overrides import parse

TABLE = ROOT / "analysis" / "table_schedule_ablation.py"

# The paper's grid, as small as it can be.
TINY = (
    *("grid=schedule_ablation", "scale=smoke", "device=cpu", "optim.steps=2"),
    *("optim.batch_size=4", "measure.nll.images=2", "measure.fd.images=66"),
    *("measure.fd.sampler.steps=2", "measure.fd.reference=test"),
)


@pytest.fixture
def start(tmp_path):
    """Starts a program in a process group of its own; what still runs is killed at the end."""
    processes = []

    def start(program: Path, *words: str) -> subprocess.Popen:
        processes.append(started(tmp_path, len(processes), program, *words))
        return processes[-1]

    yield start
    end_all(processes)


@pytest.fixture
def three_rows(tmp_path):
    """run.py that also knows `grid=three_rows`."""
    return program(tmp_path, three_rows=THREE_ROWS)


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def grey_images(folder: Path, n: int, size: int = 16) -> Path:
    """A folder with two classes of n random grey images in all."""
    numbers = np.random.default_rng(0)
    for i in range(n):
        path = folder / ("coat", "shoe")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (size, size), dtype=np.uint8)).save(path)
    return folder


def test_a_grid_runs_to_its_table_then_has_nothing_to_do_and_shows_a_hole_as_a_hole(
    start, tmp_path
):
    results = tmp_path / "results"
    words = [*TINY, f"results={results}"]
    code, out, err = end(start(RUN, *words))
    assert code == 0, err
    assert len(list((results / "runs").iterdir())) == 6 and leftovers(results) == []
    tables = (results / "tables").glob("schedule_ablation.*")
    table = {path.suffix: path for path in tables}
    assert set(table) == {".md", ".csv", ".tex"}
    assert {path.suffix for path in (results / "figures").iterdir()} == {".png", ".svg"}
    with open(table[".csv"]) as file:
        lines = list(csv.DictReader(file))
    assert [f"{x['T']} {x['schedule']} {x['objective']}" for x in lines] == [
        *("1K linear L_simple", "4K linear L_simple", "4K linear L_hybrid"),
        *("4K cosine L_simple", "4K cosine L_hybrid", "4K cosine L_vlb"),
    ]
    assert all(0 < float(x["nll_mean"]) < 20 and float(x["fd_mean"]) > 0 for x in lines)
    assert len({x["nll_mean"] for x in lines}) == 6
    assert "4K | cosine   | L_vlb" in table[".md"].read_text() and "# Noise schedule" in out
    assert r"\toprule" in table[".tex"].read_text()

    before, began = files(results / "runs"), time.monotonic()
    code, out, _ = end(start(RUN, *words))
    assert code == 0 and time.monotonic() - began < 3
    assert "nothing to do" in out
    assert Path(out.splitlines()[-1]) == table[".md"]
    assert files(results / "runs") == before

    (hybrid,) = (results / "runs").glob("*-T4000-linear-hybrid-s0")
    removed = next(
        path
        for path in (hybrid / "measurements").glob("*.json")
        if json.loads(path.read_text())["metric"] == "nll"
    )
    removed.unlink()
    listing, tables = start(RUN, *words, "list=true"), start(TABLE, *words[1:])
    code, out, _ = end(listing)
    assert code == 0
    states = {line.split("  ")[0]: line.split("  ")[-1] for line in out.splitlines()[:6]}
    assert states["4K linear L_hybrid"].endswith("trained 1/2 measured")
    assert sum(state.endswith("trained 2/2 measured") for state in states.values()) == 5
    assert out.splitlines()[-1] == "6 runs: 6 trained; 1 of 12 measurements missing"
    code, out, err = end(tables)
    assert code == 0, err
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    ours = {tuple(row[:3]): row[3:6] for row in rows if len(row) == 10}
    nll, fd, n = ours["4K", "linear", "L_hybrid"]
    assert nll == HOLE and float(fd) > 0 and n == "0/1"
    assert float(ours["4K", "cosine", "L_hybrid"][0]) > 0
    # The same in the folder, and in the two differences that take this row: 1 + 2 * 3 columns.
    assert table[".md"].read_text().count(HOLE) == 7
    (command,) = re.findall(r"1 of 12 measurements are missing; `(.*)`", out)
    program, *proposed = shlex.split(command)[1:]
    assert program == "experiments/run.py"
    assert expand(parse(proposed)).cells == expand(parse(words)).cells
    assert parse(proposed).results == results  # else the hole would not be filled


def test_interrupted_and_killed_and_partly_failed_runs_are_completed_by_the_same_command(
    start, three_rows, tmp_path
):
    results = tmp_path / "results"
    words = ["grid=three_rows", "scale=smoke", "optim.steps=100", "device=cpu", "threads=1"]
    words += ["log_every=1", f"results={results}"]

    def folder(name: str) -> Path | None:
        return next((results / "runs").glob(f"*-{name}-s0"), None)

    def steps(name: str) -> list[int]:
        there = folder(name)
        return [line["step"] for line in read_log(there / "log.jsonl")] if there else []

    # Ctrl-C, which reaches all processes of the group, once the first run trains.
    process = start(three_rows, *words)
    until(lambda: len(steps("linear-simple")) > 5, process)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = end(process)
    assert code == 130, err
    assert err.splitlines()[-1] == "interrupted; the same command continues"
    assert "Traceback" not in out + err
    assert 5 < len(steps("linear-simple")) < 100 and leftovers(results) == []
    assert len(list((folder("linear-simple") / "checkpoints").glob("checkpoint-*.pt"))) == 1

    # The next attempt: one worker is killed, and one folder belongs to another configuration.
    name = next(c for c in _cells(three_rows, words) if "L_vlb" in c.words)
    drifted = results / "runs" / f"{name.run_id}-fashion16-T30-cosine-vlb-s0"
    shutil.rmtree(drifted, ignore_errors=True)
    drifted.mkdir()
    other = json.loads((folder("linear-simple") / "config.json").read_text())
    (drifted / "config.json").write_text(json.dumps(other))
    reached = len(steps("linear-simple"))
    process = start(three_rows, *words)
    until(lambda: len(steps("linear-simple")) > reached + 5, process)
    owner = json.loads((folder("linear-simple") / "owner.json").read_text())
    os.kill(owner["pid"], signal.SIGKILL)
    code, out, err = end(process)
    assert code == 1, err
    assert "linear L_simple seed 0 failed: its process died (signal 9)" in err
    drift = [line for line in err.splitlines() if "cosine L_vlb seed 0 failed: " in line]
    assert len(drift) == 1 and str(drifted) in drift[0] and "diffusion.schedule" in drift[0]
    assert "Traceback" not in err
    code, out, _ = end(start(three_rows, *words, "list=true"))
    states = [re.search(r"(\w+) +(\d/\d) measured", line) for line in out.splitlines()[:3]]
    assert [state.groups() for state in states] == [
        *(("started", "0/1"), ("trained", "1/1"), ("started", "0/1"))
    ]
    assert json.loads((drifted / "config.json").read_text()) == other  # left alone

    shutil.rmtree(drifted)
    code, _, err = end(start(three_rows, *words))
    assert code == 0, err
    assert "cosine L_hybrid" not in err  # what was complete is not touched
    for name in ("linear-simple", "cosine-hybrid", "cosine-vlb"):
        assert steps(name) == list(range(1, 101))
        assert len(list((folder(name) / "measurements").glob("*.json"))) == 1
        assert [path.name[:8] for path in (folder(name) / "checkpoints").iterdir()] == ["snapshot"]
    assert leftovers(results) == []


def _cells(program: Path, words: list[str]):
    from experiments import grid

    here, grid.HERE = grid.HERE, program.parent
    try:
        return expand(parse(words)).cells
    finally:
        grid.HERE = here


@pytest.mark.slow
def test_two_launches_at_once_share_the_runs_of_a_folder_of_images(start, three_rows, tmp_path):
    images, results = grey_images(tmp_path / "images", 80), tmp_path / "results"
    grid = three_rows.parent / "grids" / "three_rows.yaml"
    grid.write_text(THREE_ROWS.replace("metric: nll}", "metric: nll}, fd: {metric: frechet}"))
    words = ["grid=three_rows", "scale=smoke", "data.name=folder", f"data_path={images}"]
    words += ["optim.steps=30", "log_every=1", "measure.fd.images=66", f"results={results}"]
    words += ["unet.class_conditional=true", "device=cpu"]
    both = [end(process) for process in [start(three_rows, *words), start(three_rows, *words)]]
    assert [code for code, _, _ in both] == [0, 0], both
    said = Counter(line for _, _, err in both for line in err.splitlines())
    trained = {line: n for line, n in said.items() if line.endswith(": train")}
    assert trained == {
        "linear L_simple seed 0: train": 1,
        "cosine L_hybrid seed 0: train": 1,
        "cosine L_vlb seed 0: train": 1,
    }
    folders = list((results / "runs").iterdir())
    assert len(folders) == 3 and leftovers(results) == []
    for folder in folders:
        assert [line["step"] for line in read_log(folder / "log.jsonl")] == list(range(1, 31))
        stored = [json.loads(path.read_text()) for path in (folder / "measurements").glob("*.json")]
        assert sorted(m["metric"] for m in stored) == ["frechet", "nll"]
        assert all(np.isfinite(m["result"][m["metric"]]) for m in stored)
        assert json.loads((folder / "config.json").read_text())["data"]["name"] == "folder"
        assert str(images) not in (folder / "config.json").read_text()


def test_what_cannot_be_done_is_refused_in_one_line_before_anything_is_written(start, tmp_path):
    results = tmp_path / "results"
    (tmp_path / "empty").mkdir()
    mixed = grey_images(tmp_path / "mixed", 30)
    Image.new("L", (8, 8)).save(mixed / "coat" / "zz.png")
    few = grey_images(tmp_path / "few", 12)
    small = ("grid=schedule_ablation", "scale=smoke", f"results={results}")
    folder = (*small, "data.name=folder")
    cases = {
        ("grid=schedule_ablations",): "no grid 'schedule_ablations'",
        (
            *small[:1],
            "scale=big",
            small[2],
        ): "no scale 'big'; there are: cifar10, ",
        (*small, "optim.stesp=3"): "mean 'steps'",
        (*small, "diffusion.T=1000"): "varies diffusion.T",
        (*folder, f"data_path={tmp_path / 'empty'}"): "empty' has no .png",
        (*folder, f"data_path={mixed}"): "but 'coat/zz.png' is 8x8",
        (*folder, f"data_path={few}"): "fewer than a batch of 16",
    }
    processes = [start(RUN, *words) for words in cases]
    for process, (words, says) in zip(processes, cases.items()):
        code, out, err = end(process)
        assert code == 2 and out == "", (words, out, err)
        assert len(err.splitlines()) == 1 and err.startswith("error: "), err
        assert says in err, (words, err)
    assert not results.exists()
