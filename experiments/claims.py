"""Who works on a run: one process at a time, among all machines that see its folder.

A claim is a file with the name of its holder. It comes into being by link(2), at which exactly one
of several makers succeeds, on network file systems too, and one process at a time may look whose it
is and remove it; nothing rests on flock. The holder touches it every few seconds. It is dead when
its process is gone, or, where this machine cannot see that process, when it stays untouched for
long while somebody waits for it. No two clocks are compared for that.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from core.files import here, temporary
from experiments.files import read_json

BEAT = 20.0  # seconds between two touches
SILENCE = 6 * BEAT  # without a touch for so long, an unseen holder counts as dead

REMOVING = 10.0  # seconds that nobody needs to remove a claim
TICK = 2 * 10**9  # nanoseconds: no file system's time stamps are coarser

# Files of others that this process has waited for: path -> (token, touched, since when).
_watched: dict[Path, tuple[str | None, int, float]] = {}
# Touches of unseen holders when this process first saw them: (path, token) -> time.
_first_touch: dict[tuple[Path, str | None], int] = {}


@dataclass(eq=False)
class Claim:
    """Held from `acquire` to `release`. `lost` is set if another process has taken it over."""

    path: Path
    token: str
    lost: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)
    _touched: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self):
        threading.Thread(target=self._beat, daemon=True).start()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            looked = time.monotonic()
            with contextlib.suppress(OSError):  # a file system that stumbles is asked again
                # Who looks at it may have moved it aside, and have put it back a moment later.
                gone = not self._mine() and not self._released.wait(min(BEAT, 1.0))
                if gone and not self._mine() and not self._released.is_set():
                    self.lost.set()
                if self._released.is_set() or self.lost.is_set():
                    return
                _touch(self.path)
                self._touched = looked

    def held(self) -> bool:
        """Whether it is still this process's; to be asked before anything is written.

        Looks again when its last touch is long ago: this process was stopped, and who waits for
        the claim may have taken it over before its next touch would tell.
        """
        if time.monotonic() - self._touched > SILENCE / 2 and not self.lost.is_set():
            with contextlib.suppress(OSError):
                if not self._mine():
                    self.lost.set()
        return not self.lost.is_set()

    def _mine(self) -> bool:
        return _record(self.path).get("token") == self.token

    def release(self) -> None:
        """Gives the run back; leaves alone what another process has taken over."""
        self._released.set()
        until = time.monotonic() + REMOVING
        while not self.lost.is_set() and self._mine() and not _remove(self.path, self.token):
            if time.monotonic() > until:
                break  # it counts as dead as soon as this process has ended
            time.sleep(0.01)


def acquire(path: Path) -> Claim | None:
    """The claim, or None while another process that may be alive holds it.

    Whether a holder on another machine is alive is seen by asking again and again: only after
    SILENCE without a touch is its claim taken over.
    """
    return _make(path) or (_make(path) if clear(path) else None)


def clear(path: Path) -> bool:
    """Removes a claim whose holder is dead; whether it did. See `acquire` for who is."""
    record = _record(path)
    if _seen_from_here(record):
        dead = not process_lives(record)
    else:
        dead = _untouched(path, record.get("token")) >= SILENCE
    return dead and _remove(path, record.get("token"))


def alive(path: Path) -> bool:
    """Whether somebody holds the claim and seems to be working; one look, for people.

    The age of an unseen holder's touch is taken by the file system's clock or, where that is not to
    be had, by ours.
    """
    record = _record(path)
    if not record and not path.exists():
        return False
    if _seen_from_here(record):
        return process_lives(record)
    return abs(age(path)) < SILENCE  # one from the future is from before a clock was set back


def surely_alive(path: Path) -> bool:
    """Whether the holder is known to live: its process is seen here, or its touch has moved on.

    Ask again and again: where the process cannot be seen the answer takes up to a BEAT.
    """
    record = _record(path)
    if _seen_from_here(record):
        return process_lives(record)
    try:
        touched = path.stat().st_mtime_ns
    except OSError:
        return False
    return touched != _first_touch.setdefault((path, record.get("token")), touched)


def process(pid: int) -> dict:
    """A process of this machine, so that it is not taken for a later one of that number."""
    return {"pid": pid, "seen_from": here(), "started": _process_start(pid)}


def process_lives(record: dict) -> bool:
    """Whether a process that `process` described is still there; False for other machines'."""
    here = _seen_from_here(record) and _is_process(record)
    return here and _lives(record.get("pid", 0), record.get("started"))


