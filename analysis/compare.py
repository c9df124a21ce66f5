"""Which numbers moved beyond their error, and which verdicts changed, from one result to another.

    python analysis/compare.py A B [scale=NAME] [seeds=[0,1,2]]

A and B: each the word `reference`, a results folder, the name of a scale (of results/), or a
commit, whose reference results are meant. As in

    python analysis/compare.py reference results     # what a change or a row of yours did
    python analysis/compare.py laptop workstation    # what only the scale changes
    python analysis/compare.py HEAD~20 reference     # what became of the published numbers

What to look for: verdicts first. A number is listed when the 95 % interval of its difference leaves
out zero: paired over the seeds that both have, over images where that is a single one, and over
independent seeds where they have none in common. One in twenty of all numbers does so by chance.
"""

import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from scipy import stats

from analysis.all import STUDIES
from analysis.claims import shown
from analysis.judging import Judged, evaluate
from analysis.load import REFERENCE, load, read_arrays
from analysis.script import RESULTS
from analysis.tables import HOLE, markdown
from analysis.verdicts import LEVEL
from core.command import start
from core.errors import Refused
from experiments.grid import available
from experiments.overrides import parse

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Side:
    """One of the two: its name, and the words that lead to its results."""

    name: str
    words: list[str]


def side(name: str, words: list[str], scratch: Path) -> Side:
    """What a name on the command line means; a commit's results are written below `scratch`."""
    if name == "reference":
        return Side(name, [*words, f"results={REFERENCE}"])
    if (Path(name) / "runs").is_dir():
        return Side(name, [*words, f"results={name}"])
    if name in available("scales"):
        others = [word for word in words if not word.startswith("scale=")]
        return Side(name, [*others, f"scale={name}", f"results={RESULTS}"])
    inside = REFERENCE.relative_to(ROOT)
    done = subprocess.run(
        ["git", "-C", ROOT, "archive", name, "--", f"{inside}/runs"], capture_output=True
    )
    if done.returncode:
        raise Refused(
            f"'{name}' is none of: reference, a results folder with runs/, a scale, a commit with "
            "reference results"
        )
    try:
        with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
            archive.extractall(scratch / name.replace("/", "_"), filter="data")
    except tarfile.TarError as error:  # a link that leads out, for one
        raise Refused(f"the results of '{name}' are not taken: {error}") from error
    return Side(name, [*words, f"results={scratch / name.replace('/', '_') / inside}"])


def numbers(words: list[str], study: str) -> pd.DataFrame:
    """A study's measurements with a column `key`: row, measurement and axes in words."""
    results = load(parse([*words, f"grid={study}"]), fall_back=False)
    frame, cells = results.frame, results.grid.cells
    keys = [f"{cells[row].words}: {asked}" for row, asked in zip(frame["row"], frame["words"])]
    return frame.assign(key=keys)[frame["value"].notna()]


def _new(frame: pd.DataFrame, seen: set[tuple]) -> pd.DataFrame:
    """Those of the measurements that no study before has, and henceforth seen."""
    which = list(zip(frame["run"], frame["measurement_id"]))
    frame = frame[np.array([one not in seen for one in which], dtype=bool)]
    seen |= set(which)
    return frame


