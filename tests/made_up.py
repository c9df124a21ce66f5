"""Made-up sources of images, and the command that prepares them."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import Refused
from experiments import prepare

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def run(*words):
    """The command in this process; it must succeed."""
    assert prepare.main([str(word) for word in words]) == 0


def refusal(*words):
    """The one line with which the command refuses; nothing is left behind."""
    with pytest.raises(Refused) as caught:
        prepare.main([str(word) for word in words])
    message = str(caught.value)
    assert "\n" not in message
    out = Path(words[1])
    assert not out.exists() and not list(out.parent.glob(f".{out.name}*"))
    return message


def encoded(pixels, kind="PNG", **how):
    """The bytes of an image file; pixels [H, W] or [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def fill(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def pictures(n=30, size=16, colours=False):
    shape = (size, size, 3) if colours else (size, size)
    return {f"{'ab'[i % 2]}/{i:03}.png": noise(*shape) for i in range(n)}
