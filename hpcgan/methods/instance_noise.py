"""Noise on what the discriminator sees: Sonderby et al. 2016 (arXiv:1610.04490)."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.data.schema import Schema
from hpcgan.methods.settings import GanSettings
from hpcgan.networks.layers import Tensors

PREFIX = "instance_noise/"  # of the draws
SIGMA = "instance_noise_sigma"


def sigma(config: GanSettings, epochs: float) -> float:
    """Standard deviation after `epochs` (fractional) epochs: down linearly from that of the configuration to zero."""
    settings = config.instance_noise
    return settings.sigma * max(0.0, 1.0 - epochs / (settings.epochs or float(config.epochs)))


def draw(schema: Schema, seed: int, step: int, first: int, n: int, dtype: str) -> dict[str, np.ndarray]:
    """Standard normal noise for a rank's share of real and of fake samples, by global sample index.

    Parameters
    ----------
    schema : Schema
        Noise is for the tensors that a generator makes, not for conditions.
    seed, step, first, n : int
        See `hpcgan.rng`.
    """
    tensors = {}
    for kind in ("real", "fake"):
        for name, spec in schema.items():
            if spec.role == "data":
                stream = f"instance-noise/{kind}/{name}"
                noise = rng.normal(seed, stream, step, first, n, math.prod(spec.shape))
                tensors[f"{PREFIX}{kind}/{name}"] = noise.astype(dtype).reshape(n, *spec.shape)
    return tensors


def add(sample: Tensors, draws: Tensors, kind: str) -> dict[str, tf.Tensor]:
    """`real` or `fake` samples with their noise, if there is any among the draws."""
    noisy = dict(sample)
    for name, tensor in sample.items():
        noise = draws.get(f"{PREFIX}{kind}/{name}")
        if noise is not None:
            noisy[name] = tensor + draws[SIGMA] * noise
    return noisy
