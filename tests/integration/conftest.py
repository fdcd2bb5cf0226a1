"""The Slurm cluster of the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jobs
import pytest
from slurm_cluster import SlurmCluster, missing


@pytest.fixture(autouse=True)
def _nothing_goes_on() -> Iterator[None]:
    yield
    jobs.end_all()


@pytest.fixture(scope="session")
def outside() -> Iterator[Path]:
    """A folder outside /tmp, of which each node of the cluster has one of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hpcgan-slurm-", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(outside: Path) -> Iterator[SlurmCluster]:
    """Four nodes of two CPUs. In CI there must be one; elsewhere its tests are skipped where there cannot."""
    reason = missing()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(f"no Slurm for the tests: {reason}")
        pytest.skip(f"no Slurm for the tests: {reason}")
    with SlurmCluster(outside / "cluster") as made:
        yield made
