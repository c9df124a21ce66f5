"""Tables 1 and 2: noise schedule and objective, ours beside the paper's.

What to look for: the likelihood (NLL, bits/dim, lower is better) improves with more steps, with the
cosine schedule and with learned variances; L_vlb has the paper's best likelihood and worst samples.
The last table has the differences in NLL, image by image, with their standard errors.

    python analysis/table_schedule_ablation.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd

from analysis.load import Results, load, published
from analysis.script import say_written
from analysis.tables import HOLE, latex, markdown, notes, number, paired, plain, summary, write
from core.command import start
from experiments.overrides import parse

GRID = "schedule_ablation"
PAPER = {"imagenet64": ("ImageNet 64", 200_000), "cifar10": ("CIFAR-10", 500_000)}
# Claims 8, 9 and 10: rows by number, as in the grid's file.
DIFFERENCES = [
    ("T: 1K → 4K (linear, L_simple)", 0, 1),
    ("L_simple → L_hybrid (linear, 4K)", 1, 2),
    ("L_simple → L_hybrid (cosine, 4K)", 3, 4),
    ("linear → cosine (L_simple, 4K)", 1, 3),
    ("linear → cosine (L_hybrid, 4K)", 2, 4),
    ("L_hybrid → L_vlb (cosine, 4K)", 4, 5),
]


def numbers(results: Results) -> pd.DataFrame:
    """One line per row of the paper's tables: mean, s.e. over seeds and n of both measurements."""
    lines = []
    for row, words in enumerate(results.grid.rows):
        line = dict(words)
        for name in ("nll", "fd"):
            frame = results.of(name)
            mine = summary(frame[frame["row"] == row], ["row"]).iloc[0]
            line |= {f"{name}_{c}": mine[c] for c in ("mean", "se", "n")}
        lines.append(line | paper_numbers(words))
    return pd.DataFrame(lines)


def table(results: Results) -> pd.DataFrame:
    """The same for reading: "mean ± s.e.", every entry a string."""
    frame = numbers(results)
    out = frame[list(results.grid.rows[0])].copy()
    for name, title, digits in (("nll", "NLL", 3), ("fd", results.fd_short, 2)):
        pairs = zip(frame[f"{name}_mean"], frame[f"{name}_se"])
        out[title] = [number(mean, se, digits) for mean, se in pairs]
    counts = zip(frame["nll_n"].astype(int), frame["fd_n"].astype(int))
    out["n"] = [f"{a}" if a == b else f"{a}/{b}" for a, b in counts]
    return out.join(frame[list(paper_numbers(results.grid.rows[0]))])


def paper_numbers(words: dict) -> dict[str, str]:
    """The published NLL and FID of both data sets for a row in the paper's words."""
    paper = published()
    T = {"1K": 1000, "4K": 4000}[words["T"]]
    objective = words["objective"].removeprefix("L_")
    mine = (paper["study"] == "ablation") & (paper["T"] == T)
    mine &= (paper["schedule"] == words["schedule"]) & (paper["objective"] == objective)
    out = {}
    for data, (title, iters) in PAPER.items():
        here = paper[mine & (paper["dataset"] == data) & (paper["iters"] == iters)]
        for metric, name in (("nll_bpd", "NLL"), ("fid", "FID")):
            value = here[here["metric"].str.startswith(metric)]["value"]
            out[f"{title} {name}"] = value.iloc[0] if len(value) else HOLE
    return out


def differences(results: Results) -> pd.DataFrame:
    """Paired differences in NLL for the paper's claims 8-10 and 13."""
    lines = []
    for title, a, b in DIFFERENCES:
        found = paired(results, "nll", a, b)
        if found is None:
            lines.append({"NLL, paired": title, "difference": HOLE, "z": HOLE, "over seeds": HOLE})
            continue
        lines.append(
            {
                "NLL, paired": title,
                "difference": f"{found['difference']:+.4f} ± {found['se_images']:.4f}",
                "z": f"{found['difference'] / found['se_images']:+.1f}",
                "over seeds": f"± {found['se_seeds']:.4f}" if found["seeds"] > 1 else "one seed",
            }
        )
    return pd.DataFrame(lines)


def caption(results: Results) -> str:
    """What the numbers are: images, estimator, features, steps."""
    parts = []
    for name, what in (("nll", "NLL: bits/dim"), ("fd", results.fd)):
        lines = results.of(name)
        done = [r for r in lines["result"] if r]
        settings = lines["settings"].iloc[0]
        text = f"{what}, {settings.images} images"
        if name == "nll":
            text += f" of the {settings.split} split"
            if done:
                text += (
                    f", {settings.estimator} estimator with {done[0]['evaluations']} evaluations"
                )
        else:
            steps = settings.sampler.steps
            text += f" drawn in {steps or 'all'} steps, against the {settings.reference} split"
        parts.append(text)
    return ". ".join(parts) + "."


def main(words: list[str]) -> None:
    results = load(parse(words, grid=GRID))
    ours, pairs = table(results), differences(results)
    title = f"{plain(results.grid.title)} ({plain(results.grid.paper)}), scale {results.grid.scale}"
    legend = (
        f"Ours: mean ± standard error over n seeds. {caption(results)} The paper's columns: "
        "ImageNet 64 after 200K iterations (FID of 10K samples), CIFAR-10 after 500K (50K "
        "samples); single runs."
    )
    if results.fd_short != "FID":
        legend += f" {results.fd} is not FID."
    pair_legend = (
        "Differences image by image, ± standard error over images; z is their ratio; "
        "the last column is the standard error over seeds."
    )
    text = "\n".join(
        [f"# {title}", "", markdown(ours), "", legend, "", markdown(pairs), "", pair_legend, ""]
        + [f"- {note}" for note in notes(results)]
    )
    contents = {
        "md": text + "\n",
        "csv": numbers(results).to_csv(index=False),
        "tex": latex(ours, f"{title}. {legend}"),
    }
    print(text)
    say_written(write(results.written / "tables", results.name, contents))


if __name__ == "__main__":
    start(main)
