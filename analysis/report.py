"""One page about everything that was measured at a scale: verdicts, tables, figures, samples.

    python analysis/report.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

draws every table and figure anew and writes FOLDER/REPORT.html, a single file that needs nothing
else (FOLDER/REPORT.SCALE.html at other scales than laptop), and REPORT.md beside it, for a
repository's page. Takes the same words as experiments/run.py, but for grid=. Where something is not
measured the report says so, with the command that would measure it. What to look for: the table of
claims first; each leads to its study, the numbers it rests on and the command that repeats it.
"""

import base64
import importlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup

from analysis import verdicts
from analysis.all import OTHERS, STUDIES, draw
from analysis.claims import (
    NOTE,
    borrowed,
    claimed,
    counted,
    parts_table,
    shown,
    table,
    tally,
)
from analysis.judging import Judged, evaluate
from analysis.load import Results, load
from analysis.script import say_written
from analysis.tables import markdown, plain, write
from core.command import start
from core.errors import Refused
from experiments.grid import EXTENSIONS
from experiments.overrides import Request, of_results, parse
from experiments.records import training_seconds
from experiments.runs import Run

HERE = Path(__file__).parent
SYMBOLS = dict(zip(verdicts.WORDS, ("✓", "✗", "?", "○", "△")))
CLASSES = dict(zip(verdicts.WORDS, ("holds", "fails", "undecided", "missing", "elsewhere")))


@dataclass(frozen=True)
class Piece:
    """What one script made: its title, what to look for, a picture and a text, if any."""

    script: str
    title: str
    look_for: str
    picture: Path | None
    text: str  # Markdown: tables and caption

    @property
    def inlined(self) -> str:
        """The picture as a data: URI."""
        return "data:image/png;base64," + base64.b64encode(self.picture.read_bytes()).decode()


@dataclass(frozen=True)
class Section:
    """A study, or what needs none: what was made, judged and run."""

    name: str
    title: str
    paper: str
    claim: str
    pieces: list[Piece]
    judged: list[Judged]
    runs: list[dict[str, Any]]
    missing: str = ""  # how much is not measured, and the command that would


def piece(script: str, stem: str, results: Path) -> Piece:
    """Of the files STEM.png and STEM.md, as far as they are there."""
    title, _, rest = importlib.import_module(f"analysis.{script}").__doc__.strip().partition("\n")
    parts = (" ".join(part.split()) for part in rest.split("\n\n"))
    found = next((part for part in parts if "What to look for" in part), "")
    look_for = found[found.find("What to look for") :]
    picture, text = results / "figures" / f"{stem}.png", results / "tables" / f"{stem}.md"
    content = text.read_text().partition("\n")[2].strip() if text.exists() else ""
    return Piece(script, title, look_for, picture if picture.exists() else None, content)


def study(results: Results, judged: list[Judged]) -> Section:
    """The section of one study."""
    grid, pieces = results.grid, []
    for script in grid.analysis:
        own = script.partition("_")[2]
        plain = own in (grid.name, "rows")  # table_rows makes the table of a study without its own
        stem = results.name if plain else f"{own}.{results.name}"
        pieces.append(piece(script, stem, results.written))
    lacking = int(results.frame["value"].isna().sum())
    total = len(results.frame)
    missing = f"{lacking} of {total} measurements are missing: {results.command}" if lacking else ""
    judged = [one for one in judged if one.claim.grid == grid.name]
    return Section(
        grid.name, grid.title, grid.paper, grid.claim, pieces, judged, runs(results), missing
    )


def runs(results: Results) -> list[dict[str, Any]]:
    """A line for each run of a study: where it is, what it is, how long it took."""
    lines = []
    for run_id, of_run in results.frame.groupby("run", sort=False):
        first = of_run.iloc[0]
        record = Run(run_id, first["folder"]).provenance
        lines.append(
            {
                "id": run_id,
                "folder": first["folder"],
                "words": results.grid.cells[first["row"]].words,
                "seed": first["seed"],
                "state": first["state"],
                "seconds": training_seconds(first["folder"], record) if record else None,
                "commit": (record.get("commit") or "")[:10],
                "measured": f"{of_run['value'].notna().sum()} of {len(of_run)}",
            }
        )
    return lines


