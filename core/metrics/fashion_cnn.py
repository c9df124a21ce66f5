"""Features of images for Frechet distances: those of a small classifier of Fashion-MNIST.

The distance over them is called FD (fashion_cnn). It is no FID, whose features are those of an
Inception network trained on ImageNet, and its numbers compare only with each other.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import Refused
from core.metrics.extractor import Extractor

WEIGHTS = Path(__file__).with_name("fashion_cnn.npz")
DIGEST = "0f1f9173c3b3206e"  # of the committed weights; distances over others are others
SIZE = 16
DIMENSION = 64
BATCH = 250  # keeps a layer's activations within a core's cache
LUMA = (0.299, 0.587, 0.114)  # weights of R, G, B in ITU-R BT.601


class FashionCNN(nn.Module):
    """Classifier of 16 x 16 grey images in [-1, 1]; about 3.1 million multiplications an image.

    `features` are the last convolution's activations averaged over the image: one number for each
    of 64 patterns, none negative. `forward` gives the 10 logits, a linear map of them.
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(1, 24),
            *_convolution(24, 48, stride=2),
            *_convolution(48, 48),
            *_convolution(48, DIMENSION, stride=2),
            *_convolution(DIMENSION, DIMENSION),
        )
        self.classify = nn.Linear(DIMENSION, 10)

    def features(self, x: Tensor) -> Tensor:
        """[N, 1, 16, 16] -> [N, 64]."""
        return self.layers(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 16, 16] -> logits [N, 10]."""
        return self.classify(self.features(x))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class FashionFeatures(Extractor):
    """The committed classifier as a map from images to 64 features.

    It is meant for Fashion-MNIST; RGB images and other sizes that are multiples of 16 are turned
    into grey 16 x 16 images first, and the distance is then a number without standing.
    test_accuracy: the share of Fashion-MNIST's test images it classified after training.
    Refused: a damaged file.
    """

    name = "fashion_cnn"
    dimension = DIMENSION

    def __init__(self):
        try:
            with np.load(WEIGHTS) as archive:
                arrays = dict(archive)
            self.test_accuracy = float(arrays.pop("test_accuracy"))
            self.digest = _digest(arrays)
            if self.digest != DIGEST:
                raise ValueError("other weights")
        except Exception as error:  # NumPy raises nearly anything for a damaged file
            raise Refused(f"{WEIGHTS.name} is missing or damaged: restore it from git") from error
        self._network = FashionCNN().eval().to(memory_format=torch.channels_last)
        self._network.load_state_dict({key: torch.from_numpy(a) for key, a in arrays.items()})

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """Features, float64 [N, 64], of uint8 images [N, C, H, H]."""
        return self._map(self._network.features, pixels)

    def probabilities(self, pixels: Tensor) -> np.ndarray:
        """Probabilities of the ten classes, float64 [N, 10], of uint8 images [N, C, H, H]."""
        return self._map(lambda x: self._network(x).softmax(dim=1), pixels)

    @torch.inference_mode()
    def _map(self, function, pixels: Tensor) -> np.ndarray:
        parts = [function(prepare(batch.cpu())) for batch in pixels.split(BATCH)]
        return torch.cat(parts).double().numpy()


def prepare(pixels: Tensor) -> Tensor:
    """What the classifier sees of uint8 images [N, C, H, H]: float32 [N, 1, 16, 16] in [-1, 1].

    RGB becomes luma, then areas are averaged to 16 x 16. The result is rounded to whole levels with
    halves up, as the committed fashion16 images were, so that Fashion-MNIST at 32 x 32 and at
    16 x 16 have the same features.
    """
    x = pixels.float()
    if x.shape[1] == 3:
        x = (x * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    x = F.avg_pool2d(x, x.shape[-1] // SIZE)
    return (x + 0.5).floor() / 127.5 - 1


def _digest(arrays: dict[str, np.ndarray]) -> str:
    content = hashlib.sha256()
    for key in sorted(arrays):
        content.update(key.encode())
        content.update(np.ascontiguousarray(arrays[key]))
    return content.hexdigest()[:16]
