"""Our UNet as the UNet2DModel of Hugging Face's diffusers: its configuration and its state.

diffusers itself is not needed. Where UNet2DModel has no setting for what a network is, Refused.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from core.config import UNetConfig
from core.diffusion.process import Diffusion
from core.errors import Refused
from core.networks.unet import Attention, Downsample, ResidualBlock, UNet, Upsample, sinusoids

OUTER = {
    "time_embedding.0": "time_embedding.linear_1",
    "time_embedding.2": "time_embedding.linear_2",
    "label_embedding": "class_embedding",
    "down.0.0": "conv_in",
    "middle.0": "mid_block.resnets.0",
    "middle.1": "mid_block.attentions.0",
    "middle.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
BLOCK = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "condition": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "skip": "conv_shortcut",
}


def architecture(unet: UNetConfig, size: int, in_channels: int, out_channels: int) -> dict:
    """The settings of UNet2DModel that say what follows what, at which width.

    Without heads and groups of norms, of which it has fewer kinds than we have.
    """
    widths = [mult * unet.base for mult in unet.channel_mult]
    attention = ["Attn" if size >> level in unet.attention else "" for level in range(len(widths))]
    return {
        "sample_size": size,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "layers_per_block": unet.res_blocks,
        "block_out_channels": widths,
        "down_block_types": [f"{kind}DownBlock2D" for kind in attention],
        "up_block_types": [f"{kind}UpBlock2D" for kind in attention[::-1]],
        "dropout": unet.dropout,
        "resnet_time_scale_shift": (
            "scale_shift" if unet.conditioning == "scale_shift" else "default"
        ),
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def heads_and_groups(model: UNet) -> dict:
    """The settings of UNet2DModel for attention, whose heads have one width, and for norms.

    Refused when the network has heads of several widths, or norms of several numbers of groups.
    """
    groups = sorted({m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)})
    if len(groups) > 1:
        raise Refused(
            "diffusers' UNet2DModel has as many groups in every norm, and this network has "
            f"{_listed(groups)}, as all that are narrower than 64 channels"
        )
    places = [m for m in model.modules() if isinstance(m, Attention)]
    widths = sorted({m.norm.num_channels // m.heads for m in places})
    if len(widths) > 1 and places[0].heads > 1:
        raise Refused(
            "diffusers' UNet2DModel has attention heads of one width, and the "
            f"{places[0].heads} heads of this network are {_listed(widths)} channels wide"
        )
    return {
        "attention_head_dim": widths[0] if len(widths) == 1 else None,  # None: one head
        "norm_num_groups": groups[0],
        "attn_norm_num_groups": groups[0],  # of the middle; without it there is no norm there
    }


def time_settings(diffusion: Diffusion) -> tuple[dict, Tensor | None]:
    """The settings for a network that is told t - 1 in 0..T-1, and the table that they need.

    UNet2DModel cannot rescale the time that a scheduler gives it. Where our networks are told
    another scale, each t has its own embedding instead, with the times as we tell them.
    """
    T = diffusion.schedule.T
    told = diffusion.network_time(torch.arange(1, T + 1))
    if torch.equal(told, torch.arange(T, dtype=told.dtype)):
        return {"time_embedding_type": "positional"}, None
    return {"time_embedding_type": "learned", "num_train_timesteps": T}, told


def state(model: UNet, weights: Mapping[str, Tensor], told: Tensor | None) -> dict[str, Tensor]:
    """`weights` of `model` under the names of UNet2DModel; told: the table of `time_settings`."""
    layers = _layers(model)
    found = {} if told is None else {"time_proj.weight": sinusoids(told, model.channels)}
    for name, x in weights.items():
        layer, _, parameter = name.rpartition(".")
        theirs = layers[layer]
        if theirs.endswith(".qkv"):
            place = theirs.removesuffix(".qkv")
            heads = model.get_submodule(layer.removesuffix(".qkv")).heads
            # Ours are ordered [heads, (q, k, v), width]; theirs are three layers of [heads, width].
            parts = x.reshape(heads, 3, -1, *x.shape[1:2]).unbind(1)
            for part, kind in zip(parts, "qkv"):
                found[f"{place}.to_{kind}.{parameter}"] = part.reshape(-1, *x.shape[1:2])
        elif theirs.endswith(".to_out.0"):
            found[f"{theirs}.{parameter}"] = x.reshape(x.shape[:2])  # a convolution of one pixel
        else:
            found[f"{theirs}.{parameter}"] = x
    return {name: x.contiguous() for name, x in found.items()}


def _layers(model: UNet) -> dict[str, str]:
    """Our name of every layer that has parameters -> UNet2DModel's; that of qkv is no layer."""
    places = dict(OUTER)
    level = block = 0
    for i, stage in enumerate(model.down):
        for j, layer in enumerate(stage):
            if isinstance(layer, Downsample):
                places[f"down.{i}.{j}"] = f"down_blocks.{level}.downsamplers.0.conv"
                level, block = level + 1, 0
            elif isinstance(layer, ResidualBlock):
                places[f"down.{i}.{j}"] = f"down_blocks.{level}.resnets.{block}"
                block += 1
            elif isinstance(layer, Attention):
                places[f"down.{i}.{j}"] = f"down_blocks.{level}.attentions.{block - 1}"
    level = block = 0
    for i, stage in enumerate(model.up):
        for j, layer in enumerate(stage):
            if isinstance(layer, Upsample):
                places[f"up.{i}.{j}"] = f"up_blocks.{level}.upsamplers.0.conv"
                level, block = level + 1, -1
            else:
                kind = "resnets" if isinstance(layer, ResidualBlock) else "attentions"
                places[f"up.{i}.{j}"] = f"up_blocks.{level}.{kind}.{block}"
        block += 1
    for name, layer in model.named_modules():
        if isinstance(layer, ResidualBlock):
            places |= {f"{name}.{ours}": f"{places[name]}.{o}" for ours, o in BLOCK.items()}
        elif isinstance(layer, Attention):
            inner = {"norm": "group_norm", "qkv": "qkv", "project": "to_out.0"}
            places |= {f"{name}.{ours}": f"{places[name]}.{o}" for ours, o in inner.items()}
    return places


def _listed(numbers: list[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
