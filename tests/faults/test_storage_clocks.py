"""Clocks that jump or stand still, coarse time stamps, file systems without locks.

No run is taken from a holder that lives, and none stays with one that is dead.
"""

import fcntl
import json
import os
import subprocess
import sys
import time

import pytest
import torch
from storage import ROOT

from core.data.images import Images
from core.metrics import reference
from core.metrics.extractor import Extractor
from experiments import claims
from experiments.claims import acquire, alive
from experiments.files import read_json

HOUR = 3600.0
JUMP = "clocks and dates jump by an hour or a month"
LOCKS = {"none": "fails", "idle": "does nothing"}
JUMPS = [-30 * 24 * HOUR, -HOUR, HOUR, 30 * 24 * HOUR]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "owner.json"


@pytest.fixture
def steady(monkeypatch):
    """A steady clock that the test moves; holders do not touch their claims by themselves."""
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claims, "BEAT", 1e9)
    return now


def elsewhere(path) -> None:
    """The claim as one on another machine leaves it, with its time stamp."""
    before = path.stat()
    new = path.with_name("edited")
    new.write_text(json.dumps(read_json(path) | {"seen_from": ["elsewhere", "0", ""]}))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(new, path)


def dated(path, seconds: float) -> None:
    then = time.time() + seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("jump", JUMPS)
def test_a_holder_here_lives_whatever_the_clocks_and_dates_say(
    path, steady, jump, monkeypatch, injected
):
    injected(JUMP, "a claim of this machine", "kept while its holder lives")
    claim = acquire(path)
    dated(path, jump)
    monkeypatch.setattr(time, "time", lambda: 1.7e9 - 2 * jump)
    for _ in range(5):
        steady[0] += 10 * claims.SILENCE
        assert acquire(path) is None and alive(path)
    claim.release()
    assert not path.exists()


@pytest.mark.parametrize("jump", JUMPS)
def test_a_holder_elsewhere_that_touches_its_claim_keeps_it_while_clocks_jump(
    path, steady, jump, injected
):
    injected(JUMP, "a claim of another machine", "kept while its holder lives", 12)
    claim = acquire(path)
    elsewhere(path)
    for beat in range(12):
        steady[0] += claims.SILENCE / 6
        dated(path, jump * (beat % 3) + beat)  # now by this clock, now by that one
        assert acquire(path) is None
    assert read_json(path)["token"] == claim.token


@pytest.mark.parametrize("jump", JUMPS)
def test_a_dead_holder_elsewhere_is_replaced_whatever_the_date_of_its_claim(
    path, steady, jump, injected
):
    injected(JUMP, "a claim of a dead process", "free")
    dead = acquire(path)
    elsewhere(path)
    dated(path, jump)
    assert acquire(path) is None
    steady[0] += claims.SILENCE + 1
    taken = acquire(path)
    assert taken and taken.token != dead.token
    dead.release()
    assert read_json(path)["token"] == taken.token


@pytest.mark.parametrize("jump", JUMPS)
def test_for_people_a_claim_far_from_now_is_not_alive_for_ever(path, steady, jump, injected):
    injected(JUMP, "a claim of a dead process", "free")
    acquire(path)
    elsewhere(path)
    dated(path, jump)
    assert not alive(path)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_removal_that_was_killed_is_forgotten_whatever_its_date(path, steady, jump, injected):
    injected(JUMP, "a lock of a dead process", "free")
    dead = acquire(path)
    record = read_json(path) | {"started": "1"}  # of a process that is gone
    path.write_text(json.dumps(record))
    lock = path.with_name(f".{path.name}.removing")
    lock.touch()
    dated(lock, jump)
    assert acquire(path) is None and lock.exists()  # it may be somebody's who lives
    steady[0] += claims.REMOVING + 1
    assert acquire(path) is None and not lock.exists()
    taken = acquire(path)
    assert taken and taken.token != dead.token