def process_exists(pid: int) -> bool:
    """Whether there is a process of this number on this machine that has not ended."""
    hidden = not Path(f"/proc/{pid}").exists()
    return _process_start(pid) is not None or (hidden and _lives(pid, None))


def holder(path: Path) -> str:
    """In words, for messages: host, process and, on a cluster, job."""
    record = _record(path)
    job = f", job {record['job']}" if record.get("job") else ""
    return f"{record.get('host', 'another machine')}, process {record.get('pid', '?')}{job}"


def _record(path: Path) -> dict:
    """What a claim says; {} where it says nothing, or what no claim of this code says."""
    record = read_json(path) or {}
    words = record.get("token", ""), record.get("host", ""), record.get("job") or ""
    right = all(isinstance(word, str) and word.isprintable() for word in words)
    return record if right and _is_process(record) else {}


def _is_process(record: dict) -> bool:
    """Whether it has what `process` gives, as far as it has anything."""
    pid = record.get("pid", 1)
    return type(pid) is int and 0 < pid < 2**31


def _make(path: Path) -> Claim | None:
    token = uuid.uuid4().hex
    record = {"token": token, "host": socket.gethostname(), "job": own_job()}
    record |= process(os.getpid())
    complete = temporary(path)
    try:
        complete.write_text(json.dumps(record) + "\n")
        os.link(complete, path)
    except FileExistsError:
        # A network file system may say so of a link that it has made, when its answer was lost.
        if _record(path).get("token") != token:
            return None
    finally:
        complete.unlink(missing_ok=True)
    return Claim(path, token)


def _remove(path: Path, token: str | None) -> bool:
    """Removes the claim if it is the one with this token. Of several who try, one succeeds.

    Only one process at a time may look and remove: between the two, a claim may have been given
    back and made anew. False also when another process is at it.
    """
    lock = path.with_name(f".{path.name}.removing")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        if _untouched(lock, None) > REMOVING:  # who made it was killed in these few microseconds
            lock.unlink(missing_ok=True)
        return False
    except FileNotFoundError:  # the folder itself is gone
        return False
    try:
        right = path.exists() and _record(path).get("token") == token
        if right:
            path.unlink(missing_ok=True)
        return right
    finally:
        lock.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    """Moves the file's time stamp, also by a clock that stands still, or was set back, or whose
    ticks are coarse: who waits for the claim sees that it has moved, and nothing else."""
    before = path.stat().st_mtime_ns
    os.utime(path)
    if path.stat().st_mtime_ns == before:
        os.utime(path, ns=(before, before + TICK))


def _untouched(path: Path, token: str | None) -> float:
    """Seconds that this process has seen the file untouched for, by its own steady clock."""
    try:
        touched = path.stat().st_mtime_ns
    except OSError:
        return 0.0
    now = time.monotonic()
    seen = _watched.get(path)
    if seen is None or seen[:2] != (token, touched):
        _watched[path] = seen = (token, touched, now)
    return now - seen[2]


def age(path: Path) -> float:
    """Seconds since the path was touched, infinite if it is gone."""
    mark = temporary(path.with_name("now"))
    try:
        mark.touch()
        now = mark.stat().st_mtime
    except OSError:  # who may only look
        now = time.time()
    finally:
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
    try:
        return now - path.stat().st_mtime
    except OSError:
        return float("inf")


def _seen_from_here(record: dict) -> bool:
    return record.get("seen_from") == here()


def _process_start(pid: int) -> str | None:
    """When a process of this machine began; None if it is gone or not to be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _lives(pid: int, started: str | None) -> bool:
    """Whether that process of this machine is there; a later one may have got its number."""
    begun = _process_start(pid)
    if begun is not None or Path(f"/proc/{pid}").exists():
        return begun == started
    try:
        os.kill(pid, 0)  # without /proc, or where it hides other people's processes
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def job_of(path: Path) -> str | None:
    """The SLURM job of the claim's holder, as squeue names it."""
    return _record(path).get("job")


def own_job() -> str | None:
    """The SLURM job that this process is part of, as squeue names it."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{x}_ID") for x in ("JOB", "TASK"))
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
