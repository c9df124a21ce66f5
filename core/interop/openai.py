"""Weights of openai/improved-diffusion: its names of our parameters, and files read under ours.

    python -m core.interop.openai import FILE.pt [data_path=FOLDER] [model=NAME] [results=FOLDER]

The command makes a run of a file, as experiments/import_openai.py does, whose --help says more.
Its UNetModel, and SuperResModel where the network enlarges, are the function that
core/networks/unet.py computes, with the same tensors under other names.
"""

import runpy
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from core.command import start
from core.errors import Refused, first_line
from core.networks.unet import Attention, Downsample, ResidualBlock, UNet, Upsample

PLACES = {
    "time_embedding": "time_embed",
    "label_embedding": "label_emb",
    "down": "input_blocks",
    "middle": "middle_block",
    "up": "output_blocks",
    "out": "out",
}
LAYERS = {
    ResidualBlock: {
        "norm_in": "in_layers.0",
        "conv_in": "in_layers.2",
        "condition": "emb_layers.1",
        "norm_out": "out_layers.0",
        "conv_out": "out_layers.3",
        "skip": "skip_connection",
    },
    Attention: {"norm": "norm", "qkv": "qkv", "project": "proj_out"},
    Downsample: {"": "op"},
    Upsample: {"": "conv"},
}
NAMED = 4  # parameters that a message names before it only counts them

Shapes = dict[str, tuple[int, ...]]


def names(model: UNet) -> dict[str, str]:
    """Our name of every parameter -> OpenAI's."""
    layers = {}
    for prefix, layer in model.named_modules():
        for ours, theirs in LAYERS.get(type(layer), {}).items():
            layers[f"{prefix}.{ours}" if ours else prefix] = f"{prefix}.{theirs}"

    def theirs(name: str) -> str:
        layer, _, parameter = name.rpartition(".")
        place, dot, inside = layers.get(layer, layer).partition(".")
        return f"{PLACES[place]}{dot}{inside}.{parameter}"

    return {name: theirs(name) for name in model.state_dict()}


def shapes(model: UNet) -> Shapes:
    """OpenAI's name of every parameter -> its shape."""
    ours = model.state_dict()
    return {theirs: tuple(ours[name].shape) for name, theirs in names(model).items()}


def to_openai(model: UNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of `model` under OpenAI's names."""
    return {theirs: state[name] for name, theirs in names(model).items()}


def from_openai(model: UNet, state: Mapping[str, Tensor], what: object) -> dict[str, Tensor]:
    """A state under OpenAI's names as one of `model`, float32.

    what: whose state it is, for people. Refused, naming them, when parameters are missing, left
    over, or of another shape.
    """
    wanted = shapes(model)
    faults = {
        "missing": wanted.keys() - state.keys(),
        "left over": state.keys() - wanted.keys(),
        "of another shape": {
            name for name in wanted.keys() & state.keys() if state[name].shape != wanted[name]
        },
    }
    found = [f"{_listed(of)} {of_what}" for of_what, of in faults.items() if of]
    if found:
        raise Refused(f"{what} does not fit the network: {'; '.join(found)}")
    ours = {name: state[theirs].detach().float() for name, theirs in names(model).items()}
    if wild := [name for name, x in ours.items() if not torch.isfinite(x).all()]:
        raise Refused(f"{what} has numbers that are not finite, as in {wild[0]}: download it again")
    return ours


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file as PyTorch's `save` writes it; no code in it is run.

    Refused when there is no such file, it is damaged, or it holds anything else than named tensors.
    """
    if not path.is_file():
        raise Refused(f"{path} does not exist: give a .pt file of openai/improved-diffusion")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises nearly anything for a damaged file
        reason = first_line(error)[:100]
        raise Refused(f"{path} cannot be read as weights ({reason}): download it again") from error
    tensors = isinstance(state, Mapping) and all(
        isinstance(name, str) and isinstance(x, Tensor) and x.is_floating_point()
        for name, x in state.items()
    )
    if not tensors:
        raise Refused(f"{path} holds other things than weights: give an ema_*.pt or a released .pt")
    return dict(state)


def _listed(names: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {more} more" if more > 0 else "")


def main(words: list[str]) -> None:
    """The command line."""
    if words[0] != "import":
        raise Refused(f"'{words[0]}': give import FILE.pt [data_path=FOLDER]")
    # Runs lie above core, which imports nothing of experiments.
    sys.argv[1:] = words[1:]
    runpy.run_module("experiments.import_openai", run_name="__main__")


if __name__ == "__main__":
    start(main, needs_words=True)
