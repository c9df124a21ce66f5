"""A real SLURM of two nodes on this machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from on_cluster import LONG, LONGEST, ONE, Cluster, command, until

SCRIPT = Path(__file__).with_name("local-slurm.sh")


@pytest.fixture(scope="session")
def slurm():
    """The cluster's daemons; without SLURM the tests are left out, or fail if it must be there."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [
        name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name, path=path)
    ]
    if missing:
        packages = "munge slurmctld slurmd slurm-client"
        words = f"{', '.join(missing)} not found: apt-get install {packages}"
        if os.environ.get("SLURM_MUST_BE_THERE"):
            pytest.fail(words)
        pytest.skip(words)
    folder = tempfile.mkdtemp(prefix="slurm", dir="/tmp")  # sockets need short paths
    settings = {"LOCAL_SLURM_DIR": folder, "LOCAL_SLURM_ACCOUNTING": "none"}
    settings |= {"LOCAL_SLURM_MAX_ARRAY": str(LONGEST + 1)}
    try:
        subprocess.run([SCRIPT, "start"], env=os.environ | settings, check=True)
        os.environ["SLURM_CONF"] = f"{folder}/etc/slurm.conf"
        os.environ["OMP_NUM_THREADS"] = "1"
        yield lambda word: subprocess.run([SCRIPT, word], env=os.environ | settings, check=True)
    finally:
        os.environ.pop("SLURM_CONF", None)
        subprocess.run([SCRIPT, "stop"], env=os.environ | settings, check=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def limited(slurm, tmp_path_factory) -> tuple[Cluster, str]:
    """A training that needs several allocations, begun before all tests and seen to by the last."""
    made = Cluster(tmp_path_factory.mktemp("limited"))
    (id,) = made.submit(*LONG, "slurm.timeout_min=1")
    return made, id


@pytest.fixture
def cluster(slurm, limited, tmp_path) -> Cluster:
    """The cluster with results folders of the test's own, and without its jobs afterwards."""
    yield Cluster(tmp_path, limited[1])

    def others() -> list[str]:
        ids = command("squeue", "--noheader", "--format=%A").split()
        return [id for id in ids if id != limited[1]]

    if others():
        subprocess.run(["scancel", *others()], check=False)
    until(lambda: not others())


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Cluster:
    """The training that the tests interrupt, done on this machine and left alone."""
    made = Cluster(tmp_path_factory.mktemp("undisturbed"))
    made.run(*ONE)
    return made
