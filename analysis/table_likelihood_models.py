"""Table 3: likelihoods of generative models, in bits/dim, and our best beside them.

What to look for: where the paper's model stands among the others. Ours stands in a column of its
own, of another data set unless the scale is the paper's.

    python analysis/table_likelihood_models.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd

from analysis import curves
from analysis.load import Results, load, published
from analysis.script import say_written
from analysis.tables import HOLE, latex, markdown, notes, write
from core.command import start
from experiments.overrides import parse

DATA = {"imagenet64": "ImageNet 64", "cifar10": "CIFAR-10"}  # the paper's; also names of scales


def best(results: Results) -> tuple[str, str]:
    """The row with the lowest mean NLL, and "mean ± s.e."; dashes before there is one."""
    rows = enumerate(results.grid.rows)
    found = {
        " ".join(w.values()): curves.points(results, "nll", row, "measurement") for row, w in rows
    }
    found = {name: points for name, points in found.items() if len(points)}
    if not found:
        return HOLE, HOLE
    name = min(found, key=lambda name: found[name]["mean"].iloc[0])
    return name, curves.words_of(found[name], 3)[0]


def table(results: Results) -> pd.DataFrame:
    """A line for each model in the paper's order, and one for ours."""
    paper = published()
    paper = paper[paper["table_or_figure"] == "table3"]
    lines = []
    for model in paper["model"].unique():
        mine = paper[paper["model"] == model]
        values = dict(zip(mine["dataset"], mine["value"]))
        lines.append({"model": model} | {DATA[key]: values.get(key, HOLE) for key in DATA})
    name, value = best(results)
    own = f"scale {results.grid.scale}, not comparable"
    column = own if results.request.overrides else DATA.get(results.grid.scale, own)
    ours = pd.DataFrame([*lines, {"model": f"ours, {name}", column: value}])
    return ours.fillna(HOLE)


def main(words: list[str]) -> None:
    results = load(parse(words, grid="schedule_ablation"))
    ours, title = table(results), f"Likelihoods (Table 3), scale {results.grid.scale}"
    n = results.of("nll")["settings"].iloc[0].images
    legend = (
        "Bits/dim of test images; of the paper's rows as printed there. Ours: the best row of "
        f"schedule_ablation on {n} images, mean ± standard error over seeds."
    )
    text = "\n".join([f"# {title}", "", markdown(ours), "", legend, ""])
    text += "\n".join(f"- {note}" for note in notes(results)) + "\n"
    print(text)
    contents = {"md": text, "tex": latex(ours, f"{title}. {legend}")}
    name = f"likelihood_models.{results.name}"
    say_written(write(results.written / "tables", name, contents))


if __name__ == "__main__":
    start(main)
