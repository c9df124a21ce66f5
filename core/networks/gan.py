"""Class-conditional generative adversarial networks: a generator and a discriminator.

Residual blocks in both, as in SNGAN (Miyato et al. 2018, arXiv 1802.05957) and BigGAN (Brock et al.
2019, arXiv 1809.11096). Square images of 4 * 2^k pixels; the width doubles with each halving, up to
WIDEST times that at full resolution.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from core.networks.unet import conditioned_norm, group_norm

SMALLEST = 4  # pixels, where a generator begins and a discriminator ends
WIDEST = 16  # as BigGAN's


def widths(size: int, channels: int) -> list[int]:
    """Channels at each resolution, from full size down to 4 x 4.

    ValueError: images of another size than 4 * 2^k, k = 1, 2, ...
    """
    halvings = (size // SMALLEST).bit_length() - 1
    if halvings < 1 or size != SMALLEST * 2**halvings:
        raise ValueError(f"{size}x{size} images are not 4 * 2^k pixels wide")
    return [channels * min(2**k, WIDEST) for k in range(halvings + 1)]


class Generator(nn.Module):
    """Maps (z, label) to images in [-1, 1].

    channels   width at full resolution
    latent     entries of z, which is standard normal
    classes    number of classes; 0 for an unconditional network

    Every norm's scale and shift are linear in z and an embedding of the class, as in BigGAN-deep.
    The norms are over groups of channels, where BigGAN's are over the batch: an image is then the
    same in any batch, in training and afterwards, and averaging the weights averages all there is.
    """

    def __init__(self, size: int, out_channels: int, channels: int, latent: int, classes: int = 0):
        super().__init__()
        n = widths(size, channels)[::-1]
        self.latent, self.first = latent, n[0]
        self.label_embedding = nn.Embedding(classes, latent) if classes else None
        condition = 2 * latent if classes else latent
        self.linear = nn.Linear(condition, n[0] * SMALLEST**2)
        self.blocks = nn.ModuleList(Up(a, b, condition) for a, b in pairwise(n))
        self.out = nn.Sequential(
            group_norm(n[-1]), nn.ReLU(), nn.Conv2d(n[-1], out_channels, 3, padding=1), nn.Tanh()
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """z: [N, latent];  label: [N] int64 -> [N, out_channels, size, size]."""
        if self.label_embedding is not None:
            z = torch.cat([z, self.label_embedding(label)], dim=1)
        x = self.linear(z).view(len(z), self.first, SMALLEST, SMALLEST)
        for block in self.blocks:
            x = block(x, z)
        return self.out(x)


class Up(nn.Module):
    """Conditioned norm, ReLU, doubling, conv; the same again without doubling; skip connection."""

    def __init__(self, n_in: int, n_out: int, condition: int):
        super().__init__()
        self.norm_in, self.norm_out = group_norm(n_in), group_norm(n_out)
        self.condition_in = nn.Linear(condition, 2 * n_in)
        self.condition_out = nn.Linear(condition, 2 * n_out)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.conv_out = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: [N, n_in, H, W];  condition: [N, condition] -> [N, n_out, 2H, 2W]."""
        scale, shift = self.condition_in(condition).chunk(2, dim=1)
        h = F.relu(conditioned_norm(self.norm_in, x, 1 + scale, shift))
        h = self.conv_in(doubled(h))
        scale, shift = self.condition_out(condition).chunk(2, dim=1)
        h = F.relu(conditioned_norm(self.norm_out, h, 1 + scale, shift))
        # A 1 x 1 convolution and a repetition of pixels may change places; this order is cheaper.
        return self.conv_out(h) + doubled(self.skip(x))


class Discriminator(nn.Module):
    """Maps (image, label) to a logit, high for real images: a linear function of the features
    plus the features' product with an embedding of the class,

        f(x, y) = psi . phi(x) + <V_y, phi(x)>

    the projection of Miyato & Koyama 2018 (arXiv 1802.05637, eq. 3). Every layer, the embedding as
    well, is divided by its largest singular value (Miyato et al. 2018, eq. 8), which one power
    iteration per forward pass follows while training. No norms: images do not meet each other.
    """

    def __init__(self, size: int, in_channels: int, channels: int, classes: int = 0):
        super().__init__()
        n = widths(size, channels)
        self.first = Down(in_channels, n[0], halving=False, activation=False)
        self.blocks = nn.ModuleList(Down(a, b) for a, b in pairwise(n))
        self.linear = spectral_norm(nn.Linear(n[-1], 1))
        self.label_embedding = spectral_norm(nn.Embedding(classes, n[-1])) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """x: [N, in_channels, size, size];  label: [N] int64 -> [N]."""
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        features = F.relu(x).sum(dim=(2, 3))
        logit = self.linear(features)[:, 0]
        if self.label_embedding is not None:
            logit = logit + (self.label_embedding(label) * features).sum(dim=1)
        return logit


class Down(nn.Module):
    """ReLU, conv, ReLU, conv, halving by averages; skip connection.

    halving: whether it halves;  activation: whether it begins by a ReLU, which images must not.
    """

    def __init__(self, n_in: int, n_out: int, halving: bool = True, activation: bool = True):
        super().__init__()
        self.halving, self.activation = halving, activation
        hidden = n_in if halving else n_out  # as SNGAN's
        self.conv_in = spectral_norm(nn.Conv2d(n_in, hidden, 3, padding=1))
        self.conv_out = spectral_norm(nn.Conv2d(hidden, n_out, 3, padding=1))
        self.skip = spectral_norm(nn.Conv2d(n_in, n_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, n_in, H, W] -> [N, n_out, H/2, W/2], or H, W."""
        h = self.conv_in(F.relu(x) if self.activation else x)
        h = self.conv_out(F.relu(h))
        if not self.halving:
            return h + self.skip(x)
        # Averages and a 1 x 1 convolution may change places as well.
        return F.avg_pool2d(h, 2) + self.skip(F.avg_pool2d(x, 2))


def doubled(x: Tensor) -> Tensor:
    """Each pixel repeated twice in both directions: [N, n, H, W] -> [N, n, 2H, 2W]."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
