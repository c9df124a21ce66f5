"""A real SLURM of two nodes on this machine."""

import os
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor

import daemons
import disturbances
import pytest
from on_cluster import LONG, ONE, WHOLE, Cluster


@pytest.fixture(scope="session")
def slurm():
    """The cluster's daemons; without SLURM the tests are left out, or fail if it must be there."""
    if words := daemons.missing():
        if os.environ.get("SLURM_MUST_BE_THERE"):
            pytest.fail(words)
        pytest.skip(words)
    with daemons.running() as ask:
        yield ask


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
