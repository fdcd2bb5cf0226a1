"""What a sample of calorimeter showers is to the networks: `layer_<i>` (n, rows, columns) and conditions (n,)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

ENERGY = "energy"
PARTICLE = "particle"


def layer_name(layer: int) -> str:
    """Name of a layer's image (n, rows, columns) in a sample."""
    return f"layer_{layer}"


def images_of(sample: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
    layers = 0
    while layer_name(layers) in sample:
        layers += 1
    return [sample[layer_name(layer)] for layer in range(layers)]


def layer_energies(images: Sequence[tf.Tensor]) -> tf.Tensor:
    """Summed energy of each layer: images (n, rows, columns) -> (n, layers), GeV."""
    return tf.stack([tf.reduce_sum(image, axis=[1, 2]) for image in images], axis=1)


def one_hot(particle: tf.Tensor, classes: Sequence[float]) -> tf.Tensor:
    """Which of the classes samples are of, (n,) -> (n, classes)."""
    return tf.cast(tf.equal(particle[:, None], tf.constant(classes, particle.dtype)), particle.dtype)


def class_numbers(particle: tf.Tensor, classes: Sequence[float]) -> tf.Tensor:
    """Place of each particle (n,) among the classes."""
    return tf.argmax(one_hot(particle, classes), axis=1, output_type=tf.int32)


def energies_and_classes(
    batches: Iterable[Mapping[str, tf.Tensor]],
    classes: Sequence[float],
    images: Callable[[Mapping[str, tf.Tensor]], list[tf.Tensor]] = images_of,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Summed energies of showers, those of their particles, GeV, and the number of each's class, 0 without classes:
    (n,) each.
    """
    totals, energies, which = [], [], []
    for batch in batches:
        totals.append(tf.reduce_sum(layer_energies(images(batch)), axis=1).numpy())
        energies.append(tf.reshape(batch[ENERGY], [-1]).numpy())
        n = len(totals[-1])
        which.append(class_numbers(batch[PARTICLE], classes).numpy() if classes else np.zeros(n, int))
    return np.concatenate(totals), np.concatenate(energies), np.concatenate(which)
