"""Two results side by side: what moved, by how much more than its error, and which verdicts."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_studies import WORDS, write

from analysis import compare
from core.errors import Refused
from experiments.files import read_json, write_json
from experiments.grid import expand
from experiments.overrides import REFERENCE, parse
from experiments.runs import Runs

T_975 = {2: 4.302653, 1: 12.706205}  # Student's t by degrees of freedom, from a printed table


def lines(values, seeds=None, error=np.nan, arrays=None) -> pd.DataFrame:
    seeds = range(len(values)) if seeds is None else seeds
    rest = {"standard_error": error, "arrays": arrays}
    return pd.DataFrame([{"value": v, "seed": s} | rest for v, s in zip(values, seeds)])


def test_the_same_seeds_are_paired():
    a, b = [1.0, 5.0, 9.0], [1.2, 5.3, 9.1]
    difference, half = compare.moved(lines(a), lines(b))
    each = np.array([0.2, 0.3, 0.1])
    assert difference == pytest.approx(0.2)
    assert half == pytest.approx(T_975[2] * each.std(ddof=1) / 3**0.5, rel=1e-6)


def test_only_the_seeds_of_both_are_paired():
    difference, half = compare.moved(lines([1.0, 2.0, 50.0]), lines([1.5, 2.7]))
    assert difference == pytest.approx(0.6)
    assert half == pytest.approx(T_975[1] * 0.1, rel=1e-6)


def test_a_single_common_seed_is_compared_with_itself_and_not_with_the_mean_of_others():
    """Else what the other seeds do would be taken for what changed."""
    a, b = lines([1.0, 9.0, 9.0], error=0.3), lines([1.1], error=0.4)
    difference, half = compare.moved(a, b)
    assert (difference, half) == pytest.approx((0.1, 1.959964 * 0.5))
    assert compare.moved(a, lines([1.1], seeds=[7], error=0.4)) is None


def test_other_seeds_are_independent():
    a, b = [1.0, 1.2, 0.8], [2.0, 2.2, 1.8]
    difference, half = compare.moved(lines(a), lines(b, seeds=[7, 8, 9]))
    assert difference == pytest.approx(1.0)
    # Equal variances and sizes: Welch's degrees of freedom are 4, whose t is 2.776445.
    assert half == pytest.approx(2.776445 * (2 * 0.04 / 3) ** 0.5, rel=1e-6)


def test_single_seeds_are_compared_over_their_images(tmp_path):
    difference, half = compare.moved(lines([1.0], error=0.3), lines([2.0], error=0.4))
    assert (difference, half) == pytest.approx((1.0, 1.959964 * 0.5))
    numbers = np.random.default_rng(0).normal(3, 1, 100)
    for name, shift in (("a", 0.0), ("b", np.linspace(0.0, 0.2, 100))):
        np.savez(tmp_path / f"{name}.npz", per_image=numbers + shift)
    a, b = (
        lines([x], error=1.0, arrays=tmp_path / f"{name}.npz") for name, x in zip("ab", (3, 3.1))
    )
    half = compare.moved(a, b)[1]
    assert half == pytest.approx(1.959964 * np.linspace(0, 0.2, 100).std(ddof=1) / 10, rel=1e-5)
    assert compare.moved(lines([1.0]), lines([2.0])) is None


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """Two folders with the same made-up numbers; the second has one more study."""
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, "schedule_ablation")
    shutil.copytree(a, b)
    write(b, "two_stage")
    return a, b


def change(results: Path, row: int, name: str, by: float) -> None:
    """Adds to one number of each seed."""
    grid = expand(parse([*WORDS], grid="schedule_ablation"))
    for cell in grid.cells:
        if cell.row == grid.rows[row]:
            run = Runs(results / "runs").find(cell.run_id, cell.config)
            asked = next(item for item in cell.measurements if item.name == name)
            path = run.folder / "measurements" / f"{asked.id}.json"
            stored = read_json(path)
            stored["result"][stored["metric"]] += by * (1 + 0.001 * cell.seed)
            write_json(path, stored)


def test_what_moved_and_which_verdicts_changed(two, capsys):
    a, b = two
    change(b, 0, "fd", 1.5)
    for row, nll in ((0, -100.0), (1, 100.0)):
        change(b, row, "nll", nll)
    compare.main([str(a), str(b), *WORDS])
    said = capsys.readouterr().out
    moved = said.partition("## Numbers")[2]
    assert "moved beyond their error: 3 of 12" in moved
    assert "1K linear L_simple: fd" in moved and "+1.5 ± " in moved
    assert "cosine" not in moved.partition("About")[0]
    verdicts = said.partition("## Numbers")[0]
    assert "| 8 " in verdicts and "fails" in verdicts
    assert "Only in A: 0; only in B: 2" in said


def test_nothing_moved_between_a_folder_and_itself(two, capsys):
    compare.main([str(two[0]), str(two[0]), *WORDS])
    said = capsys.readouterr().out
    assert "Verdicts that changed: 0 of 46" in said and "error: 0 of 12" in said


def test_a_commit_means_its_reference_results(tmp_path):
    found = compare.side("HEAD", ["seeds=[0]"], tmp_path)
    assert found.words[0] == "seeds=[0]"
    folder = Path(found.words[1].removeprefix("results="))
    some = next(path for path in (REFERENCE / "runs").iterdir())
    assert (folder / "runs" / some.name / "config.json").exists()


def test_a_scale_means_the_results_folder_at_that_scale(tmp_path):
    words = compare.side("smoke", ["scale=laptop", "seeds=[0]"], tmp_path).words
    assert "scale=smoke" in words and "scale=laptop" not in words


@pytest.mark.parametrize(
    "words, says",
    [
        (["reference"], "two results"),
        (["reference", "nowhere-at-all"], "none of: reference"),
        (["reference", "reference", "grid=single"], "all studies"),
    ],
)
def test_what_cannot_be_compared_is_refused(words, says):
    with pytest.raises(Refused, match=says):
        compare.main(words)
