"""Starting and stopping a real SLURM of two nodes on this machine."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).with_name("local-slurm.sh")
LONGEST = 4  # tasks of an array on this cluster


def missing() -> str:
    """What is not installed and how to get it, or nothing."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    names = [n for n in ("slurmctld", "slurmd", "munged") if not shutil.which(n, path=path)]
    packages = "munge slurmctld slurmd slurm-client"
    return f"{', '.join(names)} not found: apt-get install {packages}" if names else ""


def _free_ports(n: int) -> int:
    """The first of n consecutive ports of which nobody listens on any."""
    for first in range(26810, 60000, n):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + n):
                held.enter_context(socket.socket()).bind(("", port))
            return first
    raise OSError(f"no {n} consecutive ports are free")


@contextmanager
def running() -> Iterator[Callable[[str], object]]:
    """The cluster, which this process's environment then names; yields local-slurm.sh."""
    folder = tempfile.mkdtemp(prefix="slurm", dir="/tmp")  # sockets need short paths
    settings = {"LOCAL_SLURM_DIR": folder, "LOCAL_SLURM_ACCOUNTING": "none"}
    settings |= {"LOCAL_SLURM_MAX_ARRAY": str(LONGEST + 1), "LOCAL_SLURM_CPUS": "6"}
    settings |= {"LOCAL_SLURM_PORT": str(_free_ports(4))}
    settings |= {"LOCAL_SLURM_MEM_MB": "12000", "LOCAL_SLURM_REQUEUE_S": "6"}

    def ask(word: str) -> None:
        subprocess.run([SCRIPT, word], env=os.environ | settings, check=True)

    try:
        ask("start")
        os.environ["SLURM_CONF"] = f"{folder}/etc/slurm.conf"
        os.environ["OMP_NUM_THREADS"] = "1"
        yield ask
    finally:
        os.environ.pop("SLURM_CONF", None)
        ask("stop")
        shutil.rmtree(folder, ignore_errors=True)


def kill_slurmd() -> None:
    """SIGKILL of both nodes' daemons; `ask("start")` starts them again."""
    folder = Path(os.environ["SLURM_CONF"]).parents[1]
    for node in ("n1", "n2"):
        os.kill(int((folder / "run" / f"slurmd-{node}.pid").read_text()), 9)
