"""The command that prepares data, alone and several at once, and the file that it makes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_up import encoded, fill, pictures, refusal, run, zipped

from core.data import prepared
from core.data.sources import load
from core.errors import Refused
from experiments import prepare

ROOT = Path(__file__).resolve().parents[1]


def test_the_help_teaches_and_mistakes_are_refused(tmp_path):
    for word in (
        "cifar10",
        "ImageNet",
        "size=64",
        "labels=names",
        "verify",
        "data_path=OUT.images",
    ):
        assert word in prepare.__doc__
    source, path = tmp_path / "s", tmp_path / "x.images"
    for words, says in [
        ([source, path], "does not exist: correct it, or name a download: cifar10"),
        ([source, path, "sise=3"], "unknown key 'sise'. Did you mean 'size'"),
        ([source, path, "size=0"], "size=0: give a whole number"),
        ([source, path, "size=3", "size=3"], "'size' is given twice"),
        ([source, path, "grey=yes"], "grey=yes: choose true or false"),
        ([source, path, "crop=left"], "crop=left: choose center or none"),
        ([source, path, path], "give SOURCE and OUT.images"),
    ]:
        assert says in refusal(*words)
    (tmp_path / "file.txt").write_text("x")
    assert "neither a folder or .zip of pictures, nor CIFAR-10" in refusal(
        tmp_path / "file.txt", path
    )


def test_what_is_there_is_not_made_again_and_never_replaced(tmp_path, capsys, monkeypatch):
    source = fill(tmp_path / "some", {n: encoded(p) for n, p in pictures(20).items()})
    out = tmp_path / "some.images"
    run(source, out)
    before = out.stat().st_mtime_ns
    assert "there already" not in capsys.readouterr().out
    run(source, out)
    assert "there already" in capsys.readouterr().out and out.stat().st_mtime_ns == before
    with pytest.raises(Refused, match="was made from some: remove it or take another name"):
        prepare.main([str(source), str(out), "size=8"])
    (tmp_path / "mine.images").write_text("something of mine")
    with pytest.raises(Refused, match="exists and is no prepared file"):
        prepare.main([str(source), str(tmp_path / "mine.images")])
    assert (tmp_path / "mine.images").read_text() == "something of mine"
    free = prepare.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: free)
    assert "the disk has not so many left" in refusal(source, tmp_path / "new.images")


# The command in a process of its own, which after some pictures waits for a file called go.
HELD = f"""
import itertools, os, sys, time
sys.path.insert(0, {str(ROOT)!r})
import core.data.pictures as pictures
from experiments import prepare
real, calls, pictures.CHUNK = pictures._decoded, itertools.count(), 4

def held(*given):
    while next(calls) > 20 and not os.path.exists("go"):
        time.sleep(0.01)
    return real(*given)

pictures._decoded = held
sys.exit(prepare.main(sys.argv[1:]))
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*words):
        command = [sys.executable, "-c", HELD, *map(str, words), "threads=1"]
        log = tmp_path / f"log{len(started)}"
        with open(log, "w") as file:
            started.append(
                subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path)
            )
        started[-1].log = log
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition):
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def half_written(out):
    """The unfinished file, once something is in it."""
    parts = list(out.parent.glob(f".{out.name}.*.part"))
    return parts[0] if parts and parts[0].stat().st_size > 0 else None


def left_beside(out):
    return {path.name for path in out.parent.iterdir() if out.name in path.name} - {out.name}


def test_of_two_processes_one_makes_the_file_and_the_other_waits(start, tmp_path):
    source = fill(tmp_path / "some", {n: encoded(p) for n, p in pictures(60, 64).items()})
    out = tmp_path / "some.images"
    first = start(source, out)
    wait_for(lambda: half_written(out))
    second = start(source, out)
    wait_for(lambda: "waiting for" in second.log.read_text())
    assert not out.exists()
    (tmp_path / "go").touch()
    assert first.wait(240) == second.wait(240) == 0
    assert "there already" in second.log.read_text()
    assert "there already" not in first.log.read_text()
    assert not left_beside(out)
    prepared.verify(out)


