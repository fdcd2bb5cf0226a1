"""Jet images for tests: W jets of two prongs, QCD jets of one, in the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcgan.data import storage
from hpcgan.data.storage import Target
from hpcgan.problems.jet_images import files


def jets(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """`n` jets of both classes in turn; the second prong of a W lies below the centre."""
    rng = np.random.default_rng(seed)
    images, signal = np.zeros((n, 25, 25), np.float32), np.arange(n) % 2
    for image, is_w in zip(images, signal, strict=True):
        prongs = [(12, 12), (18, 12)] if is_w else [(12, 12)]
        for row, column in prongs:
            places = np.clip(np.rint(rng.normal((row, column), 1.2 if is_w else 3.0, (15, 2))), 0, 24).astype(int)
            np.add.at(image, tuple(places.T), rng.exponential(270 / 15 / len(prongs), 15))
    return {"image": images, "signal": signal.astype(np.float32)}


def write(folder: Path, n: int = 100) -> Path:
    """Train, validation and test files."""
    with files.Writer(Target(folder, storage.split_sizes(n), {"settings": "{}"}), columns=()) as writer:
        writer.append(jets(n))
    return folder
