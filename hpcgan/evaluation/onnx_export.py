"""A run's generator as an ONNX model, which ONNX Runtime runs without hpcgan and without TensorFlow."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation import onnx_operations, onnx_random
from hpcgan.evaluation.export import NOISE, SYMMETRIES, Serving, compared, describe, new_folder, request
from hpcgan.evaluation.onnx_operations import OPSET
from hpcgan.evaluation.sampling import RunSampler

#: Whether random numbers are inputs of a model, or a model draws those of a seed.
Draws = Literal["given", "drawn"]

MODEL, DESCRIPTION = "model.onnx", "hpcgan.json"
SEED, FIRST, SAMPLES = "seed", "first", "samples"
TOLERANCE = 1e-5
"""Of the largest value of a tensor: by so much a value may be off."""
LEAST_ALIKE = 0.95
"""Share of the values that must be so, among those that are not zero in both. Rounding does the rest: a number that
lies at the edge of an interval or at a threshold falls to the other side, and what depends on it becomes another
sample of the same distribution. docs/onnx.md says how many events that concerns.
"""
_IR_VERSION = 9
_EXTRA = "pip install 'hpcgan[onnx]'"


def check_installed() -> None:
    """Refuse early where a package is missing.

    Raises
    ------
    InputError
    """
    import importlib.util

    missing = [name for name in ("onnx", "tf2onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--format onnx needs {', '.join(missing)}: {_EXTRA}")


def export(sampler: RunSampler, run: Path, path: Path, draws: Draws = "given") -> dict[str, Any]:
    """Write a folder with a model and its description, which appears under its name when it gives what the run gives.

    Parameters
    ----------
    sampler : RunSampler
    run : Path
        Run directory, for the description.
    path : Path
        Folder, with `model.onnx` and `hpcgan.json`; the folders above it are made.
    draws : "given" or "drawn"
        Whether the model has an input for random numbers, or one for a seed, and then makes the events of
        `hpcgan.generate` with this seed.

    Returns
    -------
    dict
        The description that was written with it.

    Raises
    ------
    InputError
        The folder is there already, or cannot be written, or a package is missing.
    HpcganError
        The problem cannot be exported.
    """
    check_installed()
    serving = Serving(sampler)
    function = serving.concrete()
    details = describe(sampler, run, serving.inputs, function.structured_outputs)
    model = converted(function, list(serving.inputs), f"problem '{sampler.problem.name}'")
    if draws == "drawn":
        _draw(model, sampler, details)
    with new_folder(path) as temporary:
        write(model, details, temporary)
        _compare(sampler, temporary / MODEL)
    return details


def write(model: Any, details: dict[str, Any], folder: Path) -> None:
    """Write a model that is described into a new folder."""
    details["opset"] = OPSET
    del details["signature"]  # of a SavedModel
    _describe(model, details)
    folder.mkdir()
    (folder / MODEL).write_bytes(model.SerializeToString())
    (folder / DESCRIPTION).write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")


def converted(function: Any, inputs: list[str], what: str) -> Any:
    """A traced function of tensors by name as an ONNX model, with "n" samples.

    Parameters
    ----------
    function : tf.types.experimental.ConcreteFunction
        Gives tensors by name.
    inputs : list of str
        Names of its arguments.
    what : str
        For messages.

    Raises
    ------
    HpcganError
        There is an operation that ONNX does not have.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    input_names = {tensor.name: tensor.name.split(":")[0] for tensor in frozen.inputs}
    if set(input_names.values()) != set(inputs):
        raise HpcganError(f"{what} cannot be exported to ONNX: its inputs are {sorted(input_names.values())}")
    output_names = dict(
        zip((tensor.name for tensor in frozen.outputs), sorted(function.structured_outputs), strict=True)
    )
    with _quietly("tf2onnx", "tensorflow"), _as_refused(what):
        model = _onnx(frozen.graph.as_graph_def(), input_names, output_names)
    unknown = sorted(_unknown(model.graph))
    if unknown:
        raise HpcganError(f"{what} cannot be exported to ONNX, which has no {', '.join(unknown)}")
    model.ir_version = _IR_VERSION
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    return model


def _onnx(graph_def: Any, input_names: Mapping[str, str], output_names: Mapping[str, str]) -> Any:
    """A frozen graph as an ONNX model; names of its inputs and outputs, and what they become.

    Without tf2onnx's own optimizations, each of which copies the whole graph, again and again: for a likelihood model
    that takes more than two minutes instead of 20 s. ONNX Runtime optimizes what it loads.
    """
    onnx_operations.register()
    from tf2onnx import optimizer, tf_loader, tfonnx

    with tf.device("/cpu:0"), tf.Graph().as_default():  # where it wants to be called
        simpler = tf_loader.tf_optimize(list(input_names), list(output_names), graph_def)
    with tf.device("/cpu:0"), tf.Graph().as_default() as graph:
        tf.import_graph_def(simpler, name="")
        graph_of_onnx = tfonnx.process_tf_graph(
            graph,
            opset=OPSET,
            continue_on_error=True,  # what is unknown is named afterwards
            input_names=list(input_names),
            output_names=list(output_names),
            tensors_to_rename={**input_names, **output_names},
        )
    return optimizer.optimize_graph(graph_of_onnx, optimizers={}).make_model("generator")  # sorts it


