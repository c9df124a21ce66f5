"""Table 4: a GAN and L_hybrid models of two sizes: distance, precision and recall, and their cost.

What to look for: recall, the share of the data that a model can draw. A GAN draws an image in one
evaluation of its network, and may leave kinds of images out.

    python analysis/table_gan_comparison.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import pandas as pd

from analysis.load import Results, measured, printed
from analysis.plots import COLUMN
from analysis.publish import publish
from analysis.samples import beside, drawn
from analysis.tables import number
from core.build import training_images
from core.command import start
from core.config import Housekeeping
from experiments.plan import training

PAPER = {
    "GAN": "BigGAN-deep",
    "small": "Improved Diffusion small",
    "large": "Improved Diffusion large",
}
COLUMNS = {"frechet": 2, "precision": 3, "recall": 3}  # digits
PRINTED = {
    "weights, M": "params_M",
    "FID": "fid50k",
    "precision": "precision_k5",
    "recall": "recall_k5",
}


def table(results: Results) -> pd.DataFrame:
    """A line for each model: cost, "mean ± s.e." of FD, precision and recall, and the paper's."""
    lines = []
    for row, words in enumerate(results.grid.rows):
        mine = results.of("fd")
        mine = mine[mine["row"] == row]
        config, settings = mine.iloc[0]["config"], mine.iloc[0]["settings"]
        images = training_images(config.data, results.request.housekeeping.data_path or None)
        form = images.channels, images.size, images.classes
        cost = training(config, form, Housekeeping())
        gan = config.objective.name == "gan"
        line = {
            "model": words["model"],
            "weights": f"{cost.parameters / 1e6:.2f} M",
            "training": f"{cost.flops / 1e15:.3g} PFLOP",
            "evaluations per image": str(1 if gan else settings.sampler.steps),
        }
        for key, digits in COLUMNS.items():
            column = results.fd_short if key == "frechet" else key
            values = pd.Series([r.get(key) for r in mine["result"]], dtype=float)
            line[column] = number(values.mean(), values.sem(), digits)
        for column, metric in PRINTED.items():
            where = {"table_or_figure": "table4", "model": PAPER[words["model"]]}
            line[f"paper's {column}"] = printed(**where, metric=metric)
        lines.append(line)
    return pd.DataFrame(lines)


def main(words: list[str]) -> None:
    results = measured(words, "fd", grid="gan_comparison")
    frame, rows = results.of("fd"), enumerate(results.grid.rows)
    shown = {words["model"]: drawn(results, row, "fd") for row, words in rows}
    settings, result = frame["settings"].iloc[0], frame["result"].dropna().iloc[-1]
    caption = (
        f"Class-conditional. {results.fd}, and precision and recall of {settings.neighbours} "
        f"nearest neighbours in the same features, of {settings.images} images, beside "
        f"{result.get('real_images', settings.images)} real ones for the latter two; mean and "
        "standard error over seeds. The GAN's weights and training are those of both networks; of "
        "operations a multiplication and an addition count as two. The paper's columns: ImageNet "
        "64, 50K images, Inception features, 250 steps. Images of the "
        "first seed, of the same classes in each place."
    )
    figure = beside(shown, 6, 1.5 * COLUMN)
    publish(results, figure, caption, [("A GAN and two diffusion models", table(results))])


if __name__ == "__main__":
    start(main)
