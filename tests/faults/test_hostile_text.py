"""Words of grids and results from elsewhere, in every form in which they are shown: only shown."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hostile import refusal
from markdown_it import MarkdownIt
from rich.console import Console
from test_studies import write

from analysis import load as module
from analysis import report, table_rows
from analysis.report import as_html
from analysis.tables import latex, markdown, plain
from experiments import grid as grids
from experiments.board import Board
from experiments.grid import expand
from experiments.overrides import parse
from experiments.runs import Runs

EVIL = [
    "<script>alert(1)</script>",
    "</style><style>*{display:none}",
    "</table></div></main><h1>x</h1>",
    "\"><img src=x onerror='alert(1)'>",
    "a | b | c",
    "`code` and ``more`` and `half",
    "[text](https://evil.example/)",
    "![picture](https://evil.example/x.png)",
    "<https://evil.example/>",
    "&lt;script&gt;",
    "{{ 7 * 7 }} {% raw %}",
    "\\| and \\",
    "<!-- the rest",
]


class Seen(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.hidden = [], "", 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.hidden:
            self.text += data


def kinds(page: Seen) -> list[str]:
    return [tag for tag, _ in page.elements]


def attacks(page: Seen) -> list:
    """Elements that only an attack has put there."""
    found = [e for e in page.elements if any(name.startswith("on") for name in e[1])]
    for tag, attributes in page.elements:
        where = (attributes.get("src") or "") + (attributes.get("href") or "")
        if "evil.example" in where or where.startswith("javascript:"):
            found.append((tag, attributes))
    return found


@pytest.mark.parametrize("evil", EVIL)
def test_a_cell_is_shown_as_it_is_and_nothing_else(evil):
    """By GitHub's reading of Markdown, tables and raw HTML among it."""
    text = markdown(pd.DataFrame([{"a": evil, evil: "last"}]))
    page = Seen(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    tags = ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert kinds(page) == tags and attacks(page) == []
    assert page.text.count(evil) == 2 and page.text.split()[-1] == "last"
    line = Seen(MarkdownIt("commonmark", {"html": True}).render(f"# {plain(evil)}"))
    assert kinds(line) == ["h1"] and line.text.strip() == evil.strip()


@pytest.mark.parametrize("evil", EVIL)
def test_latex_prints_it_and_obeys_nothing(evil):
    text = latex(pd.DataFrame([{"a": evil + r" \input{/etc/passwd} $x$ #1 ^ ~"}]), evil)
    assert r"\textbackslash{}input\{/etc/passwd\} \$x\$ \#1" in text
    assert r"\input" not in text.replace(r"\textbackslash{}input", "")


def test_what_is_less_than_a_number_stays_as_it_was():
    assert plain("< 1.03 <= 2, n < k, a_b *") == "< 1.03 <= 2, n < k, a_b *"
    assert plain("one\ntwo\x1b") == r"one two\\x1b"  # its backslash is one to see


def test_markdown_of_a_results_folder_fetches_and_runs_nothing():
    page = Seen(as_html("\n\n".join(EVIL), 4))
    assert set(kinds(page)) <= {"p", "a", "code", "h1"}
    assert not [tag for tag, _ in page.elements if tag in ("img", "script", "style")]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    for name in ("grids", "scales"):
        shutil.copytree(grids.HERE / name, tmp_path / "experiments" / name)
    shutil.copy(grids.HERE / "terms.yaml", tmp_path / "experiments")
    monkeypatch.setattr(grids, "HERE", tmp_path / "experiments")
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "none")
    return tmp_path / "experiments"


