"""The committed results: complete, from clean commits, and what the tables and the README show."""

from pathlib import Path

from analysis import all as everything
from analysis.claims import brief, tally
from analysis.judging import evaluate
from analysis.load import REFERENCE, load
from analysis.table_schedule_ablation import differences, table
from analysis.tables import markdown
from experiments.overrides import parse

README = Path(__file__).resolve().parents[1] / "README.md"
COMMITTED = REFERENCE / "tables" / "schedule_ablation.laptop.md"


def reference():
    return load(parse(["grid=schedule_ablation", f"results={REFERENCE}"]))


def test_every_cell_of_the_laptop_table_is_measured_for_three_seeds_or_more():
    results = reference()
    frame, seeds = results.frame, results.grid.seeds
    assert set(seeds) >= {0, 1, 2}
    assert len(frame) == 6 * len(seeds) * 2
    assert frame["value"].notna().all()


def test_every_number_comes_from_code_as_committed():
    frame = reference().frame
    assert frame["commit"].str.fullmatch("[0-9a-f]{40}").all()
    assert not frame["modified"].any()


def test_the_committed_table_is_what_the_measurements_give():
    text = COMMITTED.read_text()
    assert markdown(table(reference())) in text
    assert markdown(differences(reference())) in text


def test_the_readme_shows_the_committed_table():
    shown = README.read_text()
    assert markdown(table(reference())) in shown


def test_the_readme_shows_the_verdicts_that_the_measurements_give():
    judged = evaluate(parse([f"results={REFERENCE}"], grid="single"))
    shown = README.read_text()
    assert markdown(brief(judged)) in shown
    assert tally(judged) in shown


def test_every_table_and_the_report_are_as_committed_and_nothing_is_missing(capsys):
    everything.main(["--check"])
    assert "every table and figure is there, and as committed" in capsys.readouterr().out


def test_the_readmes_pictures_are_there():
    shown = README.read_text()
    for name in ("vlb_terms.schedule_ablation.laptop", "alpha_bar", "variance_ratio"):
        assert f"results/reference/figures/{name}.png" in shown
    for line in shown.splitlines():
        for part in line.split("](")[1:]:
            target = part.split(")")[0]
            if not target.startswith("http"):
                assert (README.parent / target).exists(), target
