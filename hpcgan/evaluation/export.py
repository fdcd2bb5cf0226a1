"""A run's generator as a SavedModel, which TensorFlow or TensorFlow Serving runs without hpcgan."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf

import hpcgan
from hpcgan import rng
from hpcgan.data.schema import Sample
from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation.conditions import Ranges, each, from_random_events, ranges
from hpcgan.evaluation.sampling import RunSampler, scored_network, uses_batch_statistics
from hpcgan.methods.numpy_to_graph import Traced, UntraceableError, untraced
from hpcgan.networks.capabilities import matching_of, unmatched
from hpcgan.runs import pretrained

SIGNATURE = "serving_default"
NOISE, SYMMETRIES = "noise", "symmetries"
DESCRIPTION = Path("assets.extra", "hpcgan.json")
"""What the model is and takes; the folder is the one that the format leaves to the users of a model."""

#: Tensors by name, or what stands for them.
Specs = Mapping[str, Any]


class Serving(tf.Module):
    """A generator between physical units: noise and conditions in, decoded samples out, in batches of any size.

    Parameters
    ----------
    sampler : RunSampler
        What it has to agree with.
    """

    def __init__(self, sampler: RunSampler) -> None:
        super().__init__("serving")
        self.network = sampler.network
        self._problem, self._symmetries = sampler.problem, sampler.symmetries
        self._training = sampler.config.scoring.statistics == "batch"
        self._dtype = sampler.config.training.dtype
        self._table = sampler.sampler.table

    @property
    def inputs(self) -> dict[str, tf.TensorSpec]:
        """Tensors of the signature, by name; the first axis of each runs over the samples.

        `noise` (standard normal), each condition, and with symmetries of generated samples `symmetries` (uniform in
        [0, 1)).
        """
        problem = self._problem
        specs = {NOISE: tf.TensorSpec([None, problem.noise_dim], self._dtype, NOISE)}
        for name in problem.conditions:
            if name in (NOISE, SYMMETRIES):
                raise HpcganError(f"problem '{problem.name}' cannot be exported: a condition is named '{name}'")
            spec = problem.schema[name]
            specs[name] = tf.TensorSpec([None, *spec.shape], spec.dtype, name)
        if self._symmetries:
            specs[SYMMETRIES] = tf.TensorSpec([None, len(problem.symmetries)], "float64", SYMMETRIES)
        return specs

    def concrete(self) -> Any:
        """The signature's function.

        Raises
        ------
        HpcganError
            The problem encodes or decodes with what cannot become part of a graph.
        """
        # Without autograph, which has nothing to do here but would lose the names in messages.
        function = tf.function(lambda **inputs: self(inputs), autograph=False)
        try:
            return function.get_concrete_function(**self.inputs)
        except UntraceableError as error:
            raise HpcganError(f"problem '{self._problem.name}' cannot be exported: {error}") from None

    def __call__(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Samples in physical units, as `hpcgan.methods.sampler.Sampler.batch` makes them."""
        problem = self._problem
        values = {name: Traced(inputs[name]) for name in problem.conditions}
        encoded = problem.encode_conditions(cast("Sample", values))
        conditions = {name: tf.cast(untraced(value), self._dtype) for name, value in encoded.items()}
        sample, matching = unmatched(self.network, inputs[NOISE], conditions, self._training), matching_of(self.network)
        if matching is not None:
            sample = matching(sample, conditions, self._table)
        if self._symmetries:
            sample = self._permuted(sample, inputs[SYMMETRIES])
        decoded = problem.decode(cast("Sample", {name: Traced(value) for name, value in sample.items()}))
        return {name: untraced(value) for name, value in decoded.items()}

    def _permuted(self, sample: Mapping[str, tf.Tensor], uniforms: tf.Tensor) -> dict[str, tf.Tensor]:
        """Samples under the symmetry operations that the uniform numbers (n, columns) stand for."""

        def orders(row: tf.Tensor) -> dict[str, tf.Tensor]:
            # One sample at a time, since NumPy code has to know how many there are.
            permutations = self._problem.permutations(self._symmetries, cast("np.ndarray", Traced(row[None])))
            return {name: untraced(order)[0] for name, order in permutations.items()}

        changed = dict(sample)
        for name, order in tf.vectorized_map(orders, uniforms).items():
            flat = tf.reshape(sample[name], tf.shape(order))
            changed[name] = tf.reshape(tf.gather(flat, order, axis=1, batch_dims=1), tf.shape(sample[name]))
            changed[name] = tf.ensure_shape(changed[name], sample[name].shape)
        return changed


