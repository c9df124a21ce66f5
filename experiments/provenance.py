"""Where a number comes from: commit, versions, machine, time."""

import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@lru_cache
def code() -> dict:
    """Commit of the code, and the files of it that differ or are not in it; None without git."""
    return {"commit": _git("rev-parse", "HEAD"), "modified": _modified()}


def _modified() -> list[str] | None:
    # What computes: a table or a note that was rewritten is no other code.
    status = _git("status", "--porcelain", "--untracked-files=all", "--", "core", "experiments")
    return None if status is None else [line.strip() for line in status.splitlines()]


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", ROOT, *words], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip("\n")


@lru_cache
def machine() -> dict:
    """Processor, cores and versions that a number may depend on in its last digits."""
    return {
        "host": socket.gethostname(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def record(seconds: float, device: str, threads: int, **more) -> dict:
    """Provenance of something that took `seconds` and has just ended."""
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    spent = {"ended": ended, "seconds": round(seconds, 2), "device": device, "threads": threads}
    return code() | machine() | spent | more
