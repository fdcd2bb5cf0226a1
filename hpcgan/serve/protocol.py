"""The Open Inference Protocol, version 2, over HTTP: requests read, responses written. NumPy only.

The protocol is KServe's (https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol), with its
binary tensor data extension: arrays may follow the JSON object as little-endian bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.errors import InputError

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header with the length of the JSON object, where bytes follow it."""
EXTENSIONS = ("binary_tensor_data",)
DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
"""Name of a type in the protocol and in NumPy."""
MOST_JSON = 1 << 18
"""Numbers that are written as JSON, at most: text of more would keep all other requests waiting."""
_CHUNK = 1 << 20


def datatype(dtype: np.dtype[Any] | str) -> str:
    """The protocol's name of a type."""
    return next(name for name, ours in DATATYPES.items() if np.dtype(ours) == dtype)


@dataclass(frozen=True)
class Request:
    """What a request says.

    Attributes
    ----------
    id : str
        Given back in the response.
    inputs : mapping of str to array
    outputs : mapping of str to bool, or None
        The outputs that are asked for, and which of them as bytes; None: all.
    binary : bool
        Whether outputs that say nothing of it come as bytes.
    """

    id: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, bool] | None
    binary: bool


def read(body: bytes, header_length: str | None = None) -> Request:
    """A request from what was sent.

    Parameters
    ----------
    body : bytes
    header_length : str, optional
        What `HEADER_LENGTH` says.

    Raises
    ------
    InputError
        Not a request of the protocol; one line that says where.
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit() or int(header_length[:20]) > len(body):
            raise InputError(f"{HEADER_LENGTH}: '{header_length[:20]}' is no length within a body of {len(body)} bytes")
        length = int(header_length)
    try:
        raw = json.loads(body[:length], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0][:120]
        raise InputError(f"the request is no JSON object ({reason})") from None
    raw = _mapping(raw, "the request")
    binary = _parameters(raw, "the request").get("binary_data_output", False) is True
    inputs: Sample = {}
    position = length
    for item in _list(raw.get("inputs", []), "inputs"):
        name, array, position = tensor(item, body, position)
        if name in inputs:
            raise InputError(f"inputs: '{name[:40]}' is given twice")
        inputs[name] = array
    if position != len(body):
        raise InputError(f"{len(body) - position} bytes follow the request that no input claims")
    outputs = None
    if raw.get("outputs") is not None:
        outputs = {}
        for item in _list(raw["outputs"], "outputs"):
            name = _name(_mapping(item, "outputs"), "outputs")
            outputs[name] = _parameters(item, f"outputs: '{name[:40]}'").get("binary_data", binary) is True
    return Request(str(raw.get("id", ""))[:200], inputs, outputs, binary)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: needed is a JSON object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: needed is a list")
    return value


def _parameters(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    return _mapping(item.get("parameters") or {}, f"{where}: parameters")


def _name(item: Mapping[str, Any], where: str) -> str:
    name = item.get("name")
    if not isinstance(name, str):
        raise InputError(f"{where}: a tensor has no 'name'")
    return name


def tensor(item: Any, body: bytes, position: int) -> tuple[str, np.ndarray, int]:
    """Name and array of an input, and where the bytes of the next one begin.

    Parameters
    ----------
    item : object
        As it stands in the JSON object.
    body : bytes
    position : int
        Where its bytes begin, if it comes as bytes.

    Raises
    ------
    InputError
        Not of the protocol.
    """
    item = _mapping(item, "inputs")
    name = _name(item, "inputs")
    where = f"inputs: '{name[:40]}'"
    dtype = DATATYPES.get(str(item.get("datatype")))
    if dtype is None:
        raise InputError(f"{where}: datatype {str(item.get('datatype'))[:20]!r} is none of {', '.join(DATATYPES)}")
    shape = _list(item.get("shape"), f"{where}: shape")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**31 for n in shape) or len(shape) > 8:
        raise InputError(f"{where}: shape {str(shape)[:60]} is no list of lengths")
    size = _parameters(item, where).get("binary_data_size")
    if size is None:
        return name, _of_json(item.get("data"), shape, dtype, where), position
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if isinstance(size, bool) or not isinstance(size, int) or size != needed:
        raise InputError(f"{where}: binary_data_size is {str(size)[:20]}, shape and datatype take {needed} bytes")
    if position + size > len(body):
        raise InputError(f"{where}: the request ends before its {size} bytes do")
    little = np.dtype(dtype).newbyteorder("<")
    array = np.frombuffer(body, little, math.prod(shape), position).reshape(shape).astype(dtype)
    return name, array, position + size


def _of_json(data: Any, shape: list[int], dtype: str, where: str) -> np.ndarray:
    try:
        array = np.asarray(_list(data, f"{where}: data"))
    except (ValueError, RecursionError, OverflowError):  # lists of unequal length, or in one another a thousand times
        array = np.asarray(None)
    if array.size and array.dtype.kind not in ("b" if dtype == "bool" else "iuf"):
        raise InputError(f"{where}: data does not hold {dtype} numbers")
    if array.size != math.prod(shape):
        raise InputError(f"{where}: data has {array.size} numbers, shape {shape} takes {math.prod(shape)}")
    whole = np.dtype(dtype).kind in "iu"
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
        if whole and array.size and not np.array_equal(converted, array):
            raise InputError(f"{where}: data holds numbers that are no {dtype}")
    return converted.reshape(shape)


def chosen(request: Request, events: Sample) -> dict[str, tuple[np.ndarray, bool]]:
    """The outputs that a request asks for, and whether each comes as bytes.

    Raises
    ------
    InputError
        There is no such output, or it is too large to be written as JSON.
    """
    outputs = dict.fromkeys(events, request.binary) if request.outputs is None else request.outputs
    for name in outputs:
        if name not in events:
            raise InputError(f"outputs: '{name[:40]}' is none of {', '.join(events)}")
    return {name: (events[name], binary) for name, binary in outputs.items()}


def check_size(request: Request, numbers: Mapping[str, int]) -> None:
    """Refuse outputs that do not exist or are too large to be written as JSON, before anything is made.

    Parameters
    ----------
    request : Request
    numbers : mapping of str to int
        How many numbers each output is going to have.

    Raises
    ------
    InputError
        As told.
    """
    sizes = {name: np.broadcast_to(np.float32(0), (n,)) for name, n in numbers.items()}
    text = sum(array.size for array, binary in chosen(request, sizes).values() if not binary)
    if text > MOST_JSON:
        raise InputError(
            f"outputs: {text} numbers as JSON, at most {MOST_JSON}; ask for bytes (parameters: binary_data_output) or "
            "for fewer events"
        )


def write(model: str, version: str, request: Request, events: Sample) -> tuple[bytes, list[np.ndarray]]:
    """A response: the JSON object, and the arrays of which the bytes follow it, in this order."""
    outputs: list[dict[str, Any]] = []
    arrays = []
    for name, (array, binary) in chosen(request, events).items():
        entry: dict[str, Any] = {"name": name, "datatype": datatype(array.dtype), "shape": list(array.shape)}
        if binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            arrays.append(array)
        else:
            entry["data"] = array.reshape(-1).tolist()
        outputs.append(entry)
    content = {"model_name": model, "model_version": version, "id": request.id, "outputs": outputs}
    return json.dumps(content).encode(), arrays


def chunks(array: np.ndarray) -> Iterator[bytes]:
    """An array as little-endian bytes, a part at a time."""
    little = np.ascontiguousarray(array, np.dtype(array.dtype).newbyteorder("<"))
    view = little.reshape(-1).view(np.uint8).data
    for start in range(0, len(view), _CHUNK):
        yield bytes(view[start : start + _CHUNK])
