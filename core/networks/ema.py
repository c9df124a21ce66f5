"""Exponential moving averages of the weights, at several rates at once."""

import torch
from torch import Tensor, nn


class EMA:
    """average <- rate * average + (1 - rate) * weights after each step, one average per rate.

    Begins with the network's weights, as in OpenAI's code. The horizon of a rate is 1/(1 - rate)
    steps. Parameters only: the networks here have no running buffers.
    """

    def __init__(self, network: nn.Module, rates: tuple[float, ...]):
        self.rates = rates
        self._weights = [p for _, p in network.named_parameters()]
        self._names = [name for name, _ in network.named_parameters()]
        self.averages = [[p.detach().clone() for p in self._weights] for _ in rates]

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights into every average."""
        for rate, average in zip(self.rates, self.averages):
            torch._foreach_lerp_(average, self._weights, 1 - rate)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """{"0": {parameter: tensor}, "1": ...} in the order of the rates; no copies."""
        return {str(i): dict(zip(self._names, a)) for i, a in enumerate(self.averages)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        for i, average in enumerate(self.averages):
            for name, tensor in zip(self._names, average):
                tensor.copy_(state[str(i)][name])
