"""The same networks with fixed and learned reverse variances: likelihood, and quality by steps.

What to look for: with few steps sigma^2 = beta loses most; with many the variance hardly matters.
The learned variance has the best likelihood of its network, which separates its effect from that of
training with L_hybrid.

    python analysis/table_variance_ablation.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd

from analysis import curves
from analysis.load import Results, load, published
from analysis.script import say_written
from analysis.tables import HOLE, latex, markdown, notes, plain, write
from core.command import start
from experiments.overrides import parse

VARIANCES = {"beta": "β", "beta_tilde": "β̃", "learned": "learned"}
OCM = {"beta": "fixed beta", "beta_tilde": "fixed beta-tilde"}


def table(results: Results) -> pd.DataFrame:
    """A line for each network and variance: "mean ± s.e." of the NLL and of FD by steps."""
    steps, lines = sorted(set(results.of("fd")["sampler.steps"])), []
    for row, words in enumerate(results.grid.rows):
        nll = curves.points(results, "nll", row, "variance")
        bits = dict(zip(nll["x"], curves.words_of(nll, 3)))
        for variance, shown in VARIANCES.items():
            if variance == "learned" and words["objective"] == "L_simple":
                continue  # it has none
            line = {"network": words["objective"], "variance": shown}
            line["NLL"] = bits.get(variance, HOLE)
            for K in steps:
                fd = curves.points(results, "fd", row, "variance", sampler__steps=K)
                ours = dict(zip(fd["x"], curves.words_of(fd, 2)))
                line[f"{results.fd_short}, {K:.0f} steps"] = ours.get(variance, HOLE)
            for K in steps:
                line[f"FID ImageNet 64, {K:.0f} steps"] = _others(words["objective"], variance, K)
            lines.append(line)
    return pd.DataFrame(lines)


def _others(objective: str, variance: str, steps: float) -> str:
    """Others' FID of the paper's released L_hybrid checkpoint with a fixed variance."""
    paper = published()
    mine = paper[
        (paper["table_or_figure"] == "OCM-ICLR2025-table5")
        & (paper["dataset"] == "imagenet64")
        & (paper["sampler"] == OCM.get(variance))
        & (paper["steps"].astype(float) == steps)
    ]
    return mine["value"].iloc[0] if len(mine) and objective == "L_hybrid" else HOLE


def main(words: list[str]) -> None:
    results = load(parse(words, grid="variance_ablation"))
    ours = table(results)
    title = f"{plain(results.grid.title)}, scale {results.grid.scale}"
    fd, nll = (results.of(name)["settings"].iloc[0] for name in ("fd", "nll"))
    legend = (
        f"Mean ± standard error over seeds. NLL in bits/dim of {nll.images} test images; "
        f"{results.fd} of {fd.images} images{'' if results.fd_short == 'FID' else ', not FID'}. "
        "The last columns: the paper's released L_hybrid checkpoint, measured by others (OCM, ICLR "
        "2025; FID of 50K samples), to compare in their order only."
    )
    text = "\n".join(
        [f"# {title}", "", markdown(ours), "", legend, ""] + [f"- {n}" for n in notes(results)]
    )
    print(text)
    contents = {"md": text + "\n", "csv": ours.to_csv(index=False)}
    contents["tex"] = latex(ours, f"{title}. {legend}")
    say_written(write(results.written / "tables", results.name, contents))


if __name__ == "__main__":
    start(main)
