"""Weights, arrays and checkpoints that carry code: it is never run, and the file is named."""

import hashlib
import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hostile import Trap, refusal
from test_training import IMAGES, KEEPING, tiny, train_until, with_optim

from analysis.load import read_arrays
from core import checkpoint, parts
from core.config import Housekeeping
from core.data.imagenet64 import open_imagenet64
from core.data.original import Options
from core.errors import Refused
from core.interop import openai
from core.metrics import reference
from core.metrics.inception import InceptionFeatures
from core.trained import load_trained
from core.training import RESUME, SNAPSHOT, train


@pytest.fixture
def trace(tmp_path):
    """Must not exist when the test ends, and does when somebody unpickles a trap."""
    path = tmp_path / "was-here"
    yield path
    assert not path.exists()
    pickle.loads(pickle.dumps(Trap(path)))
    assert path.exists()


def content(kind: str, trace) -> bytes:
    """A file of weights of each form that PyTorch reads."""
    if kind == "pickle":
        return pickle.dumps({"weight": Trap(trace)})
    file = io.BytesIO()
    zipped = kind == "zip"
    torch.save({"weight": Trap(trace)}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


FORMS = ("zip", "legacy", "pickle")


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_with_the_right_digest_in_its_name_is_refused(form, trace, tmp_path):
    """Of a results folder from elsewhere: the digest tells damage, not origin."""
    made = content(form, trace)
    digest = hashlib.sha256(made).hexdigest()[:16]
    (tmp_path / "checkpoints").mkdir()
    for kind in (RESUME, SNAPSHOT):
        (tmp_path / "checkpoints" / f"{kind}-00000006.{digest}.pt").write_bytes(made)
    says = refusal(train, tiny(), IMAGES, tmp_path, KEEPING)
    assert f"checkpoint-00000006.{digest}.pt holds something else than a training's state" in says
    says = refusal(load_trained, tmp_path, tiny(), 1.0, 0, Housekeeping(device="cpu"))
    assert f"snapshot-00000006.{digest}.pt holds something else" in says


def test_a_checkpoint_of_plain_values_that_is_no_state_is_refused(tmp_path):
    for state in ({"step": 3}, [1, 2], {"step": "x", "model": {}}):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        if isinstance(state, dict):
            checkpoint.save(folder / "checkpoints", RESUME, 3, state)
        else:
            file = io.BytesIO()
            torch.save(state, file)
            name = f"checkpoint-3.{hashlib.sha256(file.getvalue()).hexdigest()[:16]}.pt"
            (folder / "checkpoints").mkdir(parents=True)
            (folder / "checkpoints" / name).write_bytes(file.getvalue())
        says = refusal(train, tiny(), IMAGES, folder, KEEPING)
        assert "delete it and run the same command again" in says and str(folder) in says


def test_a_checkpoint_of_another_network_is_refused_and_stays(tmp_path):
    train_until(3, tiny(), tmp_path)
    other = with_optim(tiny(channels=32), ema=(0.9,))
    says = refusal(train, other, IMAGES, tmp_path, KEEPING)
    assert "does not fit this run (size mismatch for" in says
    assert checkpoint.newest(tmp_path / "checkpoints", RESUME)["step"] == 3


@pytest.mark.parametrize(
    "images", [[3, 10**6, 0], [10**9, 8, 0], [1, 8, 10**12], [1, 8], "nonsense"]
)
def test_a_snapshot_cannot_ask_for_a_network_without_end(images, tmp_path):
    train(tiny(steps=1), IMAGES, tmp_path, KEEPING)
    (path,) = checkpoint.paths(tmp_path / "checkpoints", SNAPSHOT)
    state = checkpoint.load(path)
    path.unlink()
    checkpoint.save(path.parent, SNAPSHOT, 1, state | {"images": images})
    says = refusal(load_trained, tmp_path, tiny(steps=1), 1.0, 0, Housekeeping(device="cpu"))
    assert "does not fit this run" in says and "snapshot-00000001" in says


@pytest.mark.parametrize("form", FORMS)
def test_an_imported_file_is_refused(form, trace, tmp_path):
    (tmp_path / "ema.pt").write_bytes(content(form, trace))
    assert "ema.pt cannot be read as weights" in refusal(openai.read, tmp_path / "ema.pt")


def test_imported_weights_are_named_and_finite(tmp_path):
    torch.save({1: torch.zeros(2)}, tmp_path / "a.pt")
    assert "holds other things than weights" in refusal(openai.read, tmp_path / "a.pt")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_features_is_refused_even_when_it_is_asked_for(form, trace, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(made := content(form, trace))
    sha256 = hashlib.sha256(made).hexdigest()
    assert "holds no Inception-v3" in refusal(InceptionFeatures, str(path), sha256)


class Writes(torch.nn.Module):
    """TorchScript is code: this network makes a file."""

    def __init__(self, path: str):
        super().__init__()
        self.path: str = path

    def forward(self, x: torch.Tensor, return_features: bool = True) -> torch.Tensor:
        return x + torch.from_file(self.path, True, 4).sum()


def test_a_script_is_not_even_loaded_unless_it_is_the_known_one_or_asked_for(tmp_path):
    trace, path = tmp_path / "was-here", tmp_path / "inception.pt"
    torch.jit.script(Writes(str(trace))).save(path)
    says = refusal(InceptionFeatures, str(path))
    assert "is neither NVIDIA's" in says and not trace.exists()
    assert "asked for is" in refusal(InceptionFeatures, str(path), "0" * 64)
    assert not trace.exists()
    torch.jit.load(path)(torch.zeros(1))
    assert trace.exists()  # it would have


def objects(trace) -> np.ndarray:
    array = np.empty(4, dtype=object)
    array[:] = [Trap(trace)] * 4
    return array


def write_npz(path, kind, trace) -> None:
    if kind == "objects":
        np.savez(path, data=objects(trace), labels=objects(trace), per_image=objects(trace))
    elif kind == "npy":  # np.load goes by what a file begins with, not by its name
        with open(path, "wb") as file:
            np.save(file, objects(trace), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Trap(trace)))


@pytest.mark.parametrize("kind", ["objects", "npy", "pickle"])
def test_arrays_of_objects_are_refused(kind, trace, tmp_path):
    write_npz(tmp_path / "x.npz", kind, trace)
    assert "x.npz is damaged" in refusal(read_arrays, tmp_path / "x.npz")
    assert reference._arrays(tmp_path / "x.npz") == {}
    for split in ("train_data_batch_" + str(i) for i in range(1, 11)):
        write_npz(tmp_path / f"{split}.npz", kind, trace)
    write_npz(tmp_path / "val_data.npz", kind, trace)
    says = refusal(open_imagenet64, tmp_path, Options())
    assert "train_data_batch_1.npz' is damaged or no such archive" in says
    assert parts._load(tmp_path / "x.npz") is None
    assert not (tmp_path / "x.npz").exists()  # it is computed again


def test_a_trap_in_the_place_of_the_newest_checkpoint_is_refused_until_it_is_deleted(
    trace, tmp_path
):
    train_until(2, tiny(), tmp_path, replace(KEEPING, checkpoint_seconds=0))
    made = content("zip", trace)
    name = f"checkpoint-00000005.{hashlib.sha256(made).hexdigest()[:16]}.pt"
    (tmp_path / "checkpoints" / name).write_bytes(made)
    with pytest.raises(Refused, match=f"{name} holds something else.* nothing of it was run"):
        checkpoint.newest(tmp_path / "checkpoints", RESUME)
    (tmp_path / "checkpoints" / name).unlink()
    assert checkpoint.newest(tmp_path / "checkpoints", RESUME)["step"] == 2
