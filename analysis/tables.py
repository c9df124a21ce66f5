"""Tables: mean and standard error over seeds, holes as holes; Markdown, CSV and LaTeX."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.load import Results, read_arrays
from core.config import Frechet
from core.errors import Refused, one_line
from experiments.files import write_bytes

HOLE = "—"


def summary(lines: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean, standard error and number of seeds of `value` for each group; in order of appearance.

    s.e. is NaN for fewer than two seeds; missing values do not count.
    """
    groups = lines.groupby(by, sort=False)["value"]
    return groups.agg(mean="mean", n="count", se="sem").reset_index()


def number(mean: float, se: float, digits: int) -> str:
    """ "3.53 ± 0.01", "3.53" for a single seed, a dash for none."""
    if not np.isfinite(mean):
        return HOLE
    text = f"{mean:.{digits}f}"
    return text if not np.isfinite(se) else f"{text} ± {se:.{digits}f}"


def paired(results: Results, measurement: str, row_a: int, row_b: int) -> dict | None:
    """Difference row_b - row_a of a measurement that keeps its per-image values, in its unit.

    Images, and the seeds of training and noise, are shared: the difference is taken image by image
    and averaged over the seeds that both rows have. `se_images` is the standard error over images
    of that average, `se_seeds` the one of the seeds' means (NaN for one seed). None without data.
    """
    lines = results.of(measurement)
    per_seed = []
    for seed in results.grid.seeds:
        pair = []
        for row in (row_a, row_b):
            line = lines[(lines["row"] == row) & (lines["seed"] == seed)]
            path = line["arrays"].iloc[0] if len(line) else None
            if path is not None:
                pair.append(_per_image(path))
        if len(pair) == 2:
            if len({len(each) for each in (*pair, *per_seed)}) > 1:
                raise Refused(f"{path} is of other images: delete it and its .json", 1)
            per_seed.append(pair[1] - pair[0])
    if not per_seed:
        return None
    each = np.stack(per_seed)
    means, over_images = each.mean(axis=1), each.mean(axis=0)
    n = len(means)
    return {
        "difference": float(means.mean()),
        "se_images": float(over_images.std(ddof=1) / len(over_images) ** 0.5),
        "se_seeds": float(means.std(ddof=1) / n**0.5) if n > 1 else float("nan"),
        "seeds": n,
        "images": each.shape[1],
    }


def _per_image(path: Path) -> np.ndarray:
    """[images] float64."""
    return read_arrays(path, per_image=1)["per_image"].astype(np.float64)


# What would begin HTML, a link or another cell; "<" before a blank or a digit is a "less than".
_OPENS = re.compile(r"[\\|`]|<(?=[A-Za-z/!?])|(?<=\])\((?!\))|&(?=#|[A-Za-z]+;)")


def plain(text: object) -> str:
    """Text that Markdown shows as it is and in its place: in a cell, a heading or a sentence.

    Words of rows, titles and provenance may come from somebody else's grid or results.
    """
    return _OPENS.sub(lambda found: f"\\{found[0]}", one_line(str(text).replace("\n", " ")))


def markdown(table: pd.DataFrame) -> str:
    """A table of strings as GitHub's Markdown, its columns padded."""
    columns = [plain(c) for c in table.columns]
    cells = [columns, *[[plain(x) for x in line] for line in table.itertuples(index=False)]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]

    def row(line: list[str]) -> str:
        return "| " + " | ".join(x.ljust(w) for x, w in zip(line, widths)) + " |"

    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([row(cells[0]), rule, *map(row, cells[1:])])


