"""Tables and figures from a made-up folder of results, against numbers worked out by hand."""

import io
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import load as module
from analysis import plot_vlb_terms, table_schedule_ablation
from analysis.load import load, published
from analysis.plot_vlb_terms import terms
from analysis.tables import HOLE, latex, markdown, number, paired, summary
from core.config import metric_of, to_dict
from experiments.files import write_bytes, write_json
from experiments.grid import expand
from experiments.overrides import Request
from experiments.runs import Runs

REQUEST = Request(grid="schedule_ablation", scale="smoke", seeds=(0, 1))
IMAGES = np.array([-0.3, 0.1, 0.2])  # what each image is above the mean; they sum to zero
ALL = [(row, seed) for row in range(6) for seed in (0, 1)]


def nll(row: int, seed: int) -> float:
    """4.0, 3.9, ...; seed 1 is 0.02 higher, in row 2 by 0.06."""
    return 4.0 - 0.1 * row + seed * (0.06 if row == 2 else 0.02)


def fd(row: int, seed: int) -> float:
    return 10.0 * (row + 1) + 2 * seed


def write(
    results: Path,
    which: list[tuple[int, int]],
    without: tuple = (),
    above: float = 0.0,
    request: Request = REQUEST,
):
    """Runs and their measurements as the runner leaves them. `without`: (row, seed, metric)."""
    grid = expand(request)
    for cell in grid.cells:
        row, seed = grid.rows.index(cell.row), cell.seed
        if (row, seed) not in which:
            continue
        run = Runs(results / "runs").find(cell.run_id, cell.config)
        write_json(run.folder / "config.json", to_dict(cell.config))
        write_bytes(run.folder / "trained", b"")
        record = {"commit": "0123456789abcdef", "modified": [], "seconds": 90.0, "threads": 2}
        write_json(run.folder / "provenance.json", record)
        for asked in cell.measurements:
            metric = metric_of(asked.settings)
            if (row, seed, metric) in without:
                continue
            value = above + {"nll": nll, "frechet": fd}[metric](row, seed)
            result = {metric: value, "evaluations": 40, "standard_error": 0.5}
            stored = {"metric": metric, "config": to_dict(asked.settings), "result": result}
            path = run.folder / "measurements" / f"{asked.id}.json"
            write_json(path, stored | {"provenance": record})
            if metric == "nll":
                content = io.BytesIO()
                # The images' differences between rows: 0, 0.1, 0.2, ... times IMAGES.
                each = value + 0.1 * row * IMAGES
                made_up = made_up_terms(cell.config.diffusion.T)
                np.savez(content, per_image=each.astype(np.float32), **made_up)
                write_bytes(run.arrays(asked.id), content.getvalue())


def made_up_terms(T: int) -> dict[str, np.ndarray]:
    """Every L_t is 1, but the first is T: it carries T of 2T - 1. Some steps count twice."""
    count = np.where(np.arange(T + 1) % 2, 1, 2)
    term = np.ones(T + 1)
    term[0], term[1], count[0] = 0, T, 0
    return {"t": np.arange(T + 1), "term_sum": term * count, "term_count": count}


@pytest.fixture
def reference(tmp_path, monkeypatch) -> Path:
    """Where the reference results would be; empty."""
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "reference")
    return tmp_path / "reference"


@pytest.fixture
def request_(tmp_path, reference) -> Request:
    return replace(REQUEST, results=tmp_path / "results")


def words(request: Request, *more: str) -> list[str]:
    seeds = [] if request.seeds is None else [f"seeds={list(request.seeds)}"]
    return ["scale=smoke", f"results={request.results}", *seeds, *more]


