"""What a sample is: named tensors with shape, type, unit and role. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hpcgan.data.meaning import Meaning

#: A batch of samples: one array a tensor, the first axis runs over the samples.
Sample = dict[str, np.ndarray]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a sample.

    Attributes
    ----------
    shape : tuple of int
        Shape of one sample (without the batch axis).
    unit : str
        Physical unit, "" when dimensionless.
    role : "data" or "condition"
        What a generator makes, or what it is asked for.
    dtype : str
        NumPy type the networks see.
    sparse : bool
        Whether most values are zero: files compress it then.
    meaning : Meaning
        What files may say of it besides the unit, such as its axes; anything else is refused.
    """

    shape: tuple[int, ...]
    unit: str = ""
    role: Literal["data", "condition"] = "data"
    dtype: str = "float32"
    sparse: bool = False
    meaning: Meaning = field(default_factory=Meaning)


Schema = Mapping[str, TensorSpec]


def check_sample(sample: Sample, schema: Schema) -> int:
    """Return the number of samples in the batch.

    Raises
    ------
    ValueError
        If a tensor is missing, or has another shape than the schema says.
    """
    lengths = set()
    for name, spec in schema.items():
        if name not in sample:
            raise ValueError(f"tensor '{name}' is missing from the sample (has: {', '.join(sample)})")
        if sample[name].shape[1:] != spec.shape:
            raise ValueError(f"tensor '{name}' has shape {sample[name].shape[1:]}, expected {spec.shape}")
        lengths.add(len(sample[name]))
    if len(lengths) != 1:
        raise ValueError(f"tensors of one batch differ in length: {sorted(lengths)}")
    return lengths.pop()


def sample_bytes(schema: Schema) -> int:
    """Bytes of one sample in memory, as float32."""
    return sum(4 * math.prod(spec.shape) for spec in schema.values())


def conditions_of(sample: Sample, schema: Schema) -> Sample:
    """The tensors of a batch that have the role of a condition."""
    return {name: sample[name] for name, spec in schema.items() if spec.role == "condition"}


def take(sample: Sample, indices: np.ndarray | slice) -> Sample:
    """The given samples of a batch."""
    return {name: array[indices] for name, array in sample.items()}


def concatenate(samples: list[Sample]) -> Sample:
    """Join batches along the sample axis."""
    return {name: np.concatenate([s[name] for s in samples]) for name in samples[0]}


def no_samples(schema: Schema) -> Sample:
    """A batch without a sample."""
    return {name: np.zeros((0, *spec.shape), spec.dtype) for name, spec in schema.items()}
