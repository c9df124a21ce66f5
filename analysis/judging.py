"""The paper's claims as data, and the verdict on each that measurements give.

claims.yaml says what is compared, quantities.py what its cells are, verdicts.py when a comparison
is decided.
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
from analysis.verdicts import Comparison, Verdict, holm, judge
from experiments.overrides import Request, of_results, parse

PATH = Path(__file__).with_name("claims.yaml")


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

    @property
    def verb(self) -> str:
        """What `command` does to the claim: measure it, or repeat that."""
        return "repeat" if self.verdict.word in verdicts.WORDS[:3] else "measure"

    @property
    def then(self) -> str:
        """What judges the claim once its study has run; nothing where `command` does itself."""
        words = self.command.partition(" grid=")[2].partition(" ")[2]
        own = f"python analysis/claims.py claim={self.claim.number}"
        return f"{own} {words}" if self.results else ""


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
    return tuple(Claim(**entry) for entry in yaml.safe_load(PATH.read_text(encoding="utf-8")))


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
    lacking = tuple(seed for seed in seeds if seed not in frame.index)
    return Comparison(values, **bounds, exact=results is None, lacking=lacking, **shown_as)


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
    found, lacking = judge(parts), sorted({seed for part in parts for seed in part.lacking})
    if lacking and found.word != verdicts.NOT_MEASURED:
        said = f"without seed{'s' * (len(lacking) > 1)} {', '.join(map(str, lacking))}"
        said += ", of which numbers are missing"
        found = replace(found, reason="; ".join(filter(None, (found.reason, said))))
    return found


def _at(results: Results, scale: str) -> str:
    """The command of a study at another scale; "": at the one that it has without scale=."""
    words = tuple(w for w in results.request.words if not w.startswith("scale="))
    words += (f"scale={scale}", "data_path=FOLDER") if scale else ()
    return replace(results, request=replace(results.request, words=words)).command


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
        judged = verdict(claim, results, request.scale)
        if not results:
            command = f"python analysis/claims.py claim={claim.number}"
        elif judged.word == verdicts.NOT_MEASURED and judged.reason != results.command:
            command = _at(results, "")  # which leaves nothing out
        elif judged.word == verdicts.ELSEWHERE:
            command = _at(results, next(name for e in claim.effects for name in e.get("only", ())))
        else:
            command = results.command
        found.append((claim, judged, command, results))
    words = holm([judged for _, judged, _, _ in found])
    return [Judged(*one[:2], word, *one[2:]) for one, word in zip(found, words)]