def cells_of(text: str) -> list[list[str]]:
    """The first table of a Markdown text, without its head and rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if len(row) == len(rows[0])][2:8]


def test_the_table_has_means_standard_errors_holes_and_the_papers_numbers(request_, capsys):
    write(request_.results, ALL, without=[(3, 0, "nll"), (3, 1, "nll"), (4, 1, "frechet")])
    table_schedule_ablation.main(words(request_))
    out = capsys.readouterr().out
    rows = cells_of(out)
    # Two seeds: the standard error is half their difference.
    assert rows[0][:6] == ["1K", "linear", "L_simple", "4.010 ± 0.010", "11.00 ± 1.00", "2"]
    assert rows[2][:6] == ["4K", "linear", "L_hybrid", "3.830 ± 0.030", "31.00 ± 1.00", "2"]
    assert rows[3][:6] == ["4K", "cosine", "L_simple", HOLE, "41.00 ± 1.00", "0/2"]
    assert rows[4][:6] == ["4K", "cosine", "L_hybrid", "3.610 ± 0.010", "50.00", "2/1"]
    assert rows[0][6:] == ["3.99", "32.5", "3.73", "3.29"]
    assert rows[1][6:] == ["3.77", "31.3", "3.37", "2.90"]
    assert rows[2][6:] == ["3.66", "32.2", "3.26", "3.07"]
    assert rows[3][6:] == ["3.68", "27.0", "3.26", "3.05"]
    assert rows[4][6:] == ["3.62", "28.0", "3.17", "3.19"]
    assert rows[5][6:] == ["3.57", "56.7", "2.94", "11.47"]
    assert "3 of 24 measurements are missing" in out
    assert "Seeds: 0, 1." in out and "Commit 0123456789." in out
    (path,) = (request_.results / "tables").glob("*.csv")
    kept = pd.read_csv(path)
    assert kept["nll_mean"].tolist()[:3] == pytest.approx([4.01, 3.91, 3.83])
    assert kept["nll_se"].tolist()[:3] == pytest.approx([0.01, 0.01, 0.03])
    assert np.isnan(kept["nll_mean"][3]) and kept["nll_n"].tolist() == [2, 2, 2, 0, 2, 2]


def test_differences_are_taken_image_by_image_and_seed_by_seed(request_):
    write(request_.results, ALL, without=[(4, 1, "nll")])
    results = load(request_)
    # Row 2 - row 1: seed 0: 3.8 - 3.9, seed 1: 3.86 - 3.92, and 0.1 of IMAGES in either.
    found = paired(results, "nll", 1, 2)
    assert found["difference"] == pytest.approx((-0.1 - 0.06) / 2, abs=1e-6)
    sd = 0.1 * (np.square(IMAGES).sum() / 2) ** 0.5
    assert found["se_images"] == pytest.approx(sd / 3**0.5, rel=1e-4)
    assert found["se_seeds"] == pytest.approx(0.02, rel=1e-4)
    assert (found["seeds"], found["images"]) == (2, 3)
    back = paired(results, "nll", 2, 1)
    assert back["difference"] == -found["difference"]
    # Only seed 0 has both rows.
    found = paired(results, "nll", 4, 5)
    assert found["difference"] == pytest.approx(-0.1, abs=1e-6)
    assert found["seeds"] == 1 and np.isnan(found["se_seeds"])
    assert paired(results, "fd", 0, 1) is None  # distances have no images of their own
    lines = table_schedule_ablation.differences(results)
    line = lines.set_index("NLL, paired").loc["L_simple → L_hybrid (linear, 4K)"]
    assert line["difference"] == f"-0.0800 ± {sd / 3**0.5:.4f}"
    assert line["z"] == f"{-0.08 * 3**0.5 / sd:+.1f}" and line["over seeds"] == "± 0.0200"
    assert lines["over seeds"].tolist()[-1] == "one seed"


def test_without_runs_of_ones_own_the_reference_is_shown_and_said_so(request_, reference, capsys):
    write(reference, ALL, above=1.0)
    table_schedule_ablation.main(words(request_))
    out = capsys.readouterr().out
    assert "Source: the reference results" in out
    assert cells_of(out)[0][3] == "5.010 ± 0.010"
    assert len(list((request_.results / "tables").iterdir())) == 3
    assert not (reference / "tables").exists()


def test_runs_of_ones_own_and_the_reference_are_never_mixed(request_, reference, capsys):
    write(reference, ALL, above=1.0)
    write(request_.results, [(1, 0)])
    table_schedule_ablation.main(words(request_))
    out = capsys.readouterr().out
    assert "reference" not in out
    assert [row[3] for row in cells_of(out)] == [HOLE, "3.900", *[HOLE] * 4]
    results = load(request_)
    assert results.source == request_.results and not results.is_reference
    assert results.frame["value"].notna().sum() == 2


def test_without_any_results_the_table_is_all_holes_and_says_what_would_fill_them(request_, capsys):
    table_schedule_ablation.main(words(request_, "optim.steps=30"))
    out = capsys.readouterr().out
    assert all(row[3:6] == [HOLE, HOLE, "0"] for row in cells_of(out))
    assert "24 of 24 measurements" in out
    (command,) = re.findall(r"`(python experiments/run.py .*?)`", out)
    asked = shlex.split(command)
    assert {"grid=schedule_ablation", "scale=smoke", "seeds=[0,1]", "optim.steps=30"} <= set(asked)


def test_without_seeds_all_seeds_that_have_a_run_are_taken(request_):
    write(request_.results, [(0, 0), (3, 1)])
    results = load(replace(request_, seeds=None))
    assert results.grid.seeds == (0, 1)
    assert load(replace(request_, seeds=(1,))).frame["value"].notna().sum() == 2
    assert load(replace(request_, seeds=(1,))).grid.seeds == (1,)


def test_seeds_that_follow_are_taken_once_nothing_of_them_is_missing(request_):
    write(request_.results, ALL[:1])
    more = replace(REQUEST, seeds=(3, 4, 5, 7))
    write(request_.results, [(row, 3) for row in range(6)], request=more)
    write(request_.results, [(row, 4) for row in range(6)], [(5, 4, "nll")], request=more)
    write(request_.results, [(row, 7) for row in range(6)], request=more)
    asked = replace(request_, seeds=None)
    assert load(asked).grid.seeds == (0, 3)
    write(request_.results, [(5, 4)], request=more)
    results = load(asked)
    assert results.grid.seeds == (0, 3, 4) and "seeds=[0,3,4]" in results.command
    assert len(results.frame) == 2 * 6 * 3
    assert load(replace(request_, seeds=(0, 7))).grid.seeds == (0, 7)


def test_the_frame_has_a_line_for_each_cell_and_measurement(request_):
    write(request_.results, ALL, without=[(5, 1, "frechet")])
    results = load(request_)
    frame = results.frame
    assert len(frame) == 6 * 2 * 2 and list(frame["row"]) == [r for r in range(6) for _ in "ab"] * 2
    line = frame[(frame["row"] == 2) & (frame["seed"] == 1) & (frame["measurement"] == "nll")]
    assert line["value"].iloc[0] == pytest.approx(3.86) and line["T"].iloc[0] == "4K"
    assert line["standard_error"].iloc[0] == 0.5 and line["arrays"].iloc[0].exists()
    missing = frame[frame["value"].isna()]
    assert missing[["row", "seed", "measurement"]].values.tolist() == [[5, 1, "fd"]]
    assert (frame["state"] == "trained").all()
    # Twelve trainings and 23 measurements of 90 seconds on two threads.


@pytest.mark.parametrize("T", [1000, 4000])
def test_the_terms_of_the_bound_have_the_shares_that_were_put_in(T, tmp_path):
    path = tmp_path / "terms.npz"
    np.savez(path, **made_up_terms(T))
    found = terms(pd.DataFrame({"arrays": [path, None, path]}), T)
    assert found.T == T and found.last[-1] == T and found.share[-1] == pytest.approx(1)
    assert (np.diff(found.share) > 0).all() and (np.diff(found.last) > 0).all()
    assert found.term[0] == pytest.approx(T) and found.term[1:] == pytest.approx(1)
    total = 2 * T - 1
    assert found.share == pytest.approx((T + found.last - 1) / total)
    for t in (1, 3, T // 100, T // 2, T):
        assert found.share_up_to(t) == pytest.approx((T + t - 1) / total)
    assert found.share_up_to(0) == 0
    widths = np.diff(np.append(0, found.last))
    assert widths.sum() == T and widths @ found.term == pytest.approx(total)


def test_terms_of_another_chain_or_of_nothing_are_left_out(tmp_path):
    path = tmp_path / "terms.npz"
    np.savez(path, **made_up_terms(50))
    assert terms(pd.DataFrame({"arrays": [path]}), 60) is None
    assert terms(pd.DataFrame({"arrays": [None]}), 50) is None
    assert terms(pd.DataFrame({"arrays": [path]}), 50).share[-1] == pytest.approx(1)


def test_the_figure_of_the_terms_says_the_shares_of_each_row_and_what_is_missing(request_, capsys):
    write(request_.results, [(0, 0), (1, 0)])
    plot_vlb_terms.main(words(request_))
    out = capsys.readouterr().out
    # The first 10 of 1000 steps: 1009 of 1999. The first 40 of 4000: 4039 of 7999.
    assert "1K linear L_simple 50.5 %" in out and "4K linear L_simple 50.5 %" in out
    assert "4K cosine L_vlb: missing" in out and "variational bound on 16 test images" in out
    assert {path.suffix for path in (request_.results / "figures").iterdir()} == {".png", ".svg"}


def test_means_leave_missing_values_out_and_a_single_value_has_no_error():
    frame = pd.DataFrame({"row": [2, 2, 2, 1, 0, 2], "value": [1.0, 2.0, 6.0, 5.0, np.nan, np.nan]})
    found = summary(frame, ["row"])
    assert found["row"].tolist() == [2, 1, 0] and found["n"].tolist() == [3, 1, 0]
    assert found["mean"].tolist()[:2] == [3.0, 5.0] and np.isnan(found["mean"][2])
    assert found["se"][0] == pytest.approx((14 / 2 / 3) ** 0.5)
    assert np.isnan(found["se"][1]) and np.isnan(found["se"][2])


def test_numbers_are_written_with_their_error_or_as_a_hole():
    assert number(3.14159, 0.0049, 2) == "3.14 ± 0.00"
    assert number(3.14159, float("nan"), 3) == "3.142"
    assert number(float("nan"), float("nan"), 3) == HOLE == "—"


def test_tables_are_written_for_markdown_and_latex():
    table = pd.DataFrame({"T": ["1K"], "a_b": ["1 ± 2"], "x": [HOLE]})
    assert markdown(table).splitlines() == [
        *("| T  | a_b   | x |", "|----|-------|---|", "| 1K | 1 ± 2 | — |")
    ]
    written = latex(table, "50% & more")
    assert r"T & a\_b & x \\" in written and r"1K & 1 $\pm$ 2 & -- \\" in written
    assert r"\caption{50\% \& more}" in written and r"\begin{tabular}{lll}" in written


def test_the_published_numbers_of_tables_1_and_2_are_those_of_the_paper():
    paper = published()
    tables = paper[paper["table_or_figure"].isin(["table1", "table2"])]
    assert len(tables) == 28 and tables["value"].str.fullmatch(r"\d+\.\d+").all()
    best = tables[tables["metric"] == "nll_bpd"].astype({"value": float})
    best = best.sort_values("value").groupby("dataset").first()
    assert best["objective"].tolist() == ["vlb", "vlb"]
    assert best["value"].tolist() == [2.94, 3.53]