def about(found: list[Results]) -> list[tuple[str, str]]:
    """What was run: scale, data, seeds, code, machine and time."""
    frame = pd.concat([results.frame for results in found], ignore_index=True)
    folders = frame.drop_duplicates("run").set_index("run")["folder"]
    trained = {folder: Run("", folder).provenance for folder in folders}
    records = [record for record in trained.values() if record]
    frame = frame.drop_duplicates(["run", "measurement_id"])  # studies share them
    measured = frame[frame["value"].notna()]
    training = sum(training_seconds(*one) for one in trained.items())
    measuring = measured["seconds"].sum()
    hours = f"{training / 3600:.1f} of training, {measuring / 3600:.1f} of measuring"
    config, grid = frame["config"].iloc[0], found[0].grid
    machines = {f"{r.get('processor')}, {r.get('cores')} cores, {r.get('device')}" for r in records}
    commits = {c[:10] for c in measured["commit"].dropna()}
    lines = [
        ("scale", grid.scale),
        ("data", config.data.name),
        ("seeds", seeds_of({results.grid.name: results.grid.seeds for results in found})),
        ("runs", f"{len(records)} trained of {len(folders)}"),
        ("measurements", f"{len(measured)} of {len(frame)}"),
        ("hours, each on one core or device", hours),
        ("machine", "; ".join(sorted(machines)) or "none yet"),
        ("commits", ", ".join(sorted(commits)) or "none yet"),
    ]
    if measured["modified"].any():
        lines.append(("note", "some numbers come from code that differed from its commit"))
    return lines


def seeds_of(studies: dict[str, tuple[int, ...]]) -> str:
    """Those that most of the studies have, then those of the others with their names."""
    studies_of = {}
    for study, seeds in studies.items():
        studies_of.setdefault(tuple(sorted(seeds)), []).append(study)
    usual, *others = sorted(studies_of, key=lambda seeds: -len(studies_of[seeds]))
    more = [f"{', '.join(map(str, seeds))} in {', '.join(studies_of[seeds])}" for seeds in others]
    return "; ".join([", ".join(map(str, usual)), *more])


def sections(request: Request, judged: list[Judged]) -> tuple[list[Section], list[Results]]:
    """Formulas first, then every study, then what FD can be."""
    words = of_results(request.words)
    closed = Section(
        "formulas",
        "What follows from the schedules alone",
        "Figures 1, 3 and 5",
        "Exact, at any scale.",
        [piece(script, script.partition("_")[2], request.results) for script in OTHERS],
        [one for one in judged if not one.claim.grid],
        [],
    )
    found = [load(parse([*words, f"grid={name}"])) for name in STUDIES]
    fd = Section(
        "fd_range",
        "What the Frechet distance can be",
        "not in the paper",
        "The distance of real images from each other is the floor, that of noise the ceiling.",
        [piece("table_fd_range", f"fd_range.{request.scale}", request.results)],
        [],
        [],
    )
    studies = [study(results, judged) for results in found]
    paper = [section for section in studies if section.name not in EXTENSIONS]
    appendix = [
        replace(section, title=f"Appendix: {section.title}")
        for section in studies
        if section.name in EXTENSIONS
    ]
    return [closed, *paper, fd, *appendix], found


def as_html(text: str, level: int) -> str:
    """Markdown as HTML, its headings from `level` on."""
    # Without pictures: those of Markdown may be fetched from anywhere.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{int(token.tag[1]) - 2 + level}"
    return parser.renderer.render(tokens, parser.options, {})


def environment(folder: Path) -> jinja2.Environment:
    """Templates, and what they may call; links are relative to the report's folder."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=jinja2.select_autoescape(["html", "html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "html": lambda text, level: Markup(as_html(text, level)),
        "shown": shown,
        "claimed": claimed,
        "counted": counted,
        "rows": parts_table,
        "plain": plain,
        "without_html": lambda text: re.sub("<(?=[A-Za-z/!?])", "&lt;", text),
        "linked": lambda path: quote(Path(os.path.relpath(path, folder)).as_posix()),
    }
    found.globals |= {"SYMBOLS": SYMBOLS, "CLASSES": CLASSES, "WORDS": verdicts.WORDS}
    return found


def build(request: Request) -> list[Path]:
    """Writes the report of what there is, with the tables and figures that are drawn already."""
    judged = evaluate(request)
    found, studies = sections(request, judged)
    verdict_words = [one.verdict.word for one in judged]
    content = {
        "title": "What each choice in a diffusion model does",
        "about": about(studies),
        "judged": judged,
        "tally": tally(judged),
        "note": f"{NOTE} {borrowed(judged)}".strip(),
        "counts": {word: verdict_words.count(word) for word in verdicts.WORDS},
        "sections": found,
        "glance": markdown(table(judged)),
    }
    templates = environment(request.results)
    made = {
        suffix: templates.get_template(f"report.{suffix}.j2").render(content)
        for suffix in ("html", "md")
    }
    name = "REPORT" if request.scale == "laptop" else f"REPORT.{request.scale}"
    return write(request.results, name, made)


def main(words: list[str]) -> None:
    if any(word.startswith("grid=") for word in words):
        raise Refused("grid= is for the scripts of one study; the report is about all of them")
    request = parse(words, grid="single")
    for line in draw(words, request.results):
        print(line)
    say_written(build(request))


if __name__ == "__main__":
    start(main)