def describe(sampler: RunSampler, run: Path, takes: Specs, gives: Specs) -> dict[str, Any]:
    """What a model says of itself: where it comes from, its inputs and outputs with shapes and units."""
    config, problem, checkpoint = sampler.config, sampler.problem, sampler.checkpoint
    inputs, outputs = (
        {name: {"shape": spec.shape.as_list(), "dtype": spec.dtype.name} for name, spec in specs.items()}
        for specs in (takes, gives)
    )
    distributions: dict[str, dict[str, Any]] = {
        NOISE: {"distribution": "standard normal"},
        SYMMETRIES: {"distribution": "uniform in [0, 1)", "operations": list(sampler.symmetries)},
    }
    trained: Ranges = pretrained.ranges(run) or {}
    if problem.conditions and not trained:
        with contextlib.suppress(InputError):  # the data have gone; the model does not need them
            trained = ranges(sampler.training_conditions)
    for name, tensor in inputs.items():
        tensor |= distributions.get(name, {})
        if name in problem.conditions:
            tensor["unit"] = problem.schema[name].unit
            if name in trained:
                tensor["trained_range"] = list(trained[name])
    for name, tensor in outputs.items():
        if name in problem.schema:
            tensor["unit"] = problem.schema[name].unit
            if axes := problem.schema[name].meaning.axes:
                tensor["axes"] = list(axes)
    statistics = "batch" if uses_batch_statistics(config, sampler.network) else "moving"
    return {
        "format": 1,
        "written_by": f"hpcgan {hpcgan.__version__}",
        "problem": problem.name,
        "run": str(run),
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
        f"validation_{config.scoring.deciding}": checkpoint.score,
        "weights": scored_network(config),
        "statistics": statistics,
        **({"batch_size": config.training.batch_size} if statistics == "batch" else {}),
        "signature": SIGNATURE,
        "noise_dim": problem.noise_dim,
        "inputs": inputs,
        "outputs": outputs,
        "model": problem.model.model_dump(mode="json"),
    }


def check_target(path: Path) -> None:
    """Refuse a folder that is there already.

    Raises
    ------
    InputError
    """
    if path.exists() or path.is_symlink():
        raise InputError(f"{path}: exists already; give --out a folder that does not")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A place for what becomes folder `path` when the block ends well; otherwise nothing is left.

    Raises
    ------
    InputError
        The folder is there already, or cannot be written.
    """
    check_target(path)
    absolute = path.absolute()
    temporary = absolute.parent / f".{absolute.name}.{secrets.token_hex(4)}.part"
    try:
        absolute.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        check_target(path)
        os.rename(temporary, absolute)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    except tf.errors.OpError as error:
        raise InputError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def export(sampler: RunSampler, run: Path, path: Path) -> dict[str, Any]:
    """Write a SavedModel, which appears under its name when it is complete and gives what the run gives.

    Parameters
    ----------
    sampler : RunSampler
    run : Path
        Run directory, for the description.
    path : Path
        Folder of the model; the folders above it are made. TensorFlow Serving wants a number for its last part, a
        version of the model.

    Returns
    -------
    dict
        The description that was written with it.

    Raises
    ------
    InputError
        The folder is there already, or cannot be written.
    HpcganError
        The problem cannot be exported.
    """
    check_target(path)
    serving = Serving(sampler)
    function = serving.concrete()
    details = describe(sampler, run, serving.inputs, function.structured_outputs)
    with new_folder(path) as temporary:
        tf.saved_model.save(serving, str(temporary), signatures={SIGNATURE: function})
        description = temporary / DESCRIPTION
        description.parent.mkdir()
        description.write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
        _compare(sampler, temporary)
    return details


def request(sampler: RunSampler, n: int, seed: int, conditions: Sample | None = None) -> dict[str, np.ndarray]:
    """What a model is sent to give the first n samples of `hpcgan.generate(run, n, seed=seed)`.

    Parameters
    ----------
    sampler : RunSampler
    n, seed : int
    conditions : Sample, optional
        (n, ...) in physical units, for a conditional model.
    """
    problem = sampler.problem
    noise = rng.normal(seed, "sample", 0, 0, n, problem.noise_dim)
    sent = {NOISE: noise.astype(sampler.config.training.dtype), **(conditions or {})}
    if sampler.symmetries:
        sent[SYMMETRIES] = rng.uniform(seed, "sample/symmetries", 0, 0, n, len(problem.symmetries))
    return sent


def compared(
    sampler: RunSampler, answer: Callable[[int, int, Sample | None], Mapping[str, np.ndarray]]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, values of a model and values of the run, of each tensor of a batch.

    Parameters
    ----------
    sampler : RunSampler
    answer : callable
        Gives what the model makes, from a number of samples, a seed and conditions.
    """
    problem, n, conditions = sampler.problem, sampler.batch_size, None
    if problem.conditions:
        try:
            conditions = from_random_events(sampler.training_conditions, 1)(0, n)
        except InputError:
            shapes = {name: problem.schema[name] for name in problem.conditions}
            conditions = {name: np.ones((n, *spec.shape), spec.dtype) for name, spec in shapes.items()}
    expected = sampler.sample(n, 1, conditions=None if conditions is None else each(conditions))
    for name, values in answer(n, 1, conditions).items():
        yield name, values, expected[name]


def _compare(sampler: RunSampler, path: Path) -> None:
    """Hold a written model against the run: nothing that decodes otherwise may leave the house."""
    function = tf.saved_model.load(str(path)).signatures[SIGNATURE]

    def answer(n: int, seed: int, conditions: Sample | None) -> dict[str, np.ndarray]:
        sent = request(sampler, n, seed, conditions)
        tensors = function(**{name: tf.constant(value) for name, value in sent.items()})
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    for name, values, exact in compared(sampler, answer):
        # A pixel at a threshold may fall on either side of it.
        if not np.allclose(values, exact, rtol=1e-3, atol=1e-3 * float(np.abs(exact).max())):
            raise HpcganError(f"problem '{sampler.problem.name}' cannot be exported: the model gives another '{name}'")
