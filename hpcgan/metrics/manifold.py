"""Precision, recall, density and coverage. NumPy and SciPy only, a leaf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcgan.metrics.neighbours import distance_blocks, neighbour_radius

NEIGHBOURS = 5


@dataclass(frozen=True)
class Manifold:
    """How far two samples share their region of feature space.

    Attributes
    ----------
    precision : float
        Share of generated events inside the ball of some real event (Kynkaanniemi et al. 2019, arXiv:1904.06991).
    recall : float
        Share of real events inside the ball of some generated event (same paper).
    density : float
        Mean over generated events of the number of balls of real events around it, over k; 1 for equal distributions,
        not bounded (Naeem et al. 2020, arXiv:2002.09797).
    coverage : float
        Share of real events with a generated event in their ball (same paper).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> Manifold:
    """Precision, recall, density and coverage with balls to the k-th nearest neighbour of the same sample.

    The ball of an event is open: its k-th neighbour lies just outside. Memory is that of the samples and one block of
    distances.

    Parameters
    ----------
    real, fake : (n, d), (m, d) arrays
        Features, more than k events each. Recall and coverage depend on n and m: compare values at equal ones.
    k : int

    Raises
    ------
    ValueError
        Too few events, or features that differ in number.
    """
    real_radius, fake_radius = neighbour_radius(real, k), neighbour_radius(fake, k)
    balls = np.zeros(len(fake), dtype=np.int64)  # of real events, around each generated one
    recalled = np.zeros(len(real), dtype=bool)
    covered = np.zeros(len(real), dtype=bool)
    for rows, distances in distance_blocks(real, fake):
        inside = distances < real_radius[rows, None]
        balls += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (distances < fake_radius).any(axis=1)
    return Manifold(
        precision=float(np.mean(balls > 0)),
        recall=float(recalled.mean()),
        density=float(balls.mean() / k),
        coverage=float(covered.mean()),
    )