@contextlib.contextmanager
def _quietly(*names: str) -> Iterator[None]:
    """Without warnings of these loggers: what an export lacks is said in one line afterwards."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _as_refused(what: str) -> Iterator[None]:
    """With what the converter raises as a message of ours."""
    try:
        yield
    except ValueError as error:
        raise HpcganError(f"{what} cannot be exported to ONNX: {str(error).splitlines()[0]}") from None


def _unknown(graph: Any) -> Iterator[str]:
    """Operations of a graph, and of graphs within it, that ONNX does not have."""
    from onnx import defs

    for node in graph.node:
        if not defs.has(node.op_type, node.domain):
            yield node.op_type
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _unknown(inner)


def _draw(model: Any, sampler: RunSampler, details: dict[str, Any]) -> None:
    """Put the generator of random numbers in front of a model, in place of its inputs for them."""
    from onnx import TensorProto, helper, numpy_helper

    graph, problem = model.graph, sampler.problem
    to = onnx_random.Nodes("draw/")
    widths = {NOISE: problem.noise_dim, SYMMETRIES: len(problem.symmetries) if sampler.symmetries else 0}
    others = [tensor for tensor in graph.input if tensor.name not in widths]
    if taken := {SEED, FIRST, SAMPLES} & {tensor.name for tensor in others}:
        raise HpcganError(f"problem '{problem.name}' cannot draw in ONNX: a condition is named '{taken.pop()}'")
    if others:
        n = to("Gather", to("Shape", others[0].name), to.constant(0, np.int64), axis=0)
    else:
        n = SAMPLES
    numbers = onnx_random.normal(to, SEED, "sample", FIRST, n, widths[NOISE])
    to("Cast", numbers, name=NOISE, to=next(t for t in graph.input if t.name == NOISE).type.tensor_type.elem_type)
    if widths[SYMMETRIES]:
        numbers = onnx_random.uniform(to, SEED, "sample/symmetries", FIRST, n, widths[SYMMETRIES])
        to("Identity", numbers, name=SYMMETRIES)
    nodes = [*to.nodes, *graph.node]
    scalars = [SEED, FIRST] if others else [SEED, SAMPLES, FIRST]
    inputs = [*others, *(helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in scalars)]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(to.constants.values())
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), FIRST))  # what it is if it is not given
    descriptions = details["inputs"]
    for name in (NOISE, SYMMETRIES):
        descriptions.pop(name, None)
    meanings = {
        SEED: "of the random numbers, from 0 on",
        SAMPLES: "how many to make",
        FIRST: "number of the first sample of the seed's sequence; 0 if it is not given",
    }
    descriptions |= {name: {"shape": [], "dtype": "int64", "meaning": meanings[name]} for name in scalars}


def _describe(model: Any, details: Mapping[str, Any]) -> None:
    """The description as metadata of the model: `input.NAME.unit` and the like, all else under its own name."""
    from onnx import helper

    flat = {key: value for key, value in details.items() if key not in ("inputs", "outputs")}
    for kind in ("input", "output"):
        for name, tensor in details[f"{kind}s"].items():
            flat |= {f"{kind}.{name}.{key}": value for key, value in tensor.items()}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in flat.items()}
    helper.set_model_props(model, texts)
    model.producer_name, model.producer_version = "hpcgan", details["written_by"].split()[-1]
    model.graph.name = details["problem"]
    model.doc_string = f"{details['problem']}: {details['run']}, epoch {details['epoch']}"


def session(path: Path, threads: int = 0) -> Any:
    """ONNX Runtime's session of a model on this machine's processor.

    Raises
    ------
    HpcganError
        ONNX Runtime does not take it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes derive from nothing else
        raise HpcganError(f"ONNX Runtime does not run the model: {str(error).splitlines()[0]}") from None


def asked(model: Any, sampler: RunSampler, n: int, seed: int, conditions: Any = None) -> dict[str, np.ndarray]:
    """What a model is fed to give the first n samples of `hpcgan.generate(run, n, seed=seed)`.

    Parameters
    ----------
    model : onnxruntime.InferenceSession
    sampler, n, seed, conditions
        As of `hpcgan.evaluation.export.request`.
    """
    fed: dict[str, np.ndarray] = request(sampler, n, seed, conditions)
    fed |= {SEED: np.array(seed, np.int64), SAMPLES: np.array(n, np.int64)}
    return {tensor.name: fed[tensor.name] for tensor in model.get_inputs()}


def share_alike(values: np.ndarray, exact: np.ndarray) -> float:
    """Share of the values that are those of the run, to `TOLERANCE` of the largest one.

    Of those that are not zero in both: most of an image are.
    """
    is_off = ~(np.abs(values - exact) <= TOLERANCE * float(np.abs(exact).max()))  # what is no number is off
    count = int(np.count_nonzero((values != 0) | (exact != 0)))
    return 1.0 - int(np.count_nonzero(is_off)) / max(1, count)


def _compare(sampler: RunSampler, path: Path) -> None:
    """Hold a written model against the run."""
    model = session(path)

    def answer(n: int, seed: int, conditions: Any) -> dict[str, np.ndarray]:
        names = [tensor.name for tensor in model.get_outputs()]
        return dict(zip(names, model.run(names, asked(model, sampler, n, seed, conditions)), strict=True))

    for name, values, exact in compared(sampler, answer):
        if values.dtype != exact.dtype or share_alike(values, exact) < LEAST_ALIKE:
            raise HpcganError(
                f"problem '{sampler.problem.name}' cannot be exported to ONNX: the model gives another '{name}'"
            )
