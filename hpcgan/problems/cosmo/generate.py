"""Data sets of lognormal convergence maps, made on any number of processes."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import numpy as np

import hpcgan
from hpcgan.data import storage
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import Schema, TensorSpec
from hpcgan.data.workers import Progress, check_jobs, in_order
from hpcgan.errors import InputError
from hpcgan.physics import lognormal
from hpcgan.physics.lognormal import LognormalMaps

BLOCK_MAPS = 16
"""Maps of a unit of work, 4 MB at full size. The files do not depend on it."""

SIDES = range(32, 4097, 16)

Task = tuple[int, int, int, int]
"""Seed, side, first map, maps."""


def map_schema(side: int) -> Schema:
    """Schema of maps with `side` pixels along a side."""
    return {"kappa": TensorSpec((side, side))}


def make_maps(task: Task, advance: Any) -> np.ndarray:
    """Maps of a unit of work, (n, side, side) float32."""
    seed, side, first, n = task
    made = LognormalMaps(side).make(seed, first, n)
    advance(n)
    return made


def settings_of(maps: int, seed: int, side: int) -> str:
    """Everything the files' contents depend on, as JSON."""
    return json.dumps(
        {
            "kind": "lognormal convergence",
            "maps": maps,
            "seed": seed,
            "side": side,
            "area_deg2": lognormal.AREA_DEG2,
            "shift": lognormal.SHIFT,
            "spectrum": [
                lognormal.AMPLITUDE,
                lognormal.PIVOT,
                lognormal.RISE,
                lognormal.SHARPNESS,
                lognormal.FALL,
            ],
            "split_edges": storage.SPLIT_EDGES,
        }
    )


def generate(
    out: str | os.PathLike[str],
    maps: int,
    seed: int = 1,
    side: int = lognormal.SIDE,
    jobs: int = 1,
    progress: Progress | None = None,
    force: bool = False,
) -> bool:
    """Write ``train.h5``, ``val.h5`` and ``test.h5`` (60/20/20 percent) of convergence maps.

    Map number i of the data set is a function of (seed, i), whatever `maps` and `jobs` are. With more than one job a
    script that calls this needs the usual ``if __name__ == "__main__":`` guard, since the workers are spawned.

    Parameters
    ----------
    out : path
        Folder of the files.
    maps : int
        Total number.
    seed : int
        0 or more.
    side : int
        Pixels along a side, a multiple of 16; the field is 12 square degrees all the same.
    jobs : int
        Processes that make maps; 1 works in this process.
    progress : callable(done, total), optional
    force : bool
        Replace existing files.

    Returns
    -------
    bool
        False if `out` already held exactly this data and nothing was done.

    Raises
    ------
    InputError
        Arguments out of range, an `out` that holds other data, no room on its disk.
    HpcganError
        The disk became full, or a worker process died. Nothing is left under the final names in any case.
    """
    check_jobs(seed, jobs)
    if side not in SIDES:
        raise InputError(f"side = {side}: use a multiple of 16 from {SIDES[0]} to {SIDES[-1]}")
    if maps < 5:
        raise InputError(f"maps = {maps}: at least 5 are needed to fill train, validation and test")
    settings = settings_of(maps, seed, side)
    sizes = storage.split_sizes(maps)
    if tensors.check_target(out, settings, sizes, force):
        return False
    attributes = {
        "problem": "cosmo",
        "contents": "weak-lensing convergence, shifted lognormal fields",
        "area_deg2": lognormal.AREA_DEG2,
        "shift": lognormal.SHIFT,
        "seed": seed,
        "hpcgan": hpcgan.__version__,
        "settings": settings,
    }
    with tensors.Writer(out, sizes, map_schema(side), attributes, force) as writer:  # refuses what no disk could hold
        tasks = [(seed, side, first, min(BLOCK_MAPS, maps - first)) for first in range(0, maps, BLOCK_MAPS)]
        with contextlib.closing(in_order(make_maps, tasks, jobs, maps, progress)) as results:
            for made in results:
                writer.append({"kappa": made})
    return True
