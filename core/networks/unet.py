"""The paper's UNet (appendix A): residual blocks conditioned on t, attention at low resolutions.

Residual blocks and their order follow improved-diffusion, so that its parameter counts and its
checkpoints' layout are met. Images only; square ones.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class UNet(nn.Module):
    """Maps (x_t, time, label) to `out_channels` maps of the same size.

    channels         C, the width of the first stage
    channel_mult     width of each stage in units of C; resolution halves between stages
    res_blocks       residual blocks per stage on the way down (one more on the way up)
    attention        resolutions (in pixels) whose residual blocks are followed by attention
    heads            attention heads at every such place
    conditioning     "scale_shift": GroupNorm(h)(1 + w) + b;  "additive": GroupNorm(h + b)
    classes          number of classes; 0 for an unconditional network

    With the attribute `gradient_checkpointing` set, the backward pass computes each stage once more
    instead of keeping its activations: a third more time, a fraction of the memory, equal results.
    """

    gradient_checkpointing = False

    def __init__(
        self,
        size: int,
        in_channels: int,
        out_channels: int,
        channels: int,
        channel_mult: tuple[int, ...],
        res_blocks: int,
        attention: tuple[int, ...],
        heads: int = 4,
        dropout: float = 0.0,
        conditioning: str = "scale_shift",
        classes: int = 0,
    ):
        super().__init__()
        self.channels = channels
        width = 4 * channels
        self.time_embedding = nn.Sequential(
            nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label_embedding = nn.Embedding(classes, width) if classes else None

        def block(n_in: int, n_out: int) -> ResidualBlock:
            return ResidualBlock(n_in, n_out, width, dropout, conditioning == "scale_shift")

        def attend(n: int) -> list[nn.Module]:
            return [Attention(n, heads)] if resolution in attention else []

        resolution, n = size, channels
        self.down = nn.ModuleList([Stage([nn.Conv2d(in_channels, n, 3, padding=1)])])
        skips = [n]
        for level, mult in enumerate(channel_mult):
            if level:
                self.down.append(Stage([Downsample(n)]))
                resolution //= 2
                skips.append(n)
            for _ in range(res_blocks):
                self.down.append(Stage([block(n, mult * channels), *attend(mult * channels)]))
                n = mult * channels
                skips.append(n)
        self.middle = Stage([block(n, n), Attention(n, heads), block(n, n)])
        self.up = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(res_blocks + 1):
                layers = [block(n + skips.pop(), mult * channels)]
                n = mult * channels
                layers += attend(n)
                if level and i == res_blocks:
                    layers.append(Upsample(n))
                    resolution *= 2
                self.up.append(Stage(layers))
        self.out = nn.Sequential(
            group_norm(n), nn.SiLU(), zero(nn.Conv2d(n, out_channels, 3, padding=1))
        )

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """x: [N, in, H, W];  time: [N] in [0, 1000);  label: [N] int64 -> [N, out, H, W]."""
        embedding = self.time_embedding(sinusoids(time, self.channels).to(x.dtype))
        if self.label_embedding is not None:
            embedding = embedding + self.label_embedding(label)
        # Every residual block begins by SiLU(embedding): computed once here.
        embedding = F.silu(embedding)
        skips = []
        for stage in self.down:
            x = self._run(stage, x, embedding)
            skips.append(x)
        x = self._run(self.middle, x, embedding)
        for stage in self.up:
            x = self._run(stage, torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out(x)

    def _run(self, stage: "Stage", x: Tensor, embedding: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, x, embedding, use_reentrant=False)
        return stage(x, embedding)


class Stage(nn.ModuleList):
    """Layers in sequence; the residual blocks among them are given the embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResidualBlock) else layer(x)
        return x


