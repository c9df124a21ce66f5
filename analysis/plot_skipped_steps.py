"""Figure 4: image quality when the first part of the reverse process is left out.

What to look for: with the linear schedule the last steps of the chain are nearly pure noise, so
that leaving out a fifth of the reverse process costs little; the cosine schedule has no such steps.

    python analysis/plot_skipped_steps.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

from analysis import curves
from analysis.load import measured
from analysis.plots import line, subplots
from analysis.publish import publish
from core.command import start


def main(words: list[str]) -> None:
    results = measured(words, grid="skipped_steps")
    found = {
        words["schedule"]: curves.points(results, "fd", row, "sampler.skip")
        for row, words in enumerate(results.grid.rows)
    }
    figure, axes = subplots(2.4)
    for schedule, curve in found.items():
        curves.draw(axes, curve, schedule, marker="o", **line(schedule))
    axes.set(xlabel="share of the reverse process left out", ylabel=results.fd)
    axes.legend()
    settings = results.of("fd")["settings"].iloc[0]
    caption = (
        f"Images drawn without the first part of the reverse process: {results.fd} of "
        f"{settings.images} images in {settings.sampler.steps or 'all'} of the steps that are "
        "left, mean and standard error over seeds."
    )
    skips = sorted(set(results.of("fd")["sampler.skip"]))
    title = f"{results.fd_short} by the share of the reverse process left out"
    publish(results, figure, caption, [(title, curves.table(found, skips, 2))])


if __name__ == "__main__":
    start(main)
