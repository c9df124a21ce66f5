"""Figure 6 in a training so long that importance sampling has set in.

What to look for: whether L_vlb with importance sampling becomes the lowest and the steadiest, and
what importance sampling gives L_hybrid as the training goes on; the paper saw it give nothing.

    python analysis/plot_longer_training.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

from analysis import curves
from analysis.load import Results, measured
from analysis.plot_objective_noise import LEARNING_CURVES, draw
from analysis.plots import subplots
from analysis.publish import publish
from core.command import start
from core.diffusion.timesteps import LossSecondMoment


def set_in(results: Results) -> str:
    """When the importance sampler begins to draw by importance, in words."""
    config = results.frame["config"].iloc[0]
    needed = LossSecondMoment(config.diffusion.T).length * config.diffusion.T
    share = needed / (config.optim.steps * config.optim.batch_size)
    return f"after {share:.2g} of the training" if share < 1 else "after the end of the training"


def main(words: list[str]) -> None:
    results = measured(words, "nll", grid="longer_training")
    figure, (left, right) = subplots(2.4, 6.8, ncols=2)
    found = draw(results, "nll", left, right)
    left.set(xlabel="training step")
    right.set(ylabel="NLL (bits/dim)")
    vlb, vlb_importance, hybrid, hybrid_importance = found.values()
    settings = results.of("nll")["settings"].iloc[0]
    caption = (
        f"Left: {LEARNING_CURVES} Right: bound on {settings.images} test images, mean and standard "
        f"error over seeds. Importance sampling sets in {set_in(results)}. NLL comes to stay below "
        f"that of uniform t: L_vlb {curves.crossing(vlb, vlb_importance)}, L_hybrid "
        f"{curves.crossing(hybrid, hybrid_importance)}; L_vlb's with importance sampling comes to "
        f"stay below L_hybrid's {curves.crossing(hybrid, vlb_importance)} (share of the training)."
    )
    ats = sorted(set(results.of("nll")["at"]))
    title = "NLL of test images in bits/dim by the share of the training done"
    publish(results, figure, caption, [(title, curves.table(found, ats, 3))])


if __name__ == "__main__":
    start(main)
