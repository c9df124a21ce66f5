"""Take weights that openai/improved-diffusion released, as a run that can be measured.

    python experiments/import_openai.py FILE.pt [data_path=FOLDER] [model=NAME] [results=FOLDER]

data_path: the images, in a folder or .zip, that it will be measured on; they are part of a run's
identity, and without them it can be exported only. Images larger than the model's are averaged to
its size. model: which of the released models the file is, where neither its name nor its
parameters say so. Nothing is downloaded; FILE is left as it is.
"""

import hashlib
import json
import os
import shlex
import shutil
import time
from pathlib import Path

import torch

from core import checkpoint
from core.command import start
from core.config import TrainConfig, from_dict, to_dict
from core.data.identity import content_digest
from core.data.sources import load_once
from core.errors import Refused
from core.interop import openai
from core.interop.released import CHANNELS, Released, named, recognised
from core.training import SNAPSHOT
from experiments import provenance, records
from experiments.files import read_json, write_json
from experiments.grid import expand
from experiments.overrides import ROOT, dotted, parse
from experiments.runs import Run, Runs, digest

KEYS = ("data_path", "model", "results")


def import_file(path: Path, results: Path, data_path: str = "", model: str = "") -> Run:
    """The run of the file's weights, made if it is not there yet: whole or not at all.

    Refused when the file is not one of the released models, the images are none that it can be
    measured on, or the run's folder is taken.
    """
    began, state = time.monotonic(), openai.read(path)
    found = {name: tuple(x.shape) for name, x in state.items()}
    released = named(model) if model else recognised(path, found)
    ema = openai.from_openai(released.network(), state, path.name)
    averaged, classes = _fitting(released, data_path)
    config = released.config(content_digest(Path(data_path)) if data_path else "", averaged)
    run = Runs(results / "runs").find(digest(config), config)
    record = {"source": "openai", "model": released.name, "file": path.name}
    with open(path, "rb") as file:
        record["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    if run.trained:
        if run.provenance.get("sha256") == record["sha256"]:
            return run
        raise Refused(f"{run.folder} holds weights of another file: move it away")
    snapshot = {
        "config": json.dumps(to_dict(config)),
        "images": [CHANNELS, released.size, classes],
        "step": released.steps,
        "ema": {"0": ema},
    }
    made = run.folder.with_name(f".{run.folder.name}.{os.getpid()}.tmp")
    try:
        write_json(made / "config.json", to_dict(config))
        checkpoint.save(made / "checkpoints", SNAPSHOT, released.steps, snapshot)
        seconds = time.monotonic() - began
        record = provenance.record(seconds, "cpu", torch.get_num_threads(), **record)
        records.finish(made, record)
        # All that can be there is what was asked of it too early: nothing trains such a run.
        shutil.rmtree(run.folder, ignore_errors=True)
        os.rename(made, run.folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return run


def _fitting(released: Released, data_path: str) -> tuple[bool, int]:
    """Whether the images are averaged to the model's size, and how many classes they have."""
    if not data_path:
        return False, released.classes
    images, size = load_once("folder", "test", data_path), released.size
    averaged = images.size != size
    fits = not averaged or (images.size % size == 0 and not released.enlarges)
    if images.channels != CHANNELS or not fits:
        raise Refused(
            f"{released.name} draws RGB images of {size}x{size}, and those of {data_path} are "
            f"{images.size}x{images.size} with {images.channels} channel(s): give others"
        )
    if released.classes and images.classes != released.classes:
        raise Refused(
            f"{released.name} knows {released.classes} classes, and {data_path} has "
            f"{images.classes}: put each class in a sub-folder, named so that their order is its"
        )
    return averaged, images.classes


def measuring(config: TrainConfig, results: Path, data_path: str) -> list[str]:
    """The words of the command line that measures such a run, by the grid `single`."""
    scale = "cifar10" if config.unet.channel_mult == (1, 2, 2, 2) else "imagenet64"
    words = ["grid=single", f"scale={scale}", f"data_path={data_path}"]
    if results != ROOT / "results":
        words.append(f"results={results}")
    (cell,) = expand(parse(words)).cells
    usual, wanted = dotted(to_dict(cell.config)), dotted(to_dict(config))
    changed = {key: value for key, value in wanted.items() if usual.get(key) != value}
    if config.unet.class_conditional:  # Table 4
        changed |= {"measure.fd.images": 50000, "measure.fd.sampler.steps": 250}
        changed |= {"measure.fd.neighbours": 5}
    return words + [f"{key}={_word(value)}" for key, value in changed.items()]


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def main(words: list[str]) -> None:
    """The command line."""
    path, given = Path(words[0]), dict(word.partition("=")[::2] for word in words[1:])
    if unknown := given.keys() - set(KEYS):
        raise Refused(f"'{min(unknown)}': after the file come {', '.join(f'{k}=' for k in KEYS)}")
    data_path, results = given.get("data_path", ""), Path(given.get("results", ROOT / "results"))
    run = import_file(path, results.resolve(), data_path, given.get("model", ""))
    print(f"{run.folder}")
    stored = read_json(run.folder / "config.json")
    if not data_path:
        print("without data_path=FOLDER it can be exported, and not measured")
    elif stored["data"].get("low"):
        print("a network that enlarges is measured with one that draws, as grid=two_stage does")
    else:
        config = from_dict(TrainConfig, stored)
        command = measuring(config, results.resolve(), data_path)
        print(f"to measure it:  python experiments/run.py {shlex.join(command)}")


if __name__ == "__main__":
    start(main, needs_words=True)
