"""The UNet as a textbook writes it: the yardstick for core/networks/unet.py, same function.

One module per operation, attention with einsum and heads split by reshaping, the embedding's SiLU
in every block, nn.GroupNorm in the framework's default layout. Parameters are named as in the core
network, so that both can be given the same weights. Not tuned, on purpose.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def timestep_embedding(timesteps, dim, max_period=10_000):
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32) / half)
    args = timesteps[:, None].float() * freqs[None].to(timesteps.device)
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


def normalization(channels):
    groups = 32 if channels >= 64 and channels % 32 == 0 else channels // math.gcd(channels, 4)
    return nn.GroupNorm(groups, channels)


class ResBlock(nn.Module):
    def __init__(self, in_channels, out_channels, emb_channels, dropout, scale_shift):
        super().__init__()
        self.scale_shift = scale_shift
        self.norm_in = normalization(in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.act = nn.SiLU()
        self.condition = nn.Linear(emb_channels, 2 * out_channels if scale_shift else out_channels)
        self.norm_out = normalization(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels == out_channels:
            self.skip = nn.Identity()
        else:
            self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x, emb):
        h = self.conv_in(self.act(self.norm_in(x)))
        emb = self.condition(self.act(emb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = torch.chunk(emb, 2, dim=1)
            h = self.norm_out(h) * (1 + scale) + shift
        else:
            h = self.norm_out(h + emb)
        h = self.conv_out(self.dropout(self.act(h)))
        return self.skip(x) + h


class AttentionBlock(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm = normalization(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.project = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        b, c, *spatial = x.shape
        x = x.reshape(b, c, -1)
        qkv = self.qkv(self.norm(x))
        qkv = qkv.reshape(b * self.heads, 3 * c // self.heads, -1)
        q, k, v = torch.split(qkv, c // self.heads, dim=1)
        scale = 1 / math.sqrt(math.sqrt(c // self.heads))
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q * scale, k * scale), dim=-1)
        h = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, -1)
        return (x + self.project(h)).reshape(b, c, *spatial)


class Downsample(nn.Conv2d):
    def __init__(self, channels):
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    def __init__(self, channels):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class Stage(nn.ModuleList):
    def forward(self, x, emb):
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class TextbookUNet(nn.Module):
    """The arguments of core.networks.unet.UNet, without classes; same parameters, same function."""

    def __init__(
        self,
        size,
        in_channels,
        out_channels,
        channels,
        channel_mult,
        res_blocks,
        attention,
        heads=4,
        dropout=0.0,
        conditioning="scale_shift",
    ):
        super().__init__()
        self.channels = channels
        emb = 4 * channels
        scale_shift = conditioning == "scale_shift"
        self.time_embedding = nn.Sequential(
            nn.Linear(channels, emb), nn.SiLU(), nn.Linear(emb, emb)
        )
        self.down = nn.ModuleList([Stage([nn.Conv2d(in_channels, channels, 3, padding=1)])])
        skips, width = [channels], channels
        for level, mult in enumerate(channel_mult):
            if level > 0:
                self.down.append(Stage([Downsample(width)]))
                skips.append(width)
                size //= 2
            for _ in range(res_blocks):
                layers = [ResBlock(width, mult * channels, emb, dropout, scale_shift)]
                width = mult * channels
                if size in attention:
                    layers.append(AttentionBlock(width, heads))
                self.down.append(Stage(layers))
                skips.append(width)
        self.middle = Stage(
            [
                ResBlock(width, width, emb, dropout, scale_shift),
                AttentionBlock(width, heads),
                ResBlock(width, width, emb, dropout, scale_shift),
            ]
        )
        self.up = nn.ModuleList()
        for level, mult in list(enumerate(channel_mult))[::-1]:
            for i in range(res_blocks + 1):
                layers = [ResBlock(width + skips.pop(), mult * channels, emb, dropout, scale_shift)]
                width = mult * channels
                if size in attention:
                    layers.append(AttentionBlock(width, heads))
                if level > 0 and i == res_blocks:
                    layers.append(Upsample(width))
                    size *= 2
                self.up.append(Stage(layers))
        self.out = nn.Sequential(
            normalization(width), nn.SiLU(), nn.Conv2d(width, out_channels, 3, padding=1)
        )

    def forward(self, x, timesteps):
        emb = timestep_embedding(timesteps, self.channels).to(x.dtype)
        emb = self.time_embedding(emb)
        hs = []
        for stage in self.down:
            x = stage(x, emb)
            hs.append(x)
        x = self.middle(x, emb)
        for stage in self.up:
            x = stage(torch.cat([x, hs.pop()], dim=1), emb)
        return self.out(x)


def training_step(model, images, lr=1e-4, decay=0.99):
    """The loop of a tutorial: returns a function that does one step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    average = [p.detach().clone() for p in model.parameters()]
    alpha_bar = torch.cos(torch.linspace(0, 1, 4001)[:-1] * math.pi / 2) ** 2

    def step():
        t = torch.randint(0, 4000, (len(images),))
        noise = torch.randn_like(images)
        a = alpha_bar[t][:, None, None, None]
        out = model(a.sqrt() * images + (1 - a).sqrt() * noise, t / 4)
        loss = F.mse_loss(out[:, : images.shape[1]], noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, p in zip(average, model.parameters()):
                mean.mul_(decay).add_(p, alpha=1 - decay)

    return step
