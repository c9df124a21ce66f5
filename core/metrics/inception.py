"""The features of FID: Inception-v3 as published in 2015, from a file that the user brings.

Heusel et al. 2017 (arXiv 1706.08500): the 2048 activations of pool_3. Two conversions of the same
TensorFlow graph are known, and core/metrics/inception_networks.py reads both. sFID (Nash et al.
2021, arXiv 2103.03841, as in OpenAI's guided-diffusion): the first 7 channels of mixed_6/conv, a
layer of 17 x 17 places.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import Refused, first_line
from core.metrics.extractor import Extractor, as_rgb, exact_convolutions
from core.metrics.inception_networks import Inception, read

DIMENSION = 2048
BATCH = 50  # a divisor of extractor.CHUNK
KNOWN = {  # SHA-256 of the file: what it is
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4": (
        "NVIDIA's inception-2015-12-05.pt"
    ),
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2": (
        "torch-fidelity's weights-inception-2015-12-05-6726825d.pth"
    ),
}


class InceptionFeatures(Extractor):
    """Inception-v3 as a map from images to the 2048 features of FID, on a device.

    The network itself brings images to 299 x 299, as TensorFlow 1 did and without averaging; it is
    given levels 0..255, grey images as RGB. Refused, each in one line: no file at `path`, one that
    is neither of the KNOWN nor has the `sha256` given for it, one that is no such network.
    """

    name = "inception"
    dimension = DIMENSION

    def __init__(
        self,
        path: str,
        sha256: str = "",
        device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
    ):
        content = _content(path, sha256)
        found = hashlib.sha256(content).hexdigest()
        self.digest, self.facts = found[:16], {"weights": found}
        self._device = device
        try:
            self._network = read(content, device)
            probe = self(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        except Refused:
            raise
        except Exception as error:  # a file of any kind may raise anything
            raise Refused(
                f"features_path={path} holds no Inception-v3: {first_line(error)}"
            ) from error
        if probe.shape != (1, DIMENSION):
            raise Refused(
                f"features_path={path} holds no Inception-v3: it gives features {probe.shape[1:]}"
            )
        if self._network.has_spatial:
            self.spatial = SpatialFeatures(self._network, self.digest, device)

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """Features, float64 [N, 2048], of uint8 images [N, C, H, H]."""
        return _map(self._network.pool, pixels, self._device)


class SpatialFeatures(Extractor):
    """What the same network says of places: the features of sFID, 7 x 17 x 17."""

    name = "inception_spatial"

    def __init__(self, network: Inception, digest: str, device: torch.device):
        self._network, self.digest, self._device = network, digest, device
        self.dimension = self(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape[1]

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """Features, float64 [N, 2023], of uint8 images [N, C, H, H]."""
        return _map(self._network.spatial, pixels, self._device)


@torch.inference_mode()
def _map(function, pixels: Tensor, device: torch.device) -> np.ndarray:
    parts = []
    for batch in pixels.split(BATCH):
        with exact_convolutions():
            parts.append(function(as_rgb(batch).to(device)).flatten(1).float().cpu())
    return torch.cat(parts).double().numpy()


def _content(path: str, sha256: str) -> bytes:
    """The file, which is a known one or the one that was asked for."""
    if not path:
        raise Refused(f"features=inception needs features_path=FILE: {' or '.join(KNOWN.values())}")
    if not Path(path).is_file():
        raise Refused(
            f"features_path={path} is not there; it should be {' or '.join(KNOWN.values())}"
        )
    content = Path(path).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise Refused(f"features_path={path} has sha256 {found}, asked for is {sha256}")
    if not sha256 and found not in KNOWN:
        raise Refused(
            f"features_path={path} is neither {' nor '.join(KNOWN.values())}: its distance is no "
            f"FID; measure.features_sha256={found} takes it all the same, and runs the code "
            "that a TorchScript archive brings: do so only if you know its origin"
        )
    return content
