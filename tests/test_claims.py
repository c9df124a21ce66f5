"""Claims on runs: one holder, dead holders replaced, and nobody's clock trusted."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import Unwritable, unwritable_is_said
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
    """Replaced at once, as the holder may be reading it."""
    new = path.with_name("edited")
    new.write_text(json.dumps(read_json(path) | changes))
    os.replace(new, path)


def aged(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def elsewhere(path):
    """The claim as one on another machine leaves it."""
    edited(path, seen_from=["elsewhere", "0", ""], host="elsewhere")


@pytest.fixture
def clock(monkeypatch):
    """A steady clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claims, "BEAT", 1e9)
    return now


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


def test_a_holder_elsewhere_is_dead_after_a_silence_that_was_waited_through(path, clock):
    acquire(path)
    elsewhere(path)
    aged(path, 1e6)  # whatever its date: the clocks of two machines are not compared
    assert acquire(path) is None
    clock[0] += claims.SILENCE - 1
    assert acquire(path) is None
    clock[0] += 2
    taken = acquire(path)
    assert taken and read_json(path)["token"] == taken.token


def test_a_touch_begins_the_silence_anew(path, clock):
    acquire(path)
    elsewhere(path)
    assert acquire(path) is None
    clock[0] += claims.SILENCE - 1
    aged(path, 5)
    assert acquire(path) is None
    clock[0] += claims.SILENCE - 1
    assert acquire(path) is None
    clock[0] += 2
    assert acquire(path) is not None


def test_for_people_the_age_of_the_last_touch_decides(path, clock):
    acquire(path)
    elsewhere(path)
    assert alive(path)
    aged(path, claims.SILENCE + 20)
    assert not alive(path)


def test_a_clock_that_is_wrong_here_kills_nobody(path, monkeypatch):
    acquire(path)
    elsewhere(path)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert alive(path)


def test_the_holder_touches_its_claim(path, quick):
    claim = acquire(path)
    elsewhere(path)
    aged(path, 1000)
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


def test_a_claim_cut_short_is_waited_for_like_one_elsewhere(path, clock):
    path.write_text('{"token": "x", "ho')
    assert alive(path) and acquire(path) is None
    clock[0] += claims.SILENCE + 1
    assert acquire(path) is not None


def test_a_claim_made_anew_since_it_was_looked_at_is_put_back(path):
    old = read_json(acquire(path).path)["token"]
    path.unlink()
    fresh = acquire(path)
    assert not claims._remove(path, old)
    assert read_json(path)["token"] == fresh.token
    assert claims._remove(path, fresh.token) and not path.exists()


def test_a_removal_that_was_killed_blocks_the_claim_only_for_a_while(path, clock):
    dead = acquire(path)
    dead._released.set()
    edited(path, pid=2**22 + 1)
    lock = path.with_name(f".{path.name}.removing")
    lock.touch()
    assert acquire(path) is None and lock.exists()
    clock[0] += claims.REMOVING + 1
    assert acquire(path) is None and not lock.exists()
    assert acquire(path) is not None


def test_a_link_that_was_made_though_its_answer_was_lost_counts(path, monkeypatch):
    link = os.link

    def lossy(source, target):
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(claims.os, "link", lossy)
    claim = acquire(path)
    assert claim and read_json(path)["token"] == claim.token


def test_a_process_that_cannot_be_looked_into_counts_as_alive(path, monkeypatch):
    acquire(path)
    monkeypatch.setattr(claims, "_process_start", lambda pid: None)
    monkeypatch.setattr(claims.Path, "exists", lambda self: False)
    assert claims._lives(os.getpid(), "5")
    assert not claims._lives(2**22 + 1, "5")


def test_a_disk_without_room_leaves_nothing_behind(path, monkeypatch):
    def full(self, text):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims.Path, "write_text", full)
    with pytest.raises(OSError):
        acquire(path)
    assert list(path.parent.iterdir()) == []


def test_a_file_system_without_hard_links_is_said_in_one_line(path, monkeypatch):
    def none(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported", str(path))

    monkeypatch.setattr(claims.os, "link", none)
    says = pytest.raises(Unwritable, match=f"{path.name}: Operation not supported; ")
    with says, unwritable_is_said(path.parent):
        acquire(path)
    assert list(path.parent.iterdir()) == []


def test_never_two_holders_while_many_take_and_give_back_and_die(path):
    """Each holder makes a witness that must not be there yet; some leave without a word."""
    program = """
import os, random, sys, time
from pathlib import Path
from experiments.claims import acquire
path, witness = Path(sys.argv[1]), Path(sys.argv[1] + ".witness")
random.seed(int(sys.argv[2]))
end, held = time.monotonic() + 3, 0
while time.monotonic() < end:
    claim = acquire(path)
    if claim is None:
        continue
    held += 1
    os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
    time.sleep(random.random() * 0.003)
    witness.unlink()
    if random.random() < 0.01:
        os._exit(0)
    claim.release()
print(held)
"""
    command = [sys.executable, "-c", program, str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen([*command, str(i)], **pipes) for i in range(8)]
    outcomes = [process.communicate() for process in processes]
    assert [err for _, err in outcomes] == 8 * [""]


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


def test_a_holder_on_another_machine_is_sure_to_live_once_it_has_touched_its_claim(path):
    claim = acquire(path)
    assert claims.surely_alive(path)
    elsewhere(path)
    assert not claims.surely_alive(path) and not claims.surely_alive(path)
    aged(path, -5)
    assert claims.surely_alive(path)
    path.unlink()
    assert not claims.surely_alive(path)
    claim.release()


def test_a_process_is_told_from_a_later_one_of_its_number():
    mine = claims.process(os.getpid())
    assert claims.process_lives(mine)
    assert not claims.process_lives(mine | {"started": "long ago"})
    assert not claims.process_lives(mine | {"seen_from": ["elsewhere", "0", ""]})
