"""The image of containers/, built in a root file system by the steps of its recipe: `make test-container`.

Slow: it compiles, and installs a gigabyte of packages. HPCGAN_CONTAINER_ROOT names a folder to keep the file system
in: what is there already is not made again. Wheels are kept where the set-up keeps them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest
from roots import RootFileSystem, instructions, missing, pip_paths

ENTRY = "/opt/hpcgan/source/containers/enter.sh"
CACHES = [Path.home() / ".cache/hpcgan", Path.home() / ".cache/pip"]


@pytest.fixture(scope="module")
def image() -> Iterator[RootFileSystem]:
    reason = missing()
    if reason is not None:
        needs.lacking(f"no root file system for the tests: {reason}")
    kept = os.environ.get("HPCGAN_CONTAINER_ROOT")
    folder = Path(kept or tempfile.mkdtemp(prefix="hpcgan-container-", dir="/var/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    for cache in CACHES:
        cache.mkdir(parents=True, exist_ok=True)
    root = RootFileSystem(folder, [*map(str, CACHES), *pip_paths(), sys.prefix])
    for name, words in instructions():
        if name == "COPY":
            root.copy(words[:-1], words[-1])
        elif name == "RUN" and words[-1] != "clean":  # which would empty this machine's caches
            root.run(*words)
    yield root
    if not kept:
        shutil.rmtree(folder)


def test_doctor_finds_all_well_with_the_image_s_mpi(image):
    report = image.run(ENTRY, "hpcgan", "doctor")
    assert "all is well" in report
    assert "/usr/lib/x86_64-linux-gnu" in report  # Debian's libmpi, not one beside Python
    assert "2 ranks x" in report


def test_two_ranks_train(image):
    image.run(ENTRY, "hpcgan", "data", "cosmo", "--out", "/work/maps", "--maps", "100", "--side", "32", "--force")
    small = ["model.filters=1", "model.latent_dim=3", "model.side=32", "training.epochs=1", "training.batch_size=8"]
    told = image.run(
        *(ENTRY, "hpcgan", "train", "/opt/hpcgan/source/configs/cosmo.yaml", "--ranks", "2", "--run", "/work/run"),
        *(*small, "scoring.events=20", "data.path=/work/maps"),
    )
    assert (image.folder / "work/run/metrics.jsonl").exists(), told


def test_a_site_s_mpi_that_is_bound_in_takes_the_place_of_the_image_s(image):
    """Built against Debian's Open MPI 4, run with the Open MPI 5 of this machine's environment."""
    if not (Path(sys.prefix) / "lib/libmpi.so.40").exists():
        needs.lacking("this environment has no Open MPI of its own to bind in")
    report = image.run(ENTRY, "hpcgan", "doctor", HPCGAN_SITE_MPI=sys.prefix)
    assert "all is well" in report
    assert f"({sys.prefix}/bin/mpirun)" in report
    assert f"({sys.prefix}/lib/libmpi.so.40" in report


def test_an_mpi_that_is_not_bound_in_is_said(image):
    assert "HPCGAN_SITE_MPI=/no/mpi has no libmpi.so.40 here: bind" in image.run(
        ENTRY, "true", HPCGAN_SITE_MPI="/no/mpi"
    )
