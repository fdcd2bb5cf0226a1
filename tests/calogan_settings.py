"""Settings of CaloGAN's networks for any cells, of which a configuration takes only whole segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Pair = tuple[int, int]


@dataclass(frozen=True)
class CaloGan:
    """The published sizes."""

    latent_dim: int = 1024
    shapes: Sequence[Pair] = ((3, 96), (12, 12), (12, 6))
    minibatch_discrimination: Literal["local", "global"] = "local"
    energy_mismatch: float = 0.05
    classes: Sequence[float] = ()
    total_energy: Literal["free", "drawn"] = "free"
    cell_encoding: Literal["linear", "log"] = "linear"
    cell_energies: Literal["free", "matched"] = "free"
    conditioning: Literal["scaled", "joined"] = "scaled"
    discriminator_hidden: Sequence[int] = ()