_BETA_TILDE = "\ue000"  # two characters, in the place of one
_LATEX = {
    **{"±": r"$\pm$", "—": "--", "\\": r"\textbackslash{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{c: rf"\{c}" for c in "_%&#${}"},
}


def latex(table: pd.DataFrame, caption: str) -> str:
    """A table of strings as LaTeX (booktabs)."""

    def escape(text: object) -> str:
        text = one_line(str(text).replace("\n", " ")).replace("β̃", _BETA_TILDE)
        return "".join(_LATEX.get(c, c) for c in text).replace(_BETA_TILDE, r"$\tilde\beta$")

    lines = [
        r"\begin{table}",
        rf"\caption{{{escape(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(escape(c) for c in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(escape(x) for x in line) + r" \\" for line in table.itertuples(index=False)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def notes(results: Results) -> list[str]:
    """What must stand under every table: source, scale, missing cells, mixed or modified code."""
    frame, lines = results.frame, []
    # What is said of networks is not said of GANs, whose settings are others.
    everything = list(frame["config"])
    configs = [c for c in everything if c.objective.name != "gan"] or everything
    config = configs[0]
    if results.is_reference and results.written != results.source:
        lines.append("Source: the reference results that come with the code (no runs of yours).")
    mult, seeds = ",".join(map(str, config.unet.channel_mult)), results.grid.seeds
    lengths = _each(f"{c.optim.steps} steps of {c.optim.batch_size} images" for c in configs)
    clip = config.optim.grad_clip
    lines.append(
        f"Scale `{results.grid.scale}`: {config.data.name}, UNet with C = "
        f"{_each(c.unet.base for c in configs)}, mult {mult}, {lengths}, "
        f"lr {_each(f'{c.optim.rate:g}' for c in configs)}, "
        f"EMA {_each(f'{rate:g}' for c in configs for rate in c.optim.ema)}"
        + (f", gradients clipped at {clip:g}" if clip else "")
        + f". Seeds: {', '.join(map(str, seeds))}."
    )
    if results.request.overrides:
        changed = ", ".join(f"{k}={v}" for k, v in results.request.overrides.items())
        lines.append(f"Changed on the command line: {changed}.")
    lines.append(_counted(results))
    commits = {c[:10] for c in frame["commit"].dropna()}
    if len(commits) > 1:
        lines.append(f"Measured by several commits: {', '.join(sorted(commits))}.")
    elif commits:
        lines.append(f"Commit {commits.pop()}.")
    if frame["modified"].any():
        lines.append("Some numbers come from code that differed from its commit.")
    seeds_of = frame.groupby(["row", "words"])["value"].count()
    seeds_of = seeds_of[seeds_of > 0]
    if len(seeds_of) and (fewest := seeds_of.min()) < len(seeds):
        some = f"{fewest}" if fewest == seeds_of.max() else f"{fewest} to {seeds_of.max()}"
        lines.append(f"Numbers are of {some} of these seeds, those that have them.")
    missing = int(frame["value"].isna().sum())
    if missing:
        lines.append(f"{missing} of {len(frame)} measurements are missing; `{results.command}`")
    return lines


def described(results: Results) -> str:
    """What a study's numbers are, whatever it measures."""
    return (
        f"NLL in bits/dim of test images, {results.fd} of drawn images to the training split. "
        "Mean and standard error over seeds."
    )


def _counted(results: Results) -> str:
    """Of each measurement the images, the sampler's steps, and a single number's own error."""
    parts = []
    for name, lines in results.frame.groupby("measurement", sort=False):
        part = f"{name}: {_each(s.images for s in lines['settings'])} images"
        samplers = [s.sampler for s in lines["settings"] if isinstance(s, Frechet)]
        if samplers:
            part += f" in {_each(sampler.steps or 'all' for sampler in samplers)} steps"
        error = lines["standard_error"].mean()
        parts.append(part + (f" (s.e. {error:.2g})" if np.isfinite(error) else ""))
    text = f"Measured: {'; '.join(parts)}."
    if "(s.e." in text:
        text += " In brackets the standard error over images of a single number, on average; "
        text += "that of a Frechet distance is by bootstrap."
    return text


def _each(values: Iterable[object]) -> str:
    """The different ones, in the order of the rows."""
    return ", ".join(map(str, dict.fromkeys(values)))


def in_words(results: Results) -> str:
    """The notes as running text, for captions."""
    return " ".join(note.replace("`", "") for note in notes(results))


def write(folder: Path, name: str, contents: dict[str, str]) -> list[Path]:
    """Writes folder/name.SUFFIX for each suffix, atomically; returns the paths."""
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{name}.{suffix}"
        write_bytes(path, content.encode(), durable=False)
        paths.append(path)
    return paths
