"""Claims on runs: one holder, dead holders replaced, and nobody's clock trusted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import claims
from experiments.claims import acquire, alive, holder
from experiments.files import read_json

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "owner.json"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    monkeypatch.setattr(claims, "SILENCE", 0.5)


def edited(path, **changes):
    path.write_text(json.dumps(read_json(path) | changes))


def aged(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def elsewhere(path):
    """The claim as one on another machine leaves it."""
    edited(path, seen_from=["elsewhere", "0", ""], host="elsewhere")


def test_a_claim_has_one_holder_until_it_is_released(path):
    first = acquire(path)
    assert first and alive(path) and acquire(path) is None
    first.release()
    assert not path.exists() and not alive(path)
    second = acquire(path)
    assert second and second.token != first.token
    second.release()
    assert list(path.parent.iterdir()) == []


def test_the_holder_is_named_for_messages(path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "71")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    claim = acquire(path)
    assert str(os.getpid()) in holder(path) and "job 71_4" in holder(path)
    claim.release()


def test_a_process_that_is_gone_is_replaced_at_once(path):
    program = "from pathlib import Path; from experiments.claims import acquire; import time\n"
    program += f"assert acquire(Path({str(path)!r})); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        assert acquire(path) is None
        process.send_signal(signal.SIGSTOP)  # stopped is not dead
        assert alive(path)
        process.kill()
    taken = acquire(path)
    assert taken
    taken.release()


def test_another_process_with_the_same_number_is_not_the_holder(path):
    acquire(path).release()
    claim = acquire(path)
    edited(path, started="1")
    assert not alive(path)
    assert acquire(path) is not None
    claim.release()
    assert path.exists()  # the first holder leaves alone what is no longer its own


def test_a_holder_elsewhere_lives_as_long_as_it_touches_its_claim(path):
    acquire(path)
    elsewhere(path)
    assert alive(path) and acquire(path) is None
    aged(path, claims.SILENCE - 20)
    assert alive(path)
    aged(path, claims.SILENCE + 20)
    assert not alive(path)
    assert acquire(path) is not None


def test_a_clock_that_is_wrong_here_kills_nobody(path, monkeypatch):
    acquire(path)
    elsewhere(path)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert alive(path)


def test_the_holder_touches_its_claim(path, quick):
    claim = acquire(path)
    aged(path, 1000)
    elsewhere(path)
    deadline = time.monotonic() + 5
    while not alive(path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert alive(path)
    claim.release()


def test_a_holder_that_was_taken_over_is_told_and_takes_nothing_back(path, quick):
    claim = acquire(path)
    path.unlink()
    other = acquire(path)
    assert other and claim.lost.wait(5)
    claim.release()
    assert read_json(path)["token"] == other.token and not other.lost.is_set()
    other.release()


def test_a_claim_cut_short_counts_by_its_age(path):
    path.write_text('{"token": "x", "ho')
    assert alive(path) and acquire(path) is None
    aged(path, claims.SILENCE + 1)
    assert acquire(path) is not None


def test_a_taking_over_that_was_killed_half_way_hinders_for_a_minute_only(path):
    acquire(path)
    elsewhere(path)
    aged(path, claims.SILENCE + 1)
    guard = path.with_name(".owner.json.taking")
    guard.mkdir()
    assert acquire(path) is None
    aged(guard, claims.GUARD + 1)
    assert acquire(path) is None  # clears it away
    assert acquire(path) is not None


def test_of_many_at_once_one_gets_a_free_claim_and_one_a_dead_one(path):
    program = """
import sys, time
from pathlib import Path
from experiments.claims import acquire
print("ready", flush=True); sys.stdin.readline()
claim = None
end = time.monotonic() + 1.5
while claim is None and time.monotonic() < end:
    claim = acquire(Path(sys.argv[1]))
print("held" if claim else "none", flush=True); sys.stdin.readline()
"""
    for dead in (False, True):
        if dead:
            edited(path, started="1")
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(path)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        found = [process.stdout.readline().strip() for process in processes]
        for process in processes:
            process.kill()
            process.communicate()
        assert sorted(found) == ["held"] + 5 * ["none"]
