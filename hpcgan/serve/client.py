"""A client of `hpcgan serve`: this file, Python's own library and NumPy are all that it needs. It may be copied.

events = Client("http://127.0.0.1:8000").generate("conditional", seed=7, mGlu=[1500.0, 1600.0], mNeu=850.0)
"""

from __future__ import annotations

import http.client
import json
import math
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike

TYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1"}


class ServiceError(Exception):
    """What the service answered in place of events; `status` is that of HTTP."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status


class Client:
    """One connection to a service, for one thread at a time."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 120.0) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def generate(
        self, model: str, seed: ArrayLike, events: int | None = None, index: ArrayLike = 0, **conditions: ArrayLike
    ) -> dict[str, np.ndarray]:
        """Events as arrays by name; the same seed and index are the same event, whatever else is asked for."""
        inputs = {"seed": np.array(seed, "<i8"), "index": np.array(index, "<i8")}
        inputs |= {} if events is None else {"events": np.array(events, "<i8")}
        inputs |= {name: np.array(values, "<f8") for name, values in conditions.items()}
        arrays = {name: np.atleast_1d(array) for name, array in inputs.items()}
        tensors = [
            {"name": name, "datatype": "INT64" if a.dtype.kind == "i" else "FP64", "shape": a.shape,
             "parameters": {"binary_data_size": a.nbytes}}
            for name, a in arrays.items()
        ]  # fmt: skip
        head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
        headers = {**self._headers, "Inference-Header-Content-Length": str(len(head))}
        body = head + b"".join(a.tobytes() for a in arrays.values())
        status, length, content = self._post(f"/v2/models/{model}/infer", body, headers)
        if status != 200:
            text = content.decode(errors="replace")
            raise ServiceError(status, json.loads(text)["error"] if text.startswith("{") else text[:200])
        position = int(length)
        arrays_by_name = {}
        for tensor in json.loads(content[:position])["outputs"]:
            values = np.frombuffer(content, TYPES[tensor["datatype"]], math.prod(tensor["shape"]), position)
            arrays_by_name[tensor["name"]] = values.reshape(tensor["shape"])
            position += tensor["parameters"]["binary_data_size"]
        return arrays_by_name

    def close(self) -> None:
        """Close the connection; a later request opens another one."""
        self._connection.close()

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        """Status, length of the JSON object, and content; once more where the service closed an idle connection."""
        for is_last in (False, True):
            try:
                self._connection.request("POST", path, body, headers)
                answer = self._connection.getresponse()
                return answer.status, answer.headers.get("Inference-Header-Content-Length", "0"), answer.read()
            except BaseException as error:
                self._connection.close()  # the next request opens another one
                if is_last or not isinstance(error, ConnectionError):
                    raise
        raise AssertionError