def test_a_report_of_a_hostile_grid_and_results_is_a_page_like_any_other(here, tmp_path):
    """Title, paper, claim, words of rows, provenance and the tables of a results folder."""
    results, evil = tmp_path / "results", " ".join(EVIL)
    words = [f"results={results}", "scale=smoke", "seeds=[0,1]"]
    write(results, "model_mix")
    hostile(here / "grids" / "model_mix.yaml")
    grid = expand(parse(["grid=model_mix", *words]))
    assert all(evil in cell.words for cell in grid.cells)
    for cell in grid.cells:
        run = Runs(results / "runs").find(cell.run_id, cell.config)
        record = {"commit": evil, "processor": evil, "device": evil, "seconds": 1.0}
        (run.folder / "provenance.json").write_text(json.dumps(record))
    (results / "tables").mkdir()
    for stem in (f"{script.partition('_')[2]}.model_mix.smoke" for script in grid.analysis):
        (results / "tables" / f"{stem}.md").write_text("# x\n\n" + "\n\n".join(EVIL))
    (results / "tables" / "model_mix.smoke.md").write_text("# x\n\n" + "\n\n".join(EVIL))
    text = {p.suffix: p.read_text() for p in report.build(parse(words, grid="single"))}
    page = Seen(text[".html"])
    found = [tag for tag in kinds(page) if tag in ("script", "style", "img", "h1", "main")]
    assert sorted(found) == ["h1", "main", "script", "style"]
    assert [tag for tag, _ in attacks(page)] == ["a"] * len(attacks(page))  # of the table's text
    assert page.text.count("<script>alert(1)</script>") >= 4 and "{{ 7 * 7 }}" in page.text
    twin = Seen(MarkdownIt("commonmark", {"html": True}).enable("table").render(text[".md"]))
    assert not {"script", "style"} & set(kinds(twin))
    assert {tag for tag, _ in attacks(twin)} <= {"a", "img"}


def hostile(path: Path) -> None:
    """A grid's file with other texts in the place of its own, which may go on in other lines, and
    rows with a word of that kind."""
    kept, skipping = [], False
    for line in path.read_text().splitlines():
        skipping = line.split(":")[0] in ("title", "paper", "claim") or (
            skipping and line.startswith(" ")
        )
        if not skipping:
            kept.append(line)
    text = json.dumps(" ".join(EVIL))
    kept = [line.replace("- {", f"- {{note: {text}, ") for line in kept]
    path.write_text("\n".join([*(f"{k}: {text}" for k in ("title", "paper", "claim")), *kept]))
    with open(path.parents[1] / "terms.yaml", "a") as terms:
        terms.write(f"\nnote:\n  {text}: {{unet.dropout: 0.0}}\n")


def test_a_table_of_any_study_is_written_with_a_hostile_title(here, tmp_path, capsys):
    results = tmp_path / "results"
    write(results, "model_mix")
    hostile(here / "grids" / "model_mix.yaml")
    table_rows.main(["grid=model_mix", f"results={results}", "scale=smoke", "seeds=[0,1]"])
    (made,) = results.glob("tables/model_mix*.md")
    page = Seen(MarkdownIt("commonmark", {"html": True}).enable("table").render(made.read_text()))
    assert "<script>" in page.text and "script" not in kinds(page) and attacks(page) == []
    drawn = next(results.glob("figures/*.svg")).read_text()
    assert "<script" not in drawn
    assert "<script>" in capsys.readouterr().out.replace("\\", "")


def test_a_display_takes_no_markup_from_words(monkeypatch):
    """What rich would take for the end of a style ends the program with an error."""
    board = Board("[/bold] [red]title", 1)
    board.console = Console(force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    monkeypatch.setattr("experiments.board.Console", lambda **how: board.console)
    with Board("[/bold] [red]title", 1, [1]) as live:
        assert live.live
        live.worker(1, "[/x] name", "[/y]", 1, 2, "[/z]")
        live.progress(0.5, "[/w]")
        live._bars.refresh()


def test_a_word_of_a_row_cannot_be_a_formula(here):
    (here / "grids" / "mine.yaml").write_text("rows: [{T: 1K, $x$: 1}]")
    assert "cannot have a '$'" in refusal(lambda: expand(parse(["grid=mine"])))
