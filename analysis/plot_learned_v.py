"""The learned variance along the chain: v of eq. 15, between beta_tilde (0) and beta (1).

What to look for: v is not confined to [0, 1], and yet hardly leaves it; the paper did not see it
leave. Near t = T the two bounds agree and v means nothing; at small t it decides the likelihood.

    python analysis/plot_learned_v.py [scale=NAME] [seeds=[0,1,2]] [results=FOLDER] ...

takes the same words as experiments/run.py.
"""

import numpy as np

from analysis.load import load, read_arrays
from analysis.plots import GREY, line, subplots
from analysis.publish import publish
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
    per_seed = [read_arrays(path, t=1, mean=1, outside=1, histogram=2) for path in found["arrays"]]
    joined = dict(per_seed[0])
    for key in ("mean", "outside"):
        joined[key] = np.mean([arrays[key] for arrays in per_seed], axis=0)
    joined["histogram"] = sum(arrays["histogram"] for arrays in per_seed)
    T = found["config"].iloc[0].diffusion.T
    t, color = joined["t"] / T, line("L_hybrid")["color"]

    figure, (above, below) = subplots(3.8, nrows=2, sharex=True, height_ratios=[2, 1])
    low, high = quantiles(joined, [0.05, 0.95])
    above.fill_between(t, low, high, color=color, alpha=0.25, linewidth=0)
    above.plot(t, joined["mean"], color=color)
    for bound in (0, 1):
        above.axhline(bound, color=GREY, linewidth=0.6, linestyle=":")
    above.set(ylabel="learned $v$")
    below.plot(t, 100 * joined["outside"], color=color)
    below.set(xlabel="diffusion step $t/T$", ylabel="% outside [0, 1]", ylim=(0, None))

    outside = np.mean([result["outside"] for result in found["result"]])
    each = list(found["result"])
    low, high = min(one["low"] for one in each), max(one["high"] for one in each)
    caption = (
        f"v of the L_hybrid network (cosine, T = {T}): mean and the middle 90 % of all pixels of "
        f"{each[0]['images']} test images at {each[0]['timesteps']} steps, all seeds together. "
        f"Outside [0, 1]: {100 * outside:.1f} % of all values, the furthest {low:.2f} and "
        f"{high:.2f}."
    )
    publish(results, figure, caption, [], "learned_v")


if __name__ == "__main__":
    start(main)
