"""Samples to calibrate a network on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import tensorflow as tf

COUNTED = 16384
"""Samples, spread over the training split, whose answers are counted for a prior."""


def some_of(batches: Iterable[Mapping[str, tf.Tensor]], total: int, n: int) -> dict[str, tf.Tensor]:
    """About n samples at most of a total, spread over batches."""
    every = -(-total // n)
    some = [{name: values[::every] for name, values in batch.items()} for batch in batches]
    return {name: tf.concat([batch[name] for batch in some], axis=0) for name in some[0]}
