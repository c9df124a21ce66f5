"""The variational bound on a data set's images, in bits/dim (core/diffusion/likelihood.py)."""

import numpy as np
import torch

from core.config import Likelihood
from core.data.images import Images
from core.diffusion import likelihood
from core.measurements.errors import reverse_process
from core.measurements.result import Result, batches
from core.parts import Arrays, Report, Work, compute
from core.randomness import ImageNoise, numpy_generator
from core.trained import Trained


def measure_likelihood(
    trained: Trained, settings: Likelihood, images: Images, work: Work
) -> Result | None:
    """The bound on the first of `images`."""
    diffusion = reverse_process(trained, settings, work.housekeeping)
    schedule = diffusion.schedule
    strata = likelihood.STRATA[settings.estimator](schedule.K)

    def part(which: range, report: Report) -> Arrays:
        done = []
        for chosen in batches(which, work.housekeeping.eval_batch):
            u = [numpy_generator(settings.seed, "nll t", i) for i in chosen]
            t = strata.draw(np.stack([generator.random(strata.evaluations) for generator in u]))
            noise = ImageNoise(chosen, trained.shape, settings.seed, "nll eps")
            x0 = images.batch(chosen).to(trained.device)
            label = None if images.labels is None else images.labels[chosen.start : chosen.stop]
            denoise = trained.denoiser(diffusion, label)
            terms = np.empty(t.shape)
            for e in range(strata.evaluations):
                at = torch.from_numpy(t[:, e]).to(trained.device)
                eps = noise().to(trained.device)
                bits = likelihood.bound_terms(denoise, diffusion, x0, at, eps, settings.variance)
                terms[:, e] = bits.double().cpu().numpy()
                of_batch = len(chosen) * (e + 1) / strata.evaluations
                report((chosen.start - which.start + of_batch) / len(which))
            prior = likelihood.prior_term(diffusion, x0).double().cpu().numpy()
            done.append({"prior": prior, "t": t, "terms": terms})
        return {key: np.concatenate([batch[key] for batch in done]) for key in done[0]}

    parts = compute(settings.images, strata.evaluations, part, work)
    if parts is None:
        return None
    joined = {key: np.concatenate([arrays[key] for arrays in parts]) for key in parts[0]}
    bound = likelihood.Bound(**joined, strata=strata)
    sums, counts = bound.by_step()
    return Result(
        {
            "nll": bound.mean,
            "unit": "bits/dim",
            "standard_error": bound.standard_error,
            "estimator_error": bound.estimator_error if strata.draws > 1 else None,
            "prior": float(bound.prior.mean()),
            "decoder": float(sums[1] / counts[1]),
            "images": settings.images,
            "evaluations": strata.evaluations,
            "steps": schedule.K,
        },
        {
            "per_image": bound.per_image.astype(np.float32),
            "t": schedule.t.astype(np.int32),
            "term_sum": sums.astype(np.float32),
            "term_count": counts.astype(np.int32),
        },
    )
