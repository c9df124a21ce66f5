"""A verdict on each of the paper's claims, from the measurements of one scale.

    python analysis/claims.py [claim=8] [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

  claim=8    one claim alone, with every comparison that it rests on

takes the same words as experiments/run.py, but for grid=. What is compared, and how large an effect
counts, stands in analysis/claims.yaml. What to look for: `holds` and `fails` have the whole 95 %
interval over seeds on one side of the margin, `undecided` has not; the last column is the verdict
after Holm's correction for all claims that were tested together.
"""

import itertools
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis import verdicts
from analysis.load import Results, load
from analysis.quantities import NoSuchPoint, value
from analysis.script import run, say_written
from analysis.tables import HOLE, markdown, write
from analysis.verdicts import Comparison, Verdict, holm, judge
from core.errors import Refused
from experiments.overrides import Request, of_results, parse

PATH = Path(__file__).with_name("claims.yaml")
NOTE = (
    "Intervals are over trainings: the images that are measured on, and the noise that images are "
    "drawn from, are the same for all seeds."
)


@dataclass(frozen=True)
class Claim:
    """One claim as in claims.yaml, whose head explains the fields."""

    number: int
    claim: str
    where: str
    cells: dict[str, dict[str, Any]]
    effects: list[dict[str, Any]]
    grid: str = ""
    published: str = ""
    each: dict[str, list] = field(default_factory=dict)
    why: str = ""
    fails: str = ""

    def repeated(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Each effect, with the cells it is made of, for each value of the names in `each`."""
        found, points = [], itertools.product(*self.each.values())
        for first, point in zip(itertools.chain([True], itertools.repeat(False)), points):
            names = dict(zip(self.each, point))
            cells = {name: _filled(cell, names) for name, cell in self.cells.items()}
            found += [
                (_filled(effect, names), cells)
                for effect in self.effects
                if first or not effect.get("once")
            ]
        return found


@dataclass(frozen=True)
class Judged:
    """A claim, the verdict on it at a scale, and what repeats it.

    corrected: the verdict after Holm's correction. command: of the study. results: of it, if any.
    """

    claim: Claim
    verdict: Verdict
    corrected: str
    command: str
    results: Results | None


def _filled(content: Any, names: dict[str, Any]) -> Any:
    """With the values of $names; a string that is nothing but one becomes the value itself."""
    if isinstance(content, dict):
        return {key: _filled(item, names) for key, item in content.items()}
    if isinstance(content, list):
        return [_filled(item, names) for item in content]
    if not isinstance(content, str):
        return content
    whole = content.removeprefix("$")
    return (
        names[whole] if whole in names and whole != content else Template(content).substitute(names)
    )


@cache
def claims() -> tuple[Claim, ...]:
    """All of claims.yaml."""
    return tuple(Claim(**entry) for entry in yaml.safe_load(PATH.read_text()))


def compare(effect: dict[str, Any], cells: dict[str, dict], results: Results | None) -> Comparison:
    """The comparison of one effect, over the seeds that have all its cells.

    Its values are empty where none has. Raises NoSuchPoint.
    """
    kind = "ratio" if "ratio" in effect else "difference"
    seeds = (0,) if results is None else results.grid.seeds
    used = {name: cell for name, cell in cells.items() if name in _names(effect[kind])}
    frame = pd.DataFrame(
        {name: [value(results, cell, seed) for seed in seeds] for name, cell in used.items()},
        index=pd.Index(seeds, name="seed"),
    ).dropna()
    values = frame.eval(effect[kind], engine="python").to_numpy(float)
    bounds = {
        "low": effect.get("above", -np.inf),
        "high": effect.get("below", np.inf),
    }
    if "within" in effect:
        w = effect["within"]
        bounds = {"low": 1 / w if kind == "ratio" else -w, "high": w}
    if kind == "ratio":
        with np.errstate(divide="ignore"):
            values, bounds = (
                np.log(values),
                {k: float(np.log(b)) for k, b in bounds.items() if b > 0},
            )
    shown_as = {"name": effect["name"], "unit": effect.get("unit", ""), "ratio": kind == "ratio"}
    ties = effect.get("ties", False)
    return Comparison(values, **bounds, exact=results is None, ties=ties, **shown_as)


def _names(expression: str) -> set[str]:
    """The cells of an expression."""
    return set("".join(c if c.isidentifier() or c.isdigit() else " " for c in expression).split())


def verdict(claim: Claim, results: Results | None, scale: str) -> Verdict:
    """Of one claim, from the study that decides it; None for a formula."""
    effects = [
        (effect, cells)
        for effect, cells in claim.repeated()
        if scale in effect.get("only", [scale])
    ]
    if not effects:
        return Verdict(verdicts.ELSEWHERE, reason=claim.why)
    try:
        parts = [compare(effect, cells, results) for effect, cells in effects]
    except NoSuchPoint as missing:
        return Verdict(verdicts.NOT_MEASURED, reason=str(missing))
    if any(len(part.values) == 0 for part in parts):
        return Verdict(verdicts.NOT_MEASURED, reason=results.command)
    return judge(parts)


def evaluate(
    request: Request, numbers: list[int] | None = None, fall_back: bool = True
) -> list[Judged]:
    """All claims, or those of these numbers, judged by what one command line's results hold.

    fall_back: studies without a run of the user's are judged by the reference results.
    """
    studies: dict[str, Results | None] = {"": None}
    found = []
    for claim in claims():
        if numbers is not None and claim.number not in numbers:
            continue
        if claim.grid not in studies:
            words = [*of_results(request.words), f"grid={claim.grid}"]
            studies[claim.grid] = load(parse(words), fall_back)
        results = studies[claim.grid]
        command = results.command if results else f"python analysis/claims.py claim={claim.number}"
        found.append((claim, verdict(claim, results, request.scale), command, results))
    words = holm([judged for _, judged, _, _ in found])
    return [Judged(*one[:2], word, *one[2:]) for one, word in zip(found, words)]


def shown(part: Comparison | None, digits: int = 3) -> str:
    """An effect with its interval, a ratio as a ratio."""
    if part is None:
        return HOLE
    back = np.exp if part.ratio else (lambda x: x)
    text = f"{back(part.effect):.{digits}g}"
    low, high = part.interval
    if np.isfinite(low) and not part.exact:
        text += f" ({back(low):.{digits}g} to {back(high):.{digits}g})"
    return f"{text} {part.unit}".rstrip()


def claimed(part: Comparison) -> str:
    """What is claimed of an effect: "> 0.01", "< 1.03", "0.909 to 1.1"."""
    back = np.exp if part.ratio else (lambda x: x)
    low, high = f"{back(part.low):.3g}", f"{back(part.high):.3g}"
    if np.isinf(part.high):
        return f"> {low}"
    return f"< {high}" if np.isinf(part.low) else f"{low} to {high}"


def counted(part: Comparison | None) -> str:
    """Number of seeds, or that there are none to count."""
    return HOLE if part is None else "exact" if part.exact else str(len(part.values))


def table(judged: list[Judged]) -> pd.DataFrame:
    """The claims at a glance."""
    lines = []
    for one in judged:
        main = one.verdict.main
        lines.append(
            {
                "#": one.claim.number,
                "claim": one.claim.claim.strip(),
                "where": one.claim.where,
                "verdict": one.verdict.word,
                "effect (95 % interval)": shown(main),
                "claimed": claimed(main) if main else HOLE,
                "n": counted(main),
                "after Holm": one.corrected,
            }
        )
    return pd.DataFrame(lines)


def brief(judged: list[Judged]) -> pd.DataFrame:
    """The claims at a glance, for narrow places."""
    return table(judged)[["#", "claim", "verdict", "effect (95 % interval)", "n"]]


def parts_table(one: Judged) -> pd.DataFrame:
    """Every comparison that a verdict rests on."""
    return pd.DataFrame(
        [
            {
                "comparison": part.name,
                "effect (95 % interval)": shown(part),
                "claimed": claimed(part),
                "n": counted(part),
                "p": HOLE if part.exact else f"{min(part.p_holds(), part.p_fails()):.2g}",
            }
            for part in one.verdict.parts
        ]
    )


def tally(judged: list[Judged]) -> str:
    """How many have which verdict, in one line."""
    words = [one.verdict.word for one in judged]
    counted = ", ".join(f"{words.count(word)} {word}" for word in verdicts.WORDS if word in words)
    after = [one.corrected for one in judged]
    left = " and ".join(f"{after.count(word)} {word}" for word in (verdicts.HOLDS, verdicts.FAILS))
    return f"{counted}; after Holm's correction {left}"


def borrowed(judged: list[Judged]) -> str:
    """A sentence on the claims that the reference decides for want of the user's runs, if any."""
    theirs = [
        str(one.claim.number)
        for one in judged
        if one.results and one.results.is_reference and one.results.written != one.results.source
    ]
    if not theirs:
        return ""
    return f"Judged by the reference results that come with the code: claims {', '.join(theirs)}."


def main(words: list[str]) -> None:
    wanted = [word.partition("=")[2] for word in words if word.startswith("claim=")]
    words = [word for word in words if not word.startswith("claim=")]
    if any(word.startswith("grid=") for word in words):
        raise Refused("grid= is for the scripts of one study; the claims name theirs")
    request = parse(words, grid="single")
    if not wanted:
        judged = evaluate(request)
        text = f"# The paper's claims, scale {request.scale}\n\n{markdown(table(judged))}\n\n"
        text += f"{tally(judged)}. {NOTE} {borrowed(judged)}".rstrip() + "\n"
        print(text)
        name = replace(request, grid="claims").name
        say_written(write(request.results / "tables", name, {"md": text}))
        return
    there = {str(claim.number): claim.number for claim in claims()}
    if unknown := [number for number in wanted if number not in there]:
        raise Refused(f"there is no claim {unknown[0]}: they are 1 to {len(there)}")
    for one in evaluate(request, [there[number] for number in wanted]):
        print(f"# Claim {one.claim.number} ({one.claim.where}): {one.claim.claim.strip()}\n")
        print(f"{one.verdict.word}{': ' if one.verdict.reason else ''}{one.verdict.reason}\n")
        if one.verdict.parts:
            print(f"{markdown(parts_table(one))}\n")
        if one.claim.published:
            print(f"The paper: {one.claim.published}.")
        print(f"To repeat it: {one.command}")


if __name__ == "__main__":
    run(main)
