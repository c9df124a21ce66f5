"""The forward chain q and the reverse chain p_theta over one Schedule (section 2).

The network enters only as a Prediction, a value; nothing here calls a model. Steps t count the
kept steps of the schedule, 1..K. Coefficients are computed in float64 and rounded once.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from core.diffusion import variances
from core.diffusion.gaussians import Gaussian
from core.diffusion.schedules import Schedule
from core.diffusion.variances import ReverseVariance

Step = Tensor | int


class Prediction(NamedTuple):
    """What the network says at (x_t, t): the noise and, where the variance is learned, v.

    eps, v: [N, C, H, W]; v is in the units of eq. 15: 0 means beta_tilde and 1 means beta.
    """

    eps: Tensor
    v: Tensor | None = None


class Diffusion:
    """q(x_t | x_0), q(x_{t-1} | x_t, x_0) and p(x_{t-1} | x_t) for one schedule on one device.

    In all methods x: [N, C, H, W] and t: [N] int64 in 1..K on the device of the tables, or one int
    for all images, whose coefficients need no gathering. Images are in [-1, 1].
    """

    def __init__(
        self,
        schedule: Schedule,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        analytic: np.ndarray | None = None,
    ):
        """analytic: [K + 1] log-variances of the reverse variance of that name, if there is one."""
        self.schedule, self.K = schedule, schedule.K

        def table(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=dtype).to(device)

        beta, alpha_bar = schedule.beta, schedule.alpha_bar
        noise = schedule.one_minus_alpha_bar
        self._signal_scale = table(np.sqrt(alpha_bar))
        self._noise_scale = table(np.sqrt(noise))
        self._one_over_signal = table(np.exp(-0.5 * schedule.log_alpha_bar))
        self._noise_over_signal = table(np.sqrt(noise) * np.exp(-0.5 * schedule.log_alpha_bar))
        # Mean of q(x_{t-1} | x_t, x_0) (eq. 11) = from_x0 x_0 + from_xt x_t.
        before, from_x0, from_xt = alpha_bar[:-1], np.zeros_like(beta), np.zeros_like(beta)
        from_x0[1:] = np.sqrt(before) * beta[1:] / noise[1:]
        from_xt[1:] = np.sqrt(1 - beta[1:]) * noise[:-1] / noise[1:]
        self._from_x0, self._from_xt = table(from_x0), table(from_xt)
        lower, upper = variances.log_bounds(schedule)
        self._log_beta_tilde, self._log_beta = table(lower), table(upper)
        self._fixed = {
            name: table(variances.fixed_log_variance(schedule, name))
            for name in ("beta", "beta_tilde")
        }
        if analytic is not None:
            self._fixed["analytic"] = table(analytic)
        # The network is told t on a scale of its own whatever T, and the original t of a kept step.
        self._network_time = table((schedule.t - 1) * (schedule.time_scale / schedule.T))

    def network_time(self, t: Tensor) -> Tensor:
        """[N] what the network is told: (original t - 1) * time_scale/T; usually in [0, 1000)."""
        return self._network_time[t]

    def q_sample(self, x0: Tensor, t: Step, eps: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (eq. 9)."""
        return _at(self._signal_scale, t) * x0 + _at(self._noise_scale, t) * eps

    def q_prior(self, x0: Tensor) -> Gaussian:
        """q(x_T | x_0), the last kept step (eq. 8)."""
        t = torch.full((len(x0),), self.K, device=x0.device)
        variance = 2 * torch.log(_at(self._noise_scale, t))
        return Gaussian(_at(self._signal_scale, t) * x0, variance)

    def q_posterior(self, x0: Tensor, x_t: Tensor, t: Step) -> Gaussian:
        """q(x_{t-1} | x_t, x_0): mean of eq. 11, variance beta_tilde of eq. 10 (_2 for _1)."""
        return Gaussian(self.posterior_mean(x0, x_t, t), _at(self._log_beta_tilde, t))

    def posterior_mean(self, x0: Tensor, x_t: Tensor, t: Step) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0) (eq. 11)."""
        return _at(self._from_x0, t) * x0 + _at(self._from_xt, t) * x_t

    def x0_from_eps(self, x_t: Tensor, t: Step, eps: Tensor) -> Tensor:
        """The x_0 for which x_t carries the noise eps: eq. 9 solved for x_0."""
        return _at(self._one_over_signal, t) * x_t - _at(self._noise_over_signal, t) * eps

    def eps_from_x0(self, x_t: Tensor, t: Step, x0: Tensor) -> Tensor:
        """The noise that leads from x_0 to x_t: eq. 9 solved for eps."""
        return (_at(self._one_over_signal, t) * x_t - x0) / _at(self._noise_over_signal, t)

    def min_snr_weight(self, t: Step, most: float) -> Tensor:
        """min(SNR_t, most) / SNR_t: the weight of L_simple's term in Hang et al. 2023 (eq. 10)."""
        return (most * _at(self._noise_over_signal, t) ** 2).clamp(max=1.0).flatten()

    def predicted_x0(self, prediction: Prediction, x_t: Tensor, t: Step, clip: bool) -> Tensor:
        """The x_0 that the predicted noise implies, [N, C, H, W]; in [-1, 1] if `clip`."""
        x0 = self.x0_from_eps(x_t, t, prediction.eps)
        return x0.clamp(-1, 1) if clip else x0

    def p_mean_variance(
        self,
        prediction: Prediction,
        x_t: Tensor,
        t: Step,
        variance: ReverseVariance,
        clip: bool,
    ) -> Gaussian:
        """p_theta(x_{t-1} | x_t): eq. 13's mean through x_0, and one of the variances."""
        mean = self.posterior_mean(self.predicted_x0(prediction, x_t, t, clip), x_t, t)
        return Gaussian(mean, self.p_log_variance(prediction, t, variance))

    def p_log_variance(self, prediction: Prediction, t: Step, variance: ReverseVariance) -> Tensor:
        """Log-variance of p_theta: [N, C, H, W] when learned (eq. 15), else one number per t."""
        if variance == "learned":
            if prediction.v is None:
                raise ValueError("this network does not predict v: it was trained with L_simple")
            bounds = _at(self._log_beta_tilde, t), _at(self._log_beta, t)
            return variances.learned_log_variance(prediction.v, *bounds)
        return _at(self._fixed[variance], t)


def _at(table: Tensor, t: Step) -> Tensor:
    """Entries of a table [K + 1] at t, shaped to broadcast against [N, C, H, W]."""
    return table[t] if isinstance(t, int) else table[t].view(-1, 1, 1, 1)
