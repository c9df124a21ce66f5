"""Each study's scripts on a made-up folder of results: complete, with holes, and empty."""

import importlib
import io
import zlib
from pathlib import Path

import numpy as np
import pytest

from analysis import all as everything
from analysis import load as module
from analysis import plot_learned_v, report, table_fd_range, table_variance_ablation
from analysis.load import load
from analysis.tables import HOLE
from core.config import metric_of, to_dict
from core.errors import Refused
from experiments.files import write_bytes, write_json
from experiments.grid import EXTENSIONS, STUDIES, expand
from experiments.overrides import parse
from experiments.runs import Runs

SCRIPTS = [
    (name, script)
    for name in (*STUDIES, *EXTENSIONS)
    for script in expand(parse([f"grid={name}"])).analysis
]
WORDS = ("scale=smoke", "seeds=[0,1]")


def value(cell, asked) -> float:
    """Made up, the same for the same question; larger for the second seed."""
    words = repr((sorted(cell.row.items()), asked.name, sorted(asked.axes.items())))
    return 3 + zlib.crc32(words.encode()) % 1000 / 1000 + 0.1 * cell.seed


def write(results: Path, study: str, holes: int = 0) -> int:
    """Every measurement of the study but each so-manieth; how many there are."""
    written = 0
    for cell in expand(parse([f"grid={study}", *WORDS])).cells:
        run = Runs(results / "runs").find(cell.run_id, cell.config)
        write_json(run.folder / "config.json", to_dict(cell.config))
        write_bytes(run.folder / "trained", b"")
        lines = [f'{{"step": {10 * i}, "vlb": {9 - i}}}\n' for i in range(1, 6)]
        write_bytes(run.folder / "log.jsonl", "".join(lines).encode())
        for asked in cell.measurements:
            written += 1
            if holes and written % holes == 0:
                continue
            metric, record = metric_of(asked.settings), {"commit": "0123456789", "modified": []}
            result = {metric: value(cell, asked), "standard_error": 0.5, "evaluations": 40}
            result |= {"outside": 0.01, "images": 4, "timesteps": 5}
            result |= {"frechet_of_sets": result[metric] + 0.2, "images_of_a_set": 66}
            result |= {"low": -0.1 - 0.1 * cell.seed, "high": 1.2 + 0.1 * cell.seed}
            stored = {"metric": metric, "config": to_dict(asked.settings), "result": result}
            path = run.folder / "measurements" / f"{asked.id}.json"
            write_json(path, stored | {"provenance": record})
            content = io.BytesIO()
            made = arrays(metric, cell.config.diffusion.T)
            if metric == "nll":
                numbers = np.random.default_rng(zlib.crc32((cell.run_id + asked.id).encode()))
                made["per_image"] = value(cell, asked) + numbers.normal(size=3)
            np.savez(content, **made)
            write_bytes(run.arrays(asked.id), content.getvalue())
    return written