def comparable(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The lines of the seeds that both have, in one order; all lines where they share no seed."""
    both = sorted(set(a["seed"]) & set(b["seed"]))
    return tuple(x.set_index("seed", drop=False).loc[both] for x in (a, b)) if both else (a, b)


def moved(a: pd.DataFrame, b: pd.DataFrame) -> tuple[float, float] | None:
    """Of one number: the difference b - a and the half-width of its interval; None: no error known.

    a, b: its lines, one for each seed.
    """
    a, b = comparable(a, b)
    x, y = (lines["value"].to_numpy(float) for lines in (a, b))
    difference, shared = float(y.mean() - x.mean()), a["seed"].iloc[0] == b["seed"].iloc[0]
    if len(x) > 1 and shared:
        each = y - x
        return _half(difference, stats.ttest_1samp(each, 0.0)) if np.ptp(each) else (each[0], 0.0)
    if len(x) > 1 and len(y) > 1:
        return _half(difference, stats.ttest_ind(y, x, equal_var=False))
    error = _over_images(a.iloc[0], b.iloc[0]) if shared else np.nan
    return None if np.isnan(error) else (difference, float(stats.norm.ppf((1 + LEVEL) / 2)) * error)


def _half(difference: float, test) -> tuple[float, float]:
    interval = test.confidence_interval(LEVEL)
    return difference, float(interval.high - interval.low) / 2


def _over_images(a: pd.Series, b: pd.Series) -> float:
    """Standard error over images of a difference, image by image where both have the same."""
    if a["arrays"] is not None and b["arrays"] is not None:
        one, other = (read_arrays(line["arrays"]).get("per_image") for line in (a, b))
        if one is not None and other is not None and len(one) == len(other) > 1:
            return float((other - one).std(ddof=1) / len(one) ** 0.5)
    return float(np.hypot(a["standard_error"], b["standard_error"]))


def compared(a: Side, b: Side) -> tuple[pd.DataFrame, dict[str, int]]:
    """The numbers that moved, those of the largest ratio to their error first; and counts."""
    lines, counts = [], {"both": 0, "moved": 0, "only in A": 0, "only in B": 0, "no error": 0}
    console, seen = Console(stderr=True), (set(), set())
    for study in track(STUDIES, "numbers", console=console):
        mine, theirs = (_new(numbers(s.words, study), of) for s, of in zip((a, b), seen))
        counts["only in A"] += len(set(mine["key"]) - set(theirs["key"]))
        counts["only in B"] += len(set(theirs["key"]) - set(mine["key"]))
        for key in dict.fromkeys(mine["key"]):
            of_a, of_b = mine[mine["key"] == key], theirs[theirs["key"] == key]
            if of_b.empty:
                continue
            of_a, of_b = comparable(of_a, of_b)
            counts["both"] += 1
            found = moved(of_a, of_b)
            counts["no error"] += found is None
            if found is None or abs(found[0]) <= found[1]:
                continue
            counts["moved"] += 1
            difference, half = found
            lines.append(
                {
                    "study": study,
                    "number": key,
                    "A": f"{of_a['value'].mean():.4g}",
                    "B": f"{of_b['value'].mean():.4g}",
                    "B - A": f"{difference:+.2g} ± {half:.1g}",
                    "seeds": f"{len(of_a)}, {len(of_b)}",
                    "_": abs(difference) / half if half else np.inf,
                }
            )
    frame = pd.DataFrame(lines)
    if len(frame):
        frame = frame.sort_values("_", ascending=False, kind="stable").drop(columns="_")
    return frame, counts


def changed(a: list[Judged], b: list[Judged]) -> pd.DataFrame:
    """The claims whose verdict is another."""
    lines = [
        {
            "#": one.claim.number,
            "claim": one.claim.claim.strip(),
            "A": one.verdict.word,
            "B": other.verdict.word,
            "effect, A": shown(one.verdict.main),
            "effect, B": shown(other.verdict.main),
        }
        for one, other in zip(a, b)
        if one.verdict.word != other.verdict.word
    ]
    return pd.DataFrame(lines)


def main(words: list[str]) -> None:
    names = [word for word in words if "=" not in word]
    if len(names) != 2:
        raise Refused("two results are compared, as in: reference results; --help tells more")
    keys = [word for word in words if "=" in word]
    if any(word.partition("=")[0] in ("grid", "results") for word in keys):
        raise Refused("all studies are compared, and the two results are named without results=")
    with tempfile.TemporaryDirectory() as folder:
        a, b = (side(name, keys, Path(folder)) for name in names)
        judged = [evaluate(parse(s.words, grid="single"), fall_back=False) for s in (a, b)]
        verdicts, (table, counts) = changed(*judged), compared(a, b)
    print(f"# A: {a.name}, B: {b.name}\n")
    print(f"## Verdicts that changed: {len(verdicts)} of {len(judged[0])}\n")
    print(markdown(verdicts) + "\n" if len(verdicts) else f"{HOLE}\n")
    print(f"## Numbers that moved beyond their error: {counts['moved']} of {counts['both']}\n")
    if len(table):
        print(markdown(table) + "\n")
    if not counts["both"]:
        print("Nothing is in both: their runs have other configurations, or there are none.")
    expected = (1 - LEVEL) * counts["both"]
    print(
        f"About {expected:.0f} would by chance. Only in A: {counts['only in A']}; only in B: "
        f"{counts['only in B']}; without a known error: {counts['no error']}."
    )


if __name__ == "__main__":
    start(main)
