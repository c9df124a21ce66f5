"""Which t to train on: uniformly, or in proportion to the size of the loss (section 3.3, eq. 18).

A TimestepSampler turns uniform numbers in [0, 1) into timesteps and loss weights, so that two
trainings with the same seed see the same underlying draws whatever their sampler and T.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class TimestepSampler(Protocol):
    """Distribution over t = 1..T and the weights that keep the loss unbiased."""

    def sample(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Timesteps [N] in 1..T and weights 1/(T p_t) [N], from uniform numbers u [N] in [0, 1)."""

    def update(self, t: np.ndarray, losses: Tensor) -> None:
        """Take note of the unweighted losses [N] at timesteps t [N]."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


class UniformTimesteps:
    """p_t = 1/T, weights one."""

    def __init__(self, T: int):
        self.T = T

    def sample(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 1 + (u * self.T).astype(np.int64), np.ones(len(u))

    def update(self, t: np.ndarray, losses: Tensor) -> None:
        """The past does not matter."""

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        """There is no state."""


class LossSecondMoment:
    """p_t proportional to sqrt(E[L_t^2]) over the last losses at each t (eq. 18).

    Uniform until every t has a full history of `length` values (the paper's 10); afterwards a
    share `uniform` of the probability stays uniform (0.001 in OpenAI's code, not in the paper), so
    that no t is lost for good.

    The uniform beginning visits all t in random order, then all again: each draw is uniform, and
    `length` * T draws fill the history. Independent draws, as in OpenAI's code, need about three
    times as many at T = 4000 (126,000), more than a short training has.
    """

    def __init__(self, T: int, length: int = 10, uniform: float = 0.001):
        self.T, self.length, self.uniform = T, length, uniform
        self.history = np.zeros((T, length))
        self.count = np.zeros(T, dtype=np.int64)  # losses seen at each t, ever
        self._order = np.arange(T)  # of this round of the beginning; the first `_visited` are used
        self._visited = 0

    @property
    def warm(self) -> bool:
        """Whether every t has a full history."""
        return bool((self.count >= self.length).all())

    def probabilities(self) -> np.ndarray:
        """[T] p_t for t = 1..T, summing to one."""
        if not self.warm:
            return np.full(self.T, 1 / self.T)
        weight = np.sqrt((self.history**2).mean(axis=1))
        total = weight.sum()
        if not total > 0:
            return np.full(self.T, 1 / self.T)
        return (1 - self.uniform) * weight / total + self.uniform / self.T

    def sample(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not self.warm:
            return 1 + np.array([self._next_unvisited(x) for x in u]), np.ones(len(u))
        p = self.probabilities()
        cumulative = np.cumsum(p)
        index = np.searchsorted(cumulative, u * cumulative[-1], side="right")
        index = np.minimum(index, self.T - 1)
        return 1 + index, 1 / (self.T * p[index])

    def _next_unvisited(self, u: float) -> int:
        """One step of a Fisher-Yates shuffle that never ends: an index not yet seen this round."""
        order, first = self._order, self._visited
        chosen = first + int(u * (self.T - first))
        order[first], order[chosen] = order[chosen], order[first]
        self._visited = (first + 1) % self.T
        return order[first]

    def update(self, t: np.ndarray, losses: Tensor) -> None:
        for index, loss in zip(t - 1, losses.double().cpu().numpy()):
            self.history[index, self.count[index] % self.length] = loss
            self.count[index] += 1

    def state_dict(self) -> dict:
        return {
            "history": torch.from_numpy(self.history.copy()),
            "count": torch.from_numpy(self.count.copy()),
            "order": torch.from_numpy(self._order.copy()),
            "visited": self._visited,
        }

    def load_state_dict(self, state: dict) -> None:
        self.history = state["history"].double().numpy().copy()
        self.count = state["count"].long().numpy().copy()
        self._order = state["order"].long().numpy().copy()
        self._visited = state["visited"]
