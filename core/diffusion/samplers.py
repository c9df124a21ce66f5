"""How images are drawn from a trained network: ancestral sampling and DDIM.

Both are functions of (denoise, diffusion, x, noise): `denoise` turns (x_t, t) into a Prediction,
`noise` gives the next standard normal draw for every image, and `diffusion` says which steps there
are. One network evaluation per kept step.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from core.diffusion.process import Diffusion, Prediction
from core.diffusion.variances import ReverseVariance

Denoise = Callable[[Tensor, Tensor], Prediction]
Noise = Callable[[], Tensor]
OnStep = Callable[[], None]


def _nothing() -> None:
    """The default of `on_step`."""


@torch.inference_mode()
def ancestral(
    denoise: Denoise,
    diffusion: Diffusion,
    x: Tensor,
    noise: Noise,
    variance: ReverseVariance,
    clip: bool = True,
    on_step: OnStep = _nothing,
) -> Tensor:
    """Draws x_{t-1} ~ p_theta(x_{t-1} | x_t) from t = K down to 1 (DDPM, algorithm 2).

    x: x_K [N, C, H, W], standard normal. Returns x_0 [N, C, H, W]: the mean of the last step, whose
    noise is not added. clip: predicted x_0 is kept within [-1, 1].
    """
    steps = torch.arange(diffusion.K + 1, device=x.device)
    for k in range(diffusion.K, 0, -1):
        prediction = denoise(x, steps[k].expand(len(x)))
        p = diffusion.p_mean_variance(prediction, x, k, variance, clip)
        x = p.mean
        if k > 1:
            x = torch.addcmul(x, torch.exp(0.5 * p.log_variance), noise().to(x.device))
        on_step()
    return x


@torch.inference_mode()
def ddim(
    denoise: Denoise,
    diffusion: Diffusion,
    x: Tensor,
    noise: Noise,
    eta: float = 0.0,
    clip: bool = True,
    on_step: OnStep = _nothing,
) -> Tensor:
    """Denoising diffusion implicit models (DDIM, eq. 12), from t = K down to 1.

    x: x_K [N, C, H, W], standard normal; eta: 0 is deterministic and draws no noise, 1 is ancestral
    sampling with variance beta_tilde. After clipping x_0, eps is taken anew from it.
    """
    beta_tilde, alpha_bar = diffusion.schedule.beta_tilde, diffusion.schedule.alpha_bar
    steps = torch.arange(diffusion.K + 1, device=x.device)
    for k in range(diffusion.K, 0, -1):
        x0 = diffusion.predicted_x0(denoise(x, steps[k].expand(len(x))), x, k, clip)
        eps = diffusion.eps_from_x0(x, k, x0)
        variance = eta**2 * beta_tilde[k]
        x = alpha_bar[k - 1] ** 0.5 * x0 + max(1 - alpha_bar[k - 1] - variance, 0.0) ** 0.5 * eps
        if eta > 0 and k > 1:
            x = x + variance**0.5 * noise().to(x.device)
        on_step()
    return x
