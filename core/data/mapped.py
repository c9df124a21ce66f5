"""A prepared file as images: its pixels stay in the file, and are read as batches ask for them."""

import warnings
from pathlib import Path

import numpy as np
import torch

from core.data.images import Images
from core.data.original import Split
from core.data.prepared import read_header, refuse_labels


def load_prepared(path: Path, split: Split) -> Images:
    """One split of a prepared file. Processes that load it share one copy of what they have read.

    Its header is checked, its pixels are not: experiments/prepare.py verify does that.
    """
    header = read_header(path)
    begin, _ = header.places[f"{split}.pixels"]
    pixels = np.memmap(path, np.uint8, "r", begin, header.shape(split))
    labels = None
    if header.classes:
        begin, _ = header.places[f"{split}.labels"]
        labels = np.fromfile(path, "<i8", header.count[split], offset=begin).astype(np.int64)
        refuse_labels(labels, path, len(header.classes))
        labels = torch.from_numpy(labels)
    with warnings.catch_warnings():
        # PyTorch cannot mark a tensor as read-only; images are never written to.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        mapped = torch.from_numpy(pixels)
    name = f"{path.resolve().stem} {split}"
    return Images(name, mapped, labels, len(header.classes), header.checksums[split][:16])
