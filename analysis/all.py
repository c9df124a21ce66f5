"""Every table and figure, anew: those of each study that has results, and the closed-form ones.

    python analysis/all.py [--check] [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py, but for grid=. A study without a single measurement is
named with the command that would measure it, and the others are drawn all the same.

  --check    from the reference results alone, into a folder that is thrown away: fails unless
             every script runs, no measurement is missing, and each table and the report are as
             committed
"""

import importlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.progress import track

from analysis.load import REFERENCE, load
from core.command import start
from core.errors import Refused
from experiments import grid
from experiments.grid import expand
from experiments.overrides import parse

STUDIES = (*grid.STUDIES, *grid.EXTENSIONS)
# Scripts that need no training.
OTHERS = ("plot_alpha_bar", "plot_noised_images", "plot_variance_ratio")


def scripts(words: list[str], results: Path) -> list[tuple[str, list[str]]]:
    """Each script with its words."""
    of_studies = [
        (script, [f"grid={study}", *words])
        for study in STUDIES
        for script in expand(parse([f"grid={study}", *words])).analysis
    ]
    others = [(script, [f"results={results}"]) for script in OTHERS]
    return [*of_studies, ("claims", words), ("table_fd_range", words), *others]


def draw(words: list[str], results: Path) -> Iterator[str]:
    """Runs all scripts and yields a line for each that could not, and for what is missing."""
    console = Console(stderr=True)
    for script, its_words in track(scripts(words, results), "tables and figures", console=console):
        try:
            with redirect_stdout(io.StringIO()):
                importlib.import_module(f"analysis.{script}").main(its_words)
        except Refused as error:
            yield f"{script}: {error}"
    for study in STUDIES:
        found = load(parse([f"grid={study}", *words]))
        if missing := int(found.frame["value"].isna().sum()):
            total = len(found.frame)
            yield f"{study}: {missing} of {total} measurements are missing; {found.command}"


def differing(results: Path) -> Iterator[str]:
    """A line for each table, and for the report, that is not the committed one."""
    for path in [*sorted((results / "tables").glob("*.md")), *results.glob("REPORT*.md")]:
        committed = REFERENCE / path.relative_to(results)
        if not committed.exists():
            yield f"{path.name} is not among the committed ones"
        elif committed.read_text() != path.read_text():
            yield f"{path.name} is not what the committed results give: copy the new one"


def main(words: list[str]) -> None:
    check = "--check" in words
    words = [word for word in words if word != "--check"]
    if any(word.startswith("grid=") for word in words):
        raise Refused("grid= is for the scripts of one study; this one runs all of them")
    if not check:
        results = parse(words, grid="single").results
        for line in draw(words, results):
            print(line)
        print(f"tables and figures: {results / 'tables'}, {results / 'figures'}")
        return
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        # As if they were the user's own: the committed tables were written beside their runs.
        (results / "runs").symlink_to(REFERENCE / "runs")
        wrong = list(draw([*words, f"results={results}"], results))
        report = importlib.import_module("analysis.report")  # which draws by this module
        report.build(parse([*words, f"results={results}"], grid="single"))
        wrong += differing(results)
    if wrong:
        raise Refused(f"the reference results are not complete: {'; '.join(wrong)}", 1)
    print("every table and figure is there, and as committed")


if __name__ == "__main__":
    start(main)
