"""A pipe between the service and a worker: a header in JSON, and arrays as they are in memory. Nothing is pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

Header = Mapping[str, Any]


def send(pipe: Connection, header: Header, arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """Send a message; OSError if nobody reads it any more."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    tensors = [[name, array.dtype.str, list(array.shape)] for name, array in contiguous.items()]
    pipe.send_bytes(json.dumps({**header, "tensors": tensors}).encode())
    for array in contiguous.values():
        if array.nbytes:
            pipe.send_bytes(array.reshape(-1).view(np.uint8).data)


def receive(pipe: Connection) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Wait for a message; EOFError or OSError once the other side has ended."""
    header = json.loads(pipe.recv_bytes())
    arrays = {}
    for name, dtype, shape in header.pop("tensors"):
        array = np.empty(math.prod(shape), dtype)
        if array.nbytes:
            pipe.recv_bytes_into(array.view(np.uint8).data)
        arrays[name] = array.reshape(shape)
    return header, arrays
