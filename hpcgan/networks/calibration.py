"""Samples to calibrate a network on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import tensorflow as tf


def some_of(batches: Iterable[Mapping[str, tf.Tensor]], n: int) -> dict[str, tf.Tensor]:
    """About n samples at most, spread over batches, which are gone through twice."""
    every = -(-sum(len(next(iter(batch.values()))) for batch in batches) // n)
    some = [{name: values[::every] for name, values in batch.items()} for batch in batches]
    return {name: tf.concat([batch[name] for batch in some], axis=0) for name in some[0]}
