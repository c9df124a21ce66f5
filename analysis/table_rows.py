"""Any study as a table: a line for each row, a column for each measurement.

What to look for: which row has the lowest value in which column, and whether the difference is
beyond the standard errors.

    python analysis/table_rows.py grid=NAME [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py; a grid of your own needs no script of its own.
"""

import pandas as pd

from analysis.load import Results, measured
from analysis.plots import COLUMN
from analysis.publish import publish
from analysis.samples import beside, drawn
from analysis.tables import HOLE, described, number, summary
from core.command import start

DIGITS = {"nll": 3, "frechet": 2}


def table(results: Results) -> pd.DataFrame:
    """Words of the rows, then "mean ± s.e." of each measurement at each of its points."""
    measured: dict[str, dict[int, str]] = {}
    for cell in results.grid.cells[: len(results.grid.rows)]:
        for asked in cell.measurements:
            measured.setdefault(asked.words, {})
    by = results.frame.groupby(["words", "row", "metric"], sort=False)
    for (words, row, metric), lines in by:
        if len(found := summary(lines, ["row"])) and found["n"][0]:
            text = number(found["mean"][0], found["se"][0], DIGITS.get(metric, 3))
            measured.setdefault(words, {})[row] = text
    lines = []
    for row, words in enumerate(results.grid.rows):
        of_row = {column: cells.get(row, HOLE) for column, cells in measured.items()}
        lines.append({key: str(value) for key, value in words.items()} | of_row)
    return pd.DataFrame(lines)


def main(words: list[str]) -> None:
    results = measured(words)
    cells = results.grid.cells[: len(results.grid.rows)]
    shown = {"\n".join(cell.named): drawn(results, row) for row, cell in enumerate(cells)}
    caption = f"{described(results)} Images of the first seed, from the same noise."
    figure = beside(shown, 5, COLUMN * max(1, len(shown) / 3))
    publish(results, figure, caption, [("Every row", table(results))])


if __name__ == "__main__":
    start(main)