def arrays(metric: str, T: int) -> dict[str, np.ndarray]:
    if metric == "nll":
        ones = np.ones(T + 1)
        terms = {"t": np.arange(T + 1), "term_sum": ones, "term_count": ones.astype(int)}
        return terms
    if metric == "learned_v":
        t, edges = np.array([1, T // 2, T]), np.linspace(-0.5, 1.5, 201)
        counts = np.zeros((3, 200), dtype=int)
        counts[:, 100:150] = 2  # evenly between 0.5 and 1
        flat = {"mean": np.full(3, 0.75), "outside": np.full(3, 0.01)}
        return {"t": t, "edges": edges, "histogram": counts} | flat
    return {"samples": np.zeros((2, 1, 4, 4), np.uint8)}


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "reference")
    return tmp_path / "results"


def run(script: str, study: str, results: Path) -> None:
    words = [f"grid={study}", *WORDS, f"results={results}"]
    importlib.import_module(f"analysis.{script}").main(words)


@pytest.mark.parametrize("study, script", SCRIPTS)
def test_each_script_draws_what_there_is_and_names_what_is_missing(study, script, results, capsys):
    total = write(results, study)
    run(script, study, results)
    whole = capsys.readouterr().out
    assert "missing" not in whole and "Seeds: 0, 1." in whole.replace("\n", " ")
    made = [p for p in results.rglob("*") if p.suffix in (".png", ".svg", ".md", ".csv", ".tex")]
    assert made and all(path.stat().st_size > 100 for path in made)
    assert not [path for path in results.rglob("*") if path.name.endswith((".part", ".tmp"))]

    for path in results.glob("runs/*/measurements/*"):
        path.unlink()
    write(results, study, holes=3)
    run(script, study, results)
    holey = capsys.readouterr().out
    assert f"of {total} measurements are missing" in holey.replace("\n", " ")
    assert f"python experiments/run.py grid={study}" in holey


@pytest.mark.parametrize("study, script", SCRIPTS)
def test_each_script_says_what_to_run_when_nothing_is_there(study, script, results, capsys):
    try:
        run(script, study, results)
    except Refused as error:
        assert f"python experiments/run.py grid={study}" in str(error)
        return
    out = capsys.readouterr().out
    assert HOLE in out and f"python experiments/run.py grid={study}" in out


def test_a_study_of_a_single_row_is_a_table_too(results, capsys):
    write(results, "single")
    run("table_rows", "single", results)
    assert "| nll " in capsys.readouterr().out
    assert (results / "figures" / "single.smoke.png").exists()


def test_the_variance_table_joins_axes_seeds_and_others_numbers(results):
    write(results, "variance_ablation")
    found = load(parse(["grid=variance_ablation", *WORDS], results=results))
    table = table_variance_ablation.table(found)
    assert list(table["variance"]) == ["β", "β̃", "β", "β̃", "learned"]
    cells = {cell.words: cell for cell in found.grid.cells if cell.seed == 0}
    cell = next(c for c in cells.values() if "L_hybrid" in c.words)
    asked = {(a.name, *a.axes.values()): value(cell, a) for a in cell.measurements}
    # Two seeds that are 0.1 apart: the standard error is half of it.
    assert table["NLL"][4] == f"{asked['nll', 'learned'] + 0.05:.3f} ± 0.050"
    assert table["FD, 25 steps"][3] == f"{asked['fd', 'beta_tilde', 25] + 0.05:.2f} ± 0.05"
    assert list(table["FID ImageNet 64, 25 steps"]) == [HOLE, HOLE, "170.28", "29.21", HOLE]


def test_quantiles_come_from_the_histogram():
    made = arrays("learned_v", 100)
    low, middle, high = plot_learned_v.quantiles(made, [0.05, 0.5, 0.95])
    assert low == pytest.approx([0.525] * 3) and high == pytest.approx([0.975] * 3)
    assert middle == pytest.approx([0.75] * 3)


@pytest.fixture
def few(monkeypatch):
    """analysis/all.py with two studies and without what takes long."""
    for place in (everything, report):
        monkeypatch.setattr(place, "STUDIES", ("model_mix", "two_stage"))
        monkeypatch.setattr(place, "OTHERS", ("plot_alpha_bar",))
    monkeypatch.setattr(table_fd_range, "main", lambda words: None)


def test_everything_is_drawn_and_what_is_missing_is_named(few, results, capsys):
    write(results, "two_stage")
    everything.main([*WORDS, f"results={results}"])
    out = capsys.readouterr().out
    assert "plot_model_mix: nothing is measured yet" in out
    assert "model_mix: 16 of 16 measurements are missing" in out and "two_stage: " not in out
    assert (results / "figures" / "two_stage.smoke.png").exists()
    assert (results / "figures" / "alpha_bar.png").exists()


@pytest.mark.slow
def test_the_check_wants_every_measurement_and_the_committed_tables(few, results, monkeypatch):
    """Made-up results stand for the reference; the check writes nothing among them."""
    reference = module.REFERENCE
    monkeypatch.setattr(everything, "REFERENCE", reference)
    for study in everything.STUDIES:
        write(reference, study)
    with pytest.raises(Refused, match=r"two_stage.smoke.md is not among the committed ones"):
        everything.main([*WORDS, "--check"])
    assert not (reference / "tables").exists()

    for script, words in everything.scripts([*WORDS, f"results={reference}"], reference):
        importlib.import_module(f"analysis.{script}").main(words)
    with pytest.raises(Refused, match=r"REPORT.smoke.md is not among the committed ones"):
        everything.main([*WORDS, "--check"])
    report.build(parse([*WORDS, f"results={reference}"], grid="single"))
    everything.main([*WORDS, "--check"])

    next(reference.glob("runs/*/measurements/*.json")).unlink()
    with pytest.raises(Refused, match=r"1 of \d+ measurements are missing"):
        everything.main([*WORDS, "--check"])
