"""What a network makes of its freedom in the variance: v of eq. 15, along the chain.

v = 0 is sigma^2 = beta_tilde, v = 1 is sigma^2 = beta. Nothing keeps v within [0, 1]; the paper did
not see it leave.
"""

import numpy as np

from core.chains import training_chain
from core.config import LearnedVariance
from core.data.images import Images
from core.diffusion.process import Diffusion
from core.measurements.along import along_chain
from core.measurements.result import Result, batches
from core.parts import Arrays, Report, Work, compute
from core.randomness import ImageNoise
from core.trained import Trained

EDGES = np.linspace(-0.5, 1.5, 201)  # of the histograms; what lies outside counts at the ends


def measure_learned_v(
    trained: Trained, settings: LearnedVariance, images: Images, work: Work
) -> Result | None:
    """Mean, extremes and histogram of v at each of settings.timesteps steps; share outside [0, 1].

    Over the pixels of the first of `images`, noised by q(x_t | x_0).
    """
    T = trained.config.diffusion.T
    steps = np.unique(np.rint(np.linspace(1, T, min(settings.timesteps, T))).astype(np.int64))
    diffusion = Diffusion(training_chain(trained.config.diffusion), trained.device)

    def part(which: range, report: Report) -> Arrays:
        sums = {name: np.zeros(len(steps)) for name in ("sum", "below", "above", "count")}
        low, high = np.full(len(steps), np.inf), np.full(len(steps), -np.inf)
        counts = np.zeros((len(steps), len(EDGES) - 1), dtype=np.int64)
        for chosen in batches(which, work.housekeeping.eval_batch):
            noise = ImageNoise(chosen, trained.shape, settings.seed, "v eps")
            along = along_chain(trained, diffusion, steps, images, chosen, noise)
            for i, at in enumerate(along):
                v = at.prediction.v.double().cpu().numpy().ravel()
                sums["sum"][i] += v.sum()
                sums["below"][i] += (v < 0).sum()
                sums["above"][i] += (v > 1).sum()
                sums["count"][i] += v.size
                low[i], high[i] = min(low[i], v.min()), max(high[i], v.max())
                counts[i] += np.histogram(v.clip(EDGES[0], EDGES[-1]), EDGES)[0]
                of_batch = len(chosen) * (i + 1) / len(steps)
                report((chosen.start - which.start + of_batch) / len(which))
        return sums | {"low": low, "high": high, "histogram": counts}

    parts = compute(settings.images, len(steps), part, work)
    if parts is None:
        return None
    total = {name: sum(p[name] for p in parts) for name in ("sum", "below", "above", "count")}
    outside = (total["below"] + total["above"]).sum() / total["count"].sum()
    return Result(
        {
            "learned_v": float(total["sum"].sum() / total["count"].sum()),
            "unit": "mean v",
            "outside": float(outside),
            "below": float(total["below"].sum() / total["count"].sum()),
            "above": float(total["above"].sum() / total["count"].sum()),
            "low": float(min(p["low"].min() for p in parts)),
            "high": float(max(p["high"].max() for p in parts)),
            "images": settings.images,
            "timesteps": len(steps),
        },
        {
            "t": steps,
            "mean": total["sum"] / total["count"],
            "outside": (total["below"] + total["above"]) / total["count"],
            "histogram": sum(p["histogram"] for p in parts),
            "edges": EDGES,
        },
    )