class ResidualBlock(nn.Module):
    """norm, SiLU, conv; norm conditioned on the embedding, SiLU, dropout, conv; skip connection."""

    def __init__(self, n_in: int, n_out: int, width: int, dropout: float, scale_shift: bool):
        super().__init__()
        self.scale_shift = scale_shift
        self.norm_in = group_norm(n_in)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.condition = nn.Linear(width, 2 * n_out if scale_shift else n_out)
        self.norm_out = group_norm(n_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero(nn.Conv2d(n_out, n_out, 3, padding=1))
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: [N, n_in, H, W];  embedding: [N, width], after its SiLU -> [N, n_out, H, W]."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        condition = self.condition(embedding)
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            h = conditioned_norm(self.norm_out, h, 1 + scale, shift)
        else:
            h = self.norm_out(h + condition[:, :, None, None])
        h = self.conv_out(self.dropout(F.silu(h)))
        return h.add_(self.skip(x))  # in place: no gradient needs the convolution's result


class Attention(nn.Module):
    """Multi-head self-attention over the pixels, with a skip connection."""

    def __init__(self, n: int, heads: int):
        super().__init__()
        if n % heads:
            raise ValueError(f"{n} channels cannot be split into {heads} attention heads")
        self.heads = heads
        self.norm = group_norm(n)
        self.qkv = nn.Conv1d(n, 3 * n, 1)
        self.project = zero(nn.Conv1d(n, n, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, n, H, W] -> the same shape."""
        N, n, H, W = x.shape
        qkv = self.qkv(self.norm(x).reshape(N, n, H * W))
        # Channels are ordered [heads, (q, k, v), n/heads], as in OpenAI's checkpoints.
        q, k, v = qkv.view(N * self.heads, 3, n // self.heads, H * W).unbind(1)
        h = attend(q, k, v).reshape(N, n, H * W)
        return x + self.project(h).view(N, n, H, W)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention over the last axis; q, k, v: [N * heads, d, L] -> the same."""
    if q.device.type == "cpu":
        # On the CPU two plain matrix products are a tenth of a training step faster at 8x8 pixels.
        weights = torch.softmax((q * q.shape[1] ** -0.5).transpose(1, 2) @ k, dim=-1)
        return v @ weights.transpose(1, 2)
    q, k, v = (z.transpose(1, 2) for z in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class Downsample(nn.Conv2d):
    """Halves the resolution by a strided convolution."""

    def __init__(self, n: int):
        super().__init__(n, n, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Doubles the resolution by repetition, then a convolution; both in one step.

    A repeated pixel meets neighbouring weights with the same value. Their sums are the kernel, of
    4 x 4 and stride 2, of a transposed convolution with 4/9 of the multiplications.
    """

    def __init__(self, n: int):
        super().__init__(n, n, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, n, H, W] -> [N, n, 2H, 2W]."""
        w = F.pad(self.weight.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))
        w = w[:, :, 1:] + w[:, :, :-1]
        w = w[..., 1:] + w[..., :-1]
        return F.conv_transpose2d(x, w, self.bias, stride=2, padding=1)


def sinusoids(time: Tensor, n: int) -> Tensor:
    """Cosines and sines of `time` [N] at n/2 frequencies from 1 to nearly 1e-4: [N, n], float32."""
    half = n // 2
    frequency = torch.exp(
        torch.arange(half, device=time.device, dtype=torch.float32) * (-math.log(10_000) / half)
    )
    angle = time.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def group_norm(n: int) -> nn.GroupNorm:
    """GroupNorm with the paper's 32 groups where 64 channels or more allow them.

    Narrower networks get groups of four channels: 32 groups of one or of half a channel would
    remove what a channel says about the whole image, or not exist.
    """
    if n >= 64 and n % 32 == 0:
        return nn.GroupNorm(32, n)
    return nn.GroupNorm(n // math.gcd(n, 4), n)


def conditioned_norm(norm: nn.GroupNorm, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """norm(x) * scale + shift, in one pass. x: [N, n, H, W];  scale, shift: [N, n].

    N contiguous images are normalised as one image with N times the channels and groups, whose
    affine parameters may then differ between images.
    """
    N, n, H, W = x.shape
    weight, bias = norm.weight * scale, torch.addcmul(shift, norm.bias, scale)
    if not x.is_contiguous():  # channels last: images cannot be channels without a copy
        return torch.addcmul(shift[:, :, None, None], norm(x), scale[:, :, None, None])
    h = x.view(1, N * n, H, W)
    h = F.group_norm(h, N * norm.num_groups, weight.view(-1), bias.view(-1), norm.eps)
    return h.view(N, n, H, W)


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all parameters zero, so that its block begins as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
