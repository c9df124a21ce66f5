"""The look of the suite's pictures, and how they reach the disk.

Pictures are made for one column of a two-column page, 3.4 inches, and are readable there. Each
carries its caption, so that what it was made from (scale, seeds, n) travels with it.
"""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from core.errors import Refused
from core.files import replacing

matplotlib.use("Agg")  # no script here opens a window, and clusters have no display

COLUMN = 3.4  # inches
DPI = 200
GREY = "#666666"
CAPTION_SIZE = 6  # points

plt.rcParams.update(
    {
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.linewidth": 0.6,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": "black",
        "ytick.labelcolor": "black",
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.4,
        "lines.markersize": 3.5,
        "figure.constrained_layout.use": True,
        "svg.fonttype": "none",  # text stays text: it can be searched, and diffs stay small
        "svg.hashsalt": "diffusion-ablations",  # ids in the SVG are random otherwise
    }
)

# seaborn's "colorblind" palette. The words are those of experiments/terms.yaml. Schedule and T
# decide on the line style, objectives on the colour and the marker, so that terms can be combined.
LINES: dict[str, dict[str, Any]] = {
    "linear": {"color": "#D55E00", "linestyle": "--"},
    "cosine": {"color": "#0173B2", "linestyle": "-"},
    "L_simple": {"color": "#DE8F05", "marker": "o"},
    "L_hybrid": {"color": "#029E73", "marker": "s"},
    "L_vlb": {"color": "#CC78BC", "marker": "^"},
    "1K": {"linestyle": ":"},
    "4K": {},
}


def line(*terms: str) -> dict[str, Any]:
    """How to draw the line of these terms, as in line("linear", "L_hybrid"); the last one wins.

    A term that has no look of its own changes nothing.
    """
    return {key: value for term in terms for key, value in LINES.get(term, {}).items()}


def subplots(height: float, width: float = COLUMN, **kwargs: Any) -> tuple[Figure, Any]:
    """plt.subplots by size in inches; keywords go to it."""
    return plt.subplots(figsize=(width, height), **kwargs)


def label(axes: Axes, x: float, y: float, text: str, color: Any, **kwargs: Any) -> None:
    """A direct label beside a line, in its colour, legible where it crosses the grid."""
    halo = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    axes.text(x, y, text, color=color, bbox=halo, **kwargs)


def label_short_logs(figure: Figure) -> None:
    """Numbers on logarithmic axes of less than two decades, where few powers of ten would be.

    Ticks that a script has placed itself are left alone.
    """
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            short = axis.get_scale() == "log" and limits[1] < 100 * limits[0]
            if short and isinstance(axis.get_major_locator(), LogLocator):
                ratio = limits[1] / limits[0]
                steps = (1, 1.5, 2, 3, 4, 5, 7) if ratio < 10 else (1, 2, 5)
                locator = LogLocator(subs=steps)
                if ratio < 2.5:  # where there would be two or three of these
                    locator = MaxNLocator(6, steps=(1, 2, 2.5, 5, 10))
                axis.set_major_locator(locator)
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())


def say_empty(figure: Figure) -> None:
    """Words in panels whose lines have no point yet; a logarithm of nothing cannot be drawn."""
    for axes in figure.axes:
        if axes.lines and not any(len(drawn.get_xdata()) for drawn in axes.lines):
            alone = [group.get_siblings(axes) == [axes] for group in _shared(axes)]
            axes.set(**{f"{x}scale": "linear" for x, own in zip("xy", alone) if own})
            axes.set(**{f"{x}ticks": [] for x, own in zip("xy", alone) if own})
            middle = {"ha": "center", "va": "center", "color": GREY}
            axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, **middle)


def _shared(axes: Axes) -> tuple[Any, Any]:
    return axes.get_shared_x_axes(), axes.get_shared_y_axes()


def _wrapped(text: str, width: float) -> list[str]:
    """Its lines, each no wider than `width` points in a caption's font; or of single letters."""
    width *= 0.97  # letters are moved to whole dots when they are drawn
    font, lines = FontProperties(size=CAPTION_SIZE), []
    for characters in range(int(2 * width / CAPTION_SIZE), 0, -1):
        lines = textwrap.wrap(text, characters)
        widths = (text_to_path.get_text_width_height_descent(line, font, False) for line in lines)
        if all(found[0] <= width for found in widths):
            break
    return lines


def save(figure: Figure, name: str, folder: Path, caption: str) -> list[Path]:
    """Writes NAME.png and NAME.svg with the caption below the figure; returns their paths.

    The same figure gives the same bytes. Each file appears whole or not at all. Closes the figure.
    Raises Refused when the folder cannot be written.
    """
    say_empty(figure)
    label_short_logs(figure)
    width, height = figure.get_size_inches()
    lines = _wrapped(caption, (width - 0.1) * 72)
    below = 0.04 + len(lines) * 0.1 + 0.04
    figure.text(
        0.05 / width,
        -0.04 / height,
        "\n".join(lines),
        size=CAPTION_SIZE,
        color=GREY,
        va="top",
        linespacing=1.2,
        parse_math=False,
    )
    # The caption hangs below the figure, whose own layout stays as the script made it.
    area = Bbox([[0, -below], [width, height]])
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    try:
        for path, metadata in zip(paths, ({"Software": None}, {"Date": None, "Creator": None})):
            with replacing(path, durable=False) as file:
                figure.savefig(
                    file, format=path.suffix[1:], dpi=DPI, bbox_inches=area, metadata=metadata
                )
    except OSError as error:
        raise Refused(f"'{folder}' cannot be written: {error.strerror or error}", 1) from error
    finally:
        plt.close(figure)
    return paths
