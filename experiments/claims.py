"""Who works on a run: one process at a time, among all machines that see its folder.

A claim is a file with the name of its holder. It comes into being by link(2), at which exactly one
of several makers succeeds, on network file systems too; nothing rests on flock. The holder touches
it every few seconds. A claim is dead when its process is gone, or, where this machine cannot see
that process, when it has not been touched for long, by the file system's own clock.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from experiments.files import read_json

BEAT = 20.0  # seconds between two touches
SILENCE = 6 * BEAT  # without a touch for so long, an unseen holder counts as dead
GUARD = 60.0  # seconds after which a taking-over that was killed half-way no longer counts


@dataclass(eq=False)
class Claim:
    """Held from `acquire` to `release`. `lost` is set if another process has taken it over."""

    path: Path
    token: str
    lost: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):  # a file system that stumbles is asked again
                if (read_json(self.path) or {}).get("token") != self.token:
                    if not self._released.is_set():
                        self.lost.set()
                    return
                os.utime(self.path)

    def release(self) -> None:
        """Gives the run back; leaves alone what another process has taken over."""
        self._released.set()
        if (read_json(self.path) or {}).get("token") == self.token:
            self.path.unlink(missing_ok=True)


def acquire(path: Path) -> Claim | None:
    """The claim, or None while another process that may be alive holds it."""
    claim = _make(path)
    if claim or alive(path):
        return claim
    return _take_over(path)


def alive(path: Path) -> bool:
    """Whether somebody holds the claim and may be working."""
    record = read_json(path)
    if record is None and not path.exists():
        return False
    record = record or {}
    if record.get("seen_from") == _here():
        return _process_start(record.get("pid", 0)) == record.get("started")
    silence = _silence(path)
    return silence is not None and silence < SILENCE


def holder(path: Path) -> str:
    """In words, for messages: host, process and, on a cluster, job."""
    record = read_json(path) or {}
    job = f", job {record['job']}" if record.get("job") else ""
    return f"{record.get('host', 'another machine')}, process {record.get('pid', '?')}{job}"


def _make(path: Path) -> Claim | None:
    token = uuid.uuid4().hex
    record = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "job": _job()}
    record |= {"seen_from": _here(), "started": _process_start(os.getpid())}
    complete = path.with_name(f".{path.name}.{token}.tmp")
    complete.write_text(json.dumps(record) + "\n")
    try:
        os.link(complete, path)
    except FileExistsError:
        return None
    finally:
        complete.unlink(missing_ok=True)
    return Claim(path, token)


def _take_over(path: Path) -> Claim | None:
    """In place of a dead holder. Of several who try, a folder lets in one at a time."""
    guard = path.with_name(f".{path.name}.taking")
    try:
        guard.mkdir()
    except FileExistsError:
        silence = _silence(guard)
        if silence is not None and silence > GUARD:
            with contextlib.suppress(OSError):
                guard.rmdir()
        return None
    try:
        if not alive(path):  # asked again: it may have been taken over before the guard was ours
            path.unlink(missing_ok=True)
        return _make(path)
    finally:
        with contextlib.suppress(OSError):
            guard.rmdir()


def _silence(path: Path) -> float | None:
    """Seconds since the path was touched, by the clock of its file system; None if it is gone.

    Clocks of machines differ; a file made now says what time it is there.
    """
    now = path.with_name(f".now.{uuid.uuid4().hex}.tmp")
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        now.touch()
        return now.stat().st_mtime - touched
    except OSError:  # who may only look
        return time.time() - touched
    finally:
        with contextlib.suppress(OSError):
            now.unlink(missing_ok=True)


@lru_cache
def _here() -> list[str]:
    """This running system and its processes' name space: within it a process id says enough."""
    return [socket.gethostname(), *_first_lines("/proc/sys/kernel/random/boot_id"), _namespace()]


def _first_lines(path: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield Path(path).read_text().strip()


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """When a process of this machine began, None if there is none; a later one may have its id."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    with contextlib.suppress(ProcessLookupError):  # no /proc here: that it lives must do
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
        return "alive"
    return None


def _job() -> str | None:
    """The SLURM job that this process is part of, as squeue names it."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{x}_ID") for x in ("JOB", "TASK"))
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
