"""How many network evaluations the bound takes, by the way its timesteps are chosen.

The bound's terms are computed once for some images at every t. What any plan of strata would have
made of them, and how far off, follows from these terms without another evaluation.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.lines import Line, at_most
from core.chains import likelihood_chain
from core.config import Housekeeping, Likelihood, TrainConfig
from core.data.sources import load_once
from core.diffusion.likelihood import STRATA, Strata, bound_terms, widening
from core.diffusion.process import Diffusion
from core.randomness import numpy_generator, torch_generator
from core.trained import load_trained

IMAGES, ERROR = 1000, 0.005  # the target: a standard error in bits/dim over so many images
FIRST, REPEATS = 16, 8  # so many first steps are repeated so many times with other noise
CHUNK = 250


@dataclass(frozen=True)
class Terms:
    """All terms of the bound for some images, in bits/dim.

    all: [N, T], at every t once;  first: [N, T', REPEATS], repeated at t = 1..T' with other eps;
    seconds: per network evaluation.
    """

    all: np.ndarray
    first: np.ndarray
    seconds: float

    def noise(self, t: int) -> np.ndarray:
        """[N] variance of the term at t that comes from eps.

        Far from the beginning, where the terms change little from t to t + 1, their differences
        tell it.
        """
        if t <= self.first.shape[1]:
            return self.first[:, t - 1].var(axis=1, ddof=1)
        t = min(t, self.all.shape[1] - 1)
        return (self.all[:, t] - self.all[:, t - 1]) ** 2 / 2


def compute_terms(folder: Path, config: TrainConfig, images: int) -> Terms:
    """The terms of a trained run's bound, for images of the test split."""
    settings = Likelihood(variance="beta" if config.objective.name == "simple" else "learned")
    diffusion = Diffusion(likelihood_chain(config.diffusion, settings))
    denoise = load_trained(folder, config, 1.0, 0, Housekeeping()).denoiser(diffusion, None)
    data = load_once(config.data.name, "test", None)
    every = torch.arange(1, diffusion.K + 1)
    steps = torch.cat([every, every[:FIRST].repeat_interleave(REPEATS)])
    terms, begun = np.empty((images, len(steps))), time.perf_counter()
    for i in range(images):
        x0, noise, done = data.batch([i]), torch_generator(0, "benchmark", i), 0
        for t in steps.split(CHUNK):
            eps = torch.randn(len(t), *x0.shape[1:], generator=noise)
            x = x0.expand(len(t), -1, -1, -1)
            bits = bound_terms(denoise, diffusion, x, t, eps, settings.variance)
            terms[i, done : done + len(t)] = bits.numpy()
            done += len(t)
    seconds = (time.perf_counter() - begun) / terms.size
    return Terms(
        terms[:, : diffusion.K], terms[:, diffusion.K :].reshape(images, -1, REPEATS), seconds
    )


def variances(terms: Terms, strata: Strata) -> np.ndarray:
    """[S] mean over images of the variance that one draw from each stratum brings to the bound."""
    found = []
    for first, width in zip(strata.first, strata.widths):
        part = terms.all[:, first - 1 : first - 1 + width]
        spread = part.var(axis=1, ddof=1) if width > 1 else terms.noise(first)
        found.append(width**2 * spread.mean())
    return np.array(found)


def error(terms: Terms, strata: Strata) -> float:
    """Standard error of the mean of IMAGES images, apart from their own spread."""
    return float(np.sqrt(variances(terms, strata).sum() / strata.draws / IMAGES))


def ideal_error(terms: Terms, strata: Strata) -> float:
    """The same with as many draws shared out among the strata in the best way (Neyman)."""
    total = np.sqrt(variances(terms, strata)).sum() ** 2
    return float(np.sqrt(total / strata.evaluations / IMAGES))


def equal(K: int, count: int) -> Strata:
    """Strata of equal width, two draws each."""
    return Strata(K, np.unique(np.rint(1 + np.arange(count) * K / count).astype(np.int64)), 2)


def fewest(terms: Terms, plan: Callable[[int], Strata], counts: range) -> Strata | None:
    """The first plan, by growing number of strata, whose error is within the target."""
    return next((s for s in map(plan, counts) if error(terms, s) <= ERROR), None)


def bias(terms: np.ndarray, strata: Strata, repeats: int) -> tuple[float, float]:
    """Mean over repeats of (estimate - full bound of the same terms), and its standard error.

    terms: [N, T].
    """
    images, full = np.arange(len(terms))[:, None], terms.sum(axis=1)
    off = np.empty(repeats)
    for r in range(repeats):
        u = numpy_generator(r, "benchmark t").random((len(terms), strata.evaluations))
        estimate = terms[images, strata.draw(u) - 1] @ strata.weights
        off[r] = (estimate - full).mean()
    return float(off.mean()), float(off.std(ddof=1) / repeats**0.5)


def measure(folder: Path, config: TrainConfig, images: int, repeats: int) -> Iterator[Line]:
    """Evaluations and seconds to the target for each kind of plan, on one trained network."""
    torch.set_num_threads(1)  # as the suite's workers
    terms = compute_terms(folder, config, images)
    K = terms.all.shape[1]

    def cost(strata: Strata | None) -> str:
        if strata is None:
            return "none found"
        spent = terms.seconds * strata.evaluations * IMAGES
        found = f"{strata.evaluations} evaluations per image, {spent:.0f} s"
        return f"{found}, error {error(terms, strata):.2g}"

    yield Line("network", f"{config.diffusion.schedule}, L_{config.objective.name}, T = {K}")
    full = STRATA["full"](K)
    yield Line("full", f"{cost(full)} (of eps alone)")
    even = fewest(terms, lambda count: equal(K, count), range(20, K // 2, 10))
    yield Line("strata of equal width", cost(even))
    few = fewest(terms, lambda count: widening(K, 2, count), range(4, 40))
    yield Line("widening strata, the fewest", cost(few))
    ours = STRATA["stratified"](K)
    yield Line("stratified, as the suite has it", cost(ours))
    yield Line("the same with the best shares of draws", f"error {ideal_error(terms, ours):.2g}")
    yield at_most("error of stratified on 1,000 images", error(terms, ours), ERROR, " bits/dim")
    yield at_most("its evaluations per image", float(ours.evaluations), 40)
    off, spread = bias(terms.all, ours, repeats)
    yield Line(
        f"stratified - full, mean of {repeats} repeats, bits/dim",
        f"{off:+.2g} ± {spread:.2g}",
        "within 3 standard errors of 0",
        abs(off) < 3 * spread,
    )
