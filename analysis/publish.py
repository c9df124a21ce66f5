"""A study's figure with its numbers: printed, drawn and written."""

import pandas as pd
from matplotlib.figure import Figure

from analysis.load import Results
from analysis.plots import save
from analysis.script import say_written
from analysis.tables import in_words, markdown, plain, write


def publish(
    results: Results,
    figure: Figure,
    caption: str,
    tables: list[tuple[str, pd.DataFrame]],
    name: str = "",
) -> None:
    """Writes figures/NAME.png and .svg and tables/NAME.md, and prints the latter.

    NAME is the study's, its scale's and what the command line changed, after `name` if given. The
    notes that must stand under every number go below the caption.
    """
    name = f"{name}.{results.name}" if name else results.name
    caption = f"{caption} {in_words(results)}"
    grid = results.grid
    parts = [f"# {plain(grid.title)} ({plain(grid.paper)}), scale {grid.scale}"]
    for title, table in tables:
        parts += [f"## {title}", markdown(table)]
    text = "\n\n".join([*parts, caption]) + "\n"
    print(text)
    paths = save(figure, name, results.written / "figures", caption)
    say_written(paths + write(results.written / "tables", name, {"md": text}))
