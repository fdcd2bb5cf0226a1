"""Pools of minimum-bias events as a layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from hpcgan.data.layouts.base import Layout
from hpcgan.data.layouts.describe import PICTURE_EVENTS, attribute_lines, headline, keeping, line
from hpcgan.physics.images import N_ETA, N_PHI
from hpcgan.physics.pileup import PIXELS
from hpcgan.problems.detector_images.layout import save_picture
from hpcgan.problems.pileup import files


class PoolLayout(Layout):
    """Sparse images in `pool`; a picture shows sums of as many as make a pileup."""

    title: ClassVar[str] = "a pool of events"
    group = files.GROUP
    problem: ClassVar[str | None] = "pileup"

    def recognises(self, file: h5py.File) -> bool:
        return self.group in file

    def open(self, path: Path) -> files.PoolFile:
        return files.open_pool(path)

    def validate(self, path: Path) -> None:
        with files.open_pool(path) as file:
            file.announce()
            file.read()

    def describe(self, path: Path, picture: str | os.PathLike[str] | None = None) -> str:
        with files.open_pool(path) as file:
            file.announce()
            events, mu, attributes = file.read(), file.mu, file.attrs
        owner = np.repeat(np.arange(len(events)), events.counts)
        energy = np.bincount(owner, events.energy, len(events)).astype(np.float64)
        lines = [
            headline(path, f"pool of {len(events)} events"),
            f"  images            {N_ETA} x {N_PHI} [eta, phi], sparse, MeV",
            line("energy", energy / 1e3, "GeV an event"),
            line("occupancy", events.counts, f"pixels of {PIXELS}"),
            f"  brightest         {float(events.energy.max(initial=0.0)):.4g} MeV in a pixel",
            *attribute_lines(attributes),
        ]
        if picture is not None:
            k = min(mu or 1, len(events))
            sums = events.sums(np.arange(len(events) // k * k).reshape(-1, k)[:PICTURE_EVENTS])
            total = np.asarray(np.bincount(events.pixel, events.energy, PIXELS), np.float64)
            mean = total.reshape(N_ETA, N_PHI) * (k / len(events))
            with keeping(lines):
                save_picture(sums, mean, f"{path.name}: sums of {k}", picture)
            lines.append(f"  picture           {picture}")
        return "\n".join(lines)


POOL = PoolLayout()
