"""Figure 11: two recipes of training, and what each way to draw images makes of them.

What to look for: in the paper, on LSUN bedrooms, DDIM draws better from the network trained with
the smaller batches and learning rate, L_hybrid from the other, and below 50 steps DDIM is the
better of the two.

    python analysis/plot_recipe.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

from analysis import curves
from analysis.load import measured
from analysis.plot_sampling_steps import NAMES, STYLES
from analysis.plots import subplots
from analysis.publish import publish
from core.command import start


def main(words: list[str]) -> None:
    results = measured(words, grid="recipe")
    figure, axes = subplots(2.6)
    recipes = list(dict.fromkeys(words["recipe"] for words in results.grid.rows))
    found, of_recipe = {}, {}
    for row, words in enumerate(results.grid.rows):
        way, recipe = row // len(recipes), words["recipe"]
        curve = found[f"{NAMES[way]}, {recipe}"] = curves.points(
            results, "fd", row, "sampler.steps"
        )
        dashes = "-" if recipe == recipes[-1] else "--"
        shown = NAMES[way] if recipe == recipes[-1] else None
        curves.draw(axes, curve, shown, **(STYLES[way] | {"ls": dashes}))
        optim = next(c.config.optim for c in results.grid.cells if c.row == words)
        of_recipe[recipe] = (
            f"{recipe}: batches of {optim.batch_size}, lr {optim.rate:g}, {optim.steps} steps"
        )
    axes.set(xscale="log", yscale="log", xlabel="sampling steps $K$", ylabel=results.fd)
    steps = sorted(set(results.of("fd")["sampler.steps"]))
    curves.number_points(axes, steps)
    axes.legend(fontsize=6)
    settings = results.of("fd")["settings"].iloc[0]
    caption = (
        f"{results.fd} of {settings.images} images against the number of sampling steps; mean "
        f"and standard error over seeds. Solid: {of_recipe[recipes[-1]]}; dashed: "
        f"{of_recipe[recipes[0]]}. The paper's recipes are batches of 64 at 2e-5 and of 128 at "
        "1e-4."
    )
    title = f"{results.fd_short} against sampling steps"
    publish(results, figure, caption, [(title, curves.table(found, steps, 2))])


if __name__ == "__main__":
    start(main)
