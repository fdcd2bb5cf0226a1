"""Pools of minimum-bias events, made with PYTHIA and the parametrised calorimeter on any number of processes.

Events are made as those of :mod:`hpcgan.problems.detector_images.generate`, in the same blocks, and each goes through
the calorimeter by itself: its towers are smeared and cut as if there were no others (docs/pileup.md says what that
means for sums).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable

import numpy as np

from hpcgan.data import storage
from hpcgan.data.workers import Progress, in_order
from hpcgan.physics import detector
from hpcgan.physics.pileup import SparseImages
from hpcgan.physics.pythia import MinBiasProcess
from hpcgan.problems.detector_images import generate as generation
from hpcgan.problems.pileup import files as pool

MU = 20
"""Events of a pileup unless asked otherwise: what the authors trained on."""


def make_block(block: generation.Block, advance: Callable[[int], None] | None = None) -> SparseImages:
    """Generate the events of a block as sparse images.

    Parameters
    ----------
    block : Block
    advance : callable(n), optional
        Called after every batch with its number of events.
    """
    batches = [SparseImages.of(images) for images in generation.image_batches(block, advance)]
    return SparseImages.join(batches)


def generate(
    out: str | os.PathLike[str],
    events: int,
    mu: int = MU,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress | None = None,
    force: bool = False,
    card: detector.Card = detector.ATLAS,
) -> bool:
    """Write ``train.h5``, ``val.h5`` and ``test.h5`` (60/20/20 percent): pools that share no event.

    The same arguments give the same bytes whatever `jobs` is. With more than one job a script that calls this needs the
    usual ``if __name__ == "__main__":`` guard, since the workers are spawned.

    Parameters
    ----------
    out : path
        Folder of the files.
    events : int
        Total number.
    mu : int
        Written down as the number of events that make a pileup; the events do not depend on it.
    seed : int
        0 or more.
    jobs : int
        Processes that make events; 1 works in this process.
    progress : callable(done, total), optional
    force : bool
        Replace existing files.
    card : Card
        The detector.

    Returns
    -------
    bool
        False if `out` already held exactly this data and nothing was done.

    Raises
    ------
    InputError
        Arguments out of range, an `out` that holds other data, no room on its disk.
    HpcganError
        PYTHIA failed, or a worker process died. Nothing is left under the final names in any case.
    """
    pool.check_mu(mu)
    process = MinBiasProcess()
    generation.check_arguments([process], events, seed, jobs)
    settings = json.dumps({"mu": mu, **json.loads(generation.settings_of([process], events, seed, card))})
    sizes = storage.split_sizes(events)
    if pool.check_target(out, settings, sizes, force):
        return False
    attributes = {
        **generation.attributes_of([process], settings, seed),
        "problem": "pileup",
        "contents": "minimum-bias events, each simulated by itself",
        "mu": np.int64(mu),
    }
    with pool.Writer(out, sizes, attributes, force) as writer:  # refuses what no disk could hold
        ordered = generation.plan([process], events, seed, card)
        with contextlib.closing(in_order(make_block, ordered, jobs, events, progress)) as results:
            for made in results:
                writer.append(made)
    return True
