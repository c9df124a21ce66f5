"""A verdict on each of the paper's claims, from the measurements of one scale.

    python analysis/claims.py [claim=8] [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

  claim=8    one claim alone, with every comparison that it rests on

takes the same words as experiments/run.py, but for grid=. What is compared, and how large an effect
counts, stands in analysis/claims.yaml. What to look for: `holds` and `fails` have the whole 95 %
interval over seeds on one side of the margin, `undecided` has not; the last column is the verdict
after Holm's correction for all claims that were tested together.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis import verdicts
from analysis.judging import Judged, claims, evaluate
from analysis.script import say_written
from analysis.tables import HOLE, markdown, write
from analysis.verdicts import Comparison
from core.command import start
from core.errors import Refused
from experiments.overrides import parse

NOTE = (
    "Intervals are over seeds, each with a training and noise of its own; the test images are the "
    "same for all."
)


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
        print(f"To {one.verb} it: {one.command}")
        if one.then:
            print(f"and then:     {one.then}")


if __name__ == "__main__":
    start(main)