@pytest.mark.parametrize("tick", [0.0, 1.0, 2.0])
def test_a_touch_is_seen_where_time_stamps_are_coarse_or_the_clock_stands_still(
    path, steady, tick, monkeypatch, injected
):
    """tick: seconds between two time stamps that the file system knows; 0: its clock stands."""
    fault = f"time stamps of {tick:g} s" if tick else "a clock that stands still"
    injected(fault, "claims", "kept while the holder lives, free when it is dead")
    claim, real = acquire(path), os.utime
    elsewhere(path)
    then = 1_700_000_000

    def coarse(file, times=None, *, ns=None):
        now = then + steady[0] if tick else then
        stamp = ns[1] if ns else int(now * 1e9)
        step = int((tick or 1) * 1e9)
        real(file, ns=(stamp // step * step, stamp // step * step))

    monkeypatch.setattr(claims.os, "utime", coarse)
    for _ in range(20):
        claims._touch(path)
        assert acquire(path) is None
        steady[0] += 0.9 * claims.SILENCE
    claims._touch(path)
    assert acquire(path) is None and read_json(path)["token"] == claim.token
    steady[0] += claims.SILENCE + 1
    assert acquire(path) is not None


def no_locks(*_):
    raise OSError(37, "No locks available")


def locks_that_do_nothing(*_):
    pass


@pytest.mark.parametrize("kind", ["none", "idle"])
def test_claimants_without_locks_never_both_own_a_run(path, kind, injected):
    """Six at once take and give back, some leave without a word; each makes a witness."""
    injected(f"flock {LOCKS[kind]}", "claims, six processes at once", "never two owners")
    program = f"""
import fcntl, os, random, sys, time
def lock(*_):
    if {kind!r} == "none":
        raise OSError(37, "No locks available")
fcntl.flock = fcntl.lockf = lock
from pathlib import Path
from experiments.claims import acquire
path, witness = Path(sys.argv[1]), Path(sys.argv[1] + ".witness")
random.seed(int(sys.argv[2]))
end, held = time.monotonic() + 2, 0
while time.monotonic() < end or not held:
    claim = acquire(path)
    if claim is None:
        continue
    held += 1
    os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
    time.sleep(random.random() * 0.003)
    witness.unlink()
    if held > 1 and random.random() < 0.01:
        os._exit(0)
    claim.release()
"""
    pipes = {"stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(i)], **pipes)
        for i in range(6)
    ]
    assert [process.communicate(timeout=240)[1] for process in started] == 6 * [""]


class Means(Extractor):
    """Two numbers of an image: its mean and that of its first row."""

    name, dimension, digest = "means", 2, "0" * 16

    def __call__(self, pixels):
        x = pixels.double()
        return torch.stack([x.mean((1, 2, 3)), x[:, :, 0].mean((1, 2))], 1).numpy()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return Images("made up", pixels, None, 0)


@pytest.mark.parametrize("kind, lock", [("none", no_locks), ("idle", locks_that_do_nothing)])
def test_the_shared_statistics_need_no_locks(kind, lock, images, tmp_path, monkeypatch, injected):
    """Nobody waits for ever; where a second one comes while the first computes, both get them."""
    injected(f"flock {LOCKS[kind]}", "the cache", "nobody waits for ever; the same statistics")

    class Overtaken(Means):
        def __call__(self, pixels):
            inner.append(reference.reference_moments(images, Means(), tmp_path, waits))
            return super().__call__(pixels)

    def waits(words):
        assert "another process" not in words

    inner, expected = [], reference.reference_moments(images, Means(), None)
    monkeypatch.setattr(fcntl, "flock", lock)
    found = [reference.reference_moments(images, Overtaken(), tmp_path), *inner]
    assert len(found) == 2
    for mean, covariance in [*found, reference.reference_moments(images, Means(), tmp_path)]:
        assert (mean == expected[0]).all() and (covariance == expected[1]).all()
    assert len(list(tmp_path.glob("*.npz"))) == 1
