"""Disks that fill up or refuse: one line, nothing half-written, and the same command goes on."""

import errno
import os
import random
import shutil
import subprocess

import pytest
from storage import (
    Disk,
    assert_same,
    command,
    contents,
    folder_of,
    interrupted,
    leftovers,
    one_row,  # noqa: F401
    put,
    steps_logged,
)

from analysis import tables
from core import checkpoint
from core.errors import DiskFull, Unwritable
from core.training import RESUME
from experiments import files
from experiments.files import write_bytes
from experiments.runs import Run

FULL, COMPLETED = "the disk is full", "one line, nothing half-written, completed bit for bit"
REFUSES = {errno.EROFS: "read-only", errno.EACCES: "forbidden"}
TIMES, QUICK = 8, 3  # moments that a disk is full at; those that are not slow tests


@pytest.fixture(scope="module")
def whole(one_row, tmp_path_factory):  # noqa: F811
    """A run left alone, one that was stopped, and how many bytes the command then writes."""
    root = tmp_path_factory.mktemp("whole")
    interrupted(root / "stopped", lambda: steps_logged(root / "stopped") == 3)
    shutil.copytree(root / "stopped", root / "finished")
    with pytest.MonkeyPatch.context() as patch:
        disk = put(Disk(root / "finished"), patch)
        assert command(root / "finished") == 0
    return root, disk.written


def said_once(text: str, what: str) -> None:
    lines = [line for line in text.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and what in lines[0], text


@pytest.mark.parametrize(
    "time", [pytest.param(i, marks=pytest.mark.slow if i >= QUICK else ()) for i in range(TIMES)]
)
def test_a_disk_that_fills_up_at_any_moment_costs_nothing_but_time(
    time, whole, tmp_path, monkeypatch, capsys, injected
):
    """In a checkpoint, the log, a part, a measurement, a mark, a claim: wherever the bytes end."""
    injected(FULL, "any write of a run, after a drawn number of bytes", COMPLETED)
    root, bytes_ = whole
    results = tmp_path / "results"
    shutil.copytree(root / "stopped", results)
    # Most of what is written are checkpoints: every second time the room ends after them.
    rng = random.Random(time)
    room = int(bytes_ * (rng.random() if time % 2 else 1 - 0.02 * rng.random()))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        put(Disk(results, room), patch)
        assert command(results) == 1
    err = capsys.readouterr().err
    said_once(err, "the disk is full; free some space and run the same command again")
    assert str(results) in err and leftovers(results) == []
    folder = folder_of(results)
    found = Run("x", folder)
    assert found.damaged(path.stem for path in folder.glob("measurements/*.json")) == []
    assert found.trained or checkpoint.newest(folder / "checkpoints", RESUME)["step"] >= 3
    assert all(checkpoint.is_whole(path) for path in folder.glob("checkpoints/*.pt"))
    assert command(results) == 0
    assert_same(contents(results), contents(root / "finished"))
    assert leftovers(results) == []


def test_a_table_on_a_full_disk_is_the_old_one_or_the_new_one(tmp_path, monkeypatch, injected):
    injected(FULL, "a table", "the old one stays; written when there is room")
    (path,) = tables.write(tmp_path, "table", {"md": "old\n"})
    with monkeypatch.context() as patch:
        put(Disk(tmp_path, room=3), patch)
        with pytest.raises(DiskFull, match=r"table\.md: the disk is full"):
            tables.write(tmp_path, "table", {"md": "a longer one\n"})
    assert path.read_text() == "old\n" and list(tmp_path.iterdir()) == [path]
    tables.write(tmp_path, "table", {"md": "a longer one\n"})
    assert path.read_text() == "a longer one\n"


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("state", ["new", "stopped"])
def test_a_place_that_refuses_is_said_before_anything_is_trained(
    error, state, whole, tmp_path, monkeypatch, capsys, injected
):
    injected(REFUSES[error], "results folder", "one line before anything is trained")
    results = tmp_path / "results"
    if state == "stopped":
        shutil.copytree(whole[0] / "stopped", results)
    before = sorted(path for path in results.rglob("*") if "runs/" in str(path))
    monkeypatch.setattr("experiments.execute.train", None)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        put(Disk(results if results.exists() else tmp_path, error=error), patch)
        assert command(results) == 1
    err = capsys.readouterr().err
    said_once(err, f"error: could not write {results / 'runs'}")
    assert "name another place, such as results=FOLDER" in err
    assert sorted(path for path in results.rglob("*") if "runs/" in str(path)) == before


def test_the_look_whether_a_folder_can_be_written_takes_it_from_nobody(tmp_path, monkeypatch):
    """Another launch that begins at the same time has just made sure of the folder."""
    folder, write = tmp_path / "results" / "runs", files.write_bytes

    def meanwhile(*given):
        write(*given)
        folder.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(files, "write_bytes", meanwhile)
    files.check_writable(folder)
    assert folder.is_dir() and not list(tmp_path.rglob(".writable*"))
    monkeypatch.undo()
    files.check_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_a_folder_of_one_run_that_refuses_fails_that_run_in_one_line(
    whole, tmp_path, monkeypatch, capsys, injected
):
    injected(REFUSES[errno.EACCES], "folder of a run", COMPLETED)
    results = tmp_path / "results"
    shutil.copytree(whole[0] / "stopped", results)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        put(Disk(folder_of(results), error=errno.EACCES), patch)
        assert command(results) == 1
    said_once(capsys.readouterr().err, f"could not write {folder_of(results)}")
    assert command(results) == 0
    assert_same(contents(results), contents(whole[0] / "finished"))


def test_results_that_are_a_file_are_said_in_one_line(
    one_row,  # noqa: F811
    tmp_path,
    capsys,
    injected,
):
    injected("a file in its place", "results folder", "one line before anything is trained")
    (tmp_path / "results").write_text("a file")
    assert command(tmp_path / "results") == 1
    said_once(capsys.readouterr().err, f"could not write {tmp_path / 'results' / 'runs'}")


@pytest.fixture
def mounted(tmp_path):
    """A file system of its own, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(place)]
    if os.geteuid() or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_real_disk_that_is_full_then_has_room_then_is_read_only(mounted, whole, capsys, injected):
    injected(FULL, "a file system of 20 MB", COMPLETED)
    injected(REFUSES[errno.EROFS], "a file system of 20 MB", "one line; nothing is changed")
    results, rest = mounted / "results", mounted / "rest"
    shutil.copytree(whole[0] / "stopped", results)
    free = shutil.disk_usage(mounted).free
    rest.write_bytes(bytes(max(0, free - 8192)))
    capsys.readouterr()
    assert command(results) == 1
    said_once(capsys.readouterr().err, "the disk is full")
    assert leftovers(results) == []
    rest.unlink()
    assert command(results) == 0
    assert_same(contents(results), contents(whole[0] / "finished"))
    min(folder_of(results).glob("measurements/*.json")).unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    capsys.readouterr()
    assert command(results) == 1
    said_once(capsys.readouterr().err, "Read-only file system; make it writable")


def test_the_refusals_travel_between_processes():
    import pickle

    for error in (Unwritable("/x", "no"), DiskFull("/x")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.code) == (type(error), str(error), 1)


def test_the_made_up_disk_is_full_when_it_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        disk = put(Disk(tmp_path, room=10), patch)
        write_bytes(tmp_path / "a", b"12345", durable=False)
        with pytest.raises(DiskFull):
            write_bytes(tmp_path / "b", b"1234567", durable=False)
        assert disk.written == 10
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
