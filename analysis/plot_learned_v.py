"""The learned variance along the chain: v of eq. 15, between beta_tilde (0) and beta (1).

What to look for: v is not confined to [0, 1], and yet hardly leaves it; the paper did not see it
leave. Near t = T the two bounds agree and v means nothing; at small t it decides the likelihood.

    python analysis/plot_learned_v.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import numpy as np

from analysis import curves
from analysis.load import load, read_arrays
from analysis.plots import GREY, line, subplots
from analysis.publish import publish
from analysis.tables import number
from core.command import start
from core.errors import Refused
from experiments.overrides import parse


def quantiles(arrays: dict[str, np.ndarray], shares: list[float]) -> np.ndarray:
    """[len(shares), steps] values of v below which these shares of the pixels lie, per step."""
    counts, edges = arrays["histogram"], arrays["edges"]
    below = (
        np.concatenate([np.zeros((len(counts), 1)), counts.cumsum(1)], 1) / counts.sum(1)[:, None]
    )
    return np.array([[np.interp(share, one, edges) for one in below] for share in shares])


def main(words: list[str]) -> None:
    results = load(parse(words, grid="variance_ablation"))
    found = results.of("v").dropna(subset=["arrays"])
    if found.empty:
        raise Refused(f"nothing is measured yet: {results.command}", 1)
    seeds = [read_arrays(path, t=1, mean=1, outside=1, histogram=2) for path in found["arrays"]]
    joined = seeds[0] | {"histogram": sum(arrays["histogram"] for arrays in seeds)}
    T = found["config"].iloc[0].diffusion.T
    t, color = joined["t"] / T, line("L_hybrid")["color"]

    figure, (above, below) = subplots(3.8, nrows=2, sharex=True, height_ratios=[2, 1])
    low, high = quantiles(joined, [0.05, 0.95])
    # Between lines, not in a band: bands are for what the seeds do to a mean.
    above.plot(t, np.transpose([low, high]), color=color, linewidth=0.8, linestyle="--")
    curves.band(above, t, np.array([arrays["mean"] for arrays in seeds]), color=color)
    for bound in (0, 1):
        above.axhline(bound, color=GREY, linewidth=0.6, linestyle=":")
    above.set(ylabel="learned $v$")
    percent = np.array([100 * arrays["outside"] for arrays in seeds])
    curves.band(below, t, percent, color=color)
    below.set(xlabel="diffusion step $t/T$", ylabel="% outside [0, 1]", ylim=(0, None))

    outside = curves.over_seeds(np.array([100 * one["outside"] for one in found["result"]]))
    each = list(found["result"])
    low, high = min(one["low"] for one in each), max(one["high"] for one in each)
    spread = ", in a band of one standard error over seeds" if len(seeds) > 1 else ""
    caption = (
        f"v of the L_hybrid network (cosine, T = {T}), of all pixels of {each[0]['images']} test "
        f"images at {each[0]['timesteps']} steps: mean{spread}; between dashes the middle 90 %, "
        f"all seeds together. Outside [0, 1]: {number(*outside, 1)} % of all values, the furthest "
        f"{low:.2f} and {high:.2f}."
    )
    publish(results, figure, caption, [], "learned_v")


if __name__ == "__main__":
    start(main)