def test_a_killed_one_leaves_nothing_that_is_trusted_and_the_next_makes_it(start, tmp_path):
    source = fill(tmp_path / "some", {n: encoded(p) for n, p in pictures(60, 64).items()})
    out = tmp_path / "some.images"
    process = start(source, out)
    wait_for(lambda: half_written(out))
    process.kill()
    process.wait()
    part = half_written(out)
    assert not out.exists() and not prepared.is_prepared(part)  # nor if somebody renames it
    run(source, out)
    assert not left_beside(out)
    prepared.verify(out)


def test_who_waits_takes_over_when_the_other_is_killed(start, tmp_path):
    source = fill(tmp_path / "some", {n: encoded(p) for n, p in pictures(60, 64).items()})
    out = tmp_path / "some.images"
    first = start(source, out)
    wait_for(lambda: half_written(out))
    second = start(source, out)
    wait_for(lambda: "waiting for" in second.log.read_text())
    first.kill()
    first.wait()
    (tmp_path / "go").touch()
    assert second.wait(240) == 0 and "there already" not in second.log.read_text()
    assert not left_beside(out)


# The file.


@pytest.fixture
def made(tmp_path):
    source = fill(tmp_path / "some", {n: encoded(p) for n, p in pictures(20).items()})
    out = tmp_path / "some.images"
    run(source, out)
    return out


def test_others_read_the_file_as_safetensors(made):
    import safetensors

    with safetensors.safe_open(made, "np") as file:
        assert json.loads(file.metadata()["classes"]) == ["a", "b"]
        for split in ("train", "test"):
            images = load("folder", split, str(made))
            assert np.array_equal(file.get_tensor(f"{split}.pixels"), images.pixels)
            assert np.array_equal(file.get_tensor(f"{split}.labels"), images.labels)


def test_every_damage_of_the_header_is_seen_at_once_and_of_the_pixels_by_verify(made, capsys):
    whole, header = made.read_bytes(), prepared.read_header(made)
    run_verify = ["verify", str(made)]
    assert prepare.main(run_verify) == 0 and "as it was prepared" in capsys.readouterr().out

    def refused(content, function):
        made.write_bytes(content)
        with pytest.raises(Refused) as caught:
            function()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for position in (0, 7, 40, 200, header.start - 1):
        changed = bytearray(whole)
        changed[position] ^= 4
        made.write_bytes(changed)
        of_the_mark = 8 <= position < 8 + len(prepared.BEGINNING)  # after the header's length
        assert prepared.is_prepared(made) != of_the_mark
        if not of_the_mark:
            refused(changed, lambda: prepared.read_header(made))
    assert "bytes instead of" in refused(whole[:-1], lambda: load("folder", "train", str(made)))
    assert "bytes instead of" in refused(whole + b"x", lambda: load("folder", "train", str(made)))
    for name, (begin, end) in header.places.items():
        for position in (begin, end - 1):
            changed = bytearray(whole)
            changed[position] ^= 1
            split = name.split(".")[0]
            says = refused(changed, lambda: prepare.main(run_verify))
            assert f"its {split} images are others: remove it and prepare it again" in says
    with pytest.raises(Refused, match="cannot be read"):
        prepare.main(["verify", str(made.parent / "nowhere")])


def test_the_identity_is_that_of_the_content(tmp_path):
    files = {name: encoded(pixels) for name, pixels in pictures(20).items()}
    out = [tmp_path / f"{i}.images" for i in range(3)]
    run(fill(tmp_path / "one", files), out[0])
    run(zipped(tmp_path / "two.zip", files), out[1])
    moved = {name.replace("a/000", "b/000"): content for name, content in files.items()}
    run(fill(tmp_path / "three", moved), out[2])
    one, two, three = (prepared.read_header(path).digest for path in out)
    assert one == two != three
