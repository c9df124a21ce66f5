"""The UNetModel and SuperResModel of openai/improved-diffusion, rewritten from its description.

Only what its published flags can reach. Names of modules are its own, so that a state has its
names; none of our code is used. Embeddings take the dtype of the images, for float64.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def norm(channels):
    return nn.GroupNorm(32, channels)


class Block(nn.Module):
    def __init__(self, n_in, n_out, n_emb, dropout, scale_shift):
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(norm(n_in), nn.SiLU(), nn.Conv2d(n_in, n_out, 3, padding=1))
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(n_emb, 2 * n_out if scale_shift else n_out)
        )
        self.out_layers = nn.Sequential(
            norm(n_out), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(n_out, n_out, 3, padding=1)
        )
        same = n_in == n_out
        self.skip_connection = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1)

    def forward(self, x, emb):
        h, e = self.in_layers(x), self.emb_layers(emb)[..., None, None]
        if self.scale_shift:
            n = e.shape[1] // 2
            h = self.out_layers[0](h) * (1 + e[:, :n]) + e[:, n:]
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + e)
        return self.skip_connection(x) + h


class Attend(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        flat = x.flatten(2)
        n, channels, pixels = flat.shape
        of_head = self.qkv(self.norm(flat)).reshape(n * self.heads, -1, pixels)
        d = channels // self.heads
        q, k, v = of_head[:, :d], of_head[:, d : 2 * d], of_head[:, 2 * d :]
        root = d**-0.25
        weight = torch.einsum("bct,bcs->bts", q * root, k * root).softmax(dim=-1)
        h = torch.einsum("bts,bcs->bct", weight, v).reshape(n, channels, pixels)
        return (flat + self.proj_out(h)).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Steps(nn.Sequential):
    def forward(self, x, emb):
        for layer in self:
            x = layer(x, emb) if isinstance(layer, Block) else layer(x)
        return x


def timestep_embedding(t, n):
    rates = torch.exp(-math.log(10000) * torch.arange(n // 2, dtype=torch.float32) / (n // 2))
    angles = t[:, None].float() * rates[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class UNetModel(nn.Module):
    """attention: by how much an image was halved where there is attention, as 4 and 8."""

    def __init__(
        self,
        in_channels,
        model_channels,
        out_channels,
        num_res_blocks,
        attention,
        channel_mult,
        num_heads,
        scale_shift,
        num_classes=None,
        dropout=0.0,
    ):
        super().__init__()
        C = self.model_channels = model_channels
        emb = 4 * C
        self.time_embed = nn.Sequential(nn.Linear(C, emb), nn.SiLU(), nn.Linear(emb, emb))
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, emb)

        def block(n_in, n_out):
            return Block(n_in, n_out, emb, dropout, scale_shift)

        blocks, widths, n, halved = [Steps(nn.Conv2d(in_channels, C, 3, padding=1))], [C], C, 1
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers = [block(n, mult * C)]
                n = mult * C
                if halved in attention:
                    layers.append(Attend(n, num_heads))
                blocks.append(Steps(*layers))
                widths.append(n)
            if level < len(channel_mult) - 1:
                blocks.append(Steps(Down(n)))
                widths.append(n)
                halved *= 2
        self.input_blocks = nn.ModuleList(blocks)
        self.middle_block = Steps(block(n, n), Attend(n, num_heads), block(n, n))
        blocks = []
        for level in range(len(channel_mult) - 1, -1, -1):
            for i in range(num_res_blocks + 1):
                layers = [block(n + widths.pop(), C * channel_mult[level])]
                n = C * channel_mult[level]
                if halved in attention:
                    layers.append(Attend(n, num_heads))
                if level > 0 and i == num_res_blocks:
                    layers.append(Up(n))
                    halved //= 2
                blocks.append(Steps(*layers))
        self.output_blocks = nn.ModuleList(blocks)
        self.out = nn.Sequential(norm(n), nn.SiLU(), nn.Conv2d(C, out_channels, 3, padding=1))

    def forward(self, x, t, y=None):
        emb = self.time_embed(timestep_embedding(t, self.model_channels).to(x.dtype))
        if y is not None:
            emb = emb + self.label_emb(y)
        kept = []
        for block in self.input_blocks:
            x = block(x, emb)
            kept.append(x)
        x = self.middle_block(x, emb)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], dim=1), emb)
        return self.out(x)


class SuperResModel(UNetModel):
    def __init__(self, in_channels, *args, **settings):
        super().__init__(2 * in_channels, *args, **settings)

    def forward(self, x, t, low_res, y=None):
        large = F.interpolate(low_res, x.shape[2:], mode="bilinear")
        return super().forward(torch.cat([x, large], dim=1), t, y)


def filled(model: nn.Module) -> nn.Module:
    """The model in eval mode with random weights everywhere: none are zero, as at the beginning."""
    generator = torch.Generator().manual_seed(0)
    for name, x in sorted(model.state_dict().items()):
        noise = torch.randn(x.shape, generator=generator)
        unit = name.endswith(".weight") and x.dim() == 1  # of a GroupNorm
        x.copy_(1 + 0.1 * noise if unit else noise / max(1, x[0].numel()) ** 0.5)
    return model.eval()
