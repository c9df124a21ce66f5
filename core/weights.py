"""Trained averages as safetensors, with what they are in the file's metadata.

Smaller than a snapshot, and readable by any tool: the first average of the weights alone, under the
names of the network's parameters.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from core.errors import Refused

MALFORMED = TypeError, LookupError, ValueError, RecursionError, AttributeError
KEYS = {"images", "step", "config"}  # of what a file says of its weights


def to_bytes(snapshot: dict) -> bytes:
    """A file's content, of a snapshot (core/any_trainer.py)."""
    about = {key: json.dumps(snapshot[key]) for key in ("images", "step")}
    about["config"] = snapshot["config"]
    tensors = {name: x.contiguous() for name, x in snapshot["ema"]["0"].items()}
    return save(tensors, about | {"sha256": _digest(tensors, about)})


def _digest(tensors: dict[str, torch.Tensor], about: dict[str, str]) -> str:
    """SHA-256 of all that a file says, whatever the order."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {list(x.shape)}".encode())
        digest.update(x.view(torch.uint8).numpy())
    return digest.hexdigest()


def alike(a: dict, b: dict) -> bool:
    """Whether two snapshots have the same first average, of the same configuration."""
    mine, other = a["ema"]["0"], b["ema"]["0"]
    alike = a["config"] == b["config"] and mine.keys() == other.keys()
    return alike and all(torch.equal(mine[name], other[name]) for name in mine)


def read(path: Path) -> dict:
    """A snapshot whose only weights are its first average. Refused when the file is damaged.

    Files of earlier versions have no checksum and are taken as they are.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksum = about.pop("sha256", None)
        if checksum != _digest(tensors, about) and not (checksum is None and set(about) == KEYS):
            raise ValueError("another checksum")
        found = {key: json.loads(about[key]) for key in ("images", "step")}
        return found | {"config": about["config"], "ema": {"0": tensors}}
    except (SafetensorError, OSError, *MALFORMED) as error:
        raise Refused(f"{path} is missing or damaged: restore it from git", 1) from error
