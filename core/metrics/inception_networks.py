"""Two conversions of the Inception-v3 of 2015 behind one face: pool_3, and a layer of places.

NVIDIA's is a TorchScript archive that brings its own code; PyTorch has deprecated the format, which
nothing else here knows of. What it brings is run, so that core/metrics/inception.py takes none
whose SHA-256 is neither the published one nor given by the user. torch-fidelity's is a file of
weights for the network in that package.
"""

import io
import zipfile
from typing import Protocol

import torch
from torch import Tensor

from core.errors import Refused, first_line

CHANNELS = 7  # of mixed_6/conv that count for sFID
SIZE = 299
# The layers of NVIDIA's network up to that one, in their order.
LAYERS = (
    *("conv", "conv_1", "conv_2", "pool0", "conv_3", "conv_4", "pool1"),
    *("mixed", "mixed_1", "mixed_2", "mixed_3", "mixed_4", "mixed_5"),
)


class Inception(Protocol):
    """Both maps take uint8 [N, 3, H, W]; spatial: only where `has_spatial`."""

    has_spatial: bool

    def pool(self, x: Tensor) -> Tensor:
        """[N, 2048]."""

    def spatial(self, x: Tensor) -> Tensor:
        """[N, 7, 17, 17]."""


def read(content: bytes, device: torch.device) -> Inception:
    """The network of a file, in eval mode; raises nearly anything for one that holds none."""
    if _is_script(content):
        return Script(torch.jit.load(io.BytesIO(content), map_location=device))
    return Fidelity(torch.load(io.BytesIO(content), "cpu", weights_only=True), device)


def _is_script(content: bytes) -> bool:
    """Whether an archive brings code, which files of weights do not."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return any("/code/" in name for name in archive.namelist())


class Script:
    """NVIDIA's, whose forward resizes, and gives pool_3 when asked for features."""

    def __init__(self, network: torch.jit.ScriptModule):
        self._network = network.eval()
        try:
            layers = network.layers
            self._layers = [*(getattr(layers, name) for name in LAYERS), layers.mixed_6.conv]
        except AttributeError:
            self._layers = []
        self.has_spatial = bool(self._layers)

    def pool(self, x: Tensor) -> Tensor:
        return self._network(x, return_features=True)

    def spatial(self, x: Tensor) -> Tensor:
        # Hooks do not see what a script calls, so that its first steps are taken here.
        x = (resized(x.float()) - 128) / 128
        for layer in self._layers:
            x = layer(x)
        return x[:, :CHANNELS]


class Fidelity:
    """The network of torch-fidelity with the weights of a file."""

    has_spatial = True

    def __init__(self, weights: dict[str, Tensor], device: torch.device):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except Exception as error:  # it may be there and its torchvision not fit this torch
            raise Refused(
                f"these weights need torch-fidelity (pip install '.[fid]'), which cannot be "
                f"imported: {first_line(error)}; NVIDIA's inception-2015-12-05.pt needs no package"
            ) from error
        # torch-fidelity would unpickle the user's file without restriction: it is given what was
        # read from it as mere tensors.
        tensors = io.BytesIO()
        torch.save(weights, tensors)
        tensors.seek(0)
        with torch.random.fork_rng(devices=[]):  # its initial weights are drawn before
            network = FeatureExtractorInceptionV3("inception", ["2048"], tensors)
        self._network = network.eval().to(device)

    def pool(self, x: Tensor) -> Tensor:
        return self._network(x)[0]

    def spatial(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        layer = self._network.Mixed_6d.branch1x1  # the graph's mixed_6/conv
        hook = layer.register_forward_hook(lambda module, inputs, out: seen.append(out))
        try:
            self._network(x)
        finally:
            hook.remove()
        return seen[0][:, :CHANNELS]


def resized(x: Tensor) -> Tensor:
    """float [N, C, H, W] at SIZE x SIZE, as TensorFlow 1 did it bilinearly.

    Place i of the result lies at i H / SIZE of the image: its corners, not its centres, are
    aligned, what is beyond the last row is that row, and nothing is averaged when it gets smaller.
    """

    def between(x: Tensor, axis: int) -> Tensor:
        n = x.shape[axis]
        at = torch.arange(SIZE, device=x.device, dtype=x.dtype) * (n / SIZE)
        low = at.long().clamp(max=n - 1)
        high = (low + 1).clamp(max=n - 1)
        shape = [1] * x.ndim
        shape[axis] = SIZE
        a, b = x.index_select(axis, low), x.index_select(axis, high)
        return a + (b - a) * (at - low).view(shape)

    return between(between(x, 3), 2)
