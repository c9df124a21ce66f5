"""A real SLURM of two nodes on this machine."""

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import disturbances
import pytest
from on_cluster import LONG, LONGEST, ONE, WHOLE, Cluster

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
    settings |= {"LOCAL_SLURM_MAX_ARRAY": str(LONGEST + 1), "LOCAL_SLURM_CPUS": "6"}
    settings |= {"LOCAL_SLURM_MEM_MB": "12000", "LOCAL_SLURM_REQUEUE_S": "6"}
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
def limited(slurm, tmp_path_factory) -> tuple[Cluster, str, subprocess.Popen]:
    """A training that needs several allocations, and beside it the same on this machine.

    Both are begun before all tests; the last one sees to them.
    """
    made = Cluster(tmp_path_factory.mktemp("limited"))
    (id,) = made.submit(*LONG, "slurm.timeout_min=1")
    return made, id, made.start(*LONG, folder="here")


@pytest.fixture
def cluster(slurm, limited, tmp_path) -> Cluster:
    """The cluster with results folders of the test's own, and without its jobs afterwards."""
    made = Cluster(tmp_path)
    yield made
    made.clear()


@pytest.fixture(scope="session")
def alone(tmp_path_factory) -> Cluster:
    """What the tests do on the cluster, done on this machine and left alone: ONE and WHOLE."""
    made = Cluster(tmp_path_factory.mktemp("alone"))
    made.run(*ONE, folder="one")
    made.run(*WHOLE, folder="whole")
    return made


@pytest.fixture(scope="session")
def disturbed(slurm, limited, alone, tmp_path_factory) -> dict[str, Future]:
    """All disturbances.py at the same time, each with a results folder of its own."""
    with ThreadPoolExecutor(len(disturbances.ALL)) as pool:
        folders = {name: tmp_path_factory.mktemp(name) for name in disturbances.ALL}
        yield {
            name: pool.submit(disturb, Cluster(folders[name]), alone)
            for name, disturb in disturbances.ALL.items()
        }
        for folder in folders.values():
            Cluster(folder).clear()
