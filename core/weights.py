"""Trained averages as safetensors, with what they are in the file's metadata.

Smaller than a snapshot, and readable by any tool: the first average of the weights alone, under the
names of the network's parameters.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from core.errors import Refused


def to_bytes(snapshot: dict) -> bytes:
    """A file's content, of a snapshot (core/trainer.py)."""
    about = {key: json.dumps(snapshot[key]) for key in ("images", "step")}
    tensors = {name: x.contiguous() for name, x in snapshot["ema"]["0"].items()}
    return save(tensors, about | {"config": snapshot["config"]})


def alike(a: dict, b: dict) -> bool:
    """Whether two snapshots have the same first average, of the same configuration."""
    mine, other = a["ema"]["0"], b["ema"]["0"]
    alike = a["config"] == b["config"] and mine.keys() == other.keys()
    return alike and all(torch.equal(mine[name], other[name]) for name in mine)


def read(path: Path) -> dict:
    """A snapshot whose only weights are its first average. Refused when the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = {key: json.loads(about[key]) for key in ("images", "step")}
        return found | {"config": about["config"], "ema": {"0": tensors}}
    except (SafetensorError, OSError, TypeError, LookupError, ValueError, RecursionError) as error:
        raise Refused(f"{path} is missing or damaged: restore it from git", 1) from error
