"""Files that are whole or absent: written under another name first, which says who writes them."""

import contextlib
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO


@lru_cache
def here() -> list[str]:
    """This running system and its processes' name space: within it a process id says enough."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):  # elsewhere than on Linux the name must do
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        known.append(os.readlink("/proc/self/ns/pid"))
    return known


def temporary(path: Path) -> Path:
    """The name beside `path` under which this process writes what is to become it."""
    return path.with_name(f".{path.name}.{os.getpid()}.{_mark()}.tmp")


def writer(path: Path) -> int | None:
    """The process that writes a `temporary` file, 0 where it is of another machine; else None."""
    found = re.fullmatch(r"\..*\.(\d+)\.([0-9a-f]{8})\.tmp", path.name)
    if found is None:
        return None
    return int(found[1]) if found[2] == _mark() else 0


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well, and is gone when it fails.

    durable: on the disk when this returns, rather than soon.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(path)
    try:
        with open(unfinished, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _mark() -> str:
    return hashlib.sha256(repr(here()).encode()).hexdigest()[:8]
