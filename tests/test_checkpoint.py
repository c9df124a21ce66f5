"""Checkpoints: what was saved or a refusal, never a part of it, and never code."""

import errno
import io
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from core import checkpoint
from core.errors import Refused

STATE = {
    "step": 7,
    "weights": {"a": torch.arange(5.0), "b": torch.randn(64, 64)},
    "half": torch.ones(3, dtype=torch.bfloat16),
    "counts": [1, 2, 3],
    "words": "a few",
    "learning": {"lr": 0.1, "betas": (0.9, 0.999), "fused": None},
}


def save(folder: Path, step: int, kind: str = "checkpoint") -> Path:
    return checkpoint.save(folder, kind, step, STATE | {"step": step})


def names(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in folder.iterdir())


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "altered":
        content[len(content) // 2] ^= 1
    elif how == "truncated":
        content = content[:-1]
    elif how == "longer":
        content += b"\0"
    else:
        content = b""
    path.write_bytes(content)


DAMAGES = ["altered", "truncated", "longer", "empty"]


def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path):
    path = checkpoint.save(tmp_path / "a" / "b", "snapshot", 7, STATE)
    assert path.parent == tmp_path / "a" / "b" and path.name.startswith("snapshot-00000007.")
    loaded = checkpoint.load(path)
    assert loaded.keys() == STATE.keys()
    assert torch.equal(loaded["weights"]["b"], STATE["weights"]["b"])
    assert loaded["half"].dtype == torch.bfloat16
    for key in ("step", "counts", "words", "learning"):
        assert loaded[key] == STATE[key]


def test_nothing_but_the_checkpoint_is_left_in_the_folder(tmp_path):
    path = save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_state_is_saved_under_the_same_name_once(tmp_path):
    assert save(tmp_path, 1) == save(tmp_path, 1)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(how, tmp_path):
    path = save(tmp_path, 1)
    damage(path, how)
    with pytest.raises(Refused) as error:
        checkpoint.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert error.value.code == 1 and not error.value.lasting


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(how, tmp_path, capsys):
    save(tmp_path, 9)
    save(tmp_path, 10)
    newest = save(tmp_path, 200)
    assert checkpoint.newest(tmp_path, "checkpoint")["step"] == 200
    assert capsys.readouterr().err == ""
    damage(newest, how)
    assert checkpoint.newest(tmp_path, "checkpoint")["step"] == 10
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and newest.name in warning
    assert len(warning.splitlines()) == 1


def test_without_any_that_is_whole_there_is_none(tmp_path, capsys):
    assert checkpoint.newest(tmp_path, "checkpoint") is None
    assert checkpoint.newest(tmp_path / "nowhere", "checkpoint") is None
    save(tmp_path, 1, "snapshot")
    assert checkpoint.newest(tmp_path, "checkpoint") is None
    for step in (1, 2):
        damage(save(tmp_path, step), "altered")
    assert checkpoint.newest(tmp_path, "checkpoint") is None
    said = capsys.readouterr().err
    assert all(f"checkpoint-0000000{step}." in said for step in (1, 2))


def test_only_those_before_a_step_are_asked_for(tmp_path):
    for step in (3, 20, 100):
        save(tmp_path, step)
    assert checkpoint.newest(tmp_path, "checkpoint", before=100)["step"] == 20
    assert checkpoint.newest(tmp_path, "checkpoint", before=3) is None


def test_only_the_newest_of_a_kind_are_kept(tmp_path):
    for step in (3, 20, 100, 5):
        save(tmp_path, step)
    save(tmp_path, 1, "snapshot")
    checkpoint.keep_newest(tmp_path, "checkpoint", 1, step=20)
    assert list(map(checkpoint.step_of, checkpoint.paths(tmp_path, "checkpoint"))) == [100, 20]
    save(tmp_path, 5)
    checkpoint.keep_newest(tmp_path, "checkpoint", 2, step=100)
    assert names(tmp_path) == ["checkpoint-00000020", "checkpoint-00000100", "snapshot-00000001"]
    checkpoint.keep_newest(tmp_path, "checkpoint", 0, step=100)
    assert names(tmp_path) == ["snapshot-00000001"]


class FullDisk(io.FileIO):
    """A file on a disk that has room for 1000 bytes more."""

    room = 1000

    def write(self, content) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(bytes(content)[: self.room])
        self.room -= written
        return written


def _no_room_to_write(monkeypatch):
    monkeypatch.setattr(
        checkpoint, "open", lambda p, mode: io.BufferedWriter(FullDisk(p, mode)), raising=False
    )


def _no_room_to_flush(monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


def _no_quota(monkeypatch):
    def full(descriptor):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("fill", [_no_room_to_write, _no_room_to_flush, _no_quota])
def test_a_full_disk_is_refused_and_the_last_checkpoint_stays(fill, tmp_path, monkeypatch):
    before = save(tmp_path, 1)
    with monkeypatch.context() as patch:
        fill(patch)
        with pytest.raises(Refused, match="the disk is full; free some space") as error:
            save(tmp_path, 2)
    assert error.value.code == 1 and "\n" not in str(error.value)
    assert not error.value.lasting  # with some space, the same command continues
    assert str(tmp_path) in str(error.value)
    assert list(tmp_path.iterdir()) == [before]
    assert checkpoint.newest(tmp_path, "checkpoint")["step"] == 1
    save(tmp_path, 2)
    assert checkpoint.newest(tmp_path, "checkpoint")["step"] == 2


def test_other_failures_of_the_disk_are_not_taken_for_a_full_one(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_cannot_be_saved_leaves_nothing_behind(tmp_path):
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoint.save(tmp_path, "checkpoint", 1, {"function": lambda: None})
    assert [path for path in tmp_path.iterdir() if path.suffix == ".pt"] == []


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_loading_does_not_run_code_that_a_file_carries(tmp_path):
    trace = tmp_path / "was-here"
    path = checkpoint.save(tmp_path / "run", "checkpoint", 1, {"state": Evil(trace)})
    with pytest.raises(Refused, match="nothing of it was run"):
        checkpoint.load(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(trace)))
    assert trace.exists()  # it would have


def test_a_folder_can_be_moved(tmp_path):
    save(tmp_path / "a", 3)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert checkpoint.newest(tmp_path / "b", "checkpoint")["step"] == 3
