"""Results that an early version wrote, commit 40dbdf3 of the first reference, are read by today's.

tests/frozen/40dbdf3 is seed 0 of schedule_ablation as it was published then, at the laptop scale of
those days: attention at 8 x 8, gradients not clipped, files without checksums.
"""

import shutil
from pathlib import Path

import pytest
from test_analysis import cells_of

from analysis import load as module
from analysis import report, table_schedule_ablation
from analysis.load import load, read_arrays
from analysis.tables import paired
from experiments import grid, launch, run
from experiments.overrides import parse
from experiments.run import distinct
from experiments.runs import Runs
from experiments.scripts import Analysis

FROZEN = Path(__file__).resolve().parents[1] / "frozen" / "40dbdf3"
SINCE = {"  unet.attention: [4]\n": "  unet.attention: [8]\n", "  optim.grad_clip: 10\n": ""}
# T, schedule, objective, NLL, FD, as printed by the code of those days from one seed
TABLE = [
    ["1K", "linear", "L_simple", "3.689", "6.01", "1"],
    ["4K", "linear", "L_simple", "3.582", "6.31", "1"],
    ["4K", "linear", "L_hybrid", "3.498", "4.16", "1"],
    ["4K", "cosine", "L_simple", "3.372", "3.21", "1"],
    ["4K", "cosine", "L_hybrid", "3.353", "2.43", "1"],
    ["4K", "cosine", "L_vlb", "6.896", "32.43", "1"],
]


@pytest.fixture
def words(tmp_path, monkeypatch) -> list[str]:
    """Of a command on a copy of the results, where the laptop scale is what it was."""
    here = tmp_path / "experiments"
    for name in ("grids", "scales"):
        shutil.copytree(grid.HERE / name, here / name)
    shutil.copy(grid.HERE / "terms.yaml", here)
    scale = here / "scales" / "laptop.yaml"
    text = scale.read_text()
    for now, then in SINCE.items():
        assert now in text
        text = text.replace(now, then)
    scale.write_text(text)
    monkeypatch.setattr(grid, "HERE", here)
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "none")
    shutil.copytree(FROZEN, tmp_path / "results")
    return ["seeds=[0]", f"results={tmp_path / 'results'}"]


def test_todays_table_of_them_is_theirs(words, capsys):
    table_schedule_ablation.main(words)
    said = capsys.readouterr()
    assert [row[:6] for row in cells_of(said.out)] == TABLE
    assert "Commit 40dbdf3782." in said.out and "missing" not in said.out
    assert "warning" not in said.err


def test_their_values_image_by_image_are_read(words):
    results = load(parse([*words, "grid=schedule_ablation"]))
    found = paired(results, "nll", 1, 2)
    assert found["difference"] == pytest.approx(3.4979821 - 3.5815880, abs=1e-5)
    assert (found["images"], found["seeds"]) == (512, 1)
    assert all(read_arrays(path) for path in results.frame["arrays"])


def test_todays_report_is_made_of_them(words):
    page, text = (path.read_text() for path in report.build(parse(words, grid="single")))
    assert "0.107 bits/dim" in text  # T: 1K to 4K, 3.689 - 3.582
    for run_id in ("ad5f5084b8", "2c2076ffed", "4eb5560833", "ebc40e5f6f", "b7fce9103e"):
        assert run_id in page
    assert "40dbdf3782" in page


def test_the_run_command_finds_them_finished(words, capsys, monkeypatch):
    monkeypatch.setattr(Analysis, "write_all", lambda self: True)
    monkeypatch.setattr(launch, "here", None)
    assert run.main([*words, "grid=schedule_ablation"]) == 0
    said = capsys.readouterr()
    assert "is complete: nothing to do" in said.out and said.err == ""


def test_where_a_number_is_missing_it_says_in_a_line_that_their_weights_are(
    words, capsys, monkeypatch
):
    asked = []

    def here(title, tasks, on_done):
        asked.extend(task.run.id for task in tasks)
        return launch.Outcome(0, {}, False)

    monkeypatch.setattr(launch, "here", here)
    request = parse([*words, "grid=schedule_ablation"])
    runs = distinct([grid.expand(request)], Runs(request.results / "runs"))
    first, cells = runs[0]
    (first.folder / "measurements" / f"{cells[0].measurements[0].id}.json").unlink()
    assert run.main([*words, "grid=schedule_ablation"]) == 0
    said = capsys.readouterr()
    assert asked == [first.id]
    assert f"({first.id}): no weights on this disk, so it trains again" in said.out
    assert "warning" not in said.err
